package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize is how much is passed on in one go: two TLS records.
const bufferSize = 32 << 10

// buffers are shared by all sessions.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// leaveTime is how long a client that has half-closed is still served while
// nothing comes from the upstream.
const leaveTime = time.Minute

// lastWords is how long an upstream that takes nothing more may still speak.
const lastWords = 5 * time.Second

// relay is what a session is after sign-in: it passes on what the client
// sends, and follows what the upstream answers.
type relay interface {
	follower
	// fromClient passes on what the client sends until its end of file, which
	// is nil. An error in reading is a *readError; an *ending ends the session.
	fromClient() error
	// report logs and tells what has been followed, with no lock held: others
	// take locks of their own in it.
	report()
	// upstreamEnded says that no more answers will come.
	upstreamEnded()
	// busy says whether something is under way that a shutdown should let
	// arrive, such as a message that is being sent or stored.
	busy() bool
}

// splice passes bytes both ways, what was read ahead first, until the upstream
// ends, either side fails, or ctx does. The client's end of file is passed on
// as a half-close: what it asked for before is still answered. The error says
// why it ended; nil is the client's end.
func (s *session) splice(ctx context.Context, up *upstream) error {
	stop := whenDone(ctx, up.close)
	defer stop()
	var fromClient error
	var wg sync.WaitGroup
	wg.Go(func() {
		fromClient = s.guard(s.relay.fromClient)
		end, ours := errors.AsType[*ending](fromClient)
		switch {
		case fromClient == nil:
			s.leaving.Store(true)
			s.idle.Reset(leaveTime)
			up.closeWrite()
		case ours:
			s.end(end)
		case isReadError(fromClient):
			up.close()
		default:
			// The upstream takes no more. What it said before, why for
			// instance, is still passed on.
			up.raw.hurry(time.Now().Add(lastWords))
		}
	})
	fromUpstream := s.guard(func() error { return s.copyDown(up) })
	s.relay.upstreamEnded()
	s.client.interrupt()
	up.close()
	wg.Wait()

	switch {
	case isReadError(fromClient) && !errors.Is(fromClient, os.ErrDeadlineExceeded):
		return fmt.Errorf("the client's connection was lost: %w", fromClient)
	case s.leaving.Load():
		return nil
	case errors.Is(fromUpstream, io.EOF):
		return errUpstreamEnded
	case isReadError(fromUpstream):
		return &ending{public: "the connection to the mail server was lost", cause: fmt.Errorf("upstream %s: %w", up.address, fromUpstream)}
	}
	if _, ok := errors.AsType[*ending](fromUpstream); ok {
		return fromUpstream
	}
	return fmt.Errorf("the client's connection was lost: %w", fromUpstream)
}

// touch tells the watch that the session is not idle.
func (s *session) touch() { s.active.Store(time.Now().UnixNano()) }

// passUp sends what the client has said upstream.
func (s *session) passUp(up *upstream, p []byte) error {
	n, err := up.conn.Write(p)
	s.up.Add(int64(n))
	return err
}

// upWriter is passUp as an io.Writer.
type upWriter struct {
	s  *session
	up *upstream
}

func (w upWriter) Write(p []byte) (int, error) {
	if err := w.s.passUp(w.up, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// downWriter writes to the client.
type downWriter struct{ s *session }

func (w downWriter) Write(p []byte) (int, error) {
	n, err := w.s.client.Write(p)
	w.s.relay.report()
	return n, err
}

// errUpstreamEnded is how sessions end that the client does not end.
var errUpstreamEnded = errors.New("the upstream ended the session")

// copyDown passes on what the upstream sends, until it ends.
func (s *session) copyDown(up *upstream) error {
	return s.copy(downWriter{s}, up.conn, up.in, &s.down)
}

// readError is an error of the side that is read from.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func isReadError(err error) bool {
	_, ok := errors.AsType[*readError](err)
	return ok
}

// copy passes on what ahead has read from src, then the rest of src. It always
// returns an error; one in reading is a *readError.
func (s *session) copy(dst io.Writer, src io.Reader, ahead *bufio.Reader, count *atomic.Int64) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	if n := ahead.Buffered(); n > 0 {
		src = io.MultiReader(io.LimitReader(ahead, int64(n)), src)
	}
	for {
		n, err := src.Read(buffer[:])
		if n > 0 {
			s.touch()
			written, err := dst.Write(buffer[:n])
			count.Add(int64(written))
			if err != nil {
				return err
			}
		}
		if err != nil {
			return readFailed(err)
		}
	}
}

// readFailed makes a *readError. Many peers end TLS without its close_notify,
// which costs nothing here: mail protocols end by their own words.
func readFailed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return &readError{err}
}
