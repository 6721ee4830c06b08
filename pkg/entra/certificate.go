package entra

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	newKeyBits      = 3072 // as strong as 128 bits (NIST SP 800-57 part 1, table 2)
	leastKeyBits    = 2048
	mostKeyBits     = 8192
	maxPEM          = 256 << 10
	assertionBefore = time.Minute     // for a clock that is ahead of Entra's
	assertionLife   = 9 * time.Minute // Microsoft asks for 5 to 10 minutes in all
)

// The ways to sign an assertion (RFC 7518 section 3.1) that Entra takes.
const (
	PS256 = "PS256"
	RS256 = "RS256"
)

// Certificate is an application's certificate with its private key (RSA). The
// key is neither printed nor marshalled; PEM is the only way to it. The zero
// value is no certificate.
type Certificate struct {
	pair *keyPair // a pointer, since fmt walks through fields but not on from there
}

type keyPair struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

// NewCertificate makes a key of 3072 bits and a self-signed certificate for
// it, fit for signing assertions and nothing else. name is its common name,
// shown in Entra. It is good from a few minutes before now, for clocks that
// differ, and for life altogether: tenants may limit that.
func NewCertificate(name string, now time.Time, life time.Duration) (Certificate, error) {
	const before = 5 * time.Minute
	if life <= before {
		return Certificate{}, fmt.Errorf("make certificate: a life of %v is too short", life)
	}
	key, err := rsa.GenerateKey(rand.Reader, newKeyBits)
	if err != nil {
		return Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	notBefore := now.UTC().Add(-before).Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)), // RFC 5280 section 4.1.2.2: not 0
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(life).Truncate(time.Second),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return Certificate{&keyPair{key, cert}}, nil
}

// ParseCertificate reads a private key (PKCS#8 or PKCS#1) and its certificate
// from PEM (RFC 7468), in any order. Of several certificates, as of a chain,
// it takes the one that belongs to the key, and of several of these the one
// that is good longest. Errors say what is wrong and never quote content.
func ParseCertificate(text secret.Text) (Certificate, error) {
	rest := bytes.TrimPrefix([]byte(text.Reveal()), []byte("\xef\xbb\xbf"))
	if len(rest) > maxPEM {
		return Certificate{}, fmt.Errorf("the certificate has more than %d kB", maxPEM>>10)
	}
	var key *rsa.PrivateKey
	var certs []*x509.Certificate
	blocks := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks++
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return Certificate{}, fmt.Errorf("certificate %d cannot be read", len(certs)+1)
			}
			certs = append(certs, cert)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return Certificate{}, errors.New("there is more than one private key")
			}
			var err error
			if key, err = parseKey(block); err != nil {
				return Certificate{}, err
			}
		}
	}
	switch {
	case blocks == 0:
		return Certificate{}, errors.New("there is nothing in PEM (a .pfx or .p12 file has to be converted: openssl pkcs12 -nodes)")
	case key == nil:
		return Certificate{}, errors.New("there is no private key beside the certificate")
	case len(certs) == 0:
		return Certificate{}, errors.New("there is no certificate beside the private key")
	}
	var fit *x509.Certificate
	for _, cert := range certs {
		if key.PublicKey.Equal(cert.PublicKey) && (fit == nil || cert.NotAfter.After(fit.NotAfter)) {
			fit = cert
		}
	}
	if fit == nil {
		return Certificate{}, errors.New("the private key does not belong to the certificate")
	}
	return Certificate{&keyPair{key, fit}}, nil
}

// parseKey reads a private key. The parsers' own messages may hold a part of
// what they have read, and are left out.
func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("the private key is encrypted, and nobody could type its password each time (openssl pkey writes it without)")
	}
	var key *rsa.PrivateKey
	switch block.Type {
	case "RSA PRIVATE KEY":
		var err error
		if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return nil, errors.New("the private key cannot be read")
		}
	case "PRIVATE KEY":
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the private key cannot be read")
		}
		var ok bool
		if key, ok = parsed.(*rsa.PrivateKey); !ok {
			return nil, errors.New("the private key is not an RSA key, and Entra takes no other")
		}
	default: // EC PRIVATE KEY, OPENSSH PRIVATE KEY and the like
		return nil, errors.New("the private key is not an RSA key in PKCS#8 or PKCS#1")
	}
	if bits := key.N.BitLen(); bits < leastKeyBits || bits > mostKeyBits {
		return nil, fmt.Errorf("the private key has %d bits, not %d to %d", bits, leastKeyBits, mostKeyBits)
	}
	return key, nil
}

// IsZero reports whether there is no certificate.
func (c Certificate) IsZero() bool { return c.pair == nil }

// String names the certificate by its common name and thumbprint.
func (c Certificate) String() string {
	if c.IsZero() {
		return "no certificate"
	}
	return fmt.Sprintf("certificate %q %s", line(c.pair.cert.Subject.CommonName), c.Thumbprint())
}

// PEM is the private key (PKCS#8) and the certificate, for the keychain.
// [ParseCertificate] reads it.
func (c Certificate) PEM() secret.Text {
	if c.IsZero() {
		return secret.Text{}
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.pair.key)
	if err != nil {
		panic(err) // there is a form for every RSA key
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.pair.cert.Raw})
	return secret.New(string(key) + string(cert))
}

// DER is the public certificate, as Graph takes it for a key credential.
func (c Certificate) DER() []byte {
	if c.IsZero() {
		return nil
	}
	return bytes.Clone(c.pair.cert.Raw)
}

// Thumbprint is the SHA-256 of DER in hex, lower case.
func (c Certificate) Thumbprint() string {
	if c.IsZero() {
		return ""
	}
	sum := sha256.Sum256(c.pair.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// NotBefore is when the certificate begins to be good.
func (c Certificate) NotBefore() time.Time {
	if c.IsZero() {
		return time.Time{}
	}
	return c.pair.cert.NotBefore.UTC()
}

// NotAfter is when the certificate ends.
func (c Certificate) NotAfter() time.Time {
	if c.IsZero() {
		return time.Time{}
	}
	return c.pair.cert.NotAfter.UTC()
}

// Assertion signs client assertions by alg, [PS256] (which "" means) or
// [RS256], as
// https://learn.microsoft.com/entra/identity-platform/certificate-credentials
// has them: good for minutes, and never two alike. now is the clock; nil is
// time.Now.
func (c Certificate) Assertion(alg string, now func() time.Time) Assertion {
	return func(_ context.Context, clientID, tokenEndpoint string) (secret.Text, error) {
		if c.IsZero() {
			return secret.Text{}, errors.New("there is no certificate")
		}
		var method jwt.SigningMethod
		switch cmp.Or(alg, PS256) {
		case PS256:
			method = jwt.SigningMethodPS256
		case RS256:
			method = jwt.SigningMethodRS256
		default:
			return secret.Text{}, fmt.Errorf("client assertions are signed by PS256 or RS256, not %q", alg)
		}
		at := time.Now
		if now != nil {
			at = now
		}
		begin := at().Add(-assertionBefore)
		token := jwt.NewWithClaims(method, jwt.MapClaims{
			"aud": tokenEndpoint,
			"iss": clientID,
			"sub": clientID,
			"jti": uuid.NewString(),
			"iat": begin.Unix(),
			"nbf": begin.Unix(),
			"exp": begin.Add(assertionLife).Unix(),
		})
		sum := sha256.Sum256(c.pair.cert.Raw)
		token.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
		signed, err := token.SignedString(c.pair.key)
		if err != nil {
			return secret.Text{}, fmt.Errorf("sign client assertion: %w", err)
		}
		return secret.New(signed), nil
	}
}
