//go:build unix

package cli_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// imapSession is a mail client's connection that a script keeps open.
type imapSession struct {
	conn net.Conn
	buf  []byte
}

// imap login USER PASSWORD: prints what the gateway says and ends.
// imap open NAME USER PASSWORD: the same, but stays. imap closed NAME: waits
// until the gateway closes it and prints what it said last. imap alive NAME.
func cmdIMAP(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	switch {
	case len(args) == 3 && args[0] == "login":
		c, reply := s.login(ts, args[1], args[2])
		c.conn.Close()
		checkReply(ts, neg, reply)
	case len(args) == 4 && args[0] == "open":
		c, reply := s.login(ts, args[2], args[3])
		s.sessions[args[1]] = c
		checkReply(ts, neg, reply)
	case len(args) == 2 && args[0] == "closed":
		b := s.sessions[args[1]].rest(ts)
		fmt.Fprintf(ts.Stdout(), "%s", b)
	case len(args) == 2 && args[0] == "alive":
		reply := s.sessions[args[1]].command(ts, "x NOOP")
		checkReply(ts, neg, reply)
	default:
		ts.Fatalf("usage: imap login USER PASSWORD | open NAME USER PASSWORD | closed NAME | alive NAME")
	}
}

// talk PROTOCOL LINE...: sends the lines to the gateway over TLS, each after the
// reply to the one before, and prints what it says. It ends by itself.
func cmdTalk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: talk PROTOCOL LINE...")
	}
	conn := of(ts).dial(ts, args[0])
	defer conn.Close()
	c := &imapSession{conn: conn}
	for _, line := range append([]string{""}, args[1:]...) {
		if line != "" {
			_, err := io.WriteString(conn, strings.ReplaceAll(line, `\r\n`, "\r\n")+"\r\n")
			ts.Check(err)
		}
		verb, _, _ := strings.Cut(line, " ")
		for {
			reply := c.line(ts)
			fmt.Fprintf(ts.Stdout(), "%s\n", reply)
			several := args[0] == "smtp" && len(reply) > 3 && reply[3] == '-' ||
				args[0] == "pop3" && slices.Contains([]string{"CAPA", "RETR", "UIDL"}, verb) && reply != "." && !strings.HasPrefix(reply, "-ERR")
			if !several {
				break
			}
		}
	}
}

// arrived N holds Exchange to the number of messages it got so far, and prints
// the last with its envelope.
func cmdArrived(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: arrived N")
	}
	sent := of(ts).sandbox.Sent()
	if fmt.Sprint(len(sent)) != args[0] {
		ts.Fatalf("%d messages have arrived, want %s", len(sent), args[0])
	}
	if len(sent) > 0 {
		m := sent[len(sent)-1]
		fmt.Fprintf(ts.Stdout(), "MAIL FROM:%s RCPT TO:%s\n%s", m.From, strings.Join(m.To, ","), strings.ReplaceAll(string(m.Data), "\r\n", "\n"))
	}
}

func checkReply(ts *testscript.TestScript, neg bool, reply string) {
	fmt.Fprintf(ts.Stdout(), "%s\n", reply)
	if strings.HasPrefix(reply, "x OK") == neg {
		ts.Fatalf("unexpected reply: %s", reply)
	}
}

// dial connects over TLS, waiting for the gateway to come up.
func (s *script) dial(ts *testscript.TestScript, protocol string) net.Conn {
	var conn net.Conn
	var err error
	for range 200 {
		// What the certificate is worth is tested elsewhere.
		conn, err = tls.Dial("tcp", s.gateway[protocol], &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Check(err)
	return conn
}

func (s *script) login(ts *testscript.TestScript, user, password string) (*imapSession, string) {
	c := &imapSession{conn: s.dial(ts, "imap")}
	c.line(ts) // the greeting
	return c, c.command(ts, fmt.Sprintf("x LOGIN %s {%d+}\r\n%s", user, len(password), password))
}

// command sends a command with the tag x and returns its tagged reply.
func (c *imapSession) command(ts *testscript.TestScript, cmd string) string {
	_, err := io.WriteString(c.conn, cmd+"\r\n")
	ts.Check(err)
	for {
		if l := c.line(ts); strings.HasPrefix(l, "x ") {
			return l
		}
	}
}

func (c *imapSession) line(ts *testscript.TestScript) string {
	ts.Check(c.conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	for {
		if line, rest, ok := bytes.Cut(c.buf, []byte("\r\n")); ok {
			c.buf = rest
			return string(line)
		}
		b := make([]byte, 4096)
		n, err := c.conn.Read(b)
		c.buf = append(c.buf, b[:n]...)
		if n == 0 {
			ts.Check(err)
		}
	}
}

func (c *imapSession) rest(ts *testscript.TestScript) []byte {
	ts.Check(c.conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	b, err := io.ReadAll(c.conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		ts.Fatalf("the session is still open")
	}
	return append(c.buf, b...)
}
