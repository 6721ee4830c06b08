//go:build unix

package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// keychainItems are the keys of the machine's keychain, read by age itself.
func (m *machine) keychainItems() []string {
	m.t.Helper()
	var file struct{ Identity, Items string }
	b, err := os.ReadFile(filepath.Join(m.dir, "state", "keychain.age"))
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	unseal := func(text string, with age.Identity) []byte {
		r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), with)
		if err != nil {
			m.t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			m.t.Fatal(err)
		}
		return b
	}
	passphrase, err := age.NewScryptIdentity("kill")
	if err != nil {
		m.t.Fatal(err)
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(unseal(file.Identity, passphrase))))
	if err != nil {
		m.t.Fatal(err)
	}
	items := map[string]string{}
	if err := json.Unmarshal(unseal(file.Items, identity), &items); err != nil {
		m.t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(items))
}

// TestKillDecoyCreate kills the create of a decoy, which asks nobody, at
// moments of its whole run. The next create, or revoke of a decoy, leaves no
// keychain item that the registry does not know, and no note.
func TestKillDecoyCreate(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=")
	m.run("create", "first", "--decoy")
	start := time.Now()
	m.run("create", "second", "--decoy")
	took := time.Since(start)
	const kills = 20
	killed := 0
	for i := range kills {
		p := m.start("create", fmt.Sprint("victim ", i), "--decoy")
		time.AfterFunc(took*time.Duration(i+1)/kills, func() { p.signal(os.Kill) })
		if p.run() != nil {
			killed++
		}
		if i%2 == 0 {
			m.run("create", fmt.Sprint("next ", i), "--decoy")
		} else {
			m.run("revoke", fmt.Sprint("next ", i-1), "--yes")
		}
		r := m.registry()
		var want []string
		for _, p := range r.AppPasswords {
			want = append(want, "app-password/"+p.ID)
		}
		slices.Sort(want)
		got := m.keychainItems()
		if i%2 == 1 { // the trial item, which holds nothing, is the next create's to remove
			got = slices.DeleteFunc(got, func(key string) bool { return strings.HasPrefix(key, "probe/") })
		}
		if !slices.Equal(got, want) || len(r.Pending) != 0 {
			t.Fatalf("killed after %d of %d of the run: %d notes; the keychain has %v, the registry %v", i+1, kills, len(r.Pending), got, want)
		}
	}
	if killed < kills/4 {
		t.Errorf("only %d of %d were killed", killed, kills)
	}
	if n := m.requests(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// TestRevokeDecoyClearsAway: whatever comes after a create of a decoy that was
// killed removes what it left, without asking Graph.
func TestRevokeDecoyClearsAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=")
	m.run("create", "first", "--decoy")
	registry := apppassword.Registry{Dir: filepath.Join(m.dir, "state")}
	err := registry.Update(t.Context(), func(s *apppassword.State) error {
		r := s.AppPasswords[0]
		s.Pending = append(s.Pending, apppassword.Pending{ID: "note", Name: "killed", Profile: r.Profile, Tenant: r.Tenant, ClientID: r.ClientID,
			Keychain: r.Keychain, Since: time.Now(), KeyID: "nobody", Decoy: true})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.run("revoke", "first", "--yes")
	if r := m.registry(); len(r.Pending) != 0 || len(r.AppPasswords) != 0 {
		t.Errorf("left: %+v", r)
	}
	if n := m.requests(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
