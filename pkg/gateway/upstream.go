package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// upstream is the connection to the server that holds the mailbox.
type upstream struct {
	address string
	config  *tls.Config // for this server by name
	proxy   string      // on the way, without user and password; empty: none
	gateway bool        // it is no upstream, but a gateway to be tried
	raw     *rawConn
	conn    net.Conn // raw, or TLS over it
	in      *bufio.Reader
	inTLS   bool
	offers  []string // what it has announced, after sign-in where that differs
	step    Step
	passed  func(Step) // told of each step that is done; may be nil
}

// at begins a step, or with none ends the last one.
func (u *upstream) at(step Step) {
	if step == u.step {
		return
	}
	if u.passed != nil && u.step != "" {
		u.passed(u.step)
	}
	u.step = step
}

// open signs in at the upstream that grant names. l is what the client has
// asked for; mailbox and token are filled in.
func (s *Server) open(ctx context.Context, p protocol, grant Grant, l login) (up *upstream, welcome string, err error) {
	if l.token, err = s.Backend.Token(ctx, grant); err != nil {
		return nil, "", fmt.Errorf("access token: %w", err)
	}
	if err := s.backoff.check(grant); err != nil {
		return nil, "", err
	}
	up, err = s.dialer().dial(ctx, grant.Upstream)
	if err != nil {
		return nil, "", err
	}
	l.mailbox, l.delegated = grant.Mailbox, grant.Delegated
	welcome, err = up.signIn(ctx, p, l)
	if p.offers != nil && up.offers != nil {
		s.offers.learned(up.address, up.offers)
	}
	if err != nil {
		s.backoff.note(grant, err)
		up.close()
		return nil, "", err
	}
	return up, welcome, nil
}

// dial connects to u and begins TLS, unless that is left to STARTTLS.
func (d dialer) dial(ctx context.Context, u Upstream) (*upstream, error) {
	up, err := d.connect(ctx, u)
	if err != nil || u.StartTLS {
		return up, err
	}
	up.at(StepTLS)
	if err := up.startTLS(ctx); err != nil {
		_ = up.raw.Close()
		return nil, up.unavailable("TLS", err)
	}
	return up, nil
}

// startTLS makes the connection a TLS one. Anything read ahead in clear was
// not said by the server that TLS proves to be there, and ends it
// (CVE-2011-0411, seen from the client).
func (u *upstream) startTLS(ctx context.Context) error {
	if n := u.in.Buffered(); n > 0 {
		return &unexpectedError{problem: fmt.Sprintf("%d bytes came in clear after STARTTLS", n)}
	}
	conn := tls.Client(u.raw, u.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return fmt.Errorf("handshake: %w: set ca_file in the cloud's configuration if the server has a private CA", err)
		}
		return fmt.Errorf("handshake: %w", err)
	}
	u.conn, u.inTLS = conn, true
	u.in = bufio.NewReaderSize(conn, readBuffer)
	return nil
}

// signIn speaks the protocol's side of the sign-in, until ctx ends.
func (u *upstream) signIn(ctx context.Context, p protocol, l login) (welcome string, err error) {
	err = u.during(ctx, func() error {
		welcome, err = p.upstream(ctx, u, l)
		return err
	})
	return welcome, err
}

// during runs f, which speaks with the server, until ctx ends.
func (u *upstream) during(ctx context.Context, f func() error) error {
	stop := whenDone(ctx, u.interrupt)
	err := f()
	if ended := stop(); ended {
		err = cmp.Or(err, u.unavailable("sign-in", context.Cause(ctx)))
	}
	return err
}

// interrupt ends all reading and writing.
func (u *upstream) interrupt() { _ = u.raw.SetDeadline(time.Unix(1, 0)) }

// send writes a command.
func (u *upstream) send(line string) error {
	_, err := u.conn.Write([]byte(line))
	return err
}

// closeWrite passes on the client's half-close.
func (u *upstream) closeWrite() {
	if conn, ok := u.conn.(*tls.Conn); ok {
		_ = conn.CloseWrite()
	}
	_ = u.raw.CloseWrite()
}

// close ends the connection now. It may be called often, from any goroutine.
func (u *upstream) close() {
	u.raw.hurry(time.Now().Add(farewellTime))
	_ = u.conn.Close()
}

// backoff remembers which mailboxes their upstream asked to leave alone. The
// zero value is ready.
type backoff struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// maxBackoff bounds what an upstream can ask for.
const maxBackoff = 10 * time.Minute

func (b *backoff) key(g Grant) string { return g.Upstream.Address + " " + g.Mailbox }

// check refuses while the mailbox is to be left alone.
func (b *backoff) check(g Grant) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := time.Until(b.until[b.key(g)])
	if wait <= 0 {
		return nil
	}
	return &Refusal{Reason: Unavailable, Public: publicPause,
		Err: &ServerError{Address: g.Upstream.Address, Step: StepAuth, Mailbox: g.Mailbox, Fault: FaultThrottled, Wait: wait.Round(time.Second)}}
}

// note keeps the wait that err asks for, if it does.
func (b *backoff) note(g Grant, err error) {
	said, ok := errors.AsType[*ServerError](err)
	if !ok || said.Wait <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until == nil {
		b.until = map[string]time.Time{}
	}
	for key, until := range b.until {
		if time.Until(until) <= 0 {
			delete(b.until, key)
		}
	}
	b.until[b.key(g)] = time.Now().Add(min(said.Wait, maxBackoff))
}
