package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// smtpRelay is a signed-in SMTP session.
type smtpRelay struct {
	dialogue
	grant Grant
	quota *quota

	// Guarded by mu.
	mailing  bool // a message has begun and not ended
	reserved bool // it is counted already
}

func newSMTPRelay(s *session, up *upstream, grant Grant) relay {
	r := &smtpRelay{grant: grant, quota: &s.server.quota}
	r.start(s, up, smtpWhole)
	return r
}

// smtpWhole is RFC 5321 section 4.2.1: all lines but the last have a hyphen
// after their code.
func smtpWhole(line []byte, _ bool, _ expected) bool { return len(line) < 4 || line[3] != '-' }

func (r *smtpRelay) fromClient() error {
	return r.serve(smtpMaxLine, "500 5.5.2 a command is one line of text", r.do)
}

// do serves one command after sign-in (RFC 5321 section 4.1). What it does not
// know cannot be passed on: it could be followed by anything.
func (r *smtpRelay) do(line []byte) error {
	verb, args := smtpCommand(line)
	switch verb {
	case "EHLO", "HELO", "RSET":
		return r.reset(line)
	case "RCPT", "NOOP", "VRFY", "EXPN", "HELP", "QUIT":
		return r.pass(line, expected{done: r.noted(verb)})
	case "MAIL":
		return r.mail(line, args)
	case "DATA":
		return r.data(line)
	case "BDAT":
		return r.chunk(line, args)
	case "AUTH":
		return r.answer("503 5.5.1 you have signed in")
	case "STARTTLS":
		return r.answer("503 5.5.1 too late for STARTTLS: you have signed in")
	}
	return r.answer("500 5.5.2 unknown command")
}

// reset passes on what ends a mail transaction without a message (RFC 5321
// sections 4.1.1.5 and 4.1.4).
func (r *smtpRelay) reset(line []byte) error {
	if err := r.pass(line, expected{}); err != nil {
		return err
	}
	// A MAIL that is sent with it begins another one.
	if err := r.settle(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished()
	return nil
}

// mail is MAIL FROM, held to the senders and the number of messages that the
// app password allows.
func (r *smtpRelay) mail(line []byte, args string) error {
	if len(r.grant.From) > 0 {
		sender, ok := smtpPath(args)
		if !ok {
			return r.answer("501 5.5.4 MAIL FROM takes an address in angle brackets")
		}
		if !senderAllowed(r.grant.From, sender) {
			r.s.log.Warn("a sender was refused", "app_password", r.grant.Name, "from", limited(sender, 100), "allowed", strings.Join(r.grant.From, ", "))
			return r.answer(lineText("550 5.7.60 this app password may not send as " + limited(sender, 100) + "; it sends as " + limited(strings.Join(r.grant.From, ", "), 200)))
		}
	}
	if r.underWay() {
		// What came of the message before decides whether this one may come.
		if err := r.settle(); err != nil {
			return err
		}
	}
	if r.grant.MaxPerHour > 0 && !r.underWay() {
		wait, ok := r.quota.reserve(r.grant)
		if !ok {
			r.s.log.Warn("a message was refused: the app password has sent its number within the hour", "app_password", r.grant.Name, "limit", r.grant.MaxPerHour)
			return r.answer(fmt.Sprintf("450 4.7.1 this app password may send %d messages an hour; try again in %s", r.grant.MaxPerHour, minutes(wait)))
		}
	}
	r.mu.Lock()
	r.mailing, r.reserved = true, r.grant.MaxPerHour > 0
	r.mu.Unlock()
	return r.pass(line, expected{done: func(first []byte) {
		if r.explain("the sender", first); !smtpPositive(first) {
			r.finished()
		}
	}})
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
	r.mailing, r.reserved = false, false
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
	r.mailing, r.reserved = false, false
	r.s.tell(Event{Kind: MessageSent, Grant: r.grant})
}

func (r *smtpRelay) noted(verb string) func([]byte) {
	if verb != "RCPT" {
		return nil
	}
	return func(first []byte) { r.explain("a recipient", first) }
}

// explain logs what mends a refusal that only an administrator can do away
// with.
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
	r.s.log.Warn("the upstream refused "+what, "app_password", r.grant.Name, "mailbox", r.grant.Mailbox, "said", limited(string(first), 200), "to_mend_it", mend)
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
	var code string
	if err := r.pass(line, expected{done: func(first []byte) { code = string(first[:min(3, len(first))]) }}); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	if code != "354" {
		return nil
	}
	r.expect(expected{message: true, done: r.sent})
	return r.message()
}

// expect awaits a reply to something that is no command.
func (r *smtpRelay) expect(want expected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, want)
}

// message passes a message on, up to the line with a lone dot (RFC 5321
// section 4.5.2).
//
// Only CRLF "." CRLF ends it. Servers disagree about dots after a bare LF, so
// that a message could end for one and go on for the other, with commands in
// its second half that nobody has looked at. So bare LFs, which RFC 5321
// section 2.3.8 forbids, are made CRLFs, and a dot that only this puts at the
// beginning, or alone on a line, is doubled.
func (r *smtpRelay) message() error {
	in := r.s.client.in
	out := bufio.NewWriterSize(upWriter{r.s, r.up}, bufferSize)
	begin, whole := true, true // at the beginning of a line; the line before ended in CRLF
	var last byte              // of the line so far
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		part, err := in.ReadSlice('\n')
		r.s.touch()
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return readFailed(err)
		}
		if begin && whole && string(part) == ".\r\n" {
			_, _ = out.Write(part)
			return out.Flush()
		}
		if begin && part[0] == '.' && (!whole || string(part) == ".\n") {
			_ = out.WriteByte('.')
		}
		n := len(part)
		if begin = part[n-1] == '\n'; !begin {
			last = part[n-1]
		} else {
			if n > 1 {
				last = part[n-2]
			}
			if whole = last == '\r'; !whole {
				_, _ = out.Write(part[:n-1])
				part = []byte("\r\n")
			}
			last = 0
		}
		if _, err := out.Write(part); err != nil {
			return err
		}
	}
}

// chunk is BDAT (RFC 3030): a number of bytes follows at once.
func (r *smtpRelay) chunk(line []byte, args string) error {
	size, rest, _ := strings.Cut(args, " ")
	n, err := strconv.ParseUint(size, 10, 62)
	last := strings.EqualFold(strings.TrimSpace(rest), "LAST")
	if err != nil || !last && strings.TrimSpace(rest) != "" {
		return &ending{public: "BDAT takes a number of bytes", cause: errors.New("BDAT without a size: where the next command begins is unknown")}
	}
	want := expected{}
	if last {
		want = expected{message: true, done: r.sent}
	}
	if err := r.pass(line, want); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for left := int64(n); left > 0; {
		k, err := r.s.client.in.Read(buffer[:min(left, bufferSize)])
		r.s.touch()
		if err != nil {
			return readFailed(err)
		}
		if err := r.s.passUp(r.up, buffer[:k]); err != nil {
			return err
		}
		left -= int64(k)
	}
	return nil
}

// upstreamEnded counts a message whose reply was lost: it may have been sent.
func (r *smtpRelay) upstreamEnded() {
	r.dialogue.upstreamEnded()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reserved && slices.ContainsFunc(r.waiting, func(e expected) bool { return e.message }) {
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

// smtpPath is the address of MAIL FROM:<address> and its parameters (RFC 5321
// section 4.1.2), without the angle brackets. Source routes, which no client
// has sent for decades, are not taken.
func smtpPath(args string) (address string, ok bool) {
	if len(args) < 5 || !strings.EqualFold(args[:5], "FROM:") {
		return "", false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(args[5:], " "), "<")
	if !ok {
		return "", false
	}
	// A quoted local part may hold a bracket. None is allowed to here.
	address, rest, ok = strings.Cut(rest, ">")
	if !ok || strings.ContainsAny(address, "<\"\\") || strings.HasPrefix(address, "@") || rest != "" && rest[0] != ' ' {
		return "", false
	}
	return address, true
}

// senderAllowed compares without regard to case, as Exchange does.
func senderAllowed(allowed []string, sender string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		if strings.HasPrefix(a, "@") {
			at := strings.LastIndexByte(sender, '@')
			return at > 0 && strings.EqualFold(sender[at:], a)
		}
		return strings.EqualFold(sender, a)
	})
}
