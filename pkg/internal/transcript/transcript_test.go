package transcript

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	s, err := Parse("x", []byte("# comment\nmode: tls\n\nC: a \\r\nC= \"x\\r\\n\"*3\nS: a...b.c\nS! eof\nC! wait 1m\nUC: \nUS: * OK\nUS! close\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Header["mode"] != "tls" || len(s.Steps) != 8 {
		t.Fatalf("%+v", s)
	}
	if got := s.Steps[0].Text; got != "a \\r\r\n" {
		t.Errorf("text %q", got)
	}
	if got := s.Steps[1].Text; got != "x\r\nx\r\nx\r\n" {
		t.Errorf("exact text %q", got)
	}
	if p := s.Steps[2].Pattern; !p.MatchString("a anything b.c") || p.MatchString("a bxc") || p.MatchString("xa b.c") {
		t.Errorf("pattern %s", p)
	}
	if got := s.Steps[5]; got.Action != Expect || !got.Upstream {
		t.Errorf("UC: %+v", got)
	}
	if got := s.Steps[6]; got.Action != Send || !got.Upstream || got.Line != 10 {
		t.Errorf("US: %+v", got)
	}
	for _, wrong := range []string{"mode\n", "\nX: y\n", "\nC= x\n", "\nC= \"x\"*y\n", "\nS! close\n", "\nC! jump\n", "\nC! wait long\n"} {
		if _, err := Parse("x", []byte(wrong)); err == nil || !strings.HasPrefix(err.Error(), "x:") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// recorder is a testing.TB that keeps what it is told.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// TestPlay: a player that cannot fail would prove nothing.
func TestPlay(t *testing.T) {
	for script, want := range map[string]string{
		"\nS: hello\nC: ping\nS: ping\nC! close\n":                    "",
		"\nS: hello\nC: ping\nS: pong\n":                              "x:4: got “ping\\r\\n”, want ",
		"\nS: hello\nS! eof\n":                                        "x:3: got “”, want the end of the connection",
		"\nS: hello\nC: bye\nS! eof\n":                                "",
		"\nS: hello\nC: bye\nS: more\n":                               "x:4: got “”, want ",
		"\nS: hello\nC! close\nC: more\n":                             "x:4: this end has closed",
		"\nUC: anything\n":                                            "x:2: no connection to the upstream",
		"\nS: hello\nC= \"lf\\n\"\nS: lf\n":                           "x:4: got “lf\\n”, want ",
		"\nS: hello\nC= \"two\\r\\nlines\\r\\n\"\nS: two\nS: lines\n": "",
	} {
		parsed, err := Parse("x", []byte(script))
		if err != nil {
			t.Fatal(err)
		}
		for split := range 4 {
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() { defer close(done); echo(far) }()
			r := &recorder{TB: t}
			Player{Client: near, Upstream: func() (net.Conn, error) { return nil, io.EOF }, Timeout: 50 * time.Millisecond, Split: split}.Play(r, parsed)
			<-done
			if got := strings.Join(r.said, "; "); !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%q: got %q, want %q", script, got, want)
			}
		}
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello\r\n")
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "bye\r\n" {
			return
		}
		_, _ = io.WriteString(conn, line)
	}
}
