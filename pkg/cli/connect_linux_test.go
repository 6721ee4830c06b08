package cli_test

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tunnelled is a mail program's end of connect.
type tunnelled struct {
	t     *testing.T
	p     *process
	in    io.WriteCloser
	out   *bufio.Reader
	ended chan error
}

func (m *machine) connect(protocol, name string) *tunnelled {
	m.t.Helper()
	p := m.start("connect", protocol, name)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	// StdoutPipe would be closed under its reader when the program ends.
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.cmd.Stdout = w
	c := &tunnelled{t: m.t, p: p, in: in, out: bufio.NewReader(r), ended: make(chan error, 1)}
	go func() { c.ended <- p.run(); w.Close() }()
	m.t.Cleanup(func() { p.signal(os.Kill); r.Close() })
	return c
}

func (c *tunnelled) say(line string) {
	if _, err := io.WriteString(c.in, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *tunnelled) expect(prefix string) {
	c.t.Helper()
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%v, want %q: %s", err, prefix, c.p.out)
		}
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// code is how the program ended.
func (c *tunnelled) code() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.p.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		c.t.Fatal("connect goes on")
		return 0
	}
}

// A tunnel ends with its app password, on SIGTERM, and with the mail program. What
// was said is recorded by then.
func TestConnectEnds(t *testing.T) {
	m := newMachine(t)
	m.run("create", "mutt", "--allow", "imap,smtp")
	open := func() *tunnelled {
		c := m.connect("imap", "mutt")
		c.expect("* PREAUTH ")
		c.say("a NOOP")
		c.expect("a OK")
		return c
	}
	c := open()
	if err := c.in.Close(); err != nil {
		t.Fatal(err)
	}
	if code := c.code(); code != 0 {
		t.Errorf("with the end of its input it exits with %d: %s", code, c.p.out)
	}

	c = open()
	c.p.signal(syscall.SIGTERM)
	c.expect("* BYE o365pw: ")
	if code := c.code(); code != 0 {
		t.Errorf("after SIGTERM it exits with %d: %s", code, c.p.out)
	}

	// A message that is under way arrives.
	c = m.connect("smtp", "mutt")
	c.expect("220 ")
	for _, line := range []string{"EHLO here", "MAIL FROM:<alice@contoso.com>", "RCPT TO:<bob@contoso.com>"} {
		c.say(line)
		c.expect("250 ")
	}
	c.say("DATA")
	c.expect("354 ")
	c.p.signal(syscall.SIGTERM)
	c.say("Subject: late\r\n\r\nhello\r\n.")
	c.expect("250 ")
	c.expect("421 ")
	if code := c.code(); code != 0 {
		t.Errorf("after SIGTERM during a message it exits with %d: %s", code, c.p.out)
	}

	c = open()
	m.run("revoke", "mutt", "--yes")
	c.expect("* BYE o365pw: this app password was revoked")
	if code := c.code(); code != 4 || !strings.Contains(c.p.out.String(), "hint: ") {
		t.Errorf("once it is revoked connect exits with %d: %s", code, c.p.out)
	}
}
