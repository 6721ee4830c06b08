package gateway

import (
	"crypto/tls"
	"net"
	"net/netip"
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

// oldSuites are the cipher suites of TLS 1.2 and older, but for RC4 (RFC 7465).
var oldSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
}

// LegacyTLS is a TLS configuration that speaks all versions from 1.0 on. SSL 3.0
// is nothing that crypto/tls has.
func LegacyTLS(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS10, CipherSuites: oldSuites, GetCertificate: certificate}
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
