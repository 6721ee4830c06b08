package cli_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// onApplication makes credentials behind the program's back.
func (m *machine) onApplication(n int) (names []string) {
	m.t.Helper()
	_, client := m.sandbox.MailApp()
	for i := range n {
		name := fmt.Sprintf("device %d", i)
		if _, err := m.sandbox.AddCredential(client, name); err != nil {
			m.t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// heldAt lets the nth removal of the next process wait until release is called.
func (m *machine) heldAt(n int) (release func()) {
	hold := make(chan struct{})
	var mu sync.Mutex
	removals := 0
	m.watch(func(_ int, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/removePassword") {
			return
		}
		mu.Lock()
		removals++
		last := removals == n
		mu.Unlock()
		if last {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	}, nil)
	release = sync.OnceFunc(func() { close(hold) })
	m.t.Cleanup(release)
	return release
}

func TestTerminalRevokeManyShowsProgress(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	names := m.onApplication(60)
	release := m.heldAt(30)
	term := m.onTerminal(nil, append([]string{"revoke"}, names...)...)
	term.expect(`  and 10 more\r\nRevoke these 60 app passwords\? \[y/N\] $`)
	term.send("y\r")
	term.expect(`revoked 20 of 60…`)
	release()
	if code, screen := term.wait(); code != 0 || !strings.Contains(screen, `revoked "device 59"`) {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	if n := len(m.sandbox.Credentials()); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Ctrl-C says what was done, and the same command again does the rest.
func TestTerminalRevokeManyInterrupted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	names := m.onApplication(60)
	m.heldAt(30)
	args := append([]string{"revoke", "--yes", "--if-exists"}, names...)
	term := m.onTerminal(nil, args...)
	term.expect(`revoked 20 of 60…`)
	term.send("\x03")
	code, screen := term.wait()
	if code != 130 || !strings.Contains(screen, `revoked "device 19"`) || strings.Contains(screen, `revoked "device 20"`) ||
		!strings.Contains(screen, "20 of 60 were revoked") || !strings.Contains(screen, "the same command again goes on") {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	if n := len(m.sandbox.Credentials()); n < 30 || n > 40 { // how far the second twenty had come when it was interrupted
		t.Errorf("%d are left", n)
	}
	m.run(args...)
	if n := len(m.sandbox.Credentials()); n != 0 {
		t.Errorf("%d are left", n)
	}
	for id, n := range m.sandbox.Removals() {
		if n > 2 {
			t.Errorf("%s was asked for %d times", id, n)
		}
	}
}

// Killed at any request, the same command again finishes.
func TestRevokeManyKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, client := m.sandbox.MailApp()
	args := []string{"revoke", "--yes", "--if-exists", "device 0", "device 1", "device 2"}
	for n := 1; ; n++ {
		m.onApplication(3)
		err := apppassword.Registry{Dir: filepath.Join(m.dir, "state")}.Update(t.Context(), func(s *apppassword.State) error {
			for _, c := range m.sandbox.Credentials() {
				s.AppPasswords = append(s.AppPasswords, apppassword.Record{ID: c.KeyID, Name: c.DisplayName, Profile: "sandbox", Tenant: m.sandbox.Tenant, Cloud: "sandbox",
					ClientID: client, Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}, Networks: []netip.Prefix{},
					Backing: apppassword.BackingSecret, Created: c.Start, Expires: c.End, Keychain: "file", Verified: true})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		killed := m.killAt(n, n%2 == 0, args...)
		m.run(args...)
		if left := len(m.sandbox.Credentials()); left != 0 || len(m.registry().AppPasswords) != 0 {
			t.Fatalf("killed at request %d: left %d in Entra, %v here", n, left, m.registry())
		}
		if !killed {
			break
		}
	}
}

func TestTerminalPruneAsks(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("create", "old", "--no-wait")
	m.run("create", "new", "--no-wait")
	err := apppassword.Registry{Dir: filepath.Join(m.dir, "state")}.Update(t.Context(), func(s *apppassword.State) error {
		s.AppPasswords[0].Expires = time.Now().Add(-50 * time.Hour).UTC().Truncate(time.Second)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range []string{"\r", "n\r", "\x04"} {
		term := m.onTerminal(nil, "prune")
		term.expect(`  "old"  [0-9a-f-]{36}  expired 2 days ago\r\nRemove this app password\? \[y/N\] $`)
		term.send(answer)
		if code, screen := term.wait(); code != 1 || !strings.Contains(screen, "nothing was removed") {
			t.Errorf("answer %q: exit code %d\n%s", answer, code, screen)
		}
	}
	if n := len(m.sandbox.Credentials()); n != 2 {
		t.Fatalf("%d credentials after three times no", n)
	}
	term := m.onTerminal([]string{"NO_COLOR=1"}, "prune")
	term.expect(`\[y/N\] $`)
	term.send("y\r")
	if code, screen := term.wait(); code != 0 || !strings.Contains(screen, "old   expired 2 days ago  removed") {
		t.Errorf("yes: exit code %d\n%s", code, screen)
	}
	if left := m.sandbox.Credentials(); len(left) != 1 || left[0].DisplayName != "new" {
		t.Errorf("left: %v", left)
	}
}
