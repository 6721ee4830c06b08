package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// byteConn is a client that sends these bytes and leaves.
type byteConn struct {
	in     *bytes.Reader
	out    bytes.Buffer
	remote net.Addr
}

func (c *byteConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *byteConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *byteConn) Close() error                     { return nil }
func (c *byteConn) LocalAddr() net.Addr              { return c.remote }
func (c *byteConn) RemoteAddr() net.Addr             { return c.remote }
func (c *byteConn) SetDeadline(time.Time) error      { return nil }
func (c *byteConn) SetReadDeadline(time.Time) error  { return nil }
func (c *byteConn) SetWriteDeadline(time.Time) error { return nil }

// replyLine is any line that the gateway may say before sign-in.
var replyLine = regexp.MustCompile(`^((\*|[!#$&',\-./0-9:;<=>?@A-Z\[\]^_` + "`" + `a-z|}~]{1,64}) (OK|NO|BAD|BYE|CAPABILITY|ID) [ -~]+|\+ [ -~]*)$`)

// FuzzIMAPFrontEnd sends arbitrary bytes to a gateway whose backend accepts
// one app password.
func FuzzIMAPFrontEnd(f *testing.F) {
	good := base64.StdEncoding.EncodeToString([]byte("\x00" + goodUser + "\x00" + goodPassword))
	for _, seed := range []string{
		"a LOGIN " + goodUser + " " + goodPassword + "\r\n", "a AUTHENTICATE PLAIN " + good + "\r\n", "a AUTHENTICATE PLAIN\r\n" + good + "\r\n",
		"a AUTHENTICATE LOGIN\r\nYWxpY2VAY29udG9zby5jb20=\r\nYWJjZGVmZ2hpamtsbW5vcA==\r\n", "a LOGIN {17+}\r\n" + goodUser + " {16+}\r\n" + goodPassword + "\r\nb NOOP\r\n",
		"a LOGIN {17}\r\n" + goodUser + " {16}\r\n" + goodPassword + "\r\n", "a STARTTLS\r\nb LOGIN x y\r\n", "GET / HTTP/1.1\r\n\r\n", "a AUTHENTICATE PLAIN\r\n*\r\n",
		"a ID (\"x\" {1}\r\ny)\r\na CAPABILITY\r\na NOOP\r\na LOGOUT\r\n", "a LOGIN \"a\\\"b\" c\r\n" + strings.Repeat("b LOGIN a b\r\n", 4), "\x16\x03\x01", "", "\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, input []byte, loopback bool) {
		remote := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 1}
		if loopback {
			remote.IP = net.IPv4(127, 0, 0, 1)
		}
		accepted := false
		backend := &fakeBackend{}
		backend.token = func(context.Context, Grant) (secret.Text, error) {
			accepted = true
			return secret.Text{}, errors.New("no upstream in this test")
		}
		s := &Server{Backend: backend, sessions: map[*session]phase{}, waiting: map[netip.Addr]int{}, SignInAttempts: 3}
		conn := &byteConn{in: bytes.NewReader(input), remote: remote}
		s.admit(t.Context(), IMAP, conn, false)()

		if s.pending != 0 || len(s.sessions) != 0 {
			t.Errorf("%d pending, %d sessions are left", s.pending, len(s.sessions))
		}
		out := conn.out.String()
		for line := range strings.Lines(out) {
			if text, ok := strings.CutSuffix(line, "\r\n"); !ok || !replyLine.MatchString(text) {
				t.Errorf("not a reply: %q", line)
			}
		}
		if strings.Contains(out, " signed in") {
			t.Error("signed in without an upstream")
		}
		if accepted && !loopback {
			t.Error("a password was taken in clear from another machine")
		}
		if accepted && !holdsPassword(input) {
			t.Error("accepted without the password")
		}
	})
}

// holdsPassword looks for the app password as it is, or in base64.
func holdsPassword(input []byte) bool {
	plain := func(b []byte) bool {
		return strings.Contains(strings.NewReplacer(" ", "", "-", "", "\\", "").Replace(string(b)), goodPassword)
	}
	if plain(input) {
		return true
	}
	for word := range bytes.FieldsSeq(input) {
		if decoded, err := base64.StdEncoding.DecodeString(string(word)); err == nil && plain(decoded) {
			return true
		}
	}
	return false
}

// FuzzIMAPUpstream has an upstream say arbitrary bytes to a gateway that signs
// in there: it ends, with a welcome that is one well-formed line or a Refusal.
func FuzzIMAPUpstream(f *testing.F) {
	for _, seed := range []string{
		"* OK ready\r\ng1 OK\r\n* CAPABILITY IMAP4rev1 IDLE\r\ng2 OK x\r\ng3 OK x\r\n", "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] x\r\n+ \r\ng1 OK [CAPABILITY A B] x\r\ng2 OK x\r\ng3 OK x\r\n",
		"* OK x\r\n+ e30=\r\ng1 NO AUTHENTICATE failed.\r\n", "* OK x\r\ng1 OK x\r\ng2 BAD User is authenticated but not connected.\r\ng3 BAD x\r\n",
		"* OK x\r\ng1 BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds\r\n", "* BYE x\r\n", "* STATUS {5}\r\nINBOX ()\r\n", "220 x\r\n", "", "* OK [x\r\n", "* OK ]\r\n",
	} {
		f.Add([]byte(seed))
	}
	welcomeLine := regexp.MustCompile(`^OK (\[CAPABILITY [!-~]+( [!-~]+)*\] )?signed in$`)
	f.Fuzz(func(t *testing.T, input []byte) {
		conn := newRawConn(&byteConn{in: bytes.NewReader(input)})
		u := &upstream{address: "upstream", raw: conn, conn: conn, in: bufio.NewReaderSize(conn, readBuffer), inTLS: true}
		welcome, err := imapUpstream(t.Context(), u, login{mailbox: goodUser, token: secret.New(goodToken)})
		if err == nil {
			if !welcomeLine.MatchString(welcome) {
				t.Errorf("welcome %q", welcome)
			}
			return
		}
		r, ok := errors.AsType[*Refusal](err)
		if !ok {
			t.Fatalf("%v is no Refusal", err)
		}
		if line := imapText(r.public()); strings.ContainsAny(line, "\r\n[]") || line == "" {
			t.Errorf("public text %q", line)
		}
		if text := err.Error(); strings.ContainsAny(text, "\r\n\x1b") || strings.Contains(text, goodToken) || len(text) > 2000 {
			t.Errorf("error %q", text)
		}
	})
}
