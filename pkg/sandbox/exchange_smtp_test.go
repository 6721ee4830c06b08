package sandbox

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func dialSMTP(t *testing.T, s *Server) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.SMTP())
	r := newRawConn(t, conn, err)
	r.want("220 SANDBOX.outlook.office365.com Microsoft ESMTP MAIL Service ready at …")
	return r
}

// dialSecured is a connection after STARTTLS and EHLO.
func dialSecured(t *testing.T, s *Server) *rawConn {
	t.Helper()
	r := dialSMTP(t, s)
	r.say("EHLO client.example\r\n")
	r.reply()
	r.say("STARTTLS\r\n")
	r.want("220 2.0.0 SMTP server ready")
	secured := tls.Client(r.conn, s.clientTLS(t))
	r = &rawConn{t, secured, bufio.NewReader(secured)}
	r.say("EHLO client.example\r\n")
	r.reply()
	return r
}

// reply reads a reply to its last line.
func (r *rawConn) reply() (lines []string) {
	r.t.Helper()
	for {
		line := strings.TrimSuffix(r.line(), "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return lines
		}
	}
}

func smtpSignIn(t *testing.T, s *Server, user, token string) *rawConn {
	t.Helper()
	r := dialSecured(t, s)
	if got := r.auth("334 ", xoauth2(user, token)); got != "235 2.7.0 Authentication successful" {
		t.Fatal(got)
	}
	return r
}

const smtp535 = "535 5.7.3 Authentication unsuccessful [SANDBOX.outlook.office365.com]"

func TestSMTPPreAuth(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := dialSMTP(t, s)
	r.say("MAIL FROM:<alice@contoso.com>\r\nEHLO\r\nEHLO a b\r\nhelo client.example\r\nSTARTTLS\r\nnoop\r\nEHLO client.example\r\n")
	r.want("503 5.5.2 Send hello first", "501 5.5.4 Invalid domain name", "501 5.5.4 Invalid domain name",
		"250 SANDBOX.outlook.office365.com Hello [127.0.0.1]", "503 5.5.2 Send hello first", "250 2.0.0 OK",
		"250-SANDBOX.outlook.office365.com Hello [127.0.0.1]", "250-SIZE 157286400", "250-PIPELINING", "250-DSN",
		"250-ENHANCEDSTATUSCODES", "250-STARTTLS", "250-8BITMIME", "250-BINARYMIME", "250-CHUNKING", "250 SMTPUTF8")
	r.say("AUTH XOAUTH2\r\nMAIL FROM:<alice@contoso.com>\r\nSTARTTLS now\r\nSTARTTLS\r\n")
	r.want("504 5.7.4 Unrecognized authentication type …", "451 5.7.3 STARTTLS is required to send mail …", "501 5.5.4 Invalid arguments", "220 2.0.0 SMTP server ready")
	secured := tls.Client(r.conn, s.clientTLS(t))
	r = &rawConn{t, secured, bufio.NewReader(secured)}
	r.say("AUTH XOAUTH2\r\nSTARTTLS\r\nEHLO [127.0.0.1]\r\n")
	r.want("503 5.5.2 Send hello first", "503 5.5.2 Bad sequence of commands",
		"250-SANDBOX.outlook.office365.com Hello [127.0.0.1]", "250-SIZE 157286400", "250-PIPELINING", "250-DSN",
		"250-ENHANCEDSTATUSCODES", "250-AUTH LOGIN XOAUTH2", "250-8BITMIME", "250-BINARYMIME", "250-CHUNKING", "250 SMTPUTF8")
	r.say("MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\nAUTH PLAIN\r\nAUTH xoauth2\r\nVRFY bob\r\nRSET\r\n")
	r.want("530 5.7.57 Client not authenticated to send mail. …", "503 5.5.2 Need mail command", "503 5.5.2 Need mail command",
		"504 5.7.4 …", "504 5.7.4 …", "252 2.1.5 …", "250 2.0.0 Resetting")
	// A token's response is too long to come with the command.
	r.say("AUTH XOAUTH2 " + xoauth2("alice@contoso.com", token) + "\r\n")
	r.want("500 5.5.6 Authentication Exchange line is too long")
	if got := r.auth("334 ", xoauth2("ALICE@contoso.com", token)); got != "235 2.7.0 Authentication successful" {
		t.Fatal(got)
	}
	if list := s.Sessions(); len(list) != 1 || list[0].Mailbox != "alice@contoso.com" || list[0].Protocol != "smtp" ||
		list[0].Remote != r.conn.LocalAddr().String() || !list[0].Expires.After(list[0].Since) {
		t.Errorf("sessions: %+v", list)
	}
	r.say("AUTH XOAUTH2\r\nQUIT\r\n")
	r.want("503 5.5.2 Bad sequence of commands", "221 2.0.0 Service closing transmission channel")
	r.wantEOF()
	s.Close()
	if list := s.Sessions(); len(list) != 0 {
		t.Errorf("sessions at the end: %+v", list)
	}
}

// What comes with STARTTLS, before the handshake, must not count as protected
// (CVE-2011-0411).
func TestSMTPInjection(t *testing.T) {
	s := start(t, &Server{})
	r := dialSMTP(t, s)
	r.say("EHLO client.example\r\n")
	r.reply()
	r.say("STARTTLS\r\nRSET\r\n")
	r.want("554 5.5.1 Commands came after STARTTLS")
	r.wantEOF()
}

func TestSMTPRefusesTokens(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "locked@contoso.com", NoAccess: true})})
	token := mailToken(t, s)
	for response, want := range map[string]string{
		xoauth2("alice@contoso.com", "x"):               smtp535,
		xoauth2("carol@contoso.com", token):             smtp535,
		xoauth2("locked@contoso.com", token):            smtp535,
		xoauth2("alice@contoso.com", graphBearer(t, s)): smtp535,
		"":  smtp535,
		"*": "501 5.7.0 Authentication canceled",
		"=": "501 5.5.2 Cannot decode the response",
	} {
		if got := dialSecured(t, s).auth("334 ", response); got != want {
			t.Errorf("%.20q: %q", response, got)
		}
	}
	r := dialSecured(t, s)
	r.say("AUTH XOAUTH2 " + base64.StdEncoding.EncodeToString([]byte("short")) + "\r\n")
	r.want(smtp535)
	r.say("AUTH LOGIN\r\n")
	r.want("334 VXNlcm5hbWU6")
	r.say("YWxpY2VAY29udG9zby5jb20=\r\n")
	r.want("334 UGFzc3dvcmQ6")
	r.say("c2VjcmV0\r\n")
	r.want(smtp535)
	r.say("AUTH LOGIN YWxpY2VAY29udG9zby5jb20=\r\n")
	r.want("334 UGFzc3dvcmQ6")
	r.say("*\r\n")
	r.want("501 5.7.0 Authentication canceled", "421 4.7.0 Too many errors on this connection, closing transmission channel")
	r.wantEOF()

	s.SetFaults(func(f *Faults) { f.SMTPAuthDisabled = true })
	r = dialSecured(t, s)
	if got := r.auth("334 ", xoauth2("alice@contoso.com", token)); !strings.HasPrefix(got, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.") {
		t.Errorf("disabled: %q", got)
	}
	if got := r.auth("334 ", xoauth2("alice@contoso.com", "x")); got != smtp535 {
		t.Errorf("disabled, and a bad token: %q", got)
	}
	if n := len(s.Sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
	s.SetFaults(func(f *Faults) { *f = Faults{} })
	setRoles(t, s, s.dir.mail, "IMAP.AccessAsApp", "POP.AccessAsApp")
	if got := dialSecured(t, s).auth("334 ", xoauth2("alice@contoso.com", mailToken(t, s))); got != smtp535 {
		t.Errorf("without SMTP.SendAsApp: %q", got)
	}
}

// bareClient sends its response only when it is asked for.
type bareClient struct{ oauthClient }

func (c *bareClient) Start() (string, []byte, error) { return "XOAUTH2", nil, nil }
func (c *bareClient) Next([]byte) ([]byte, error) {
	_, response, err := c.oauthClient.Start()
	return response, err
}

var _ sasl.Client = (*bareClient)(nil)

// A message on its way, sent by a client that somebody else wrote.
func TestSMTPClient(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	c, err := smtp.DialStartTLS(s.SMTP(), s.clientTLS(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if size, ok := c.MaxMessageSize(); !ok || size != 157286400 || c.SupportsAuth("PLAIN") || !c.SupportsAuth("XOAUTH2") {
		t.Errorf("size %d, %v", size, ok)
	}
	if err := c.Auth(&oauthClient{"alice@contoso.com", token}); err == nil {
		t.Error("an initial response of a whole token was accepted")
	}
	if err := c.Auth(&bareClient{oauthClient{"alice@contoso.com", token}}); err != nil {
		t.Fatal(err)
	}
	large := []byte("From: Alice <alice@contoso.com>\r\nSubject: large\r\n\r\n")
	for line := 0; len(large) < 3<<20; line++ {
		large = fmt.Appendf(large, ".%07d %0*x\r\n", line, line%900, line)
	}
	messages := [][]byte{
		[]byte("From: alice@contoso.com\r\nSubject: dots\r\n\r\n.\r\n..\r\n...x\r\n\r\n"),
		[]byte("From: =?utf-8?q?A?= <ALICE@contoso.com>\r\nTo: \xc5\x81\xc3\xb3d\xc5\xba\r\n\r\n8-bit: \xff\xfe\x00\x80\r\n"),
		[]byte("Subject: a line of 1000 octets\r\n\r\n" + strings.Repeat("x", 998) + "\r\n"),
		large,
	}
	to := []string{"bob@contoso.com", "zoe@fabrikam.example", "BOB@contoso.com", "alice@contoso.com"}
	for _, m := range messages {
		if err := c.SendMail("alice@contoso.com", to, bytes.NewReader(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Mail("alice@contoso.com", &smtp.MailOptions{
		Size: 100, UTF8: true, Body: smtp.Body8BitMIME, Return: smtp.DSNReturnHeaders, EnvelopeID: "a+b=c",
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("zoë@fabrikam.example", &smtp.RcptOptions{
		Notify: []smtp.DSNNotify{smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure}, OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "z+e@fabrikam.example",
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}

	sent := s.Sent()
	if len(sent) != len(messages) {
		t.Fatalf("%d messages", len(sent))
	}
	for i, m := range sent {
		if m.Mailbox != "alice@contoso.com" || m.From != "alice@contoso.com" || !slices.Equal(m.To, to) || m.Received.IsZero() || !bytes.Equal(m.Data, messages[i]) {
			t.Errorf("message %d: %+.200v", i, m)
		}
	}
	sent[0].Data[0], sent[0].To[0] = 'x', "x"
	if again := s.Sent()[0]; again.Data[0] != 'F' || again.To[0] != to[0] {
		t.Error("Sent can be changed from outside")
	}
	for _, at := range []struct {
		user, folder string
		before       int
	}{{"alice@contoso.com", "Sent Items", 0}, {"alice@contoso.com", "INBOX", 4}, {"bob@contoso.com", "INBOX", 4}} {
		c := imapSignIn(t, s, at.user, token, nil)
		if data, err := c.Select(at.folder, nil).Wait(); err != nil || int(data.NumMessages) != at.before+len(messages) {
			t.Fatalf("%+v: %+v, %v", at, data, err)
		}
		all := fetchAll(t, c)
		for i, want := range messages {
			if !slices.ContainsFunc(slices.Collect(maps.Values(all)), func(got []byte) bool { return bytes.Equal(got, want) }) {
				t.Errorf("%+v: message %d is not there as it was sent", at, i)
			}
		}
	}
}

// send sends one message by hand and gives the last reply.
func (r *rawConn) send(from, data string) string {
	r.t.Helper()
	r.say("MAIL FROM:<" + from + ">\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\n")
	r.want("250 2.1.0 Sender OK", "250 2.1.5 Recipient OK", "354 Start mail input; end with <CRLF>.<CRLF>")
	r.say(data + "\r\n.\r\n")
	return strings.TrimSuffix(r.line(), "\r\n")
}

func TestSMTPLongLines(t *testing.T) {
	s := start(t, &Server{})
	r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	r.say("NOOP " + strings.Repeat("x", 505) + "\r\nNOOP " + strings.Repeat("x", 506) + "\r\nMAIL FROM:<" + strings.Repeat("x", 3000) + ">\r\n")
	r.want("250 2.0.0 OK", "500 5.5.2 Line too long", "500 5.5.2 Line too long")
	go io.WriteString(r.conn, strings.Repeat("x", 2*maxLine)) // the end may come before all is sent
	r.want("500 5.5.2 Line too long")
	r = dialSecured(t, s)
	r.say("AUTH XOAUTH2\r\n")
	r.want("334 ")
	go io.WriteString(r.conn, strings.Repeat("x", 2*maxLine))
	r.want("500 5.5.6 Authentication Exchange line is too long")
}

func TestSMTPExpiry(t *testing.T) {
	const expired = "421 4.7.0 Session invalidated - AccessTokenExpired"
	s := start(t, &Server{})
	token := mailToken(t, s)
	idle, upload := smtpSignIn(t, s, "alice@contoso.com", token), smtpSignIn(t, s, "bob@contoso.com", token)
	upload.say("MAIL FROM:<bob@contoso.com>\r\nRCPT TO:<alice@contoso.com>\r\nDATA\r\n")
	upload.want("250 …", "250 …", "354 …")
	upload.say("half of it")
	s.FastForward(time.Hour)
	for _, r := range []*rawConn{idle, upload} {
		r.want(expired)
		r.wantEOF()
	}
	if got := dialSecured(t, s).auth("334 ", xoauth2("alice@contoso.com", token)); got != smtp535 {
		t.Errorf("an expired token: %q", got)
	}
	s.SetFaults(func(f *Faults) { f.SessionLife = 50 * time.Millisecond })
	smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s)).want(expired)
	if n := len(s.Sent()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestSMTPFaults(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "carol@contoso.com", NotConnected: true})})
	token := mailToken(t, s)
	const notConnected = "430 4.2.0 STOREDRV; mailbox logon failure [SANDBOX.outlook.office365.com]"
	if got := smtpSignIn(t, s, "carol@contoso.com", token).send("carol@contoso.com", "a: b\r\n\r\n"); got != notConnected {
		t.Errorf("not connected: %q", got)
	}
	r := smtpSignIn(t, s, "alice@contoso.com", token)
	s.SetFaults(func(f *Faults) { f.ExchangeNotConnected = true })
	if got := r.send("alice@contoso.com", "a: b\r\n\r\n"); got != notConnected {
		t.Errorf("not connected: %q", got)
	}
	s.SetFaults(func(f *Faults) { *f = Faults{SMTPConcurrent: true} })
	if got := r.send("alice@contoso.com", "a: b\r\n\r\n"); !strings.HasPrefix(got, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending") {
		t.Errorf("concurrent: %q", got)
	}
	s.SetFaults(func(f *Faults) { *f = Faults{ExchangeThrottled: true} })
	r.say("MAIL FROM:<alice@contoso.com>\r\n")
	r.want("451 4.7.500 Server busy. Please try again later. …")
	s.SetFaults(func(f *Faults) { *f = Faults{} })
	if got := r.send("alice@contoso.com", "a: b\r\n\r\n"); !strings.HasPrefix(got, "250 2.0.0 OK") {
		t.Errorf("%q", got)
	}
	if sent := s.Sent(); len(sent) != 1 {
		t.Errorf("%d messages", len(sent))
	}
	s.SetFaults(func(f *Faults) { f.ExchangeDown = true })
	if rest, _ := io.ReadAll(r.br); len(rest) > 0 {
		t.Errorf("down: %q", rest)
	}

	// Silence, in turn: after DATA, at AUTH, from the start.
	s.SetFaults(func(f *Faults) { *f = Faults{SMTPStallData: true} })
	data := smtpSignIn(t, s, "alice@contoso.com", token)
	data.say("MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nBDAT 8 LAST\r\na: b\r\n\r\n")
	data.want("250 …", "250 …")
	s.SetFaults(func(f *Faults) { f.ExchangeStallAuth = true })
	auth := dialSecured(t, s)
	auth.say("AUTH XOAUTH2\r\n")
	s.SetFaults(func(f *Faults) { f.ExchangeStall = true })
	silent, err := net.Dial("tcp", s.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.Close() // ends all of them, and none of them has been told anything
	for _, c := range []io.Reader{data.br, auth.br, silent} {
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("stalled: %q", rest)
		}
	}
	if sent := s.Sent(); len(sent) != 1 {
		t.Errorf("%d messages", len(sent))
	}
}
