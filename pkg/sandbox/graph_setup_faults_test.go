package sandbox

import (
	"fmt"
	"net/url"
	"testing"
	"time"
)

// fixed is a clock that moves by FastForward alone.
func fixed() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}

func TestAppReplicationDelay(t *testing.T) {
	s := start(t, &Server{AdminRoles: setupRoles, Now: fixed()})
	bearer := graphBearer(t, s)
	s.SetFaults(func(f *Faults) { f.AppReplicationDelay = time.Minute })
	r := upsert(t, s, bearer, newApp)
	object, id := r.body["id"].(string), r.body["appId"].(string)
	for _, path := range []string{"/applications/" + object, "/applications(appId='" + id + "')", "/applications(uniqueName='o365pw-alice')"} {
		must(t, s, bearer, "GET", path, "", 404)
	}
	must(t, s, bearer, "POST", "/applications/"+object+"/addPassword", "", 404)
	must(t, s, bearer, "PATCH", "/applications/"+object, `{"tags":[]}`, 404)
	if r := must(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+id+`"}`, 403); graphCode(r) != "Authorization_RequestDenied" {
		t.Errorf("%s", r.text)
	}
	if r := upsert(t, s, bearer, newApp); r.status != 204 {
		t.Errorf("a name is taken at once: %d %s", r.status, r.text)
	}
	if r := must(t, s, bearer, "GET", "/applications?$select=appId&$filter="+url.QueryEscape("appId eq '"+id+"'"), "", 200); len(r.body["value"].([]any)) != 0 {
		t.Errorf("listed: %s", r.text)
	}
	if r := postForm(t, s.tokenURL(), credentialsForm(id, "x", exchangeResource)); aadsts(r) != 700016 {
		t.Errorf("token: %s", r.text)
	}

	s.FastForward(time.Minute)
	secret := must(t, s, bearer, "POST", "/applications/"+object+"/addPassword", "", 200).body["secretText"].(string)
	token := credentialsForm(id, secret, exchangeResource)
	if r := postForm(t, s.tokenURL(), token); aadsts(r) != 7000229 {
		t.Errorf("no service principal: %s", r.text)
	}
	principal := must(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+id+`"}`, 201).body["id"].(string)
	role := fmt.Sprintf(`{"principalId":%q,"resourceId":%q,"appRoleId":"5e5addcd-3e8d-4e90-baf5-964efab2b20a"}`, principal, s.dir.exchange.principalID)
	must(t, s, bearer, "POST", "/servicePrincipals/"+principal+"/appRoleAssignments", role, 404)
	if r := postForm(t, s.tokenURL(), token); aadsts(r) != 7000229 {
		t.Errorf("young service principal: %s", r.text)
	}
	s.FastForward(time.Minute)
	s.SetFaults(func(f *Faults) { f.GrantDelay = time.Minute })
	must(t, s, bearer, "POST", "/servicePrincipals/"+principal+"/appRoleAssignments", role, 201)
	if roles := r0(s.token(appToken(t, s, id, secret, exchangeResource))).roles; len(roles) != 0 {
		t.Errorf("roles at once: %v", roles)
	}
	s.FastForward(time.Minute)
	if roles := r0(s.token(appToken(t, s, id, secret, exchangeResource))).roles; len(roles) != 1 {
		t.Errorf("roles after a while: %v", roles)
	}
}

func TestLostWrites(t *testing.T) {
	s := start(t, &Server{AdminRoles: setupRoles})
	bearer := graphBearer(t, s)
	s.SetFaults(func(f *Faults) { f.LoseWriteNext = 1 })
	if r := graphCall(t, s, bearer, "POST", "/applications", `{}`); r.status != 400 {
		t.Errorf("a refusal is not lost: %d %v", r.status, r.err)
	}
	if r := upsert(t, s, bearer, newApp); r.err == nil {
		t.Errorf("lost: %d", r.status)
	}
	if r := upsert(t, s, bearer, newApp); r.status != 204 {
		t.Errorf("it was made: %d", r.status)
	}
	id := must(t, s, bearer, "GET", "/applications(uniqueName='o365pw-alice')?$select=appId", "", 200).body["appId"].(string)
	s.SetFaults(func(f *Faults) { f.SkipWrites, f.DropWriteNext = 1, 1 })
	must(t, s, bearer, "POST", "/applications", `{}`, 400) // which is not the one skipped
	if r := upsert(t, s, bearer, newApp); r.status != 204 {
		t.Errorf("skipped: %d", r.status)
	}
	if r := graphCall(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+id+`"}`); r.err == nil {
		t.Errorf("dropped: %d", r.status)
	}
	must(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+id+`"}`, 201)
}

func TestNoServicePrincipalIsMended(t *testing.T) {
	s := start(t, &Server{AdminRoles: setupRoles})
	bearer := graphBearer(t, s)
	_, id := s.MailApp()
	_, secret := newPassword(t, s, bearer, "x")
	before := s.dir.mail.principalID
	s.SetFaults(func(f *Faults) { f.NoServicePrincipal = true })
	must(t, s, bearer, "GET", "/servicePrincipals/"+before, "", 404)
	if r := must(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+id+`"}`, 201); r.body["id"] == before {
		t.Error("the object id is not new")
	}
	if roles := r0(s.token(appToken(t, s, id, secret, exchangeResource))).roles; len(roles) != 0 {
		t.Errorf("roles: %v", roles)
	}
}

func TestTenantFaults(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	_, id := s.MailApp()
	_, secret := newPassword(t, s, bearer, "x")
	for _, test := range []struct {
		name   string
		set    func(*Faults)
		app    int
		person int
	}{
		{"none", func(*Faults) {}, 0, 0},
		{"no Exchange", func(f *Faults) { f.NoExchange = true }, 500011, 500011},
		{"no licence", func(f *Faults) { f.NoLicence = true }, 650052, 650052},
		{"no consent", func(f *Faults) { f.NoConsent = true }, 0, 65001},
		{"sign-in frequency", func(f *Faults) { f.SignInFrequency = true }, 0, 70043},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.SetFaults(func(f *Faults) { *f = Faults{} })
			token := mailRefreshToken(t, s)
			s.SetFaults(test.set)
			if r := postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource)); aadsts(r) != test.app {
				t.Errorf("application: %d %s", r.status, r.text)
			}
			r := postForm(t, s.tokenURL(), url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {token}})
			if aadsts(r) != test.person {
				t.Errorf("person: %d %s", r.status, r.text)
			}
			want := 200
			if s.CurrentFaults().NoExchange {
				want = 404
			}
			must(t, s, bearer, "GET", "/servicePrincipals(appId='"+exchangeAppID+"')", "", want)
		})
	}
}

// mailRefreshToken is a refresh token of bob's for the mail application.
func mailRefreshToken(t *testing.T, s *Server) string {
	t.Helper()
	_, id := s.MailApp()
	q := authorizeQuery(s)
	q.Set("client_id", id)
	q.Set("scope", exchangeDelegated+"/IMAP.AccessAsUser.All offline_access")
	form := codeForm(s, signIn(t, s, q, url.Values{"user": {"bob@contoso.com"}, "action": {"accept"}}).Get("code"))
	form.Set("client_id", id)
	token, _ := postForm(t, s.tokenURL(), form).body["refresh_token"].(string)
	if token == "" {
		t.Fatal("no refresh token")
	}
	return token
}
