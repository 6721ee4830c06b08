package apppassword

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// eachBacking runs a test with each of what can stand behind an app password.
func eachBacking(t *testing.T, name string, test func(*testing.T, *fixture)) {
	t.Helper()
	for _, b := range []string{BackingSecret, BackingUser, BackingCertificate} {
		t.Run(strings.TrimPrefix(name+"/"+b, "/"), func(t *testing.T) { test(t, newFixtureOf(t, b)) })
	}
}

// newFixtureOf is newFixture with a sign-in or a certificate in its keychain.
func newFixtureOf(t *testing.T, backing string) *fixture {
	t.Helper()
	f := newFixture(t)
	switch backing {
	case BackingUser:
		f.signIn(t)
		f.Profile.Backing, f.items = backing, 1
		f.Graph.Token = nil // not to be asked
	case BackingCertificate:
		f.asserting(t)
		if err := StoreCertificate(t.Context(), f.keychain, f.Profile.ClientID, certificateOf(t, "one")); err != nil {
			t.Fatal(err)
		}
		f.Profile.Backing, f.items, f.credentials = backing, 1, 1
		f.Graph.Token = nil
	}
	return f
}

var certificatesMade = struct {
	sync.Mutex
	byName map[string]entra.Certificate
}{byName: map[string]entra.Certificate{}}

// certificateOf makes a certificate once for all tests, since that takes long.
func certificateOf(t *testing.T, name string) entra.Certificate {
	t.Helper()
	certificatesMade.Lock()
	defer certificatesMade.Unlock()
	if c, ok := certificatesMade.byName[name]; ok {
		return c
	}
	c, err := entra.NewCertificate(name, time.Now(), 365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificatesMade.byName[name] = c
	return c
}

// asserting puts before the sandbox's Entra what knows certificates: a request
// with a good assertion goes on with a client secret in its place, so that the
// sandbox's faults hold for it. Of the application is the certificate "one".
func (f *fixture) asserting(t *testing.T) *assertions {
	t.Helper()
	_, text, err := f.Graph.AddPassword(t.Context(), f.Profile.ClientID, graph.NewPassword{DisplayName: "stands in", End: time.Now().Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	a := &assertions{to: f.sandbox.Authority(), secret: text}
	a.add(certificateOf(t, "one"))
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	f.authority, f.Entra.Authority = srv.URL, srv.URL
	return a
}

// assertions is a token endpoint that takes client assertions.
type assertions struct {
	to     string
	secret secret.Text

	mu    sync.Mutex
	known map[string]*x509.Certificate // by x5t#S256
	algs  []string                     // seen
	asked int
}

func (a *assertions) add(c entra.Certificate) {
	cert, err := x509.ParseCertificate(c.DER())
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(c.DER())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = map[string]*x509.Certificate{base64.RawURLEncoding.EncodeToString(sum[:]): cert}
}

func (a *assertions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err == nil && form.Has("client_assertion") {
		if err := a.check(form, "http://"+r.Host+r.URL.Path); err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_client", "error_codes": []int{700027},
				"error_description": fmt.Sprintf("AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application: %v", err)})
			return
		}
		form.Del("client_assertion")
		form.Del("client_assertion_type")
		form.Set("client_secret", a.secret.Reveal())
		body = []byte(form.Encode())
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, a.to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (a *assertions) check(form url.Values, endpoint string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(form.Get("client_assertion"), &claims, func(tok *jwt.Token) (any, error) {
		a.algs = append(a.algs, tok.Method.Alg())
		x5t, _ := tok.Header["x5t#S256"].(string)
		if c := a.known[x5t]; c != nil {
			return c.PublicKey, nil
		}
		return nil, errors.New("no such certificate")
	}, jwt.WithAudience(endpoint), jwt.WithIssuer(form.Get("client_id")), jwt.WithSubject(form.Get("client_id")), jwt.WithExpirationRequired())
	return err
}

func TestBackingsAreCreatedListedAndRevoked(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 1)
		want := f.Profile.Backing
		if want == "" {
			want = BackingSecret
		}
		if c.Record.Backing != want || !c.Record.Verified || c.Record.Local() != (want != BackingSecret) || (c.Record.SignIn != "") != (want == BackingUser) {
			t.Errorf("%+v", c.Record)
		}
		if p, err := f.Reveal(t.Context(), c.Record); err != nil || !p.Equal(c.Password) {
			t.Errorf("revealed: %v", err)
		}
		if _, err := f.Create(t.Context(), f.request("X")); err == nil {
			t.Error("the name was given twice")
		} else if _, ok := errors.AsType[*NameTakenError](err); !ok {
			t.Error(err)
		}
		entries, err := f.List(t.Context())
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == c.Record.ID })
		if err != nil || i < 0 || entries[i].Status != Active {
			t.Fatalf("%+v, %v", entries, err)
		}
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		rec, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home)
		if err != nil {
			t.Fatal(err)
		}
		if tok, err := v.Token(t.Context(), rec.ID); err != nil || tok.IsZero() {
			t.Errorf("no token: %v", err)
		}
		if err := v.Revalidate(t.Context(), rec.ID); err != nil {
			t.Error(err)
		}
		if err := f.Revoke(t.Context(), entries[i]); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != PasswordRevoked {
			t.Errorf("a token for what was revoked: %v", err)
		}
	})
}

// What a killed create left is cleared away by the next, and Graph is not asked.
func TestLocalLeftByAKillIsCleared(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		if f.Profile.Backing == "" {
			t.Skip("the notes of secrets have tests of their own")
		}
		for _, item := range []bool{false, true} {
			note := Pending{ID: "n", Name: "x", Profile: f.Profile.Name, Tenant: f.Profile.Tenant, ClientID: f.Profile.ClientID,
				Keychain: "file", Since: time.Now(), KeyID: "k", Backing: f.Profile.Backing}
			if err := f.Registry.Update(t.Context(), func(s *State) error { s.note(note); return nil }); err != nil {
				t.Fatal(err)
			}
			if item {
				if err := storeSecrets(t.Context(), f.keychain, "k", secrets{Password: Generate()}); err != nil {
					t.Fatal(err)
				}
			}
			if notes, err := f.Interrupted(); err != nil || len(notes) != 1 {
				t.Errorf("notes %v, %v", notes, err)
			}
			if err := f.RecoverLocal(t.Context()); err != nil {
				t.Error(err)
			}
			f.consistent(t, 0)
		}
	})
}

// An update must not let older programs write away what they do not know.
func TestBackingsMakeANewRegistry(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		if _, err := f.Create(t.Context(), f.request("x")); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(f.Registry.Path())
		if want := f.Profile.Backing != ""; err != nil || strings.Contains(string(b), `"version": 3`) != want {
			t.Errorf("%s, %v", b, err)
		}
	})
}

func TestCreateNeedsASignIn(t *testing.T) {
	f := newFixture(t)
	f.Profile.Backing = BackingUser
	if _, err := f.Create(t.Context(), f.request("x")); !isSignInError(err) {
		t.Errorf("without one: %v", err)
	}
	f.signIn(t, "https://outlook.office.com/IMAP.AccessAsUser.All")
	req := f.request("x")
	req.Allow = []string{"imap", "smtp"}
	_, err := f.Create(t.Context(), req)
	if se, ok := errors.AsType[*ScopeError](err); !ok || se.Protocol != "smtp" {
		t.Errorf("with IMAP alone: %v", err)
	}
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		fault func(*sandbox.Faults)
		want  func(error) bool
	}{
		{func(f *sandbox.Faults) { f.RevokeRefreshTokens = true }, isSignInError},
		{func(f *sandbox.Faults) { f.ConditionalAccess = true }, func(err error) bool { _, ok := errors.AsType[*UnusableError](err); return ok }},
		{func(f *sandbox.Faults) { f.EntraDown = true }, func(err error) bool {
			ee, ok := errors.AsType[*entra.Error](err)
			_, unusable := errors.AsType[*UnusableError](err)
			return ok && ee.Kind() == entra.Unavailable && !unusable
		}},
	} {
		f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{}; tc.fault(f) })
		if _, err := f.Create(t.Context(), f.request("y")); !tc.want(err) {
			t.Errorf("%v", err)
		}
	}
	req = f.request("y")
	req.NoWait = true
	if c, err := f.Create(t.Context(), req); err != nil || c.Record.Verified {
		t.Errorf("not to be asked: %+v, %v", c.Record, err)
	}
	if s := f.state(t); len(s.AppPasswords) != 2 || len(s.Pending) != 0 {
		t.Errorf("%+v", s)
	}
}

// The sign-in may be forgotten while a create is on its way.
func TestCreateOnAForgottenSignIn(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	f.keychain.failing(func(op, key string) error {
		if op == "set" && strings.HasPrefix(key, "app-password/") {
			if err := f.Registry.Update(t.Context(), func(s *State) error { s.SignIns = nil; return nil }); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if _, err := f.Create(t.Context(), f.request("x")); !isSignInError(err) {
		t.Errorf("%v", err)
	}
	f.consistent(t, 0)
}

func TestCreateNeedsACertificate(t *testing.T) {
	f := newFixture(t)
	a := f.asserting(t)
	f.Profile.Backing = BackingCertificate
	_, err := f.Create(t.Context(), f.request("x"))
	if ce, ok := errors.AsType[*CertificateError](err); !ok || !ce.Missing() {
		t.Errorf("without one: %v", err)
	}
	f.Profile.Certificate = filepath.Join(t.TempDir(), "cert.pem")
	_, err = f.Create(t.Context(), f.request("x"))
	if ce, ok := errors.AsType[*CertificateError](err); !ok || !ce.Missing() {
		t.Errorf("without the file: %v", err)
	}
	writeFile(t, f.Profile.Certificate, "rubbish")
	_, err = f.Create(t.Context(), f.request("x"))
	if ce, ok := errors.AsType[*CertificateError](err); !ok || ce.Missing() {
		t.Errorf("rubbish: %v", err)
	}
	// One that the application does not have is waited for, and then refused.
	writeFile(t, f.Profile.Certificate, certificateOf(t, "two").PEM().Reveal())
	f.WaitLimit = 100 * time.Millisecond
	_, err = f.Create(t.Context(), f.request("x"))
	if ue, ok := errors.AsType[*UnusableError](err); !ok || ue.Backing != BackingCertificate || a.asked < 2 {
		t.Errorf("a strange certificate, after %d tries: %v", a.asked, err)
	}
	// It arrives while create waits.
	f.WaitLimit = 0
	f.Progress = func(format string, args ...any) {
		if strings.HasPrefix(format, "waiting for Entra") {
			a.add(certificateOf(t, "two"))
		}
	}
	f.Profile.AssertionAlgorithm = entra.RS256
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil || !c.Record.Verified || c.Record.Certificate != f.Profile.Certificate || a.algs[len(a.algs)-1] != entra.RS256 {
		t.Errorf("%+v, %v, %v", c.Record, a.algs, err)
	}
	// One that has ended is not shown to Entra.
	asked := a.asked
	f.Now = func() time.Time { return time.Now().Add(400 * 24 * time.Hour) }
	req := f.request("y")
	req.Expires = f.Now().Add(time.Hour)
	_, err = f.Create(t.Context(), req)
	if ce, ok := errors.AsType[*CertificateError](err); !ok || ce.Expired.IsZero() || a.asked != asked {
		t.Errorf("expired: %v", err)
	}
	if s := f.state(t); len(s.AppPasswords) != 1 || len(s.Pending) != 0 {
		t.Errorf("%+v", s)
	}
}
