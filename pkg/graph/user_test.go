package graph

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestUser(t *testing.T) {
	plan := func(id, service, status string) string {
		return fmt.Sprintf(`{"assignedDateTime":"2026-01-01T00:00:00Z","capabilityStatus":%q,"service":%q,"servicePlanId":%q}`, status, service, id)
	}
	body := func(plans string) string {
		return `{"id":"i","displayName":"Alice","userPrincipalName":"a.smith@contoso.com","mail":"alice@contoso.com","accountEnabled":false,
			"proxyAddresses":["X500:/o=x","smtp:al@contoso.com","SMTP:alice@contoso.com","smtp:a@contoso.com","nonsense"],"assignedPlans":[` + plans + `]}`
	}
	const exchange = "EFB87545-963c-4e0d-99df-69c6916d9eb0"
	var found []string
	var asked []string
	c := serving(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		switch {
		case r.URL.Query().Get("$select") != "id,displayName,userPrincipalName,mail,accountEnabled,proxyAddresses,assignedPlans":
			t.Error(r.URL)
		case r.URL.Path == "/v1.0/users/a.smith@contoso.com":
			fmt.Fprint(w, body(plan(exchange, "exchange", "Enabled")))
		case r.URL.Path == "/v1.0/users":
			if want := "mail eq 'o''neil+x@contoso.com' or proxyAddresses/any(p:p eq 'smtp:o''neil+x@contoso.com')"; r.URL.Query().Get("$filter") != want {
				fmt.Fprint(w, list(nil))
				return
			}
			fmt.Fprint(w, list(found))
		case r.URL.Path == "/v1.0/users/secret@contoso.com":
			w.WriteHeader(403)
		default:
			w.WriteHeader(404)
		}
	})
	u, err := c.User(t.Context(), "a.smith@contoso.com")
	if err != nil || u.ID != "i" || u.UserPrincipalName != "a.smith@contoso.com" || u.Mail != "alice@contoso.com" || !u.Disabled || !u.HasExchangePlan() || len(asked) != 1 ||
		!slices.Equal(u.Addresses, []string{"alice@contoso.com", "al@contoso.com", "a@contoso.com"}) || u.Plans[0] != (ServicePlan{"efb87545-963c-4e0d-99df-69c6916d9eb0", "exchange", "Enabled"}) {
		t.Errorf("%+v %v", u, err)
	}
	for plans, want := range map[string]bool{
		"":                                      false,
		plan(exchange, "exchange", "Warning"):   true,
		plan(exchange, "exchange", "Suspended"): false,
		plan(exchange, "exchange", "Deleted"):   false,
		plan(exchange, "SharePoint", "Enabled"): false,
		plan("113feb6c-3fe4-4440-bddc-54d774bf0318", "exchange", "Enabled"): false,
		`{"servicePlanId":"x","service":null,"capabilityStatus":null}`:      false,
	} {
		if u, err := decodeUser([]byte(body(plans))); err != nil || u.HasExchangePlan() != want {
			t.Errorf("%s: %+v %v", plans, u, err)
		}
	}

	// Another address than the name to sign in with.
	const alias = "o'neil+x@contoso.com"
	if _, err := c.User(t.Context(), alias); err == nil || !err.(*Error).IsNotFound() {
		t.Errorf("%v", err)
	}
	found = []string{body("")}
	if u, err := c.User(t.Context(), alias); err != nil || u.UserPrincipalName != "a.smith@contoso.com" {
		t.Errorf("%+v %v", u, err)
	}
	found = []string{body(""), body("")}
	if u, err := c.User(t.Context(), alias); err == nil {
		t.Errorf("%+v", u)
	}
	found = []string{"{}"}
	if u, err := c.User(t.Context(), alias); err == nil {
		t.Errorf("%+v", u)
	}
	if _, err := c.User(t.Context(), "secret@contoso.com"); err == nil || !err.(*Error).IsForbidden() {
		t.Errorf("%v", err)
	}
	asked = nil
	for _, address := range []string{"", "alice", "@contoso.com", "alice@", "a b@contoso.com", "a\r\n@contoso.com"} {
		if _, err := c.User(t.Context(), address); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
	if len(asked) != 0 {
		t.Error(asked)
	}
	// What would change the path does not.
	if _, err := c.User(t.Context(), "../me?$x=#@contoso.com"); err == nil || asked[0] != "/v1.0/users/..%2Fme%3F$x=%23@contoso.com?"+selectUser {
		t.Errorf("%v %v", err, asked)
	}
}

func list(items []string) string { return `{"value":[` + strings.Join(items, ",") + `]}` }
