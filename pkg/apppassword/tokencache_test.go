package apppassword

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tokens is the cache of a fixture, beside what gets new ones, and counts them.
type tokens struct {
	f     *fixture
	cache TokenCache
	now   time.Time
	mu    sync.Mutex
	got   int
	fail  error // of the next ones
}

func (f *fixture) tokens() *tokens {
	tk := &tokens{f: f, now: time.Now()}
	tk.cache = TokenCache{
		Registry: f.Registry, Now: func() time.Time { return tk.now },
		Caches: func(string) (secret.Cache, error) { return secret.Cache{Keychain: f.keychain}, nil },
	}
	return tk
}

func (tk *tokens) ask(t *testing.T, id string, graph bool) (entra.Token, error) {
	t.Helper()
	token, _, err := tk.cache.Token(t.Context(), id, graph, func(ctx context.Context) (entra.Token, error) {
		tk.mu.Lock()
		defer tk.mu.Unlock()
		if tk.fail != nil {
			return entra.Token{}, tk.fail
		}
		tk.got++
		v := tk.f.verifier()
		if err := v.LoadOne(ctx, id); err != nil {
			return entra.Token{}, err
		}
		return v.Issue(ctx, id, graph)
	})
	return token, err
}

// expect asks, and counts how many were got so far.
func (tk *tokens) expect(t *testing.T, id string, graph bool, got int) secret.Text {
	t.Helper()
	token, err := tk.ask(t, id, graph)
	if err != nil {
		t.Fatal(err)
	}
	if tk.got != got {
		t.Errorf("%d tokens were got, want %d", tk.got, got)
	}
	if token.Access.IsZero() || !token.Expires.After(tk.now) {
		t.Errorf("a token that ends at %s", token.Expires)
	}
	return token.Access
}

func TestTokenCache(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("mutt"))
		if err != nil {
			t.Fatal(err)
		}
		tk, id := f.tokens(), c.Record.ID
		first := tk.expect(t, id, false, 1)
		if !tk.expect(t, id, false, 1).Equal(first) {
			t.Error("another token than the cached one")
		}
		tk.now = tk.now.Add(45 * time.Minute) // 15 of an hour are left
		tk.expect(t, id, false, 2)

		// In an outage the cached one is good to its last minute.
		tk.now = tk.now.Add(10 * time.Minute) // which began when 15 of its hour were left
		tk.fail = &RefusedError{Reason: NotAvailable}
		tk.expect(t, id, false, 2)
		tk.now = tk.now.Add(5 * time.Minute)
		if _, err := tk.ask(t, id, false); reason(t, err) != NotAvailable {
			t.Errorf("in an outage, with none left: %v", err)
		}
		// A refusal is none: the credential is gone.
		tk.now, tk.fail = time.Now().Add(55*time.Minute), &RefusedError{Reason: PasswordRevoked}
		if _, err := tk.ask(t, id, false); reason(t, err) != PasswordRevoked {
			t.Errorf("refused: %v", err)
		}
		tk.now, tk.fail = time.Now(), nil

		// A changed record has no token.
		if err := f.Registry.Update(t.Context(), func(s *State) error { s.AppPasswords[0].Allow = []string{"pop3"}; return nil }); err != nil {
			t.Fatal(err)
		}
		got := tk.got
		tk.expect(t, id, false, got+1)
		tk.expect(t, id, false, got+1)

		if err := f.Revoke(t.Context(), Entry{Record: c.Record, Status: Active}); err != nil {
			t.Fatal(err)
		}
		if _, err := tk.ask(t, id, false); reason(t, err) != PasswordRevoked {
			t.Errorf("revoked: %v", err)
		}
		if _, ok := f.keychain.items[cachedKey(id)]; ok {
			t.Error("the token is left in the keychain")
		}
	})
}

func TestTokenCacheOfTwoAudiences(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("mutt"))
	if err != nil {
		t.Fatal(err)
	}
	tk, id := f.tokens(), c.Record.ID
	exchange := tk.expect(t, id, false, 1)
	graph := tk.expect(t, id, true, 2)
	if exchange.Equal(graph) || !tk.expect(t, id, false, 2).Equal(exchange) || !tk.expect(t, id, true, 2).Equal(graph) {
		t.Error("the two are not kept apart")
	}
	f.keychain.items[cachedKey(id)] = secret.New("{")
	tk.expect(t, id, false, 3)
}

// A person's new sign-in, and the end of one, make the tokens of before forgotten.
func TestTokenCacheFollowsTheSignIn(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	c, err := f.Create(t.Context(), f.request("mutt"))
	if err != nil {
		t.Fatal(err)
	}
	tk := f.tokens()
	tk.expect(t, c.Record.ID, false, 1)
	for i, change := range []func(*SignIn){
		func(si *SignIn) { si.Since = si.Since.Add(time.Second) },
		func(si *SignIn) { si.Ended = time.Now() },
	} {
		if err := f.Registry.Update(t.Context(), func(s *State) error { change(&s.SignIns[0]); return nil }); err != nil {
			t.Fatal(err)
		}
		tk.expect(t, c.Record.ID, false, 2+i)
	}
}

func TestTokenCacheAsksOnce(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("mutt"))
	if err != nil {
		t.Fatal(err)
	}
	tk := f.tokens()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := tk.ask(t, c.Record.ID, false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if tk.got != 1 {
		t.Errorf("eight programs at once got %d tokens, want one", tk.got)
	}
}

func TestAdmit(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("mutt"))
		if err != nil {
			t.Fatal(err)
		}
		other, err := f.Create(t.Context(), f.request("other"))
		if err != nil {
			t.Fatal(err)
		}
		v := f.verifier()
		f.keychain.failing(func(op, key string) error {
			if key == itemKey(other.Record.ID) {
				return errors.New("nobody asked for this one")
			}
			return nil
		})
		if err := v.LoadOne(t.Context(), c.Record.ID); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			id, mailbox, protocol string
			want                  Refused
		}{
			{c.Record.ID, "Alice@contoso.com", "imap", ""},
			{c.Record.ID, "bob@contoso.com", "imap", MailboxNotAllowed},
			{c.Record.ID, "alice@contoso.com", "pop3", ProtocolNotAllowed},
			{other.Record.ID, "alice@contoso.com", "imap", PasswordRevoked}, // not held
		} {
			rec, mailbox, err := v.Admit(tc.id, tc.mailbox, tc.protocol, home)
			if got := reason(t, err); got != tc.want || err == nil && (mailbox != "alice@contoso.com" || rec.ID != c.Record.ID) {
				t.Errorf("%s over %s: %q (%q), want %q", tc.mailbox, tc.protocol, got, mailbox, tc.want)
			}
		}
		if _, err := v.Issue(t.Context(), c.Record.ID, false); err != nil {
			t.Error(err)
		}
		locked := &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked}
		f.keychain.failing(func(string, string) error { return locked })
		if err := f.verifier().LoadOne(t.Context(), c.Record.ID); !errors.Is(err, locked) {
			t.Errorf("with a locked keychain: %v", err)
		}
	})
}
