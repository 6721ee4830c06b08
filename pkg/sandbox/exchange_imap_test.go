package sandbox

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rawConn is a connection to Exchange, by hand.
type rawConn struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

// newRawConn ends conn with the test. A hang is a failure.
func newRawConn(t *testing.T, conn net.Conn, err error) *rawConn {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &rawConn{t, conn, bufio.NewReader(conn)}
}

func dialIMAP(t *testing.T, s *Server) *rawConn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.IMAP(), s.clientTLS(t))
	r := newRawConn(t, conn, err)
	r.want("* OK The Microsoft Exchange IMAP4 service is ready. [UwBBAE4ARABCAE8AWAA=]")
	return r
}

// auth signs in by XOAUTH2 with the response in a line of its own, after
// prompt, and gives the answer.
func (r *rawConn) auth(prompt, response string) string {
	r.t.Helper()
	r.say("AUTH XOAUTH2\r\n")
	r.want(prompt)
	r.say(response + "\r\n")
	return strings.TrimSuffix(r.line(), "\r\n")
}

func (r *rawConn) say(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.conn, text); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawConn) line() string {
	r.t.Helper()
	text, err := r.br.ReadString('\n')
	if err != nil {
		r.t.Fatalf("%q: %v", text, err)
	}
	return text
}

// want reads lines and compares them; one that ends in … is a prefix.
func (r *rawConn) want(lines ...string) {
	r.t.Helper()
	for _, want := range lines {
		got := r.line()
		if prefix, ok := strings.CutSuffix(want, "…"); ok && strings.HasPrefix(got, prefix) {
			continue
		}
		if got != want+"\r\n" {
			r.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (r *rawConn) wantEOF() {
	r.t.Helper()
	if rest, err := io.ReadAll(r.br); err != nil || len(rest) > 0 {
		r.t.Fatalf("got %q, %v, want the end", rest, err)
	}
}

func xoauth2(user, token string) string {
	return base64.StdEncoding.EncodeToString([]byte("user=" + user + "\x01auth=Bearer " + token + "\x01\x01"))
}

// mailToken is an app-only token for Exchange.
func mailToken(t *testing.T, s *Server) string {
	t.Helper()
	_, secret := newPassword(t, s, graphBearer(t, s), "laptop")
	_, id := s.MailApp()
	return appToken(t, s, id, secret, exchangeResource)
}

// signedIn is a raw connection after sign-in.
func signedIn(t *testing.T, s *Server, user, token string) *rawConn {
	t.Helper()
	r := dialIMAP(t, s)
	r.say("a AUTHENTICATE XOAUTH2 " + xoauth2(user, token) + "\r\n")
	r.want("a OK AUTHENTICATE completed.")
	return r
}

func TestIMAPPreAuth(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := dialIMAP(t, s)
	r.say("a CAPABILITY\r\nb noop\r\nc ID NIL\r\n")
	r.want("* CAPABILITY IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+",
		"a OK CAPABILITY completed.", "b OK NOOP completed.", "* ID …", "c OK ID completed.")
	r.say("d LOGIN {5}\r\n")
	r.want("+ Ready for additional command text.")
	r.say("alice {3+}\r\npwd\r\n")
	r.want("d NO LOGIN failed.")
	r.say("e SELECT INBOX\r\n")
	r.want("e BAD Command Error. 12")
	r.say("f AUTHENTICATE PLAIN\r\n")
	r.want("f NO AUTHENTICATE failed.")
	r.say("g AUTHENTICATE XOAUTH2\r\n")
	r.want("+ ")
	r.say(xoauth2("ALICE@contoso.com", token) + "\r\n")
	r.want("g OK AUTHENTICATE completed.")
	if list := s.Sessions(); len(list) != 1 || list[0].Mailbox != "alice@contoso.com" || list[0].Protocol != "imap" ||
		list[0].ClientID != s.dir.mail.clientID || list[0].Remote != r.conn.LocalAddr().String() || !list[0].Expires.After(list[0].Since) {
		t.Errorf("sessions: %+v", list)
	}
	r.say("h CAPABILITY\r\ni ENABLE UTF8=ACCEPT\r\nj LOGIN a b\r\nk LOGOUT\r\n")
	r.want("* CAPABILITY IMAP4 IMAP4rev1 AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+",
		"h OK CAPABILITY completed.", "i BAD Command Error. 12", "j BAD Command received in Invalid state.",
		"* BYE Microsoft Exchange Server IMAP4 server signing off.", "k OK LOGOUT completed.")
	r.wantEOF()
	s.Close()
	if list := s.Sessions(); len(list) != 0 {
		t.Errorf("sessions at the end: %+v", list)
	}
}

func TestIMAPRefusesTokens(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	_, secret := newPassword(t, s, graphBearer(t, s), "other")
	delegatedWrong := appToken(t, s, s.dir.mail.clientID, secret, exchangeDelegated)
	raw := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for name, response := range map[string]string{
		"unknown token":      xoauth2("alice@contoso.com", "x"),
		"unknown mailbox":    xoauth2("carol@contoso.com", token),
		"Graph's token":      xoauth2("alice@contoso.com", graphBearer(t, s)),
		"app, other's":       xoauth2("alice@contoso.com", delegatedWrong),
		"no user":            xoauth2("", token),
		"no token":           xoauth2("alice@contoso.com", ""),
		"one ^A":             raw("user=alice@contoso.com\x01auth=Bearer " + token + "\x01"),
		"more":               raw("user=alice@contoso.com\x01auth=Bearer " + token + "\x01\x01x"),
		"field":              raw("user=alice@contoso.com\x01host=x\x01auth=Bearer " + token + "\x01\x01"),
		"OAUTHBEARER's form": raw("n,a=alice@contoso.com,\x01auth=Bearer " + token + "\x01\x01"),
		"empty":              "=",
	} {
		r := dialIMAP(t, s)
		r.say("a AUTHENTICATE XOAUTH2 " + response + "\r\n")
		if got := r.line(); got != "a NO AUTHENTICATE failed.\r\n" && !(name == "empty" && got == "a BAD Command Error. 12\r\n") {
			t.Errorf("%s: %q", name, got)
		}
	}
	r := dialIMAP(t, s)
	r.say("a AUTHENTICATE xoauth2 " + xoauth2("alice@contoso.com", token) + "\r\n")
	r.want("a NO AUTHENTICATE failed.")
	r.say("b AUTHENTICATE XOAUTH2\r\n")
	r.want("+ ")
	r.say("*\r\n")
	r.want("b BAD AUTHENTICATE canceled.")
	r.say("c AUTHENTICATE XOAUTH2 %%%\r\n")
	r.want("c BAD Command Error. 12", "* BYE Connection is closed. 13")
	r.wantEOF()

	s.FastForward(time.Hour)
	r = dialIMAP(t, s)
	r.say("a AUTHENTICATE XOAUTH2 " + xoauth2("alice@contoso.com", token) + "\r\n")
	r.want("a NO AUTHENTICATE failed.")
}

// A person's token opens that person's mailbox.
func TestIMAPDelegated(t *testing.T) {
	s := start(t, &Server{AutoSignIn: true})
	q := authorizeQuery(s)
	q.Set("client_id", s.dir.mail.clientID)
	q.Set("scope", exchangeDelegated+"/IMAP.AccessAsUser.All offline_access")
	form := codeForm(s, redirected(t, authorize(t, s, q)).Get("code"))
	form.Set("client_id", s.dir.mail.clientID)
	answer := postForm(t, s.tokenURL(), form)
	token, _ := answer.body["access_token"].(string)
	signedIn(t, s, "alice@contoso.com", token)
	r := dialIMAP(t, s)
	r.say("a AUTHENTICATE XOAUTH2 " + xoauth2("bob@contoso.com", token) + "\r\n")
	r.want("a NO AUTHENTICATE failed.")

	smtp := postForm(t, s.tokenURL(), url.Values{
		"grant_type": {"refresh_token"}, "client_id": {s.dir.mail.clientID},
		"refresh_token": {answer.body["refresh_token"].(string)}, "scope": {exchangeDelegated + "/SMTP.Send"},
	})
	r = dialIMAP(t, s)
	r.say("a AUTHENTICATE XOAUTH2 " + xoauth2("alice@contoso.com", smtp.body["access_token"].(string)) + "\r\n")
	r.want("a NO AUTHENTICATE failed.")
}

func TestIMAPRelay(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := signedIn(t, s, "alice@contoso.com", token)
	// Everything at once: answers come in order and are never mixed.
	r.say("b EXAMINE INBOX\r\nc UID FETCH 1 (RFC822.SIZE)\r\nd CAPABILITY\r\ne STATUS \"Sent Items\" (MESSAGES)\r\nnonsense\r\nf XYZZY\r\n")
	r.want("* 4 EXISTS", "* 0 RECENT", "* OK [UNSEEN 1] …", "* OK [UIDVALIDITY …", "* OK [UIDNEXT 5] …", "* FLAGS …", "* OK [PERMANENTFLAGS …",
		"b OK [READ-ONLY] …", "* 1 FETCH …", "c OK …", "* CAPABILITY …", "d OK …", `* STATUS "Sent Items" (MESSAGES 0)`, "e OK …",
		"* BAD Command Error. 12", "f BAD …")
	r.say("g STORE 1 +FLAGS (\\Deleted)\r\nh CLOSE\r\ni SELECT {5+}\r\nINBOX\r\n")
	r.want("g NO …", "h OK …", "* 4 EXISTS")
	for !strings.HasPrefix(r.line(), "i OK [READ-WRITE]") {
	}
	// A literal that the library refuses is not sent by the client.
	r.say("j APPEND INBOX {999999999}\r\n")
	r.want("j NO [TOOBIG] …")
	r.say("k NOSUCH {5}\r\n")
	r.want("k BAD …")
	r.say("l APPEND Drafts (\\Seen) {14}\r\n")
	r.want("+ …")
	r.say("a: b\r\n\r\nbody\r\n\r\nm SEARCH HEADER {7}\r\n")
	r.want("l OK [APPENDUID …", "+ …")
	r.say("Subject {5}\r\n")
	r.want("+ …")
	r.say("Lunch\r\n")
	r.want("* SEARCH 1", "m OK …")
	r.say("l2 APPEND {6+}\r\nDrafts (\\Seen) {" + strconv.Itoa(14+maxLiteral) + "+}\r\na: b\r\n\r\nbody\r\n" + strings.Repeat("x", maxLiteral) + "\r\n")
	r.want("l2 OK [APPENDUID …")
	r.say("n APPEND INBOX {6+}\r\nnobody\r\n")
	r.want("n NO APPEND failed: …")
	r.say("n2 XYZZY {3+}\r\nabc {2+}\r\nde\r\nn3 NO\rOP\r\nn4 LIST \"\" \"\\\"\r\nn5 NOOP\n")
	r.want("n2 BAD …", "n3 BAD …", "n4 BAD …", "n5 OK …")
	r.say("o DELETE INBOX\r\np IDLE\r\n")
	r.want("o NO …", "+ …")
	if err := s.Deliver("alice@contoso.com", []byte("Subject: new\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	r.want("* 5 EXISTS")
	r.say("done\r\n")
	r.want("p OK …")
	r.say("q NOOP\r\nr LOGIN {999999+}\r\n")
	r.want("q OK …", "* BYE Connection is closed. 13")
	r.wantEOF()
	r = signedIn(t, s, "alice@contoso.com", token)
	r.say("a APPEND INBOX {8+}\r\na: b\r\n\r\n more\r\n")
	r.want("* BYE Connection is closed. 13")
	if s.Deliver("nobody@contoso.com", nil) == nil || s.Deliver("alice@contoso.com", []byte("no header")) == nil {
		t.Error("delivered")
	}
}

func TestIMAPLongLines(t *testing.T) {
	s := start(t, &Server{})
	r := dialIMAP(t, s)
	go io.WriteString(r.conn, "a AUTHENTICATE XOAUTH2 "+strings.Repeat("x", 2*maxLine)) // the end may come before all is sent
	r.want("* BYE Connection is closed. 13")
	r = dialIMAP(t, s)
	r.say("a LOGIN {9223372036854775807}\r\n")
	r.want("* BYE Connection is closed. 13")
	r = dialIMAP(t, s)
	r.say(strings.Repeat("GET / HTTP/1.1\r\n", maxIMAPErrors))
	for range maxIMAPErrors {
		r.want("GET BAD Command Error. 12")
	}
	r.want("* BYE Connection is closed. 13")
}

func TestIMAPNotConnected(t *testing.T) {
	s := start(t, &Server{Mailboxes: []Mailbox{{Address: "alice@contoso.com", NotConnected: true}, {Address: "bob@contoso.com"}}})
	token := mailToken(t, s)
	r := signedIn(t, s, "alice@contoso.com", token)
	r.say("b CAPABILITY\r\nc SELECT INBOX\r\nd LOGIN {1+}\r\nx y\r\n")
	for _, tag := range []string{"b", "c", "d"} {
		r.want(tag + " BAD User is authenticated but not connected.")
	}
	r.say("e LOGOUT\r\n")
	r.want("* BYE …", "e OK LOGOUT completed.")

	r = signedIn(t, s, "bob@contoso.com", token)
	s.SetFaults(func(f *Faults) { f.ExchangeThrottled = true })
	r.say("b SELECT INBOX\r\n")
	r.want("b BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds")
}

func TestIMAPExpiry(t *testing.T) {
	const bye = "* BYE Session invalidated - AccessTokenExpired"
	t.Run("clock", func(t *testing.T) {
		s := start(t, &Server{})
		token := mailToken(t, s)
		idle, quiet, upload := signedIn(t, s, "alice@contoso.com", token), signedIn(t, s, "alice@contoso.com", token), signedIn(t, s, "bob@contoso.com", token)
		idle.say("b IDLE\r\n")
		idle.want("+ …")
		upload.say("b APPEND INBOX {1000}\r\n")
		upload.want("+ …")
		upload.say("half of it")
		s.FastForward(59 * time.Minute)
		quiet.say("b NOOP\r\n")
		quiet.want("b OK …")
		s.FastForward(time.Minute)
		for _, r := range []*rawConn{idle, quiet, upload} {
			r.want(bye)
			r.wantEOF()
		}
		s.Close()
		if len(s.Sessions()) != 0 {
			t.Errorf("%+v", s.Sessions())
		}
	})
	t.Run("session life", func(t *testing.T) {
		s := start(t, &Server{Faults: Faults{SessionLife: 50 * time.Millisecond}})
		r := signedIn(t, s, "alice@contoso.com", mailToken(t, s))
		r.want(bye)
		r.wantEOF()
	})
}

func TestExchangeFaults(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := signedIn(t, s, "alice@contoso.com", token)
	s.SetFaults(func(f *Faults) { f.ExchangeDown = true })
	if rest, _ := io.ReadAll(r.br); len(rest) > 0 {
		t.Errorf("down: %q", rest)
	}
	if c, err := tls.Dial("tcp", s.IMAP(), s.clientTLS(t)); err == nil {
		c.Close()
		t.Error("down: a handshake")
	}
	s.SetFaults(func(f *Faults) { *f = Faults{ExchangeStallAuth: true} })
	r = dialIMAP(t, s)
	r.say("a AUTHENTICATE XOAUTH2 " + xoauth2("alice@contoso.com", token) + "\r\n")
	s.SetFaults(func(f *Faults) { f.ExchangeStall = true })
	silent, err := net.Dial("tcp", s.IMAP())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.Close() // ends all of them, and none of them has been told anything
	for _, c := range []io.Reader{r.br, silent} {
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("stalled: %q", rest)
		}
	}
}

func TestLiteral(t *testing.T) {
	for line, want := range map[string][]any{
		"a {12}\r\n": {int64(12), true, true}, "a {0+}\n": {int64(0), false, true}, "a ~{3}": {int64(3), true, true},
		"a {-1}\r\n": {int64(0), false, false}, "a {+}": {int64(0), false, false}, "{}": {int64(0), false, false},
		"a {1} ": {int64(0), false, false}, `a "{1}"`: {int64(0), false, false}, "a 1}": {int64(0), false, false},
		"a {99999999999999999999}": {int64(0), false, false},
	} {
		size, wait, ok := literal([]byte(line))
		if !ok {
			size, wait = 0, false
		}
		if got := []any{size, wait, ok}; !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
