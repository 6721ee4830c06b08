package apppassword

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// certificateKey is the keychain item of an application's certificate: one, on
// which all its app passwords of backing certificate stand.
func certificateKey(clientID string) string { return "certificate/" + strings.ToLower(clientID) }

// StoreCertificate puts an application's certificate with its key into the
// keychain, in place of one that is there. Errors are those of secret.
func StoreCertificate(ctx context.Context, k secret.Keychain, clientID string, cert entra.Certificate) error {
	if err := k.Set(ctx, certificateKey(clientID), cert.PEM()); err != nil {
		return fmt.Errorf("put the certificate into the keychain: %w", err)
	}
	return nil
}

// LoadCertificate reads an application's certificate with its key: from file,
// in PEM, or where that is empty from the keychain, which is not asked
// otherwise. What cannot be read is a [*CertificateError].
func LoadCertificate(ctx context.Context, k secret.Keychain, clientID, file string) (entra.Certificate, error) {
	fail := func(err error) (entra.Certificate, error) {
		return entra.Certificate{}, &CertificateError{ClientID: clientID, File: file, Err: err}
	}
	var text secret.Text
	if file == "" {
		var err error
		if text, err = k.Get(ctx, certificateKey(clientID)); err != nil {
			return fail(err)
		}
	} else {
		b, err := os.ReadFile(file)
		if err != nil {
			return fail(err)
		}
		text = secret.New(string(b))
	}
	cert, err := entra.ParseCertificate(text)
	if err != nil {
		return fail(err)
	}
	return cert, nil
}

// checkTime tells, before Entra is asked, that a certificate is not good at
// that time.
func checkTime(cert entra.Certificate, clientID, file string, now time.Time) error {
	switch {
	case !now.Before(cert.NotAfter()):
		return &CertificateError{ClientID: clientID, File: file, Expired: cert.NotAfter(), Err: fmt.Errorf("it has expired on %s", cert.NotAfter().Format(time.DateOnly))}
	case now.Before(cert.NotBefore()):
		return &CertificateError{ClientID: clientID, File: file, Err: fmt.Errorf("it is good from %s on; is the clock right?", cert.NotBefore().Format(time.RFC3339))}
	}
	return nil
}

// CertificateError tells that an application's certificate cannot be used:
// it is missing, cannot be read, is out of its time, or Entra refuses it.
type CertificateError struct {
	ClientID string
	File     string    // empty: in the keychain
	Expired  time.Time // when it has ended; zero: that is not what is wrong
	Err      error
}

// Error names the application, where its certificate is, and what is wrong.
func (e *CertificateError) Error() string {
	where := "in the keychain"
	if e.File != "" {
		where = "in " + e.File
	}
	return fmt.Sprintf("the certificate of the application %s, %s: %v", e.ClientID, where, e.Err)
}

// Unwrap gives the cause.
func (e *CertificateError) Unwrap() error { return e.Err }

// Missing tells that there is no certificate where it is looked for.
func (e *CertificateError) Missing() bool {
	return errors.Is(e.Err, secret.ErrNotFound) || errors.Is(e.Err, os.ErrNotExist)
}

// certificates are those that a verifier holds.
type certificates struct {
	reading sync.Mutex // one reader at a time

	mu      sync.Mutex
	byPlace map[string]heldCertificate
}

// heldCertificate is a certificate as it was read.
type heldCertificate struct {
	cert entra.Certificate
	file os.FileInfo // nil: it was in the keychain
	read time.Time   // when it was looked for last
}

// place says where the record's certificate is.
func place(rec Record) string {
	if rec.Certificate != "" {
		return rec.Certificate
	}
	return rec.Keychain + ":" + certificateKey(rec.ClientID)
}

// held is the record's certificate; zero where none was read yet.
func (cs *certificates) held(rec Record) entra.Certificate { return cs.get(place(rec)).cert }

func (cs *certificates) get(place string) heldCertificate {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.byPlace[place]
}

func (cs *certificates) put(place string, h heldCertificate) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byPlace == nil {
		cs.byPlace = map[string]heldCertificate{}
	}
	cs.byPlace[place] = h
}

// certificate gives what the record stands on. It is read once, and again when
// its file has changed, or when it was refused: then no more often than every
// few seconds, since mail programs try again and again. One that cannot be read
// any more, as while it is being replaced, stays in force.
func (v *Verifier) certificate(ctx context.Context, rec Record, refused bool) (entra.Certificate, error) {
	v.certificates.reading.Lock()
	defer v.certificates.reading.Unlock()
	at := place(rec)
	h := v.certificates.get(at)
	// The file is looked at before it is read: a change in between is seen by
	// the next look.
	var file os.FileInfo
	changed := false
	if rec.Certificate != "" {
		if now, err := os.Stat(rec.Certificate); err == nil { // else reading tells why not
			file, changed = now, differs(now, h.file)
		}
	}
	if !h.cert.IsZero() && !changed && !(refused && time.Since(h.read) >= retryItems) {
		return h.cert, nil
	}
	cert, err := v.loadCertificate(ctx, rec)
	switch {
	case err == nil:
		h.cert = cert
	case h.cert.IsZero():
		return entra.Certificate{}, err
	default:
		v.log().Error("a certificate cannot be read anew; the one read before stays in force", "error", err)
	}
	h.file, h.read = file, time.Now()
	v.certificates.put(at, h)
	return h.cert, nil
}

func (v *Verifier) loadCertificate(ctx context.Context, rec Record) (entra.Certificate, error) {
	var k secret.Keychain
	if rec.Certificate == "" {
		var err error
		if k, err = v.Keychains(rec.Keychain); err != nil {
			return entra.Certificate{}, err
		}
	}
	return LoadCertificate(ctx, k, rec.ClientID, rec.Certificate)
}

// differs tells whether a file is another than it was when it was read; before
// is nil where it was not there.
func differs(now, before os.FileInfo) bool {
	return before == nil || !os.SameFile(now, before) || now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime())
}
