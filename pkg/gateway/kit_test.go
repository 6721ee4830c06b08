package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/localca"
	"github.com/o365pw/o365pw/pkg/internal/logtest"
	"github.com/o365pw/o365pw/pkg/secret"
)

// The one app password that the backend of the tests knows.
const (
	goodUser     = "alice@contoso.com"
	goodPassword = "abcdefghijklmnop"
	goodToken    = "eyJ0eXAiOiJKV1QifQ.token"
	// tokenInBase64 is a part of the XOAUTH2 response with it.
	tokenInBase64 = "JlYXJlciBleUowZVhB"
)

// fakeBackend knows one app password. Its functions can be replaced.
type fakeBackend struct {
	grant      Grant
	signIn     func(context.Context, Attempt) (Grant, error)
	token      func(context.Context, Grant) (secret.Text, error)
	allowed    func(Grant) error
	revalidate func(context.Context, Grant) error
}

func (b *fakeBackend) SignIn(ctx context.Context, a Attempt) (Grant, error) {
	if b.signIn != nil {
		return b.signIn(ctx, a)
	}
	password := strings.NewReplacer(" ", "", "-", "").Replace(a.Password.Reveal())
	if a.User != goodUser || password != goodPassword {
		return Grant{}, &Refusal{Reason: BadCredentials, Err: errors.New("no app password of this mailbox matches")}
	}
	return b.grant, nil
}

func (b *fakeBackend) Token(ctx context.Context, g Grant) (secret.Text, error) {
	if b.token != nil {
		return b.token(ctx, g)
	}
	return secret.New(goodToken), nil
}

func (b *fakeBackend) Allowed(g Grant) error {
	if b.allowed != nil {
		return b.allowed(g)
	}
	return nil
}

func (b *fakeBackend) Revalidate(ctx context.Context, g Grant) error {
	if b.revalidate != nil {
		return b.revalidate(ctx, g)
	}
	return nil
}

func (b *fakeBackend) Upstreams(Protocol) []Upstream { return []Upstream{b.grant.Upstream} }

// rig is a gateway with everything around it in memory, so that it also runs
// in the bubble of testing/synctest.
type rig struct {
	t        testing.TB
	name     Protocol // that clients speak
	server   *Server
	backend  *fakeBackend
	graph    *fakeGraph
	log      *logtest.Buffer
	ln       net.Listener  // clients arrive here
	memory   *pipeListener // ln, unless that is a socket
	upstream *pipeListener // the gateway's connections to the upstream arrive here
	tls      *tls.Config   // of gateway and upstream
	trust    *tls.Config   // of their clients
	stop     context.CancelFunc
	finished chan error
}

// newRig makes a rig and starts its gateway after change has had a look. A
// listener may be given.
func newRig(t testing.TB, change func(*rig), ln ...net.Listener) *rig {
	t.Helper()
	now := time.Now()
	certPEM, keyPEM, err := localca.Create("test", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := localca.Load(certPEM, keyPEM, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf([]string{"localhost", "127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	r := &rig{
		t: t, name: IMAP, log: &logtest.Buffer{}, memory: newPipeListener(), upstream: newPipeListener(),
		tls:      &tls.Config{Certificates: []tls.Certificate{leaf}},
		trust:    &tls.Config{RootCAs: roots, ServerName: "localhost"},
		finished: make(chan error, 1),
	}
	r.ln = r.memory
	if len(ln) > 0 {
		r.ln = ln[0]
	}
	r.backend = &fakeBackend{grant: Grant{
		ID: "6f1c", Name: "Outlook on Mac", Profile: "work", Mailbox: goodUser, Credential: "key-1",
		Upstream: Upstream{Address: "localhost:993", TLS: r.trust},
	}}
	r.server = &Server{
		Backend: r.backend, TLS: r.tls, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return r.upstream.dial(ctx, netip.MustParseAddrPort("127.0.0.1:40000"))
		},
	}
	r.graph = &fakeGraph{}
	r.server.Graph, r.server.Notes = r.graph, filepath.Join(t.TempDir(), "sending")
	if change != nil {
		change(r)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.finished <- r.server.Serve(ctx, map[Protocol]net.Listener{r.name: r.ln}) }()
	return r
}

// close stops the gateway and checks that it ended as it should.
func (r *rig) close() {
	r.t.Helper()
	r.stop()
	if err := <-r.finished; err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	if n := len(r.server.Sessions()); n != 0 {
		r.t.Errorf("%d sessions are left after Serve", n)
	}
	for _, hidden := range []string{goodPassword, "abcd efgh ijkl mnop", goodToken, tokenInBase64} {
		if strings.Contains(r.log.String(), hidden) {
			r.t.Errorf("the log holds a secret:\n%s", r.log.String())
		}
	}
}

// connect is a mail client's connection from an address.
func (r *rig) connect(remote string) net.Conn {
	r.t.Helper()
	conn, err := r.memory.dial(context.Background(), netip.MustParseAddrPort(remote))
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// acceptUpstream is the upstream's end of the gateway's next connection.
func (r *rig) acceptUpstream() (net.Conn, error) {
	select {
	case conn := <-r.upstream.conns:
		return conn, nil
	case <-time.After(time.Minute):
		return nil, errors.New("the gateway did not connect")
	}
}

// pipeListener is a listener whose connections are memPipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1993} }

func (l *pipeListener) dial(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	near, far := memPipe(net.TCPAddrFromAddrPort(remote), l.Addr())
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
