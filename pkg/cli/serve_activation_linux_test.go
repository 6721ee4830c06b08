package cli_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// socketsOf are listeners that the test holds open, as systemd does for a
// socket unit, with the configuration that fits them.
func (m *machine) socketsOf(protocols ...string) (files []*os.File, addrs []string) {
	m.t.Helper()
	cfg := "\n[gateway]\n"
	for _, p := range protocols {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			m.t.Fatal(err)
		}
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() { f.Close(); ln.Close() })
		files, addrs = append(files, f), append(addrs, ln.Addr().String())
		cfg += fmt.Sprintf("%s = %q\n", p, ln.Addr())
	}
	for _, p := range []string{"imap", "pop3", "smtp"} {
		if !strings.Contains(cfg, p) {
			cfg += p + " = \"127.0.0.1:0\"\n"
		}
	}
	m.configure(cfg)
	return files, addrs
}

// activate runs the gateway as systemd would, with the sockets.
func (m *machine) activate(names string, files []*os.File, args ...string) (*process, *log, <-chan error) {
	m.t.Helper()
	// LISTEN_PID has to be that of the gateway itself.
	p := m.start()
	p.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec o365pw "$@"`, "sh", "serve"}, args...)...)
	l := &log{}
	p.cmd.Env = append(m.env, fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+names)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = l, l, files
	ended := make(chan error, 1)
	go func() { ended <- p.run() }()
	return p, l, ended
}

// TestSocketActivation: the gateway serves on the sockets it was given, and
// opens the others itself. What it starts does not learn of them.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	files, addrs := m.socketsOf("imap", "smtp")
	environ := filepath.Join(m.dir, "environ")
	m.configure("\n[hooks]\non_refused = \"env > " + environ + "; ls -l /proc/self/fd >> " + environ + "\"\n")
	p, l, ended := m.activate("imap:o365pw.socket", files)
	l.await(t, `"msg":"systemd listens","protocol":"imap","address":"`+addrs[0]+`"`)
	l.await(t, `"msg":"systemd listens","protocol":"smtp","address":"`+addrs[1]+`"`)
	l.await(t, `o365pw: imap on `+addrs[0]+`\no365pw: pop3 on 127\.0\.0\.1:\d+\no365pw: smtp on `+addrs[1])
	if _, answer := signIn(t, addrs[0], password); !strings.HasPrefix(answer, "x OK") {
		t.Error(answer)
	}
	if _, answer := signIn(t, addrs[0], "abcdefghijklmnop"); !strings.HasPrefix(answer, "x NO") {
		t.Error(answer)
	}
	l.await(t, "a hook was run")
	b, err := os.ReadFile(environ)
	if err != nil || strings.Contains(string(b), "LISTEN_") || strings.Contains(string(b), "socket:") {
		t.Errorf("a hook has %v\n%s", err, b)
	}
	p.signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, l)
	}
}

// TestSocketActivationRefuses: sockets that do not fit the configuration would
// let clients wait for ever, or be open to more than was meant.
func TestSocketActivationRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	files, addrs := m.socketsOf("imap")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		names string
		files []*os.File
		args  []string
		want  string
	}{
		{"imap", files, []string{"--imap", "127.0.0.1:1"}, `systemd has passed the socket ` + addrs[0] + `, but the configuration has 127\.0\.0\.1:1\n`},
		{"smtp", files, []string{"--smtp", "off"}, `systemd has passed the socket ` + addrs[0]},
		{"o365pw.socket", files, []string{"--imap", "off"}, `the configuration has no protocol for that address\n`},
		{"imap:null", []*os.File{files[0], null}, nil, `systemd has passed the socket null, but it is no socket that listens`},
	} {
		_, l, ended := m.activate(tt.names, tt.files, tt.args...)
		err := <-ended
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 2 {
			t.Errorf("%v %v: %v", tt.names, tt.args, err)
		}
		l.await(t, tt.want)
		l.await(t, `hint: .*o365pw service install`)
	}
	// Sockets for another process are nobody's.
	p := m.start("serve", "--imap", "127.0.0.1:0")
	l := &log{}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = append(m.env, "LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=imap"), l, l, files
	ended := make(chan error, 1)
	go func() { ended <- p.run() }()
	l.await(t, `imap on 127\.0\.0\.1:\d+`)
	p.signal(syscall.SIGTERM)
	if err := <-ended; err != nil || strings.Contains(l.String(), "systemd listens") {
		t.Errorf("%v\n%s", err, l)
	}
}

// TestRestartLosesNoConnection: while the gateway is restarted again and again,
// clients connect without a pause, and none is refused. Those that connect while
// there is no gateway are greeted by the next one. A gateway that ends closes
// what it has not greeted yet.
func TestRestartLosesNoConnection(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	files, addrs := m.socketsOf("imap")
	var greeted atomic.Int64
	done, over := context.WithCancel(t.Context())
	defer over()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for done.Err() == nil {
				switch line, err := greeting(addrs[0]); {
				case err == nil && strings.HasPrefix(line, "* OK"):
					greeted.Add(1)
				case errors.Is(err, io.EOF) && line == "", err == nil && strings.HasPrefix(line, "* BYE o365pw"):
				default:
					t.Errorf("a client was told %q: %v", line, err)
					return
				}
			}
		})
	}
	for range 4 {
		var waiting sync.WaitGroup
		for range 8 {
			conn, err := net.Dial("tcp", addrs[0]) // and nobody is there
			if err != nil {
				t.Fatal(err)
			}
			waiting.Go(func() {
				if line, err := greetingOn(conn); err != nil || !strings.HasPrefix(line, "* OK") {
					t.Errorf("a client that has waited was told %q: %v", line, err)
				}
			})
		}
		p, l, ended := m.activate("o365pw.socket", files)
		l.await(t, `imap on `)
		waiting.Wait()
		for before, end := greeted.Load(), time.Now().Add(30*time.Second); greeted.Load() < before+20; time.Sleep(5 * time.Millisecond) {
			if t.Failed() || time.Now().After(end) {
				t.Fatalf("%d clients were greeted, and then none", greeted.Load())
			}
		}
		p.signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Fatalf("%v\n%s", err, l)
		}
	}
	// The clients that wait now have somebody to talk to until the end.
	p, l, ended := m.activate("o365pw.socket", files)
	l.await(t, `imap on `)
	over()
	clients.Wait()
	p.signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, l)
	}
}

// greeting is the first line that a client is told. It leaves politely.
func greeting(addr string) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	return greetingOn(conn)
}

func greetingOn(conn net.Conn) (string, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.HasPrefix(line, "* OK") {
		_, err = fmt.Fprint(conn, "x LOGOUT\r\n")
	}
	return line, err
}
