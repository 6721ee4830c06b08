package sandbox

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
)

func TestUsers(t *testing.T) {
	s := start(t, &Server{AdminRoles: []string{"User.Read.All"}, Mailboxes: []Mailbox{
		{Address: "carol@outlook.com", Personal: true},
		{Address: "alice@contoso.com", UPN: "a.smith@contoso.onmicrosoft.com", SendAs: []string{"sales@contoso.com"}},
	}})
	bearer := graphBearer(t, s)
	id := s.dir.people[1].objectID
	for _, key := range []string{"a.smith@contoso.onmicrosoft.com", "A.Smith@Contoso.onmicrosoft.com", id} {
		r := must(t, s, bearer, "GET", "/users/"+key+"?$select=userPrincipalName,mail,proxyAddresses,accountEnabled,assignedPlans", "", 200)
		if r.body["mail"] != "alice@contoso.com" || r.body["userPrincipalName"] != "a.smith@contoso.onmicrosoft.com" || r.body["accountEnabled"] != true ||
			!strings.Contains(r.text, `"proxyAddresses":["SMTP:alice@contoso.com","smtp:sales@contoso.com"]`) || !strings.Contains(r.text, `"service":"exchange"`) {
			t.Errorf("%s: %s", key, r.text)
		}
	}
	if r := must(t, s, bearer, "GET", "/users/"+id, "", 200); r.body["mail"] == nil || r.body["assignedPlans"] != nil {
		t.Errorf("defaults: %s", r.text)
	}
	// An address that is not the principal name finds nobody, but by a filter.
	for _, key := range []string{"alice@contoso.com", "sales@contoso.com", "carol@outlook.com", "x"} {
		must(t, s, bearer, "GET", "/users/"+key, "", 404)
	}
	for filter, want := range map[string]int{
		"mail eq 'alice@contoso.com'": 1, "mail eq 'carol@outlook.com'": 0, "userPrincipalName eq 'a.smith@contoso.onmicrosoft.com'": 1,
		"proxyAddresses/any(x:x eq 'smtp:sales@contoso.com')": 1, "proxyAddresses/any(x:x eq 'SMTP:alice@contoso.com')": 1, "mail eq 'o''hara'": 0,
		"mail eq 'x' or proxyAddresses/any(p:p eq 'smtp:alice@contoso.com')": 1, "mail eq ' or ' or mail eq 'x'": 0,
	} {
		r := must(t, s, bearer, "GET", "/users?$select=id&$filter="+url.QueryEscape(filter), "", 200)
		if got := r.body["value"].([]any); len(got) != want {
			t.Errorf("%s: %s", filter, r.text)
		}
	}
	for _, filter := range []string{"displayName eq 'x'", "mail eq 'x' or ", "mail eq 'x' and mail eq 'y'", "proxyAddresses/any(p:q eq 'smtp:x')", ""} {
		must(t, s, bearer, "GET", "/users?$filter="+url.QueryEscape(filter), "", 400)
	}
	s.SetFaults(func(f *Faults) { f.NoLicence = true })
	if r := must(t, s, bearer, "GET", "/users/"+id+"?$select=assignedPlans", "", 200); len(r.body["assignedPlans"].([]any)) != 0 {
		t.Errorf("no licence: %s", r.text)
	}
}

func FuzzUserFilter(f *testing.F) {
	for _, seed := range []string{"mail eq 'a' or mail eq 'b'", "proxyAddresses/any(p:p eq 'SMTP:a')", "mail eq '''' or ", "userPrincipalName eq ' or '", " or "} {
		f.Add(seed)
	}
	alice := &person{upn: "a.smith@contoso.com", address: "alice@contoso.com", sendAs: []string{"sales@contoso.com"}}
	f.Fuzz(func(t *testing.T, filter string) {
		match := parseUserFilter(filter)
		if match == nil || !match(alice) {
			return
		}
		// Who is found is named in the filter, in some spelling of the case.
		if strings.ContainsFunc(filter, func(r rune) bool { return r > unicode.MaxASCII }) {
			return
		}
		for _, name := range []string{alice.upn, alice.address, alice.sendAs[0]} {
			if strings.Contains(strings.ToLower(filter), name) {
				return
			}
		}
		t.Errorf("%q finds alice", filter)
	})
}
