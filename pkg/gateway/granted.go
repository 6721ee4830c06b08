package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// ServeGranted serves one client whose sign-in the caller has granted: one that
// reaches the gateway by its standard input and output, for instance, and not
// over a network. It takes the place of [Server.Serve], may be called once, and
// closes conn. The session is held to grant as any other is, to
// [Server.Recheck], its expiry and the revalidation too.
//
// Over IMAP and SMTP the upstream has opened the mailbox before the client is
// greeted: over IMAP by PREAUTH (RFC 9051 section 7.1.4), over SMTP so that MAIL
// may follow EHLO. One that is not let in is greeted by BYE, 554 or 421. POP3
// (RFC 1939) knows no client that need not sign in: any password is accepted
// with the mailbox as the user name. conn has to have a loopback address at its
// other end for that.
//
// It returns when the connection has ended: nil where the client or ctx ended
// it, else the cause, which is a [*Refusal] where the client was not let in, or
// no longer. When ctx ends, a message that is under way may arrive, as with
// Serve.
func (s *Server) ServeGranted(ctx context.Context, conn net.Conn, name Protocol, grant Grant) error {
	if err := s.begin(map[Protocol]string{name: ""}); err != nil {
		_ = conn.Close()
		return err
	}
	sessions, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	s.mu.Lock()
	sess, run := s.newSession(sessions, name, newClient(conn))
	sess.granted = &grant
	s.mu.Unlock()

	var serving, checking sync.WaitGroup
	serving.Go(run)
	check, enough := context.WithCancel(ctx)
	checking.Go(func() { s.revalidate(check) })
	defer checking.Wait()
	defer enough()
	select {
	case <-sess.done:
	case <-ctx.Done():
		if err := s.drain(&serving, func() { end(nil) }); err != nil {
			return err
		}
	}
	return sess.outcome()
}

// outcome is what came of a granted session.
func (s *session) outcome() error {
	ours, isOurs := errors.AsType[*ending](s.ended)
	switch {
	case isOurs && errors.Is(ours, errShutdown):
		return nil
	case s.signedIn && isOurs && !s.leaving.Load():
		return ours.cause
	case s.signedIn:
		return nil // by the client, or by the upstream as the client had asked
	case s.refused != nil:
		return s.refused
	case errors.Is(s.ended, io.EOF):
		return nil
	case isOurs:
		return ours.cause
	}
	return s.ended
}

// letIn greets a client that need not sign in, and passes bytes until the end.
func (s *session) letIn(ctx context.Context) error {
	began := time.Now()
	opening, cancel := context.WithTimeout(ctx, s.server.upstreamTimeout())
	defer cancel()
	up, welcome, err := s.connect(opening, *s.granted)
	if err == nil {
		s.client.speak()
		return s.serve(ctx, up, welcome, time.Since(began))
	}
	if ctx.Err() != nil {
		return endingOf(ctx)
	}
	refusal := refusalOf(err)
	s.refused = refusal
	s.tell(Event{Kind: Refused, Grant: *s.granted, Reason: refusal.Reason, Cause: refusal.Err})
	_, err = io.WriteString(s.client, s.proto.decline(refusal))
	return err
}

// judgeGranted takes any password for the mailbox that is granted. Another user
// name is one of a program that expects another mailbox.
func (s *session) judgeGranted(cred credentials) (Grant, error) {
	if !strings.EqualFold(cred.user, s.granted.Mailbox) {
		return *s.granted, &Refusal{Reason: MailboxNotAllowed, Public: "this session is for " + s.granted.Mailbox + ": sign in with that as the user name",
			Err: errors.New("the user name is another one than the mailbox that was granted")}
	}
	return *s.granted, nil
}
