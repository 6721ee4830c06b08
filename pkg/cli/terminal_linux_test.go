package cli_test

import (
	"bytes"
	"encoding/base64"
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

	"golang.org/x/sys/unix"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// terminal is a pseudo-terminal with a program on it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
	done chan struct{}
}

// onTerminal starts o365pw with its three streams and its controlling terminal
// on a pseudo-terminal of its own.
func (m *machine) onTerminal(env []string, args ...string) *terminal {
	m.t.Helper()
	return m.programOnTerminal(env, "o365pw", args...)
}

func (m *machine) programOnTerminal(env []string, program string, args ...string) *terminal {
	m.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		m.t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		m.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{t: m.t, master: master, cmd: exec.Command(program, args...), done: make(chan struct{})}
	term.cmd.Env = append(append([]string{}, m.env...), env...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		defer close(term.done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b) // EIO once the program has ended
			term.mu.Lock()
			term.seen.Write(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	m.t.Cleanup(func() { _ = term.cmd.Process.Kill(); master.Close() })
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// expect waits until the screen has shown pattern.
func (term *terminal) expect(pattern string) {
	term.t.Helper()
	re := regexp.MustCompile(pattern)
	for range 600 {
		if re.MatchString(term.text()) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	term.t.Fatalf("%q never came; the screen:\n%s", pattern, term.text())
}

func (term *terminal) send(s string) {
	term.t.Helper()
	if _, err := io.WriteString(term.master, s); err != nil {
		term.t.Fatal(err)
	}
}

// wait gives the exit code and all that was shown.
func (term *terminal) wait() (int, string) {
	term.t.Helper()
	_ = term.cmd.Wait()
	<-term.done
	return term.cmd.ProcessState.ExitCode(), term.text()
}

func TestTerminalCreateShowsCard(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	code, screen := m.onTerminal([]string{"NO_COLOR=1"}, "create", "Outlook on Mac").wait()
	for _, want := range []string{
		`(?m)^Outlook on Mac\r$`, `Password +[a-z]{4} [a-z]{4} [a-z]{4} [a-z]{4}\r`, `User name +alice@contoso.com`,
		`IMAP +server 127.0.0.1, port 1993, SSL/TLS`, `Expires .*in 6 months`, `Undo with: o365pw revoke 'Outlook on Mac'`,
	} {
		if !regexp.MustCompile(want).MatchString(screen) {
			t.Errorf("no %s on the screen:\n%s", want, screen)
		}
	}
	if code != 0 || strings.Contains(screen, "\x1b[") {
		t.Errorf("exit code %d, or colours although NO_COLOR is set:\n%q", code, screen)
	}
}

func TestTerminalListIsTable(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("create", "soon", "--expires", "10d", "--no-wait")
	m.run("create", "邮件 client", "--no-wait")
	_, screen := m.onTerminal([]string{"NO_COLOR=1"}, "list").wait()
	lines := strings.Split(screen, "\r\n")
	if !regexp.MustCompile(`^NAME +MAILBOX +ALLOW +CREATED +EXPIRES +LAST USED +STATUS +ID$`).MatchString(lines[0]) {
		t.Errorf("header %q", lines[0])
	}
	if !regexp.MustCompile(`(?m)^soon +alice@contoso.com +imap,smtp +just now +⚠ in 10 days +never +active `).MatchString(screen) {
		t.Errorf("the screen:\n%s", screen)
	}
	_, screen = m.onTerminal(nil, "list").wait()
	if !strings.Contains(screen, "\x1b[33m⚠") {
		t.Errorf("no colour on the warning:\n%q", screen)
	}
}

func TestTerminalRevokeAsks(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("create", "Outlook on Mac", "--no-wait")
	for _, answer := range []string{"\r", "n\r", "nonsense\r", "\x04"} {
		term := m.onTerminal(nil, "revoke", "outlook on mac")
		term.expect(`Revoke this app password\? \[y/N\] $`)
		term.send(answer)
		if code, screen := term.wait(); code != 1 || !strings.Contains(screen, "nothing was revoked") {
			t.Errorf("answer %q: exit code %d\n%s", answer, code, screen)
		}
	}
	term := m.onTerminal(nil, "revoke", "outlook on mac")
	term.expect(`\[y/N\] $`)
	term.send("\x03")
	if code, screen := term.wait(); code != 130 {
		t.Errorf("Ctrl-C: exit code %d\n%s", code, screen)
	}
	if n := len(m.sandbox.Credentials()); n != 1 {
		t.Fatalf("%d credentials after five times no", n)
	}
	term = m.onTerminal(nil, "revoke", "outlook on mac")
	term.expect(`\[y/N\] $`)
	term.send("y\r")
	if code, screen := term.wait(); code != 0 || !strings.Contains(screen, `revoked "Outlook on Mac"`) {
		t.Errorf("yes: exit code %d\n%s", code, screen)
	}
	if n := len(m.sandbox.Credentials()); n != 0 {
		t.Errorf("%d credentials after yes", n)
	}
}

func TestTerminalAsksForPassphrase(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	noPassphrase := []string{"O365PW_KEYCHAIN_PASSPHRASE="}
	term := m.onTerminal(noPassphrase, "create", "x", "--no-wait")
	term.expect(`Passphrase of the o365pw keychain: $`)
	term.send("correct horse\r")
	term.expect(`The same again .*: $`)
	term.send("correct horse\r")
	code, screen := term.wait()
	if code != 0 || strings.Contains(screen, "horse") {
		t.Fatalf("exit code %d, or the passphrase was shown:\n%s", code, screen)
	}
	term = m.onTerminal(noPassphrase, "show", "x", "--password")
	term.expect(`Passphrase of the o365pw keychain: $`)
	term.send("half\x03")
	if code, screen := term.wait(); code != 130 || strings.Contains(screen, "half") {
		t.Errorf("Ctrl-C: exit code %d\n%s", code, screen)
	}
	if state, err := unix.IoctlGetTermios(int(term.master.Fd()), unix.TCGETS); err != nil || state.Lflag&unix.ECHO == 0 || state.Lflag&unix.ISIG == 0 {
		t.Errorf("the terminal is left in raw mode: %+v, %v", state, err)
	}
	term = m.onTerminal(noPassphrase, "show", "x", "--password")
	term.expect(`Passphrase of the o365pw keychain: $`)
	term.send("wrong\r")
	if code, screen := term.wait(); code != 1 || !strings.Contains(screen, "hint: ") {
		t.Errorf("wrong passphrase: exit code %d\n%s", code, screen)
	}
	// Without a terminal nobody is asked.
	cmd, out := m.command("show", "x", "--password")
	cmd.Env = append(slices.Clone(cmd.Env), noPassphrase...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "O365PW_KEYCHAIN_PASSPHRASE_FILE") {
		t.Errorf("%v\n%s", err, out)
	}
	file := filepath.Join(m.dir, "passphrase")
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out = m.command("show", "x", "--password")
	cmd.Env = append(append(slices.Clone(cmd.Env), noPassphrase...), "O365PW_KEYCHAIN_PASSPHRASE_FILE="+file)
	if err := cmd.Run(); err != nil {
		t.Errorf("passphrase from a file: %v\n%s", err, out)
	}
}

// Without a clipboard program the terminal itself takes the text (OSC 52), and
// nothing of it is to be read on the screen.
func TestTerminalCopies(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x", "--no-wait"))
	code, screen := m.onTerminal([]string{"DISPLAY=", "WAYLAND_DISPLAY="}, "show", "x", "--copy").wait()
	if want := "\x1b]52;c;" + base64.StdEncoding.EncodeToString([]byte(password)) + "\a"; code != 0 || !strings.Contains(screen, want) {
		t.Errorf("exit code %d\n%q", code, screen)
	}
	if strings.Contains(screen, password) || strings.Contains(screen, "Password") {
		t.Errorf("the password is shown:\n%q", screen)
	}
	cmd, out := m.command("show", "x", "--copy")
	cmd.Env = append(slices.Clone(cmd.Env), "DISPLAY=", "WAYLAND_DISPLAY=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "hint: ") {
		t.Errorf("no clipboard at all: %v\n%s", err, out)
	}
}

func TestTerminalShowsProgress(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.sandbox.SetFaults(func(f *sandbox.Faults) { f.ReplicationDelay = 3 * time.Second })
	code, screen := m.onTerminal(nil, "create", "slow").wait()
	if code != 0 || !strings.Contains(screen, "waiting for Entra to accept the new secret") {
		t.Errorf("exit code %d\n%q", code, screen)
	}
	if i := strings.LastIndex(screen, "waiting for"); !strings.Contains(screen[i:], "\r\x1b[K") {
		t.Errorf("the progress line stays:\n%q", screen)
	}
}
