//go:build unix

package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// twoMachines are two state folders, with the same configuration. receiver has a
// recipient.
func twoMachines(t *testing.T, prepare func(*machine)) (m *machine, receiver []string, recipient string) {
	t.Helper()
	m = newMachine(t)
	prepare(m)
	sender := m.env
	receiver = append(slices.Clone(m.env), "O365PW_STATE="+filepath.Join(m.dir, "other"))
	m.env = receiver
	recipient = strings.TrimSpace(m.run("import", "--recipient"))
	m.env = sender
	return m, receiver, recipient
}

// TestKillImport kills imports at moments of their whole run. The same import
// again ends it, and leaves nothing in the keychain that the registry does not
// know.
func TestKillImport(t *testing.T) {
	t.Parallel()
	m, receiver, recipient := twoMachines(t, (*machine).signInForMail)
	m.run("create", "on a secret", "--no-wait")
	m.run("create", "on a sign-in", "--backing", "user")
	m.run("create", "bait", "--decoy")
	file := filepath.Join(m.dir, "moving.age")
	m.run("export", "on a secret", "on a sign-in", "bait", "--to", recipient, "--file", file)
	sender := m.registry()

	// How long one takes, and then each on a machine of its own.
	m.env = receiver
	identity, err := os.ReadFile(filepath.Join(m.dir, "other", "keychain.age"))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m.run("import", file)
	took := time.Since(start)
	const kills = 14
	killed := 0
	for i := range kills {
		dir := filepath.Join(m.dir, fmt.Sprint("other", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "keychain.age"), identity, 0o600); err != nil {
			t.Fatal(err)
		}
		m.env = append(slices.Clone(receiver), "O365PW_STATE="+dir)
		p := m.start("import", file)
		time.AfterFunc(took*time.Duration(i+1)/kills, func() { p.signal(os.Kill) })
		if p.run() != nil {
			killed++
		}
		m.run("import", file)
		r := m.registryIn(dir)
		if len(r.AppPasswords) != len(sender.AppPasswords) || len(r.Pending) != 0 {
			t.Fatalf("killed after %d of %d of the run: %d app passwords, %d notes", i+1, kills, len(r.AppPasswords), len(r.Pending))
		}
		var want []string
		for _, a := range r.AppPasswords {
			want = append(want, "app-password/"+a.ID)
		}
		slices.Sort(want)
		got := m.keychainItemsIn(dir)
		signIns := slices.DeleteFunc(slices.Clone(got), func(k string) bool { return !strings.HasPrefix(k, "mail-sign-in/") })
		if want = append(append(want, signIns...), "move-identity"); len(signIns) != 1 || !slices.Equal(got, want) {
			t.Fatalf("killed after %d of %d of the run: the keychain has %v, not %v", i+1, kills, got, want)
		}
		for _, a := range r.AppPasswords {
			if got := strings.TrimSpace(m.run("show", a.ID, "--password")); len(got) != 16 {
				t.Errorf("the password of %q is %q", a.Name, got)
			}
		}
	}
	if killed < kills/4 {
		t.Errorf("only %d of %d were killed", killed, kills)
	}
}

// TestKillExportForget kills exports that take app passwords off the machine:
// whenever that is, each app password is on it, or in a whole file; and the next
// command leaves no item that the registry does not know.
func TestKillExportForget(t *testing.T) {
	t.Parallel()
	m, receiver, recipient := twoMachines(t, func(*machine) {})
	sender := m.env
	m.run("create", "stays", "--decoy")
	var took time.Duration
	const kills = 12
	killed, moved := 0, 0
	for i := range kills {
		names := []string{fmt.Sprint("one ", i), fmt.Sprint("two ", i)}
		for _, n := range names {
			m.run("create", n, "--decoy")
		}
		file := filepath.Join(m.dir, fmt.Sprint("moving", i, ".age"))
		args := append([]string{"export", "--to", recipient, "--file", file, "--forget", "--yes"}, names...)
		if i == 0 {
			start := time.Now()
			m.run(args...)
			took = time.Since(start)
		} else {
			p := m.start(args...)
			time.AfterFunc(took*time.Duration(i)/kills, func() { p.signal(os.Kill) })
			if p.run() != nil {
				killed++
			}
		}
		var here []string
		for _, a := range m.registry().AppPasswords {
			here = append(here, a.Name)
		}
		var there []string
		if _, err := os.Stat(file); err == nil {
			m.env = receiver
			there = strings.Fields(strings.ReplaceAll(m.run("import", file, "-o", "name"), " ", "_"))
			m.env = sender
			moved++
		}
		for _, n := range names {
			if !slices.Contains(here, n) && !slices.Contains(there, strings.ReplaceAll(n, " ", "_")) {
				t.Fatalf("killed after %d of %d of the run: %q is lost; here are %v, there %v", i, kills, n, here, there)
			}
		}
		m.run("create", fmt.Sprint("next ", i), "--decoy")
		r := m.registry()
		var want []string
		for _, a := range r.AppPasswords {
			want = append(want, "app-password/"+a.ID)
		}
		slices.Sort(want)
		if got := m.keychainItems(); !slices.Equal(got, want) || len(r.Pending) != 0 {
			t.Fatalf("killed after %d of %d of the run: %d notes; the keychain has %v, the registry %v", i, kills, len(r.Pending), got, want)
		}
	}
	if killed < kills/4 || moved == 0 {
		t.Errorf("only %d of %d were killed, %d have moved", killed, kills, moved)
	}
	if n := m.requests(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
