package gateway

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
)

// Legacy are listeners of their own for devices whose TLS is older than 1.2,
// such as printers that get no updates. Clients are taken from private networks
// alone (RFC 1918, RFC 4193, link-local, this machine), since what protects the
// password on its way is weak. All else is as on the other listeners, which do
// not speak old TLS.
type Legacy struct {
	Listeners map[Protocol]net.Listener
	TLS       *tls.Config // as of [LegacyTLS]
}

// LegacyTLS is a TLS configuration that speaks all versions from 1.0 on, with
// every cipher suite that crypto/tls has but RC4 (RFC 7465). SSL 3.0 it does not
// have at all.
func LegacyTLS(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	var suites []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !strings.Contains(s.Name, "RC4") {
			suites = append(suites, s.ID)
		}
	}
	return &tls.Config{MinVersion: tls.VersionTLS10, CipherSuites: suites, GetCertificate: certificate}
}

// privateNetwork tells whether an address cannot be of the Internet.
func privateNetwork(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast()
}

// addresses are those that listeners listen on.
func addresses(listeners map[Protocol]net.Listener) map[Protocol]string {
	list := map[Protocol]string{}
	for name, ln := range listeners {
		list[name] = ln.Addr().String()
	}
	return list
}
