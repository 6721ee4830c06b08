package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// maxRecipients is Exchange's default for a message
// (https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits).
const maxRecipients = 500

// smtpSubmit is a signed-in SMTP session of a mailbox that sends by Graph: there
// is no server behind it, so it is one itself (RFC 6409).
type smtpSubmit struct {
	s     *session
	grant Grant
	limit int64 // of a message

	from     string
	mailing  bool // MAIL was accepted, and its message has not ended
	to       []string
	reserved bool         // it is counted already
	taking   bool         // it is among those that the outbox has let in
	chunks   *messageText // what BDAT has brought; nil: nothing
	untold   *note        // of a message whose 250 the client may not have got

	mu      sync.Mutex
	working bool // something is under way that a shutdown should let arrive
}

func newSMTPSubmit(s *session, grant Grant) *smtpSubmit {
	return &smtpSubmit{s: s, grant: grant, limit: s.server.graphSize()}
}

// The gateway's own replies go out whole.
func (r *smtpSubmit) advance([]byte)     {}
func (r *smtpSubmit) between() bool      { return true }
func (r *smtpSubmit) report()            {}
func (r *smtpSubmit) upstreamEnded()     {}
func (r *smtpSubmit) fromClient() error  { return nil }
func (r *smtpSubmit) setWorking(is bool) { r.mu.Lock(); r.working = is; r.mu.Unlock() }

func (r *smtpSubmit) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.working
}

// serve answers the client's commands until it leaves or ctx ends.
func (r *smtpSubmit) serve(ctx context.Context) error {
	defer r.finished()
	for {
		line, err := readLine(r.s.client.in, maxCommand)
		r.s.touch()
		switch {
		case errors.Is(err, errTooLong):
			return &ending{public: "command too long", cause: err}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // without TLS's good-bye, as of many
			r.told()
			return nil
		case err != nil:
			if ctx.Err() != nil && errors.Is(endingOf(ctx), errIdle) { // TCP would have found it gone
				r.told()
			}
			return fmt.Errorf("the client's connection was lost: %w", err)
		}
		r.told()
		line = withoutEOL(line)
		if bytes.ContainsAny(line, "\r\x00") { // some take a bare CR for a line's end
			err = answer("500 5.5.2 a command is one line of text")
		} else {
			err = r.do(ctx, line)
		}
		if a, ok := errors.AsType[answer](err); ok {
			err = r.s.reply("%s", string(a))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// told forgets the note of a message once the client has got its 250: it says
// something else, or leaves in order.
func (r *smtpSubmit) told() {
	if r.untold == nil {
		return
	}
	if err := r.s.server.journal.forget(*r.untold); err != nil {
		r.s.log.Error("a note of a message could not be removed; should the same message come again, it is looked for", "cause", err)
	}
	r.untold = nil
}

// do executes one command (RFC 5321 section 4.1). An answer is its reply; io.EOF
// is the end.
func (r *smtpSubmit) do(ctx context.Context, line []byte) error {
	verb, args := smtpCommand(line)
	switch verb {
	case "EHLO":
		if args == "" {
			return answer("501 5.5.4 EHLO takes the client's name")
		}
		r.finished()
		return answer(smtpLines("250", append([]string{"o365pw"}, graphOffers(r.limit)...)))
	case "HELO":
		r.finished()
		return answer("250 o365pw")
	case "RSET":
		r.finished()
		return answer("250 2.0.0 OK")
	case "NOOP":
		return answer("250 2.0.0 OK")
	case "MAIL":
		return r.mail(args)
	case "RCPT":
		return r.rcpt(args)
	case "DATA":
		return r.data(ctx, args)
	case "BDAT":
		return r.chunk(ctx, args)
	case "VRFY":
		return answer("252 2.5.0 it is tried when a message comes")
	case "EXPN":
		return answer("502 5.5.1 there are no lists here")
	case "HELP":
		return answer("214 2.0.0 this mailbox sends by Microsoft Graph, since SMTP is closed to it")
	case "QUIT":
		r.s.leaving.Store(true)
		if err := r.s.reply("221 2.0.0 o365pw says good-bye"); err != nil {
			return err
		}
		return io.EOF
	case "AUTH":
		return answer("503 5.5.1 you have signed in")
	case "STARTTLS":
		return answer("503 5.5.1 too late for STARTTLS: you have signed in")
	}
	return answer("500 5.5.2 unknown command")
}

// mail is MAIL FROM, held to the senders and the number of messages that the app
// password allows.
func (r *smtpSubmit) mail(args string) error {
	if r.mailing {
		return answer("503 5.5.1 a message is under way; RSET ends it")
	}
	from, params, ok := smtpAddress("FROM:", args)
	if !ok {
		return answer("501 5.5.4 MAIL takes FROM:<address>")
	}
	if refusal := submitMailParams(params, r.limit); refusal != "" {
		return refusal
	}
	if !r.grant.maySendAs(from) {
		r.s.log.Warn("a sender was refused", "app_password", r.grant.Name, "from", limited(from, 100), "mailbox", r.grant.Mailbox)
		return answer(r.grant.wrongSender("the sender", from))
	}
	if r.grant.MaxPerHour > 0 {
		wait, ok := r.s.server.quota.reserve(r.grant)
		if !ok {
			r.s.log.Warn("a message was refused: the app password has sent its number within the hour", "app_password", r.grant.Name, "limit", r.grant.MaxPerHour)
			return answer(fmt.Sprintf("450 4.7.1 this app password may send %d messages an hour; try again in %s", r.grant.MaxPerHour, minutes(wait)))
		}
		r.reserved = true
	}
	r.from, r.mailing = from, true
	r.setWorking(true)
	return answer("250 2.1.0 OK")
}

func (r *smtpSubmit) rcpt(args string) error {
	to, params, ok := smtpAddress("TO:", args)
	switch {
	case !r.mailing:
		return answer("503 5.5.1 send MAIL first")
	case !ok || to == "":
		return answer("501 5.1.3 RCPT takes TO:<address>")
	case strings.ContainsFunc(to, func(c rune) bool { return c > unicode.MaxASCII }):
		return answer("553 5.6.7 this mailbox sends by Graph, which takes no addresses beyond ASCII")
	case r.chunks != nil:
		return answer("503 5.5.1 the message has begun")
	case len(r.to) >= maxRecipients:
		return answer("452 4.5.3 too many recipients: 500 is the most")
	}
	if refusal := submitRcptParams(params); refusal != "" {
		return refusal
	}
	r.to = append(r.to, to)
	return answer("250 2.1.5 OK")
}

// data is DATA.
func (r *smtpSubmit) data(ctx context.Context, args string) error {
	switch {
	case args != "":
		return answer("501 5.5.4 DATA has no arguments")
	case !r.mailing:
		return answer("503 5.5.1 send MAIL first")
	case len(r.to) == 0:
		return answer("554 5.5.1 no recipients: RCPT comes before DATA")
	case r.chunks != nil:
		return answer("503 5.5.1 the message comes by BDAT")
	case !r.take():
		return errTaking
	}
	if err := r.s.reply("354 end with a line that is a dot"); err != nil {
		return err
	}
	text := &messageText{limit: r.limit, dots: true}
	if err := r.s.copyMessage(bufio.NewWriterSize(text, bufferSize), func() {}); err != nil {
		return r.lost(err)
	}
	return r.deliver(ctx, text)
}

// chunk is BDAT (RFC 3030), which clients use that were told before sign-in what
// the upstream can do. Its bytes follow, whatever the answer is.
func (r *smtpSubmit) chunk(ctx context.Context, args string) error {
	size, rest, _ := strings.Cut(args, " ")
	n, err := strconv.ParseUint(size, 10, 62)
	last := strings.EqualFold(strings.TrimSpace(rest), "LAST")
	if err != nil || n > maxChunk || !last && strings.TrimSpace(rest) != "" {
		return &ending{public: "BDAT takes a number of bytes", cause: errors.New("BDAT without a size that can be: where the next command begins is unknown")}
	}
	text := r.chunks
	if text == nil {
		text = &messageText{limit: r.limit}
	}
	begun := r.mailing && len(r.to) > 0
	taking := begun && r.take()
	if !taking {
		text = &messageText{}
	}
	if err := r.read(int64(n), text); err != nil {
		return r.lost(err)
	}
	switch {
	case !begun:
		return answer("503 5.5.1 send MAIL and RCPT first")
	case !taking:
		r.finished() // what follows this chunk is not to be taken for all of it
		return errTaking
	}
	if r.chunks = text; !last {
		return answer("250 2.0.0 OK")
	}
	return r.deliver(ctx, text)
}

// errTaking puts a message off.
const errTaking = answer("450 4.3.2 this app password is sending too many messages at once; try again in a minute")

// take says whether the message may be taken in.
func (r *smtpSubmit) take() bool {
	if !r.taking {
		if r.taking = r.s.server.outbox.take(r.grant); !r.taking {
			r.s.log.Warn("a message was put off: the app password sends too many messages at once", "app_password", r.grant.Name, "limit", maxTaking)
		}
	}
	return r.taking
}

// read reads n bytes of the client's.
func (r *smtpSubmit) read(n int64, into io.Writer) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for n > 0 {
		k, err := r.s.client.in.Read(buffer[:min(n, bufferSize)])
		r.s.touch()
		if err != nil {
			return err
		}
		_, _ = into.Write(buffer[:k])
		n -= int64(k)
	}
	return nil
}

func (r *smtpSubmit) lost(err error) error {
	return fmt.Errorf("the client's connection was lost in a message: %w", err)
}

// deliver hands a message over, and tells the client.
func (r *smtpSubmit) deliver(ctx context.Context, text *messageText) error {
	defer r.finished()
	message, ok := text.message()
	if !ok {
		return tooLarge(r.limit)
	}
	m := &submission{server: r.s.server, grant: r.grant, letter: letter{from: r.from, to: r.to, message: message}}
	sent, err := m.submit(ctx)
	r.s.touch()
	if err != nil {
		return r.refused(err)
	}
	if r.reserved && sent {
		r.s.server.quota.count(r.grant)
		r.reserved = false
	}
	if sent {
		r.s.up.Add(int64(len(m.fitted.message)))
		r.s.tell(Event{Kind: MessageSent, Grant: r.grant})
	} else {
		r.s.log.Info("a message that came again was sent before; it was not sent twice", "app_password", r.grant.Name, "mailbox", r.grant.Mailbox, "message_id", limited(m.note.MessageID, 200))
	}
	reply := lineText("250 2.0.0 sent by Graph as " + limited(m.note.MessageID, 200))
	if r.hungUp() && (r.s.client.in.Buffered() == 0 || !m.fitted.given) {
		// It has gone without an answer and will come again, unless it has only
		// half-closed. One that has sent QUIT ahead, as Postfix does, is known
		// again by its message's id; a script's message without one may be the same
		// each time.
		_ = r.s.reply("%s", reply)
		return io.EOF
	}
	r.untold = &m.note
	return answer(reply)
}

// hangUpLook is how long hungUp looks: what has come already is read at once.
const hangUpLook = time.Millisecond

// hungUp says whether the client has ended the connection, after what it has sent
// ahead.
func (r *smtpSubmit) hungUp() bool {
	in := r.s.client.in
	if in.Buffered() == in.Size() {
		return false
	}
	_ = r.s.client.raw.SetReadDeadline(time.Now().Add(hangUpLook))
	_, err := in.Peek(in.Buffered() + 1)
	_ = r.s.client.raw.SetReadDeadline(time.Time{}) // an end of the session has a limit of its own
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// refused is the reply for a message that was not sent, or of which nobody knows.
func (r *smtpSubmit) refused(err error) error {
	if a, ok := errors.AsType[answer](err); ok {
		r.s.log.Warn("a message was refused", "app_password", r.grant.Name, "mailbox", r.grant.Mailbox, "said", string(a))
		return a
	}
	se, ok := errors.AsType[*SubmitError](err)
	if !ok {
		return err // the session has ended
	}
	r.s.log.Warn("a message was not sent by Graph", "app_password", r.grant.Name, "mailbox", r.grant.Mailbox, "said", se.Code, "cause", se)
	return se.reply()
}

// reply is what the client gets.
func (e *SubmitError) reply() answer {
	text := e.Code + " " + e.Public
	if e.Wait > 0 {
		text += "; try again in " + pauseText(e.Wait)
	}
	return answer(lineText(limited(text, 400)))
}

// pauseText writes a wait for a person.
func pauseText(d time.Duration) string {
	if d <= 90*time.Second {
		return fmt.Sprintf("%d seconds", int((d+time.Second-1)/time.Second))
	}
	return minutes(d)
}

// finished ends the mail transaction.
func (r *smtpSubmit) finished() {
	if r.reserved {
		r.s.server.quota.release(r.grant)
	}
	if r.taking {
		r.s.server.outbox.taken(r.grant)
	}
	r.from, r.mailing, r.to, r.reserved, r.taking, r.chunks = "", false, nil, false, false, nil
	r.setWorking(false)
}
