package apppassword

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// offline is a fixture whose Graph and Entra must not be asked.
func offline(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.Graph.Token = func(context.Context) (secret.Text, error) {
		t.Error("Graph was asked")
		return secret.Text{}, errors.New("not to be asked")
	}
	f.Entra = nil
	return f
}

func (f *fixture) decoy(name string) Request {
	return Request{Name: name, Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}, Decoy: true}
}

// left holds registry and keychain to so many app passwords and nothing else.
func (f *fixture) left(t *testing.T, want int) {
	t.Helper()
	s, err := f.Registry.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.AppPasswords) != want || len(s.Pending) != 0 {
		t.Errorf("registry: %d app passwords, %d notes, want %d and none", len(s.AppPasswords), len(s.Pending), want)
	}
	f.keychain.mu.Lock()
	defer f.keychain.mu.Unlock()
	if len(f.keychain.items) != want {
		t.Errorf("%d keychain items, want %d", len(f.keychain.items), want)
	}
}

func TestDecoy(t *testing.T) {
	f := offline(t)
	c, err := f.Create(t.Context(), f.decoy("bait"))
	if err != nil {
		t.Fatal(err)
	}
	f.left(t, 1)
	if c.Record.Backing != BackingNone || !c.Record.Decoy || !c.Record.Expires.IsZero() || len(c.Password.Reveal()) != 16 {
		t.Errorf("%+v", c.Record)
	}
	if p, err := f.Reveal(t.Context(), c.Record); err != nil || !p.Equal(c.Password) {
		t.Errorf("revealed: %v", err)
	}
	if _, err := f.Create(t.Context(), f.decoy("BAIT")); err == nil {
		t.Error("the name was given twice")
	} else if _, ok := errors.AsType[*NameTakenError](err); !ok {
		t.Error(err)
	}
	entries, err := f.Local()
	if err != nil || len(entries) != 1 || entries[0].Status != Active {
		t.Fatalf("%v, %v", entries, err)
	}
	f.keychain.failing(func(op, key string) error {
		if op == "delete" {
			return errors.New("locked")
		}
		return nil
	})
	if _, ok := errors.AsType[*HalfRevokedError](f.Revoke(t.Context(), entries[0])); !ok {
		t.Error("no word of the keychain item that is left")
	}
	if entries, err = f.Local(); err != nil || entries[0].Status != Revoked {
		t.Fatalf("%v, %v", entries, err)
	}
	f.keychain.failing(nil)
	if err := f.Revoke(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	f.left(t, 0)
}

// Graph lacks a decoy, also an old one, and that is no revocation.
func TestDecoyIsListedBesideOthers(t *testing.T) {
	f := newFixture(t)
	for _, req := range []Request{f.request("real"), f.decoy("bait")} {
		if _, err := f.Create(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	f.Now = func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
	entries, err := f.List(t.Context())
	if err != nil || len(entries) != 2 || entries[0].Status != Active || entries[1].Status != Active || !entries[1].Decoy || entries[1].Remote {
		t.Errorf("%+v, %v", entries, err)
	}
	if _, err := f.Create(t.Context(), f.request("Bait")); err == nil {
		t.Error("the name of a decoy was given twice")
	}
}

func TestDecoyIsRefusedWithItsRecord(t *testing.T) {
	f := offline(t)
	req := f.decoy("bait")
	req.Expires = time.Now().Add(time.Hour)
	c, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Whatever mailbox, protocol and network it is tried with.
	for _, at := range [][2]string{{"alice@contoso.com", "imap"}, {"bob@contoso.com", "imap"}, {"alice@contoso.com", "smtp"}, {"", "pop3"}} {
		_, _, err := v.Verify(t.Context(), at[0], c.Password, at[1], home)
		if re, ok := errors.AsType[*RefusedError](err); !ok || re.Reason != DecoyUsed || re.Record.ID != c.Record.ID {
			t.Errorf("%v: %v", at, err)
		}
	}
	if _, err := v.Token(t.Context(), c.Record.ID); err == nil {
		t.Error("there is a token for a decoy")
	}
	// Nor does its end, or a revoke that was interrupted, give it away.
	v.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home); reason(t, err) != DecoyUsed {
		t.Errorf("after the end it was given: %v", err)
	}
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.mark([]string{c.Record.ID}, time.Now()); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", home); reason(t, err) != DecoyUsed {
		t.Errorf("half revoked: %v", err)
	}
}

func TestDecoyUndoesWhatFails(t *testing.T) {
	broken := errors.New("broken")
	mine := func(key string) bool { return !strings.HasPrefix(key, "probe/") }
	for _, step := range []string{"probe", "keychain", "registry", "interrupt"} {
		t.Run(step, func(t *testing.T) {
			f := offline(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			good := []byte(nil)
			f.keychain.failing(func(op, key string) error {
				switch {
				case step == "probe", step == "keychain" && op == "set" && mine(key):
					return broken
				case step == "registry" && op == "set" && mine(key):
					good, _ = os.ReadFile(f.Registry.Path())
					writeFile(t, f.Registry.Path(), "{")
				case step == "registry" && op == "delete" && mine(key):
					writeFile(t, f.Registry.Path(), string(good))
				case step == "interrupt" && op == "set" && mine(key):
					cancel()
				}
				return nil
			})
			if _, err := f.Create(ctx, f.decoy("bait")); err == nil {
				t.Fatal("it was created")
			}
			f.keychain.failing(nil)
			f.left(t, 0)
		})
	}
}

// What a killed create of a decoy left is removed by whatever comes next, and
// Graph is not asked.
func TestDecoyLeftByAKillIsCleared(t *testing.T) {
	for _, item := range []bool{false, true} {
		for name, next := range map[string]func(*fixture) error{
			"decoy":   func(f *fixture) error { _, err := f.Create(t.Context(), f.decoy("next")); return err },
			"recover": func(f *fixture) error { return f.Recover(t.Context()) },
		} {
			f := offline(t)
			f.leftByAKill(t, BackingNone, item)
			if err := next(f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			f.left(t, map[string]int{"decoy": 1, "recover": 0}[name])
		}
	}
	// A create of another kind clears it as well.
	f := newFixture(t)
	f.leftByAKill(t, BackingNone, false)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 1)
}
