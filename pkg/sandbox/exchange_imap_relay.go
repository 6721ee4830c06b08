package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
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
			if x.awaitExpiry(sess, r.stop) {
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
	case cmd.verb == "LOGOUT":
		own("* "+imapGoodbye, cmd.tag+" OK LOGOUT completed.")
		return false
	case r.sess.mailbox.NotConnected:
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

// event waits for what the library answers.
func (r *relay) event() (string, bool) {
	select {
	case event, ok := <-r.events:
		return event, ok
	case <-time.After(commandTimeout):
		return "", false
	}
}

// forward passes a command on with its literals, and waits until it is done.
func (r *relay) forward(cmd imapCommand, line []byte) bool {
	// The last literal of APPEND is a message; the name may be one before it.
	message := cmd.verb == "APPEND" && strings.Contains(cmd.args, " ")
	for {
		if _, err := r.pipe.Write(line); err != nil {
			return false
		}
		size, wait, ok := literal(line)
		if !ok {
			break
		}
		if wait {
			if event, ok := r.event(); !ok || event != "+" {
				return ok // refused: the client does not send it
			}
		}
		if !message && size > maxLiteral || size > maxMessage {
			r.c.tooLong(errTooLong)
			return false
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
		if message && len(bytes.TrimRight(line, "\r\n")) > 0 {
			r.c.bye(imapDisconnect) // the library would say nothing at all
			return false
		}
		message = cmd.verb == "APPEND"
	}
	event, ok := r.event()
	if ok && event == "+" && cmd.verb == "IDLE" { // RFC 2177
		done, err := r.c.readLine()
		if err != nil {
			return false
		}
		if r.x.expired(r.sess) {
			r.c.bye(imapExpired)
			return false
		}
		// The library takes DONE in upper case alone.
		if _, err := r.pipe.Write(bytes.ToUpper(done)); err != nil {
			return false
		}
		_, ok = r.event()
	}
	return ok
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
