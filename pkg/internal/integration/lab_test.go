//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

const mailbox = "alice@contoso.com"

// binary is o365pw with the race detector, as TestMain has built it.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "o365pw-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "o365pw")
		build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", binary, "github.com/o365pw/o365pw/cmd/o365pw")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build o365pw: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// lab is a tenant in the sandbox, Dovecot in the place of its Exchange, and
// one user of o365pw.
type lab struct {
	t       *testing.T
	sandbox *sandbox.Server
	dovecot *dovecot
	dir     string // the user's home, with configuration and state
	gateway string // address of the gateway, whether it runs or not
	ca      string // file that clients trust
	env     []string
	secrets []string // that no log may hold
}

// options of a lab; the zero value does for most.
type options struct {
	startTLS   bool   // from the gateway to Dovecot
	revalidate string // "": an hour, which is never
	keychain   []string
	messages   []message
}

func newLab(t *testing.T, o options) *lab {
	t.Helper()
	l := &lab{t: t, sandbox: &sandbox.Server{}, dir: t.TempDir(), gateway: freePorts(t, 1)[0]}
	must(t, l.sandbox.Start())
	t.Cleanup(func() { l.sandbox.Close() })
	l.dovecot = startDovecot(t, l.sandbox.Authority(), mailbox, o.messages)

	imap := "imaps://" + l.dovecot.imaps
	if o.startTLS {
		imap = "imap://" + l.dovecot.imap
	}
	roots := l.file("cloud-ca.pem", l.dovecot.caPEM)
	config := strings.Replace(l.sandbox.Config(roots), "imaps://"+l.sandbox.IMAP(), imap, 1)
	if !strings.Contains(config, imap) {
		t.Fatalf("the sandbox's configuration has another form:\n%s", config)
	}
	if o.revalidate == "" {
		o.revalidate = "1h"
	}
	config += fmt.Sprintf("\n[gateway]\nimap = %q\nrevalidate = %q\n", l.gateway, o.revalidate)
	id, adminSecret := l.sandbox.AdminClient()
	l.secrets = append(l.secrets, adminSecret)
	l.ca = filepath.Join(l.dir, "state", "ca.pem")
	if o.keychain == nil {
		o.keychain = l.fileKeychain()
	}
	l.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "TERM=dumb", "LC_ALL=C.UTF-8",
		"O365PW_CONFIG=" + l.file("config.toml", []byte(config)), "O365PW_STATE=" + filepath.Join(l.dir, "state"),
		"AZURE_CLIENT_ID=" + id, "AZURE_CLIENT_SECRET=" + adminSecret,
	}, o.keychain...)
	return l
}

// fileKeychain makes a file keychain whose passphrase costs little to try:
// under the race detector the usual cost is two seconds for each command.
func (l *lab) fileKeychain() (env []string) {
	l.t.Helper()
	const passphrase = "the file's passphrase"
	k := &secret.File{
		Path:       filepath.Join(l.dir, "state", "keychain.age"),
		Passphrase: func(context.Context, bool) (secret.Text, error) { return secret.New(passphrase), nil },
		WorkFactor: 10,
	}
	must(l.t, k.Set(l.t.Context(), "first", secret.New("item")))
	must(l.t, k.Delete(l.t.Context(), "first"))
	return []string{"O365PW_KEYCHAIN=file", "O365PW_KEYCHAIN_PASSPHRASE=" + passphrase}
}

// in is the lab within a subtest, which its processes and files end with.
func (l *lab) in(t *testing.T) *lab {
	sub := *l
	sub.t, sub.dir = t, t.TempDir()
	return &sub
}

// file writes a file of the user's and returns its path.
func (l *lab) file(name string, data []byte) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	must(l.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(l.t, os.WriteFile(path, data, 0o600))
	return path
}

// o365pw runs a command, which must succeed, and returns what it printed.
func (l *lab) o365pw(args ...string) string {
	l.t.Helper()
	r := l.try("", binary, args...)
	if r.code != 0 {
		l.t.Fatalf("o365pw %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// create makes an app password.
func (l *lab) create(name string) string {
	l.t.Helper()
	password := strings.TrimSuffix(l.o365pw("create", name), "\n")
	if len(strings.ReplaceAll(password, " ", "")) != 16 {
		l.t.Fatalf("create printed %q, which is no app password", password)
	}
	l.secrets = append(l.secrets, password, compact(password))
	return password
}

type result struct {
	stdout, stderr string
	code           int
}

// try runs a program with input on stdin, for a minute at most.
func (l *lab) try(input, program string, args ...string) result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(l.t, program), args...)
	cmd.Env, cmd.Dir, cmd.Stdin = l.env, l.dir, strings.NewReader(input)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && (!ended || ctx.Err() != nil) {
		l.t.Fatalf("%s: %v\n%s%s", program, err, &stdout, &stderr)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// process is a program that runs beside the test.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *buffer // stdout and stderr
}

// start runs a program until it ends or the test does. Its stdin is open.
func (l *lab) start(program string, args ...string) *process {
	l.t.Helper()
	p := &process{t: l.t, cmd: exec.Command(tool(l.t, program), args...), out: &buffer{}}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = l.env, l.dir, p.out, p.out
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	must(l.t, err)
	must(l.t, p.cmd.Start())
	l.t.Cleanup(func() {
		p.stdin.Close()
		if p.cmd.ProcessState == nil {
			p.kill()
		}
		if l.t.Failed() {
			l.t.Logf("%s said:\n%s", filepath.Base(program), blanks.ReplaceAllString(p.out.String(), " "))
		}
	})
	return p
}

// blanks are what a screen is filled with.
var blanks = regexp.MustCompile(`[ \x00]{20,}`)

// serve runs the gateway and waits until it listens.
func (l *lab) serve() *process {
	l.t.Helper()
	p := l.start(binary, "serve")
	l.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.terminate()
		}
		for _, s := range l.secrets {
			if strings.Contains(p.out.String(), s) {
				l.t.Error("the gateway's log holds a secret")
			}
		}
	})
	p.await("imap on " + l.gateway)
	return p
}

// await waits until the program has said text.
func (p *process) await(text string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%q from %s", text, filepath.Base(p.cmd.Path)), func() bool {
		return strings.Contains(p.out.String(), text)
	})
}

// wait returns the exit code.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	code, err := waitProcess(p.cmd, limit)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", filepath.Base(p.cmd.Path), err, p.out)
	}
	return code
}

// terminate is how a service is stopped: by SIGTERM, to which a clean end is
// the answer. The race detector would make it another exit code.
func (p *process) terminate() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	if code := p.wait(15 * time.Second); code != 0 {
		p.t.Errorf("%s ended with exit code %d after SIGTERM", filepath.Base(p.cmd.Path), code)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// waitProcess waits for the end, and kills what does not end in time.
func waitProcess(cmd *exec.Cmd, limit time.Duration) (code int, err error) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(limit):
		_ = cmd.Process.Kill()
		<-ended
		return -1, fmt.Errorf("it had not ended after %v", limit)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), err
}

// buffer is a bytes.Buffer that a program writes to while the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// packages are Debian's names for what the tests run.
var packages = map[string]string{
	"curl": "curl", "dbus-run-session": "dbus", "dovecot": "dovecot-imapd", "gnome-keyring-daemon": "gnome-keyring",
	"mbsync": "isync", "mutt": "mutt", "python3": "python3", "script": "bsdutils",
}

// tool is the path of a program. It fails the test where there is none.
func tool(t *testing.T, name string) string {
	t.Helper()
	if strings.Contains(name, "/") {
		return name
	}
	path, err := exec.LookPath(name)
	if err != nil && name == "dovecot" { // not on the path of ordinary users
		path, err = exec.LookPath("/usr/sbin/dovecot")
	}
	if err != nil {
		t.Fatalf("this test needs %s (Debian: apt-get install %s): %v", name, packages[name], err)
	}
	return path
}

// eventually waits until ok, for half a minute at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func compact(password string) string { return strings.ReplaceAll(password, " ", "") }

// spaced is a password as people type it who have read it from a card.
func spaced(password string) string {
	var groups []string
	for g := range slices.Chunk([]byte(compact(password)), 4) {
		groups = append(groups, string(g))
	}
	return strings.Join(groups, " ")
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	must(t, err)
	return path
}
