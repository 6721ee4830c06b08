package transcript

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Player plays scripts. Everything it waits for is waited for at most Timeout.
type Player struct {
	Client    net.Conn                 // the client's end of a connection to the program
	ClientTLS *tls.Config              // for "C! tls"
	Upstream  func() (net.Conn, error) // waits for the program's next connection to the upstream
	ServerTLS *tls.Config              // for "US! tls"
	Timeout   time.Duration            // 0: a minute

	// Split, if positive, breaks what the client sends after so many bytes in
	// all: what comes before is one write, what comes after another.
	Split int
}

// Play plays s and reports the first step that fails to t, with its file and
// line. It closes both connections.
func (p Player) Play(t testing.TB, s *Script) {
	t.Helper()
	client, upstream := newEnd(p.Client), newEnd(nil)
	defer client.close()
	defer upstream.close()
	sent := 0
	for _, step := range s.Steps {
		end := client
		if step.Upstream {
			end = upstream
			if end.conn == nil {
				conn, err := p.Upstream()
				if err != nil {
					t.Errorf("%s:%d: no connection to the upstream: %v", s.Name, step.Line, err)
					return
				}
				end.open(conn)
			}
		}
		if step.Action == Send && !step.Upstream && end.conn != nil {
			if at := p.Split - sent; at > 0 && at < len(step.Text) {
				end.send(step.Text[:at])
				end.send(step.Text[at:])
				sent += len(step.Text)
				continue
			}
			sent += len(step.Text)
		}
		if err := p.do(end, step); err != nil {
			t.Errorf("%s:%d: %v", s.Name, step.Line, err)
			return
		}
	}
}

func (p Player) do(e *end, step Step) error {
	timeout := p.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	if e.conn == nil {
		return errors.New("this end has closed")
	}
	_ = e.conn.SetReadDeadline(time.Now().Add(timeout))
	switch step.Action {
	case Send:
		e.send(step.Text)
	case Wait:
		time.Sleep(step.Wait)
	case Close:
		e.flush()
		e.close()
	case StartTLS:
		e.flush()
		if step.Upstream {
			return e.startTLS(tls.Server(e.conn, p.ServerTLS))
		}
		return e.startTLS(tls.Client(e.conn, p.ClientTLS))
	case Expect:
		line, err := e.in.ReadString('\n')
		if err != nil {
			return &mismatch{line, step.Pattern.String(), err}
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || !step.Pattern.MatchString(text) {
			return &mismatch{line, step.Pattern.String(), nil}
		}
	case ExpectEOF:
		rest, err := io.ReadAll(e.in)
		if len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return &mismatch{string(rest), "the end of the connection", err}
		}
		e.close()
	}
	return nil
}

// mismatch is a step that did not go as written.
type mismatch struct {
	got, want string
	err       error
}

func (m *mismatch) Error() string {
	text := "got " + quote(m.got) + ", want " + m.want
	if m.err != nil {
		text += " (" + m.err.Error() + ")"
	}
	return text
}

func quote(s string) string {
	if len(s) > 500 {
		s = s[:500] + "…"
	}
	return "“" + strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(s) + "”"
}

// end is one of the two ends that are played. Sending never waits for the
// other side, which may be sending itself.
type end struct {
	conn  net.Conn
	in    *bufio.Reader
	queue chan func()
	done  chan struct{}
}

func newEnd(conn net.Conn) *end {
	e := &end{}
	if conn != nil {
		e.open(conn)
	}
	return e
}

func (e *end) open(conn net.Conn) {
	e.conn, e.in = conn, bufio.NewReader(conn)
	e.queue, e.done = make(chan func(), 1024), make(chan struct{})
	go func(queue <-chan func(), done chan<- struct{}) {
		defer close(done)
		for f := range queue {
			f()
		}
	}(e.queue, e.done)
}

// send queues a write. Its error shows in what is received, or not.
func (e *end) send(text string) {
	conn := e.conn
	e.queue <- func() { _, _ = io.WriteString(conn, text) }
}

// flush waits until everything has been sent.
func (e *end) flush() {
	sent := make(chan struct{})
	e.queue <- func() { close(sent) }
	<-sent
}

func (e *end) startTLS(conn *tls.Conn) error {
	if err := conn.Handshake(); err != nil {
		return err
	}
	e.conn, e.in = conn, bufio.NewReader(conn)
	return nil
}

func (e *end) close() {
	if e.conn == nil {
		return
	}
	_ = e.conn.Close()
	close(e.queue)
	<-e.done
	e.conn = nil
}
