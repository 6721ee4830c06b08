package cli_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServeNotifies plays systemd: it hears of the start, of each reload, that
// the gateway lives, and of the end.
func TestServeNotifies(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	socket := filepath.Join(m.dir, "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := ln.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var heard []string
	// await reads messages until one fits.
	await := func(pattern string) {
		t.Helper()
		re := regexp.MustCompile(pattern)
		b := make([]byte, 4096)
		for {
			n, err := ln.Read(b)
			if err != nil {
				t.Fatalf("%q never came: %v after %q", pattern, err, heard)
			}
			heard = append(heard, string(b[:n]))
			if re.Match(b[:n]) {
				return
			}
		}
	}
	m.env = append(m.env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	p, l, addr := m.serve("")
	await(`^READY=1\nSTATUS=0 open sessions$`)
	await(`^WATCHDOG=1$`)
	p.signal(syscall.SIGHUP)
	await(`^RELOADING=1\nMONOTONIC_USEC=\d+$`)
	await(`^READY=1\nSTATUS=0 open sessions$`)
	l.await(t, `"msg":"reloaded"`)
	if _, answer := signIn(t, addr, password); !strings.HasPrefix(answer, "x OK") {
		t.Fatal(answer)
	}
	p.signal(syscall.SIGTERM)
	await(`^STOPPING=1\nSTATUS=stopping, [01] open sessions?$`)
}

// TestServeReloadWarns names what a reload does not change.
func TestServeReloadWarns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p, l, _ := m.serve("metrics = \"127.0.0.1:0\"\n")
	m.edit("config.toml", `pop3 = "127.0.0.1:0"`, `pop3 = ""`)
	m.edit("config.toml", `metrics = "127.0.0.1:0"`, `metrics = ""`)
	m.edit("config.toml", `smtp = "127.0.0.1:0"`, `smtp = "127.0.0.1:1"`)
	p.signal(syscall.SIGHUP)
	l.await(t, `takes effect at the next start","keys":"pop3, smtp, metrics"`)
}

// TestServeListens: the start-up lines come in a fixed order, in every format
// of the log, and flags win over the configuration.
func TestServeListens(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.configure("\n[gateway]\nimap = \"127.0.0.1:1\"\npop3 = \"127.0.0.1:1\"\nsmtp = \"127.0.0.1:1\"\n")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--smtp", "127.0.0.1:0", "--imap", "127.0.0.1:0", "--pop3", "127.0.0.1:0"}, `^o365pw: imap on 127\.0\.0\.1:\d+\no365pw: pop3 on 127\.0\.0\.1:\d+\no365pw: smtp on 127\.0\.0\.1:\d+\n`},
		{[]string{"--smtp", "", "--pop3=off", "--imap", "127.0.0.1:0", "--log", "text"}, `^o365pw: imap on 127\.0\.0\.1:\d+\no365pw: the certificate`},
		{[]string{"--smtp", "127.0.0.1:0", "--pop3", "off", "--imap", "off", "--log=json"}, `^o365pw: smtp on 127\.0\.0\.1:\d+\no365pw: the certificate`},
	} {
		p := m.start(append([]string{"serve"}, tt.args...)...)
		l := &log{}
		p.cmd.Stdout, p.cmd.Stderr = l, l
		ended := make(chan error, 1)
		go func() { ended <- p.run() }()
		l.await(t, tt.want)
		m.run("serve", "--stop")
		if err := <-ended; err != nil {
			t.Errorf("%v: %v", tt.args, err)
		}
	}
	for args, want := range map[string]string{
		"--imap off --pop3 off --smtp off": "there is no protocol to listen for",
		"--log xml":                        "is none of text, json",
	} {
		cmd, out := m.command(append([]string{"serve"}, strings.Fields(args)...)...)
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "hint: ") {
			t.Errorf("%s: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestHookToldAtTheEnd: what ends while the gateway does is noted all the same,
// and not told again at the next start.
func TestHookToldAtTheEnd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("create", "--name", "soon", "--mailbox", "alice@contoso.com", "--expires", "20d")
	m.edit("state/registry.json", `"created": "20`, `"created": "00`) // long ago
	began := filepath.Join(m.dir, "began")
	p, l, _ := m.serve("\n[hooks]\non_expiring = \"cat > /dev/null; touch " + began + "; sleep 2\"\n")
	for range 400 {
		if _, err := os.Stat(began); err == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	l.await(t, "a hook was run")
	var b []byte
	for range 200 {
		var err error
		if b, err = os.ReadFile(filepath.Join(m.dir, "state", "usage.json")); err == nil && strings.Contains(string(b), `"told"`) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Errorf("the last uses: %s\n%s", b, l)
}
