package gateway

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memPipe is a connection in memory that, unlike net.Pipe, buffers without
// limit and can be half-closed, as TCP can. It works in a bubble of
// testing/synctest.
func memPipe(near, far net.Addr) (a, b net.Conn) {
	there, back := newStream(), newStream()
	return &memConn{in: back, out: there, local: near, remote: far}, &memConn{in: there, out: back, local: far, remote: near}
}

type memConn struct {
	in, out       *stream
	local, remote net.Addr
}

func (c *memConn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *memConn) CloseWrite() error                  { c.out.end(); return nil }
func (c *memConn) LocalAddr() net.Addr                { return c.local }
func (c *memConn) RemoteAddr() net.Addr               { return c.remote }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil } // no write waits
func (c *memConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }

func (c *memConn) Close() error {
	c.out.end()
	c.in.abandon()
	return nil
}

// reset makes the other end's reads fail, as TCP's RST does.
func (c *memConn) reset() error {
	c.out.mu.Lock()
	c.out.broken = true
	c.out.mu.Unlock()
	return c.Close()
}

// stream is one direction.
type stream struct {
	mu       sync.Mutex
	changed  sync.Cond
	data     []byte
	ended    bool // the writer will write no more
	gone     bool // the reader has closed
	broken   bool // the end is not an orderly one
	deadline time.Time
	timer    *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.gone:
			return 0, net.ErrClosed
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(s.data) > 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			return n, nil
		case s.ended && s.broken:
			return 0, syscall.ECONNRESET
		case s.ended:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.gone {
		return 0, io.ErrClosedPipe
	}
	s.data = append(s.data, p...)
	s.changed.Broadcast()
	return len(p), nil
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed.Broadcast()
}

func (s *stream) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.changed.Broadcast()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.timer != nil {
		s.timer.Stop()
	}
	if !t.IsZero() && !s.gone {
		s.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
}
