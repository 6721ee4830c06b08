package sandbox

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPasswordLife(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	for _, app := range []string{"/applications/" + object, "/applications(appId='" + id + "')"} {
		r := graphCall(t, s, bearer, "POST", app+"/addPassword",
			`{"passwordCredential":{"displayName":"Outlook on Mac","endDateTime":"2099-05-01T00:00:00Z"}}`)
		secret, _ := r.body["secretText"].(string)
		keyID, _ := r.body["keyId"].(string)
		if r.status != 200 || !regexp.MustCompile(`^[A-Za-z0-9]{3}8Q~[A-Za-z0-9~._-]{34}$`).MatchString(secret) || r.body["hint"] != secret[:3] ||
			!isGUID(keyID) || r.body["displayName"] != "Outlook on Mac" || r.body["endDateTime"] != "2099-05-01T00:00:00Z" ||
			r.body["customKeyIdentifier"] != nil || !strings.HasSuffix(r.body["@odata.context"].(string), "$metadata#microsoft.graph.passwordCredential") {
			t.Fatalf("%d %s", r.status, r.text)
		}
		got := graphCall(t, s, bearer, "GET", app+"?$select=id,appId,passwordCredentials", "")
		list, _ := got.body["passwordCredentials"].([]any)
		if got.status != 200 || len(got.body) != 4 || got.body["id"] != object || got.body["appId"] != id || len(list) != 1 {
			t.Fatalf("%d %s", got.status, got.text)
		}
		shown := list[0].(map[string]any)
		if text, there := shown["secretText"]; !there || text != nil || shown["keyId"] != keyID || shown["hint"] != secret[:3] || strings.Contains(got.text, secret) {
			t.Errorf("listed: %s", got.text)
		}
		if live := s.Credentials(); len(live) != 1 || live[0].KeyID != keyID || live[0].DisplayName != "Outlook on Mac" {
			t.Errorf("Credentials: %+v", live)
		}

		remove := `{"keyId":"` + strings.ToUpper(keyID) + `"}`
		if r := graphCall(t, s, bearer, "POST", app+"/removePassword", remove); r.status != 204 || r.text != "" {
			t.Errorf("remove: %d %s", r.status, r.text)
		}
		r = graphCall(t, s, bearer, "POST", app+"/removePassword", remove)
		if r.status != 400 || !strings.Contains(r.text, "No password credential found with keyId") {
			t.Errorf("remove again: %d %s", r.status, r.text)
		}
		if len(s.Credentials()) != 0 {
			t.Errorf("Credentials: %+v", s.Credentials())
		}
	}
	r := graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword", "")
	begin, _ := time.Parse(time.RFC3339, r.body["startDateTime"].(string))
	end, _ := time.Parse(time.RFC3339, r.body["endDateTime"].(string))
	if r.status != 200 || r.body["displayName"] != nil || begin.IsZero() || !end.Equal(begin.AddDate(2, 0, 0)) {
		t.Errorf("empty body: %d %s", r.status, r.text)
	}
}

func TestGraphIsStrict(t *testing.T) {
	s := start(t, &Server{AdminRoles: []string{"Application.ReadWrite.All"}})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	add, remove := "/applications/"+object+"/addPassword", "/applications/"+object+"/removePassword"
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"top-level name", "POST", add, `{"displayName":"x"}`, 400, "Request_BadRequest"},
		{"misspelt", "POST", add, `{"passwordCredential":{"displayname":"x"}}`, 400, "Request_BadRequest"},
		{"wrapper misspelt", "POST", add, `{"PasswordCredential":{}}`, 400, "Request_BadRequest"},
		{"own secret", "POST", add, `{"passwordCredential":{"secretText":"x"}}`, 400, "Request_BadRequest"},
		{"own key id", "POST", add, `{"passwordCredential":{"keyId":"7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10"}}`, 400, "Request_BadRequest"},
		{"twice", "POST", add, `{"passwordCredential":{"displayName":"x","displayName":"y"}}`, 400, "Request_BadRequest"},
		{"name is a number", "POST", add, `{"passwordCredential":{"displayName":1}}`, 400, "Request_BadRequest"},
		{"long name", "POST", add, `{"passwordCredential":{"displayName":"` + strings.Repeat("x", 300) + `"}}`, 400, "Request_BadRequest"},
		{"credential is text", "POST", add, `{"passwordCredential":"x"}`, 400, "Request_BadRequest"},
		{"date alone", "POST", add, `{"passwordCredential":{"endDateTime":"2099-05-01"}}`, 400, "Request_BadRequest"},
		{"local time", "POST", add, `{"passwordCredential":{"endDateTime":"2099-05-01T00:00:00"}}`, 400, "Request_BadRequest"},
		{"not UTC", "POST", add, `{"passwordCredential":{"endDateTime":"2099-05-01T00:00:00+02:00"}}`, 400, "Request_BadRequest"},
		{"empty date", "POST", add, `{"passwordCredential":{"endDateTime":""}}`, 400, "Request_BadRequest"},
		{"past", "POST", add, `{"passwordCredential":{"endDateTime":"2001-05-01T00:00:00Z"}}`, 400, "Request_BadRequest"},
		{"end before start", "POST", add, `{"passwordCredential":{"startDateTime":"2099-05-01T00:00:00Z","endDateTime":"2098-05-01T00:00:00Z"}}`, 400, "Request_BadRequest"},
		{"array", "POST", add, `[]`, 400, "Request_BadRequest"},
		{"two values", "POST", add, `{} {}`, 400, "Request_BadRequest"},
		{"cut", "POST", add, `{"passwordCredential":`, 400, "Request_BadRequest"},
		{"too long", "POST", add, `{"x":"` + strings.Repeat("x", maxForm) + `"}`, 413, "Request_BadRequest"},
		{"no key id", "POST", remove, `{}`, 400, "Request_BadRequest"},
		{"no body", "POST", remove, ``, 400, "Request_BadRequest"},
		{"key id is null", "POST", remove, `{"keyId":null}`, 400, "Request_BadRequest"},
		{"key id is no GUID", "POST", remove, `{"keyId":"7d5a3a2e"}`, 400, "Request_BadRequest"},
		{"key id misspelt", "POST", remove, `{"keyid":"7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10"}`, 400, "Request_BadRequest"},
		{"unknown key id", "POST", remove, `{"keyId":"7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10"}`, 400, "Request_BadRequest"},
		{"query on an action", "POST", add + "?$select=keyId", ``, 400, "Request_BadRequest"},
		{"client id for object id", "GET", "/applications/" + id, "", 404, "Request_ResourceNotFound"},
		{"object id for client id", "GET", "/applications(appId='" + object + "')", "", 404, "Request_ResourceNotFound"},
		{"no GUID", "GET", "/applications/laptop", "", 400, "Request_BadRequest"},
		{"no quotes", "GET", "/applications(appId=" + id + ")", "", 400, "Request_BadRequest"},
		{"case", "GET", "/Applications", "", 400, "Request_BadRequest"},
		{"unknown path", "GET", "/groups", "", 400, "Request_BadRequest"},
		{"trailing slash", "GET", "/applications/", "", 400, "Request_BadRequest"},
		{"secrets by PATCH", "PATCH", "/applications/" + object, `{"passwordCredentials":[]}`, 400, "Request_BadRequest"},
		{"GET of an action", "GET", add, "", 405, "Request_BadRequest"},
		{"unknown property", "GET", "/applications/" + object + "?$select=id,passwords", "", 400, "Request_BadRequest"},
		{"unknown property of none", "GET", "/applications?$select=passwords&$filter=appId+eq+'x'", "", 400, "Request_BadRequest"},
		{"select nothing", "GET", "/applications?$select=", "", 400, "Request_BadRequest"},
		{"option without dollar", "GET", "/applications?select=id", "", 400, "Request_BadRequest"},
		{"option twice", "GET", "/applications?$top=1&$top=2", "", 400, "Request_BadRequest"},
		{"expand", "GET", "/applications?$expand=owners", "", 400, "Request_BadRequest"},
		{"top 0", "GET", "/applications?$top=0", "", 400, "Request_BadRequest"},
		{"top 1000", "GET", "/applications?$top=1000", "", 400, "Request_BadRequest"},
		{"filter", "GET", "/applications?$filter=" + url.QueryEscape("appId eq "+id), "", 400, "Request_BadRequest"},
		{"skip token", "GET", "/applications?$skiptoken=x", "", 400, "Request_BadRequest"},
		{"me without a person", "GET", "/me", "", 400, "BadRequest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := graphCall(t, s, bearer, test.method, test.path, test.body)
			if r.status != test.status || graphCode(r) != test.code {
				t.Errorf("%d %s", r.status, r.text)
			}
		})
	}
	if len(s.Credentials()) != 0 {
		t.Errorf("something was carried out: %+v", s.Credentials())
	}

	auth := []string{"Authorization", "Bearer " + bearer}
	for name, r := range map[string]response{
		"no type":    send(t, "POST", s.Graph()+add, "", `{}`, auth...),
		"text":       send(t, "POST", s.Graph()+add, "text/plain", `{}`, auth...),
		"latin 1":    send(t, "POST", s.Graph()+add, "application/json; charset=latin1", `{}`, auth...),
		"GET, body":  send(t, "GET", s.Graph()+"/applications", "application/json", `{}`, auth...),
		"request id": send(t, "GET", s.Graph()+"/applications", "", "", append(auth, "client-request-id", "1")...),
		"version":    send(t, "GET", strings.Replace(s.Graph(), "v1.0", "beta", 1)+"/applications", "", "", auth...),
	} {
		if r.status != 400 && r.status != 415 || graphCode(r) != "Request_BadRequest" {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
}

func TestGraphErrorShape(t *testing.T) {
	s := start(t, &Server{RequireClientRequestID: true, Now: func() time.Time { return time.Date(2026, 2, 13, 10, 17, 6, 0, time.UTC) }})
	bearer := graphBearer(t, s)
	id := "6b0c6f1e-52d4-4d3e-9a53-9d6c5c3a4e10"
	r := send(t, "GET", s.Graph()+"/applications/"+id, "", "", "Authorization", "Bearer "+bearer, "client-request-id", id)
	var body struct {
		Error struct {
			Code, Message string
			InnerError    map[string]string
		}
	}
	if err := json.Unmarshal([]byte(r.text), &body); err != nil {
		t.Fatal(err)
	}
	inner := body.Error.InnerError
	if r.status != 404 || body.Error.Code != "Request_ResourceNotFound" || !strings.Contains(body.Error.Message, id) ||
		inner["date"] != "2026-02-13T10:17:06" || inner["client-request-id"] != id || inner["request-id"] != r.header.Get("request-id") ||
		!isGUID(inner["request-id"]) || r.header.Get("client-request-id") != id {
		t.Errorf("%s", r.text)
	}
	if r := graphCall(t, s, bearer, "GET", "/applications", ""); r.status != 400 {
		t.Errorf("without client-request-id: %d", r.status)
	}
}

func TestGraphTokens(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	_, secret := newPassword(t, s, bearer, "x")
	_, id := s.MailApp()
	for name, token := range map[string]string{"none": "", "unknown": "x", "Exchange's": appToken(t, s, id, secret, exchangeResource)} {
		r := graphCall(t, s, token, "GET", "/applications", "")
		if r.status != 401 || graphCode(r) != "InvalidAuthenticationToken" || !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	if r := graphCall(t, s, appToken(t, s, id, secret, graphResource), "GET", "/applications", ""); r.status != 403 || graphCode(r) != "Authorization_RequestDenied" {
		t.Errorf("without roles: %d %s", r.status, r.text)
	}
	s.FastForward(time.Hour)
	if r := graphCall(t, s, bearer, "GET", "/applications", ""); r.status != 401 || !strings.Contains(r.text, "expired") {
		t.Errorf("expired: %d %s", r.status, r.text)
	}
}

// delegated is a Graph token of a person.
func delegated(t *testing.T, s *Server, address, scope string) string {
	t.Helper()
	q := authorizeQuery(s)
	q.Set("scope", scope)
	form := codeForm(s, signIn(t, s, q, url.Values{"user": {address}, "action": {"accept"}}).Get("code"))
	r := postForm(t, s.tokenURL(), form)
	token, _ := r.body["access_token"].(string)
	if token == "" {
		t.Fatalf("%d %s", r.status, r.text)
	}
	return token
}

func TestGraphPermissions(t *testing.T) {
	s := start(t, &Server{})
	object, _ := s.MailApp()
	admin := graphBearer(t, s)
	alice := delegated(t, s, "alice@contoso.com", "Application.ReadWrite.All User.Read Policy.Read.All")
	reader := delegated(t, s, "alice@contoso.com", "Application.Read.All")
	bob := delegated(t, s, "bob@contoso.com", "Application.ReadWrite.All User.Read")
	write, other := "/applications/"+object+"/addPassword", "/applications/"+s.dir.admin.objectID+"/addPassword"
	policy := "/policies/defaultAppManagementPolicy"
	for _, test := range []struct {
		name, token, method, path string
		status                    int
	}{
		{"owner writes", admin, "POST", write, 200},
		{"not owner", admin, "POST", other, 403},
		{"OwnedBy reads all", admin, "GET", "/applications/" + s.dir.login.objectID, 200},
		{"OwnedBy has no policy", admin, "GET", policy, 403},
		{"OwnedBy has no organization", admin, "GET", "/organization", 403},
		{"admin writes", alice, "POST", write, 200},
		{"admin writes others", alice, "POST", other, 200},
		{"public client has no secrets", alice, "POST", "/applications/" + s.dir.login.objectID + "/addPassword", 400},
		{"scope to read", reader, "GET", "/applications/" + object, 200},
		{"scope to read does not write", reader, "POST", write, 403},
		{"no scope for me", reader, "GET", "/me", 403},
		{"no rights", bob, "POST", write, 403},
		{"reads all the same", bob, "GET", "/applications/" + object, 200},
		{"policy without scope", bob, "GET", policy, 403},
		{"policy", alice, "GET", policy, 200},
		{"organization", alice, "GET", "/organization", 200},
		{"me", bob, "GET", "/me", 200},
	} {
		if r := graphCall(t, s, test.token, test.method, test.path, ""); r.status != test.status {
			t.Errorf("%s: %d %s", test.name, r.status, r.text)
		}
	}
	r := graphCall(t, s, bob, "GET", "/me?$select=displayName,userPrincipalName", "")
	if r.body["displayName"] != "Bob" || r.body["userPrincipalName"] != "bob@contoso.com" || len(r.body) != 3 {
		t.Errorf("me: %s", r.text)
	}
	r = graphCall(t, s, alice, "GET", "/organization?$select=id,displayName,verifiedDomains", "")
	if !strings.Contains(r.text, s.Tenant) || !strings.Contains(r.text, `"contoso.onmicrosoft.com"`) || !strings.Contains(r.text, `"contoso.com"`) {
		t.Errorf("organization: %s", r.text)
	}
}

func TestPaging(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	var names []string
	pages, empty := 0, 0
	for next := "/applications?$select=displayName&$top=999"; next != ""; pages++ {
		r := graphCall(t, s, bearer, "GET", next, "")
		value, ok := r.body["value"].([]any)
		if r.status != 200 || !ok || len(value) > 2 {
			t.Fatalf("%d %s", r.status, r.text)
		}
		if len(value) == 0 {
			empty++
		}
		for _, v := range value {
			names = append(names, v.(map[string]any)["displayName"].(string))
		}
		next, _ = r.body["@odata.nextLink"].(string)
		if next != "" && !strings.HasPrefix(next, s.Graph()+"/applications?") {
			t.Fatalf("nextLink %s", next)
		}
	}
	want := []string{"Expense reports", "o365pw sign-in", "o365pw mail", "o365pw automation", "Room booking", "Mail for everybody"}
	if !slices.Equal(names, want) || pages != 4 || empty != 1 {
		t.Errorf("%d pages, %d empty: %q", pages, empty, names)
	}

	r := graphCall(t, s, bearer, "GET", "/applications?$top=1&$select=id", "")
	next := r.body["@odata.nextLink"].(string)
	if r := graphCall(t, s, bearer, "GET", strings.Replace(next, "=id", "=appId", 1), ""); r.status != 400 {
		t.Errorf("changed link: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.NextLinkBase = "https://evil.example" })
	r = graphCall(t, s, bearer, "GET", "/applications", "")
	if next, _ := r.body["@odata.nextLink"].(string); !strings.HasPrefix(next, "https://evil.example/applications?") {
		t.Errorf("NextLinkBase: %s", next)
	}
}

func TestFilter(t *testing.T) {
	s := start(t, &Server{PageSize: 100})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	for filter, want := range map[string]int{
		"tags/any(t:t eq 'o365pw')": 1, "tags/any(x: x eq 'none')": 0, "appId eq '" + id + "'": 1, "appId eq '" + object + "'": 0,
		"id eq '" + object + "'": 1, "displayName eq 'O365PW mail'": 1, "displayName eq 'it''s'": 0, "startswith(displayName,'o365pw')": 3,
	} {
		r := graphCall(t, s, bearer, "GET", "/applications?$filter="+url.QueryEscape(filter), "")
		if value, ok := r.body["value"].([]any); r.status != 200 || !ok || len(value) != want {
			t.Errorf("%s: %d %s", filter, r.status, r.text)
		}
	}
	for _, filter := range []string{"appId eq 'x' or id eq 'y'", "displayName eq 'it's'", "tags/any(t:u eq 'x')", "notes eq 'x'", ""} {
		if r := graphCall(t, s, bearer, "GET", "/applications?$filter="+url.QueryEscape(filter), ""); r.status != 400 {
			t.Errorf("%s: %d", filter, r.status)
		}
	}
}

func TestServicePrincipals(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	_, id := s.MailApp()
	get := func(id string) response {
		return graphCall(t, s, bearer, "GET", fmt.Sprintf("/servicePrincipals(appId='%s')?$select=id,appId,accountEnabled,appRoles", id), "")
	}
	if r := get(exchangeAppID); r.status != 200 || !strings.Contains(r.text, "5e5addcd-3e8d-4e90-baf5-964efab2b20a") {
		t.Errorf("Exchange: %d %s", r.status, r.text)
	}
	if r := get(id); r.status != 200 || r.body["accountEnabled"] != true || r.body["id"] == s.dir.mail.objectID || r.body["id"] != s.dir.mail.principalID {
		t.Errorf("mail: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.AppDisabled = true })
	if r := get(id); r.body["accountEnabled"] != false {
		t.Errorf("disabled: %s", r.text)
	}
	s.SetFaults(func(f *Faults) { f.NoServicePrincipal = true })
	if r := get(id); r.status != 404 {
		t.Errorf("none: %d", r.status)
	}
	if r := get("x"); r.status != 400 {
		t.Errorf("no GUID: %d", r.status)
	}
}
