//go:build integration

package integration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

func (p *oidcProvider) testClientSecret(t *testing.T) {
	token, err := p.client().ClientSecret(t.Context(), withSecret, secret.New(clientSecret), mailAppScope)
	must(t, err)
	p.checkApplication(t, token, withSecret)
}

func (p *oidcProvider) checkApplication(t *testing.T, token entra.Token, clientID string) {
	t.Helper()
	about := p.introspect(t, token.Access)
	if about["active"] != true || about["client_id"] != clientID || about["scope"] != mailAppScope || about["sub"] != nil {
		t.Errorf("the access token is %v", about)
	}
	if !token.Refresh.IsZero() {
		t.Error("there is a refresh token")
	}
}

// testClientAssertion: the server looks at aud, iss, sub, exp, jti and the
// signature, finding the key among those registered (RFC 7523 section 3).
func (p *oidcProvider) testClientAssertion(t *testing.T, certificate entra.Certificate) {
	for _, alg := range []string{"", entra.PS256, entra.RS256} {
		assertion := certificate.Assertion(alg, nil)
		var used []secret.Text
		keep := func(ctx context.Context, clientID, endpoint string) (secret.Text, error) {
			jwt, err := assertion(ctx, clientID, endpoint)
			used = append(used, jwt)
			return jwt, err
		}
		for range 2 {
			token, err := p.client().ClientAssertion(t.Context(), withAKey, keep, mailAppScope)
			must(t, err)
			p.checkApplication(t, token, withAKey)
		}
		// Entra is not known to look at jti.
		again := func(context.Context, string, string) (secret.Text, error) { return used[0], nil }
		_, err := p.client().ClientAssertion(t.Context(), withAKey, again, mailAppScope)
		checkKind(t, "an assertion used twice", err, entra.Refused, "invalid_client")
	}
}

// testRefusals: what the server refuses has the Kind that says what to do.
func (p *oidcProvider) testRefusals(t *testing.T, certificate entra.Certificate) {
	c := p.client()
	other, err := entra.NewCertificate("another", time.Now(), time.Hour)
	must(t, err)
	at := func(d time.Duration) func() time.Time {
		return func() time.Time { return time.Now().Add(d) }
	}
	elsewhere := func(ctx context.Context, clientID, _ string) (secret.Text, error) {
		return certificate.Assertion("", nil)(ctx, clientID, "https://login.microsoftonline.com/"+oidcTenant+"/oauth2/v2.0/token")
	}
	assert := func(clientID string, a entra.Assertion) error {
		_, err := c.ClientAssertion(t.Context(), clientID, a, mailAppScope)
		return err
	}
	byName := func(clientID, s, scope string) error {
		_, err := c.ClientSecret(t.Context(), clientID, secret.New(s), scope)
		return err
	}
	refresh := func(clientID, s string) error {
		_, err := c.RefreshToken(t.Context(), clientID, secret.New(s), graphScope)
		return err
	}
	_, noDevice := c.SignInDeviceCode(t.Context(), withSecret, graphScope, nil)
	for _, test := range []struct {
		name string
		err  error
		kind entra.Kind
		code string
	}{
		{"wrong secret", byName(withSecret, "wrong", mailAppScope), entra.Refused, "invalid_client"},
		// Entra says unauthorized_client, AADSTS700016.
		{"unknown client", byName(unregistered, clientSecret, mailAppScope), entra.Refused, "invalid_client"},
		{"secret of a public client", byName(publicClient, clientSecret, graphScope), entra.Refused, "invalid_client"},
		{"secret in place of a certificate", byName(withAKey, clientSecret, mailAppScope), entra.Refused, "invalid_client"},
		{"scope that the client may not have", byName(withSecret, clientSecret, graphScope), entra.Misconfigured, "invalid_scope"},
		{"certificate that is not registered", assert(withAKey, other.Assertion("", nil)), entra.Refused, "invalid_client"},
		{"certificate of another client", assert(withSecret, certificate.Assertion("", nil)), entra.Refused, "invalid_client"},
		{"assertion that has ended", assert(withAKey, certificate.Assertion("", at(-time.Hour))), entra.Refused, "invalid_client"},
		{"assertion of tomorrow", assert(withAKey, certificate.Assertion("", at(24*time.Hour))), entra.Refused, "invalid_client"},
		{"assertion for another server", assert(withAKey, elsewhere), entra.Refused, "invalid_client"},
		{"refresh token that never was", refresh(publicClient, "never-was"), entra.SignInRequired, "invalid_grant"},
		{"grant that the client may not use", refresh(withSecret, "never-was"), entra.Refused, "invalid_client"},
		{"device code for a confidential client", noDevice, entra.Refused, "invalid_client"},
	} {
		checkKind(t, test.name, test.err, test.kind, test.code)
	}
	for _, s := range []string{clientSecret, "never-was"} {
		for _, err := range []error{byName(unregistered, s, mailAppScope), refresh(publicClient, s)} {
			if strings.Contains(err.Error(), s) {
				t.Errorf("the error holds what was sent: %v", err)
			}
		}
	}
}

// checkKind holds a failure against what it should be.
func checkKind(t *testing.T, what string, err error, kind entra.Kind, code string) {
	t.Helper()
	e, ok := errors.AsType[*entra.Error](err)
	if !ok || e.Kind() != kind || e.Code != code || e.Number() != 0 {
		t.Errorf("%s: %v; want %s, of kind %s", what, err, code, kind)
	}
}
