//go:build integration

package integration

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// What is registered at oidc-provider. Clients are named by what they are.
const (
	oidcTenant   = "contoso.onmicrosoft.com"
	graphScope   = "https://graph.microsoft.com/Application.ReadWrite.All"
	mailAppScope = "https://outlook.office365.com/.default"
	publicClient = "5c8a0d3e-51c5-4c1b-9f0e-2f6d3c7b9a10" // signs people in
	impatient    = "impatient"                            // the same, with device codes of one second
	withSecret   = "with-secret"                          // client credentials
	withAKey     = "with-key"                             // the same, by client assertions
	unregistered = "unregistered"                         // is not there

	clientSecret = "8Q~a-secret-as-Entra-makes-them.0123456"
)

var mailScopes = []string{
	"https://outlook.office.com/IMAP.AccessAsUser.All",
	"https://outlook.office.com/POP.AccessAsUser.All",
	"https://outlook.office.com/SMTP.Send",
}

// oidcProvider is an OAuth server that nobody here wrote, at Entra's addresses.
type oidcProvider struct {
	issuer string
	*process
}

// startOIDCProvider installs and runs oidc-provider. certificate is of the
// client withAKey.
func startOIDCProvider(t *testing.T, certificate entra.Certificate) *oidcProvider {
	t.Helper()
	node, npm := tool(t, "node"), tool(t, "npm")
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "oidc-provider"))))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir, install.WaitDelay = dir, 5*time.Second
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}

	native := func(id string) map[string]any {
		return map[string]any{
			"client_id": id, "application_type": "native", "token_endpoint_auth_method": "none",
			"redirect_uris": []string{"http://localhost"}, "response_types": []string{"code"},
			"grant_types": []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"},
		}
	}
	unattended := map[string]any{
		"client_id": withSecret, "client_secret": clientSecret, "token_endpoint_auth_method": "client_secret_post",
		"redirect_uris": []string{}, "response_types": []string{}, "grant_types": []string{"client_credentials"},
		"scope": mailAppScope,
	}
	keyed := map[string]any{
		"client_id": withAKey, "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(t, certificate),
		"redirect_uris": []string{}, "response_types": []string{}, "grant_types": []string{"client_credentials"},
	}
	settings, err := json.Marshal(map[string]any{
		"tenant": oidcTenant, "scopes": append([]string{graphScope, mailAppScope}, mailScopes...),
		"clients": []any{native(publicClient), native(impatient), unattended, keyed},
	})
	must(t, err)

	home := &lab{t: t, dir: dir, env: os.Environ()}
	p := &oidcProvider{process: home.start(node, "provider.mjs")}
	_, err = fmt.Fprintf(p.stdin, "%s\n", settings)
	must(t, err)
	issuer := regexp.MustCompile(`(?m)^issuer (http://127\.0\.0\.1:\d+)$`)
	eventually(t, "oidc-provider", func() bool {
		if m := issuer.FindStringSubmatch(p.out.String()); m != nil {
			p.issuer = m[1]
		}
		return p.issuer != ""
	})
	return p
}

// jwks is how a client registers its certificate (RFC 7517 sections 4.7 and 5,
// RFC 7518 section 6.3.1).
func jwks(t *testing.T, c entra.Certificate) any {
	t.Helper()
	cert, err := x509.ParseCertificate(c.DER())
	must(t, err)
	key := cert.PublicKey.(*rsa.PublicKey)
	return map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig",
		"n":   base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e":   base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		"x5c": []string{base64.StdEncoding.EncodeToString(c.DER())},
	}}}
}

// client is the client under test.
func (p *oidcProvider) client() *entra.Client {
	return &entra.Client{Authority: p.issuer, Tenant: oidcTenant}
}

// endpoint is an address of Entra's, by the end of its path.
func (p *oidcProvider) endpoint(name string) string {
	return p.issuer + "/" + oidcTenant + "/oauth2/v2.0/" + name
}

// post sends a form past the client under test.
func (p *oidcProvider) post(t *testing.T, address string, form url.Values) (status int, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if len(body) > 0 {
		must(t, json.Unmarshal(body, &answer))
	}
	return resp.StatusCode, answer
}

// introspect asks what a token is worth (RFC 7662).
func (p *oidcProvider) introspect(t *testing.T, token secret.Text) map[string]any {
	t.Helper()
	status, answer := p.post(t, p.issuer+"/token/introspection", url.Values{
		"client_id": {withSecret}, "client_secret": {clientSecret}, "token": {token.Reveal()},
	})
	if status != http.StatusOK {
		t.Fatalf("introspection: HTTP %d, %v", status, answer)
	}
	return answer
}

// person is somebody at a browser without scripts, with cookies of their own.
type person struct {
	http *http.Client
	name string
	no   bool // declines when asked

	declined bool
}

// errStopped ends a walk at the address that nobody listens at.
var errStopped = errors.New("the address to paste")

func newPerson(name string) *person {
	jar, _ := cookiejar.New(nil) // fails with options alone
	return &person{name: name, http: &http.Client{
		Jar: jar, Timeout: time.Minute,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case r.URL.Host == "localhost":
				return errStopped
			case len(via) > 10:
				return errors.New("too many redirects")
			}
			return nil
		},
	}}
}

func declining(name string) *person {
	p := newPerson(name)
	p.no = true
	return p
}

var (
	formAction  = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hiddenInput = regexp.MustCompile(`<input[^>]* type="hidden" name="([^"]*)" value="([^"]*)"`)
	cancelLink  = regexp.MustCompile(`<a href="([^"]*)">\[ Cancel \]</a>`)
)

// walk opens address and does what the pages ask for until there is no form
// left. It gives the last page, or the address that the browser could not load.
func (p *person) walk(ctx context.Context, address, userCode string) (page, ended string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", "", err
	}
	for range 8 {
		at, body, err := p.load(req)
		if errors.Is(err, errStopped) {
			return "", at.String(), nil
		}
		if err != nil {
			return "", "", err
		}
		page = body
		if req, err = p.next(ctx, at, page, userCode); err != nil || req == nil {
			return page, "", err
		}
	}
	return "", "", fmt.Errorf("the pages have no end; the last is\n%s", page)
}

// load gets a page, and the address where it is after all redirects.
func (p *person) load(req *http.Request) (at *url.URL, page string, err error) {
	resp, err := p.http.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok && errors.Is(err, errStopped) {
		at, parsed := url.Parse(e.URL)
		return at, "", cmp.Or(parsed, err)
	}
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.Request.URL, string(body), err
}

// next is what the person does at a page; nil is nothing more.
func (p *person) next(ctx context.Context, at *url.URL, page, userCode string) (*http.Request, error) {
	form := formAction.FindStringSubmatch(page)
	if form == nil || p.declined {
		return nil, nil
	}
	if cancel := cancelLink.FindStringSubmatch(page); cancel != nil && p.no {
		p.declined = true
		return p.request(ctx, http.MethodGet, at, cancel[1], nil)
	}
	values := url.Values{}
	for _, m := range hiddenInput.FindAllStringSubmatch(page, -1) {
		values.Set(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
	}
	for name, value := range map[string]string{"login": p.name, "password": "any", "user_code": userCode} {
		if strings.Contains(page, `name="`+name+`"`) {
			values.Set(name, value)
		}
	}
	return p.request(ctx, http.MethodPost, at, form[1], values)
}

func (p *person) request(ctx context.Context, method string, at *url.URL, link string, form url.Values) (*http.Request, error) {
	to, err := at.Parse(html.UnescapeString(link))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), strings.NewReader(form.Encode()))
	if err == nil && method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
