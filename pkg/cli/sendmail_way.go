package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// wayOut is a connection on which a message is submitted, with the app
// password.
type wayOut struct {
	conn  net.Conn
	host  string       // the server's name, as its certificate has it
	close func() error // ends what stands behind conn, once that is closed
	why   func() error // what stands behind a refusal, where that is known; after close
}

// wayOut connects to the running gateway, which counts what is sent. Where none
// runs, or it takes no mail to send, it is a gateway within this process.
func (a *app) wayOut(ctx context.Context, s *session, rec apppassword.Record) (wayOut, error) {
	st, err := controlOf(s.stateDir).Status(ctx)
	if err != nil && !errors.Is(err, gateway.ErrNotRunning) {
		return wayOut{}, err
	}
	if listen := st.Listeners[gateway.SMTP]; err == nil && listen != "" && !st.Stopping {
		return s.dialGateway(ctx, listen)
	}
	if rec.MaxPerHour > 0 {
		return wayOut{}, &failedError{code: failed, msg: fmt.Sprintf("the app password %q may send %d messages an hour, which the gateway counts, and it does not run", rec.Name, rec.MaxPerHour), hint: "o365pw serve"}
	}
	return a.within(ctx, s)
}

// dialGateway connects to the gateway on listen over TLS.
func (s *session) dialGateway(ctx context.Context, listen string) (wayOut, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return wayOut{}, err
	}
	host = clientHost(host)
	settings, err := s.gatewayTLS(host)
	if err != nil {
		return wayOut{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := (&tls.Dialer{Config: settings}).DialContext(ctx, "tcp", dialable(listen))
	if err != nil {
		return wayOut{}, &failedError{code: failed, msg: fmt.Sprintf("nothing was sent: connect to the gateway on %s: %v", listen, err), hint: "o365pw doctor", errs: []error{err}}
	}
	return wayOut{conn: conn, host: host, close: func() error { return nil }, why: func() error { return nil }}, nil
}

// gatewayTLS trusts the local authority, or the very certificate that the
// configuration names: it need not be for the address that the gateway has on
// this machine.
func (s *session) gatewayTLS(host string) (*tls.Config, error) {
	if s.gateway.TLSCert != "" {
		own, err := tls.LoadX509KeyPair(s.gateway.TLSCert, s.gateway.TLSKey)
		if err != nil {
			return nil, &config.Error{Key: "gateway.tls_cert", Problem: err.Error(), Hint: "name PEM files of a certificate and its key in tls_cert and tls_key, or leave both empty", Err: err}
		}
		return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // it is compared whole
			VerifyConnection: func(c tls.ConnectionState) error {
				if len(c.PeerCertificates) == 0 || !bytes.Equal(c.PeerCertificates[0].Raw, own.Certificate[0]) {
					return errors.New("it shows another certificate than that of tls_cert in the configuration; after a change it has to be reloaded (SIGHUP)")
				}
				return nil
			}}, nil
	}
	pem, err := os.ReadFile(filepath.Join(s.stateDir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}, nil
}

// within runs a gateway in this process for one connection, which holds the app
// password to its scope and writes the audit log as the other one does.
func (a *app) within(ctx context.Context, s *session) (wayOut, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return wayOut{}, err
	}
	g := &gatewayRun{a: a, log: a.logger(), stateDir: s.stateDir}
	g.cfg.Store(cfg)
	g.verifier = &apppassword.Verifier{
		Registry: s.manager.Registry, Keychains: s.manager.Keychains, Clouds: g.cloud, Entra: g.entraClient,
		Tokens: &entra.Cache{Margin: tokenMargin}, Log: g.log, Now: a.Now,
	}
	if err := g.verifier.Load(ctx); err != nil {
		return wayOut{}, err
	}
	g.backend = &backend{verifier: g.verifier, clouds: g.cloud}
	writer := audit.NewWriter(auditLogIn(s.stateDir), func(err error) { a.warn("the audit log could not be written: %v", err) })
	usage := &apppassword.UsageRecorder{Usage: apppassword.Usage{Dir: s.stateDir}, Registry: s.manager.Registry, Log: g.log}
	trail := &trail{add: writer.Add, now: a.Now}
	why := &refusalLog{}
	server := &gateway.Server{
		Backend: g.backend, Proxy: gateway.ProxyFromEnvironment(a.Getenv), Log: g.log, GreetAfter: time.Millisecond,
		Observe: func(e gateway.Event) {
			if e.Kind == gateway.SignedIn {
				usage.Note(e.Grant.ID, apppassword.LastUse{Time: e.Time, Protocol: string(e.Protocol), Address: e.Remote.Addr().String()})
			}
			why.note(e)
			trail.observe(e)
		},
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return wayOut{}, err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	var serveErr error
	wg.Go(func() { serveErr = server.Serve(serving, map[gateway.Protocol]net.Listener{gateway.SMTP: ln}) })
	end := func() error {
		stop()
		wg.Wait()
		ended, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel()
		usage.Run(ended) // writes what was noted
		trail.flush()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditLimit)
		defer cancel()
		if err := writer.Close(limit); err != nil {
			a.warn("the audit log lacks entries: %v", err)
		}
		return serveErr
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return wayOut{}, errors.Join(err, end())
	}
	return wayOut{conn: conn, host: "localhost", close: end, why: why.cause}, nil
}

// refusalLog keeps why a sign-in was refused: a mail program hears less of that
// than its owner may.
type refusalLog struct {
	mu  sync.Mutex
	err error
}

func (l *refusalLog) note(e gateway.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind == gateway.Refused {
		l.err = e.Cause
	}
}

func (l *refusalLog) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
