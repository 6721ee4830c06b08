package apppassword

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
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
		f.Profile.Backing, f.items = backing, 1
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

// asserting gives the sandbox's application the certificate "one".
func (f *fixture) asserting(t *testing.T) *assertions {
	t.Helper()
	a := &assertions{t: t, f: f}
	a.add(certificateOf(t, "one"))
	return a
}

// assertions is the application's one certificate.
type assertions struct {
	t     *testing.T
	f     *fixture
	keyID string
}

// add puts a certificate in the place of the one before.
func (a *assertions) add(c entra.Certificate) {
	a.t.Helper()
	if a.keyID != "" && !a.f.sandbox.RemoveCertificate(a.f.Profile.ClientID, a.keyID) {
		a.t.Fatal("the certificate is not there")
	}
	var err error
	if a.keyID, err = a.f.sandbox.AddCertificate(a.f.Profile.ClientID, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER()})); err != nil {
		a.t.Fatal(err)
	}
}

// asked is how many requests Entra has had.
func (a *assertions) asked() (n int) {
	for _, r := range a.f.sandbox.Requests() {
		if r.Service == "entra" {
			n++
		}
	}
	return n
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

// leftByAKill is what a create of that backing leaves that is killed: its note,
// and with item what it has put into the keychain.
func (f *fixture) leftByAKill(t *testing.T, backing string, item bool) {
	t.Helper()
	note := Pending{ID: "n", Name: "x", Profile: f.Profile.Name, Tenant: f.Profile.Tenant, ClientID: f.Profile.ClientID,
		Keychain: "file", Since: time.Now(), KeyID: "k", Backing: backing, Decoy: backing == BackingNone}
	if backing == BackingNone {
		note.Backing = ""
	}
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
}

// What a killed create left is cleared away by the next, and Graph is not asked.
func TestLocalLeftByAKillIsCleared(t *testing.T) {
	for _, backing := range []string{BackingUser, BackingCertificate} {
		t.Run(backing, func(t *testing.T) {
			f := newFixtureOf(t, backing)
			for _, item := range []bool{false, true} {
				f.leftByAKill(t, backing, item)
				if err := f.RecoverLocal(t.Context()); err != nil {
					t.Error(err)
				}
				f.consistent(t, 0)
			}
		})
	}
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
	if ue, ok := errors.AsType[*UnusableError](err); !ok || ue.Backing != BackingCertificate || a.asked() < 2 {
		t.Errorf("a strange certificate, after %d tries: %v", a.asked(), err)
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
	if err != nil || !c.Record.Verified || c.Record.Certificate != f.Profile.Certificate || c.Record.CertificateAlg != entra.RS256 {
		t.Errorf("%+v, %v", c.Record, err)
	}
	// One that has ended is not shown to Entra.
	asked := a.asked()
	f.Now = func() time.Time { return time.Now().Add(400 * 24 * time.Hour) }
	req := f.request("y")
	req.Expires = f.Now().Add(time.Hour)
	_, err = f.Create(t.Context(), req)
	if ce, ok := errors.AsType[*CertificateError](err); !ok || ce.Expired.IsZero() || a.asked() != asked {
		t.Errorf("expired: %v", err)
	}
	if s := f.state(t); len(s.AppPasswords) != 1 || len(s.Pending) != 0 {
		t.Errorf("%+v", s)
	}
}
