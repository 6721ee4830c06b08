package entra

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTenantID(t *testing.T) {
	const guid = "934d99aa-ac67-4889-97cd-3980b2a4f3ef"
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
		kind   Kind
	}{
		"domain":    {200, `{"issuer": "https://login.microsoftonline.com/934D99AA-ac67-4889-97cd-3980b2a4f3ef/v2.0"}`, guid, ""},
		"v1 issuer": {200, `{"issuer": "https://sts.windows.net/` + guid + `/"}`, guid, ""},
		"many":      {200, `{"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}`, "", Unavailable},
		"no issuer": {200, `{}`, "", Unavailable},
		"garbage":   {200, `<html>`, "", Unavailable},
		"redirect":  {302, ``, "", Unavailable},
		"not there": {400, `{"error": "invalid_tenant", "error_description": "AADSTS90002: Tenant 'x.com' not found."}`, "", Misconfigured},
		"busy":      {503, `{}`, "", Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/x.com/v2.0/.well-known/openid-configuration" {
					t.Errorf("asked for %s %s", r.Method, r.URL)
				}
				if c.status == 302 {
					w.Header().Set("Location", "https://login.example/")
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			got, err := (&Client{Authority: srv.URL, Tenant: "x.com"}).TenantID(t.Context())
			if e, ok := errors.AsType[*Error](err); got != c.want || (err != nil) != (c.kind != "") || ok && e.Kind() != c.kind {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
