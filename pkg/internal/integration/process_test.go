//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

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
	out   *logtest.Buffer // stdout and stderr
	seen  int             // how much of it dialog has looked at
}

// start runs a program until it ends or the test does. Its stdin is open.
func (l *lab) start(program string, args ...string) *process {
	l.t.Helper()
	p := &process{t: l.t, cmd: exec.Command(tool(l.t, program), args...), out: &logtest.Buffer{}}
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

// packages are Debian's names for what the tests run.
var packages = map[string]string{
	"aerc": "aerc", "alpine": "alpine", "bsd-mailx": "bsd-mailx", "certutil": "libnss3-tools", "chromium": "chromium", "curl": "curl", "dbus-run-session": "dbus", "dovecot": "dovecot-imapd dovecot-pop3d dovecot-submissiond",
	"fdm": "fdm", "fetchmail": "fetchmail", "fish": "fish", "getmail": "getmail6",
	"git": "git-email libauthen-sasl-perl libmailtools-perl libnet-smtp-ssl-perl", "gnome-keyring-daemon": "gnome-keyring",
	"groff": "groff", "man": "man-db", "mandoc": "mandoc", "mbsync": "isync", "mpop": "mpop", "msmtp": "msmtp", "mutt": "mutt", "neomutt": "neomutt",
	"node": "nodejs", "npm": "npm", "offlineimap": "offlineimap3", "openssl": "openssl", "postfix": "postfix libsasl2-modules", "python3": "python3",
	"s-nail": "s-nail", "script": "bsdutils", "thunderbird": "thunderbird", "tstclnt": "libnss3-tools", "swaks": "swaks libauthen-sasl-perl libnet-ssleay-perl",
	"wine64": "wine64", "wineserver": "wine64",
	"xclip": "xclip", "xsel": "xsel", "xmllint": "libxml2-utils", "Xvfb": "xvfb",
	"x86_64-w64-mingw32-dlltool": "binutils-mingw-w64-x86-64", "x86_64-w64-mingw32-ld": "binutils-mingw-w64-x86-64",
	"zsh": "zsh",
}

// tool is the path of a program. It fails the test where there is none.
func tool(t *testing.T, name string) string {
	t.Helper()
	if strings.Contains(name, "/") {
		return name
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case name == "dovecot": // not on the path of ordinary users
		path, err = exec.LookPath("/usr/sbin/dovecot")
	case name == "wine64", name == "wineserver": // those on the path are scripts about them
		path, err = exec.LookPath("/usr/lib/wine/" + name)
	case name == "chromium": // under another name and maker
		path, err = exec.LookPath("google-chrome")
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
