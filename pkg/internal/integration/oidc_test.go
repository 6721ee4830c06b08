//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// TestOIDCProvider is the OAuth part of this project, which is written for
// Entra, against a server that keeps to the RFCs. Where that differs from
// Entra, a comment says so; besides, it knows no AADSTS numbers.
func TestOIDCProvider(t *testing.T) {
	t.Parallel()
	certificate, err := entra.NewCertificate("o365pw", time.Now(), 24*time.Hour)
	must(t, err)
	p := startOIDCProvider(t, certificate)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"browser", p.testBrowser},
		{"paste", p.testPaste},
		{"replayed code", p.testReplayedCode},
		{"stolen code", p.testStolenCode},
		{"device code", p.testDeviceCode},
		{"device code declined", p.testDeviceCodeDeclined},
		{"device code expired", p.testDeviceCodeExpired},
		{"refresh", p.testRefresh},
		{"refresh killed", p.testRefreshKilled},
		{"sign-in ended", p.testRevoked},
		{"client secret", p.testClientSecret},
		{"client assertion", func(t *testing.T) { p.testClientAssertion(t, certificate) }},
		{"refusals", func(t *testing.T) { p.testRefusals(t, certificate) }},
		{"login", p.testLogin},
		{"login by pasting", p.testLoginPaste},
		{"login by device code", p.testLoginDeviceCode},
		{"login killed", p.testLoginKilled},
		{"login declined", p.testLoginDeclined},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

func (p *oidcProvider) testBrowser(t *testing.T) {
	for name, hint := range map[string]string{"picked": "", "hinted at": mailbox} {
		pages := make(chan string, 1)
		token, err := p.client().SignInBrowser(t.Context(), entra.BrowserSignIn{
			ClientID: publicClient, Scope: graphScope, LoginHint: hint,
			Open: func(address string) error {
				page, _, err := newPerson(mailbox).walk(t.Context(), address, "")
				pages <- page
				return err
			},
		})
		must(t, err)
		p.checkSignIn(t, token, graphScope)
		if page := <-pages; !strings.Contains(page, "<h1>Signed in</h1>") || !strings.Contains(page, "as "+mailbox) {
			t.Errorf("%s: the last page of the browser is\n%s", name, page)
		}
	}

	page := make(chan string, 1)
	_, err := p.client().SignInBrowser(t.Context(), entra.BrowserSignIn{
		ClientID: publicClient, Scope: graphScope,
		Open: func(address string) error {
			text, _, err := declining(mailbox).walk(t.Context(), address, "")
			page <- text
			return err
		},
	})
	checkKind(t, "a person who declines", err, entra.Declined, "access_denied")
	if text := <-page; !strings.Contains(text, "<h1>Not signed in</h1>") {
		t.Errorf("the last page of the browser is\n%s", text)
	}
}

// checkSignIn holds token against what the server says of it.
func (p *oidcProvider) checkSignIn(t *testing.T, token entra.Token, scopes ...string) {
	t.Helper()
	about := p.introspect(t, token.Access)
	if about["active"] != true || about["sub"] != mailbox || about["client_id"] != publicClient {
		t.Errorf("the access token is %v", about)
	}
	for _, scope := range scopes {
		for name, list := range map[string]string{"introspection": str(about["scope"]), "the answer": token.Scope} {
			if !strings.Contains(list+" ", scope+" ") {
				t.Errorf("%s names the scopes %q, without %s", name, list, scope)
			}
		}
	}
	if want := (entra.Identity{Name: "Alice Example", Username: mailbox, ObjectID: "oid of " + mailbox, TenantID: oidcTenant}); token.Identity != want {
		t.Errorf("signed in as %+v, want %+v", token.Identity, want)
	}
	if expires, ok := about["exp"].(float64); !ok || token.Expires.Sub(time.Unix(int64(expires), 0)).Abs() > time.Minute {
		t.Errorf("the token ends at %v, by introspection at %v", token.Expires, about["exp"])
	}
	if token.Refresh.IsZero() {
		t.Error("there is no refresh token")
	}
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// paste signs in by pasting; edit changes what is pasted.
func (p *oidcProvider) paste(ctx context.Context, c *entra.Client, who *person, edit func(asked, ended string) string) (entra.Token, error) {
	return c.SignInPaste(ctx, entra.PasteSignIn{
		ClientID: publicClient, Scope: graphScope,
		Ask: func(ctx context.Context, address string) (string, error) {
			_, ended, err := who.walk(ctx, address, "")
			if edit != nil {
				ended = edit(address, ended)
			}
			return ended, err
		},
	})
}

func (p *oidcProvider) testPaste(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), func(_, ended string) string {
		if err := entra.CheckPaste(ended); err != nil {
			t.Errorf("the browser ends at an address that is not taken: %v", err)
		}
		// As a terminal and a person may change it on its way.
		return " <" + ended[:40] + "\r\n" + ended[40:] + ">\n"
	})
	must(t, err)
	p.checkSignIn(t, token, graphScope)

	_, err = p.paste(t.Context(), p.client(), declining(mailbox), nil)
	checkKind(t, "a person who declines", err, entra.Declined, "access_denied")
}

// recorder keeps what is sent to the token endpoint.
type recorder struct {
	mu    sync.Mutex
	forms []url.Values
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.forms = append(r.forms, form)
	r.mu.Unlock()
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	return http.DefaultTransport.RoundTrip(req)
}

// testReplayedCode: who has got hold of the code and even of its verifier
// comes too late, and ends what came of the code (RFC 6749 section 4.1.2).
func (p *oidcProvider) testReplayedCode(t *testing.T) {
	c, sent := p.client(), &recorder{}
	c.HTTP = &http.Client{Transport: sent}
	token, err := p.paste(t.Context(), c, newPerson(mailbox), nil)
	must(t, err)
	if len(sent.forms) != 1 {
		t.Fatalf("%d requests for one code", len(sent.forms))
	}
	status, answer := p.post(t, p.endpoint("token"), sent.forms[0])
	if status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
		t.Errorf("the code was used again: HTTP %d, %v", status, answer)
	}
	if about := p.introspect(t, token.Access); about["active"] != false {
		t.Errorf("after the code was used again, the access token is %v", about)
	}
}

// testStolenCode: the code of one sign-in is of no use to another, which has
// another verifier (RFC 7636 section 4.6).
func (p *oidcProvider) testStolenCode(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), func(_, victims string) string {
		stolen, err := url.Parse(victims)
		must(t, err)
		_, err = p.paste(t.Context(), p.client(), newPerson("mallory@contoso.com"), func(asked, _ string) string {
			own, err := url.Parse(asked)
			must(t, err)
			return "http://localhost/?" + url.Values{"code": {stolen.Query().Get("code")}, "state": {own.Query().Get("state")}}.Encode()
		})
		checkKind(t, "the code of another sign-in", err, entra.SignInRequired, "invalid_grant")
		return victims
	})
	// Entra's codes end with the first wrong use.
	must(t, err)
	p.checkSignIn(t, token, graphScope)
}

func (p *oidcProvider) testDeviceCode(t *testing.T) {
	walked := make(chan error, 1)
	token, err := p.client().SignInDeviceCode(t.Context(), publicClient, strings.Join(mailScopes, " "), func(dc entra.DeviceCode) {
		go func() {
			page, _, err := newPerson(mailbox).walk(t.Context(), dc.VerificationURI, dc.UserCode)
			if err == nil && !strings.Contains(page, "Sign-in Success") {
				err = errors.New("the last page is\n" + page)
			}
			walked <- err
		}()
	})
	must(t, err)
	must(t, <-walked)
	p.checkSignIn(t, token, mailScopes...)
}

func (p *oidcProvider) testDeviceCodeDeclined(t *testing.T) {
	walked := make(chan error, 1)
	_, err := p.client().SignInDeviceCode(t.Context(), publicClient, graphScope, func(dc entra.DeviceCode) {
		go func() {
			_, _, err := declining(mailbox).walk(t.Context(), dc.VerificationURI, dc.UserCode)
			walked <- err
		}()
	})
	must(t, <-walked)
	// Entra says authorization_declined.
	checkKind(t, "a person who declines", err, entra.Declined, "access_denied")
}

func (p *oidcProvider) testDeviceCodeExpired(t *testing.T) {
	_, err := p.client().SignInDeviceCode(t.Context(), impatient, graphScope, nil)
	if e, ok := errors.AsType[*entra.Error](err); !ok || e.Kind() != entra.Expired {
		t.Errorf("a code that nobody uses: %v", err)
	}
}

// signInStore keeps a refresh token in memory.
type signInStore struct {
	mu    sync.Mutex
	token secret.Text
	saves int
	fail  error // of Save
}

func (s *signInStore) Lock(context.Context) (func(), error) {
	s.mu.Lock()
	return s.mu.Unlock, nil
}

func (s *signInStore) Load(context.Context) (secret.Text, error) { return s.token, nil }

func (s *signInStore) Save(_ context.Context, token secret.Text) error {
	if s.fail != nil {
		return s.fail
	}
	s.token, s.saves = token, s.saves+1
	return nil
}

// testRefresh: each refresh token is good once here, so that one which is not
// saved is missed at the next turn. Several at once wait for each other.
func (p *oidcProvider) testRefresh(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	store := &signInStore{token: token.Refresh}
	const turns = 6
	var wg sync.WaitGroup
	for range turns {
		wg.Go(func() {
			fresh, err := p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
			if err != nil {
				t.Error(err)
				return
			}
			p.checkSignIn(t, fresh, graphScope)
		})
	}
	wg.Wait()
	if store.saves != turns {
		t.Errorf("%d refresh tokens were saved in %d turns", store.saves, turns)
	}
	// Unlike Entra, this server gives no token for what was not signed in for.
	_, err = p.client().RefreshStored(t.Context(), publicClient, mailScopes[0], store)
	checkKind(t, "another scope", err, entra.Misconfigured, "invalid_scope")
	if store.saves != turns {
		t.Error("a refused refresh has changed what is saved")
	}
}

// testRefreshKilled: where a refresh token is good once, an end between the
// answer and Save ends the sign-in. That is said, and no access token goes out
// that the next run could not have. Entra lets the old one live on.
func (p *oidcProvider) testRefreshKilled(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	store := &signInStore{token: token.Refresh, fail: errors.New("the disk is full")}
	lost, err := p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
	if !errors.Is(err, store.fail) || !lost.Access.IsZero() {
		t.Errorf("a refresh that cannot be saved: %v, with an access token: %t", err, !lost.Access.IsZero())
	}
	store.fail = nil
	_, err = p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
	checkKind(t, "a refresh token used twice", err, entra.SignInRequired, "invalid_grant")
	if !store.token.Equal(token.Refresh) || store.saves != 0 {
		t.Error("the store holds another token than the last good one")
	}
}

func (p *oidcProvider) testRevoked(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	if status, answer := p.post(t, p.issuer+"/token/revocation", url.Values{"client_id": {publicClient}, "token": {token.Refresh.Reveal()}}); status != http.StatusOK {
		t.Fatalf("revocation: HTTP %d, %v", status, answer)
	}
	_, err = p.client().RefreshToken(t.Context(), publicClient, token.Refresh, graphScope)
	checkKind(t, "a sign-in that was ended", err, entra.SignInRequired, "invalid_grant")
}

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
	wrongTenant := *c
	wrongTenant.Tenant = "fabrikam.onmicrosoft.com"
	_, inWrongTenant := wrongTenant.ClientSecret(t.Context(), withSecret, secret.New(clientSecret), mailAppScope)
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
		// Its answer is no JSON here, and so nothing to go by.
		{"tenant that is not there", inWrongTenant, entra.Unavailable, ""},
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
