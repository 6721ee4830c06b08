package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// submitTime bounds one submission: a large message over a slow line.
	submitTime = 3 * time.Minute
	// lookTime is how long a message whose answer was lost is looked for, while
	// the client waits: a copy appears in Sent Items within seconds as a rule.
	lookTime = 15 * time.Second
	// notSentAfter is when a message that is not in Sent Items is taken for one
	// that was not sent.
	notSentAfter = 5 * time.Minute
	// lastGrace is how long a submission may go on once its session has ended:
	// cut off, nobody would know what became of it.
	lastGrace = 3 * time.Second
)

// lookAfter are the pauses between two looks.
var lookAfter = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// submission is one message on its way.
type submission struct {
	server *Server
	grant  Grant
	letter letter
	note   note
	fitted fitted
}

// submit sends a message, or finds that it was sent before, and says how: nil is
// the client's 250, and the note that is to be forgotten once the client has heard
// of it. An error is the reply. Where sent is false and the error nil, it was sent
// before.
//
// fitted → turn → was it sent before? → note → Graph → 250 → note forgotten
//
// Killed after the note, the message may have been sent or not, and the client has
// no answer: when it comes again, it is looked for.
func (m *submission) submit(ctx context.Context) (sent bool, err error) {
	now := time.Now()
	if m.fitted, err = m.letter.fit(m.grant, now, newMessageID(m.grant.Mailbox)); err != nil {
		return false, err
	}
	if n, limit := int64(len(m.fitted.message)), m.server.graphSize()+headerRoom; n > limit {
		return false, tooLarge(m.server.graphSize())
	}
	m.note = newNote(m.grant, m.letter, m.fitted.id, now)
	leave, wait, ok := m.server.outbox.enter(ctx, m.grant.Mailbox)
	if !ok {
		if ctx.Err() != nil {
			return false, endingOf(ctx)
		}
		return false, comeAgain("451 4.3.2", "this mailbox is sending other messages", wait)
	}
	defer leave()

	// What is under way goes on for a moment when the session ends.
	ctx, cancel := outlive(ctx, lastGrace)
	defer cancel()
	before, err := m.sentBefore(ctx)
	if err != nil || before {
		return false, err
	}
	m.note.Time = time.Now().UTC()
	m.note.Shared = m.server.journal.isRecent(m.note)
	if err := m.server.journal.write(m.note); err != nil {
		return false, &SubmitError{Code: "451 4.3.0", Public: "the gateway cannot write to its folder, so it sends nothing", Err: err}
	}
	m.server.outbox.count(m.grant.Mailbox)
	posting, end := context.WithTimeout(ctx, submitTime)
	defer end()
	err = m.server.Graph.Submit(posting, m.grant, m.fitted.message)
	if err == nil {
		m.server.journal.accept(m.note)
		return true, nil
	}
	se, ok := errors.AsType[*SubmitError](err)
	if !ok {
		se = &SubmitError{Unknown: true, Err: err} // a fault, a panic for instance: nobody knows
	}
	if se.Wait > 0 {
		m.server.outbox.hold(m.grant.Mailbox, se.Wait)
	}
	if se.Denied {
		m.server.switched.deny(m.grant)
	}
	if !se.Unknown {
		m.forget(m.note)
		return false, se
	}
	return m.lookFor(ctx, se)
}

// lookFor looks for a message whose answer was lost.
func (m *submission) lookFor(ctx context.Context, lost *SubmitError) (bool, error) {
	for _, pause := range lookAfter {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, endingOf(ctx)
		}
		found, err := m.look(ctx, m.note)
		switch {
		case found:
			m.server.journal.accept(m.note)
			return true, nil
		case errors.Is(err, errors.ErrUnsupported):
			return false, m.cannotTell(m.note, lost)
		}
	}
	return false, unknownYet(notSentAfter, lost)
}

// sentBefore says whether the message was sent already, by what the notes say. Its
// error is the reply where that is not known.
func (m *submission) sentBefore(ctx context.Context) (bool, error) {
	journal := &m.server.journal
	notes, all, bad, err := journal.about(m.note, time.Now())
	if bad != nil {
		m.server.log().Error("notes of messages cannot be used; should one of these messages come again, it may be sent twice", "cause", bad)
	}
	if err != nil {
		return false, &SubmitError{Code: "451 4.3.0", Public: "the message may have been sent already: the gateway cannot read its note of it", Err: err}
	}
	if all >= maxNotes {
		return false, &SubmitError{Code: "451 4.3.1", Public: "too many messages of this mailbox may have been sent or not; try again tomorrow", Err: fmt.Errorf("%d messages of this mailbox and the last day may have been sent or not", all)}
	}
	for _, n := range notes {
		same, twin := n.same(m.note), n.twin(m.note)
		if n.Digest == m.note.Digest {
			// The id that it was given the first time, where it has none.
			if m.fitted, err = m.letter.fit(m.grant, time.Now(), n.MessageID); err != nil {
				return false, err
			}
			m.note.MessageID = n.MessageID
		}
		if journal.isAccepted(n) {
			if same {
				m.note = n
				return true, nil
			}
			if twin {
				return false, changed(n)
			}
			continue
		}
		found, err := m.look(ctx, n)
		age := time.Since(n.Time)
		switch {
		case found && same:
			journal.accept(n)
			m.note = n
			return true, nil
		case found: // its client has not been told
			journal.accept(n)
			if twin {
				return false, changed(n)
			}
		case errors.Is(err, errors.ErrUnsupported):
			if same || twin {
				return false, m.cannotTell(n, nil)
			}
		case err != nil:
			return false, unknownYet(time.Minute, &SubmitError{Err: err})
		case age < notSentAfter: // also one of the future: the clock was set
			return false, unknownYet(min(notSentAfter-age, notSentAfter), nil)
		default:
			m.forget(n)
		}
	}
	return false, nil
}

// changed is the reply to a message with a text that is not the one which was sent by
// its Message-ID to its recipients: it may be another, or the same with new boundaries.
func changed(n note) error {
	return &SubmitError{Code: "554 5.6.0", Public: "this message was sent before, with another text, and is not sent again as it is now: look into Sent Items, and if this one is needed as well, send it as a new message",
		Err: errors.New("another message with the Message-ID " + limited(n.MessageID, 200) + " was sent to the same recipients")}
}

// look asks whether the message of the note is in Sent Items. A copy that the mail
// program may have filed itself says nothing.
func (m *submission) look(ctx context.Context, n note) (bool, error) {
	if n.MessageID == "" || n.Shared {
		return false, errors.ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found, err := m.server.Graph.Sent(ctx, m.grant, n.MessageID, n.Time)
	if found && m.server.journal.mayBeFiled(n) {
		return false, errors.ErrUnsupported
	}
	return found, err
}

// cannotTell is the reply where the answer was lost and nobody may look. It is for
// good: a program that tries again by itself must not send it twice.
func (m *submission) cannotTell(n note, lost *SubmitError) error {
	if n.Told.IsZero() {
		n.Told = time.Now().UTC()
		if err := m.server.journal.write(n); err != nil { // it stays as it is, which says the same
			m.server.log().Error("a note could not be written", "cause", err)
		}
	}
	e := &SubmitError{Code: "554 5.4.7", Public: "the message may have been sent, and nobody can tell: look into Sent Items, and if it is not there, send it again as a new message",
		Err: errors.New("the answer was lost, and Sent Items do not tell: the application may not look there (permit Mail.ReadBasic), or the copy there may be the mail program's own")}
	if lost != nil && lost.Err != nil {
		e.Err = fmt.Errorf("%w: %w", e.Err, lost.Err)
	}
	return e
}

func (m *submission) forget(n note) {
	if err := m.server.journal.forget(n); err != nil {
		m.server.log().Error("a note of a message could not be removed; should the same message come again, it is looked for", "cause", err)
	}
}

// unknownYet is the reply where nobody knows yet whether the message was sent.
func unknownYet(wait time.Duration, lost *SubmitError) error {
	e := &SubmitError{Code: "451 4.4.2", Public: "the message may have been sent already, which is not known yet", Wait: wait}
	if lost != nil {
		e.Err = lost.Err
	}
	return e
}

// comeAgain is a reply that asks the client to try later.
func comeAgain(code, what string, wait time.Duration) error {
	return &SubmitError{Code: code, Public: what, Wait: max(wait, time.Second), Err: errors.New(what)}
}

// outlive is a context that ends a while after ctx does.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
		case <-out.Done():
		}
		cancel(context.Cause(ctx))
	})
	return out, func() { stop(); cancel(nil) }
}
