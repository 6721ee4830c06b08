package graph

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestApplicationPolicy(t *testing.T) {
	own := func(enabled bool) string {
		return fmt.Sprintf(`{"id":"x","displayName":"Ours","isEnabled":%t,"restrictions":{"passwordCredentials":[{"restrictionType":"passwordAddition","state":"disabled"}],
			"keyCredentials":[{"restrictionType":"asymmetricKeyLifetime","state":"enabled","maxLifetime":"P30D","restrictForAppsCreatedAfterDateTime":"0001-01-01T00:00:00Z"},
			{"restrictionType":"trustedCertificateAuthority","state":"enabled","certificateBasedApplicationConfigurationIds":["y"],"restrictForAppsCreatedAfterDateTime":"2026-01-01T00:00:00Z"}]}}`, enabled)
	}
	const day = 24 * time.Hour
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tenants := AppManagementPolicy{ForbidsSecrets: true}
	for body, want := range map[string]AppManagementPolicy{
		`{"value":[]}`:                   tenants,
		`{"value":[` + own(false) + `]}`: tenants,
		`{"value":[` + own(true) + `]}`:  {Own: true, MaxKeyLifetime: 30 * day, TrustedCAOnly: true, TrustedCAFrom: from},
		`{"value":[{"isEnabled":true}]}`: {Own: true},
	} {
		c := serving(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1.0/applications/" + objectID + "/appManagementPolicies":
				fmt.Fprint(w, body)
			case "/v1.0/policies/defaultAppManagementPolicy":
				fmt.Fprint(w, `{"isEnabled":true,"applicationRestrictions":{"passwordCredentials":[{"restrictionType":"passwordAddition"}]}}`)
			default:
				t.Error(r.URL)
			}
		})
		if got, err := c.ApplicationPolicy(t.Context(), objectID); err != nil || got != want {
			t.Errorf("%s: %+v %v", body, got, err)
		}
	}
	for _, body := range []string{"", "{}", `{"value":[{}]}`, `{"value":[{"isEnabled":true,"restrictions":{"keyCredentials":[{"restrictionType":"asymmetricKeyLifetime","maxLifetime":"x"}]}}]}`} {
		c := serving(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		if got, err := c.ApplicationPolicy(t.Context(), objectID); err == nil {
			t.Errorf("%s: %+v", body, got)
		}
	}
	c := serving(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	if _, err := c.ApplicationPolicy(t.Context(), objectID); err == nil || !err.(*Error).IsForbidden() {
		t.Errorf("%v", err)
	}
	if _, err := c.ApplicationPolicy(t.Context(), "../me"); err == nil {
		t.Error("an object id that is no GUID was taken")
	}
}

// What a policy says depends on when the application was made.
func TestPolicyByAge(t *testing.T) {
	const day = 24 * time.Hour
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dated := AppManagementPolicy{ForbidsSecrets: true, ForbidsSecretsFrom: from, MaxLifetime: 90 * day, MaxLifetimeFrom: from,
		MaxKeyLifetime: 30 * day, MaxKeyLifetimeFrom: from, TrustedCAOnly: true, TrustedCAFrom: from}
	always := AppManagementPolicy{ForbidsSecrets: true, MaxLifetime: 90 * day, MaxKeyLifetime: 30 * day, TrustedCAOnly: true}
	for _, tt := range []struct {
		policy  AppManagementPolicy
		created time.Time
		holds   bool
	}{
		{AppManagementPolicy{}, from, false}, {dated, from.Add(-day), false}, {dated, from.Add(day), true}, {always, from.Add(-day), true}, {always, time.Time{}, true},
	} {
		limit, keyLimit := time.Duration(0), time.Duration(0)
		if tt.holds {
			limit, keyLimit = 90*day, 30*day
		}
		p := tt.policy
		if p.SecretsForbidden(tt.created) != tt.holds || p.SelfSignedForbidden(tt.created) != tt.holds || p.SecretLimit(tt.created) != limit || p.CertificateLimit(tt.created) != keyLimit {
			t.Errorf("%+v for %s", p, tt.created)
		}
	}
}
