package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
)

// newIMAPRelay passes a session on as it comes, or, for a read-only app
// password, command by command.
func newIMAPRelay(s *session, up *upstream, grant Grant) relay {
	r := &imapRelay{s: s, up: up}
	r.received.ended, r.sent.ended = r.answered, r.commanded
	if grant.ReadOnly {
		return &imapFiltered{imapRelay: r}
	}
	return r
}

// imapRelay passes bytes on unread, and follows them just enough to know
// whether a response, or an APPEND, is under way.
type imapRelay struct {
	s  *session
	up *upstream

	received position // of the upstream's responses; guarded by client.mu

	mu        sync.Mutex
	sent      position // of the client's commands
	appending string   // the tag of an APPEND without its answer yet
	loggedOut string   // the tag of a LOGOUT
}

func (r *imapRelay) fromClient() error {
	err := r.s.copy(r, r.s.client.conn, r.s.client.in, &r.s.up)
	if isReadError(err) && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Write takes what the client sends.
func (r *imapRelay) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.sent.advance(p)
	r.mu.Unlock()
	return r.up.conn.Write(p)
}

// commanded is told of each command that the client has sent. mu is held.
func (r *imapRelay) commanded(head []byte) {
	switch cmd := parseIMAPCommand(head); cmd.verb {
	case "APPEND":
		r.appending = cmd.tag
		if !bytes.Contains(bytes.ToLower(cmd.args), []byte(`\draft`)) {
			r.s.server.journal.noteFiled(r.s.grant.Mailbox)
		}
	case "LOGOUT":
		r.loggedOut = cmd.tag
	}
}

// answered is told of each response.
func (r *imapRelay) answered(head []byte) {
	tag, _, _ := bytes.Cut(head, []byte(" "))
	if len(tag) == 0 || tag[0] == '*' || tag[0] == '+' {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch string(tag) {
	case r.appending:
		r.appending = ""
	case r.loggedOut:
		r.s.leaving.Store(true)
	}
	// A command that is answered before all of it was sent (a literal that the
	// server does not want) is over.
	if !r.sent.between() && parseIMAPCommand(r.sent.head).tag == string(tag) {
		r.sent = position{ended: r.commanded}
	}
}

func (r *imapRelay) advance(b []byte) { r.received.advance(b) }
func (r *imapRelay) between() bool    { return r.received.between() }
func (r *imapRelay) report()          {}
func (r *imapRelay) upstreamEnded()   {}

func (r *imapRelay) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.appending != "" || !r.sent.between()
}

// imapFiltered holds a session to commands that change nothing.
type imapFiltered struct {
	*imapRelay
}

func (r *imapFiltered) fromClient() error {
	s := r.s
	f := &imapFilter{
		in:       bufio.NewReaderSize(touching{s}, readBuffer),
		ask:      func() error { return s.client.inject("+ go ahead\r\n") },
		offers:   strings.Join(imapPassedOn(r.up.offers, true), " "),
		literals: slices.ContainsFunc(r.up.offers, func(c string) bool { return strings.EqualFold(c, "LITERAL+") }),
	}
	for {
		pass, answer, err := f.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTooLong):
			return &ending{public: "command too long", cause: err}
		case err != nil:
			return readFailed(err)
		case answer != "":
			err = s.client.inject(answer + "\r\n")
		default:
			r.mu.Lock()
			r.commanded(pass)
			r.mu.Unlock()
			err = s.passUp(r.up, pass)
		}
		if err != nil {
			return err
		}
	}
}

// touching is what the client sends; each read shows that it is not idle.
type touching struct{ s *session }

func (t touching) Read(p []byte) (int, error) {
	n, err := t.s.client.in.Read(p)
	t.s.touch()
	return n, err
}

// busy is never true: nothing is stored.
func (r *imapFiltered) busy() bool { return false }
