package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sort"
	"sync"
	"time"
)

// Server is the gateway. Backend must be set; every other field may be zero.
// The fields are read-only once [Server.Serve] runs.
type Server struct {
	// Backend judges the sign-ins.
	Backend Backend

	// TLS is the gateway's own certificate and settings, for clients that use
	// implicit TLS or STARTTLS. TLS 1.2 is the least that is spoken. Nil means
	// clear text only, which is of use on loopback addresses alone.
	TLS *tls.Config

	// Legacy are further listeners, for devices with old TLS. Zero: there are none.
	Legacy Legacy

	// Revalidate is how often each backing credential with open sessions is
	// checked where it comes from. 0: 60 s.
	Revalidate time.Duration

	// Log gets one line for each sign-in, refusal and end of a session. Nil:
	// nowhere.
	Log *slog.Logger

	// Observe is told of each event, in the goroutine that it happens in, which
	// it must not hold up. Nil: nobody.
	Observe func(Event)

	// Graph sends for mailboxes whose SMTP is closed. Nil: nobody does, and all
	// send by SMTP. GraphSize is the largest message that it takes, in bytes, with
	// the header fields that are added here; 0: 2,900,000.
	Graph     Submitter
	GraphSize int

	// Notes is a folder of its own for notes about messages that are being sent by
	// Graph, so that none is sent twice. It has to be there where Graph is, and is
	// made when it is first needed.
	Notes string

	// Dial connects to the upstream, or to its proxy. Nil: a net.Dialer, which tries every
	// address of the host.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Proxy names the proxy to reach an upstream by, which it is given as
	// https://host:port: an http or https one, by CONNECT (RFC 9110 section
	// 9.3.6), or a socks5 one. Nil, or a nil URL: none. [ProxyFromEnvironment]
	// makes one.
	Proxy func(*url.URL) (*url.URL, error)

	// GreetAfter is how long a new connection may be silent before it is
	// greeted in clear. 0: 400 ms. A TLS client that is silent for longer cannot
	// be saved, a clear-text client waits so long for its greeting: see
	// session.open for how 400 ms were chosen. Where many connections come at
	// once, all wait longer.
	GreetAfter time.Duration

	// SignInTimeout is how long a client has to sign in, not counting the
	// time that the upstream takes. 0: 2 minutes.
	SignInTimeout time.Duration

	// UpstreamTimeout is how long a token, the connection to the upstream and
	// its sign-in may take together. 0: 30 s.
	UpstreamTimeout time.Duration

	// IdleTimeout ends a session in which neither side has sent anything for
	// so long. 0: 35 minutes for IMAP, 15 for POP3, 10 for SMTP.
	IdleTimeout time.Duration

	// FinishTimeout is how long a message that is being sent or stored may take
	// once the context of Serve has ended; sessions with nothing under way end
	// at once. 0: 20 s.
	FinishTimeout time.Duration

	// DrainTimeout is how long Serve waits after that for sessions to say
	// good-bye, before their connections are simply closed. 0: 5 s.
	DrainTimeout time.Duration

	// SignInAttempts is how many sign-ins may be refused on one connection
	// before it is closed. 0: 3.
	SignInAttempts int

	// MaxPending is how many connections may be open that have not signed in;
	// further ones are closed at once. 0: 2000. MaxPendingPerAddress is the
	// same for one address that is not this machine's. 0: 100.
	MaxPending, MaxPendingPerAddress int

	backoff backoff
	limits  limits
	quota   quota
	offers  offers

	switched switched
	outbox   outbox
	journal  journal

	tls *tls.Config // TLS, with a least version

	mu        sync.Mutex // guards what follows, and grant and since of each session
	started   time.Time
	listeners map[Protocol]string
	legacy    map[Protocol]string
	sessions  map[*session]phase // every connection
	pending   int                // those in phase arriving
	waiting   map[netip.Addr]int // those by address
	lastID    uint64
}

// phase is how far a connection has come.
type phase int

const (
	arriving phase = iota // not signed in
	open                  // signed in
	leaving               // its session has ended, its connection is about to
)

func (s *Server) revalidateEvery() time.Duration { return cmp.Or(s.Revalidate, time.Minute) }
func (s *Server) greetAfter() time.Duration      { return cmp.Or(s.GreetAfter, 400*time.Millisecond) }
func (s *Server) signInTimeout() time.Duration   { return cmp.Or(s.SignInTimeout, 2*time.Minute) }
func (s *Server) upstreamTimeout() time.Duration { return cmp.Or(s.UpstreamTimeout, 30*time.Second) }
func (s *Server) finishTimeout() time.Duration   { return cmp.Or(s.FinishTimeout, 20*time.Second) }
func (s *Server) drainTimeout() time.Duration    { return cmp.Or(s.DrainTimeout, 5*time.Second) }
func (s *Server) signInAttempts() int            { return cmp.Or(s.SignInAttempts, 3) }
func (s *Server) maxPending() int                { return cmp.Or(s.MaxPending, 2000) }
func (s *Server) maxPendingPerAddress() int      { return cmp.Or(s.MaxPendingPerAddress, 100) }
func (s *Server) log() *slog.Logger              { return cmp.Or(s.Log, slog.New(slog.DiscardHandler)) }

// Serve accepts mail clients until ctx ends, then drains: the listeners are
// closed, every session is told good-bye as soon as no message is under way in
// it, and Serve returns when all have ended, or FinishTimeout and DrainTimeout
// later. It closes the listeners in any case. It returns nil after a drain, and
// an error when it cannot begin (no backend, no such protocol, already called)
// or when sessions had to be given up. Serve may be called once.
func (s *Server) Serve(ctx context.Context, listeners map[Protocol]net.Listener) error {
	parent := ctx
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	closeAll := func() {
		for _, set := range []map[Protocol]net.Listener{listeners, s.Legacy.Listeners} {
			for _, ln := range set {
				_ = ln.Close()
			}
		}
	}
	defer closeAll()
	if len(listeners) == 0 {
		return errors.New("gateway: nothing to listen on")
	}
	if err := s.begin(addresses(listeners)); err != nil {
		return err
	}
	unlisten := whenDone(ctx, closeAll)

	var accepting, serving sync.WaitGroup
	sessions, end := context.WithCancelCause(context.WithoutCancel(parent))
	defer end(nil)
	take := func(name Protocol, ln net.Listener, legacy bool) {
		accepting.Go(func() {
			if err := s.accept(ctx, sessions, name, ln, legacy, &serving); err != nil {
				stop(err)
			}
		})
	}
	for name, ln := range listeners {
		take(name, ln, false)
	}
	for name, ln := range s.Legacy.Listeners {
		take(name, ln, true)
	}
	serving.Go(func() { s.revalidate(ctx) })

	<-ctx.Done()
	unlisten()
	accepting.Wait()
	if err := s.drain(&serving, func() { end(nil) }); err != nil {
		return err
	}
	if parent.Err() == nil {
		return context.Cause(ctx) // a listener failed
	}
	return nil
}

// begin checks what Serve was given. listening are the addresses by protocol.
func (s *Server) begin(listening map[Protocol]string) error {
	if s.Backend == nil {
		return errors.New("gateway: no backend")
	}
	if s.Graph != nil && s.Notes == "" {
		return errors.New("gateway: no folder for notes about messages")
	}
	s.journal.dir = s.Notes
	for name := range listening {
		if _, ok := protocols[name]; !ok {
			return fmt.Errorf("gateway: protocol %q is not served", name)
		}
	}
	for name := range s.Legacy.Listeners {
		if _, ok := protocols[name]; !ok {
			return fmt.Errorf("gateway: protocol %q is not served", name)
		}
	}
	if len(s.Legacy.Listeners) > 0 && s.Legacy.TLS == nil {
		return errors.New("gateway: no TLS for old devices")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions != nil {
		return errors.New("gateway: Serve was called before")
	}
	if s.TLS != nil {
		s.tls = s.TLS.Clone()
		s.tls.MinVersion = max(s.tls.MinVersion, tls.VersionTLS12)
	}
	s.started, s.listeners, s.legacy = time.Now().UTC(), listening, addresses(s.Legacy.Listeners)
	s.sessions, s.waiting = map[*session]phase{}, map[netip.Addr]int{}
	return nil
}

// accept takes connections from ln until ctx ends or ln is closed. Their
// sessions end with another context.
func (s *Server) accept(ctx, sessions context.Context, name Protocol, ln net.Listener, legacy bool, serving *sync.WaitGroup) error {
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			if run := s.admit(sessions, name, conn, legacy); run != nil {
				serving.Go(run)
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listen for %s on %s: %w", name, ln.Addr(), err)
		default:
			// Out of descriptors or memory, or a client gone before it was
			// accepted: none of these lasts, and none ends the gateway.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log().Warn("cannot accept a connection", "protocol", string(name), "cause", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// admit makes a session of a new connection, unless too many wait already, or it
// came to a legacy listener from the Internet, and returns what runs it.
func (s *Server) admit(ctx context.Context, name Protocol, conn net.Conn, legacy bool) (run func()) {
	c := newClient(conn)
	if legacy && !privateNetwork(c.remote.Addr()) {
		s.log().Warn("connection refused: old TLS is for private networks", "protocol", string(name), "remote", c.remote.String())
		_ = conn.Close()
		return nil
	}
	from := sourceOf(c.remote.Addr())
	s.mu.Lock()
	pending, waiting := s.pending, s.waiting[from]
	if pending >= s.maxPending() || !from.IsLoopback() && waiting >= s.maxPendingPerAddress() {
		s.mu.Unlock()
		s.log().Warn("connection refused: too many are waiting to sign in", "protocol", string(name), "remote", c.remote.String(), "waiting", pending, "from_there", waiting)
		_ = conn.Close()
		return nil
	}
	defer s.mu.Unlock()
	sess, run := s.newSession(ctx, name, c)
	if legacy {
		sess.tls = s.Legacy.TLS
	}
	return run
}

// newSession makes a session of a connection; run is to be called once. mu is
// held.
func (s *Server) newSession(ctx context.Context, name Protocol, c *client) (sess *session, run func()) {
	s.lastID++
	background := ctx
	ctx, end := context.WithCancelCause(ctx)
	sess = &session{
		id: s.lastID, name: name, proto: protocols[name], server: s, client: c, background: background, end: end, done: make(chan struct{}),
		log: s.log().With("session", s.lastID, "protocol", string(name), "remote", c.remote.String()), tls: s.tls,
	}
	s.sessions[sess] = arriving
	s.wait(sess, 1)
	return sess, func() {
		defer close(sess.done)
		defer end(nil)
		defer s.remove(sess)
		sess.run(ctx)
	}
}

// register makes a connection a signed-in session, which Recheck and the
// revalidation see from now on.
func (s *Server) register(sess *session, grant Grant, r relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.grant, sess.since, sess.relay = grant, time.Now().UTC(), r
	s.move(sess, open)
}

// unregister makes it a connection in another phase again.
func (s *Server) unregister(sess *session, to phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(sess, to)
}

// remove forgets a connection.
func (s *Server) remove(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(sess, leaving)
	delete(s.sessions, sess)
}

// move keeps count. mu is held.
func (s *Server) move(sess *session, to phase) {
	if s.sessions[sess] == arriving {
		s.wait(sess, -1)
	}
	if to == arriving {
		s.wait(sess, 1)
	}
	s.sessions[sess] = to
}

// wait counts connections that have not signed in. mu is held.
func (s *Server) wait(sess *session, n int) {
	from := sourceOf(sess.client.remote.Addr())
	s.pending += n
	if s.waiting[from] += n; s.waiting[from] == 0 {
		delete(s.waiting, from)
	}
}

// live is a signed-in session with its grant.
type live struct {
	*session
	grant Grant
}

// signedIn lists the signed-in sessions.
func (s *Server) signedIn() []live {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []live
	for sess, phase := range s.sessions {
		if phase == open {
			list = append(list, live{sess, sess.grant})
		}
	}
	return list
}

// Recheck asks [Backend.Allowed] of every session and closes those that are
// refused. It returns when they are closed, which takes a second at most. Call
// it when the registry has changed.
func (s *Server) Recheck() {
	var closing []live
	for _, sess := range s.signedIn() {
		err := s.Backend.Allowed(sess.grant)
		if r, ok := ends(err); ok {
			sess.end(&ending{public: r.public(), reason: r.Reason, cause: r})
			closing = append(closing, sess)
		} else if err != nil {
			s.log().Error("cannot tell whether an app password still holds; its session goes on",
				"app_password", sess.grant.Name, "id", sess.grant.ID, "cause", err)
		}
	}
	await(closing)
}

// await returns when the sessions have ended, or as soon as they should have.
func await(closing []live) {
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	for _, sess := range closing {
		select {
		case <-sess.done:
		case <-limit.C:
			return
		}
	}
}

// Sessions lists the signed-in clients, the oldest first. The slice is never nil.
func (s *Server) Sessions() []Session {
	list := []Session{}
	s.mu.Lock()
	for sess, phase := range s.sessions {
		if phase == open {
			list = append(list, sess.info())
		}
	}
	s.mu.Unlock()
	sort.SliceStable(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// End closes a signed-in client's session, by its number in [Session]. It says
// whether there was one.
func (s *Server) End(id uint64) bool {
	for _, sess := range s.signedIn() {
		if sess.id == id {
			sess.end(&ending{public: "closed by the administrator", cause: errors.New("closed by a command")})
			await([]live{sess})
			return true
		}
	}
	return false
}

// Status describes the running gateway. Version, Uptime, Stopping, Metrics and
// Counts are left for the caller to set.
func (s *Server) Status() Status {
	sessions := s.Sessions()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{PID: os.Getpid(), Started: s.started, Listeners: maps.Clone(s.listeners), Legacy: maps.Clone(s.legacy), Sessions: sessions, ByGraph: s.switched.list()}
}
