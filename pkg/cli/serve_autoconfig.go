package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/autoconfig"
	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/localca"
)

// How many connections the autoconfiguration has at a time, in all and from one
// address: strangers must not take the descriptors that sessions need, nor one of
// them the answers that the others wait for.
const (
	maxAutoconfig           = 100
	maxAutoconfigPerAddress = 20
)

// listenAutoconfig opens the address of the autoconfiguration.
func (g *gatewayRun) listenAutoconfig(addr string) error {
	if addr == "" {
		return nil
	}
	ln, err := net.Listen(networkOf(addr), addr)
	if err != nil {
		return newListenError("autoconfig", addr, err)
	}
	g.autoconfigLn = ln
	host, _, _ := net.SplitHostPort(addr)
	g.names = append(g.names, listenNames(host)...)
	slices.Sort(g.names)
	g.names = slices.Compact(g.names)
	return nil
}

// serveAutoconfig answers mail programs until ctx ends.
func (g *gatewayRun) serveAutoconfig(ctx context.Context) {
	listeners := map[string]string{}
	for p, ln := range g.listeners {
		listeners[string(p)] = ln.Addr().String()
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "localhost"
	}
	srv := &http.Server{
		Handler: &autoconfig.Handler{
			Domains: g.domains, Listeners: listeners, Certified: g.certified, Machine: strings.ToLower(machine), Roots: g.roots,
		},
		TLSConfig: g.server.TLS.Clone(), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 15 * time.Second,
		MaxHeaderBytes: 16 << 10, Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP1(true) // see cloudHTTP: what is not built in must not be offered
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ServeTLS(&limitedListener{Listener: g.autoconfigLn}, "", ""); !errors.Is(err, http.ErrServerClosed) {
		g.log.Error("mail programs can no longer ask for their settings", "error", err)
	}
}

// domains are those that settings are told for: the configuration's, or those of
// the app passwords' mailboxes.
func (g *gatewayRun) domains() []string {
	if given := g.settings().AutoconfigDomains; len(given) > 0 {
		return given
	}
	var domains []string
	for _, rec := range g.verifier.Records() {
		for _, m := range rec.Mailboxes {
			_, domain, _ := strings.Cut(strings.ToLower(m), "@")
			if config.IsDomain(domain) && !slices.Contains(domains, domain) {
				domains = append(domains, domain)
			}
		}
	}
	slices.Sort(domains)
	return domains
}

// leafNames are the names for a certificate of the local authority. A domain may
// leave no room for another label (RFC 1035 section 2.3.4): nobody has that name.
func (g *gatewayRun) leafNames() []string {
	names := slices.Clone(g.names)
	if g.autoconfigLn != nil {
		for _, d := range g.domains() {
			for _, name := range []string{d, "autoconfig." + d, "autodiscover." + d} {
				if config.IsDomain(name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// certified tells whether the certificate in use is good for the host name.
func (g *gatewayRun) certified(host string) bool {
	leaf, err := g.tls.Load().GetCertificate(&tls.ClientHelloInfo{ServerName: host})
	if err != nil {
		return false
	}
	parsed := leaf.Leaf
	if parsed == nil {
		if parsed, err = x509.ParseCertificate(leaf.Certificate[0]); err != nil {
			return false
		}
	}
	return parsed.VerifyHostname(host) == nil
}

// roots are the certificates of the local authority; none with a certificate of
// one's own.
func (g *gatewayRun) roots() []clientconfig.Root {
	if g.settings().TLSCert != "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(g.stateDir, "ca.pem"))
	if err != nil {
		return nil
	}
	certs, err := localca.ParseCertificates(b)
	if err != nil {
		return nil
	}
	var roots []clientconfig.Root
	for _, c := range certs {
		roots = append(roots, clientconfig.Root{Name: c.Subject.CommonName, DER: c.Raw})
	}
	return roots
}

// nameDomains makes a new certificate where the registry has domains that the
// one in use does not name.
func (g *gatewayRun) nameDomains(ctx context.Context) {
	settings := g.settings()
	if g.autoconfigLn == nil || settings.TLSCert != "" || !slices.ContainsFunc(g.leafNames(), func(n string) bool { return !g.certified(n) }) {
		return
	}
	if err := g.takeUp(ctx); err != nil {
		g.log.Error("the certificate lacks the names of a new domain; mail programs do not find their settings there", "error", err, "hint", advise(err).hint)
		return
	}
	g.log.Info("the certificate names the domains of new mailboxes, too", "domains", strings.Join(g.domains(), " "))
}

// limitedListener closes connections beyond a number.
type limitedListener struct {
	net.Listener

	mu   sync.Mutex
	all  int
	from map[netip.Addr]int // but for this machine's own
}

// Accept waits for a connection for which there is room.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := stranger(conn.RemoteAddr())
		if l.enter(from) {
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = conn.Close()
	}
}

// stranger is what counts as one address, as at the gateway: IPv6 hosts have a
// network of 64 bits for themselves. This machine's own is no stranger's.
func stranger(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	switch {
	case ip.IsLoopback():
		return netip.Addr{}
	case ip.Is6():
		return netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip
}

func (l *limitedListener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxAutoconfig || from.IsValid() && l.from[from] >= maxAutoconfigPerAddress {
		return false
	}
	if l.from == nil {
		l.from = map[netip.Addr]int{}
	}
	l.all++
	l.from[from]++
	return true
}

func (l *limitedListener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.from[from]--; l.from[from] == 0 {
		delete(l.from, from)
	}
}

// limitedConn gives its place back once.
type limitedConn struct {
	net.Conn
	leave func()
}

// Close ends the connection.
func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
