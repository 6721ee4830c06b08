package graph

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// setUp is everything that is made, one after the other.
func setUp(ctx context.Context, c *Client, der []byte) error {
	app, _, err := c.EnsureApplication(ctx, wanted())
	if err != nil {
		return fmt.Errorf("application: %w", err)
	}
	sp, created, err := c.EnsureServicePrincipal(ctx, app.AppID, app.Fresh)
	if err != nil {
		return fmt.Errorf("service principal: %w", err)
	}
	fresh := app.Fresh || created
	if _, err := c.EnsureAppRoles(ctx, sp.ID, exchangeID, []string{imapRole, smtpRole}, fresh); err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	if _, err := c.EnsurePermissionGrant(ctx, sp.ID, exchangeID, []string{"SMTP.Send"}, fresh); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	if _, _, err := c.EnsureCertificate(ctx, app.AppID, der, "", fresh); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// A run that is cut off at any request, before or after Graph has done it, is
// mended by the next: the same end, nothing twice.
func TestKilledAnywhere(t *testing.T) {
	der := newCertificate(t, "mine")
	finished, n := false, 1
	for ; !finished; n++ {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				ctx, kill := context.WithCancel(t.Context())
				c := f.direct()
				sent := 0
				c.HTTP = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
					if sent++; sent < n {
						return handlerTransport{f}.RoundTrip(r)
					}
					if after && sent == n {
						_, _ = handlerTransport{f}.RoundTrip(r)
					}
					kill()
					return nil, context.Canceled
				})}
				begin := time.Now()
				if err := setUp(ctx, c, der); err == nil {
					finished = true
				} else if sent != n || time.Since(begin) > 0 && !strings.Contains(err.Error(), "certificate") {
					t.Errorf("%d requests, %s after the end: %v", sent-n, time.Since(begin), err)
				}
				for range 2 { // the second has nothing to do
					if err := setUp(t.Context(), f.direct(), der); err != nil {
						t.Errorf("killed at %d (after it: %t): %v", n, after, err)
					}
				}
				if f.app == nil || f.app["displayName"] != "Mail" || len(f.principals) != 2 || !slices.Equal(f.granted(), []string{imapRole, smtpRole}) ||
					len(f.grants) != 1 || f.grants[0]["scope"] != "SMTP.Send" || len(f.app["keyCredentials"].([]any)) != 1 {
					t.Errorf("killed at %d (after it: %t): %v %v %v", n, after, f.app, f.roles, f.grants)
				}
				writes := map[string]int{}
				for _, op := range f.writes() {
					writes[op]++
				}
				for op, times := range writes {
					if most := map[string]int{"post role": 2}; times > max(1, most[op]) {
						t.Errorf("killed at %d (after it: %t): %s %d times", n, after, op, times)
					}
				}
				kill()
			})
		}
	}
	if n < 12 {
		t.Errorf("the whole takes %d requests", n-2)
	}
}
