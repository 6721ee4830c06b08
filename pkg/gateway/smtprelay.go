package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// smtpRelay is a signed-in SMTP session.
type smtpRelay struct {
	dialogue
	grant Grant
	quota *quota
	hello []string // the reply to the client's first EHLO; nil: it has had one

	// Guarded by mu.
	mailing  bool // a message has begun and not ended
	reserved bool // it is counted already
	whole    bool // all of it has gone upstream
}

func newSMTPRelay(s *session, up *upstream, grant Grant) relay {
	r := &smtpRelay{grant: grant, quota: &s.server.quota}
	r.start(s, up, smtpWhole)
	if s.granted != nil {
		// The upstream's own reply would offer to sign in.
		r.hello = append([]string{"o365pw"}, up.offers...)
	}
	return r
}

// smtpWhole is RFC 5321 section 4.2.1: all lines but the last have a hyphen
// after their code.
func smtpWhole(line []byte, _ bool, _ expected) bool { return len(line) < 4 || line[3] != '-' }

func (r *smtpRelay) fromClient() error {
	return r.serve(maxCommand, "500 5.5.2 a command is one line of text", r.do)
}

// do serves one command after sign-in (RFC 5321 section 4.1). What it does not
// know cannot be passed on: it could be followed by anything.
func (r *smtpRelay) do(line []byte) error {
	verb, args := smtpCommand(line)
	switch verb {
	case "EHLO", "HELO", "RSET":
		if hello := r.hello; hello != nil && verb != "RSET" {
			r.hello = nil
			if verb == "HELO" {
				return r.answer("250 o365pw")
			}
			return r.answer(smtpLines("250", hello))
		}
		return r.reset(line)
	case "RCPT", "NOOP", "VRFY", "EXPN", "HELP", "QUIT":
		return r.pass(line, expected{done: r.noted(verb)})
	case "MAIL":
		return r.mail(line, args)
	case "DATA":
		return r.data(line)
	case "BDAT":
		return r.chunk(args)
	case "AUTH":
		return r.answer("503 5.5.1 you have signed in")
	case "STARTTLS":
		return r.answer("503 5.5.1 too late for STARTTLS: you have signed in")
	}
	return r.answer("500 5.5.2 unknown command")
}

// reset passes on what ends a mail transaction without a message (RFC 5321
// sections 4.1.1.5 and 4.1.4), if the upstream takes it.
func (r *smtpRelay) reset(line []byte) error {
	err := r.pass(line, expected{done: func(first []byte) {
		if smtpPositive(first) {
			r.finished()
		}
	}})
	if err != nil {
		return err
	}
	return r.settle() // a MAIL that is sent with it begins another one
}

// mail is MAIL FROM, held to the senders and the number of messages that the
// app password allows.
func (r *smtpRelay) mail(line []byte, args string) error {
	if len(r.grant.From) > 0 {
		sender, ok := smtpPath(args)
		if !ok {
			return r.answer("501 5.5.4 with this app password MAIL FROM takes a plain address in angle brackets: no quotes, comments or routes")
		}
		if !senderAllowed(r.grant.From, sender) {
			r.s.log.Warn("a sender was refused", "app_password", r.grant.Name, "from", limited(sender, 100), "allowed", strings.Join(r.grant.From, ", "))
			return r.answer(lineText("550 5.7.60 this app password may not send as " + cmp.Or(limited(sender, 100), "nobody (an empty sender)") + "; it sends as " + limited(strings.Join(r.grant.From, ", "), 200)))
		}
	}
	if r.underWay() {
		// What came of the message before decides whether this one may come.
		if err := r.settle(); err != nil {
			return err
		}
	}
	begins := !r.underWay() // else the upstream will refuse it, and the one under way goes on
	if refusal := r.reserve(); refusal != "" {
		return r.answer(refusal)
	}
	r.mu.Lock()
	r.mailing = true
	r.mu.Unlock()
	return r.pass(line, expected{done: func(first []byte) {
		if r.explain("the sender", first); begins && !smtpPositive(first) {
			r.finished()
		}
	}})
}

// reserve counts a message that is about to be sent, unless it is counted
// already. It returns the reply where no more may be sent.
func (r *smtpRelay) reserve() (refusal string) {
	wait, ok := r.tryReserve()
	if ok {
		return ""
	}
	r.s.log.Warn("a message was refused: the app password has sent its number within the hour", "app_password", r.grant.Name, "limit", r.grant.MaxPerHour)
	return fmt.Sprintf("450 4.7.1 this app password may send %d messages an hour; try again in %s", r.grant.MaxPerHour, minutes(wait))
}

func (r *smtpRelay) tryReserve() (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grant.MaxPerHour == 0 || r.reserved || r.gone { // after gone nobody would give it back
		return 0, true
	}
	wait, r.reserved = r.quota.reserve(r.grant)
	return wait, r.reserved
}

// underWay says whether a message has begun.
func (r *smtpRelay) underWay() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mailing
}

// finished ends the mail transaction without a message. mu is held.
func (r *smtpRelay) finished() {
	if r.reserved {
		r.quota.release(r.grant)
	}
	r.mailing, r.reserved, r.whole = false, false, false
}

// sent ends the mail transaction by the reply to the whole message. mu is held.
func (r *smtpRelay) sent(first []byte) {
	r.explain("the message", first)
	if !smtpPositive(first) {
		r.finished()
		return
	}
	if r.reserved {
		r.quota.count(r.grant)
	}
	r.mailing, r.reserved, r.whole = false, false, false
	r.later = append(r.later, func() { r.s.tell(Event{Kind: MessageSent, Grant: r.grant}) })
}

func (r *smtpRelay) noted(verb string) func([]byte) {
	switch verb {
	case "RCPT":
		return func(first []byte) { r.explain("a recipient", first) }
	case "QUIT":
		return func(first []byte) {
			if smtpPositive(first) {
				r.s.leaving.Store(true)
			}
		}
	}
	return nil
}

// explain logs what mends a refusal that only an administrator can do away
// with. mu is held.
func (r *smtpRelay) explain(what string, first []byte) {
	if smtpPositive(first) {
		return
	}
	mend := ""
	for sign, fix := range smtpFixes {
		if bytes.Contains(first, []byte(sign)) {
			mend = strings.ReplaceAll(fix, "MAILBOX", r.grant.Mailbox)
		}
	}
	said := quoted(string(first), 200)
	r.later = append(r.later, func() {
		r.s.log.Warn("the upstream refused "+what, "app_password", r.grant.Name, "mailbox", r.grant.Mailbox, "said", said, "to_mend_it", mend)
	})
}

// smtpFixes are what administrators do against Exchange's refusals.
var smtpFixes = map[string]string{
	"5.2.252":       "set the sender in the mail program to MAILBOX; or let it send as others: Add-RecipientPermission -Identity <other address> -Trustee <service principal> -AccessRights SendAs",
	"5.7.60":        "set the sender in the mail program to MAILBOX; or let it send as others: Add-RecipientPermission -Identity <other address> -Trustee <service principal> -AccessRights SendAs",
	"4.3.2":         "Exchange takes three messages of a mailbox at a time: let fewer programs send at once",
	"QuotaExceeded": "the mailbox has sent to 10,000 recipients within a day: wait until tomorrow",
}

// data is DATA: the message follows only after the upstream's 354.
func (r *smtpRelay) data(line []byte) error {
	if refusal := r.reserve(); refusal != "" {
		return r.answer(refusal)
	}
	var code string
	if err := r.pass(line, expected{done: func(first []byte) { code = string(first[:min(3, len(first))]) }}); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	r.mu.Lock()
	if code != "354" {
		if !r.mailing { // it was counted for nothing
			r.finished()
		}
		r.mu.Unlock()
		return nil
	}
	r.waiting = append(r.waiting, expected{done: r.sent})
	r.mu.Unlock()
	return r.message()
}

// passed notes that the upstream has, or is about to get, a whole message:
// without its reply nobody knows whether it was sent. One that was refused
// before its end is over already.
func (r *smtpRelay) passed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = r.mailing
}

// maxChunk is more than any server takes.
const maxChunk = 1 << 30

// chunk is BDAT (RFC 3030): a number of bytes follows at once, whatever the
// answer is. An upstream that does not know it would take them for commands.
func (r *smtpRelay) chunk(args string) error {
	size, rest, _ := strings.Cut(args, " ")
	n, err := strconv.ParseUint(size, 10, 62)
	last := strings.EqualFold(strings.TrimSpace(rest), "LAST")
	if err != nil || n > maxChunk || !last && strings.TrimSpace(rest) != "" {
		return &ending{public: "BDAT takes a number of bytes", cause: errors.New("BDAT without a size that can be: where the next command begins is unknown")}
	}
	refusal := ""
	switch {
	case !slices.Contains(r.up.offers, "CHUNKING"):
		refusal = "502 5.5.1 the mail server does not take BDAT"
	case !r.underWay():
		refusal = "503 5.5.1 send MAIL first"
	default:
		refusal = r.reserve()
	}
	if refusal != "" {
		if err := r.body(int64(n), func([]byte) error { return nil }); err != nil {
			return err
		}
		return r.answer(refusal)
	}
	// In the one spelling that nobody reads otherwise: the body must not be
	// taken for commands.
	command, want := "BDAT "+strconv.FormatUint(n, 10), expected{}
	if last {
		command, want.done = command+" LAST", r.sent
	}
	if err := r.pass([]byte(command), want); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.body(int64(n), func(p []byte) error { return r.s.passUp(r.up, p) }); err != nil {
		return err
	}
	if !last {
		return nil
	}
	r.passed()
	return r.settle() // what comes of it must not be taken for a later message's
}

// body reads n bytes of the client's, in pieces.
func (r *smtpRelay) body(n int64, each func([]byte) error) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for n > 0 {
		k, err := r.s.client.in.Read(buffer[:min(n, bufferSize)])
		r.s.touch()
		if err != nil {
			return readFailed(err)
		}
		if err := each(buffer[:k]); err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// upstreamEnded counts a message whose reply was lost: it may have been sent.
func (r *smtpRelay) upstreamEnded() {
	r.dialogue.upstreamEnded()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reserved && r.whole {
		r.quota.count(r.grant)
		r.reserved = false
	}
	r.finished()
}

func (r *smtpRelay) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mailing || len(r.waiting) > 0
}

func smtpPositive(line []byte) bool { return len(line) > 0 && (line[0] == '2' || line[0] == '3') }
