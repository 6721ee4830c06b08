//go:build unix

package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/cli"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

const (
	fleetApps = 50
	fleetEach = 20
)

// manyApps is a sandbox with many applications, a profile for each, and as many
// app passwords of this machine on each.
type manyApps struct {
	tb      testing.TB
	dir     string
	env     map[string]string
	sandbox *sandbox.Server
	records []apppassword.Record
}

func newManyApps(tb testing.TB, apps int) *manyApps {
	tb.Helper()
	n := &manyApps{tb: tb, dir: tb.TempDir(), sandbox: &sandbox.Server{MoreMailApps: apps - 1}}
	if err := n.sandbox.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { n.sandbox.Close() })
	ca := filepath.Join(n.dir, "sandbox-ca.pem")
	if err := os.WriteFile(ca, n.sandbox.CAPEM(), 0o600); err != nil {
		tb.Fatal(err)
	}
	var cfg strings.Builder
	cfg.WriteString(n.sandbox.Config(ca))
	for i, client := range n.sandbox.MailApps() {
		fmt.Fprintf(&cfg, "\n[profiles.p%02d]\ntenant = %q\nclient_id = %q\ncloud = \"sandbox\"\n", i, n.sandbox.Tenant, client)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "config.toml"), []byte(cfg.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	id, secret := n.sandbox.AdminClient()
	n.env = map[string]string{
		"HOME": n.dir, "O365PW_CONFIG": filepath.Join(n.dir, "config.toml"), "O365PW_STATE": filepath.Join(n.dir, "state"),
		"O365PW_KEYCHAIN": "file", "O365PW_KEYCHAIN_PASSPHRASE": "fleet", "AZURE_CLIENT_ID": id, "AZURE_CLIENT_SECRET": secret,
	}
	n.fill()
	return n
}

// fill makes the app passwords behind the program's back: in Entra and in the
// registry.
func (n *manyApps) fill() {
	n.tb.Helper()
	n.records = nil
	for i, client := range n.sandbox.MailApps() {
		for j := range fleetEach {
			c, err := n.sandbox.AddCredential(client, fmt.Sprintf("device %d of %d", j, i))
			if err != nil {
				n.tb.Fatal(err)
			}
			n.records = append(n.records, apppassword.Record{
				ID: c.KeyID, Name: c.DisplayName, Profile: fmt.Sprintf("p%02d", i), Tenant: n.sandbox.Tenant, Cloud: "sandbox", ClientID: client,
				Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}, Networks: []netip.Prefix{},
				Backing: apppassword.BackingSecret, Hint: c.Hint, Created: c.Start, Expires: c.End, Keychain: "file", Verified: true,
			})
		}
	}
	b, err := json.Marshal(map[string]any{"version": 1, "appPasswords": n.records})
	if err == nil {
		err = os.MkdirAll(filepath.Join(n.dir, "state"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "state", "registry.json"), b, 0o600)
	}
	if err != nil {
		n.tb.Fatal(err)
	}
}

// run is the program, in this process.
func (n *manyApps) run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = cli.Main(n.tb.Context(), cli.Env{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
		Getenv: func(k string) string { return n.env[k] }, Now: time.Now, ScryptWorkFactor: 10})
	return code, out.String(), errs.String()
}

func (n *manyApps) left() (inEntra, here int) {
	n.tb.Helper()
	for _, client := range n.sandbox.MailApps() {
		inEntra += len(n.sandbox.CredentialsOf(client))
	}
	s, err := apppassword.Registry{Dir: filepath.Join(n.dir, "state")}.Load()
	if err != nil {
		n.tb.Fatal(err)
	}
	return inEntra, len(s.AppPasswords)
}

func (n *manyApps) ids() string {
	var b strings.Builder
	for _, r := range n.records {
		b.WriteString(r.ID + "\n")
	}
	return b.String()
}

// A thousand on fifty applications, while Graph throttles: each is asked for
// once, none is lost, and every one is in the audit log.
func TestRevokeThousand(t *testing.T) {
	t.Parallel()
	n := newManyApps(t, fleetApps)
	n.sandbox.SetFaults(func(f *sandbox.Faults) { f.ThrottleEvery, f.RetryAfter = 250, 1 })

	code, stdout, stderr := n.run("", "list", "--all-profiles", "-o", "json")
	var list struct {
		AppPasswords []struct{ ID, Profile, Status string }
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s", code, err, stderr)
	}
	seen := map[string]int{}
	for _, p := range list.AppPasswords {
		if seen[p.ID]++; p.Status != "active" {
			t.Errorf("%+v", p)
		}
	}
	if len(seen) != fleetApps*fleetEach || len(list.AppPasswords) != len(seen) {
		t.Fatalf("%d app passwords listed, %d different", len(list.AppPasswords), len(seen))
	}
	reads := 0
	for _, r := range n.sandbox.Requests() {
		if r.Service == "graph" && r.Status == 200 {
			reads++
		}
	}
	if reads != fleetApps {
		t.Errorf("%d applications were read %d times", fleetApps, reads)
	}

	// Ten have gone by another hand, which is no failure.
	for _, r := range n.records[:10] {
		if !n.sandbox.RemoveCredential(r.ID) {
			t.Fatal("no such credential")
		}
	}
	code, stdout, stderr = n.run(n.ids(), "revoke", "-", "--all-profiles", "--yes", "-o", "json")
	var revoked struct {
		Results []struct{ ID, Result, Error string }
	}
	if err := json.Unmarshal([]byte(stdout), &revoked); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s", code, err, stderr)
	}
	for i, r := range revoked.Results {
		if r.Result != "revoked" || r.ID != n.records[i].ID {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if inEntra, here := n.left(); len(revoked.Results) != len(n.records) || inEntra != 0 || here != 0 {
		t.Errorf("%d results; left: %d in Entra, %d here", len(revoked.Results), inEntra, here)
	}
	asked := n.sandbox.Removals()
	for _, r := range n.records[10:] {
		if asked[r.ID] != 1 {
			t.Errorf("%s was asked for %d times", r.ID, asked[r.ID])
		}
	}
	throttled := 0
	for _, r := range n.sandbox.Requests() {
		if r.Status == 429 {
			throttled++
		}
	}
	if throttled == 0 {
		t.Error("nothing was throttled")
	}
	logged := map[string]int{}
	log := audit.Log{Path: filepath.Join(n.dir, "state", audit.FileName)}
	for e, err := range log.Read(time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		logged[e.ID]++
	}
	for _, r := range n.records {
		if logged[r.ID] != 1 {
			t.Errorf("%s is in the audit log %d times", r.ID, logged[r.ID])
		}
	}
	if _, err := log.Verify(""); err != nil {
		t.Error(err)
	}
}

// An application that refuses keeps none of the others; all that failed is
// named, and several failures make the exit code 1.
func TestRevokeManyGoesOn(t *testing.T) {
	t.Parallel()
	n := newManyApps(t, 4)
	// The profile of the first application is the default, and has a keychain
	// that cannot be opened: half of the work is done there.
	n.env["O365PW_KEYCHAIN_PASSPHRASE"] = ""
	if err := os.WriteFile(filepath.Join(n.dir, "state", "keychain.age"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{n.records[0].Name, n.records[25].Name, "nobody", n.records[50].ID}
	args := append(append([]string{"revoke", "--all-profiles", "--yes"}, names...), "-o", "json")
	code, stdout, _ := n.run("", args...)
	var revoked struct {
		Results []struct{ Name, Result, Error string }
	}
	if err := json.Unmarshal([]byte(stdout), &revoked); err != nil || code != 1 || len(revoked.Results) != 4 {
		t.Fatalf("exit code %d: %v\n%s", code, err, stdout)
	}
	if err := os.Remove(filepath.Join(n.dir, "state", "keychain.age")); err != nil {
		t.Fatal(err)
	}
	// The same command again finishes.
	code, stdout, stderr := n.run("", slices.Insert(args, 1, "--if-exists")...)
	if inEntra, here := n.left(); code != 0 || inEntra != len(n.records)-3 || here != len(n.records)-3 {
		t.Errorf("exit code %d, %d in Entra, %d here\n%s%s", code, inEntra, here, stdout, stderr)
	}
	// Where something was done and several have failed, the code is 1, although
	// these agree on another.
	code, _, stderr = n.run("", "revoke", "--all-profiles", "--yes", "nobody", "nobody else", n.records[60].Name)
	if code != 1 || !strings.Contains(stderr, `no app password "nobody"`) || !strings.Contains(stderr, `no app password "nobody else"`) ||
		!strings.Contains(stderr, "2 of 3 could not be revoked") || strings.Count(stderr, "hint: ") != 1 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func BenchmarkListAllProfiles(b *testing.B) {
	n := newManyApps(b, fleetApps)
	for b.Loop() {
		if code, _, stderr := n.run("", "list", "--all-profiles", "-o", "json"); code != 0 {
			b.Fatal(stderr)
		}
	}
}

func BenchmarkRevokeThousand(b *testing.B) {
	n := newManyApps(b, fleetApps)
	for b.Loop() {
		if code, _, stderr := n.run(n.ids(), "revoke", "-", "--all-profiles", "--yes"); code != 0 {
			b.Fatal(stderr)
		}
		b.StopTimer()
		n.fill()
		b.StartTimer()
	}
}
