package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestSMTPSendAs(t *testing.T) {
	s := start(t, &Server{Mailboxes: []Mailbox{{Address: "alice@contoso.com", SendAs: []string{"sales@contoso.com"}}, {Address: "bob@contoso.com"}}})
	r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	for _, c := range []struct{ from, header, denied string }{
		{"alice@contoso.com", "From: Alice <alice@contoso.com>", ""},
		{"SALES@contoso.com", "From: alice@contoso.com, sales@contoso.com", ""},
		{"sales@contoso.com", "Subject: no From", ""},
		{"bob@contoso.com", "From: alice@contoso.com", "<bob@contoso.com>"},
		{"", "From: alice@contoso.com", "<>"},
		{"alice@contoso.com", "From: alice@contoso.com, Bob <bob@contoso.com>", "<bob@contoso.com>"},
		{"alice@contoso.com", "From: alice@contoso.com\r\nFrom: mallory@fabrikam.example", "<mallory@fabrikam.example>"},
		{"alice@contoso.com", "From: who knows", "what From says"},
	} {
		want := "250 2.0.0 OK <"
		if c.denied != "" {
			want = "554 5.2.252 SendAsDenied; alice@contoso.com not allowed to send as " + c.denied + "; STOREDRV.Submission.Exception:SendAsDeniedException"
		}
		if got := r.send(c.from, c.header+"\r\n\r\nx"); !strings.HasPrefix(got, want) {
			t.Errorf("%s, %q: %q", c.from, c.header, got)
		}
	}
	if n := len(s.Sent()); n != 3 {
		t.Errorf("%d messages were accepted", n)
	}
}

func TestSMTPData(t *testing.T) {
	s := start(t, &Server{})
	r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	for data, want := range map[string]string{
		"a: b\r\n\r\nx\ny":                              "550 5.6.11 ",
		"a: b\r\n\r\nx\n.\ny":                           "550 5.6.11 ",
		"a: b\r\n\r\nx\n.\r\nMAIL FROM:<x@y.example>":   "550 5.6.11 ",
		"a: b\r\n\r\nx\r\n.\nRSET":                      "550 5.6.11 ",
		"a: b\r\n\r\nx\r.\r\r\nRSET":                    "550 5.6.11 ",
		"a: b\r\n\r\n" + strings.Repeat("x", 999):       "554 5.6.0 Message has a line",
		"a: b\r\n\r\n" + strings.Repeat("x", maxLine*2): "554 5.6.0 Message has a line",
		"a: b\r\n\r\n." + strings.Repeat(".", 998):      "250 2.0.0 OK ",
		"no header":    "554 5.6.0 Invalid message content",
		"":             "250 2.0.0 OK ", // an empty line: no header, no body
		"a: b\r\n\r\n": "250 2.0.0 OK ",
	} {
		if got := r.send("alice@contoso.com", data); !strings.HasPrefix(got, want) {
			t.Errorf("%.40q: %q", data, got)
		}
	}
	if n := len(s.Sent()); n != 3 {
		t.Errorf("%d messages", n)
	}
	r.say("DATA\r\nMAIL FROM:<alice@contoso.com>\r\nMAIL FROM:<alice@contoso.com>\r\nDATA\r\nRCPT TO:<a@b.example>\r\nDATA x\r\nEHLO again\r\n")
	r.want("503 5.5.2 Need mail command", "250 …", "503 5.5.2 Sender already specified", "503 5.5.2 Need rcpt command", "250 …", "501 5.5.4 Invalid arguments")
	r.reply()
	r.say("DATA\r\n")
	r.want("503 5.5.2 Need mail command")
	for range maxSMTPErrors - 6 {
		r.say("XYZZY\r\n")
		r.want("500 5.3.3 Unrecognized command")
	}
	r.say("NOOP\n")
	r.want("500 5.5.2 Syntax error", "421 4.7.0 Too many errors on this connection, closing transmission channel")
	r.wantEOF()
}

func TestSMTPRecipients(t *testing.T) {
	s := start(t, &Server{})
	r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	r.say("MAIL FROM:<alice@contoso.com>\r\n" + strings.Repeat("RCPT TO:<a@b.example>\r\n", maxSMTPRecipients+1))
	r.want("250 2.1.0 Sender OK")
	for range maxSMTPRecipients {
		r.want("250 2.1.5 Recipient OK")
	}
	r.want("452 4.5.3 Too many recipients")
}

func TestSMTPChunks(t *testing.T) {
	s := start(t, &Server{})
	r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
	envelope := func(body string) {
		t.Helper()
		r.say("MAIL FROM:<alice@contoso.com>" + body + "\r\nRCPT TO:<bob@contoso.com>\r\n")
		r.want("250 2.1.0 Sender OK", "250 2.1.5 Recipient OK")
	}
	binary := "From: alice@contoso.com\r\n\r\n" + strings.Repeat("long", 1000) + "\n.\r\n\r\x00 no end"
	envelope(" BODY=BINARYMIME")
	r.say("DATA\r\n")
	r.want("503 5.5.1 BODY=BINARYMIME needs BDAT")
	r.say(fmt.Sprintf("BDAT 5\r\nFrom:BDAT 0\r\nbdat %d last\r\n%s", len(binary)-5, binary[5:]))
	r.want("250 2.0.0 5 octets received", "250 2.0.0 0 octets received", "250 2.0.0 OK …")
	envelope("")
	r.say("BDAT 10\r\na: b\r\n\r\nx\nRCPT TO:<c@d.example>\r\nDATA\r\nBDAT 0 LAST\r\n")
	r.want("250 2.0.0 10 octets received", "503 5.5.2 Bad sequence of commands", "503 5.5.2 Bad sequence of commands", "550 5.6.11 …")
	envelope("")
	r.say("BDAT 9 LAST\r\na: b\r\n\r\nxBDAT 6\r\nQUIT\r\nRSET\r\n")
	r.want("250 2.0.0 OK …", "503 5.5.2 Need mail command", "250 2.0.0 Resetting")
	sent := s.Sent()
	if len(sent) != 2 || string(sent[0].Data) != binary || string(sent[1].Data) != "a: b\r\n\r\nx" {
		t.Errorf("%q", sent)
	}
	r.say("BDAT 157286401\r\n")
	r.want("552 5.3.4 …")
	r.wantEOF()
	for _, args := range []string{"", "x", "-1", "1 FIRST", "1 ", "1  LAST", "99999999999999999999"} {
		r := smtpSignIn(t, s, "alice@contoso.com", mailToken(t, s))
		r.say("BDAT " + args + "\r\n")
		r.want("501 5.5.4 Invalid arguments")
		r.wantEOF()
	}
}

// A message that has become too large is read to its end, and refused.
func TestSMTPTooLarge(t *testing.T) {
	s := start(t, &Server{})
	sess, err := s.exchange.signIn("SMTP", "test", []byte("user=alice@contoso.com\x01auth=Bearer "+mailToken(t, s)+"\x01\x01"))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	near.SetDeadline(time.Now().Add(20 * time.Second))
	c := s.exchange.newSMTPConn(far)
	c.limit, c.secured, c.hello, c.sess = 20, true, "EHLO", sess
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.serve()
	}()
	r := &rawConn{t, near, bufio.NewReader(near)}
	step := func(say string, want ...string) {
		t.Helper()
		go io.WriteString(near, say) // a pipe holds nothing
		r.want(want...)
	}
	envelope := "MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n"
	step(envelope+"DATA\r\n", "250 …", "250 …", "354 …")
	step("Subject: large\r\n\r\nlarge\r\n.\r\nNOOP\r\n", "552 5.3.4 …", "250 …")
	step(envelope+"BDAT 18\r\nSubject: large\r\n\r\nBDAT 3\r\nlarBDAT 2 LAST\r\ngeRSET\r\n", "250 …", "250 …", "250 …", "552 5.3.4 …", "503 …", "250 …")
	step(envelope+"BDAT 20 LAST\r\nSubject: large\r\n\r\nlaQUIT\r\n", "250 …", "250 …", "250 2.0.0 OK …", "221 …")
	<-served
	if n := len(s.Sent()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestSMTPPaths(t *testing.T) {
	for args, want := range map[string]string{
		"FROM:<a@b.example>": "",
		"from:<> SIZE=0":     "",
		"FROM:<a@b.example> SIZE=157286400 BODY=binarymime":    "",
		"FROM:<a@b.example> BODY=8BITMIME RET=FULL ENVID=a+3D": "",
		"FROM:<a@b.example> AUTH=<>":                           "",
		"FROM:<zoë@b.example> SMTPUTF8":                        "",
		"FROM:<zoë@b.example>":                                 smtpNeedsUTF8,
		"FROM:<a@b.example> SIZE=157286401":                    smtpTooLarge,
		"FROM: <a@b.example>":                                  smtpAddress,
		"FROM:a@b.example":                                     smtpAddress,
		"FROM:<a@b.example":                                    smtpAddress,
		"FROM:<a>":                                             smtpAddress,
		"FROM:<@c.example:a@b.example>":                        smtpAddress,
		"FROM:<" + strings.Repeat("a", 65) + "@b.example>":     smtpAddress,
		"FROM:<a@b.example>SIZE=1":                             smtpArguments,
		"FROM:<a@b.example>  SIZE=1":                           smtpArguments,
		"FROM:<a@b.example> ":                                  smtpArguments,
		"FROM:<a@b.example> SIZE":                              smtpArguments,
		"FROM:<a@b.example> SIZE=1 size=2":                     smtpArguments,
		"FROM:<a@b.example> BODY=9BIT":                         smtpArguments,
		"FROM:<a@b.example> SMTPUTF8=1":                        smtpArguments,
		"FROM:<a@b.example> RET=ALL":                           smtpArguments,
		"FROM:<a@b.example> ENVID=a+3d":                        smtpArguments,
		"FROM:<a@b.example> ENVID=a+3":                         smtpArguments,
		"FROM:<a@b.example> X=1":                               smtpArguments,
		"TO:<a@b.example>":                                     smtpArguments,
		"":                                                     smtpArguments,
	} {
		if _, _, got := parseMail(args); got != want {
			t.Errorf("MAIL %s: %q, want %q", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"TO:<a@b.example> NOTIFY=SUCCESS,failure,DELAY ORCPT=rfc822;a+2Bc@b.example": "",
		"TO:<a@b.example> NOTIFY=NEVER":                                              "",
		"TO:<a@b.example> NOTIFY=NEVER,SUCCESS":                                      smtpArguments,
		"TO:<a@b.example> NOTIFY=":                                                   smtpArguments,
		"TO:<a@b.example> ORCPT=a@b.example":                                         smtpArguments,
		"TO:<a@b.example> SIZE=1":                                                    smtpArguments,
		"TO:<>":                                                                      smtpAddress,
		"TO:<postmaster>":                                                            smtpAddress,
		"TO:<zoë@b.example>":                                                         smtpNeedsUTF8,
	} {
		if _, got := parseRcpt(args, false); got != want {
			t.Errorf("RCPT %s: %q, want %q", args, got, want)
		}
	}
	if to, got := parseRcpt("TO:<zoë@b.example> ORCPT=utf-8;zoë@b.example", true); to != "zoë@b.example" || got != "" {
		t.Errorf("SMTPUTF8: %q, %q", to, got)
	}
}

func TestSMTPReadData(t *testing.T) {
	for _, c := range []struct {
		text, want string
		tooLarge   bool
	}{
		{".\r\n", "", false},
		{"..\r\n.x\r\n.\r\n", ".\r\nx\r\n", false},
		{"12345678\r\n.\r\n", "12345678\r\n", false},
		{"12345678\r\nx\r\n.\r\n", "", true},
		{"123456789\n.\r\n.\n\r\n.\r\n", "", true},
		{"a\n.\r\n.\r\n", "a\n.\r\n", false},
	} {
		data, tooLarge, err := readData(bufio.NewReader(strings.NewReader(c.text+"rest")), 10, func() {})
		if string(data) != c.want || tooLarge != c.tooLarge || err != nil {
			t.Errorf("%q: %q, %v, %v", c.text, data, tooLarge, err)
		}
	}
	// Line ends at each place of the buffer.
	for n := maxLine - 4; n < maxLine+4; n++ {
		text := strings.Repeat("x", n) + "\r\n.\r\n"
		data, _, err := readData(bufio.NewReaderSize(strings.NewReader(text), maxLine), maxSMTPMessage, func() {})
		if err != nil || len(data) != n+2 {
			t.Errorf("%d: %d, %v", n, len(data), err)
		}
	}
	if _, _, err := readData(bufio.NewReader(strings.NewReader("x\r\n")), 10, func() {}); err != io.EOF {
		t.Error(err)
	}
}
