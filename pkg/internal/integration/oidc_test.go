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
)

// TestOIDCProvider is the OAuth part of this project, which is written for
// Entra, against a server that keeps to the RFCs. docs/design.md lists where
// the two differ.
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
	// The wrong verifier has not used the code up.
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
