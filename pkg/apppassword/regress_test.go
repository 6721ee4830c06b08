package apppassword

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// A listing that lacks a credential made a moment ago is no reason to leave
// Graph out of its revocation.
func TestRevokeOfYoungAsksGraphThoughUnlisted(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ListLag = time.Hour })
	entries, err := f.List(t.Context())
	if err != nil || entries[0].Status != Revoked {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := f.Revoke(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 0)
}

// While Graph does not know a new credential yet, its removal cannot be taken:
// a note makes sure that it is removed once it can be.
func TestRevokeBeforeReplicationLeavesNote(t *testing.T) {
	f := newFixture(t)
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ReplicationDelay = time.Hour })
	req := f.request("x")
	req.NoWait = true
	if _, err := f.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	entries, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Revoke(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(f.sandbox.Credentials()); n != 1 {
		t.Fatalf("%d credentials: the fault does not do what this test needs", n)
	}
	notes, err := f.abandoned()
	if err != nil || len(notes) != 1 || notes[0].KeyID != entries[0].ID || !notes[0].Watched {
		t.Fatalf("notes %v, %v", notes, err)
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ReplicationDelay = 0 })
	if err := f.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 0)
}

// Two profiles with one application know the same app passwords.
func TestProfilesOfOneApplication(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		other := *f.Manager
		other.Profile.Name = "office"
		other.Profile.ClientID = strings.ToUpper(other.Profile.ClientID)
		other.Profile.Tenant = "contoso.onmicrosoft.com" // the same tenant, spelt otherwise
		entries, err := other.List(t.Context())
		if err != nil || len(entries) != 1 || entries[0].Status != Active || entries[0].ID != c.Record.ID {
			t.Fatalf("%v, %v", entries, err)
		}
		if _, err := other.Create(t.Context(), f.request("X")); err == nil {
			t.Error("the name was given twice")
		}
		if err := other.Revoke(t.Context(), entries[0]); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
	})
}

// The record says which keychain holds its secrets, not the profile of today.
func TestKeychainOfTheRecord(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		file := f.Keychains
		f.Profile.Keychain = "system"
		f.Keychains = func(kind string) (secret.Keychain, error) {
			if kind == "system" {
				return nil, errors.New("the wrong keychain was asked")
			}
			return file(kind)
		}
		if p, err := f.Reveal(t.Context(), c.Record); err != nil || !p.Equal(c.Password) {
			t.Errorf("revealed %v", err)
		}
		entries, err := f.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Revoke(t.Context(), entries[0]); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
	})
}

// An application that the profile named before and that cannot be read keeps
// nobody from the present one.
func TestFormerApplicationUnreadable(t *testing.T) {
	f := newFixture(t)
	old := Record{ID: "11111111-2222-4333-8444-555555555555", Name: "old", Profile: "work", Tenant: f.Profile.Tenant,
		ClientID: "not a client id", Backing: BackingSecret, Keychain: "file", Created: time.Now().Add(-time.Hour), Expires: time.Now().Add(time.Hour)}
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.put(old); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	entries, err := f.List(t.Context())
	if err != nil || len(entries) != 2 || entries[0].Status != Active || len(f.warned) == 0 {
		t.Errorf("%v, %v, warned %v", entries, err, f.warned)
	}
}

// A program that does not know limits would let more in than they allow, and
// write the registry without them: it must not take it for one of its own. Where
// there are none, it can.
func TestLimitsMakeANewRegistry(t *testing.T) {
	f := newFixture(t)
	version := func() string {
		b, err := os.ReadFile(f.Registry.Path())
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Version json.Number }
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		return file.Version.String()
	}
	if _, err := f.Create(t.Context(), f.request("plain")); err != nil || version() != "1" {
		t.Errorf("without limits: version %s, %v", version(), err)
	}
	for i, limit := range []func(*Request){
		func(r *Request) { r.ReadOnly = true }, func(r *Request) { r.From = []string{"@contoso.com"} },
		func(r *Request) { r.MaxPerHour = 1 }, func(r *Request) { r.LoginName = "printer" }, func(r *Request) { r.Decoy = true },
	} {
		req := f.request(fmt.Sprint("limited ", i))
		req.Allow = []string{"imap", "smtp"}
		limit(&req)
		made, err := f.Create(t.Context(), req)
		if err != nil || version() != "2" {
			t.Errorf("%+v: version %s, %v", req, version(), err)
		}
		if err := f.Registry.Update(t.Context(), func(s *State) error { s.remove(made.Record.ID); return nil }); err != nil || version() != "1" {
			t.Errorf("after its end: version %s, %v", version(), err)
		}
	}
}

// A registry of a newer version is not damaged, and not written.
func TestNewerRegistry(t *testing.T) {
	f := newFixture(t)
	writeFile(t, f.Registry.Path(), `{"version":6,"appPasswords":[]}`)
	_, err := f.Registry.Load()
	if _, ok := errors.AsType[*NewerError](err); !ok {
		t.Errorf("%v", err)
	}
	if err := f.Registry.Update(t.Context(), func(*State) error { return nil }); err == nil {
		t.Error("it was written over")
	}
}

// A machine without a state folder (CI) can list and revoke, not create.
func TestWithoutStateFolder(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	f.Registry = Registry{}
	entries, err := f.List(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Status != RemoteOnly {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := f.Revoke(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	if err := f.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := f.Create(t.Context(), f.request("y")); !errors.Is(err, ErrNoState) {
		t.Errorf("%v", err)
	}
	if n := len(f.sandbox.Credentials()); n != 0 {
		t.Errorf("%d credentials", n)
	}
}

// A create that lost an answer and ended well alarms nobody, and the note goes
// once nothing can turn up any more.
func TestLostAnswerIsWatchedQuietly(t *testing.T) {
	f := newFixture(t)
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.LoseAddPassword = 1 })
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	if notes, err := f.Interrupted(); err != nil || len(notes) != 0 {
		t.Errorf("told of %v, %v", notes, err)
	}
	if notes, err := f.abandoned(); err != nil || len(notes) != 1 {
		t.Errorf("watched are %v, %v", notes, err)
	}
	f.warned = nil
	f.Now = func() time.Time { return time.Now().Add(replication + time.Minute) }
	if err := f.Recover(t.Context()); err != nil || len(f.warned) != 0 {
		t.Errorf("%v, warned %v", err, f.warned)
	}
	f.consistent(t, 1)
}

// A damaged registry keeps nobody from revoking: Graph is asked alone.
func TestDamagedRegistryRevokes(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.Registry.Path(), "{")
	entries, err := f.List(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Status != RemoteOnly || len(f.warned) == 0 {
		t.Fatalf("%v, %v, warned %v", entries, err, f.warned)
	}
	if err := f.Revoke(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(f.sandbox.Credentials()); n != 0 {
		t.Errorf("%d credentials", n)
	}
	if _, err := f.Create(t.Context(), f.request("y")); err == nil {
		t.Error("created, and nowhere to keep it")
	}
	if n := len(f.sandbox.Credentials()); n != 0 {
		t.Errorf("%d credentials", n)
	}
}

// TestCreateBesideTrial: a trial, which waits for an administrator of Exchange as
// a rule, keeps no create waiting, and no create takes its client secret away.
func TestCreateBesideTrial(t *testing.T) {
	f := newFixture(t)
	err := f.Trial(t.Context(), func(token func(context.Context) (entra.Token, error)) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := f.Create(ctx, f.request("beside")); err != nil {
			return fmt.Errorf("create beside a trial: %w", err)
		}
		if notes, err := f.Interrupted(); len(notes) > 0 || err != nil {
			return fmt.Errorf("the trial is taken for one that was interrupted: %v, %v", notes, err)
		}
		_, err := token(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 1)
	if left, _ := filepath.Glob(filepath.Join(f.Registry.Dir, "trial-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	// One that was killed is cleared away by the next create.
	note := Pending{ID: "killed", Name: trialName, Profile: f.Profile.Name, Tenant: f.Profile.Tenant,
		ClientID: f.Profile.ClientID, Keychain: f.Profile.Keychain, Since: time.Now().UTC(), Trial: true}
	if _, err := f.addTrial(t.Context(), &note); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create(t.Context(), f.request("after")); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 2)
}

// Sign-ins that find a changed registry at the same moment load it once.
func TestVerifyLoadsAChangeOnce(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := f.Local()
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	err = f.Registry.Update(t.Context(), func(s *State) error { s.mark([]string{entries[0].ID}, time.Now()); return nil })
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, err := v.Verify(t.Context(), "alice@contoso.com", c.Password, "imap", netip.MustParseAddr("127.0.0.1")); err == nil {
				t.Error("what was revoked signs in")
			}
		})
	}
	all.Wait()
	if n := v.loaded(); n != 2 {
		t.Errorf("the registry was read %d times", n)
	}
}
