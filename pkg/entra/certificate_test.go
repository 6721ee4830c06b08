package entra

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/o365pw/o365pw/pkg/secret"
)

var testNow = time.Date(2026, 11, 22, 12, 0, 0, 500, time.UTC)

// testCertificate is one for all tests, since a key takes its time.
var testCertificate = sync.OnceValue(func() Certificate {
	c, err := NewCertificate("o365pw mail", testNow, 90*24*time.Hour)
	if err != nil {
		panic(err)
	}
	return c
})

func pemBlock(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// must takes apart the results of the encoders below, which cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNewCertificate(t *testing.T) {
	c := testCertificate()
	cert, err := x509.ParseCertificate(c.DER())
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "o365pw mail" || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("got subject %v, CA %v, key usage %v", cert.Subject, cert.IsCA, cert.KeyUsage)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Errorf("not self-signed: %v", err)
	}
	if bits := cert.PublicKey.(*rsa.PublicKey).N.BitLen(); bits != 3072 {
		t.Errorf("key has %d bits", bits)
	}
	// A tenant's limit is one to the whole life.
	if life := c.NotAfter().Sub(c.NotBefore()); life != 90*24*time.Hour {
		t.Errorf("lives for %v", life)
	}
	if !c.NotBefore().Before(testNow) || c.NotBefore().Before(testNow.Add(-10*time.Minute)) {
		t.Errorf("begins at %v", c.NotBefore())
	}
	sum := sha256.Sum256(c.DER())
	if c.Thumbprint() != hex.EncodeToString(sum[:]) {
		t.Errorf("got thumbprint %s", c.Thumbprint())
	}
	if _, err := NewCertificate("x", testNow, time.Minute); err == nil {
		t.Error("a certificate that ends at once was made")
	}
}

func TestCertificateThroughPEM(t *testing.T) {
	c := testCertificate()
	got, err := ParseCertificate(c.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if got.Thumbprint() != c.Thumbprint() || !got.PEM().Equal(c.PEM()) || got.IsZero() {
		t.Error("another certificate came back")
	}
	var none Certificate
	if !none.IsZero() || !none.PEM().IsZero() || none.DER() != nil || none.Thumbprint() != "" ||
		!none.NotBefore().IsZero() || !none.NotAfter().IsZero() {
		t.Error("the zero value is something")
	}
	if _, err := none.Assertion("", nil)(t.Context(), testClient, "x"); err == nil {
		t.Error("no certificate signs")
	}
}

func TestCertificateDoesNotPrint(t *testing.T) {
	c := testCertificate()
	holder := struct {
		C Certificate
		c Certificate
		p *Certificate
	}{c, c, &c}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "holder", holder)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "holder", holder)
	asJSON, _ := json.Marshal(holder)
	all := log.String() + string(asJSON) + fmt.Sprint(c, &c, holder, []Certificate{c}) +
		fmt.Sprintf("%v %+v %#v %s %x %v %+v %#v", c, c, c, c, c, holder, holder, holder)
	key := c.pair.key
	for _, s := range []string{key.D.String(), key.D.Text(16), key.Primes[0].String(), key.Primes[0].Text(16), key.N.String(), "PRIVATE"} {
		if strings.Contains(all, s) {
			t.Errorf("%.20s… is printed", s)
		}
	}
	if !strings.Contains(fmt.Sprint(c), "o365pw mail") {
		t.Errorf("got %v", c)
	}
}

func TestParseCertificate(t *testing.T) {
	c := testCertificate()
	key, cert := c.pair.key, pemBlock("CERTIFICATE", c.DER())
	pkcs8 := pemBlock("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	pkcs1 := pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	otherKey := must(rsa.GenerateKey(rand.Reader, 2048))
	reissued := func(days int, subject *rsa.PrivateKey) string {
		template := *c.pair.cert
		template.NotAfter = testNow.AddDate(0, 0, days)
		return pemBlock("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, &template, c.pair.cert, subject.Public(), key)))
	}
	stranger := reissued(900, otherKey)
	longer := reissued(365, key)
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("xxxx"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}}))
	tests := []struct {
		name, text string
		want       string // certificate, or the error
	}{
		{"key first", pkcs8 + cert, cert},
		{"certificate first", cert + pkcs8, cert},
		{"PKCS#1", pkcs1 + cert, cert},
		{"byte order mark and CRLF", "\ufeff" + strings.ReplaceAll(pkcs8+cert, "\n", "\r\n"), cert},
		{"text around", "Bag Attributes\n friendlyName: x\n" + pkcs8 + "\nsubject=CN=x\n\n" + cert + "\n", cert},
		{"chain, issuer first", stranger + cert + pkcs8, cert},
		{"renewed with the same key", cert + longer + pkcs8, longer},
		{"renewed, the other way round", longer + cert + pkcs8, longer},
		{"parameters beside", pemBlock("EC PARAMETERS", []byte("x")) + pkcs8 + cert, cert},

		{"empty", "", "nothing in PEM"},
		{"DER", string(c.DER()), "nothing in PEM"},
		{"no certificate", pkcs8, "no certificate"},
		{"no key", cert, "no private key"},
		{"two keys", pkcs8 + pkcs8 + cert, "more than one"},
		{"does not fit", pkcs8 + stranger, "does not belong"},
		{"encrypted PKCS#8", pemBlock("ENCRYPTED PRIVATE KEY", []byte("xxxx")) + cert, "encrypted"},
		{"encrypted PKCS#1", encrypted + cert, "encrypted"},
		{"EC", pemBlock("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))) + cert, "not an RSA key"},
		{"EC in PKCS#8", pemBlock("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec))) + cert, "not an RSA key"},
		{"OpenSSH", pemBlock("OPENSSH PRIVATE KEY", []byte("xxxx")) + cert, "not an RSA key"},
		{"small key", pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)) + cert, "1024 bits"},
		{"garbage for a key", pemBlock("PRIVATE KEY", []byte("hunter2hunter2")) + cert, "cannot be read"},
		{"garbage for a PKCS#1 key", pemBlock("RSA PRIVATE KEY", []byte("hunter2hunter2")) + cert, "cannot be read"},
		{"garbage for a certificate", pkcs8 + cert + pemBlock("CERTIFICATE", []byte("hunter2hunter2")), "certificate 2 cannot be read"},
		{"too large", pkcs8 + cert + strings.Repeat("x", 1<<20), "more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseCertificate(secret.New(tt.text))
			if err != nil {
				if strings.Contains(tt.want, "BEGIN") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got error %q, want %q", err, tt.want)
				}
				return
			}
			if pemBlock("CERTIFICATE", got.DER()) != tt.want {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

// verified is the JWT of a request, as Entra checks it.
func verified(t *testing.T, c Certificate, alg, assertion string) (header map[string]any, claims jwt.MapClaims) {
	t.Helper()
	token, err := jwt.Parse(assertion, func(*jwt.Token) (any, error) { return c.pair.cert.PublicKey, nil },
		jwt.WithValidMethods([]string{alg}), jwt.WithTimeFunc(func() time.Time { return testNow }),
		jwt.WithIssuedAt(), jwt.WithExpirationRequired())
	if err != nil {
		t.Fatalf("%v: %s", err, assertion)
	}
	return token.Header, token.Claims.(jwt.MapClaims)
}

func TestClientAssertion(t *testing.T) {
	cert := testCertificate()
	for alg, want := range map[string]string{"": "PS256", PS256: "PS256", RS256: "RS256"} {
		c, f := newClient(t, tokenReply(nil))
		got, err := c.ClientAssertion(t.Context(), testClient, cert.Assertion(alg, func() time.Time { return testNow }), testScope)
		if err != nil || got.Access.Reveal() != "eyJ.access.token" {
			t.Fatalf("got %v, %v", got, err)
		}
		form := f.got()[0].form
		header, claims := verified(t, cert, want, form.Get("client_assertion"))
		sum := sha256.Sum256(cert.DER())
		if header["typ"] != "JWT" || header["x5t#S256"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			t.Errorf("got header %v", header)
		}
		endpoint := c.Authority + "/" + testTenant + "/oauth2/v2.0/token"
		if claims["aud"] != endpoint || claims["iss"] != testClient || claims["sub"] != testClient || claims["jti"] == "" {
			t.Errorf("got claims %v", claims)
		}
		nbf, exp := claims["nbf"].(float64), claims["exp"].(float64)
		if claims["iat"] != nbf || nbf >= float64(testNow.Unix()) || exp-nbf < 300 || exp-nbf > 600 {
			t.Errorf("good from %v to %v, issued at %v", nbf, exp, claims["iat"])
		}
		form.Del("client_assertion")
		if got, want := form.Encode(), "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"+
			"&client_id="+testClient+"&grant_type=client_credentials&scope=https%3A%2F%2Foutlook.office365.com%2F.default"; got != want {
			t.Errorf("got form\n%s, want\n%s", got, want)
		}
	}
}

// An assertion is never sent twice: its jti would be a replay.
func TestEachRequestHasItsAssertion(t *testing.T) {
	cert := testCertificate()
	synctest.Test(t, func(t *testing.T) {
		c, f := newBubbleClient(t, reply{status: 429}, reply{status: 503}, reply{status: 500}, tokenReply(nil))
		if _, err := c.ClientAssertion(t.Context(), testClient, cert.Assertion("", func() time.Time { return testNow }), testScope); err != nil {
			t.Fatal(err)
		}
		seen := map[any]bool{}
		for _, r := range f.got() {
			_, claims := verified(t, cert, PS256, r.form.Get("client_assertion"))
			seen[claims["jti"]] = true
		}
		if len(seen) != 4 {
			t.Errorf("%d requests had %d ids", len(f.got()), len(seen))
		}
	})
}

func TestClientAssertionRefused(t *testing.T) {
	cert := testCertificate()
	for _, number := range []int{700027, 700024, 700213} {
		c, _ := newClient(t, errorReply(401, "invalid_client", number))
		_, err := c.ClientAssertion(t.Context(), testClient, cert.Assertion("", nil), testScope)
		if e := asError(t, err); e.Kind() != Refused || e.Number() != number {
			t.Errorf("got %v: %v", e.Kind(), e)
		}
	}
	// What Entra may quote does not come back.
	assertion := func(context.Context, string, string) (secret.Text, error) { return secret.New("eyJ.one.two"), nil }
	c, _ := newClient(t, reply{status: 400, body: `{"error":"invalid_client","error_description":"bad eyJ.one.two"}`})
	_, err := c.ClientAssertion(t.Context(), testClient, assertion, testScope)
	if e := asError(t, err); strings.Contains(fmt.Sprintf("%+v", e), "eyJ.one.two") {
		t.Errorf("got %v", e)
	}
}

func TestNoAssertion(t *testing.T) {
	cause := errors.New("the file is not there")
	own := &Error{Op: "ask GitHub", Status: 403, kind: Forbidden}
	give := func(s string, err error) Assertion {
		return func(context.Context, string, string) (secret.Text, error) { return secret.New(s), err }
	}
	tests := []struct {
		name      string
		client    string
		assertion Assertion
		want      error
		kind      Kind
	}{
		{"no client id", "", give("a.b.c", nil), nil, Misconfigured},
		{"none", testClient, nil, nil, Misconfigured},
		{"empty", testClient, give("", nil), nil, Misconfigured},
		{"with a line end", testClient, give("a.b.c\n", nil), nil, Misconfigured},
		{"its failure", testClient, give("", cause), cause, Misconfigured},
		{"its own kind of failure", testClient, give("", fmt.Errorf("x: %w", own)), own, Forbidden},
		{"unknown algorithm", testClient, testCertificate().Assertion("none", nil), nil, Misconfigured},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := newClient(t, tokenReply(nil))
			_, err := c.ClientAssertion(t.Context(), tt.client, tt.assertion, testScope)
			if e := asError(t, err); e.Kind() != tt.kind || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v: %v", e.Kind(), err)
			}
			if n := len(f.got()); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c, _ := newClient(t, tokenReply(nil))
		_, err := c.ClientAssertion(ctx, testClient, give("", cause), testScope)
		if e := asError(t, err); e.Kind() != Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v: %v", e.Kind(), err)
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	c := testCertificate()
	f.Add(c.PEM().Reveal())
	f.Add(pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(c.pair.key)) + pemBlock("CERTIFICATE", c.DER()))
	f.Add(pemBlock("ENCRYPTED PRIVATE KEY", []byte("x")))
	f.Add("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseCertificate(secret.New(text))
		if err != nil {
			if !got.IsZero() || len(err.Error()) > 200 {
				t.Errorf("got %v, %v", got, err)
			}
			return
		}
		again, err := ParseCertificate(got.PEM())
		if err != nil || again.Thumbprint() != got.Thumbprint() {
			t.Errorf("its own PEM gives %v, %v", again, err)
		}
	})
}
