package cli

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// withoutListeners is what of a gateway token and connect need: the app password,
// and what gets tokens by it.
func (a *app) withoutListeners(ctx context.Context, s *session, rec apppassword.Record) (*gatewayRun, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	g := &gatewayRun{a: a, log: a.logger(), stateDir: s.stateDir, keychains: s.manager.Keychains}
	g.cfg.Store(cfg)
	tokens := &entra.Cache{Margin: tokenMargin}
	a.tokens = append(a.tokens, tokens)
	g.verifier = &apppassword.Verifier{
		Registry: s.manager.Registry, Keychains: g.keychains, Clouds: g.cloud, Entra: g.entraClient, Tokens: tokens, Log: g.log, Now: a.Now,
	}
	return g, g.verifier.LoadOne(ctx, rec.ID)
}

// serveGranted serves one session that is granted, with everything that a gateway
// has for one. The hooks are the gateway's alone: who runs a command sees its error.
func (g *gatewayRun) serveGranted(ctx context.Context, conn net.Conn, p gateway.Protocol, grant gateway.Grant) error {
	usage := g.usageRecorder()
	g.audit = audit.NewWriter(auditLogIn(g.stateDir), func(err error) { g.log.Error("the audit log cannot be written", "error", err) })
	g.observer = &observer{trail: &trail{add: g.audit.Add, now: g.a.Now}}
	g.server = &gateway.Server{
		Backend: g.backend, Revalidate: g.settings().Revalidate, Proxy: gateway.ProxyFromEnvironment(g.a.Getenv), Log: g.log,
		Observe: func(e gateway.Event) {
			if e.Kind == gateway.SignedIn {
				usage.NoteLast(e.Grant.ID, apppassword.LastUse{Time: e.Time, Protocol: string(e.Protocol), Address: e.Remote.Addr().String()})
			}
			g.observer.trail.observe(e)
		},
	}
	var wg sync.WaitGroup
	serving, ended := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { g.verifier.Watch(serving, g.server.Recheck) })
	wg.Go(func() { usage.Run(serving) })
	err := g.server.ServeGranted(ctx, conn, p, grant)
	ended()
	wg.Wait()
	g.endTrail()
	return err
}

func (g *gatewayRun) usageRecorder() *apppassword.UsageRecorder {
	return &apppassword.UsageRecorder{Usage: apppassword.Usage{Dir: g.stateDir}, Registry: g.verifier.Registry, Log: g.log}
}

// pipeEnd is one end of a connection within this process, each direction of which
// can be closed by itself.
type pipeEnd struct {
	in, out net.Conn
	remote  net.Addr
}

// pipePair is such a connection: the client's end, and the server's, which sees the
// client at an address.
func pipePair(client net.Addr) (near, far *pipeEnd) {
	up, received := net.Pipe()
	down, answered := net.Pipe()
	return &pipeEnd{in: down, out: up, remote: client}, &pipeEnd{in: received, out: answered, remote: client}
}

// Read, Write, CloseWrite, Close, the addresses and the deadlines are net.Conn's.
func (p *pipeEnd) Read(b []byte) (int, error)         { return p.in.Read(b) }
func (p *pipeEnd) Write(b []byte) (int, error)        { return p.out.Write(b) }
func (p *pipeEnd) CloseWrite() error                  { return p.out.Close() }
func (p *pipeEnd) Close() error                       { _ = p.in.Close(); return p.out.Close() }
func (p *pipeEnd) LocalAddr() net.Addr                { return p.remote }
func (p *pipeEnd) RemoteAddr() net.Addr               { return p.remote }
func (p *pipeEnd) SetReadDeadline(t time.Time) error  { return p.in.SetReadDeadline(t) }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { return p.out.SetWriteDeadline(t) }
func (p *pipeEnd) SetDeadline(t time.Time) error {
	_ = p.in.SetReadDeadline(t)
	return p.out.SetWriteDeadline(t)
}

// serverEnd is the server's: what it says last is read, whatever becomes of what it
// has not read, so that it need not wait for the client to fall silent as one does
// before it closes a socket.
type serverEnd struct{ *pipeEnd }

// CloseWrite closes both directions.
func (e serverEnd) CloseWrite() error { return e.Close() }
