// Package localca is a certificate authority for one machine: it certifies the
// names under which that machine's own programs are reached.
//
// The CA's certificate is public and is what mail clients are told to trust.
// Its private key is handed out once, by [Create], for the caller to keep; it
// is never written by this package. Whoever has it can pose as any server to
// those who trust the CA, which is why leaf keys are made anew at every start
// and never leave memory.
//
// The CA carries no name constraints (RFC 5280 section 4.2.1.10). The names it
// certifies are not known when it is made: the gateway comes to listen on other
// addresses, machines and containers change their host names, and a leaf with
// one name outside of the constraints is refused as a whole. Each such change
// would need a new CA, and with it every client to be told anew. Nor are
// constraints on IP addresses understood alike by all TLS libraries in use.
// What limits the CA is its extended key usage: it certifies TLS servers, and
// neither people nor programs.
package localca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Lifetimes.
const (
	// CALifetime is long: renewing the CA means telling every client again.
	CALifetime = 10 * 365 * 24 * time.Hour
	// LeafLifetime is below the 398 days that Apple's systems and the
	// CA/Browser Forum allow.
	LeafLifetime = 397*24*time.Hour - backdate
	// renewBefore is how long before its end a leaf is replaced.
	renewBefore = 30 * 24 * time.Hour
	// backdate allows for clients whose clock is behind.
	backdate = time.Hour
)

// Errors of [Load] and [CA.Leaf] that a caller can mend by making a new CA.
var (
	// ErrMismatch means that key and certificate do not belong together.
	ErrMismatch = errors.New("the private key does not belong to the CA certificate")
	// ErrNotCA means that the certificate is none of a certificate authority.
	ErrNotCA = errors.New("the certificate is not a certificate authority's")
	// ErrExpired means that the CA's time is over.
	ErrExpired = errors.New("the CA certificate has expired")
	// ErrNotYetValid means that it lies ahead: the clock is wrong, most likely.
	ErrNotYetValid = errors.New("the CA certificate is not valid yet")
)

// CA is a certificate authority that can sign. Its methods may be called from
// several goroutines.
type CA struct {
	// Certificate is the CA's own, to be trusted by clients.
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Create makes a CA with an ECDSA P-256 key, valid for [CALifetime] from now,
// whose common name holds host so that people can tell it from that of another
// machine, and whose organizational unit is its key's, since trust stores (NSS)
// mix up authorities of one name. Both results are PEM, a CERTIFICATE and a PRIVATE KEY (PKCS #8).
func Create(host string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA key: %w", err)
	}
	name := "o365pw local CA"
	if host != "" {
		name = "o365pw local CA (" + host + ")"
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("encode CA key: %w", err)
	}
	template := &x509.Certificate{
		// RFC 5280 appendix A.1: a common name has 64 characters at most.
		Subject: pkix.Name{CommonName: truncate(name, 64), Organization: []string{"o365pw"},
			OrganizationalUnit: []string{fmt.Sprintf("key %.4x", sha256.Sum256(public))}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode CA key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// truncate cuts s at a character.
func truncate(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n])
	}
	return s
}

// Load takes up the CA that [Create] made. It returns [ErrMismatch],
// [ErrNotCA], [ErrExpired] or [ErrNotYetValid] where they apply, and another
// error for what is not PEM of these kinds. No error quotes the key.
func Load(certPEM, keyPEM []byte, now time.Time) (*CA, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the CA key is not a PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("the CA key is not an ECDSA key in PKCS #8")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, ErrMismatch
	}
	switch {
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, ErrNotCA
	case now.After(cert.NotAfter):
		return nil, fmt.Errorf("%w: on %s", ErrExpired, cert.NotAfter.Format(time.DateOnly))
	case now.Before(cert.NotBefore):
		return nil, fmt.Errorf("%w: before %s", ErrNotYetValid, cert.NotBefore.Format(time.DateOnly))
	}
	return &CA{Certificate: cert, key: key}, nil
}

// ParseCertificate reads a CA certificate without its key: the first of those
// in certPEM.
func ParseCertificate(certPEM []byte) (*x509.Certificate, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// ParseCertificates reads the certificates of CAs, at least one. Text around
// them is skipped, as by all who read PEM.
func ParseCertificates(certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(certPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("the CA certificate is not a PEM certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CA certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if certs == nil {
		return nil, errors.New("the CA certificate is not a PEM certificate")
	}
	return certs, nil
}

// Leaf makes a server certificate with a key of its own (ECDSA P-256) for
// names, which are DNS names and IP addresses. It is valid for [LeafLifetime]
// from now, and no longer than the CA. The CA's certificate is not part of the
// chain: a client that trusts it has it.
func (ca *CA) Leaf(names []string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	return ca.leaf(names, now, key)
}

// LeafRSA is Leaf with an RSA key of 2048 bits, which takes a moment to make:
// for devices that do not know ECDSA.
func (ca *CA) LeafRSA(names []string, now time.Time) (tls.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	return ca.leaf(names, now, key)
}

func (ca *CA) leaf(names []string, now time.Time, key crypto.Signer) (tls.Certificate, error) {
	if len(names) == 0 {
		return tls.Certificate{}, errors.New("a certificate needs a name")
	}
	if now.After(ca.Certificate.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("%w: on %s", ErrExpired, ca.Certificate.NotAfter.Format(time.DateOnly))
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: truncate(names[0], 64), Organization: []string{"o365pw"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(LeafLifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// A leaf that outlives its issuer is refused by strict clients, on either side.
	if template.NotAfter.After(ca.Certificate.NotAfter) {
		template.NotAfter = ca.Certificate.NotAfter
	}
	if template.NotBefore.Before(ca.Certificate.NotBefore) {
		template.NotBefore = ca.Certificate.NotBefore
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.Unmap().WithZone("").AsSlice())
			continue
		}
		if !isDNSName(name) {
			return tls.Certificate{}, fmt.Errorf("%q is neither a host name nor an IP address", name)
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment // TLS 1.2 and older without Diffie-Hellman
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, key.Public(), ca.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read back certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// isDNSName accepts host names in ASCII (RFC 1123 section 2.1), "_" included,
// which machines' names hold.
func isDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

// Config is a server's TLS configuration, TLS 1.2 at least, whose certificate
// comes from leaf: once now, so that an error shows at the start, and again
// when 30 days of it are left. While a renewal fails, the old one is shown.
func Config(leaf func(now time.Time) (tls.Certificate, error)) (*tls.Config, error) {
	first, err := leaf(time.Now())
	if err != nil {
		return nil, err
	}
	r := &renewer{leaf: leaf, current: &first}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: r.get}, nil
}

// Certificates gives the certificate that comes from leaf, as Config does, but
// asks for the first one only when it is needed.
func Certificates(leaf func(now time.Time) (tls.Certificate, error)) func() (*tls.Certificate, error) {
	r := &renewer{leaf: leaf}
	return func() (*tls.Certificate, error) { return r.get(nil) }
}

// renewer keeps the current leaf.
type renewer struct {
	leaf func(now time.Time) (tls.Certificate, error)

	mu      sync.Mutex
	current *tls.Certificate
	tried   time.Time
}

// get is tls.Config.GetCertificate.
func (r *renewer) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && (now.Before(r.current.Leaf.NotAfter.Add(-renewBefore)) || now.Before(r.tried.Add(time.Minute))) {
		return r.current, nil
	}
	r.tried = now
	next, err := r.leaf(now)
	switch {
	case r.current == nil && err != nil:
		return nil, err
	case r.current == nil, err == nil && next.Leaf.NotAfter.After(r.current.Leaf.NotAfter): // near the CA's end it is not
		r.current = &next
	}
	return r.current, nil
}
