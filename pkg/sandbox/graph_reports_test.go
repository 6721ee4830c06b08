package sandbox

import (
	"fmt"
	"strings"
	"testing"
)

// The report: of beta alone, for whoever may read it, in pages, and only of
// credentials that have been used.
func TestCredentialUseReport(t *testing.T) {
	s := start(t, &Server{AdminRoles: []string{"Application.ReadWrite.OwnedBy", "AuditLog.Read.All"}, MoreMailApps: 1})
	bearer := graphBearer(t, s) // the use of the administrator's own secret
	ids := s.MailApps()
	var keys []string
	for i := range 3 {
		r := must(t, s, bearer, "POST", "/applications(appId='"+ids[1]+"')/addPassword", fmt.Sprintf(`{"passwordCredential":{"displayName":"k%d"}}`, i), 200)
		keys = append(keys, r.body["keyId"].(string))
		if i < 2 {
			appToken(t, s, ids[1], r.body["secretText"].(string), exchangeResource)
		}
	}
	beta := strings.TrimSuffix(s.Graph(), "/v1.0") + "/beta/reports/appCredentialSignInActivities"
	get := func(bearer, url string) response {
		return send(t, "GET", url, "", "", "Authorization", "Bearer "+bearer)
	}
	seen := map[string]string{}
	pages := 0
	for next := beta; next != ""; pages++ {
		r := get(bearer, next)
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.text)
		}
		for _, v := range r.body["value"].([]any) {
			u := v.(map[string]any)
			seen[u["keyId"].(string)] = u["appId"].(string)
			if at := u["signInActivity"].(map[string]any)["lastSignInDateTime"].(string); !strings.HasSuffix(at, "Z") || u["keyType"] != "password" {
				t.Errorf("%v", u)
			}
		}
		next, _ = r.body["@odata.nextLink"].(string)
		if next != "" && !strings.HasPrefix(next, beta) {
			t.Fatalf("the next page is at %s", next)
		}
	}
	if len(seen) != 3 || seen[keys[0]] != ids[1] || seen[keys[1]] != ids[1] || seen[keys[2]] != "" || pages != 3 {
		t.Errorf("%d pages: %v", pages, seen)
	}
	for filter, want := range map[string]int{"appId eq '" + ids[1] + "'": 2, "keyId eq '" + keys[0] + "'": 1, "appId eq '" + ids[0] + "'": 0} {
		r := get(bearer, beta+"?$filter="+strings.ReplaceAll(filter, " ", "%20"))
		if r.status != 200 || len(r.body["value"].([]any)) != want {
			t.Errorf("%s: %d %s", filter, r.status, r.text)
		}
	}
	plain := start(t, &Server{})
	for url, want := range map[string]int{
		beta + "?$select=keyId":                              400,
		beta + "?$filter=keyType%20eq%20'password'":          400,
		s.Graph() + "/reports/appCredentialSignInActivities": 400, // of beta alone
		strings.TrimSuffix(s.Graph(), "/v1.0") + "/beta/me":  400,
		strings.TrimSuffix(s.Graph(), "/v1.0") + "/v2.0/me":  400,
		strings.TrimSuffix(beta, "ities") + "ity":            400,
	} {
		if r := get(bearer, url); r.status != want {
			t.Errorf("%s: %d %s", url, r.status, r.text)
		}
	}
	if r := get(graphBearer(t, plain), strings.TrimSuffix(plain.Graph(), "/v1.0")+"/beta/reports/appCredentialSignInActivities"); r.status != 403 {
		t.Errorf("without the permission: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.NoReportLicence = true })
	if r := get(bearer, beta); r.status != 403 || !strings.Contains(r.text, "NonPremiumTenant") {
		t.Errorf("without the licence: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.NoReport = true })
	if r := get(bearer, beta); r.status != 400 {
		t.Errorf("without the report: %d %s", r.status, r.text)
	}
}

func TestThrottleEvery(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	s.SetFaults(func(f *Faults) { f.ThrottleEvery = 3 })
	var got []int
	for range 6 {
		got = append(got, graphCall(t, s, bearer, "GET", "/organization?$select=id", "").status)
	}
	throttled := 0
	for _, status := range got {
		if status == 429 {
			throttled++
		}
	}
	if throttled != 2 {
		t.Errorf("%v", got)
	}
}

func TestMoreMailApps(t *testing.T) {
	s := start(t, &Server{MoreMailApps: 2})
	_, first := s.MailApp()
	ids := s.MailApps()
	if len(ids) != 3 || ids[0] != first {
		t.Fatalf("%v", ids)
	}
	c, err := s.AddCredential(ids[2], "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddCredential("11111111-2222-4333-8444-555555555555", "x"); err == nil {
		t.Error("a credential on no application")
	}
	remove := func() response {
		return graphCall(t, s, graphBearer(t, s), "POST", "/applications(appId='"+ids[2]+"')/removePassword", `{"keyId":"`+c.KeyID+`"}`)
	}
	if r := remove(); r.status != 204 || len(s.CredentialsOf(ids[2])) != 0 || len(s.Credentials()) != 0 {
		t.Errorf("%d %s", r.status, r.text)
	}
	if r := remove(); r.status != 400 || s.Removals()[c.KeyID] != 2 {
		t.Errorf("again: %d %v", r.status, s.Removals())
	}
}
