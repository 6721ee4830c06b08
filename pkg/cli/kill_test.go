//go:build unix

package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// machine is a person's machine for one test: the program in processes of its
// own, a state folder, and a sandbox behind a proxy that sees every request.
type machine struct {
	t       *testing.T
	dir     string
	env     []string
	sandbox *sandbox.Server

	mu     sync.Mutex
	seen   int
	before func(n int, r *http.Request) // the request has come, and is not passed on yet
	after  func(n int, r *http.Request) // it was carried out, and is not answered yet
}

func newMachine(t *testing.T, srv ...*sandbox.Server) *machine {
	t.Helper()
	srv = append(srv, &sandbox.Server{AutoSignIn: true, AdminRoles: []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All"}})
	m := &machine{t: t, dir: t.TempDir(), sandbox: srv[0]}
	if err := m.sandbox.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.sandbox.Close() })
	ca := filepath.Join(m.dir, "sandbox-ca.pem")
	if err := os.WriteFile(ca, m.sandbox.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := m.sandbox.Config(ca)
	for _, base := range []string{m.sandbox.Authority(), strings.TrimSuffix(m.sandbox.Graph(), "/v1.0")} {
		cfg = strings.ReplaceAll(cfg, base, m.proxy(base))
	}
	if err := os.WriteFile(filepath.Join(m.dir, "config.toml"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	id, secret := m.sandbox.AdminClient()
	m.env = append(os.Environ(),
		"GITHUB_ACTIONS=", "GITLAB_CI=", "TF_BUILD=", // where the tests themselves may run
		"HOME="+m.dir, "O365PW_CONFIG="+filepath.Join(m.dir, "config.toml"), "O365PW_STATE="+filepath.Join(m.dir, "state"),
		"O365PW_KEYCHAIN=file", "O365PW_KEYCHAIN_PASSPHRASE=kill", "AZURE_CLIENT_ID="+id, "AZURE_CLIENT_SECRET="+secret)
	return m
}

func (m *machine) proxy(base string) string {
	to, err := url.Parse(base)
	if err != nil {
		m.t.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error { m.hook(false, r.Request); return nil },
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.hook(true, r)
		p.ServeHTTP(w, r)
	}))
	m.t.Cleanup(srv.Close)
	return srv.URL
}

func (m *machine) hook(before bool, r *http.Request) {
	m.mu.Lock()
	if before {
		m.seen++
	}
	n, f := m.seen, m.after
	if before {
		f = m.before
	}
	m.mu.Unlock()
	if f != nil {
		f(n, r)
	}
}

// watch sets the hooks for the next process and counts its requests from 1.
func (m *machine) watch(before, after func(int, *http.Request)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen, m.before, m.after = 0, before, after
}

// requests is how many the last process has made.
func (m *machine) requests() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

func (m *machine) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command("o365pw", args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = m.env, &out, &out
	return cmd, &out
}

// run must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	m.watch(nil, nil)
	cmd, out := m.command(args...)
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("o365pw %v: %v\n%s", args, err, out)
	}
	return out.String()
}

// killAt runs a command and kills it (SIGKILL) at its nth request, before it
// is carried out or before it is answered. It tells false when the command
// ended before.
func (m *machine) killAt(n int, before bool, args ...string) bool {
	m.t.Helper()
	p := m.start(args...)
	var killed atomic.Bool
	kill := func(i int, _ *http.Request) {
		if i == n && killed.CompareAndSwap(false, true) {
			p.signal(os.Kill)
		}
	}
	if before {
		m.watch(kill, nil)
	} else {
		m.watch(nil, kill)
	}
	err := p.run()
	m.watch(nil, nil)
	if !killed.Load() && err != nil {
		m.t.Fatalf("o365pw %v: %v\n%s", args, err, p.out)
	}
	return killed.Load()
}

// process is a command that hooks may signal while it runs.
type process struct {
	cmd     *exec.Cmd
	out     *bytes.Buffer
	started chan *os.Process
}

// start prepares a command; run starts it.
func (m *machine) start(args ...string) *process {
	cmd, out := m.command(args...)
	return &process{cmd: cmd, out: out, started: make(chan *os.Process, 1)}
}

func (p *process) run() error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.started <- p.cmd.Process
	return p.cmd.Wait()
}

// signal may be called from any goroutine, and before run has started it.
func (p *process) signal(sig os.Signal) {
	proc := <-p.started
	p.started <- proc
	_ = proc.Signal(sig)
}

type registry struct {
	AppPasswords []struct{ ID, Name string }
	Pending      []struct{ Name string }
}

func (m *machine) registry() registry { return m.registryIn(filepath.Join(m.dir, "state")) }

func (m *machine) registryIn(state string) registry {
	m.t.Helper()
	var r registry
	b, err := os.ReadFile(filepath.Join(state, "registry.json"))
	if os.IsNotExist(err) {
		return r
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		m.t.Fatalf("the registry is damaged: %v\n%s", err, b)
	}
	return r
}

// allKnown fails when Entra holds a credential that this machine knows
// nothing of: neither as an app password nor as an unfinished create.
func (m *machine) allKnown() {
	m.t.Helper()
	r := m.registry()
	for _, c := range m.sandbox.Credentials() {
		known := slices.ContainsFunc(r.AppPasswords, func(p struct{ ID, Name string }) bool { return p.ID == c.KeyID }) ||
			slices.ContainsFunc(r.Pending, func(p struct{ Name string }) bool { return p.Name == c.DisplayName })
		if !known {
			m.t.Errorf("nobody knows of credential %q (%s)", c.DisplayName, c.KeyID)
		}
	}
}

// settled makes another app password, which clears away what was left, and
// then holds Entra, registry and keychain against each other.
func (m *machine) settled() {
	m.t.Helper()
	m.run("create", "next", "--no-wait")
	r := m.registry()
	var here, there []string
	for _, p := range r.AppPasswords {
		here = append(here, p.ID)
		if got := strings.TrimSpace(m.run("show", p.ID, "--password")); len(got) != 16 {
			m.t.Errorf("the password of %q is %q", p.Name, got)
		}
	}
	for _, c := range m.sandbox.Credentials() {
		there = append(there, c.KeyID)
	}
	slices.Sort(here)
	slices.Sort(there)
	if !slices.Equal(here, there) {
		m.t.Errorf("registry and Entra differ:\n%v\n%v", here, there)
	}
}

// TestKillCreateAtEachRequest kills create before and after each of its
// requests.
func TestKillCreateAtEachRequest(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		kills := 0
		for n := 1; ; n++ {
			m := newMachine(t)
			if !m.killAt(n, before, "create", "victim") {
				break
			}
			kills++
			m.allKnown()
			m.settled()
			if t.Failed() {
				t.Fatalf("killed at request %d, before %v", n, before)
			}
		}
		if kills < 4 {
			t.Errorf("create was killed %d times only: it must ask for two tokens, read and add", kills)
		}
	}
}

// TestKillCreateAfterItsLastRequest kills create at moments between Entra's
// last answer and the end, when keychain and registry are written.
func TestKillCreateAfterItsLastRequest(t *testing.T) {
	t.Parallel()
	probe := newMachine(t)
	probe.run("create", "probe")
	last := probe.requests()
	for _, d := range []time.Duration{0, 1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 30, 40} {
		m := newMachine(t)
		p := m.start("create", "victim")
		m.watch(nil, func(n int, _ *http.Request) {
			if n == last {
				time.AfterFunc(d*time.Millisecond, func() { p.signal(os.Kill) })
			}
		})
		_ = p.run() // killed or not: what counts is what is left
		m.watch(nil, nil)
		m.allKnown()
		m.settled()
		if t.Failed() {
			t.Fatalf("killed %d ms after the last request", d)
		}
	}
}

// TestKillRevokeAtEachRequest kills revoke before and after each of its
// requests; the same command again finishes it.
func TestKillRevokeAtEachRequest(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		for n := 1; ; n++ {
			m := newMachine(t)
			m.run("create", "victim", "--no-wait")
			killed := m.killAt(n, before, "revoke", "victim", "--yes")
			m.allKnown()
			m.run("revoke", "victim", "--yes", "--if-exists")
			if c := m.sandbox.Credentials(); len(c) != 0 {
				t.Errorf("left in Entra: %v", c)
			}
			if r := m.registry(); len(r.AppPasswords) != 0 {
				t.Errorf("left in the registry: %v", r)
			}
			if t.Failed() {
				t.Fatalf("killed at request %d, before %v", n, before)
			}
			if !killed {
				break
			}
		}
	}
}

// TestOneRefreshAtATime runs commands side by side on one sign-in, at an Entra
// that is stricter than the real one: a refresh token that was used is dead.
func TestOneRefreshAtATime(t *testing.T) {
	t.Parallel()
	m := newMachine(t, &sandbox.Server{AutoSignIn: true, RevokeRotatedRefreshTokens: true})
	m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "BROWSER=browser")
	m.run("login")
	m.watch(nil, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd, out := m.command("list")
			if err := cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	m.run("list")
}

// TestInterruptedCreateIsNamed presses Ctrl-C while create waits for Entra:
// the credential is removed again, and the exit code is that of an interrupt.
func TestInterruptedCreateIsNamed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.start("create", "victim")
	m.watch(func(n int, r *http.Request) {
		// The second token request is for Exchange, with the new secret.
		if strings.HasSuffix(r.URL.Path, "/token") && n > 1 {
			p.signal(os.Interrupt)
			time.Sleep(200 * time.Millisecond) // it must be noticed before the answer
		}
	}, nil)
	err := p.run()
	out := p.out
	m.watch(nil, nil)
	if code := p.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	if c := m.sandbox.Credentials(); len(c) != 0 {
		t.Errorf("left in Entra: %v\n%s", c, out)
	}
	if !strings.Contains(out.String(), "interrupted") {
		t.Errorf("it does not say so:\n%s", out)
	}
	if r := m.registry(); len(r.AppPasswords)+len(r.Pending) != 0 {
		t.Errorf("left in the registry: %v", r)
	}
}
