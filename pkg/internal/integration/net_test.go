//go:build integration

package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// freePorts gives addresses on which nobody listens. They are outside of the
// ports that systems give to connections: until the server listens there, no
// connection gets one by chance.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	addrs := make([]string, 0, n)
	for len(addrs) < n {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.N(12000))
		ln, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		must(t, err)
		defer ln.Close() // all at the end: no two are the same
		addrs = append(addrs, address)
	}
	return addrs
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// trust is what a client verifies the gateway by.
func (l *lab) trust() *tls.Config {
	l.t.Helper()
	data, err := os.ReadFile(l.ca)
	must(l.t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		l.t.Fatalf("%s holds no certificate", l.ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// session is a mail session held open, over TLS, at the gateway.
type session struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (l *lab) dial(protocol string) *session {
	l.t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.gateway[protocol], l.trust())
	must(l.t, err)
	l.t.Cleanup(func() { conn.Close() })
	s := &session{l.t, conn, bufio.NewReader(conn)}
	s.expect(map[string]string{"imap": "* OK ", "pop3": "+OK ", "smtp": "220 "}[protocol])
	return s
}

// pop3 signs in with the app password; the answer has to begin so.
func (l *lab) pop3(password, answer string) *session {
	l.t.Helper()
	s := l.dial("pop3")
	s.send("USER %s", mailbox)
	s.expect("+OK")
	s.send("PASS %s", password)
	s.expect(answer)
	return s
}

// smtp signs in with the app password; the reply has to begin so.
func (l *lab) smtp(password, reply string) *session {
	l.t.Helper()
	s := l.dial("smtp")
	s.send("EHLO client.test")
	s.expect("250 ")
	s.send("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+mailbox+"\x00"+password)))
	s.expect(reply)
	return s
}

// signIn opens INBOX with the app password.
func (l *lab) signIn(password string) *session {
	l.t.Helper()
	s := l.dial("imap")
	s.do("LOGIN %s %q", mailbox, password)
	s.do("SELECT INBOX")
	return s
}

// idle is signIn and IDLE (RFC 2177).
func (l *lab) idle(password string) *session {
	l.t.Helper()
	s := l.signIn(password)
	s.send("i IDLE")
	s.expect("+ ")
	return s
}

func (s *session) send(format string, args ...any) {
	s.t.Helper()
	_, err := fmt.Fprintf(s.conn, format+"\r\n", args...)
	must(s.t, err)
}

// do sends a command that must be answered by OK.
func (s *session) do(format string, args ...any) {
	s.t.Helper()
	s.send("t "+format, args...)
	s.expect("t OK")
}

// refusedLine begins the refusal of a command.
var refusedLine = regexp.MustCompile(`^(t NO|t BAD|-ERR|[45][0-9][0-9] )`)

// expect reads lines until one begins with prefix.
func (s *session) expect(prefix string) string {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		line, err := s.in.ReadString('\n')
		if strings.HasPrefix(line, prefix) {
			return strings.TrimRight(line, "\r\n")
		}
		if err != nil || refusedLine.MatchString(line) {
			s.t.Fatalf("waiting for %q: %q, %v", prefix, line, err)
		}
	}
}

// ended reads to the end of the connection, and returns the last line.
func (s *session) ended() (last string) {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		line, err := s.in.ReadString('\n')
		if line != "" {
			last = strings.TrimRight(line, "\r\n")
		}
		if e, ok := err.(net.Error); ok && e.Timeout() {
			s.t.Fatal("the session was not closed")
		}
		if err != nil {
			return last
		}
	}
}

// read gives all messages of INBOX by BODY.PEEK[], as an independent client
// gets them that has signed in.
func read(t *testing.T, c *imapclient.Client) map[string][]byte {
	t.Helper()
	defer c.Close()
	_, err := c.Select("INBOX", nil).Wait()
	must(t, err)
	list, err := c.Fetch(imap.UIDSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
		UID: true, Envelope: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}},
	}).Collect()
	must(t, err)
	found := map[string][]byte{}
	for _, m := range list {
		data := m.BodySection[0].Bytes
		if m.RFC822Size != int64(len(data)) {
			t.Errorf("UID %d: RFC822.SIZE is %d, the message has %d bytes", m.UID, m.RFC822Size, len(data))
		}
		found[m.Envelope.Subject] = data
	}
	must(t, c.Logout().Wait())
	return found
}

// checkMessages compares what was found with the mailbox's messages.
func checkMessages(t *testing.T, where string, found map[string][]byte, want []message) {
	t.Helper()
	if len(found) != len(want) {
		t.Errorf("%s: %d messages, want %d", where, len(found), len(want))
	}
	for _, m := range want {
		checkSame(t, where+": "+m.subject, found[m.subject], m.data)
	}
}

// direct signs in at Dovecot itself, past the gateway, with a token that the
// test gets by a secret of its own.
func (l *lab) direct() *imapclient.Client {
	t := l.t
	t.Helper()
	ec := &entra.Client{Authority: l.sandbox.Authority(), Tenant: l.sandbox.Tenant}
	adminID, adminSecret := l.sandbox.AdminClient()
	admin, err := ec.ClientSecret(t.Context(), adminID, secret.New(adminSecret), "https://graph.microsoft.com/.default")
	must(t, err)
	gc := &graph.Client{BaseURL: l.sandbox.Graph(), Token: func(context.Context) (secret.Text, error) { return admin.Access, nil }}
	_, app := l.sandbox.MailApp()
	cred, text, err := gc.AddPassword(t.Context(), app, graph.NewPassword{DisplayName: "direct", End: time.Now().Add(time.Hour)})
	must(t, err)
	defer l.sandbox.RemoveCredential(cred.KeyID)
	token, err := ec.ClientSecret(t.Context(), app, text, "https://outlook.office365.com/.default")
	must(t, err)
	c, err := imapclient.DialTLS(l.dovecot.imaps, &imapclient.Options{
		TLSConfig: &tls.Config{RootCAs: l.dovecot.roots, ServerName: "127.0.0.1"},
	})
	must(t, err)
	must(t, c.Authenticate(xoauth2.NewClient(mailbox, token.Access)))
	return c
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// ways are the ways to connect to the gateway.
func (l *lab) ways() map[string]func() (*imapclient.Client, error) {
	o := &imapclient.Options{TLSConfig: l.trust()}
	return map[string]func() (*imapclient.Client, error){
		"TLS":      func() (*imapclient.Client, error) { return imapclient.DialTLS(l.gateway["imap"], o) },
		"STARTTLS": func() (*imapclient.Client, error) { return imapclient.DialStartTLS(l.gateway["imap"], o) },
		"clear":    func() (*imapclient.Client, error) { return imapclient.DialInsecure(l.gateway["imap"], o) },
	}
}
