package gateway

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// dialogue is a signed-in session of a protocol whose replies come in the
// order of the commands: POP3 (RFC 1939 section 3) and SMTP (RFC 2920). It
// reads commands one by one, so that some can be refused, and pairs those that
// it passes on with their replies, so that a refusal stands in its place.
type dialogue struct {
	s     *session
	up    *upstream
	batch []byte // commands that go upstream together

	// whole says whether a reply to want is complete with line, which has no
	// line end; first says that it is the reply's first line.
	whole func(line []byte, first bool, want expected) bool

	mu      sync.Mutex
	changed sync.Cond
	waiting []expected // without their reply, in order
	later   []func()   // what report is to do
	gone    bool       // no more replies will come
	within  bool       // a reply has begun and not ended
	first   []byte     // its first line
	line    []byte     // the current line, the beginning of it
	partial bool       // a line has begun and not ended
}

// expected is a command that waits for its reply.
type expected struct {
	lines bool               // POP3: a reply of several lines is due
	done  func(first []byte) // is called with the first line of the reply, mu held; may be nil
}

// maxCommand is the longest command after sign-in: RFC 5321 section 4.5.3.1.4
// has 512 bytes, to which extensions add some hundred each, RFC 2449 section 4
// has 255. Servers split what is much longer.
const maxCommand = 2 << 10

// maxReplyLine is how much of a reply's line is looked at.
const maxReplyLine = 512

func (d *dialogue) start(s *session, up *upstream, whole func([]byte, bool, expected) bool) {
	d.s, d.up, d.whole = s, up, whole
	d.changed.L = &d.mu
}

// serve has do serve each of the client's commands, until its end of file. A
// command that some servers might take for two is answered by garbled.
func (d *dialogue) serve(limit int, garbled string, do func(line []byte) error) error {
	for {
		line, err := d.command(limit)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case bytes.ContainsAny(line, "\r\x00"): // some take a bare CR for a line's end
			err = d.answer(garbled)
		default:
			err = do(line)
		}
		if err != nil {
			return err
		}
	}
}

// command reads the client's next command, without its line end. What is to go
// upstream goes before the client is waited for.
func (d *dialogue) command(limit int) ([]byte, error) {
	in := d.s.client.in
	if ahead, _ := in.Peek(in.Buffered()); bytes.IndexByte(ahead, '\n') < 0 {
		if err := d.flush(); err != nil {
			return nil, err
		}
	}
	line, err := readLine(in, limit)
	d.s.touch()
	switch {
	case errors.Is(err, errTooLong):
		return nil, &ending{public: "command too long", cause: err}
	case err != nil:
		return nil, readFailed(err)
	}
	return withoutEOL(line), nil
}

// pass sends a command on, with the line end that servers want.
func (d *dialogue) pass(line []byte, want expected) error {
	d.mu.Lock()
	d.waiting = append(d.waiting, want)
	d.mu.Unlock()
	d.batch = append(append(d.batch, line...), "\r\n"...)
	if len(d.batch) < readBuffer {
		return nil
	}
	return d.flush()
}

func (d *dialogue) flush() error {
	if len(d.batch) == 0 {
		return nil
	}
	batch := d.batch
	d.batch = nil
	return d.s.passUp(d.up, batch)
}

// answer refuses a command, after the replies to those before it.
func (d *dialogue) answer(text string) error {
	if err := d.settle(); err != nil {
		return err
	}
	return d.s.client.inject(text + "\r\n")
}

// settle waits until each command that was passed on has its reply.
func (d *dialogue) settle() error {
	if err := d.flush(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.waiting) > 0 && !d.gone {
		d.changed.Wait()
	}
	if d.gone {
		return io.ErrClosedPipe
	}
	return nil
}

// report logs and tells what the replies were about.
func (d *dialogue) report() {
	d.mu.Lock()
	later := d.later
	d.later = nil
	d.mu.Unlock()
	for _, f := range later {
		f()
	}
}

// advance follows the replies.
func (d *dialogue) advance(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		part := b
		if end >= 0 {
			part = b[:end]
		}
		d.line = append(d.line, part[:min(len(part), maxReplyLine-len(d.line))]...)
		if d.partial = end < 0; d.partial {
			return
		}
		d.ended(bytes.TrimSuffix(d.line, []byte("\r")))
		d.line = d.line[:0]
		b = b[end+1:]
	}
}

// ended is told of each line of a reply. mu is held.
func (d *dialogue) ended(line []byte) {
	var want expected
	if len(d.waiting) > 0 {
		want = d.waiting[0]
	}
	first := !d.within
	if first {
		d.first = append(d.first[:0], line...)
	}
	if d.within = !d.whole(line, first, want); d.within || len(d.waiting) == 0 {
		return
	}
	d.waiting = d.waiting[1:]
	if want.done != nil {
		want.done(d.first)
	}
	d.changed.Broadcast()
}

func (d *dialogue) between() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.within && !d.partial
}

func (d *dialogue) upstreamEnded() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
	d.changed.Broadcast()
}

func (d *dialogue) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting) > 0
}
