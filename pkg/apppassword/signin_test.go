package apppassword

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// person signs alice in at the sandbox, for all of the scopes or those given.
func (f *fixture) person(t *testing.T, scopes ...string) entra.Token {
	t.Helper()
	scope := MailScopes(f.Profile.Cloud)
	if len(scopes) > 0 {
		scope = strings.Join(scopes, " ")
	}
	tok, err := f.Entra.SignInBrowser(t.Context(), entra.BrowserSignIn{
		ClientID: f.Profile.ClientID, Scope: scope, Announce: func(string) {},
		Open: func(url string) error {
			resp, err := http.Get(url)
			if err == nil {
				resp.Body.Close()
			}
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// signIn signs alice in for mail and keeps that.
func (f *fixture) signIn(t *testing.T, scopes ...string) SignIn {
	t.Helper()
	si, err := f.KeepSignIn(t.Context(), f.person(t, scopes...))
	if err != nil {
		t.Fatal(err)
	}
	return si
}

func (f *fixture) state(t *testing.T) State {
	t.Helper()
	s, err := f.Registry.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keys are the keys of the keychain, sorted.
func (m *memory) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for k := range m.items {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestSignInIsKept(t *testing.T) {
	f := newFixture(t)
	if _, ok, err := f.SignInOf(); ok || err != nil {
		t.Fatalf("a sign-in before any: %v", err)
	}
	if _, err := f.MailToken(t.Context()); !isSignInError(err) {
		t.Fatalf("a token without a sign-in: %v", err)
	}
	si := f.signIn(t)
	if si.Username != "alice@contoso.com" || si.ObjectID == "" || si.Since.IsZero() || len(si.Scopes) < 3 {
		t.Errorf("%+v", si)
	}
	got, ok, err := f.SignInOf()
	if err != nil || !ok || got.ID != si.ID {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	before := f.keychain.items["mail-sign-in/"+si.ID]
	tok, err := f.MailToken(t.Context())
	if err != nil || tok.Access.IsZero() {
		t.Fatal(err)
	}
	after := f.keychain.items["mail-sign-in/"+si.ID]
	if after.Equal(before) || !strings.Contains(after.Reveal(), tok.Refresh.Reveal()) {
		t.Error("the new refresh token was not kept")
	}
	b, err := os.ReadFile(f.Registry.Path())
	if err != nil || strings.Contains(string(b), tok.Refresh.Reveal()) || !strings.Contains(string(b), `"version": 3`) {
		t.Errorf("the registry: %s, %v", b, err)
	}
	if _, err := f.KeepSignIn(t.Context(), entra.Token{Access: secret.New("x")}); err == nil {
		t.Error("a sign-in without a refresh token was kept")
	}
}

func isSignInError(err error) bool {
	_, ok := errors.AsType[*SignInError](err)
	return ok
}

// The id stays with person and client, whatever the profile is called; another
// person takes the profile over, and what nothing uses any more is forgotten.
func TestSignInBelongsToPersonAndClient(t *testing.T) {
	f := newFixture(t)
	alice := f.signIn(t)
	shared := *f.Manager
	shared.Profile.Name = "shared"
	shared.Profile.ClientID = strings.ToUpper(f.Profile.ClientID)
	again, err := shared.KeepSignIn(t.Context(), f.person(t))
	if err != nil || again.ID != alice.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, m := range []*Manager{f.Manager, &shared} {
		if si, ok, err := m.SignInOf(); err != nil || !ok || si.ID != alice.ID {
			t.Errorf("profile %s: %+v, %v", m.Profile.Name, si, err)
		}
	}
	bobs := f.person(t)
	bobs.Identity = entra.Identity{Username: "ALICE@contoso.com", ObjectID: "11111111-2222-4333-8444-555555555555"} // a name given anew
	bob, err := f.KeepSignIn(t.Context(), bobs)
	if err != nil || bob.ID == alice.ID {
		t.Fatalf("%+v, %v", bob, err)
	}
	if si, _, _ := f.SignInOf(); si.ID != bob.ID {
		t.Errorf("the profile has %+v", si)
	}
	if si, ok, _ := shared.SignInOf(); !ok || si.ID != alice.ID {
		t.Errorf("the other profile has %+v", si)
	}
	if _, err := shared.KeepSignIn(t.Context(), bobs); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t); len(s.SignIns) != 1 || s.SignIns[0].ID != bob.ID || !slices.Equal(f.keychain.keys(), []string{"mail-sign-in/" + bob.ID}) {
		t.Errorf("left: %+v, %v", s.SignIns, f.keychain.keys())
	}
	// Another client or cloud is another sign-in, and none of the profile's.
	f.Profile.Cloud.Name = "other"
	if si, ok, _ := f.SignInOf(); ok {
		t.Errorf("in another cloud: %+v", si)
	}
}

func TestSignInEndsAndComesBack(t *testing.T) {
	f := newFixture(t)
	si := f.signIn(t)
	fault := func(set func(*sandbox.Faults)) {
		f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{}; set(f) })
	}
	fault(func(f *sandbox.Faults) { f.EntraDown = true })
	if _, err := f.MailToken(t.Context()); err == nil || isSignInError(err) {
		t.Errorf("an outage: %v", err)
	}
	fault(func(f *sandbox.Faults) { f.ConditionalAccess = true })
	if _, err := f.MailToken(t.Context()); err == nil || isSignInError(err) {
		t.Errorf("Conditional Access: %v", err)
	}
	if now := f.state(t).SignIns[0]; !now.Ended.IsZero() {
		t.Errorf("marked though it has not ended: %+v", now)
	}
	fault(func(f *sandbox.Faults) { f.RevokeRefreshTokens = true })
	kept := f.keychain.items["mail-sign-in/"+si.ID]
	if _, err := f.MailToken(t.Context()); !isSignInError(err) || !strings.Contains(err.Error(), "alice@contoso.com") {
		t.Errorf("ended: %v", err)
	}
	ended := f.state(t).SignIns[0]
	if ended.Ended.IsZero() || !strings.HasPrefix(ended.Why, "AADSTS50173: ") || strings.ContainsAny(ended.Why, "\r\n") {
		t.Errorf("%+v", ended)
	}
	if !f.keychain.items["mail-sign-in/"+si.ID].Equal(kept) {
		t.Error("a refusal has cost the refresh token")
	}
	if _, err := f.MailToken(t.Context()); !isSignInError(err) || !f.state(t).SignIns[0].Ended.Equal(ended.Ended) {
		t.Errorf("the time of the end has moved: %v", err)
	}
	fault(func(*sandbox.Faults) {})
	if _, err := f.MailToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := f.state(t).SignIns[0]; !now.Ended.IsZero() || now.Why != "" || !now.Since.Equal(si.Since) {
		t.Errorf("the mark is still there: %+v", now)
	}
	// Somebody who has signed in anew meanwhile is not marked by an old answer.
	fault(func(f *sandbox.Faults) { f.RevokeRefreshTokens = true })
	r := refresher{registry: f.Registry, keychains: f.Keychains, now: time.Now, complain: func(err error) { t.Error(err) }}
	old := si
	old.Since = si.Since.Add(-time.Hour)
	if _, err := r.refresh(t.Context(), f.Entra, f.Profile.Cloud, old); !needsSignIn(err) || !f.state(t).SignIns[0].Ended.IsZero() {
		t.Errorf("the new sign-in was marked: %v", err)
	}
}

// A sign-in that was killed on its way into keychain and registry is known, and
// finished by the next.
func TestSignInKilled(t *testing.T) {
	for _, saved := range []bool{false, true} {
		f := newFixture(t)
		tok := f.person(t)
		si, err := f.adoptSignIn(t.Context(), tok.Identity, strings.Fields(tok.Scope))
		if err != nil {
			t.Fatal(err)
		}
		if saved {
			st, err := newSignInStore(f.Registry, f.Keychains, si)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Save(t.Context(), tok.Refresh); err != nil {
				t.Fatal(err)
			}
			if _, err := f.MailToken(t.Context()); err != nil || f.state(t).SignIns[0].Since.IsZero() {
				t.Errorf("it does not work though all is there: %v", err)
			}
		} else if _, err := f.MailToken(t.Context()); !isSignInError(err) {
			t.Errorf("a token from nothing: %v", err)
		}
		if again := f.signIn(t); again.ID != si.ID || !again.Ended.IsZero() {
			t.Errorf("%+v after %+v", again, si)
		}
		if s := f.state(t); len(s.SignIns) != 1 || len(f.keychain.keys()) != 1 {
			t.Errorf("%+v, %v", s.SignIns, f.keychain.keys())
		}
	}
}

func TestSignInThatCannotBeKeptIsUndone(t *testing.T) {
	f := newFixture(t)
	f.keychain.failing(func(op, key string) error {
		if op == "set" {
			return errors.New("full")
		}
		return nil
	})
	if _, err := f.KeepSignIn(t.Context(), f.person(t)); err == nil {
		t.Fatal("it was kept")
	}
	if s := f.state(t); len(s.SignIns) != 0 {
		t.Errorf("left: %+v", s.SignIns)
	}
	f.keychain.failing(nil)
	si := f.signIn(t)
	f.keychain.failing(func(op, key string) error {
		if op == "set" {
			return errors.New("full")
		}
		return nil
	})
	if _, err := f.KeepSignIn(t.Context(), f.person(t)); err == nil {
		t.Fatal("it was kept")
	}
	f.keychain.failing(nil)
	if _, err := f.MailToken(t.Context()); err != nil {
		t.Errorf("the sign-in of before is gone: %v", err)
	}
	// Ctrl-C after the person has signed in loses nothing.
	ctx, cancel := context.WithCancel(t.Context())
	tok := f.person(t)
	cancel()
	if again, err := f.KeepSignIn(ctx, tok); err != nil || again.ID != si.ID {
		t.Errorf("%+v, %v", again, err)
	}
}

// The profile's keychain was changed: the next sign-in moves there, and until
// it has, the token of before serves.
func TestSignInMovesToAnotherKeychain(t *testing.T) {
	f := newFixture(t)
	si := f.signIn(t)
	system := &memory{}
	f.Keychains = func(kind string) (secret.Keychain, error) {
		return map[string]secret.Keychain{"file": f.keychain, "system": system}[kind], nil
	}
	f.Profile.Keychain = "system"
	tok := f.person(t)
	if _, err := f.adoptSignIn(t.Context(), tok.Identity, nil); err != nil { // and killed
		t.Fatal(err)
	}
	if _, err := f.MailToken(t.Context()); err != nil {
		t.Errorf("between the two: %v", err)
	}
	moved, err := f.KeepSignIn(t.Context(), tok)
	if err != nil || moved.ID != si.ID || moved.Keychain != "system" || moved.Former != "" {
		t.Errorf("%+v, %v", moved, err)
	}
	if len(f.keychain.keys()) != 0 || len(system.keys()) != 1 {
		t.Errorf("file has %v, system %v", f.keychain.keys(), system.keys())
	}
}

func TestForgetSignIn(t *testing.T) {
	f := newFixture(t)
	if lost, err := f.ForgetSignIn(t.Context()); err != nil || lost != nil {
		t.Errorf("nothing to forget: %v, %v", lost, err)
	}
	f.signIn(t)
	f.keychain.failing(func(op, key string) error {
		if op == "delete" {
			return errors.New("locked")
		}
		return nil
	})
	if _, err := f.ForgetSignIn(t.Context()); err == nil {
		t.Error("no word of the item that is left")
	}
	if si, ok, _ := f.SignInOf(); !ok || si.Ended.IsZero() {
		t.Errorf("half forgotten: %+v", si)
	}
	f.keychain.failing(nil)
	if lost, err := f.ForgetSignIn(t.Context()); err != nil || lost != nil {
		t.Errorf("%v, %v", lost, err)
	}
	if s := f.state(t); len(s.SignIns) != 0 || len(f.keychain.keys()) != 0 {
		t.Errorf("left: %+v, %v", s.SignIns, f.keychain.keys())
	}
	// What stands on it works again once the person is back.
	si := f.signIn(t)
	rec := Record{ID: "r", Name: "x", Profile: "other", Backing: BackingUser, SignIn: si.ID, ClientID: si.ClientID, Keychain: "file"}
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.put(rec); return nil }); err != nil {
		t.Fatal(err)
	}
	lost, err := f.ForgetSignIn(t.Context())
	if err != nil || len(lost) != 1 || lost[0].ID != "r" || len(f.keychain.keys()) != 0 {
		t.Errorf("%v, %v, %v", lost, err, f.keychain.keys())
	}
	if _, ok, _ := f.SignInOf(); ok {
		t.Error("the profile still has a sign-in")
	}
	if now := f.state(t).SignIns; len(now) != 1 || now[0].Ended.IsZero() {
		t.Errorf("%+v", now)
	}
	if again := f.signIn(t); again.ID != si.ID {
		t.Errorf("%s became %s", si.ID, again.ID)
	}
}

func TestScopesOfASignIn(t *testing.T) {
	cloud := config.Cloud{ExchangeResource: "https://outlook.office365.com", ExchangeDelegated: "https://outlook.office.com"}
	for _, tc := range []struct {
		granted, allows, asks string
	}{
		{"https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send openid", "imap smtp", "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send"},
		{"https://OUTLOOK.office.com/pop.accessasuser.all", "pop3", "https://outlook.office.com/POP.AccessAsUser.All"},
		{"https://outlook.office365.com/SMTP.Send", "smtp", "https://outlook.office.com/SMTP.Send"},
		{"IMAP.AccessAsUser.All https://graph.microsoft.com/SMTP.Send", "", MailScopes(cloud)}, // Graph's
	} {
		si := SignIn{Scopes: strings.Fields(tc.granted)}
		var allows []string
		for _, p := range protocols {
			if si.grants(cloud, p) {
				allows = append(allows, p)
			}
		}
		if strings.Join(allows, " ") != tc.allows || si.scope(cloud) != tc.asks {
			t.Errorf("%s: allows %v, asks for %s", tc.granted, allows, si.scope(cloud))
		}
	}
}

// TestSignInKeptInBrokenKeychain: a sign-in that cannot be kept in the keychain
// that the profile names now leaves the one of before as good as it was.
func TestSignInKeptInBrokenKeychain(t *testing.T) {
	f := newFixture(t)
	f.signIn(t)
	tok := f.person(t)
	broken := &memory{}
	broken.failing(func(op, _ string) error {
		return &secret.UnavailableError{Keychain: "system", Reason: secret.NoSession}
	})
	f.Keychains = func(kind string) (secret.Keychain, error) {
		if kind == "system" {
			return broken, nil
		}
		return f.keychain, nil
	}
	f.Profile.Keychain = "system"
	if _, err := f.KeepSignIn(t.Context(), tok); err == nil {
		t.Fatal("it was kept")
	}
	if _, err := f.MailToken(t.Context()); err != nil {
		t.Errorf("the sign-in of before is no good: %v", err)
	}
}

// TestSignInForgottenWhileKept: whoever signs out while somebody signs in takes the
// entry away; it is there again before the refresh token is in the keychain, so
// that a kill leaves nothing there that nobody knows of.
func TestSignInForgottenWhileKept(t *testing.T) {
	f := newFixture(t)
	f.signIn(t)
	tok := f.person(t)
	store, err := newSignInStore(f.Registry, f.Keychains, f.state(t).SignIns[0])
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := store.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan struct{}, 1)
	known := true
	f.keychain.failing(func(op, key string) error {
		switch {
		case op == "get" && key == store.key():
			select { // the one who signs in is about to wait for the lock
			case waiting <- struct{}{}:
			default:
			}
		case op == "set" && key == store.key():
			s, err := f.Registry.Load()
			known = err == nil && s.signIn(store.id) != nil
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.KeepSignIn(t.Context(), tok); err != nil {
			t.Error(err)
		}
	})
	<-waiting
	err = f.Registry.Update(t.Context(), func(s *State) error { s.removeSignIn(store.id); return nil })
	unlock()
	wg.Wait()
	if err != nil || !known {
		t.Errorf("the keychain had a refresh token that the registry did not know of: %v", err)
	}
}

// TestKeychainAsksBeforeTheLock: a keychain that asks a person to open it, as at
// a terminal beside a running gateway, keeps nobody else from a refresh.
func TestKeychainAsksBeforeTheLock(t *testing.T) {
	for name, use := range map[string]func(*fixture) error{
		"refresh": func(f *fixture) error { _, err := f.MailToken(t.Context()); return err },
		"forget":  func(f *fixture) error { _, err := f.ForgetSignIn(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			si := f.signIn(t)
			asked := false
			f.keychain.failing(func(op, _ string) error {
				if asked {
					return nil
				}
				asked = true
				unlock, free, err := durable.TryLock(filepath.Join(f.Registry.Dir, "mail-sign-in-"+si.ID+".lock"))
				if err != nil || !free {
					t.Errorf("asked (%s) while the sign-in is locked: %v", op, err)
					return err
				}
				unlock()
				return nil
			})
			if err := use(f); err != nil || !asked {
				t.Fatalf("asked %v, %v", asked, err)
			}
		})
	}
}
