package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

// wayOut is a connection on which a message is submitted.
type wayOut struct {
	conn  net.Conn
	host  string       // the server's name, as its certificate has it
	auth  smtp.Auth    // nil: it need not be signed in to
	close func() error // once conn is closed: why the session was not let in, or was ended
}

// wayOut connects to the running gateway, which counts what is sent, and signs in
// there as a mail program does. Where none runs, or it takes no mail to send, it
// is a session in this process, as that of connect.
func (a *app) wayOut(ctx context.Context, s *session, e apppassword.Entry, mailbox string) (wayOut, error) {
	st, err := controlOf(s.stateDir).Status(ctx)
	if err != nil && !errors.Is(err, gateway.ErrNotRunning) {
		return wayOut{}, err
	}
	if listen := st.Listeners[gateway.SMTP]; err == nil && listen != "" && !st.Stopping {
		password, err := s.passwordOf(ctx, e)
		if err != nil {
			return wayOut{}, err
		}
		return s.dialGateway(ctx, listen, mailbox, password)
	}
	if e.MaxPerHour > 0 {
		return wayOut{}, &failedError{code: failed, msg: fmt.Sprintf("the app password %q may send %d messages an hour, which the gateway counts, and it does not run", e.Name, e.MaxPerHour), hint: "o365pw serve"}
	}
	t, err := a.connectTo(ctx, s, e.Record, gateway.SMTP, mailbox)
	if err != nil {
		return wayOut{}, err
	}
	return wayOut{conn: t, host: "localhost", close: t.Wait}, nil
}

// dialGateway connects to the gateway on listen over TLS.
func (s *session) dialGateway(ctx context.Context, listen, mailbox string, password secret.Text) (wayOut, error) {
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
	return wayOut{conn: conn, host: host, auth: smtp.PlainAuth("", mailbox, password.Reveal(), host), close: func() error { return nil }}, nil
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
