package entra

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestFindTenant(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		kind   Kind // "" is success
		number int
	}{
		{"there", 200, `{"issuer": "https://login.microsoftonline.com/x/v2.0"}`, "", 0},
		{"not there", 400, toJSON(map[string]any{"error": "invalid_tenant", "error_codes": []int{90002},
			"error_description": "AADSTS90002: Tenant 'x' not found."}), Misconfigured, 90002},
		{"another kind of authority", 404, `{"error": "not_found"}`, "", 0},
		{"out of order", 503, "try later", "", 0},
		{"a captive portal", 302, "", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var asked string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.Path
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			defer srv.Close()
			c := &Client{Authority: srv.URL, Tenant: testTenant}
			err := c.FindTenant(t.Context())
			if want := "GET /" + testTenant + "/v2.0/.well-known/openid-configuration"; asked != want {
				t.Errorf("asked %s, want %s", asked, want)
			}
			if tt.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := asError(t, err); e.Kind() != tt.kind || e.Number() != tt.number {
				t.Errorf("got %v, a %s with number %d, want a %s with %d", err, e.Kind(), e.Number(), tt.kind, tt.number)
			}
		})
	}

	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	c := &Client{Authority: gone.URL, Tenant: testTenant}
	if e := asError(t, c.FindTenant(t.Context())); e.Kind() != Unavailable {
		t.Errorf("nobody answers: %v is %s", e, e.Kind())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.FindTenant(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	c.Tenant = "a/b"
	if e := asError(t, c.FindTenant(t.Context())); e.Kind() != Misconfigured {
		t.Errorf("no tenant: %v is %s", e, e.Kind())
	}
}
