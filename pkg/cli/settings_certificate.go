package cli

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// clientCertificate is what mail programs have to know of the gateway's
// certificate.
type clientCertificate struct {
	trust string            // the file of what is to be trusted; empty: nothing, or nobody knows where it is
	leaf  *x509.Certificate // one's own; nil: there is none, or it cannot be read
	known bool              // programs can verify it
}

// clientCertificate is that of the gateway that the configuration describes. It
// tells where programs have to be told what is in no file here.
func (a *app) clientCertificate(s *session) clientCertificate {
	if s.gateway.TLSCert == "" {
		return clientCertificate{trust: filepath.Join(s.stateDir, "ca.pem")}
	}
	c := s.ownCertificate()
	if c.leaf != nil && !c.known {
		a.warn("nobody whom this machine trusts has signed %s: tell the mail program to trust the authority that has", s.gateway.TLSCert)
	}
	return c
}

// ownCertificate is the certificate that the configuration names. One that has
// signed itself, or comes with its authority, is to be trusted by the same file.
func (s *session) ownCertificate() clientCertificate {
	certs, _, file, err := gatewayCertificates(s.gateway, s.stateDir)
	if err != nil { // serve and config check say so
		return clientCertificate{}
	}
	c := clientCertificate{leaf: certs[0], known: true}
	chain := x509.NewCertPool()
	for _, cert := range certs[1:] {
		chain.AddCert(cert)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{Intermediates: chain}); err == nil {
		return c
	} else if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return c // out of date, for one: serve and doctor say so
	}
	last := certs[len(certs)-1]
	if c.known = bytes.Equal(last.RawIssuer, last.RawSubject); c.known {
		c.trust = file
	}
	return c
}

// name is host where the certificate is good for it, else the first name in the
// certificate that leads to one server.
func (c clientCertificate) name(host string) string {
	if c.leaf == nil || c.leaf.VerifyHostname(host) == nil {
		return host
	}
	names := slices.Clone(c.leaf.DNSNames)
	for _, ip := range c.leaf.IPAddresses {
		names = append(names, ip.String())
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "*.") })
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && slices.Contains(names, "localhost") {
		return "localhost"
	}
	if len(names) == 0 {
		return host
	}
	return names[0]
}
