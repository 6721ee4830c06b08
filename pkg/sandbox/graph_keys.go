package sandbox

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// keyCredential is a certificate of an application. As with secrets, those
// removed are kept while the removal replicates.
type keyCredential struct {
	keyID, displayName string
	der                []byte
	key                *rsa.PublicKey
	start, end         time.Time
	added, removed     time.Time
}

func (k *keyCredential) replicated(now time.Time, lag time.Duration) bool {
	return known(k.added, k.removed, now, lag)
}

// thumbprint is what certificates are told apart by: SHA-1, in upper case.
func (k *keyCredential) thumbprint() string { return fmt.Sprintf("%X", sha1.Sum(k.der)) }

// named says whether a header's x5t and x5t#S256 (RFC 7515 sections 4.1.7 and
// 4.1.8) name the certificate; one of them is enough, both must fit.
func (k *keyCredential) named(x5t, x5tS256 string) bool {
	one, two := sha1.Sum(k.der), sha256.Sum256(k.der)
	return (x5t == "" || x5t == base64.RawURLEncoding.EncodeToString(one[:])) &&
		(x5tS256 == "" || x5tS256 == base64.RawURLEncoding.EncodeToString(two[:]))
}

// keyEntity is a keyCredential in JSON.
func keyEntity(k *keyCredential, withKey bool) map[string]any {
	e := map[string]any{
		"customKeyIdentifier": k.thumbprint(), "displayName": nullable(k.displayName), "endDateTime": graphTime(k.end),
		"key": nil, "keyId": k.keyID, "startDateTime": graphTime(k.start), "type": "AsymmetricX509Cert", "usage": "Verify",
	}
	if withKey {
		e["key"] = base64.StdEncoding.EncodeToString(k.der)
	}
	return e
}

// maxKeys is how many certificates an application may have.
const maxKeys = 600

// replaceKeys gives the certificates of an application after a PATCH of the
// whole collection: those that it leaves out are removed.
func (c *call) replaceKeys(a *application, list []json.RawMessage) ([]*keyCredential, *graphError) {
	now := c.s.nowLocked()
	keep := map[string]bool{}
	keys := append([]*keyCredential(nil), a.keys...)
	for _, raw := range list {
		p := readProperties("keyCredential", raw, "customKeyIdentifier", "displayName", "endDateTime", "key", "keyId",
			"startDateTime", "type", "usage")
		var keyID string
		p.guid("keyId", &keyID)
		if keep[keyID] {
			p.refuse("keyId", "it occurs twice")
		}
		old := a.liveKey(keyID)
		var k *keyCredential
		if old != nil {
			k = p.sameKey(old)
		} else if k = p.newKey(now); p.refusal == nil {
			if refusal := lifetimePolicy(k.end.Sub(k.start), c.s.Faults.PolicyMaxCertificateLifetime); refusal != nil {
				return nil, refusal
			}
			keys = append(keys, k)
		}
		if p.refusal != nil {
			return nil, p.refusal
		}
		keep[k.keyID] = true
	}
	if len(keep) > maxKeys {
		return nil, &graphError{status: 400, code: "Directory_ResourceSizeExceeded",
			message: "The size of the object has exceeded its limit. Please reduce the number of values and retry your request."}
	}
	for i, k := range keys {
		if !keep[k.keyID] && k.removed.IsZero() {
			gone := *k
			gone.removed = now
			keys[i] = &gone
		}
	}
	return keys, nil
}

// liveKey finds a certificate that has not been removed.
func (a *application) liveKey(keyID string) *keyCredential {
	for _, k := range a.keys {
		if keyID != "" && k.keyID == keyID && k.removed.IsZero() {
			return k
		}
	}
	return nil
}

// sameKey checks that an entry for a certificate that exists leaves it as it
// is. What the entry does not say stays.
func (p *properties) sameKey(k *keyCredential) *keyCredential {
	now := *k
	kind, usage, thumbprint := "AsymmetricX509Cert", "Verify", k.thumbprint()
	p.text("displayName", &now.displayName)
	p.moment("startDateTime", &now.start)
	p.moment("endDateTime", &now.end)
	p.text("type", &kind)
	p.text("usage", &usage)
	if !p.null("customKeyIdentifier") {
		p.text("customKeyIdentifier", &thumbprint)
	}
	if !p.null("key") {
		now.der = p.binary("key")
	}
	if now.displayName != k.displayName || !now.start.Equal(k.start) || !now.end.Equal(k.end) || kind != "AsymmetricX509Cert" ||
		usage != "Verify" || thumbprint != k.thumbprint() || !bytes.Equal(now.der, k.der) {
		p.refuse("keyId", "a key credential that exists cannot be changed")
	}
	return k
}

// newKey reads an entry for a new certificate.
func (p *properties) newKey(now time.Time) *keyCredential {
	k := &keyCredential{keyID: uuid.NewString(), added: now}
	p.require("key", "type", "usage")
	var kind, usage, thumbprint string
	p.guid("keyId", &k.keyID)
	p.text("displayName", &k.displayName)
	p.text("type", &kind)
	p.text("usage", &usage)
	p.text("customKeyIdentifier", &thumbprint)
	switch {
	case kind != "AsymmetricX509Cert":
		p.refuse("type", "the sandbox takes AsymmetricX509Cert alone")
	case usage != "Verify":
		p.refuse("usage", "it is not Verify")
	case utf8.RuneCountInString(k.displayName) > maxDisplayName:
		p.refuse("displayName", fmt.Sprintf("it is longer than %d characters", maxDisplayName))
	}
	k.der = p.binary("key")
	if p.refusal != nil {
		return nil
	}
	cert, err := k.parse()
	if err != nil {
		p.refuse("key", printable(err.Error()))
		return nil
	}
	k.start, k.end = cert.NotBefore.UTC(), cert.NotAfter.UTC()
	p.moment("startDateTime", &k.start)
	p.moment("endDateTime", &k.end)
	switch {
	case thumbprint != "" && !strings.EqualFold(thumbprint, k.thumbprint()):
		p.refuse("customKeyIdentifier", "it is not the certificate's thumbprint")
	case k.start.Before(cert.NotBefore) || !k.end.After(k.start):
		p.refuse("startDateTime", "it is not within the certificate's life")
	case k.end.After(cert.NotAfter) || !k.end.After(now):
		p.refusal = &graphError{status: 400, code: "KeyCredentialsInvalidEndDate",
			message: "Key credential end date is invalid."}
	}
	return k
}

// parse reads the certificate, which must have an RSA key of 2048 bits or more.
func (k *keyCredential) parse() (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(k.der)
	if err != nil {
		return nil, fmt.Errorf("it is not a certificate in DER")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.Size() < 256 {
		return nil, fmt.Errorf("it has no RSA key of 2048 bits or more")
	}
	k.key = key
	return cert, nil
}

// binary reads base64, as Graph writes it in JSON.
func (p *properties) binary(name string) []byte {
	var text string
	p.text(name, &text)
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		p.refuse(name, "it is not base64")
	}
	return b
}

// AddCertificate adds a certificate (PEM; RSA, 2048 bits or more) to an
// application by its client id, as an administrator in the portal would, and
// gives its keyId. Entra knows it at once.
func (s *Server) AddCertificate(clientID string, certificate []byte) (keyID string, err error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", fmt.Errorf("sandbox: no certificate in PEM")
	}
	k := &keyCredential{keyID: uuid.NewString(), der: block.Bytes}
	cert, err := k.parse()
	if err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	k.displayName, k.start, k.end = cert.Subject.String(), cert.NotBefore.UTC(), cert.NotAfter.UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.dir.byClientID(clientID)
	if a == nil {
		return "", fmt.Errorf("sandbox: no application %s", clientID)
	}
	a.keys = append(a.keys, k)
	return k.keyID, nil
}

// RemoveCertificate removes a certificate of an application, and says whether
// there was one.
func (s *Server) RemoveCertificate(clientID, keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.dir.byClientID(clientID)
	if a == nil {
		return false
	}
	k := a.liveKey(keyID)
	if k == nil {
		return false
	}
	k.removed = s.nowLocked()
	return true
}
