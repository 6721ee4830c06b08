package cli_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// newTenant is a machine whose configuration has clouds and no profile.
func newTenant(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, &sandbox.Server{AutoSignIn: true, AdminRoles: scriptRoles})
	path := filepath.Join(m.dir, "config.toml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = b[bytes.Index(b, []byte("[clouds.")):]
	// Assertions are for the address that Entra has itself.
	b = regexp.MustCompile(`authority = .*`).ReplaceAll(b, []byte(`authority = "`+m.sandbox.Authority()+`"`))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m.env = append(m.env, "NO_COLOR=1", "EMAIL=", "O365PW_TENANT="+m.sandbox.Tenant)
	return m
}

func (m *machine) config() string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "config.toml"))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// writes are the requests that changed Graph.
func (m *machine) writes() (all []string) {
	for _, r := range m.sandbox.Requests() {
		if r.Service == "graph" && r.Method != "GET" {
			all = append(all, r.Method+" "+r.Path)
		}
	}
	return all
}

// untouched fails where something was made.
func (m *machine) untouched(before string) {
	m.t.Helper()
	if w := m.writes(); len(w) > 0 {
		m.t.Errorf("Graph was written to: %v", w)
	}
	if now := m.config(); now != before {
		m.t.Errorf("the configuration has changed:\n%s", now)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "state", "keychain.age")); err == nil {
		m.t.Error("there is a keychain")
	}
}

const (
	askMailbox = `Whose mailbox\? Its address: $`
	askMode    = `just for me\? \[organisation\]: $`
	askCloud   = `Which cloud\? global, usgov, dod, china, sandbox \[global\]: $`
	askGoOn    = `Go on\? \[Y/n\] $`
)

// TestTerminalSetupAsks answers the questions: wrong at first, by the default,
// and by an answer.
func TestTerminalSetupAsks(t *testing.T) {
	t.Parallel()
	m := newTenant(t)
	term := m.onTerminal(nil, "setup")
	term.expect(askMailbox)
	term.send("\r")
	term.expect(`an answer is needed\r\n` + askMailbox)
	term.send("bob\r")
	term.expect(`"bob" is not an address like alice@contoso.com\r\n` + askMailbox)
	term.send("bob@contoso.com\r")
	term.expect(askMode)
	term.send("all\r")
	term.expect(`answer organisation or me; o and m will do\r\n.*` + askMode)
	term.send("\r")
	term.expect(askCloud)
	term.send("mars\r")
	term.expect(`there is no cloud "mars"; known: global, usgov, dod, china, sandbox\r\n` + askCloud)
	term.send("sandbox\r")
	term.expect(askGoOn)
	term.send("perhaps\r")
	term.expect(`answer y or n\r\n` + askGoOn)
	term.send("\r")
	code, screen := term.wait()
	for _, want := range []string{`1\. register the application "o365pw bob@contoso.com"`, `\+\[profiles.bob\]`, `✓ profile bob in`, `New-ServicePrincipal -AppId`} {
		if !regexp.MustCompile(want).MatchString(screen) {
			t.Errorf("no %s on the screen:\n%s", want, screen)
		}
	}
	if code != 0 || !strings.Contains(m.config(), "default_profile = \"bob\"") {
		t.Errorf("exit code %d, and the configuration\n%s", code, m.config())
	}
	// Again, Enter takes what is there, and nothing is to be confirmed.
	term = m.onTerminal(nil, "setup")
	term.expect(`Whose mailbox\? Its address \[bob@contoso.com\]: $`)
	term.send("\r")
	term.expect(askMode)
	term.send("\r")
	term.expect(`\[sandbox\]: $`)
	term.send("\r")
	if code, screen := term.wait(); code != 0 || strings.Contains(screen, "Go on?") || strings.Count(screen, "nothing to do") != 4 {
		t.Errorf("exit code %d\n%s", code, screen)
	}
}

// TestTerminalSetupForMe asks for the client id in place of the cloud.
func TestTerminalSetupForMe(t *testing.T) {
	t.Parallel()
	m := newTenant(t)
	_, client := m.sandbox.MailApp()
	term := m.onTerminal([]string{"AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "BROWSER=browser"}, "setup", "--cloud", "sandbox")
	term.expect(askMailbox)
	term.send("alice@contoso.com\r")
	term.expect(askMode)
	term.send("m\r")
	term.expect(`az ad app create(?s:.*)Client id of the application to sign in to: $`)
	term.send("12\r")
	term.expect(`a client id is a GUID.*\r\nClient id`)
	term.send(client + "\r")
	term.expect(askGoOn)
	m.untouched(m.config())
	term.send("y\r")
	if code, screen := term.wait(); code != 0 || !strings.Contains(screen, "ready: o365pw create") {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	if cfg := m.config(); !regexp.MustCompile(`backing +=.*user`).MatchString(cfg) {
		t.Errorf("the configuration:\n%s", cfg)
	}
}

// TestTerminalSetupInterrupted presses Ctrl-C, and Ctrl-D, at each question and
// at the confirmation: nothing is left, and that is said.
func TestTerminalSetupInterrupted(t *testing.T) {
	t.Parallel()
	m := newTenant(t)
	before := m.config()
	questions := []struct{ expect, answer string }{
		{askMailbox, "bob@contoso.com"}, {askMode, "organisation"}, {askCloud, "sandbox"}, {askGoOn, ""},
	}
	for n := range questions {
		for _, key := range []string{"\x03", "\x04"} {
			term := m.onTerminal(nil, "setup")
			for _, q := range questions[:n] {
				term.expect(q.expect)
				term.send(q.answer + "\r")
			}
			term.expect(questions[n].expect)
			term.send(key)
			want, says := 130, "nothing was changed"
			if key == "\x04" && n < 3 {
				want, says = 2, "the input ended before the question was answered"
			} else if key == "\x04" {
				want = 1
			}
			if code, screen := term.wait(); code != want || !strings.Contains(screen, says) {
				t.Errorf("question %d, key %q: exit code %d, want %d\n%s", n, key, code, want, screen)
			}
			m.untouched(before)
		}
	}
	term := m.onTerminal(nil, "setup", "--mailbox", "bob@contoso.com", "--organization", "--cloud", "sandbox")
	term.expect(askGoOn)
	term.send("n\r")
	if code, screen := term.wait(); code != 1 || !strings.Contains(screen, "nothing was changed") {
		t.Errorf("no: exit code %d\n%s", code, screen)
	}
	m.untouched(before)
}

// TestKillSetupAtEachRequest kills setup before and after each of its requests:
// the next run ends with the same, and nothing is made twice.
func TestKillSetupAtEachRequest(t *testing.T) {
	t.Parallel()
	for _, backing := range []string{"secret", "certificate"} {
		args := []string{"setup", "--mailbox", "bob@contoso.com", "--organization", "--cloud", "sandbox", "--backing", backing, "--yes"}
		for _, before := range []bool{true, false} {
			kills := 0
			for n := 1; ; n++ {
				m := newTenant(t)
				killed := m.killAt(n, before, args...)
				first := m.run(args...)
				writes := len(m.writes())
				if again := m.run(args...); !strings.Contains(again, "profile bob in") || !strings.HasSuffix(first, again[strings.Index(again, "# For an"):]) {
					t.Errorf("the run after the next differs:\n%s\n%s", first, again)
				}
				if len(m.writes()) != writes {
					t.Errorf("the run after the next writes: %v", m.writes()[writes:])
				}
				if posts := slices.DeleteFunc(m.writes(), func(w string) bool { return w != "POST /v1.0/servicePrincipals" }); len(posts) > 2 || killed && len(posts) == 0 {
					t.Errorf("service principals: %v", posts)
				}
				m.run("create", "after", "--no-wait")
				if t.Failed() {
					t.Fatalf("backing %s, killed at request %d, before %v", backing, n, before)
				}
				if !killed {
					break
				}
				kills++
			}
			if kills < 8 {
				t.Errorf("setup was killed %d times only", kills)
			}
		}
	}
}

// TestInterruptedSetupIsNamed presses Ctrl-C at each write: what is there is
// named, with the ways on and back.
func TestInterruptedSetupIsNamed(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/servicePrincipals", "/appRoleAssignments"} {
		m := newTenant(t)
		p := m.start("setup", "--mailbox", "bob@contoso.com", "--organization", "--cloud", "sandbox", "--yes")
		ended := make(chan struct{})
		m.watch(func(n int, r *http.Request) {
			if r.Method == "POST" && strings.HasSuffix(r.URL.Path, path) {
				p.signal(os.Interrupt)
				<-ended // it must be noticed before the answer
			}
		}, nil)
		_ = p.run()
		close(ended)
		m.watch(nil, nil)
		out := p.out.String()
		for _, want := range []string{`what is there already, and stays: application "o365pw bob@contoso.com" \(client id [0-9a-f-]+, object id`, `az ad app delete --id [0-9a-f-]+`, `to go on: o365pw setup --profile bob`, `interrupted`} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("at %s, no %s in\n%s", path, want, out)
			}
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	}
}

// TestInterruptedWait presses Ctrl-C while setup waits for Exchange: the client
// secret of the trial is removed, all else stays, and the way on is told.
func TestInterruptedWait(t *testing.T) {
	t.Parallel()
	m := newTenant(t)
	p := m.start("setup", "--mailbox", "bob@contoso.com", "--organization", "--cloud", "sandbox", "--yes", "--wait")
	m.watch(nil, func(n int, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/addPassword") {
			p.signal(os.Interrupt)
		}
	})
	_ = p.run()
	m.watch(nil, nil)
	out := p.out.String()
	if code := p.cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out, "to go on waiting: o365pw setup --profile bob") || !strings.Contains(out, "New-ServicePrincipal") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if w := m.writes(); !strings.HasSuffix(w[len(w)-1], "/removePassword") {
		t.Errorf("the last change of Graph: %v\n%s", w, out)
	}
	if !strings.Contains(m.config(), "[profiles.bob]") || len(m.registry().Pending) != 0 {
		t.Errorf("the configuration\n%s\nand the registry %v", m.config(), m.registry())
	}
}
