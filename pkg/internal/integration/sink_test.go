//go:build integration

package integration

import (
	"bytes"
	"io"
	"log"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
)

// sink is where Dovecot relays what is sent. It takes everything and keeps it.
type sink struct {
	address string
	mu      sync.Mutex
	mail    map[string][]sent // by recipient
}

// sent is a message as it arrived, with its envelope.
type sent struct {
	from string
	body smtp.BodyType
	data []byte
}

func startSink(t *testing.T) *sink {
	t.Helper()
	k := &sink{mail: map[string][]sent{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	k.address = ln.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &sinkSession{sink: k}, nil }))
	server.Domain = "sink.test"
	server.MaxLineLength = 1 << 20 // messages are held to it as well
	server.ErrorLog = log.New(io.Discard, "", 0)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return k
}

// to is what has arrived for a recipient.
func (k *sink) to(recipient string) []sent {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mail[recipient]
}

type sinkSession struct {
	sink *sink
	from string
	to   []string
	body smtp.BodyType
}

func (s *sinkSession) Reset()        { s.from, s.to = "", nil }
func (s *sinkSession) Logout() error { return nil }

func (s *sinkSession) Mail(from string, o *smtp.MailOptions) error {
	s.from, s.body = from, o.Body
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	var data bytes.Buffer
	if _, err := data.ReadFrom(r); err != nil {
		return err
	}
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for _, to := range s.to {
		s.sink.mail[to] = append(s.sink.mail[to], sent{s.from, s.body, data.Bytes()})
	}
	return nil
}
