package apppassword

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

func (f *fixture) verifier() *Verifier {
	return &Verifier{
		Registry:  f.Registry,
		Keychains: func(string) (secret.Keychain, error) { return f.keychain, nil },
		Clouds:    func(string) (config.Cloud, error) { return f.Profile.Cloud, nil },
		Entra: func(config.Cloud, string) (*entra.Client, error) {
			return &entra.Client{Authority: f.authority, Tenant: f.sandbox.Tenant, MaxWait: -1}, nil
		},
		Tokens: &entra.Cache{},
	}
}

var home = netip.MustParseAddr("192.168.1.5")

// reason is why a sign-in was refused; empty when it was not.
func reason(t *testing.T, err error) Refused {
	t.Helper()
	if err == nil {
		return ""
	}
	re, ok := errors.AsType[*RefusedError](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return re.Reason
}

func TestVerifyHoldsToScope(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		req := f.request("x")
		req.Mailboxes = []string{"alice@contoso.com", "Shared@contoso.com"}
		req.Networks = []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00::/64")}
		c, err := f.Create(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			user, password, protocol, remote string
			want                             Refused
		}{
			{"alice@contoso.com", c.Password.Reveal(), "imap", "192.168.1.5", ""},
			{"ALICE@Contoso.com", Grouped(c.Password).Reveal(), "imap", "::ffff:192.168.1.5", ""},
			{"shared@contoso.com", c.Password.Reveal(), "imap", "fd00::7", ""},
			{"bob@contoso.com", c.Password.Reveal(), "imap", "192.168.1.5", MailboxNotAllowed},
			{"", c.Password.Reveal(), "imap", "192.168.1.5", MailboxNotAllowed},
			{"alice@contoso.com", c.Password.Reveal(), "smtp", "192.168.1.5", ProtocolNotAllowed},
			{"alice@contoso.com", c.Password.Reveal(), "imap", "192.168.2.5", NetworkNotAllowed},
			{"alice@contoso.com", c.Password.Reveal(), "imap", "127.0.0.1", NetworkNotAllowed},
			{"alice@contoso.com", c.Password.Reveal() + "a", "imap", "192.168.1.5", WrongPassword},
			{"alice@contoso.com", "", "imap", "192.168.1.5", WrongPassword},
			{"alice@contoso.com", " - ", "imap", "192.168.1.5", WrongPassword},
		} {
			_, mailbox, err := v.Verify(t.Context(), tc.user, secret.New(tc.password), tc.protocol, netip.MustParseAddr(tc.remote))
			if got := reason(t, err); got != tc.want {
				t.Errorf("%s over %s from %s: %q, want %q", tc.user, tc.protocol, tc.remote, got, tc.want)
			} else if got == "" && mailbox != "alice@contoso.com" && mailbox != "Shared@contoso.com" {
				t.Errorf("%s opens %s", tc.user, mailbox)
			}
		}
		v.Now = func() time.Time { return req.Expires.Add(time.Second) }
		_, _, err = v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home)
		if got := reason(t, err); got != PasswordExpired {
			t.Errorf("after its end: %q", got)
		}
		if got := reason(t, v.Allowed(c.Record.ID, c.Record.Revision())); got != PasswordExpired {
			t.Errorf("a session after its end: %q", got)
		}
	})
}

func TestVerifyFollowsRegistry(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var changes atomic.Int32
		ended := make(chan struct{})
		go func() { defer close(ended); v.Watch(ctx, func() { changes.Add(1) }) }()
		defer func() { cancel(); <-ended }()

		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		// A person signs in before the next look at the file.
		rec, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home)
		if err != nil {
			t.Fatal(err)
		}
		rev := rec.Revision()
		if err := v.Allowed(rec.ID, rev); err != nil {
			t.Fatal(err)
		}
		err = f.Registry.Update(t.Context(), func(s *State) error { s.AppPasswords[0].Allow = []string{"smtp"}; return nil })
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the change to be seen", func() bool { return reason(t, v.Allowed(rec.ID, rev)) == PasswordChanged })
		// Rubbish leaves what was there in force.
		before := changes.Load()
		b, err := os.ReadFile(f.Registry.Path())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Registry.Path(), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * watchInterval)
		if got := reason(t, v.Allowed(rec.ID, rev)); got != PasswordChanged || changes.Load() != before {
			t.Errorf("a damaged registry: %q, %d changes", got, changes.Load()-before)
		}
		if err := os.WriteFile(f.Registry.Path(), b, 0o600); err != nil {
			t.Fatal(err)
		}
		entries, err := f.Local()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Revoke(t.Context(), entries[0]); err != nil {
			t.Fatal(err)
		}
		await(t, "the revocation to be seen", func() bool { return reason(t, v.Allowed(rec.ID, rev)) == PasswordRevoked })
		if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home); reason(t, err) != WrongPassword {
			t.Errorf("a revoked password: %v", err)
		}
		if changes.Load() == 0 {
			t.Error("nobody was told of a change")
		}
	})
}

// Graph's listings may show a removed credential for minutes. The mail client
// is shut out as soon as Graph has taken the removal.
func TestRevokeShutsOutBeforeGraphAgrees(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const lag = 700 * time.Millisecond
	time.Sleep(lag) // so that the listing shows the credential itself
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ListLag = lag })
	revoked := make(chan error, 1)
	go func() { revoked <- f.Revoke(t.Context(), entries[0]) }()
	await(t, "the mark", func() bool {
		_, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home)
		if err == nil {
			err = v.Load(t.Context())
		}
		return err != nil && reason(t, err) == PasswordRevoked
	})
	select {
	case err := <-revoked:
		t.Fatalf("revoke ended before Graph's listing agreed: %v", err)
	default:
	}
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 0)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestVerifyWithoutKeychain(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		locked := &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked}
		f.keychain.failing(func(op, key string) error { return locked })
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Not "wrong password": a mail client would throw the right one away.
		if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home); reason(t, err) != NotAvailable {
			t.Errorf("locked: %v", err)
		}
		if _, _, err := v.Verify(t.Context(), "nobody@contoso.com", c.Password, "imap", home); reason(t, err) != WrongPassword {
			t.Errorf("another mailbox: %v", err)
		}
		f.keychain.failing(nil)
		v.mu.Lock()
		v.lastTry = time.Time{} // as if some seconds had passed
		v.mu.Unlock()
		if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home); err != nil {
			t.Errorf("unlocked: %v", err)
		}
	})
}

func TestTokenOfARemovedSecret(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	id := c.Record.ID
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Token(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.sandbox.RemoveCredential(id)
	if _, err := v.Token(t.Context(), id); err != nil {
		t.Errorf("a cached token: %v", err)
	}
	if got := reason(t, v.Revalidate(t.Context(), id)); got != PasswordRevoked {
		t.Errorf("removed in Entra: %q", got)
	}
	if _, err := v.Token(t.Context(), id); reason(t, err) != PasswordRevoked {
		t.Errorf("the token of a removed secret is still given out: %v", err)
	}
}

// counted counts the requests that pass.
type counted struct {
	http.RoundTripper
	n atomic.Int32
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// What revalidation fetched serves the sign-in after Exchange has ended the
// session.
func TestReconnectCostsNoToken(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	requests := &counted{RoundTripper: http.DefaultTransport}
	v := f.verifier()
	v.Entra = func(config.Cloud, string) (*entra.Client, error) {
		return &entra.Client{HTTP: &http.Client{Transport: requests}, Authority: f.authority, Tenant: f.sandbox.Tenant, MaxWait: -1}, nil
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := v.Token(t.Context(), c.Record.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Revalidate(t.Context(), c.Record.ID); err != nil {
		t.Fatal(err)
	}
	before := requests.n.Load()
	if before != 2 {
		t.Fatalf("%d requests for a sign-in and a revalidation", before)
	}
	again, err := v.Token(t.Context(), c.Record.ID)
	if err != nil || again.Equal(first) {
		t.Errorf("the reconnect gets the token of before, or none: %v", err)
	}
	if now := requests.n.Load(); now != before {
		t.Errorf("the reconnect cost %d requests", now-before)
	}
}

// A secret that Entra has never accepted may not have arrived everywhere: the
// mail client must not be told that its password is wrong.
func TestYoungUnverifiedSecretIsUnavailable(t *testing.T) {
	f := newFixture(t)
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ReplicationDelay = time.Hour })
	req := f.request("x")
	req.NoWait = true
	c, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Token(t.Context(), c.Record.ID); reason(t, err) != NotAvailable {
		t.Errorf("young: %v", err)
	}
	v = f.verifier()
	v.Now = func() time.Time { return time.Now().Add(replication + time.Minute) }
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Token(t.Context(), c.Record.ID); reason(t, err) != PasswordRevoked {
		t.Errorf("old: %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	v := &Verifier{byID: map[string]*held{}}
	for range 1000 {
		p := Generate()
		v.byID[p.Reveal()] = &held{rec: Record{ID: p.Reveal(), Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}}, secrets: secrets{Password: p}}
	}
	v.index()
	var p secret.Text
	for _, h := range v.byID {
		p = h.Password
	}
	for b.Loop() {
		if _, _, err := v.Verify(b.Context(), "alice@contoso.com", p, "imap", home); err != nil {
			b.Fatal(err)
		}
	}
}

// A sign-in that finds a changed registry before Watch does must not keep
// Watch from telling.
func TestWatchTellsWhatASignInLoaded(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var told atomic.Int32
	ended := make(chan struct{})
	go func() { defer close(ended); v.Watch(ctx, func() { told.Add(1) }) }()
	defer func() { cancel(); <-ended }()
	await(t, "the first look", func() bool { return told.Load() == 1 })
	for i := range 5 {
		err := f.Registry.Update(t.Context(), func(s *State) error { s.AppPasswords[0].Hint = string(rune('a' + i)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = v.Verify(t.Context(), "alice@contoso.com", secret.New("wrong"), "imap", home)
		if reason(t, err) != WrongPassword || v.stale() {
			t.Fatalf("the sign-in did not load the registry: %v", err)
		}
		await(t, "the change to be told", func() bool { return told.Load() == int32(i+2) })
	}
}

// The registry is read anew while sign-ins fill in what the keychain would not
// give before. The race detector watches.
func TestLoadWhileKeychainComesBack(t *testing.T) {
	f := newFixture(t)
	var passwords []secret.Text
	for _, name := range []string{"a", "b", "c"} {
		c, err := f.Create(t.Context(), f.request(name))
		if err != nil {
			t.Fatal(err)
		}
		passwords = append(passwords, c.Password)
	}
	locked := &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked}
	for range 20 {
		v := f.verifier()
		f.keychain.failing(func(op, key string) error { return locked })
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Slow, so that the registry is read between one item and the next.
		f.keychain.failing(func(op, key string) error { time.Sleep(time.Millisecond); return nil })
		v.mu.Lock()
		v.lastTry = time.Time{} // as if some seconds had passed
		v.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { v.loadMissing(t.Context()) })
		for i := range 8 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 400 * time.Microsecond)
				if err := v.Load(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, p := range passwords {
			if _, _, err := v.Verify(t.Context(), "alice@contoso.com", p, "imap", home); err != nil {
				t.Fatal(err)
			}
		}
	}
}
