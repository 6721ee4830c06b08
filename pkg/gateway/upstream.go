package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// upstream is the connection to the server that holds the mailbox.
type upstream struct {
	address string
	config  *tls.Config // for this server by name
	raw     *rawConn
	conn    net.Conn // raw, or TLS over it
	in      *bufio.Reader
	inTLS   bool
	offers  []string // what it has announced, after sign-in where that differs
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
	up, err = s.dial(ctx, grant.Upstream)
	if err != nil {
		return nil, "", err
	}
	l.mailbox = grant.Mailbox
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

// Check proves that the grant's mailbox can be opened: it gets an access token,
// signs in at the upstream, and leaves at once. The error says what fails, as
// for a client.
func (s *Server) Check(ctx context.Context, name Protocol, grant Grant) error {
	p, ok := protocols[name]
	if !ok {
		return fmt.Errorf("gateway: protocol %q is not served", name)
	}
	ctx, cancel := context.WithTimeout(ctx, s.upstreamTimeout())
	defer cancel()
	up, _, err := s.open(ctx, p, grant, login{})
	if err != nil {
		return err
	}
	defer up.close()
	_ = up.send(p.leave)
	return nil
}

// dial connects to u and begins TLS, unless that is left to STARTTLS.
func (s *Server) dial(ctx context.Context, u Upstream) (*upstream, error) {
	host, _, err := net.SplitHostPort(u.Address)
	if err != nil {
		return nil, &Refusal{Reason: Unavailable, Err: fmt.Errorf("upstream address %q: %w", u.Address, err)}
	}
	config := &tls.Config{}
	if u.TLS != nil {
		config = u.TLS.Clone()
	}
	config.ServerName = cmp.Or(config.ServerName, host)
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)

	dial := s.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", u.Address)
	if err != nil {
		return nil, &Refusal{Reason: Unavailable, Err: fmt.Errorf("connect to the upstream %s: %w", u.Address, err)}
	}
	raw := newRawConn(conn)
	up := &upstream{address: u.Address, config: config, raw: raw, conn: raw, in: bufio.NewReaderSize(raw, readBuffer)}
	if u.StartTLS {
		return up, nil
	}
	if err := up.startTLS(ctx); err != nil {
		_ = raw.Close()
		return nil, &Refusal{Reason: Unavailable, Err: fmt.Errorf("upstream %s: %w", u.Address, err)}
	}
	return up, nil
}

// startTLS makes the connection a TLS one. Anything read ahead in clear was
// not said by the server that TLS proves to be there, and ends it
// (CVE-2011-0411, seen from the client).
func (u *upstream) startTLS(ctx context.Context) error {
	if n := u.in.Buffered(); n > 0 {
		return fmt.Errorf("%d bytes came in clear after STARTTLS", n)
	}
	conn := tls.Client(u.raw, u.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return fmt.Errorf("TLS handshake: %w: set ca_file in the cloud's configuration if the server has a private CA", err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	u.conn, u.inTLS = conn, true
	u.in = bufio.NewReaderSize(conn, readBuffer)
	return nil
}

// signIn speaks the protocol's side of the sign-in, until ctx ends.
func (u *upstream) signIn(ctx context.Context, p protocol, l login) (welcome string, err error) {
	stop := whenDone(ctx, u.interrupt)
	welcome, err = p.upstream(ctx, u, l)
	if ended := stop(); ended {
		err = cmp.Or(err, error(&Refusal{Reason: Unavailable, Err: fmt.Errorf("upstream %s: %w", u.address, context.Cause(ctx))}))
	}
	return welcome, err
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

// backoffAsked is how Exchange asks to be left alone.
var backoffAsked = regexp.MustCompile(`(?i)suggested backoff time: (\d{1,9}) milliseconds`)

// throttled is the Refusal for an answer, text, by which an upstream puts a
// sign-in off.
func throttled(said error, text string) *Refusal {
	m := backoffAsked.FindStringSubmatch(text)
	if m == nil {
		return &Refusal{Reason: Unavailable, Err: said}
	}
	ms, _ := strconv.Atoi(m[1])
	return &Refusal{Reason: Unavailable, Public: "the mail server asks for a pause; try again later",
		Err: fmt.Errorf("%w: %w", said, &throttledError{time.Duration(ms) * time.Millisecond})}
}

// base64Run is what may be a token, in base64 or base64url: a server that
// quotes the command it refuses would bring it into the log.
var base64Run = regexp.MustCompile(`[A-Za-z0-9+/=_-]{40,}`)

// quoted makes what an upstream said fit for a log.
func quoted(text string, n int) string { return limited(base64Run.ReplaceAllString(text, "…"), n) }

// throttledError is an upstream's request to stay away for a while.
type throttledError struct{ wait time.Duration }

func (e *throttledError) Error() string {
	return fmt.Sprintf("the upstream throttles this mailbox and asks for %s of rest", e.wait)
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
	return &Refusal{Reason: Unavailable, Public: "the mail server asks for a pause; try again later",
		Err: &throttledError{wait.Round(time.Second)}}
}

// note keeps the wait that err asks for, if it does.
func (b *backoff) note(g Grant, err error) {
	throttled, ok := errors.AsType[*throttledError](err)
	if !ok {
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
	b.until[b.key(g)] = time.Now().Add(min(throttled.wait, maxBackoff))
}
