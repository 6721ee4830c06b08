package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/o365pw/o365pw/pkg/secret"
)

// frontEnd has a gateway speak to a client that sends input and leaves. It
// returns what the client got, and whether a password was accepted.
func frontEnd(t *testing.T, name Protocol, input []byte, loopback bool) (out string, accepted bool) {
	remote := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 1}
	if loopback {
		remote.IP = net.IPv4(127, 0, 0, 1)
	}
	backend := &fakeBackend{}
	backend.token = func(context.Context, Grant) (secret.Text, error) {
		accepted = true
		return secret.Text{}, errors.New("no upstream in this test")
	}
	s := &Server{Backend: backend, sessions: map[*session]phase{}, waiting: map[netip.Addr]int{}, SignInAttempts: 3,
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no upstream") }}
	conn := &byteConn{in: bytes.NewReader(input), remote: remote}
	s.admit(t.Context(), name, conn, false)()
	if s.pending != 0 || len(s.sessions) != 0 || len(s.waiting) != 0 {
		t.Errorf("%d pending, %d sessions are left", s.pending, len(s.sessions))
	}
	if accepted && !loopback {
		t.Error("a password was taken in clear from another machine")
	}
	if accepted && !holdsPassword(input) {
		t.Error("accepted without the password")
	}
	if strings.Contains(conn.out.String(), " signed in") {
		t.Error("signed in without an upstream")
	}
	return conn.out.String(), accepted
}

func checkReplies(t *testing.T, out string, form *regexp.Regexp) {
	for line := range strings.Lines(out) {
		if text, ok := strings.CutSuffix(line, "\r\n"); !ok || !form.MatchString(text) {
			t.Errorf("not a reply: %q", line)
		}
	}
}

// FuzzPOP3FrontEnd sends arbitrary bytes before sign-in.
func FuzzPOP3FrontEnd(f *testing.F) {
	good := base64.StdEncoding.EncodeToString([]byte("\x00" + goodUser + "\x00" + goodPassword))
	for _, seed := range []string{
		"USER " + goodUser + "\r\nPASS " + goodPassword + "\r\n", "AUTH PLAIN " + good + "\r\n", "AUTH PLAIN\r\n" + good + "\r\nSTAT\r\n", "CAPA\r\nUTF8\r\nQUIT\r\n",
		"AUTH LOGIN\r\nYWxpY2VAY29udG9zby5jb20=\r\nYWJjZGVmZ2hpamtsbW5vcA==\r\n", "AUTH\r\nAUTH =\r\n", "STLS\r\nUSER x\r\n", "GET / HTTP/1.1\r\n\r\n", "PASS x\r\nUSER \r\n", "\x16\x03\x01", "",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	form := regexp.MustCompile(`^(\+OK( [ -~]*)?|-ERR [ -~]+|\+ [ -~]*|[A-Z0-9-]+( [A-Z0-9 ]+)?|\.)$`)
	f.Fuzz(func(t *testing.T, input []byte, loopback bool) {
		out, _ := frontEnd(t, POP3, input, loopback)
		checkReplies(t, out, form)
	})
}

// FuzzSMTPFrontEnd sends arbitrary bytes before sign-in.
func FuzzSMTPFrontEnd(f *testing.F) {
	good := base64.StdEncoding.EncodeToString([]byte("\x00" + goodUser + "\x00" + goodPassword))
	for _, seed := range []string{
		"EHLO x\r\nAUTH PLAIN " + good + "\r\n", "EHLO x\r\nAUTH PLAIN\r\n" + good + "\r\nMAIL FROM:<a@b>\r\n", "HELO x\r\nSTARTTLS\r\nRSET\r\n", "MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n",
		"AUTH LOGIN\r\nYWxpY2VAY29udG9zby5jb20=\r\nYWJjZGVmZ2hpamtsbW5vcA==\r\n", "AUTH LOGIN YQ==\r\n*\r\n", "BDAT 5 LAST\r\nhello", "POST / HTTP/1.1\r\n\r\n", "EHLO [x\r\nHELP\r\nQUIT\r\n", "\x16\x03\x01", "",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	form := regexp.MustCompile(`^[2-5][0-9][0-9][ -][ -~]*$`)
	f.Fuzz(func(t *testing.T, input []byte, loopback bool) {
		out, _ := frontEnd(t, SMTP, input, loopback)
		checkReplies(t, out, form)
	})
}

// FuzzUpstreams has an upstream say arbitrary bytes to a gateway that signs in
// there over POP3 or SMTP, or asks what it can do.
func FuzzUpstreams(f *testing.F) {
	for _, seed := range []string{
		"+OK x\r\n+ \r\n+OK\r\n+OK 1 2\r\n", "+OK x\r\n-ERR no\r\n", "+OK x\r\n+ \r\n+ \r\n-ERR [SYS/TEMP] x\r\n", "+OK\r\n+OK\r\nTOP\r\nUTF8 USER\r\n.\r\n",
		"220 x\r\n250-x\r\n250 AUTH XOAUTH2\r\n334 \r\n235 ok\r\n", "220 x\r\n250-x\r\n250-SIZE 5\r\n250 AUTH XOAUTH2\r\n334 \r\n334 e30=\r\n535 5.7.3 no\r\n",
		"220 x\r\n250-x\r\n250 AUTH XOAUTH2\r\n334 \r\n535 5.7.139 SmtpClientAuthentication is disabled\r\n", "220-x\r\n220 y\r\n250 z\r\n", "* OK x\r\n", "421 no\r\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		l := login{mailbox: goodUser, token: secret.New(goodToken)}
		for name, p := range map[Protocol]protocol{POP3: protocols[POP3], SMTP: protocols[SMTP]} {
			end := func() *upstream {
				conn := newRawConn(&byteConn{in: bytes.NewReader(input)})
				return &upstream{address: "upstream", raw: conn, conn: conn, in: bufio.NewReaderSize(conn, readBuffer), inTLS: true}
			}
			list, err := p.offers(t.Context(), end())
			for _, line := range list {
				if err == nil && (line == "" || strings.Trim(line, " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`{|}~") != "") {
					t.Errorf("%s offers %q", name, line)
				}
			}
			welcome, err := p.upstream(t.Context(), end(), l)
			if err == nil {
				if welcome != "signed in" {
					t.Errorf("welcome %q", welcome)
				}
				continue
			}
			r, ok := errors.AsType[*Refusal](err)
			if !ok {
				t.Fatalf("%v is no Refusal", err)
			}
			if line := lineText(r.public() + r.Reply); strings.ContainsAny(line, "\r\n") {
				t.Errorf("public text %q", line)
			}
			if text := err.Error(); strings.ContainsAny(text, "\r\n\x1b") || strings.Contains(text, goodToken) || len(text) > 2000 {
				t.Errorf("error %q", text)
			}
		}
	})
}

// mailSink is an independent SMTP server that notes what reaches it.
type mailSink struct {
	mu       sync.Mutex
	senders  []string
	messages int
}

func (m *mailSink) NewSession(*smtp.Conn) (smtp.Session, error) { return m, nil }
func (m *mailSink) Mail(from string, _ *smtp.MailOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.senders = append(m.senders, from)
	return nil
}
func (m *mailSink) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (m *mailSink) Reset()                               {}
func (m *mailSink) Logout() error                        { return nil }
func (m *mailSink) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.messages++
	}
	return err
}

// FuzzSMTPSession sends arbitrary bytes after sign-in, with an app password
// that may send two messages as one sender, to an independent server: whatever
// the bytes are, no other sender and no third message reach it.
func FuzzSMTPSession(f *testing.F) {
	const message = "MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nx\r\n.\r\n"
	for _, seed := range []string{
		"EHLO x\r\n" + message + message + message, "MAIL FROM:<mallory@example.com>\r\n", "mail from: <MALLORY@example.com> SIZE=5\r\nQUIT\r\n", message[:len(message)-5] + "\n.\nMAIL FROM:<m@x.example>\r\nDATA\r\n.\r\n",
		"MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nx\r\n.\nMAIL FROM:<m@x.example>\r\nRCPT TO:<y@x.example>\r\nDATA\r\nz\r\n.\r\n",
		"MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<b@c.example>\r\nBDAT 3\r\nMAIBDAT 25 LAST\r\nMAIL FROM:<m@x.example>\r\nNOOP\r\n", "DATA\r\nMAIL FROM:<m@x.example>\r\n.\r\n", "RSET\r\n\r\n\r\nMAIL FROM:<m@x.example>\r\n",
		"MAIL FROM:<alice@contoso.com>\r\nMAIL FROM:<alice@contoso.com>\r\nRSET\r\n" + message, "MAIL FROM:<alice@contoso.com>\rMAIL FROM:<m@x.example>\r\n", "NOOP\nMAIL FROM:<m@x.example>\n", "MAIL  FROM:<m@x.example>\r\n", "MAIL\tFROM:<m@x.example>\r\n",
		"MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nx\r\r\n.\r\nNOOP\r\nMAIL FROM:<m@x.example>\r\n.\r\nMAIL FROM:<alice@contoso.com>\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		sink := &mailSink{}
		server := smtp.NewServer(sink)
		server.EnableBINARYMIME, server.AllowInsecureAuth, server.MaxLineLength = true, true, 1<<20
		server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		ln := newPipeListener()
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(ln) }()
		raw, err := ln.dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		up := &upstream{address: "upstream", raw: newRawConn(raw), inTLS: true}
		up.conn, up.in = up.raw, bufio.NewReader(up.raw)
		_ = up.send("EHLO gateway\r\n")
		for line := ""; !strings.HasPrefix(line, "250 "); {
			if line, err = up.line(); err != nil {
				t.Fatal(err)
			}
		}
		out := relayed(t, SMTP, Grant{ID: "1", From: []string{"alice@contoso.com"}, MaxPerHour: 2}, input, up)
		_ = server.Close()
		<-served
		for _, from := range sink.senders {
			if !strings.EqualFold(from, "alice@contoso.com") {
				t.Errorf("%q reached the server as a sender", from)
			}
		}
		if sink.messages > 2 {
			t.Errorf("%d messages were sent", sink.messages)
		}
		checkReplies(t, out, regexp.MustCompile(`^[2-5][0-9][0-9][ -]`)) // the server repeats what it was sent
	})
}

// relayed runs a signed-in session whose client sends input and leaves, and
// returns what the client got. A server may see no end of a message where
// others do (go-smtp after a bare CR before CRLF), and then waits for more of
// it, as the client waits for the reply: the idle limit ends that.
func relayed(t *testing.T, name Protocol, grant Grant, input []byte, up *upstream) string {
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	server := &Server{Backend: &fakeBackend{}, IdleTimeout: time.Second, sessions: map[*session]phase{}, waiting: map[netip.Addr]int{}}
	conn := &byteConn{in: bytes.NewReader(input), remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
	s := &session{name: name, proto: protocols[name], server: server, client: newClient(conn), log: server.log(), background: ctx, end: end, grant: grant}
	s.relay = s.proto.relay(s, up, grant)
	s.client.follow(s.relay)
	defer s.watch()()
	_ = s.splice(ctx, up)
	return conn.out.String()
}

// FuzzPOP3Session sends arbitrary bytes after sign-in, with a read-only app
// password: nothing is deleted, and each refusal stands in its place.
func FuzzPOP3Session(f *testing.F) {
	for _, seed := range []string{"STAT\r\nDELE 1\r\nRETR 1\r\nDELE 2\r\nQUIT\r\n", "dele 1\r\n", "RETR 1\r\nRETR 2\r\nLIST\r\nUIDL\r\nLIST 1\r\nTOP 1 0\r\n", "DELE\t1\r\n", " DELE 1\r\n", "NOOP\rDELE 1\r\n", "NOOP\nDELE 1\n", "AUTH XOAUTH2\r\n", "\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	verb := regexp.MustCompile(`(?i)(^|[\r\n])\s*DELE`)
	f.Fuzz(func(t *testing.T, input []byte) {
		near, far := memPipe(&net.TCPAddr{}, &net.TCPAddr{})
		commands := 0
		served := make(chan struct{})
		go func() { // an upstream that answers every line by two
			defer close(served)
			defer far.Close()
			in := bufio.NewReader(far)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				commands++
				if verb.MatchString(line) {
					t.Errorf("%q reached the server", line)
				}
				word, args := pop3Command([]byte(line))
				reply := "+OK done\r\n"
				if several := map[string]bool{"RETR": true, "TOP": true, "CAPA": true, "LIST": true, "UIDL": true, "LANG": true}[word]; several && (strings.TrimSpace(args) == "" || word == "RETR" || word == "TOP" || word == "CAPA") {
					reply = "+OK lines\r\n-ERR text\r\n.\r\n"
				}
				if _, err := io.WriteString(far, reply); err != nil {
					return
				}
			}
		}()
		up := &upstream{address: "upstream", raw: newRawConn(near), inTLS: true}
		up.conn, up.in = up.raw, bufio.NewReader(up.raw)
		out := relayed(t, POP3, Grant{ID: "1", ReadOnly: true}, input, up)
		<-served
		checkReplies(t, out, regexp.MustCompile(`^(\+OK (done|lines)|-ERR [ -~]+|\.)$`))
	})
}
