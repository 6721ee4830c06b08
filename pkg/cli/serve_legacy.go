package cli

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// listenLegacy opens the addresses for devices whose TLS is old. They deserve a
// word at each start, in the log as well as for whoever starts the gateway.
func (g *gatewayRun) listenLegacy(settings config.Gateway) error {
	g.legacy = map[gateway.Protocol]net.Listener{}
	for _, p := range gateway.Protocols() {
		addr := settings.Legacy[string(p)]
		if addr == "" {
			continue
		}
		ln, err := net.Listen(networkOf(addr), addr)
		if err != nil {
			return newListenError("legacy "+string(p), addr, err)
		}
		g.legacy[p] = ln
		host, _, _ := net.SplitHostPort(addr)
		g.names = append(g.names, listenNames(host)...)
		g.log.Warn("old TLS (1.0 and 1.1) is spoken, which those who are in between can read: only for devices that know no other", "protocol", string(p), "address", ln.Addr().String())
		g.a.tell("%s with old TLS on %s: only for devices that know no other; whoever is in between can read passwords and mail", p, ln.Addr())
	}
	slices.Sort(g.names)
	g.names = slices.Compact(g.names)
	return nil
}

// legacyTLS shows the certificate in use to devices that can use it, and one
// with an RSA key to the others.
func (g *gatewayRun) legacyTLS() *tls.Config {
	return gateway.LegacyTLS(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := g.tls.Load().GetCertificate(hello)
		get := g.legacyRSA.Load()
		if get == nil || err == nil && hello.SupportsCertificate(c) == nil {
			return c, err
		}
		return (*get)()
	})
}

// oldTLS lists the addresses with old TLS for people; empty: there are none.
func oldTLS(st *gateway.Status) string {
	var all []string
	for _, p := range gateway.Protocols() {
		if addr := st.Legacy[p]; addr != "" {
			all = append(all, string(p)+" on "+addr)
		}
	}
	return strings.Join(all, ", ")
}
