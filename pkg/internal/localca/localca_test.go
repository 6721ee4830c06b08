package localca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func load(t *testing.T, now time.Time) *CA {
	t.Helper()
	cert, key, err := Create("laptop", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := Load(cert, key, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestLeafVerifies(t *testing.T) {
	now := time.Now()
	ca := load(t, now)
	names := []string{"localhost", "127.0.0.1", "::1", "::ffff:192.0.2.1", "mail_1.example.com"}
	leaf, err := ca.Leaf(names, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	for _, name := range append(names, "192.0.2.1") {
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "example.org", Roots: roots, CurrentTime: now}); err == nil {
		t.Error("certified for a name that was not asked for")
	}
	if life := leaf.Leaf.NotAfter.Sub(leaf.Leaf.NotBefore); life > 397*24*time.Hour {
		t.Errorf("a leaf lives %s", life)
	}
	if life := ca.Certificate.NotAfter.Sub(now); life < CALifetime-time.Minute {
		t.Errorf("the CA lives %s", life)
	}
	if !strings.Contains(ca.Certificate.Subject.CommonName, "laptop") || leaf.Leaf.IsCA || leaf.Leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("CA %q, leaf is a CA: %t", ca.Certificate.Subject.CommonName, leaf.Leaf.IsCA)
	}
	if other, _ := ca.Leaf(names, now); other.Leaf.SerialNumber.Cmp(leaf.Leaf.SerialNumber) == 0 {
		t.Error("two leaves have one serial number")
	}
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	ca := load(t, now)
	config, err := Config(func(now time.Time) (tls.Certificate, error) { return ca.Leaf([]string{"localhost"}, now) })
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- tls.Server(far, config).Handshake() }()
		if err := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: version}).Handshake(); err != nil {
			t.Errorf("%x: %v", version, err)
		}
		_ = near.Close()
		<-served
	}
}

func TestLeafErrors(t *testing.T) {
	now := time.Now()
	ca := load(t, now)
	for _, names := range [][]string{nil, {""}, {"a b"}, {"-a"}, {"a-.b"}, {"a..b"}, {"müller.example"}, {"127.0.0.1:993"}, {strings.Repeat("a", 64)}, {"*.example.com"}} {
		if _, err := ca.Leaf(names, now); err == nil {
			t.Errorf("%q: no error", names)
		}
	}
	if _, err := ca.Leaf([]string{"localhost"}, now.Add(CALifetime+time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("after the CA's end: %v", err)
	}
	leaf, err := ca.Leaf([]string{"localhost"}, now.Add(CALifetime-time.Hour))
	if err != nil || leaf.Leaf.NotAfter.After(ca.Certificate.NotAfter) {
		t.Errorf("near the CA's end: %v, %v", leaf.Leaf.NotAfter, err)
	}
}

func TestLoadErrors(t *testing.T) {
	now := time.Now()
	cert, key, err := Create("", now)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, _ := Create(strings.Repeat("ü", 100), now)
	ca := load(t, now)
	leaf, _ := ca.Leaf([]string{"localhost"}, now)
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	leafKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	sec1Key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sec1, _ := x509.MarshalECPrivateKey(sec1Key)
	for name, test := range map[string]struct {
		cert, key []byte
		now       time.Time
		want      error
	}{
		"mismatch":      {cert, otherKey, now, ErrMismatch},
		"not a CA":      {leafPEM, leafKey, now, ErrNotCA},
		"expired":       {cert, key, now.Add(CALifetime + time.Hour), ErrExpired},
		"not yet valid": {cert, key, now.Add(-24 * time.Hour), ErrNotYetValid},
		"empty":         {nil, nil, now, nil},
		"no key":        {cert, nil, now, nil},
		"swapped":       {key, cert, now, nil},
		"garbage cert":  {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), key, now, nil},
		"garbage key":   {cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), now, nil},
		"SEC 1 key":     {cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), now, nil},
	} {
		_, err := Load(test.cert, test.key, test.now)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := load(t, time.Now())
		made, fail := 0, false
		config, err := Config(func(now time.Time) (tls.Certificate, error) {
			made++
			if fail {
				return tls.Certificate{}, errors.New("the keychain is locked")
			}
			return ca.Leaf([]string{"localhost"}, now)
		})
		if err != nil {
			t.Fatal(err)
		}
		get := func() *tls.Certificate {
			c, err := config.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		first := get()
		time.Sleep(366 * 24 * time.Hour)
		if get() != first || made != 1 {
			t.Errorf("renewed early, made %d", made)
		}
		time.Sleep(2 * 24 * time.Hour)
		fail = true
		get()
		if get() != first || made != 2 {
			t.Errorf("a renewal that fails: made %d", made)
		}
		fail = false
		time.Sleep(2 * time.Minute)
		if second := get(); second == first || made != 3 || get() != second {
			t.Errorf("not renewed, made %d", made)
		}
	})
	if _, err := Config(func(time.Time) (tls.Certificate, error) { return tls.Certificate{}, errors.New("no CA") }); err == nil {
		t.Error("an error at the start is hidden")
	}
}

// TestAuthorities holds CAs of one machine apart, to TLS servers, and an RSA leaf
// to what OpenSSL and devices ask of one.
func TestAuthorities(t *testing.T) {
	now := time.Now()
	one, _, err := Create("laptop", now)
	if err != nil {
		t.Fatal(err)
	}
	ca := load(t, now)
	both, err := ParseCertificates(append(one, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})...))
	if err != nil || len(both) != 2 || !both[1].Equal(ca.Certificate) {
		t.Fatalf("%d certificates, %v", len(both), err)
	}
	if both[0].Subject.String() == both[1].Subject.String() {
		t.Errorf("two authorities are called %s", both[0].Subject)
	}
	leaf, err := ca.LeafRSA([]string{"localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots, CurrentTime: now}); err != nil {
		t.Error(err)
	}
	if leaf.Leaf.PublicKeyAlgorithm != x509.RSA || leaf.Leaf.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		t.Errorf("%s, usage %b", leaf.Leaf.PublicKeyAlgorithm, leaf.Leaf.KeyUsage)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection} {
		template := &x509.Certificate{SerialNumber: leaf.Leaf.SerialNumber, NotBefore: now, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{use}}
		der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, leaf.Leaf.PublicKey, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		other, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}); err == nil {
			t.Errorf("the authority is good for use %d", use)
		}
	}
	made := 0
	get := Certificates(func(now time.Time) (tls.Certificate, error) {
		if made++; made == 1 {
			return tls.Certificate{}, errors.New("not yet")
		}
		return ca.LeafRSA([]string{"localhost"}, now)
	})
	if _, err := get(); err == nil || made != 1 {
		t.Errorf("the first: %v, made %d", err, made)
	}
	first, err := get()
	if again, _ := get(); err != nil || again != first || made != 2 {
		t.Errorf("made %d, %v", made, err)
	}
}
