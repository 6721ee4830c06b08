package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/internal/localca"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	// caKeyItem is the keychain item with the local authority's private key,
	// caNextKeyItem that of the authority which is to take over.
	caKeyItem     = "local-ca-key"
	caNextKeyItem = "local-ca-key-next"

	// caRenewBefore is how long before its end an authority gets a successor:
	// the time there is for having clients trust that one, too.
	caRenewBefore = 90 * 24 * time.Hour
	// caTakesOver is how long before the end the successor signs in its place.
	// A day allows for clocks that are wrong.
	caTakesOver = 24 * time.Hour
)

// authority is the local authority as it is kept: certificates in ca.pem of the
// state folder, keys in the keychain.
//
// The first certificate of the file is that of the authority in force. One
// behind it is of its successor, so that whoever is given the file trusts both.
// The file is replaced whole, and decides alone which authority is in force: a
// process that is killed beside it leaves a key at most that nobody needs, which
// the next one removes. Keys are found by the certificate that they belong to,
// whichever of the two items they are in.
type authority struct {
	dir      string
	keychain func() (secret.Keychain, error)
	now      func() time.Time
	warn     func(text string) // what people have to know of
}

// authority of the gateway whose state folder this is.
func (a *app) authority(stateDir string, keychain func() (secret.Keychain, error), warn func(string)) *authority {
	return &authority{dir: stateDir, keychain: keychain, now: a.Now, warn: warn}
}

// file holds the certificates that clients are to trust.
func (au *authority) file() string { return filepath.Join(au.dir, "ca.pem") }

// formerFile holds those of former authorities, so that they can be taken out of
// trust stores.
func (au *authority) formerFile() string { return filepath.Join(au.dir, "ca-former.pem") }

// certificates are that of the authority in force and, where there is one, that
// of its successor. Without an authority the error is fs.ErrNotExist.
func (au *authority) certificates() ([]*x509.Certificate, error) {
	b, err := os.ReadFile(au.file())
	if err != nil {
		return nil, err
	}
	certs, err := localca.ParseCertificates(b)
	if err != nil {
		return nil, au.unusable(err)
	}
	return certs, nil
}

// former are the certificates of authorities that have been replaced.
func (au *authority) former() []*x509.Certificate {
	b, err := os.ReadFile(au.formerFile())
	if err != nil {
		return nil
	}
	certs, _ := localca.ParseCertificates(b)
	return certs
}

func (au *authority) unusable(err error) error {
	return &config.Error{Problem: fmt.Sprintf("the local authority in %s cannot be used: %v", au.file(), err), Err: err,
		Hint: "check the clock; or have a new authority made, which the mail programs must be told to trust anew: o365pw cert renew --now; where that cannot read the file, move it away first"}
}

// locked keeps other processes from changing the authority meanwhile.
func (au *authority) locked(ctx context.Context, f func(secret.Keychain) error) error {
	k, err := au.keychain()
	if err != nil {
		return err
	}
	unlock, err := durable.Lock(ctx, filepath.Join(au.dir, "ca.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return f(k)
}

// open is the authority in force, which is made where there is none. One that
// is near its end gets a successor, which takes over at its time.
func (au *authority) open(ctx context.Context) (ca *localca.CA, err error) {
	err = au.locked(ctx, func(k secret.Keychain) error {
		ca, err = au.openLocked(ctx, k)
		return err
	})
	return ca, err
}

func (au *authority) openLocked(ctx context.Context, k secret.Keychain) (*localca.CA, error) {
	certs, err := au.certificates()
	if errors.Is(err, fs.ErrNotExist) {
		return au.make(ctx, k)
	}
	if err != nil {
		if _, kerr := k.Get(ctx, caKeyItem); errors.Is(kerr, secret.ErrNotFound) { // nothing is lost with it
			return au.makeAnew(ctx, k)
		}
		return nil, err
	}
	now := au.now()
	ready, err := au.successor(ctx, k, certs)
	if err != nil {
		return nil, err
	}
	if ready && now.After(certs[0].NotAfter.Add(-caTakesOver)) {
		ca, err := au.takeOver(ctx, k, certs)
		if err == nil {
			au.warn("the new local authority has taken over: mail programs that do not trust " + au.file() + " yet will refuse the gateway")
		}
		return ca, err
	}
	ca, item, err := au.load(ctx, k, certs[0])
	if errors.Is(err, secret.ErrNotFound) {
		return au.makeAnew(ctx, k)
	}
	if err != nil {
		return nil, err
	}
	if err := au.tidy(ctx, k, certs, ca, item); err != nil {
		return nil, err
	}
	// A successor that was made long ago ends with the authority, and is no help.
	if now.After(certs[0].NotAfter.Add(-caRenewBefore)) && (!ready || certs[1].NotAfter.Before(now.Add(2*caRenewBefore))) {
		if err := au.makeNext(ctx, k, certs); err != nil {
			return nil, err
		}
		au.warn(fmt.Sprintf("the local authority ends on %s, and a new one has been made, which takes over a day before: have the mail programs trust it, too: o365pw cert install; o365pw cert export",
			certs[0].NotAfter.Format(time.DateOnly)))
	}
	return ca, nil
}

// successor tells whether there is one that can take over. One whose key is gone
// cannot: a process was killed when it was about to replace it.
func (au *authority) successor(ctx context.Context, k secret.Keychain, certs []*x509.Certificate) (bool, error) {
	if len(certs) < 2 {
		return false, nil
	}
	_, _, err := au.load(ctx, k, certs[1])
	if errors.Is(err, secret.ErrNotFound) || errors.Is(err, localca.ErrMismatch) || errors.Is(err, localca.ErrExpired) {
		return false, nil
	}
	return err == nil, err
}

// load finds the key of an authority, and the item that it is in.
func (au *authority) load(ctx context.Context, k secret.Keychain, cert *x509.Certificate) (*localca.CA, string, error) {
	missing := error(secret.ErrNotFound)
	for _, item := range []string{caKeyItem, caNextKeyItem} {
		key, err := k.Get(ctx, item)
		if errors.Is(err, secret.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		ca, err := localca.Load(encodeCertificates(cert), []byte(key.Reveal()), au.now())
		switch {
		case err == nil:
			return ca, item, nil
		case !errors.Is(err, localca.ErrMismatch) || item == caKeyItem:
			missing = au.unusable(err)
		}
		if !errors.Is(err, localca.ErrMismatch) {
			break
		}
	}
	return nil, "", missing
}

// tidy finishes what a process that was killed has left: a takeover, or a
// successor whose certificate was never written.
func (au *authority) tidy(ctx context.Context, k secret.Keychain, certs []*x509.Certificate, ca *localca.CA, item string) error {
	if item != caKeyItem {
		if err := au.moveKey(ctx, k); err != nil {
			return err
		}
	}
	if len(certs) > 1 {
		return nil
	}
	err := k.Delete(ctx, caNextKeyItem)
	if errors.Is(err, secret.ErrNotFound) {
		return nil
	}
	return err
}

// moveKey makes the successor's key that of the authority in force.
func (au *authority) moveKey(ctx context.Context, k secret.Keychain) error {
	key, err := k.Get(ctx, caNextKeyItem)
	if err != nil {
		return err
	}
	if err := k.Set(ctx, caKeyItem, key); err != nil {
		return err
	}
	return k.Delete(ctx, caNextKeyItem)
}

// makeAnew is make where there was an authority.
func (au *authority) makeAnew(ctx context.Context, k secret.Keychain) (*localca.CA, error) {
	au.warn("the key of the local authority is gone from the keychain; a new authority is made, which the mail programs must be told to trust anew")
	return au.make(ctx, k)
}

// make takes an old certificate away, then keeps the key, then the certificate:
// killed in between, the next start makes a new authority.
func (au *authority) make(ctx context.Context, k secret.Keychain) (*localca.CA, error) {
	cert, key, err := au.create()
	if err != nil {
		return nil, err
	}
	if old, err := au.certificates(); err == nil {
		if err := au.keepFormer(old); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(au.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := k.Set(ctx, caKeyItem, secret.New(string(key))); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(au.file(), cert); err != nil {
		return nil, err
	}
	return localca.Load(cert, key, au.now())
}

func (au *authority) create() (cert, key []byte, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return localca.Create(host, au.now())
}

// makeNext makes the successor of the authority in force, in the place of one
// that there may be: first its key, then its certificate.
func (au *authority) makeNext(ctx context.Context, k secret.Keychain, certs []*x509.Certificate) error {
	if err := au.keepFormer(certs[1:]); err != nil {
		return err
	}
	cert, key, err := au.create()
	if err != nil {
		return err
	}
	if err := k.Set(ctx, caNextKeyItem, secret.New(string(key))); err != nil {
		return err
	}
	return durable.WriteFile(au.file(), append(encodeCertificates(certs[0]), cert...))
}

// takeOver puts the successor in force. From the moment that the file is
// written, it is; the old key is removed then.
func (au *authority) takeOver(ctx context.Context, k secret.Keychain, certs []*x509.Certificate) (*localca.CA, error) {
	next, item, err := au.load(ctx, k, certs[1])
	if err != nil {
		return nil, err
	}
	if err := au.keepFormer(certs[:1]); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(au.file(), encodeCertificates(certs[1])); err != nil {
		return nil, err
	}
	if item == caNextKeyItem {
		err = au.moveKey(ctx, k)
	}
	return next, err
}

// renew gives the authority a successor, if it has none yet, and with takeOver
// puts that in force at once. It tells whether it has made one.
func (au *authority) renew(ctx context.Context, takeOver bool) (made bool, err error) {
	return made, au.locked(ctx, func(k secret.Keychain) error {
		certs, err := au.certificates()
		if errors.Is(err, fs.ErrNotExist) {
			made = true
			_, err = au.make(ctx, k)
			return err
		}
		if err != nil {
			return err
		}
		switch ca, item, err := au.load(ctx, k, certs[0]); {
		case err == nil:
			if err := au.tidy(ctx, k, certs, ca, item); err != nil {
				return err
			}
		case !takeOver:
			return err
		case !errors.Is(err, localca.ErrExpired) && !errors.Is(err, secret.ErrNotFound) && !errors.Is(err, localca.ErrMismatch):
			return err
		}
		ready, err := au.successor(ctx, k, certs)
		if err != nil {
			return err
		}
		if !ready {
			made = true
			if err := au.makeNext(ctx, k, certs); err != nil {
				return err
			}
			if certs, err = au.certificates(); err != nil {
				return err
			}
		}
		if takeOver {
			_, err = au.takeOver(ctx, k, certs)
		}
		return err
	})
}

// keepFormer remembers certificates that are about to be replaced.
func (au *authority) keepFormer(certs []*x509.Certificate) error {
	known := au.former()
	var keep []*x509.Certificate
	for _, c := range append(known, certs...) {
		if !hasCertificate(keep, c) {
			keep = append(keep, c)
		}
	}
	if len(keep) == len(known) {
		return nil
	}
	return durable.WriteFile(au.formerFile(), encodeCertificates(keep...))
}

func hasCertificate(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.Equal(c) {
			return true
		}
	}
	return false
}

// encodeCertificates gives certificates in PEM, and nothing else.
func encodeCertificates(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}
