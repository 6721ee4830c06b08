//go:build unix

package cli_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// rotating is the registry as far as rotations are concerned.
func (m *machine) rotating() (ids map[string]string, pending []struct{ Name, KeyID string }) {
	m.t.Helper()
	var r struct {
		AppPasswords []struct {
			ID, Name string
			Previous *struct{ ID string }
		}
		Pending []struct{ Name, KeyID string }
	}
	b, err := os.ReadFile(filepath.Join(m.dir, "state", "registry.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	ids = map[string]string{}
	for _, p := range r.AppPasswords {
		ids[p.ID] = p.Name
		if p.Previous != nil {
			ids[p.Previous.ID] = p.Name + " before"
		}
	}
	return ids, r.Pending
}

// noneUnknown fails when there is a credential in Entra that the registry knows
// nothing of.
func (m *machine) noneUnknown() {
	m.t.Helper()
	ids, pending := m.rotating()
	for _, c := range m.sandbox.Credentials() {
		noted := slices.ContainsFunc(pending, func(p struct{ Name, KeyID string }) bool {
			return p.KeyID == c.KeyID || p.KeyID == "" && p.Name == c.DisplayName
		})
		if ids[c.KeyID] == "" && !noted {
			m.t.Errorf("nobody knows of credential %q (%s)", c.DisplayName, c.KeyID)
		}
	}
}

// oneLive runs the rotation again, to its end, and then holds Entra, registry and
// keychain to that one credential.
func (m *machine) oneLive(secrets bool) {
	m.t.Helper()
	if got := strings.TrimSpace(m.run("show", "victim", "--password")); len(got) != 16 {
		m.t.Errorf("after the kill its password is %q", got)
	}
	lines := strings.Fields(m.run("rotate", "victim", "--now")) // what was cleared away may be told before
	password := lines[len(lines)-1]
	if got := strings.TrimSpace(m.run("show", "victim", "--password")); got != password || len(got) != 16 {
		m.t.Errorf("the password is %q, and %q was printed", got, password)
	}
	ids, pending := m.rotating()
	var there, items, here []string
	for id := range ids {
		here = append(here, id)
		items = append(items, "app-password/"+id)
	}
	for _, c := range m.sandbox.Credentials() {
		there = append(there, c.KeyID)
	}
	if len(here) != 1 || len(pending) != 0 || secrets != slices.Equal(here, there) {
		m.t.Errorf("the registry has %v and the notes %v, Entra %v", ids, pending, there)
	}
	got := slices.DeleteFunc(m.keychainItems(), func(key string) bool { return !strings.HasPrefix(key, "app-password/") })
	if !slices.Equal(got, items) {
		m.t.Errorf("the keychain has %v, the registry %v", got, items)
	}
}

// rotations are the ways a rotation goes, each with what is done before it.
var rotations = []struct {
	name   string
	before [][]string
	args   []string
	least  int // requests
}{
	{"overlap", nil, []string{"rotate", "victim"}, 5},
	{"now", nil, []string{"rotate", "victim", "--now"}, 8},
	{"unused", [][]string{{"rotate", "victim"}}, []string{"rotate", "victim"}, 8},
	{"finish", [][]string{{"rotate", "victim"}}, []string{"rotate", "victim", "--finish"}, 3},
	{"revoke", [][]string{{"rotate", "victim"}}, []string{"revoke", "victim", "--yes"}, 6},
}

// TestKillRotateAtEachRequest kills rotations before and after each of their
// requests: nothing is in Entra that nobody knows of, a password is good, and the
// same command again leaves one.
func TestKillRotateAtEachRequest(t *testing.T) {
	t.Parallel()
	for _, tc := range rotations {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s before %v", tc.name, before), func(t *testing.T) {
				t.Parallel()
				kills := 0
				for n := 1; ; n++ {
					m := newMachine(t)
					m.run("create", "victim")
					for _, args := range tc.before {
						m.run(args...)
					}
					killed := m.killAt(n, before, tc.args...)
					m.noneUnknown()
					if tc.name == "revoke" {
						m.run("revoke", "victim", "--yes", "--if-exists")
						m.run("create", "victim")
					}
					m.oneLive(true)
					if t.Failed() {
						t.Fatalf("killed at request %d, before %v", n, before)
					}
					if !killed {
						break
					}
					kills++
				}
				if kills < tc.least {
					t.Errorf("it was killed %d times only", kills)
				}
			})
		}
	}
}

// TestKillRotateBetweenRequests kills at moments after the request that Entra
// accepts the new secret by, when keychain and registry are written, and after
// the last one of a removal.
func TestKillRotateBetweenRequests(t *testing.T) {
	t.Parallel()
	for _, tc := range rotations[:3] {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, d := range []time.Duration{0, 2, 4, 7, 10, 15, 20, 30} {
				m := newMachine(t)
				m.run("create", "victim")
				for _, args := range tc.before {
					m.run(args...)
				}
				p := m.start(tc.args...)
				tokens := 0
				m.watch(nil, func(n int, r *http.Request) {
					if !strings.HasSuffix(r.URL.Path, "/token") {
						return
					}
					if tokens++; tokens == 2 { // the first is for Graph
						time.AfterFunc(d*time.Millisecond, func() { p.signal(os.Kill) })
					}
				})
				_ = p.run() // killed or not: what counts is what is left
				m.watch(nil, nil)
				m.noneUnknown()
				m.oneLive(true)
				if t.Failed() {
					t.Fatalf("killed %d ms after the token", d)
				}
			}
		})
	}
}

// TestKillLocalRotate kills rotations that Graph has no part in at moments of
// their whole run.
func TestKillLocalRotate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		args    []string
		prepare func(*machine)
	}{
		{"user", []string{"--backing", "user"}, (*machine).signInForMail},
		{"certificate", []string{"--backing", "certificate"}, (*machine).addCertificate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=")
			tc.prepare(m)
			m.run(append([]string{"create", "victim"}, tc.args...)...)
			start := time.Now()
			m.run("rotate", "victim", "--now")
			took := time.Since(start)
			const kills = 20
			killed := 0
			for i := range kills {
				args := []string{"rotate", "victim"}
				if i%2 == 0 {
					args = append(args, "--now")
				}
				p := m.start(args...)
				time.AfterFunc(took*time.Duration(i+1)/kills, func() { p.signal(os.Kill) })
				if p.run() != nil {
					killed++
				}
				m.oneLive(false)
				if t.Failed() {
					t.Fatalf("killed after %d of %d of the run", i+1, kills)
				}
			}
			if killed < kills/4 {
				t.Errorf("only %d of %d were killed", killed, kills)
			}
			for _, r := range m.sandbox.Requests() {
				if r.Service == "graph" {
					t.Errorf("Graph was asked: %s %s", r.Method, r.Path)
				}
			}
		})
	}
}

// addCertificate puts a certificate into the keychain that the application has.
// Entra takes an assertion at its own address only, not at the proxy's.
func (m *machine) addCertificate() {
	m.t.Helper()
	m.keepCertificate()
	mgr := m.manager()
	k, err := mgr.Keychains("file")
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := apppassword.LoadCertificate(m.t.Context(), k, mgr.Profile.ClientID, "")
	if err == nil {
		_, err = m.sandbox.AddCertificate(mgr.Profile.ClientID, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER()}))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "config.toml"), []byte(m.sandbox.Config(filepath.Join(m.dir, "sandbox-ca.pem"))), 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
