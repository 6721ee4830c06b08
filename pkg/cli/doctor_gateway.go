package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// gatewayChecks look at the gateway of this machine as a mail program would.
func (d *doctor) gatewayChecks() []check {
	list := []check{
		{id: "gateway", title: "Gateway", needs: []string{"configuration"}, run: d.runningGateway},
		{id: "gateway-certificate", title: "Gateway's certificate", needs: []string{"gateway"}, run: d.gatewayCertificate},
	}
	if d.session == nil {
		return list
	}
	if !d.named || d.subject.Decoy {
		why := "name an app password to sign in with: o365pw doctor NAME"
		if d.named {
			why = "a decoy never signs in"
		}
		return append(list, check{id: "gateway-sign-in", title: "Sign-in at the gateway", needs: []string{"gateway"}, run: func(context.Context) result { return skipped("%s", why) }})
	}
	for _, m := range d.mailboxes {
		for _, p := range d.allow {
			list = append(list, check{id: "gateway-" + p + " " + m, title: strings.ToUpper(p) + " at the gateway, " + m,
				needs: []string{"gateway", "gateway-certificate", "app-password", p + " " + m},
				run:   func(ctx context.Context) result { return d.gatewaySignIn(ctx, gateway.Protocol(p), m) }})
		}
	}
	return list
}

// runningGateway asks the gateway, and tries its ports.
func (d *doctor) runningGateway(ctx context.Context) result {
	st, err := controlOf(d.session.stateDir).Status(ctx)
	if errors.Is(err, gateway.ErrNotRunning) {
		r := d.warning(err)
		r.detail, r.blocks = "it does not run on this machine, for this state folder", true
		return r
	}
	if err != nil {
		return d.fail(err)
	}
	d.gateway = &st
	var open []string
	for _, p := range gateway.Protocols() {
		addr := st.Listeners[p]
		if addr == "" {
			continue
		}
		conn, err := dialQuickly(ctx, "tcp", dialable(addr))
		if err != nil {
			return result{status: checkFailed, code: failed, detail: fmt.Sprintf("it says that it listens for %s on %s, and nothing answers there: %v", p, addr, err),
				remedies: []remedy{yours("a firewall of this machine, or a network that has gone since", "o365pw serve --stop", "o365pw serve")}}
		}
		_ = conn.Close()
		open = append(open, string(p)+" on "+addr)
	}
	r := passed("version %s (process %d), %s", st.Version, st.PID, sentence(open))
	warn := func(detail string, m remedy) {
		r.status, r.detail, r.remedies = checkWarning, r.detail+"; "+detail, append(r.remedies, m)
	}
	if st.Version != version() {
		warn("this command is of version "+version(), yours("it was started before an update", "o365pw serve --stop", "o365pw serve"))
	}
	if st.Stopping {
		warn("it is stopping", yours("somebody has told it to end", "o365pw serve"))
	}
	if list := oldTLS(&st); list != "" {
		warn("old TLS (1.0 and 1.1) is spoken: "+list, yours("whoever is in between can read passwords and mail", "take out of [gateway.legacy] what no device needs any more"))
	}
	if st.Autoconfig != "" {
		conn, err := dialQuickly(ctx, "tcp", dialable(st.Autoconfig))
		if err != nil {
			warn(fmt.Sprintf("it says that it tells mail programs their settings on %s, and nothing answers there: %v", st.Autoconfig, err), yours("a firewall of this machine", "o365pw serve --stop", "o365pw serve"))
		} else {
			_ = conn.Close()
			r.detail += ", settings for mail programs on " + st.Autoconfig
		}
	}
	if st.Metrics != "" && !loopback(st.Metrics) {
		warn("its metrics are open to other machines without TLS, on "+st.Metrics, yours("", "set metrics = \"127.0.0.1:9465\" in [gateway]"))
	}
	return r
}

// dialable is where to reach a listener from this machine.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip, perr := netip.ParseAddr(host); err == nil && (host == "" || perr == nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
		if perr == nil && ip.Is6() {
			host = "::1"
		}
		return net.JoinHostPort(host, port)
	}
	return addr
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip, perr := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || perr == nil && ip.IsLoopback())
}

// gatewayTrust is what mail programs are to trust, and the file it is in.
func (d *doctor) gatewayTrust() (*x509.CertPool, string, error) {
	file := d.session.gateway.TLSCert
	if file == "" {
		file = filepath.Join(d.session.stateDir, "ca.pem")
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, file, err
	}
	roots := x509.NewCertPool()
	if d.session.gateway.TLSCert != "" {
		if system, err := x509.SystemCertPool(); err == nil {
			roots = system
		}
	}
	roots.AppendCertsFromPEM(pem)
	return roots, file, nil
}

// gatewayCertificate looks at what the gateway shows over TLS.
func (d *doctor) gatewayCertificate(ctx context.Context) result {
	roots, file, err := d.gatewayTrust()
	if err != nil {
		return d.fail(err)
	}
	var ends time.Time
	for _, p := range gateway.Protocols() {
		addr := d.gateway.Listeners[p]
		if addr == "" {
			continue
		}
		leaf, chain, err := shown(ctx, dialable(addr))
		if err != nil {
			return result{status: checkFailed, code: failed, detail: fmt.Sprintf("TLS with %s: %v", addr, err),
				remedies: []remedy{yours("another program has the address, or the gateway hangs", "o365pw serve --stop", "o365pw serve")}}
		}
		host, _, _ := net.SplitHostPort(addr)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain, CurrentTime: d.a.Now()})
		if err == nil {
			err = leaf.VerifyHostname(clientHost(host))
		}
		if err != nil {
			fix := yours("mail programs will not accept it as it is", "o365pw serve --stop", "o365pw serve")
			if d.session.gateway.TLSCert != "" {
				fix.fix = []string{"set tls_cert and tls_key in [gateway] to a certificate for " + clientHost(host) + " that is good, which a running gateway takes up by itself"}
			}
			return result{status: checkFailed, code: wrongUsage, detail: fmt.Sprintf("%s: %v", p, err), remedies: []remedy{fix}}
		}
		ends = leaf.NotAfter
	}
	if ends.IsZero() {
		return skipped("it has no listener")
	}
	r := passed("good until %s; mail programs trust it by %s", ends.Format(time.DateOnly), file)
	c, err := certificateOf(d.session.gateway, d.session.stateDir)
	if err != nil || c == nil {
		return r
	}
	if problem, fix := c.endsSoon(d.a.Now()); problem != "" {
		r.status, r.remedies = checkWarning, append(r.remedies, yours(problem, fix...))
	}
	if issuer := c.unknownIssuer(); issuer != "" {
		r.status = checkWarning
		r.remedies = append(r.remedies, yours("neither "+file+" nor this machine has the certificate of "+issuer+", which has signed it: mail programs that do not have it either refuse it",
			"put what its authority gives along with it (intermediate certificates, fullchain.pem) behind it into "+file, "or, where the authority is one of your own, have the mail programs trust it"))
	}
	return r
}

// shown is the certificate that a server shows, and those that it sends along.
func shown(ctx context.Context, addr string) (*x509.Certificate, *x509.CertPool, error) {
	raw, err := dialQuickly(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // it is looked at, and nothing is sent
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	certs := conn.ConnectionState().PeerCertificates
	rest := x509.NewCertPool()
	for _, c := range certs[1:] {
		rest.AddCert(c)
	}
	return certs[0], rest, nil
}

// gatewaySignIn signs in as a mail program would, with the app password.
func (d *doctor) gatewaySignIn(ctx context.Context, p gateway.Protocol, mailbox string) result {
	addr := d.gateway.Listeners[p]
	if addr == "" {
		return result{status: checkFailed, code: wrongUsage, detail: notListening(string(p))}
	}
	password, err := d.session.manager.Reveal(ctx, d.subject.Record)
	if err != nil {
		return d.fail(err)
	}
	roots, _, err := d.gatewayTrust()
	if err != nil {
		return d.fail(err)
	}
	host, _, _ := net.SplitHostPort(addr)
	_, err = gateway.ProbeLogin(ctx, gateway.LoginProbe{Protocol: p, Address: dialable(addr), TLS: &tls.Config{RootCAs: roots, ServerName: clientHost(host)},
		User: mailbox, Password: password, Dial: dialQuickly})
	if err == nil {
		return passed("signed in, and Exchange has opened the mailbox")
	}
	r := d.fail(err)
	e, ok := errors.AsType[*gateway.ServerError](err)
	if !ok || e.Reply == "" {
		return r
	}
	found := slices.DeleteFunc(explain.Find(e.Reply), func(x explain.Explanation) bool { return x.Kind != explain.OfGateway && x.Kind != explain.OfExchange })
	if len(found) == 0 {
		return r
	}
	r.remedies = remediesOf(found[0].Remedies())
	if found[0].Code == "asks for a pause" {
		r.status, r.code = checkWarning, done
	}
	if found[0].Code == "network-not-allowed" {
		r.detail += "; this machine is not in its networks, which says nothing of those that are"
		r.status, r.code = checkWarning, done
	}
	r.remedies = d.filled(r.remedies, d.values(mailbox))
	return r
}
