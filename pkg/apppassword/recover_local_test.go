package apppassword

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// What cannot be removed does not keep the rest from being removed: least of
// all a decoy's item, which opens nothing, a credential in Entra.
func TestRecoverGoesOn(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("real"))
	if err != nil {
		t.Fatal(err)
	}
	note := Pending{Profile: f.Profile.Name, Tenant: f.Profile.Tenant, ClientID: f.Profile.ClientID, Keychain: c.Record.Keychain, Since: time.Now().Add(-time.Hour)}
	// As creates leave it that were killed.
	err = f.Registry.Update(t.Context(), func(s *State) error {
		bait, caught, left := note, note, note
		bait.ID, bait.Name, bait.KeyID, bait.Decoy = uuid.NewString(), "bait", "stuck", true
		caught.ID, caught.Name, caught.KeyID, caught.Decoy = uuid.NewString(), "caught", "free", true
		left.ID, left.Name, left.KeyID = uuid.NewString(), "real", c.Record.ID
		s.remove(c.Record.ID)
		s.note(bait)
		s.note(caught)
		s.note(left)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.keychain.failing(func(op, key string) error {
		if op == "delete" && strings.Contains(key, "stuck") {
			return errors.New("locked")
		}
		return nil
	})
	pending := func() (names []string) {
		s, err := f.Registry.Load()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Pending {
			names = append(names, p.Name)
		}
		return names
	}
	if err := f.RecoverLocal(t.Context()); err == nil || !strings.Contains(err.Error(), `"bait"`) {
		t.Errorf("error %v", err)
	}
	if got := strings.Join(pending(), " "); got != "bait real" {
		t.Errorf("notes of %s", got)
	}
	if n := len(f.sandbox.Credentials()); n != 1 {
		t.Fatalf("%d credentials: decoys are no concern of Entra's", n)
	}
	if err := f.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), `"bait"`) {
		t.Errorf("error %v", err)
	}
	if got := strings.Join(pending(), " "); got != "bait" {
		t.Errorf("notes of %s", got)
	}
	if n := len(f.sandbox.Credentials()); n != 0 {
		t.Errorf("%d credentials are left in Entra", n)
	}
	f.keychain.failing(nil)
	if err := f.Recover(t.Context()); err != nil || len(pending()) != 0 {
		t.Errorf("%v, notes of %s", err, pending())
	}
}
