package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// TestInjectedResponse: a response of the gateway's own never lands within one
// of the upstream's, and waits for its place.
func TestInjectedResponse(t *testing.T) {
	const fetch = "* 1 FETCH (BODY[] {9}\r\nab\r\nc\r\nde)\r\n"
	for at := range len(fetch) + 1 {
		var out bytes.Buffer
		c := newClient(&sinkConn{&out})
		write := func(text string) {
			if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		write(fetch[:at])
		if err := c.inject("x NO no\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.inject("y NO no\r\n"); err != nil {
			t.Fatal(err)
		}
		write(fetch[at:] + "* 2 EXISTS\r\n* 3 EX")
		write("ISTS\r\n")
		want := fetch + "x NO no\r\ny NO no\r\n* 2 EXISTS\r\n* 3 EXISTS\r\n"
		if at == 0 {
			want = "x NO no\r\ny NO no\r\n" + fetch + "* 2 EXISTS\r\n* 3 EXISTS\r\n"
		}
		if got := out.String(); got != want {
			t.Errorf("injected after %d bytes:\n%q, want\n%q", at, got, want)
		}
	}
	c := newClient(&sinkConn{io.Discard})
	_, _ = c.Write([]byte("* half"))
	var err error
	for range 10_000 {
		err = errors.Join(err, c.inject(strings.Repeat("x", 100)+"\r\n"))
	}
	if err == nil || len(c.queued) > maxQueued+200 {
		t.Errorf("%d bytes are queued, %v", len(c.queued), err)
	}
}

// sinkConn is a connection that is only written to.
type sinkConn struct{ io.Writer }

func (*sinkConn) Read([]byte) (int, error)         { return 0, io.EOF }
func (*sinkConn) Close() error                     { return nil }
func (*sinkConn) LocalAddr() net.Addr              { return nil }
func (*sinkConn) RemoteAddr() net.Addr             { return nil }
func (*sinkConn) SetDeadline(time.Time) error      { return nil }
func (*sinkConn) SetReadDeadline(time.Time) error  { return nil }
func (*sinkConn) SetWriteDeadline(time.Time) error { return nil }

// TestMessageLineEnds: what a message is upstream, and where it ends.
func TestMessageLineEnds(t *testing.T) {
	long := strings.Repeat("x", 3*readBuffer)
	for in, want := range map[string]string{
		".\r\n":                             ".\r\n",
		"a\r\n.\r\n":                        "a\r\n.\r\n",
		"..\r\n.\r\n":                       "..\r\n.\r\n",
		"a\n.\n.\r\n.\r\n":                  "a\r\n..\r\n..\r\n.\r\n",
		"a\n.b\r\n.\r\n":                    "a\r\n..b\r\n.\r\n",
		"a\r\n.\r\r\nMAIL\r\n.\r\n":         "a\r\n..\r\nMAIL\r\n.\r\n",
		".\r\r\r\n.\r\n":                    "..\r\n.\r\n",
		"a\r\r\n.\r\n":                      "a\r\n.\r\n",
		".\r.\r\n.\r\n":                     ". .\r\n.\r\n",
		".\r":                               "",
		"a\r.\r\r\n.\r\n":                   "a .\r\n.\r\n",
		"a\r\r\r.\rb\r\n.\r\n":              "a   . b\r\n.\r\n",
		"a\r\n.\n.\r\n\r\n.\r\n":            "a\r\n..\r\n..\r\n\r\n.\r\n",
		".\n.\r\nx\r\n.\r\n":                "..\r\n..\r\nx\r\n.\r\n",
		"\n\r\n.\r\n":                       "\r\n\r\n.\r\n",
		"\xff\x00\x80\r\n.\r\n":             "\xff\x00\x80\r\n.\r\n",
		long + "\r\n.\r\n":                  long + "\r\n.\r\n",
		long + "\n." + long + "\r\n.\r\n":   long + "\r\n.." + long + "\r\n.\r\n",
		long[:readBuffer-1] + "\r\n.\r\n":   long[:readBuffer-1] + "\r\n.\r\n",
		long[:readBuffer-1] + "\n\n.\r\n":   "",
		long[:readBuffer] + "\n.x\r\n.\r\n": long[:readBuffer] + "\r\n..x\r\n.\r\n",
		"a\r\n" + "." + long + "\r\n.\r\n":  "a\r\n." + long + "\r\n.\r\n",
		"no end":                            "",
		"a\r\n.\r\nMAIL FROM:<x@y.example>": "a\r\n.\r\n",
	} {
		for name, reader := range map[string]io.Reader{"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in))} {
			var up bytes.Buffer
			r := &smtpRelay{}
			r.s = &session{client: &client{in: bufio.NewReaderSize(reader, readBuffer)}}
			r.up = &upstream{conn: &sinkConn{&up}}
			err := r.message()
			if want == "" {
				if err == nil {
					t.Errorf("%.40q: no error, and %.60q", in, &up)
				}
				continue
			}
			if err != nil || up.String() != want {
				t.Errorf("%s %.40q: %v, %.60q, want %.60q", name, in, err, &up, want)
			}
		}
	}
}

// TestSenderAllowed compares addresses as Exchange does, and domains whole.
func TestSenderAllowed(t *testing.T) {
	for sender, want := range map[string]bool{
		"alice@contoso.com": true, "ALICE@CONTOSO.COM": true, "x@fabri\u212aam.example": false /* Kelvin */, "x@notfabrikam.example": false,
	} {
		if got := senderAllowed([]string{"alice@contoso.com", "@fabrikam.example"}, sender); got != want {
			t.Errorf("%q: %t", sender, got)
		}
	}
}

// TestPOP3ByeOnlyBetweenReplies: a last line never lands in a message.
func TestPOP3ByeOnlyBetweenReplies(t *testing.T) {
	for sent, between := range map[string]bool{
		"+OK\r\n": false, "+OK\r\nSubject: x\r\n": false, "+OK\r\n..\r\n": false, "+OK\r\n.\r\n": true, "-ERR no\r\n": true, "+OK\r\n.": false, "": true,
	} {
		for step := range 4 {
			d := &pop3Relay{}
			d.start(nil, nil, pop3Whole)
			d.waiting = []expected{{lines: true}}
			for rest := []byte(sent); len(rest) > 0; {
				n := min(step+1, len(rest))
				d.advance(rest[:n])
				rest = rest[n:]
			}
			if got := d.between(); got != between {
				t.Errorf("after %q by %d: %t", sent, step+1, got)
			}
			if busy := d.busy(); busy == (between && sent != "") {
				t.Errorf("after %q by %d: busy %t", sent, step+1, busy)
			}
		}
	}
}

// TestEvents: each sign-in, refusal, message and end is told once, with what
// the log and those who watch need.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	var told []Event
	bubble(t, func(r *rig) {
		r.name = SMTP
		r.server.Observe = func(e Event) { mu.Lock(); told = append(told, e); mu.Unlock() }
	}, func(t *testing.T, r *rig) {
		c := r.smtpSession()
		c.step(t, "MAIL FROM:<alice@contoso.com>", "250 OK")
		c.step(t, "DATA", "354 go")
		c.say("x\r\n.\r\n")
		c.upstream.expect(t, "x")
		c.upstream.expect(t, ".")
		c.upstream.say("250 OK\r\n")
		expectLine(t, c.in, "250 OK")
		synctest.Wait()
		wrong := r.connect("127.0.0.1:2")
		in := bufio.NewReader(wrong)
		_, _ = io.WriteString(wrong, "HELO x\r\nAUTH LOGIN\r\nYQ==\r\nYQ==\r\n")
		for _, line := range []string{"220", "250", "334", "334", "535"} {
			expectLine(t, in, line)
		}
		_ = wrong.Close()
		r.server.End(1)
		c.ended(t, "421 ")
		mu.Lock()
		defer mu.Unlock()
		var got []string
		for _, e := range told {
			got = append(got, fmt.Sprintf("%s %s %q %q %q", e.Kind, e.Protocol, e.User, e.Grant.Name, e.Reason))
			if e.Time.IsZero() || e.Session == 0 || !e.Remote.IsValid() {
				t.Errorf("%+v", e)
			}
		}
		want := []string{
			`signed-in smtp "" "Outlook on Mac" ""`, `message-sent smtp "" "Outlook on Mac" ""`,
			`refused smtp "a" "" "bad-credentials"`, `session-ended smtp "" "Outlook on Mac" ""`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
