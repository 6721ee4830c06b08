package sandbox

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

func dialPOP3(t *testing.T, s *Server) *rawConn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.POP3(), s.clientTLS(t))
	r := newRawConn(t, conn, err)
	r.want("+OK The Microsoft Exchange POP3 service is ready. [UwBBAE4ARABCAE8AWAA=]")
	return r
}

func popSignIn(t *testing.T, s *Server, user, token string) *rawConn {
	t.Helper()
	r := dialPOP3(t, s)
	if got := r.auth("+ ", xoauth2(user, token)); got != "+OK User successfully authenticated." {
		t.Fatal(got)
	}
	return r
}

// multi reads a multi-line response and takes its dots off: by RFC 1939
// section 3, with nothing of the server's code.
func (r *rawConn) multi() []byte {
	r.t.Helper()
	r.want("+OK")
	var text []byte
	for {
		line := r.line()
		for !strings.HasSuffix(line, "\r\n") {
			line += r.line()
		}
		if line == ".\r\n" {
			return text
		}
		text = append(text, strings.TrimPrefix(line, ".")...)
	}
}

func TestPOP3PreAuth(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := dialPOP3(t, s)
	r.say("CAPA\r\nutf8\r\nUSER alice@contoso.com\r\nPASS secret\r\nSTAT\r\nAUTH\r\nSTLS\r\nNOSUCH\r\n")
	r.want("+OK", "TOP", "UIDL", "SASL XOAUTH2", "UTF8", ".", "+OK",
		"-ERR Logon failure: unknown user name or bad password.", "-ERR Logon failure: unknown user name or bad password.",
		"-ERR Command is not valid in this state.", "-ERR Protocol error. 14", "-ERR Protocol error. 14", "-ERR Protocol error. 14")
	r.say("AUTH XOAUTH2 =\r\n")
	r.want("-ERR Protocol error. 14")
	r.say("AUTH XOAUTH2 " + xoauth2("alice@contoso.com", token) + "\r\n")
	r.want("-ERR Protocol error. 14")
	if got := r.auth("+ ", xoauth2("ALICE@contoso.com", token)); got != "+OK User successfully authenticated." {
		t.Fatal(got)
	}
	if list := s.Sessions(); len(list) != 1 || list[0].Mailbox != "alice@contoso.com" || list[0].Protocol != "pop3" ||
		list[0].ClientID != s.dir.mail.clientID || list[0].Remote != r.conn.LocalAddr().String() || !list[0].Expires.After(list[0].Since) {
		t.Errorf("sessions: %+v", list)
	}
	r.say("CAPA\r\nAUTH XOAUTH2\r\nUTF8\r\nUSER x\r\nLAST\r\nNOOP\r\nQUIT\r\n")
	r.want("+OK", "TOP", "UIDL", "SASL XOAUTH2", "UTF8", ".", "-ERR Command is not valid in this state.", "-ERR Command is not valid in this state.",
		"-ERR Command is not valid in this state.", "-ERR Protocol error. 14", "+OK", "+OK Microsoft Exchange Server POP3 server signing off.")
	r.wantEOF()
	r = dialPOP3(t, s)
	r.say("QUIT\r\n")
	r.want("+OK Microsoft Exchange Server POP3 server signing off.")
	r.wantEOF()
	s.Close()
	if list := s.Sessions(); len(list) != 0 {
		t.Errorf("sessions at the end: %+v", list)
	}
}

func TestPOP3RefusesTokens(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "locked@contoso.com", NoAccess: true})})
	token := mailToken(t, s)
	const refused = "-ERR Authentication failure: unknown user name or bad password."
	for response, want := range map[string]string{
		xoauth2("alice@contoso.com", "x"):               refused,
		xoauth2("carol@contoso.com", token):             refused,
		xoauth2("locked@contoso.com", token):            refused,
		xoauth2("alice@contoso.com", graphBearer(t, s)): refused,
		"":  refused,
		"*": "-ERR Authentication canceled.",
		"=": "-ERR Protocol error. 14",
		xoauth2("alice@contoso.com", token) + " ":        "-ERR Protocol error. 14",
		"\x01" + xoauth2("alice@contoso.com", token)[1:]: "-ERR Protocol error. 14",
	} {
		if got := dialPOP3(t, s).auth("+ ", response); got != want {
			t.Errorf("%.20q: %q", response, got)
		}
	}
	r := dialPOP3(t, s)
	r.say("AUTH xoauth2\r\nAUTH PLAIN\r\n")
	r.want(refused, refused)
	if got := r.auth("+ ", xoauth2("alice@contoso.com", "x")); got != refused {
		t.Errorf("%q", got)
	}
	r.want("-ERR Protocol error. Connection is closed. 10")
	r.wantEOF()

	setRoles(t, s, s.dir.mail, "IMAP.AccessAsApp", "SMTP.SendAsApp")
	if got := dialPOP3(t, s).auth("+ ", xoauth2("alice@contoso.com", mailToken(t, s))); got != refused {
		t.Errorf("without POP.AccessAsApp: %q", got)
	}
}

func TestPOP3Maildrop(t *testing.T) {
	boxes := DefaultMailboxes()
	large := []byte("Subject: large\r\n\r\n")
	for len(large) < 3<<20 {
		large = append(large, ".........................................................\r\n"...)
	}
	boxes[0].Messages = append(boxes[0].Messages, large, []byte("Subject: empty\r\n\r\n"), []byte("\r\n.\r\n..\r\n\r\n.x\r\n"),
		[]byte("Subject: 8-bit\r\n\r\nGr\xfc\xdfe \xff\n.\r lone ends\r\n"+strings.Repeat("long ", 30000)+"\r\n"))
	s := start(t, &Server{Mailboxes: boxes})
	token := mailToken(t, s)
	r := popSignIn(t, s, "alice@contoso.com", token)
	total := 0
	var list strings.Builder
	for i, m := range boxes[0].Messages {
		total += len(m)
		fmt.Fprintf(&list, "%d %d\r\n", i+1, len(m))
	}
	r.say("STAT\r\nLIST\r\n")
	r.want(fmt.Sprintf("+OK 8 %d", total))
	if got := r.multi(); string(got) != list.String() {
		t.Errorf("LIST: %q", got)
	}
	for i, want := range boxes[0].Messages {
		r.say(fmt.Sprintf("RETR %d\r\n", i+1))
		if got := r.multi(); !bytes.Equal(got, want) {
			t.Errorf("message %d is not what was put in", i+1)
		}
	}
	for command, want := range map[string]string{
		"TOP 7 0": "\r\n", "TOP 7 1": "\r\n.\r\n", "top 7 3": "\r\n.\r\n..\r\n\r\n", "TOP 7 99": "\r\n.\r\n..\r\n\r\n.x\r\n",
		"TOP 6 0": "Subject: empty\r\n\r\n", "TOP 5 1": string(large[:18+59]),
	} {
		r.say(command + "\r\n")
		if got := r.multi(); string(got) != want {
			t.Errorf("%s: %q", command, got)
		}
	}
	r.say("UIDL\r\n")
	ids := bytes.Fields(r.multi())
	seen := map[string]bool{}
	for i := 1; i < len(ids); i += 2 {
		seen[string(ids[i])] = true
	}
	if len(ids) != 16 || len(seen) != 8 {
		t.Errorf("UIDL: %q", ids)
	}

	// What is deleted is away at once for this session, for others at QUIT.
	r.say("DELE 2\r\nDELE 2\r\nRETR 2\r\nLIST 2\r\nLIST 3\r\nDELE 8\r\nDELE 9\r\nDELE 0\r\nDELE x\r\nSTAT\r\nRSET\r\nSTAT\r\nDELE 5\r\nDELE 6\r\nUIDL 7\r\n")
	r.want("+OK", "-ERR The message is deleted already.", "-ERR The message is deleted already.", "-ERR The message is deleted already.",
		fmt.Sprintf("+OK 3 %d", len(boxes[0].Messages[2])), "+OK", "-ERR The specified message is out of range.",
		"-ERR The specified message is out of range.", "-ERR Protocol error. 14",
		fmt.Sprintf("+OK 6 %d", total-len(boxes[0].Messages[1])-len(boxes[0].Messages[7])),
		"+OK", fmt.Sprintf("+OK 8 %d", total), "+OK", "+OK", "+OK 7 "+string(ids[13]))
	r.say("LIST\r\n")
	if got := bytes.Fields(r.multi()); len(got) != 12 || string(got[8]) != "7" {
		t.Errorf("LIST with two deleted: %q", got)
	}
	c := imapSignIn(t, s, "alice@contoso.com", token, nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 8 {
		t.Fatalf("before QUIT: %+v, %v", data, err)
	}
	r.say("QUIT\r\n")
	r.want("+OK Microsoft Exchange Server POP3 server signing off.")
	r.wantEOF()
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 6 {
		t.Fatalf("after QUIT: %+v, %v", data, err)
	}
	left := fetchAll(t, c)
	if left[5] != nil || left[6] != nil || !bytes.Equal(left[7], boxes[0].Messages[6]) {
		t.Error("other messages than 5 and 6 are gone")
	}

	// Numbers hold for a session, also when another one removes messages and
	// new ones come.
	r = popSignIn(t, s, "alice@contoso.com", token)
	if err := s.Deliver("alice@contoso.com", []byte("Subject: new\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	r.say("RETR 1\r\nRETR 7\r\nRETR 2\r\n")
	r.want("-ERR The mailbox is not available.", "-ERR The specified message is out of range.")
	if got := r.multi(); !bytes.Equal(got, boxes[0].Messages[1]) {
		t.Error("another message than 2")
	}
	// A session that ends without QUIT deletes nothing.
	r.say("DELE 2\r\n")
	r.want("+OK")
	r.conn.Close()
	r = popSignIn(t, s, "alice@contoso.com", token)
	r.say("UIDL\r\n")
	if got := bytes.Fields(r.multi()); len(got) != 12 || !bytes.Equal(got[1], ids[3]) || !bytes.Equal(got[9], ids[15]) {
		t.Errorf("UIDL: %q, it was %q", got, ids)
	}
}

// A message without a line end at its end gets one: POP3 has no other way.
func TestPOP3Awkward(t *testing.T) {
	s := start(t, &Server{Mailboxes: []Mailbox{{Address: "alice@contoso.com", Messages: [][]byte{[]byte("a: b\r\n\r\n.end")}}, {Address: "bob@contoso.com"}}})
	token := mailToken(t, s)
	r := popSignIn(t, s, "alice@contoso.com", token)
	r.say("LIST 1\r\nRETR 1\r\nTOP 1 1\r\n")
	r.want("+OK 1 12", "+OK", "a: b", "", "..end", ".", "+OK", "a: b", "", "..end", ".")
	r = popSignIn(t, s, "bob@contoso.com", token)
	r.say("STAT\r\nLIST\r\nUIDL\r\nLIST 1\r\nRETR 1\r\nQUIT\r\n")
	r.want("+OK 0 0", "+OK", ".", "+OK", ".", "-ERR The specified message is out of range.", "-ERR The specified message is out of range.",
		"+OK Microsoft Exchange Server POP3 server signing off.")

	r = popSignIn(t, s, "alice@contoso.com", token)
	for _, line := range []string{"NOOP\n", "NOOP x\r\n", "NOOP \r\n", " NOOP\r\n", "TOP 1\r\n", "TOP 1 -1\r\n", "RETR +1\r\n", "NO\x00OP\r\n", "RETR " + strings.Repeat("1", 250) + "\r\n"} {
		r.say(line)
		r.want("-ERR Protocol error. 14")
	}
	r.say("\r\nGET / HTTP/1.1\r\n")
	r.want("-ERR Protocol error. 14", "-ERR Protocol error. 14", "-ERR Protocol error. Connection is closed. 10")
	r.wantEOF()
	r = dialPOP3(t, s)
	go io.WriteString(r.conn, strings.Repeat("x", 2*maxLine)) // the end may come before all is sent
	r.want("-ERR Protocol error. Connection is closed. 10")
	r = dialPOP3(t, s)
	r.say("AUTH XOAUTH2\r\n")
	r.want("+ ")
	go io.WriteString(r.conn, strings.Repeat("x", 2*maxLine))
	r.want("-ERR Protocol error. Connection is closed. 10")
}

func TestPOP3Expiry(t *testing.T) {
	s := start(t, &Server{})
	token := mailToken(t, s)
	r := popSignIn(t, s, "alice@contoso.com", token)
	r.say("DELE 1\r\n")
	r.want("+OK")
	s.FastForward(time.Hour)
	r.wantEOF()
	if got := dialPOP3(t, s).auth("+ ", xoauth2("alice@contoso.com", token)); !strings.HasPrefix(got, "-ERR Authentication failure") {
		t.Errorf("an expired token: %q", got)
	}
	r = popSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	r.say("STAT\r\n")
	r.want("+OK 4 …")
	s.SetFaults(func(f *Faults) { f.SessionLife = 50 * time.Millisecond })
	popSignIn(t, s, "alice@contoso.com", mailToken(t, s)).wantEOF()
}

func TestPOP3Faults(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "carol@contoso.com", NotConnected: true})})
	token := mailToken(t, s)
	r := popSignIn(t, s, "carol@contoso.com", token)
	r.say("STAT\r\nQUIT\r\n")
	r.want("-ERR User is authenticated but not connected.", "+OK …")
	r = popSignIn(t, s, "alice@contoso.com", token)
	s.SetFaults(func(f *Faults) { f.ExchangeNotConnected = true })
	r.say("LIST\r\n")
	r.want("-ERR User is authenticated but not connected.")
	s.SetFaults(func(f *Faults) { *f = Faults{ExchangeThrottled: true} })
	r.say("LIST\r\n")
	r.want("-ERR Request is throttled. Suggested Backoff Time: 92415 milliseconds")
	s.SetFaults(func(f *Faults) { *f = Faults{ExchangeDown: true} })
	if rest, _ := io.ReadAll(r.br); len(rest) > 0 {
		t.Errorf("down: %q", rest)
	}
	s.SetFaults(func(f *Faults) { *f = Faults{ExchangeStallAuth: true} })
	r = dialPOP3(t, s)
	r.say("AUTH XOAUTH2\r\n")
	s.SetFaults(func(f *Faults) { f.ExchangeStall = true })
	silent, err := net.Dial("tcp", s.POP3())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.Close()
	for _, c := range []io.Reader{r.br, silent} {
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("stalled: %q", rest)
		}
	}
}
