package sandbox

import (
	"net/url"
	"strings"
	"testing"
)

// at is the URL of an endpoint of Entra for a tenant.
func (s *Server) at(tenant, endpoint string) string {
	return s.Authority() + "/" + tenant + "/oauth2/v2.0/" + endpoint
}

// signInAt signs somebody in to their mail by code, and gives the answer to the
// token request, or the page that refuses.
func signInAt(t *testing.T, s *Server, tenant, client, user string) response {
	t.Helper()
	q := authorizeQuery(s)
	q.Set("client_id", client)
	q.Set("scope", exchangeDelegated+"/IMAP.AccessAsUser.All offline_access openid email")
	r := send(t, "GET", s.at(tenant, "authorize")+"?"+q.Encode(), "", "")
	m := requestField.FindStringSubmatch(r.text)
	if m == nil {
		return r
	}
	r = postForm(t, s.at(tenant, "signin"), url.Values{"request": {m[1]}, "user": {user}, "action": {"accept"}})
	if r.status != 302 {
		return r
	}
	form := codeForm(s, redirected(t, r).Get("code"))
	form.Set("client_id", client)
	return postForm(t, s.at(tenant, "token"), form)
}

func TestTenants(t *testing.T) {
	s := start(t, &Server{Mailboxes: []Mailbox{
		{Address: "carol@outlook.com", Personal: true},
		{Address: "alice@contoso.com", UPN: "a.smith@contoso.onmicrosoft.com"},
	}})
	_, mail := s.MailApp()
	both := s.PersonalClientID()
	const carol, alice = "carol@outlook.com", "a.smith@contoso.onmicrosoft.com"
	for _, test := range []struct {
		tenant, client, user string
		want                 string // in the page or answer that refuses
	}{
		{s.Tenant, mail, alice, ""},
		{s.Tenant, both, alice, ""},
		{"organizations", both, alice, ""},
		{"common", both, alice, ""},
		{"common", both, carol, ""},
		{"consumers", both, carol, ""},
		{consumerTenant, both, carol, ""},
		{s.Tenant, both, carol, "AADSTS50020"},
		{"organizations", both, carol, "AADSTS50020"},
		{"consumers", both, alice, "AADSTS50034"},
		{"common", mail, alice, "AADSTS50194"},
		{"organizations", mail, alice, "AADSTS50194"},
		{"consumers", mail, carol, "AADSTS700016"},
		{s.Tenant, mail, "alice@contoso.com", "AADSTS50034"},
		{"fabrikam.example", both, alice, "AADSTS90002"},
	} {
		r := signInAt(t, s, test.tenant, test.client, test.user)
		token, _ := r.body["access_token"].(string)
		if (token != "") != (test.want == "") || !strings.Contains(r.text, test.want) {
			t.Errorf("%s at %s: %d %s", test.user, test.tenant, r.status, r.text)
			continue
		}
		if token == "" {
			continue
		}
		claims := verifyIDToken(t, s, r.body["id_token"].(string))
		if test.user == carol {
			if claims["tid"] != consumerTenant || claims["iss"] != s.Authority()+"/"+consumerTenant+"/v2.0" || claims["email"] != carol || strings.Contains(token, ".") {
				t.Errorf("carol: %v %.20s", claims, token)
			}
			if !s.opens(s.token(token), carol, "IMAP") || s.opens(s.token(token), "alice@contoso.com", "IMAP") {
				t.Error("carol's token opens another mailbox than hers")
			}
		} else if claims["tid"] != s.Tenant || claims["preferred_username"] != alice || claims["email"] != "alice@contoso.com" || strings.Count(token, ".") != 2 {
			t.Errorf("alice: %v %.20s", claims, token)
		}
		// A refresh token is good where its person is.
		refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {test.client}, "refresh_token": {r.body["refresh_token"].(string)}}
		if again := postForm(t, s.at(test.tenant, "token"), refresh); again.status != 200 {
			t.Errorf("%s at %s again: %s", test.user, test.tenant, again.text)
		}
		elsewhere := "consumers"
		if test.user == carol {
			elsewhere = s.Tenant
		}
		if again := postForm(t, s.at(elsewhere, "token"), refresh); again.status != 400 {
			t.Errorf("%s at %s: %s", test.user, elsewhere, again.text)
		}
	}
	id, secret := s.AdminClient()
	if r := postForm(t, s.at("consumers", "token"), credentialsForm(id, secret, graphResource)); aadsts(r) != 9001023 {
		t.Errorf("an application: %s", r.text)
	}
	for tenant, want := range map[string]string{"consumers": consumerTenant, "common": "{tenantid}", s.Domain: s.Tenant} {
		r := send(t, "GET", s.Authority()+"/"+tenant+"/v2.0/.well-known/openid-configuration", "", "")
		if r.body["issuer"] != s.Authority()+"/"+want+"/v2.0" {
			t.Errorf("%s: %s", tenant, r.text)
		}
	}
}

// The page offers those who can sign in there; the first of them is who
// AutoSignIn means, and the tenant's first is its administrator.
func TestWhoSignsIn(t *testing.T) {
	s := start(t, &Server{AutoSignIn: true, Mailboxes: []Mailbox{
		{Address: "carol@outlook.com", Personal: true}, {Address: "alice@contoso.com"}, {Address: "bob@contoso.com"},
	}})
	for tenant, want := range map[string]string{"consumers": "carol@outlook.com", "common": "carol@outlook.com", s.Tenant: "alice@contoso.com"} {
		q := authorizeQuery(s)
		q.Set("client_id", s.PersonalClientID())
		q.Set("scope", "User.Read openid")
		form := codeForm(s, redirected(t, send(t, "GET", s.at(tenant, "authorize")+"?"+q.Encode(), "", "")).Get("code"))
		form.Set("client_id", s.PersonalClientID())
		r := postForm(t, s.at(tenant, "token"), form)
		token, _ := r.body["access_token"].(string)
		me := must(t, s, token, "GET", "/me?$select=mail", "", 200)
		if me.body["mail"] != want {
			t.Errorf("%s: %s", tenant, me.text)
		}
		org := must(t, s, token, "GET", "/organization?$select=id", "", 200)
		if n := len(org.body["value"].([]any)); (n == 0) != (want == "carol@outlook.com") {
			t.Errorf("%s: organisations: %s", tenant, org.text)
		}
	}
	for i, p := range s.dir.people {
		if p.admin != (i == 1) {
			t.Errorf("%s: administrator %v", p.upn, p.admin)
		}
	}
}

func TestDeviceCodeBlocked(t *testing.T) {
	s := start(t, &Server{AutoSignIn: true})
	r := postForm(t, s.at(s.Tenant, "devicecode"), url.Values{"client_id": {s.LoginClientID()}, "scope": {"User.Read"}})
	poll := url.Values{"grant_type": {deviceGrant}, "client_id": {s.LoginClientID()}, "device_code": {r.body["device_code"].(string)}}
	s.SetFaults(func(f *Faults) { f.DeviceCodeBlocked = true })
	if r := postForm(t, s.tokenURL(), poll); aadsts(r) != 53003 || r.body["error"] != "invalid_grant" {
		t.Errorf("%d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.DeviceCodeBlocked = false })
	if r := postForm(t, s.tokenURL(), poll); r.status != 200 {
		t.Errorf("allowed again: %s", r.text)
	}
}
