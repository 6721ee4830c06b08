package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
)

func TestServeRefusesToBegin(t *testing.T) {
	backend := &fakeBackend{}
	for want, test := range map[string]struct {
		server    *Server
		listeners map[Protocol]net.Listener
	}{
		"no backend":              {&Server{}, map[Protocol]net.Listener{IMAP: newPipeListener()}},
		"nothing to listen on":    {&Server{Backend: backend}, nil},
		`"gopher" is not served`:  {&Server{Backend: backend}, map[Protocol]net.Listener{"gopher": newPipeListener()}},
		"Serve was called before": {&Server{Backend: backend, sessions: map[*session]phase{}}, map[Protocol]net.Listener{IMAP: newPipeListener()}},
	} {
		err := test.server.Serve(t.Context(), test.listeners)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		for _, ln := range test.listeners {
			if _, err := ln.Accept(); err == nil {
				t.Errorf("%q: the listener is left open", want)
			}
		}
	}
}

// TestBeforeAndAfterServe: the questions can always be asked.
func TestBeforeAndAfterServe(t *testing.T) {
	s := &Server{Backend: &fakeBackend{}}
	s.Recheck()
	if list := s.Sessions(); list == nil || len(list) != 0 {
		t.Errorf("sessions: %v", list)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Serve(ctx, map[Protocol]net.Listener{IMAP: newPipeListener()}); err != nil {
		t.Error(err)
	}
	s.Recheck()
	if status := s.Status(); status.Started.IsZero() || status.PID == 0 || status.Listeners[IMAP] != "127.0.0.1:1993" || status.Sessions == nil {
		t.Errorf("status: %+v", status)
	}
}

// flakyListener is out of descriptors now and then.
type flakyListener struct {
	*pipeListener
	fails atomic.Int32
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.pipeListener.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &flakyListener{pipeListener: newPipeListener()}
		ln.fails.Store(20)
		s := &Server{Backend: &fakeBackend{}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Serve(ctx, map[Protocol]net.Listener{IMAP: ln}) }()
		conn, err := ln.dial(ctx, addrPort(ln.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		expectLine(t, bufio.NewReader(conn), "* OK")
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestListenerLost: a gateway that can no longer be reached says so and ends.
func TestListenerLost(t *testing.T) {
	ln := newPipeListener()
	_ = ln.Close()
	err := (&Server{Backend: &fakeBackend{}}).Serve(t.Context(), map[Protocol]net.Listener{IMAP: ln})
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestMaxPending(t *testing.T) {
	bubble(t, func(r *rig) { r.server.MaxPending = 2 }, func(t *testing.T, r *rig) {
		in := r.signIn() // does not count
		one, two := r.connect("127.0.0.1:1"), r.connect("127.0.0.1:2")
		three := r.connect("127.0.0.1:3")
		expectEnd(t, three)
		_ = one.Close()
		synctest.Wait()
		four := r.connect("127.0.0.1:4")
		_, _ = io.WriteString(four, "a NOOP\r\n")
		expectLine(t, bufio.NewReader(four), "* OK")
		in.alive(t)
		for _, c := range []net.Conn{two, four, in} {
			_ = c.Close()
		}
	})
}
