package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/o365pw/o365pw/pkg/secret"
)

// protocol is what differs between the mail protocols: everything before
// sign-in, on either side.
type protocol struct {
	// greet says what the server says first.
	greet func(*session) error
	// ask answers the client's commands until one is a sign-in. It returns
	// io.EOF when the client leaves, and an *ending when it has to.
	ask func(context.Context, *session) (credentials, error)
	// upstream signs in there and returns once the mailbox is open. welcome
	// goes to accept; an error is a *Refusal.
	upstream func(ctx context.Context, u *upstream, mailbox string, token secret.Text) (welcome string, err error)
	// accept and refuse answer the sign-in that ask returned last.
	accept func(s *session, welcome string) error
	refuse func(s *session, r *Refusal) error
	// bye is the last line of a connection that this side ends.
	bye func(text string) string
}

// protocols are those that the gateway serves.
var protocols = map[Protocol]protocol{
	IMAP: {imapGreet, imapAsk, imapUpstream, imapAccept, imapRefuse, imapBye},
}

// Protocols are those that this gateway serves, in alphabetical order.
func Protocols() []Protocol { return slices.Sorted(maps.Keys(protocols)) }

// credentials are what a client signs in with.
type credentials struct {
	user     string
	password secret.Text
}

// session is one client's connection, from accept to close.
type session struct {
	id     uint64
	name   Protocol
	proto  protocol
	server *Server
	client *client
	log    *slog.Logger
	end    context.CancelCauseFunc // ends the session, from any goroutine; the cause is an *ending
	done   chan struct{}           // closed when the connection is and the server has forgotten it

	deadline time.Time // for the client to have signed in
	imap     imapState

	// Set when the sign-in is granted, under Server.mu.
	grant Grant
	since time.Time

	// From then on.
	signedIn bool
	idle     *time.Timer
	up, down atomic.Int64 // bytes passed on
	active   atomic.Int64 // when bytes passed last, Unix nanoseconds
	leaving  atomic.Bool  // the client has half-closed
}

// run is the whole story of a session. ctx ends with an *ending as its cause,
// or because the gateway shuts down.
func (s *session) run(ctx context.Context) {
	defer s.client.raw.Close() // whatever happens
	stop := whenDone(ctx, func() { s.client.farewell(s.proto.bye(endingOf(ctx).public)) })
	err := s.guard(func() error { return s.talk(ctx) })
	if ended := stop(); ended {
		err = endingOf(ctx)
	}
	if e, ok := errors.AsType[*ending](err); ok {
		s.client.farewell(s.proto.bye(e.public))
	}
	s.logEnd(err)
	s.client.close()
}

// whenDone runs f once ctx is done, in a goroutine of its own. stop takes that
// back, or waits for f to return; it says whether f ran. After ctx is done, f
// has run when stop returns.
func whenDone(ctx context.Context, f func()) (stop func() (ran bool)) {
	finished := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(finished)
		f()
	})
	return func() bool {
		if !cancel() {
			<-finished
			return true
		}
		// ctx may be done for moments before it calls f.
		if ctx.Err() == nil {
			return false
		}
		f()
		return true
	}
}

// talk signs the client in and passes bytes until one side ends. Its error is
// why the session ended.
func (s *session) talk(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	for range s.server.signInAttempts() {
		cred, err := s.proto.ask(ctx, s)
		if err != nil {
			return s.overdue(err)
		}
		began := time.Now()
		grant, up, welcome, err := s.signIn(ctx, cred)
		took := time.Since(began)
		s.setDeadline(s.deadline.Add(took)) // the time of others is not the client's
		if err == nil {
			return s.serve(ctx, up, welcome, took)
		}
		if ctx.Err() != nil {
			return endingOf(ctx)
		}
		refusal := refusalOf(err)
		s.logRefusal(cred.user, grant, refusal)
		if err := s.proto.refuse(s, refusal); err != nil {
			return err
		}
	}
	return &ending{public: "too many sign-ins were refused", cause: errors.New("too many sign-ins were refused")}
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
	implicit, err := s.client.startsTLS(s.server.greetAfter(), s.deadline)
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

// startTLS makes the client's connection a TLS one.
func (s *session) startTLS(ctx context.Context) error {
	if s.server.tls == nil {
		return errors.New("the client began TLS, for which the gateway has no certificate")
	}
	if err := s.client.startTLS(ctx, s.server.tls); err != nil {
		if msg := err.Error(); strings.Contains(msg, "certificate") || strings.Contains(msg, "bad record MAC") {
			// The alerts bad_certificate, unknown_ca and their like; some
			// clients send theirs before they use the keys it is awaited under.
			return fmt.Errorf("TLS handshake: %w: the client does not trust the gateway's certificate: import the CA certificate there", err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// awaitCommand waits for the first byte of the client's next command.
func (s *session) awaitCommand() error {
	b, err := s.client.in.Peek(1)
	if err != nil {
		return err
	}
	if !s.client.tls && b[0] == tlsHandshake {
		return fmt.Errorf("the client began TLS after it was greeted in clear: it was silent for longer than %s", s.server.greetAfter())
	}
	return nil
}

// signIn has the backend judge the credentials, and the upstream open the
// mailbox. The session is registered when it returns without error. The grant
// is there as soon as the credentials were right.
func (s *session) signIn(ctx context.Context, cred credentials) (grant Grant, up *upstream, welcome string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.server.upstreamTimeout())
	defer cancel()
	backend := s.server.Backend
	grant, err = backend.SignIn(ctx, Attempt{Protocol: s.name, User: cred.user, Password: cred.password, Remote: s.client.remote})
	if err != nil {
		return Grant{}, nil, "", err
	}
	if up, welcome, err = s.server.open(ctx, s.proto, grant); err != nil {
		return grant, nil, "", err
	}
	// A revocation between SignIn and here has found no session to close. Those
	// after register find one; those before are found by asking once more.
	s.server.register(s, grant)
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
	s.log = s.log.With("app_password", s.grant.Name, "id", s.grant.ID, "mailbox", s.grant.Mailbox)
	if err := s.proto.accept(s, welcome); err != nil {
		return err
	}
	s.signedIn = true
	s.log.Info("signed in", "profile", s.grant.Profile, "tls", s.client.tls, "took", took.Round(time.Millisecond))
	s.setDeadline(time.Time{})
	return s.splice(ctx, up)
}

// watch ends the session when its app password expires or when it is idle for
// too long. The function that it returns ends the watch.
func (s *session) watch() (stop func()) {
	s.active.Store(time.Now().UnixNano())
	s.idle = timer(func() time.Duration {
		limit := s.server.idleTimeout()
		if s.leaving.Load() {
			limit = leaveTime
		}
		return limit - time.Since(time.Unix(0, s.active.Load()))
	}, func() { s.end(&ending{public: "idle for too long", cause: errIdle}) })
	if s.grant.Expires.IsZero() {
		return func() { s.idle.Stop() }
	}
	// The expiry is of the wall clock, the timer of the machine's own: they
	// part when the clock is set or the machine sleeps. The revalidation looks
	// at the clock as well.
	expiry := timer(func() time.Duration { return time.Until(s.grant.Expires) }, s.endExpired)
	return func() { s.idle.Stop(); expiry.Stop() }
}

// timer calls end once left is no longer positive.
func timer(left func() time.Duration, end func()) *time.Timer {
	var t *time.Timer
	t = time.AfterFunc(math.MaxInt64, func() {
		if wait := left(); wait > 0 {
			t.Reset(wait)
			return
		}
		end()
	})
	t.Reset(left())
	return t
}

func (s *session) endExpired() {
	s.end(&ending{public: publicTexts[Expired], cause: errExpired})
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

// guard makes a panic of f an error that ends this session alone.
func (s *session) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a session", "panic", p, "stack", string(debug.Stack()))
			err = &ending{public: "internal error", cause: fmt.Errorf("panic: %v", p)}
		}
	}()
	return f()
}

func (s *session) logRefusal(user string, grant Grant, r *Refusal) {
	args := []any{"user", limited(user, 100), "reason", string(r.Reason)}
	if grant.ID != "" {
		args = append(args, "app_password", grant.Name, "id", grant.ID, "mailbox", grant.Mailbox)
	}
	if r.Err != nil {
		args = append(args, "cause", r.Err)
	}
	s.log.Warn("sign-in refused", args...)
}

func (s *session) logEnd(err error) {
	if s.signedIn {
		s.log.Info("session ended", "cause", cause(err), "bytes_up", s.up.Load(), "bytes_down", s.down.Load(),
			"lasted", time.Since(s.since).Round(time.Second))
		return
	}
	level := slog.LevelInfo
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, errShutdown) {
		level = slog.LevelDebug // health checks, clients that only look
	}
	s.log.Log(context.Background(), level, "connection ended without sign-in", "cause", cause(err))
}

func cause(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return "the client left"
	}
	return err.Error()
}

// limited makes what somebody else wrote fit for a log: at most n characters,
// none of them a control character.
func limited(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), 4*n)], "?"))
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return text
}
