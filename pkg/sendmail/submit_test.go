package sendmail

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// script is a server that answers each command by what it begins with, and
// hangs up where the answer is empty.
type script struct {
	hello   string // lines of EHLO; empty: 8BITMIME
	answers map[string]string
	said    []string // commands
	data    []string // lines of the message, with their dots
}

func (s *script) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	write := func(text string) { _, _ = conn.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n")) }
	write("220 test")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.said = append(s.said, line)
		verb, _, _ := strings.Cut(line, " ")
		answer, ok := s.answers[line]
		if !ok {
			answer, ok = s.answers[verb]
		}
		if !ok {
			answer = map[string]string{"EHLO": "250-test\n" + s.hello + "250 8BITMIME", "DATA": "354 go on", "QUIT": "221 bye"}[verb]
			if answer == "" {
				answer = "250 2.0.0 OK"
			}
		}
		if answer == "" {
			return
		}
		write(answer)
		if !strings.HasPrefix(answer, "354") {
			continue
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if line == ".\r\n" {
				break
			}
			if s.data = append(s.data, line); s.answers["middle"] == "hang up" {
				return
			}
		}
		if end, ok := s.answers["end"]; !ok {
			write("250 2.0.0 queued as 1")
		} else if end == "" {
			return
		} else {
			write(end)
		}
	}
}

// submit sends a message to the server.
func submit(t *testing.T, s *script, text string, o Options) (string, error) {
	t.Helper()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(far) })
	defer wg.Wait()
	defer near.Close()
	return ready(t, text, o).Submit(t.Context(), near, "localhost", nil)
}

func TestSubmit(t *testing.T) {
	s := &script{hello: "250-SIZE 1000000\n250-SMTPUTF8\n"}
	reply, err := submit(t, s, "To: a@contoso.com\nMessage-ID: <1@x>\nDate: x\n\n.\n..x\nGrüße\n", Options{IgnoreDots: true, Recipients: []string{"bob@contoso.com", `"a b"@contoso.com`}})
	if err != nil || reply != "250 2.0.0 queued as 1" {
		t.Fatalf("%q, %v", reply, err)
	}
	size := len(strings.Join(s.data, "")) - 2 // dots
	want := "EHLO localhost|MAIL FROM:<alice@contoso.com> SIZE=" + strconv.Itoa(size) + " BODY=8BITMIME|RCPT TO:<bob@contoso.com>|RCPT TO:<\"a b\"@contoso.com>|DATA|QUIT"
	if got := strings.Join(s.said, "|"); got != want {
		t.Errorf("the commands: %s\nwant %s", got, want)
	}
	if got := strings.Join(s.data, ""); !strings.HasSuffix(got, "\r\n\r\n..\r\n...x\r\nGrüße\r\n") {
		t.Errorf("the message: %q", got)
	}

	s = &script{hello: "250-SMTPUTF8\n"}
	if _, err := submit(t, s, "\n", Options{Recipients: []string{"jürgen@contoso.com"}}); err != nil || !strings.Contains(strings.Join(s.said, "|"), "MAIL FROM:<alice@contoso.com> SMTPUTF8|RCPT TO:<jürgen@contoso.com>") {
		t.Errorf("beyond ASCII: %q, %v", s.said, err)
	}
	s = &script{}
	if _, err := submit(t, s, "\n", Options{NullSender: true, Recipients: []string{"bob@contoso.com"}}); err != nil || s.said[1] != "MAIL FROM:<>" {
		t.Errorf("the null sender: %q, %v", s.said, err)
	}
}

// TestSubmitFails holds each failure to what it says of the message: that it was
// not sent, or that nobody knows.
func TestSubmitFails(t *testing.T) {
	two := Options{Recipients: []string{"bob@contoso.com", "carol@contoso.com"}}
	for name, c := range map[string]struct {
		answers map[string]string
		hello   string
		err     string
		sent    bool // the server had all of it
	}{
		"sender":             {answers: map[string]string{"MAIL": "550 5.7.60 not\nyou"}, err: "nothing was sent: MAIL FROM:<alice@contoso.com>: the server says 550 5.7.60 not"},
		"one recipient":      {answers: map[string]string{"RCPT TO:<carol@contoso.com>": "550 5.1.1 nobody"}, err: "nothing was sent: RCPT TO:<carol@contoso.com>: the server says 550 5.1.1 nobody"},
		"later":              {answers: map[string]string{"DATA": "451 4.3.2 busy"}, err: "nothing was sent: DATA: the server says 451 4.3.2 busy"},
		"message":            {answers: map[string]string{"end": "554 5.2.252 SendAsDenied"}, err: "nothing was sent: message: the server says 554 5.2.252 SendAsDenied", sent: true},
		"message, later":     {answers: map[string]string{"end": "432 4.3.2 busy"}, err: "nothing was sent: message: the server says 432 4.3.2 busy", sent: true},
		"no answer":          {answers: map[string]string{"end": ""}, err: "the message <1@x> may have been sent: the server got all of it and did not answer", sent: true},
		"ends the session":   {answers: map[string]string{"end": "421 4.3.2 shutting down"}, err: "the message <1@x> may have been sent: the server got all of it and says 421 4.3.2 shutting down", sent: true},
		"does not know":      {answers: map[string]string{"end": "451 4.4.2 the message may have been sent already, which is not known yet"}, err: "the message <1@x> may have been sent: the server got all of it and says 451 4.4.2 ", sent: true},
		"hangs up at RCPT":   {answers: map[string]string{"RCPT": ""}, err: "nothing was sent: RCPT TO:<bob@contoso.com>: EOF"},
		"hangs up in middle": {answers: map[string]string{"middle": "hang up"}, err: "nothing was sent: message: "},
		"too long":           {hello: "250-SIZE 20\n", err: "the message is longer than 20 bytes"},
	} {
		s := &script{answers: c.answers, hello: c.hello}
		_, err := submit(t, s, "Message-ID: <1@x>\n\ntext\n"+strings.Repeat("more text\n", 10000), two)
		if err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v; want %s", name, err, c.err)
		}
		refusal, refused := errors.AsType[*RefusedError](err)
		if later := strings.Contains(name, "later"); refused && refusal.Temporary() != later {
			t.Errorf("%s: temporary: %v", name, !later)
		}
		if got := len(s.data) > 10000; got != c.sent {
			t.Errorf("%s: the server had all of it: %v", name, got)
		}
	}
}

// TestSubmitInterrupted tells that nothing was sent, as an interrupt.
func TestSubmitInterrupted(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ready(t, "\n", Options{Recipients: []string{"bob@contoso.com"}}).Submit(ctx, near, "localhost", nil)
	if !errors.As(err, new(*BrokenError)) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
