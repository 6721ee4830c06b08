package sandbox

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// setupRoles are what an application needs to set another up: the four
// permissions of which documentation says so.
var setupRoles = []string{"Application.ReadWrite.OwnedBy", "Application.Read.All", "AppRoleAssignment.ReadWrite.All", "DelegatedPermissionGrant.ReadWrite.All"}

const setupScopes = "Application.ReadWrite.All AppRoleAssignment.ReadWrite.All DelegatedPermissionGrant.ReadWrite.All Directory.Read.All User.Read"

const newApp = `{"displayName":"o365pw alice","signInAudience":"AzureADMyOrg","tags":["o365pw"],"notes":null,
"publicClient":{"redirectUris":["http://localhost"]},"isFallbackPublicClient":true,
"requiredResourceAccess":[{"resourceAppId":"00000002-0000-0ff1-ce00-000000000000","resourceAccess":[
{"id":"5e5addcd-3e8d-4e90-baf5-964efab2b20a","type":"Role"},{"id":"195adc35-e27b-454b-a7ed-1ecdffa1c09f","type":"Scope"}]}]}`

// upsert creates or updates the application called o365pw-alice.
func upsert(t *testing.T, s *Server, bearer, body string) response {
	t.Helper()
	return send(t, "PATCH", s.Graph()+"/applications(uniqueName='o365pw-alice')", "application/json", body,
		"Authorization", "Bearer "+bearer, "Prefer", "create-if-missing")
}

// must is a Graph call that has to have the status.
func must(t *testing.T, s *Server, bearer, method, path, body string, status int) response {
	t.Helper()
	r := graphCall(t, s, bearer, method, path, body)
	if r.status != status {
		t.Fatalf("%s %s: %d %s %v", method, path, r.status, r.text, r.err)
	}
	return r
}

// madeApp is an application made by upsert, with a service principal.
func madeApp(t *testing.T, s *Server, bearer string) (objectID, clientID, principalID string) {
	t.Helper()
	r := upsert(t, s, bearer, newApp)
	if r.status != 201 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	objectID, clientID = r.body["id"].(string), r.body["appId"].(string)
	p := must(t, s, bearer, "POST", "/servicePrincipals", `{"appId":"`+clientID+`"}`, 201)
	return objectID, clientID, p.body["id"].(string)
}

func exchangePrincipal(t *testing.T, s *Server, bearer string) string {
	t.Helper()
	r := must(t, s, bearer, "GET", "/servicePrincipals(appId='"+exchangeAppID+"')?$select=id", "", 200)
	return r.body["id"].(string)
}

// The whole of what sets an organisation up, twice: by an administrator, and
// by an application that owns what it makes.
func TestSetUp(t *testing.T) {
	s := start(t, &Server{AdminRoles: setupRoles})
	for name, bearer := range map[string]string{
		"administrator": delegated(t, s, "alice@contoso.com", setupScopes), "application": graphBearer(t, s),
	} {
		t.Run(name, func(t *testing.T) {
			object, id, principal := madeApp(t, s, bearer)
			if r := upsert(t, s, bearer, newApp); r.status != 204 || r.text != "" {
				t.Errorf("again: %d %s", r.status, r.text)
			}
			r := must(t, s, bearer, "GET", "/applications(uniqueName='o365pw-alice')", "", 200)
			if r.body["id"] != object || r.body["appId"] != id || r.body["uniqueName"] != "o365pw-alice" || r.body["displayName"] != "o365pw alice" ||
				r.body["isFallbackPublicClient"] != true || !strings.Contains(r.text, `"tags":["o365pw"]`) || !strings.Contains(r.text, "195adc35-e27b-454b-a7ed-1ecdffa1c09f") {
				t.Errorf("made: %s", r.text)
			}
			must(t, s, bearer, "PATCH", "/applications(appId='"+id+"')", `{"displayName":"renamed","notes":"{}"}`, 204)
			if r := must(t, s, bearer, "GET", "/applications/"+object+"?$select=displayName,notes,tags", "", 200); r.body["displayName"] != "renamed" || r.body["notes"] != "{}" || len(r.body["tags"].([]any)) != 1 {
				t.Errorf("changed: %s", r.text)
			}

			// Made, but without permissions: a token without roles.
			secret := must(t, s, bearer, "POST", "/applications/"+object+"/addPassword", "", 200).body["secretText"].(string)
			if roles := r0(s.token(appToken(t, s, id, secret, exchangeResource))).roles; len(roles) != 0 {
				t.Errorf("roles without a grant: %v", roles)
			}
			exchange := exchangePrincipal(t, s, bearer)
			for _, role := range []string{"5e5addcd-3e8d-4e90-baf5-964efab2b20a", "cb842b43-da6e-4506-86fe-bb12199c656d", "7146a1f0-8703-45b3-9eae-527a64c00995"} {
				r := must(t, s, bearer, "POST", "/servicePrincipals/"+principal+"/appRoleAssignments",
					fmt.Sprintf(`{"principalId":%q,"resourceId":%q,"appRoleId":%q}`, principal, exchange, role), 201)
				if r.body["principalType"] != "ServicePrincipal" || r.body["resourceDisplayName"] != "Office 365 Exchange Online" {
					t.Errorf("assignment: %s", r.text)
				}
			}
			var listed []string
			for next := "/servicePrincipals/" + principal + "/appRoleAssignments"; next != ""; {
				r := must(t, s, bearer, "GET", next, "", 200)
				for _, v := range r.body["value"].([]any) {
					listed = append(listed, v.(map[string]any)["id"].(string))
				}
				next, _ = r.body["@odata.nextLink"].(string)
			}
			if len(listed) != 3 {
				t.Errorf("assignments: %v", listed)
			}
			must(t, s, bearer, "DELETE", "/servicePrincipals/"+principal+"/appRoleAssignments/"+listed[0], "", 204)
			if roles := r0(s.token(appToken(t, s, id, secret, exchangeResource))).roles; strings.Join(roles, " ") != "POP.AccessAsApp SMTP.SendAsApp" {
				t.Errorf("roles: %v", roles)
			}

			// People: nothing is consented to before the grant.
			q := authorizeQuery(s)
			q.Set("client_id", id)
			q.Set("scope", exchangeDelegated+"/IMAP.AccessAsUser.All offline_access")
			if got := redirected(t, authorize(t, s, q)); !strings.Contains(got.Get("error_description"), "AADSTS65001") {
				t.Errorf("no consent: %v", got)
			}
			grant := func(scope string) string {
				return fmt.Sprintf(`{"clientId":%q,"consentType":"AllPrincipals","principalId":null,"resourceId":%q,"scope":%q}`, principal, exchange, scope)
			}
			r = must(t, s, bearer, "POST", "/oauth2PermissionGrants", grant("POP.AccessAsUser.All offline_access"), 201)
			if again := graphCall(t, s, bearer, "POST", "/oauth2PermissionGrants", grant("SMTP.Send")); again.status != 409 || graphCode(again) != "Request_MultipleObjectsWithSameKeyValue" {
				t.Errorf("a second grant: %d %s", again.status, again.text)
			}
			must(t, s, bearer, "PATCH", "/oauth2PermissionGrants/"+r.body["id"].(string), `{"scope":"IMAP.AccessAsUser.All SMTP.Send offline_access"}`, 204)
			r = must(t, s, bearer, "GET", "/oauth2PermissionGrants?$filter="+url.QueryEscape("clientId eq '"+principal+"'"), "", 200)
			if value := r.body["value"].([]any); len(value) != 1 || value[0].(map[string]any)["scope"] != "IMAP.AccessAsUser.All SMTP.Send offline_access" {
				t.Errorf("grants: %s", r.text)
			}
			if got := signIn(t, s, q, url.Values{"user": {"bob@contoso.com"}, "action": {"accept"}}); got.Get("code") == "" {
				t.Errorf("consented: %v", got)
			}

			must(t, s, bearer, "PATCH", "/servicePrincipals/"+principal, `{"accountEnabled":false}`, 204)
			if r := postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource)); aadsts(r) != 7000112 {
				t.Errorf("disabled: %s", r.text)
			}
			must(t, s, bearer, "DELETE", "/applications/"+object, "", 204)
			if r := postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource)); aadsts(r) != 700016 {
				t.Errorf("deleted: %s", r.text)
			}
			must(t, s, bearer, "GET", "/servicePrincipals/"+principal, "", 404)
		})
	}
}

func TestSetUpIsStrict(t *testing.T) {
	s := start(t, &Server{})
	bearer := delegated(t, s, "alice@contoso.com", setupScopes)
	object, id, principal := madeApp(t, s, bearer)
	exchange := exchangePrincipal(t, s, bearer)
	_, mailID := s.MailApp()
	self, assign := "/applications/"+object, "/servicePrincipals/"+principal+"/appRoleAssignments"
	role := func(principal, resource, role string) string {
		return fmt.Sprintf(`{"principalId":%q,"resourceId":%q,"appRoleId":%q}`, principal, resource, role)
	}
	const imap, none = "5e5addcd-3e8d-4e90-baf5-964efab2b20a", "7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10"
	must(t, s, bearer, "POST", assign, role(principal, exchange, imap), 201)
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"missing and no Prefer", "PATCH", "/applications(uniqueName='other')", newApp, 404, "other"},
		{"unique name is immutable", "PATCH", self, `{"uniqueName":"x"}`, 400, "uniqueName"},
		{"no name", "POST", "/applications", `{}`, 400, "displayName"},
		{"empty name", "PATCH", self, `{"displayName":""}`, 400, "displayName"},
		{"null name", "PATCH", self, `{"displayName":null}`, 400, "displayName"},
		{"long name", "PATCH", self, `{"displayName":"` + strings.Repeat("x", 121) + `"}`, 400, "displayName"},
		{"misspelt", "PATCH", self, `{"displayname":"x"}`, 400, "displayname"},
		{"blank in a tag", "PATCH", self, `{"tags":["a b"]}`, 400, "tags"},
		{"tag twice", "PATCH", self, `{"tags":["a","a"]}`, 400, "tags"},
		{"tags are text", "PATCH", self, `{"tags":"a"}`, 400, "tags"},
		{"null tags", "PATCH", self, `{"tags":null}`, 400, "tags"},
		{"null tag", "PATCH", self, `{"tags":[null]}`, 400, "tags"},
		{"audience", "PATCH", self, `{"signInAudience":"Everybody"}`, 400, "signInAudience"},
		{"flag is text", "PATCH", self, `{"isFallbackPublicClient":"true"}`, 400, "isFallbackPublicClient"},
		{"http elsewhere", "PATCH", self, `{"publicClient":{"redirectUris":["http://contoso.com"]}}`, 400, "redirectUris"},
		{"IPv6 loopback", "PATCH", self, `{"publicClient":{"redirectUris":["http://[::1]"]}}`, 400, "redirectUris"},
		{"public client is null", "PATCH", self, `{"publicClient":null}`, 400, "publicClient"},
		{"unknown permission", "PATCH", self, `{"requiredResourceAccess":[{"resourceAppId":"` + exchangeAppID + `","resourceAccess":[{"id":"` + none + `","type":"Role"}]}]}`, 400, "no such permission"},
		{"role as scope", "PATCH", self, `{"requiredResourceAccess":[{"resourceAppId":"` + exchangeAppID + `","resourceAccess":[{"id":"` + imap + `","type":"Scope"}]}]}`, 400, "no such permission"},
		{"type of access", "PATCH", self, `{"requiredResourceAccess":[{"resourceAppId":"` + exchangeAppID + `","resourceAccess":[{"id":"` + imap + `","type":"role"}]}]}`, 400, "type"},
		{"certificate is none", "PATCH", self, `{"keyCredentials":[{"type":"AsymmetricX509Cert","usage":"Verify","key":"AAAA"}]}`, 400, "key"},
		{"no body", "PATCH", self, ``, 400, "not JSON"},
		{"principal of nothing", "POST", "/servicePrincipals", `{"appId":"` + none + `"}`, 400, "does not reference a valid application"},
		{"principal of an object id", "POST", "/servicePrincipals", `{"appId":"` + object + `"}`, 400, "does not reference a valid application"},
		{"principal twice", "POST", "/servicePrincipals", `{"appId":"` + id + `"}`, 409, "already in use"},
		{"principal by client id", "GET", "/servicePrincipals/" + id, "", 404, id},
		{"roles of an application's object id", "POST", "/servicePrincipals/" + object + "/appRoleAssignments", role(object, exchange, imap), 404, object},
		{"another's principal", "POST", assign, role(s.dir.mail.principalID, exchange, imap), 400, "principalId"},
		{"client id as principal", "POST", assign, role(id, exchange, imap), 400, "principalId"},
		{"app id as resource", "POST", assign, role(principal, exchangeAppID, imap), 404, exchangeAppID},
		{"role of another resource", "POST", assign, role(principal, s.dir.graph.principalID, imap), 400, "was not found"},
		{"role twice", "POST", assign, role(principal, exchange, imap), 400, "already exists on the object"},
		{"no role", "POST", assign, `{"principalId":"` + principal + `","resourceId":"` + exchange + `"}`, 400, "appRoleId"},
		{"unknown scope", "POST", "/oauth2PermissionGrants", fmt.Sprintf(`{"clientId":%q,"consentType":"AllPrincipals","resourceId":%q,"scope":"IMAP.All"}`, principal, exchange), 400, "scope"},
		{"grant without type", "POST", "/oauth2PermissionGrants", fmt.Sprintf(`{"clientId":%q,"resourceId":%q,"scope":"SMTP.Send"}`, principal, exchange), 400, "consentType"},
		{"grant for nobody", "POST", "/oauth2PermissionGrants", fmt.Sprintf(`{"clientId":%q,"consentType":"Principal","resourceId":%q,"scope":"SMTP.Send"}`, principal, exchange), 400, "principalId"},
		{"grant for a client id", "POST", "/oauth2PermissionGrants", fmt.Sprintf(`{"clientId":%q,"consentType":"AllPrincipals","resourceId":%q,"scope":"SMTP.Send"}`, mailID, exchange), 404, mailID},
		{"filter of grants", "GET", "/oauth2PermissionGrants?$filter=scope+eq+'x'", "", 400, "filter"},
		{"PUT", "PUT", self, newApp, 405, "not allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := graphCall(t, s, bearer, test.method, test.path, test.body)
			if r.status != test.status || !strings.Contains(r.text, test.text) {
				t.Errorf("%d %s", r.status, r.text)
			}
		})
	}
	if r := must(t, s, bearer, "GET", self, "", 200); r.body["displayName"] != "o365pw alice" || len(r.body["tags"].([]any)) != 1 {
		t.Errorf("something was carried out: %s", r.text)
	}
}

func TestSetUpPermissions(t *testing.T) {
	exchangeRole := func(t *testing.T, s *Server, bearer, principal string) response {
		return graphCall(t, s, bearer, "POST", "/servicePrincipals/"+principal+"/appRoleAssignments", fmt.Sprintf(
			`{"principalId":%q,"resourceId":%q,"appRoleId":"dc890d15-9560-4a4c-9b7f-a736ec74ec40"}`, principal, s.dir.exchange.principalID))
	}
	for _, test := range []struct {
		roles               []string
		create, grant, user int
	}{
		{[]string{"Application.ReadWrite.OwnedBy"}, 201, 403, 403},
		{[]string{"Application.ReadWrite.OwnedBy", "AppRoleAssignment.ReadWrite.All"}, 201, 403, 403},
		{[]string{"Application.Read.All", "AppRoleAssignment.ReadWrite.All", "User.Read.All"}, 403, 201, 200},
		{[]string{"Application.ReadWrite.All", "AppRoleAssignment.ReadWrite.All"}, 201, 201, 403},
		{setupRoles, 201, 201, 403},
	} {
		s := start(t, &Server{AdminRoles: test.roles})
		bearer := graphBearer(t, s)
		if r := upsert(t, s, bearer, newApp); r.status != test.create {
			t.Errorf("%v: create: %d %s", test.roles, r.status, r.text)
		}
		if r := exchangeRole(t, s, bearer, s.dir.mail.principalID); r.status != test.grant {
			t.Errorf("%v: grant: %d %s", test.roles, r.status, r.text)
		}
		if r := graphCall(t, s, bearer, "GET", "/users/bob@contoso.com", ""); r.status != test.user {
			t.Errorf("%v: user: %d %s", test.roles, r.status, r.text)
		}
	}

	s := start(t, &Server{})
	bob := delegated(t, s, "bob@contoso.com", setupScopes)
	if r := upsert(t, s, bob, newApp); r.status != 403 {
		t.Errorf("nobody's application: %d %s", r.status, r.text)
	}
	if r := exchangeRole(t, s, bob, s.dir.mail.principalID); r.status != 403 {
		t.Errorf("nobody's grant: %d %s", r.status, r.text)
	}
	if r := graphCall(t, s, graphBearer(t, s), "POST", "/servicePrincipals", `{"appId":"`+s.dir.login.clientID+`"}`); r.status != 403 {
		t.Errorf("principal of what it does not own: %d %s", r.status, r.text)
	}
	if err := (&Server{AdminRoles: []string{"Application.Write"}}).Start(); err == nil || !strings.Contains(err.Error(), "Application.Write") {
		t.Errorf("unknown role: %v", err)
	}
}
