package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// protocol is what differs between the mail protocols.
type protocol struct {
	// greet says what the server says first.
	greet func(*session) error
	// next reads one of the client's commands before sign-in and executes it:
	// credentials if it was a sign-in, an answer if it is to be refused, with
	// what goes before that; any other error if the connection is over: io.EOF
	// when the client leaves, an *ending when it has to.
	next func(context.Context, *session) (prefix string, cred *credentials, err error)
	// sasl says in the protocol's words why an exchange brought no credentials.
	sasl map[saslProblem]answer
	// offers asks an upstream what it can do, for clients to be told before
	// sign-in; nil: the OK to the sign-in says it.
	offers func(ctx context.Context, u *upstream) ([]string, error)
	// upstream signs in there and returns once the mailbox is open. welcome
	// goes to accept; an error is a *Refusal.
	upstream func(ctx context.Context, u *upstream, l login) (welcome string, err error)
	// logIn signs in at a gateway by the response of SASL PLAIN, as a mail
	// program does. An error is a *ServerError, or wraps one.
	logIn func(u *upstream, user, response string) error
	// accept and refuse answer the sign-in that ask returned last.
	accept func(s *session, welcome string) error
	refuse func(s *session, r *Refusal) error
	// relay takes over once the client is signed in.
	relay func(s *session, up *upstream, grant Grant) relay
	// leave ends a session upstream in its own words.
	leave string
	// bye is the last line of a connection that this side ends.
	bye func(e *ending) string
	// idle is how long a session may be silent.
	idle time.Duration
}

// protocols are those that the gateway serves.
var protocols = map[Protocol]protocol{
	IMAP: {
		greet: imapGreet, next: imapNext, sasl: imapSASL, upstream: imapUpstream, logIn: imapLogIn, accept: imapAccept, refuse: imapRefuse,
		// RFC 9051 section 5.4 asks for 30 minutes, and clients in IDLE speak
		// up every 29 (RFC 2177).
		relay: newIMAPRelay, leave: "g9 LOGOUT\r\n", bye: imapBye, idle: 35 * time.Minute,
	},
	POP3: {
		greet: pop3Greet, next: pop3Next, sasl: pop3SASL, offers: pop3Offers, upstream: pop3Upstream, logIn: pop3LogIn, accept: pop3Accept, refuse: pop3Refuse,
		relay: newPOP3Relay, leave: "QUIT\r\n", bye: pop3Bye, idle: 15 * time.Minute, // RFC 1939 section 3: at least 10
	},
	SMTP: {
		greet: smtpGreet, next: smtpNext, sasl: smtpSASL, offers: smtpOffers, upstream: smtpUpstream, logIn: smtpLogIn, accept: smtpAccept, refuse: smtpRefuse,
		relay: newSMTPRelay, leave: "QUIT\r\n", bye: smtpBye, idle: 10 * time.Minute, // RFC 5321 section 4.5.3.2.7: at least 5
	},
}

// Protocols are those that this gateway serves, in alphabetical order.
func Protocols() []Protocol { return slices.Sorted(maps.Keys(protocols)) }

// credentials are what a client signs in with.
type credentials struct {
	user     string
	password secret.Text
}

// login is what a sign-in upstream is made of.
type login struct {
	mailbox   string
	token     secret.Text
	delegated bool     // the token is a person's, and not the application's own
	probe     bool     // SMTP: go as far as naming a sender
	hello     string   // SMTP: the name that the client gave itself; empty: it gave none
	offered   []string // SMTP: the extensions that the client was told of
	utf8      bool     // POP3: the client has asked for UTF8 (RFC 6856)
	narrow    bool     // IMAP: the client is held to commands that change nothing
}

// session is one client's connection, from accept to close.
type session struct {
	id         uint64
	name       Protocol
	proto      protocol
	server     *Server
	tls        *tls.Config // of the listener; nil: clear text only
	client     *client
	log        *slog.Logger
	background context.Context         // for logging
	end        context.CancelCauseFunc // ends the session, from any goroutine; the cause is an *ending
	done       chan struct{}           // closed when the connection is and the server has forgotten it

	deadline time.Time     // for the client to have signed in
	met      bool          // the client has sent a command that exists
	silent   time.Duration // how long it could be before it was greeted in clear
	bad      int           // how many it has sent that do not
	imap     imapState
	pop3     pop3State
	smtp     smtpState

	// Set when the sign-in is granted, under Server.mu.
	grant Grant
	since time.Time
	relay relay

	// From then on.
	signedIn bool
	idle     *time.Timer
	up, down atomic.Int64 // bytes passed on
	active   atomic.Int64 // when bytes passed last, Unix nanoseconds
	leaving  atomic.Bool  // the client has said good-bye, or half-closed
}

// run is the whole story of a session. ctx ends with an *ending as its cause,
// or because the gateway shuts down.
func (s *session) run(ctx context.Context) {
	defer s.client.raw.Close() // whatever happens
	stop := whenDone(ctx, func() { s.client.farewell(s.proto.bye(endingOf(ctx))) })
	err := s.guard(func() error { return s.talk(ctx) })
	if ended := stop(); ended {
		err = endingOf(ctx)
	}
	if e, ok := errors.AsType[*ending](err); ok {
		s.client.farewell(s.proto.bye(e))
	}
	_ = s.guard(func() error { // whoever is told may panic, too
		s.logEnd(err)
		return nil
	})
	s.client.close()
}

// talk signs the client in and passes bytes until one side ends. Its error is
// why the session ended.
func (s *session) talk(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	for range s.server.signInAttempts() {
		cred, err := s.ask(ctx)
		if err != nil {
			return s.overdue(err)
		}
		began := time.Now()
		grant, up, welcome, err := s.signIn(ctx, cred)
		took := time.Since(began)
		s.setDeadline(s.deadline.Add(took)) // the time of others is not the client's
		if err == nil {
			s.server.limits.succeeded(s.client.remote.Addr(), cred.user)
			return s.serve(ctx, up, welcome, took)
		}
		if ctx.Err() != nil {
			return endingOf(ctx)
		}
		refusal := refusalOf(err)
		user := limited(cred.user, 100)
		if refusal.UserIsSecret {
			user = "(an app password)"
		}
		s.tell(Event{Kind: Refused, User: user, Grant: grant, Reason: refusal.Reason, Cause: refusal.Err})
		if refusal.wrongPassword() {
			if err := s.pause(ctx, s.server.limits.failed(s.client.remote.Addr(), cred.user)); err != nil {
				return err
			}
		}
		if err := s.proto.refuse(s, refusal); err != nil {
			return err
		}
	}
	return &ending{public: "too many sign-ins were refused", cause: errors.New("too many sign-ins were refused")}
}

// pause keeps a client waiting for its refusal.
func (s *session) pause(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	s.setDeadline(s.deadline.Add(wait))
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return endingOf(ctx)
	}
}

// open greets the client, over TLS if its first byte says so.
//
// A TLS client speaks first, and at once. A clear-text or STARTTLS client
// waits to be greeted, but nothing tells that it waits. So silence decides,
// and it can decide wrongly: a TLS client that is slower than GreetAfter finds
// a greeting where it expects a handshake, and cannot be saved. Clients load
// their trusted certificates between connecting and the handshake (curl,
// mbsync, mutt), which takes tens of milliseconds, some hundred on a small
// machine; a lost packet is sent again after some 200. Hence 400 ms, which a
// clear-text client waits once for each connection.
func (s *session) open(ctx context.Context) error {
	s.setDeadline(time.Now().Add(s.server.signInTimeout()))
	s.silent = s.server.silence()
	implicit, err := s.client.startsTLS(s.silent, s.deadline)
	if err != nil {
		return err
	}
	if implicit {
		if err := s.startTLS(ctx); err != nil {
			return err
		}
	}
	s.client.speak()
	return s.proto.greet(s)
}

// upgrade answers STARTTLS by ready, and begins TLS. What a client, or somebody
// between it and here, has sent in clear after the command must not be taken
// for something said over TLS (CVE-2011-0411): it ends the connection.
func (s *session) upgrade(ctx context.Context, ready string) error {
	if n := s.client.in.Buffered(); n > 0 {
		return &ending{public: "nothing may follow STARTTLS before the handshake", cause: fmt.Errorf("%d bytes came in clear after STARTTLS", n)}
	}
	if err := s.reply("%s", ready); err != nil {
		return err
	}
	return s.startTLS(ctx)
}

// silence is how long a client may be silent before it is greeted. When all
// come back at once, as after an outage, the machine is busy with handshakes,
// and so may theirs be: each that has not signed in adds two milliseconds.
func (s *Server) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.greetAfter() + min(time.Duration(s.pending-1)*2*time.Millisecond, 5*time.Second)
}

// startTLS makes the client's connection a TLS one.
func (s *session) startTLS(ctx context.Context) error {
	if s.tls == nil {
		return errors.New("the client began TLS, for which the gateway has no certificate")
	}
	if err := s.client.startTLS(ctx, s.tls); err != nil {
		if msg := err.Error(); strings.Contains(msg, "certificate") || strings.Contains(msg, "bad record MAC") {
			// The alerts bad_certificate, unknown_ca and their like; some
			// clients send theirs before they use the keys it is awaited under.
			return fmt.Errorf("TLS handshake: %w: the client does not trust the gateway's certificate: import the CA certificate there", err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// signIn has the backend judge the credentials, and the upstream open the
// mailbox. The session is registered when it returns without error. The grant
// names the app password wherever one matched.
func (s *session) signIn(ctx context.Context, cred credentials) (grant Grant, up *upstream, welcome string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.server.upstreamTimeout())
	defer cancel()
	backend := s.server.Backend
	grant, err = backend.SignIn(ctx, Attempt{Protocol: s.name, User: cred.user, Password: cred.password, Remote: s.client.remote})
	if err != nil {
		return grant, nil, "", err
	}
	l := login{hello: s.smtp.hello, offered: s.smtp.offered, utf8: s.pop3.utf8, narrow: grant.ReadOnly}
	if up, welcome, err = s.server.open(ctx, s.proto, grant, l); err != nil {
		return grant, nil, "", err
	}
	// A revocation between SignIn and here has found no session to close. Those
	// after register find one; those before are found by asking once more.
	s.server.register(s, grant, s.proto.relay(s, up, grant))
	if err = backend.Allowed(grant); err == nil && grant.expired() {
		err = &Refusal{Reason: Expired, Err: errExpired}
	}
	if err != nil {
		s.server.unregister(s, arriving)
		up.close()
		return grant, nil, "", err
	}
	return grant, up, welcome, nil
}

// serve tells the client that it is in, and passes bytes until the end.
func (s *session) serve(ctx context.Context, up *upstream, welcome string, took time.Duration) error {
	defer up.close()
	defer s.server.unregister(s, leaving)
	defer s.watch()()
	if err := s.proto.accept(s, welcome); err != nil {
		return err
	}
	s.signedIn = true
	s.tell(Event{Kind: SignedIn, Grant: s.grant, Took: took})
	s.setDeadline(time.Time{})
	s.client.follow(s.relay)
	return s.splice(ctx, up)
}

// reply writes one or more whole lines to the client; CRLF is added.
func (s *session) reply(format string, args ...any) error {
	_, err := fmt.Fprintf(s.client, format+"\r\n", args...)
	return err
}

// setDeadline is for all reading from and writing to the client.
func (s *session) setDeadline(t time.Time) {
	s.deadline = t
	_ = s.client.raw.SetDeadline(t)
}

// overdue gives a client that did not sign in in time a last word.
func (s *session) overdue(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &ending{public: "no sign-in in time", cause: errors.New("no sign-in in time")}
	}
	return err
}

// logEnd tells of the end of the connection.
func (s *session) logEnd(err error) {
	if s.signedIn {
		e := Event{Kind: SessionEnded, Grant: s.grant, Cause: err, BytesUp: s.up.Load(), BytesDown: s.down.Load(), Lasted: time.Since(s.since)}
		if end, ok := errors.AsType[*ending](err); ok {
			e.Reason = end.reason
		}
		s.tell(e)
		return
	}
	level := slog.LevelInfo
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, errShutdown) {
		level = slog.LevelDebug // health checks, clients that only look
	}
	s.log.Log(s.background, level, "connection ended without sign-in", "cause", cause(err))
}
