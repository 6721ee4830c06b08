package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// After sign-in an IMAP server library has the connection, by a pipe. Exchange
// stays in front of it: it announces its own capabilities, answers some
// commands itself, and ends the session when the token expires. Commands are
// passed on one at a time, so that answers of both never mix.

// relay is a signed-in IMAP connection.
type relay struct {
	x    *exchange
	c    *imapConn
	sess *mailSession
	pipe net.Conn // to the library
	// events are what the library has answered that the relay waits for: "+"
	// or the tag of a finished command. Closed when the library has ended.
	events chan string
	stop   chan struct{} // closed when the relay has ended
	quiet  atomic.Bool   // the client is not to see the next "+"
}

// relayIMAP serves a connection from sign-in to its end.
func (x *exchange) relayIMAP(c *imapConn, sess *mailSession) {
	near, far := net.Pipe()
	lib := &pipeConn{Conn: far, mailbox: sess.mailbox, ended: make(chan struct{})}
	if !x.pipes.hand(lib) {
		near.Close()
		far.Close()
		return
	}
	r := &relay{x: x, c: c, sess: sess, pipe: near, events: make(chan string), stop: make(chan struct{})}
	fromLibrary := bufio.NewReader(near)

	var wg sync.WaitGroup
	if _, err := fromLibrary.ReadSlice('\n'); err == nil { // its PREAUTH greeting
		wg.Go(func() { r.answers(fromLibrary) })
		wg.Go(func() {
			if x.s.await(func(Faults) time.Time { return sess.Expires }, r.stop) {
				c.bye(imapExpired)
			}
		})
		r.commands()
	}
	close(r.stop)
	near.Close()
	c.conn.Close()
	wg.Wait()
	<-lib.ended
}

// commands reads the client's commands until either side ends.
func (r *relay) commands() {
	for {
		r.c.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		line, err := r.c.readLine()
		if err != nil {
			r.c.tooLong(err)
			return
		}
		if r.x.expired(r.sess) {
			r.c.bye(imapExpired)
			return
		}
		if !r.command(bytes.Clone(line)) {
			return
		}
	}
}

// command serves one command and says whether to go on.
func (r *relay) command(line []byte) bool {
	cmd := parseIMAPCommand(line)
	own := func(lines ...string) bool {
		if _, err := r.c.readRest(line); err != nil {
			r.c.tooLong(err)
			return false
		}
		return r.c.say(lines...) == nil
	}
	switch {
	case cmd.verb == "":
		return own("* " + imapSyntax)
	case !wellFormed(line):
		return own(cmd.tag + " " + imapSyntax)
	case cmd.verb == "LOGOUT":
		own("* "+imapGoodbye, cmd.tag+" OK LOGOUT completed.")
		return false
	case r.sess.notConnected, r.x.s.CurrentFaults().ExchangeNotConnected:
		return own(cmd.tag + " " + imapNoMailbox)
	case r.x.s.CurrentFaults().ExchangeThrottled:
		return own(cmd.tag + " " + imapThrottled)
	}
	switch cmd.verb {
	case "CAPABILITY":
		return own("* CAPABILITY "+imapPostAuth, cmd.tag+" OK CAPABILITY completed.")
	case "ID":
		return own(imapID, cmd.tag+" OK ID completed.")
	case "AUTHENTICATE", "LOGIN":
		return own(cmd.tag + " " + imapState)
	case "STARTTLS", "UNAUTHENTICATE", "ENABLE": // not announced
		return own(cmd.tag + " " + imapSyntax)
	}
	return r.forward(cmd, line)
}

// maxLiteral is the library's limit for a literal that is not a message, and
// maxMessage that for one that is. commandTimeout is for commands that the
// library never answers, of which none is known.
const (
	maxLiteral     = 4096
	maxMessage     = 100 << 20
	commandTimeout = 5 * time.Minute
)

// await waits until the library asks for more ("+", more is true) or is done
// with the command of this tag.
func (r *relay) await(tag string) (more, ok bool) {
	timeout := time.After(commandTimeout)
	for {
		select {
		case word, ok := <-r.events:
			if !ok || word == "+" || word == tag {
				return word == "+", ok
			}
		case <-timeout:
			return false, false
		case <-r.x.s.closing:
			return false, false
		}
	}
}

// forward passes a command on with its literals, and waits until it is done.
// The library is made to ask for every literal, since it takes the literals of
// a command that it refuses for commands of their own.
func (r *relay) forward(cmd imapCommand, line []byte) bool {
	// The last literal of APPEND is a message; the name may be one before it.
	message := cmd.verb == "APPEND" && strings.Contains(cmd.args, " ")
	for {
		size, wait, ok := literal(line)
		if !ok {
			break
		}
		if !message && size > maxLiteral || size > maxMessage && !wait {
			r.c.tooLong(errTooLong)
			return false
		}
		r.quiet.Store(!wait)
		announced := line[:bytes.LastIndexByte(line, '{')]
		if !r.pass(fmt.Appendf(bytes.Clone(announced), "{%d}", size)) {
			return false
		}
		more, ok := r.await(cmd.tag)
		if !ok {
			return false
		}
		if !more {
			return wait || r.discard(line)
		}
		if _, err := io.CopyN(r.pipe, r.c.br, size); err != nil {
			return false
		}
		next, err := r.c.readLine()
		if err != nil {
			r.c.tooLong(err)
			return false
		}
		line = bytes.Clone(next)
		if message && len(trimEnd(line)) > 0 {
			r.c.bye(imapDisconnect) // the library would say nothing at all
			return false
		}
		message = cmd.verb == "APPEND"
	}
	r.quiet.Store(false)
	if !r.pass(line) {
		return false
	}
	more, ok := r.await(cmd.tag)
	if ok && more && cmd.verb == "IDLE" {
		return r.endIdle(cmd)
	}
	return ok
}

// endIdle waits for the client's DONE (RFC 2177).
func (r *relay) endIdle(cmd imapCommand) bool {
	done, err := r.c.readLine()
	if err != nil {
		return false
	}
	if r.x.expired(r.sess) {
		r.c.bye(imapExpired)
		return false
	}
	if !strings.EqualFold(string(trimEnd(done)), "DONE") {
		r.c.bye(imapDisconnect)
		return false
	}
	if !r.pass([]byte("DONE")) {
		return false
	}
	_, ok := r.await(cmd.tag)
	return ok
}

// pass gives the library one line, with the line end that it wants.
func (r *relay) pass(line []byte) bool {
	if !wellFormed(line) {
		r.c.bye(imapDisconnect)
		return false
	}
	_, err := r.pipe.Write(append(trimEnd(line), "\r\n"...))
	return err == nil
}

// wellFormed says whether the library takes a line for one line: it takes a CR
// within for the end of it, and lets a quoted string go on after it.
func wellFormed(line []byte) bool {
	quoted, escaped := false, false
	for _, b := range trimEnd(line) {
		switch {
		case b == '\r' || b == 0:
			return false
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		}
	}
	return !quoted
}

// discard reads over what the client has sent of a refused command, from the
// literal that line announces.
func (r *relay) discard(line []byte) bool {
	for {
		size, wait, ok := literal(line)
		if !ok || wait {
			return true
		}
		if _, err := io.CopyN(io.Discard, r.c.br, size); err != nil {
			return false
		}
		var err error
		if line, err = r.c.readLine(); err != nil {
			return false
		}
	}
}

// answers passes the library's responses to the client, each whole, and tells
// the relay of those it waits for. When the library ends, so does the client's
// connection.
func (r *relay) answers(from *bufio.Reader) {
	defer close(r.events)
	defer r.c.conn.Close()
	for {
		word, err := r.answer(from)
		if err != nil {
			return
		}
		if word == "*" {
			continue
		}
		select {
		case r.events <- word:
		case <-r.stop:
			return
		}
	}
}

// answer passes one response on and returns its first word.
func (r *relay) answer(from *bufio.Reader) (word string, err error) {
	line, err := from.ReadBytes('\n')
	if err != nil {
		return "", err
	}
	first, _, _ := bytes.Cut(line, []byte(" "))
	word = string(first)
	if word == "+" && r.quiet.Load() {
		return word, nil
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	for {
		if _, err := r.c.bw.Write(line); err != nil {
			return "", err
		}
		size, _, ok := literal(line)
		if !ok {
			return word, r.c.bw.Flush()
		}
		if _, err := io.CopyN(r.c.bw, from, size); err != nil {
			return "", err
		}
		if line, err = from.ReadBytes('\n'); err != nil {
			return "", err
		}
	}
}

// pipeConn is the library's end of a pipe. It knows whose it is, and when the
// library is done with it.
type pipeConn struct {
	net.Conn
	mailbox *mailbox
	once    sync.Once
	ended   chan struct{}
}

// The library's time limits are not kept: the relay has its own, and the timer
// of a pipe outlives it by as long as it was set for.

func (p *pipeConn) SetDeadline(time.Time) error      { return nil }
func (p *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (p *pipeConn) SetWriteDeadline(time.Time) error { return nil }

// Close is the last thing that the library does with a connection.
func (p *pipeConn) Close() error {
	p.once.Do(func() { close(p.ended) })
	return p.Conn.Close()
}

// pipeListener hands connections to the library.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) hand(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("sandbox: %w", net.ErrClosed)
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Net: "pipe"} }
