//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// keychainItems are the keys of the machine's keychain, read by age itself.
func (m *machine) keychainItems() []string { return m.keychainItemsIn(filepath.Join(m.dir, "state")) }

func (m *machine) keychainItemsIn(state string) []string {
	m.t.Helper()
	var file struct{ Identity, Items string }
	b, err := os.ReadFile(filepath.Join(state, "keychain.age"))
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

// manager is the profile's, as a command of this machine has it.
func (m *machine) manager() *apppassword.Manager {
	m.t.Helper()
	cfg, err := config.Load(filepath.Join(m.dir, "config.toml"))
	if err != nil {
		m.t.Fatal(err)
	}
	p := cfg.Profiles["sandbox"]
	p.Keychain = "file"
	file := &secret.File{Path: filepath.Join(m.dir, "state", "keychain.age"), WorkFactor: 10, Passphrase: func(context.Context, bool) (secret.Text, error) { return secret.New("kill"), nil }}
	return &apppassword.Manager{
		Profile: p, Entra: &entra.Client{Authority: p.Cloud.Authority, Tenant: p.Tenant}, Registry: apppassword.Registry{Dir: filepath.Join(m.dir, "state")},
		Keychains: func(string) (secret.Keychain, error) { return file, nil },
	}
}

// signInForMail signs the sandbox's first person in.
func (m *machine) signInForMail() {
	m.t.Helper()
	mgr := m.manager()
	tok, err := mgr.Entra.SignInBrowser(m.t.Context(), entra.BrowserSignIn{
		ClientID: mgr.Profile.ClientID, Scope: apppassword.MailScopes(mgr.Profile.Cloud), Announce: func(string) {},
		Open: func(url string) error {
			resp, err := http.Get(url)
			if err == nil {
				resp.Body.Close()
			}
			return err
		},
	})
	if err == nil {
		_, err = mgr.KeepSignIn(m.t.Context(), tok)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// keepCertificate puts a certificate into the keychain.
func (m *machine) keepCertificate() {
	m.t.Helper()
	mgr := m.manager()
	cert, err := entra.NewCertificate("o365pw", time.Now(), 365*24*time.Hour)
	if err != nil {
		m.t.Fatal(err)
	}
	k, err := mgr.Keychains("file")
	if err == nil {
		err = apppassword.StoreCertificate(m.t.Context(), k, mgr.Profile.ClientID, cert)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// TestKillLocalCreate kills creates that Graph has no part in at moments of
// their whole run. The next create, or revoke of such a one, leaves no keychain
// item that the registry does not know, and no note; and a person's sign-in goes
// on working.
func TestKillLocalCreate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		args    []string
		prepare func(*machine)
		asks    bool
	}{
		{"decoy", []string{"--decoy"}, func(*machine) {}, false},
		{"user", []string{"--backing", "user"}, (*machine).signInForMail, true},
		{"certificate", []string{"--backing", "certificate", "--no-wait"}, (*machine).keepCertificate, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=")
			tc.prepare(m)
			create := func(name string) []string { return append([]string{"create", name}, tc.args...) }
			var before []string
			if tc.name != "decoy" { // else there is no keychain yet
				before = m.keychainItems()
			}
			m.run(create("first")...)
			start := time.Now()
			m.run(create("second")...)
			took := time.Since(start)
			const kills = 12
			killed := 0
			for i := range kills {
				p := m.start(create(fmt.Sprint("victim ", i))...)
				time.AfterFunc(took*time.Duration(i+1)/kills, func() { p.signal(os.Kill) })
				if p.run() != nil {
					killed++
				}
				if i%2 == 0 {
					m.run(create(fmt.Sprint("next ", i))...)
				} else {
					m.run("revoke", fmt.Sprint("next ", i-1), "--yes")
				}
				r := m.registry()
				want := slices.Clone(before)
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
			if n := m.requests(); n != 0 && !tc.asks {
				t.Errorf("%d requests were made", n)
			}
			for _, r := range m.sandbox.Requests() {
				if r.Service == "graph" {
					t.Errorf("Graph was asked: %s %s", r.Method, r.Path)
				}
			}
		})
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
