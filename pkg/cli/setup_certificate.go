package cli

import (
	"context"
	"crypto/sha1" // Entra names certificates by it
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	// certificateLife is that of a certificate, unless the policy allows less.
	certificateLife = 365 * 24 * time.Hour
	// acceptLimit is how long Entra may take to know a new certificate.
	acceptLimit = 2 * time.Minute
)

// nextCertificateKey is the keychain item of a certificate that is on its way to
// Entra. The one in use stays what it is until Entra takes the next: whoever is
// killed in between has one that works.
func nextCertificateKey(clientID string) string {
	return "certificate-next/" + strings.ToLower(clientID)
}

// planCertificate is for backing certificate: one that is good and known to
// Entra stays.
func (w *setup) planCertificate(ctx context.Context) error {
	if w.profile.Backing != apppassword.BackingCertificate {
		return nil
	}
	st := setupStep{Name: "certificate", Change: changeCreate, Text: fmt.Sprintf("make a certificate, keep its key in %s, and add it to the application", w.s.keychain)}
	missing := true
	if w.application.AppID != "" {
		cert, err := apppassword.LoadCertificate(ctx, w.s.keychain, w.application.AppID, w.profile.Certificate)
		ce, ok := errors.AsType[*apppassword.CertificateError](err)
		switch {
		case err == nil:
			w.certificate, missing = cert, false
		case !ok || !ce.Missing() || w.profile.Certificate != "":
			return err
		}
	} else if w.profile.Certificate != "" {
		cert, err := apppassword.LoadCertificate(ctx, w.s.keychain, "", w.profile.Certificate)
		if err != nil {
			return err
		}
		w.certificate, missing = cert, false
	}
	st.do = w.newCertificate
	if !missing {
		if err := w.planKnownCertificate(ctx, &st); err != nil {
			return err
		}
	}
	if st.Change != changeNone && w.profile.Certificate == "" && w.policy.SelfSignedForbidden(w.created()) {
		return &failedError{code: refused, msg: "the tenant's policy takes certificates of certain authorities alone, and setup cannot make such",
			hint: "get one there, for an RSA key, and name the PEM file with both in the profile: certificate = \"…\"; then run setup again"}
	}
	w.step(st)
	return nil
}

// planKnownCertificate is planCertificate where there is one on this machine.
func (w *setup) planKnownCertificate(ctx context.Context, st *setupStep) error {
	near, ownFile := nearEnd(w.certificate, w.Now()), w.profile.Certificate != ""
	if near && !ownFile {
		st.Change, st.Text = changeUpdate, fmt.Sprintf("make a new certificate and add it to the application, as the one in %s ends on %s", w.s.keychain, w.certificate.NotAfter().Format(time.DateOnly))
		return nil
	}
	if near {
		w.warn("the certificate in %s ends on %s: put a new one there and run setup again", w.profile.Certificate, w.certificate.NotAfter().Format(time.DateOnly))
	}
	st.do = w.addCertificate
	if w.application.AppID != "" {
		keys, err := w.s.graph.KeyCredentials(ctx, w.application.AppID)
		if err != nil {
			return err
		}
		sum := sha1.Sum(w.certificate.DER())
		thumbprint := strings.ToUpper(hex.EncodeToString(sum[:]))
		if slices.ContainsFunc(keys, func(k graph.KeyCredential) bool { return k.Thumbprint == thumbprint }) {
			st.Change, st.Text = changeNone, w.certificateText()
			return nil
		}
	}
	st.Change, st.Text = changeUpdate, fmt.Sprintf("add the certificate %s to the application", w.certificate.Thumbprint())
	return nil
}

// nearEnd tells whether a certificate is to be replaced. Where the policy allows
// short lives only, a warning of 30 days would never end.
func nearEnd(cert entra.Certificate, now time.Time) bool {
	return cert.NotAfter().Sub(now) < min(certificateSoon, cert.NotAfter().Sub(cert.NotBefore())/3)
}

func (w *setup) certificateText() string {
	return fmt.Sprintf("certificate %s, good until %s", w.certificate.Thumbprint(), w.certificate.NotAfter().Format(time.DateOnly))
}

// created is the time that the policy looks at.
func (w *setup) created() time.Time {
	if w.application.Created.IsZero() {
		return w.Now()
	}
	return w.application.Created
}

// newCertificate makes a certificate, or goes on with the one that an earlier
// run has begun:
//
//	keychain (next) → Entra → Entra takes it → keychain → keychain (next) is gone
func (w *setup) newCertificate(ctx context.Context) (string, error) {
	// One setup at a time: each would put its own certificate in the place of the
	// other's, in the keychain and, as Graph writes all at once, in Entra.
	unlock, err := durable.Lock(ctx, filepath.Join(w.s.stateDir, "certificate-"+w.application.AppID+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if made, err := apppassword.LoadCertificate(ctx, w.s.keychain, w.application.AppID, ""); err == nil && !nearEnd(made, w.Now()) {
		w.certificate = made // by a setup that this one has waited for
		return w.addCertificate(ctx)
	}
	key := nextCertificateKey(w.application.AppID)
	next, err := w.s.keychain.Get(ctx, key)
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return "", err
	}
	cert, parseErr := entra.ParseCertificate(next)
	if err != nil || parseErr != nil || nearEnd(cert, w.Now()) {
		life := certificateLife
		if limit := w.policy.CertificateLimit(w.created()); limit > 0 {
			life = min(life, limit)
		}
		if cert, err = entra.NewCertificate(w.application.DisplayName, w.Now(), life); err != nil {
			return "", err
		}
		if err := w.s.keychain.Set(ctx, key, cert.PEM()); err != nil {
			return "", err
		}
	}
	w.certificate = cert
	if _, err := w.addCertificate(ctx); err != nil {
		return "", err
	}
	if err := w.untilAccepted(ctx); err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	if err := apppassword.StoreCertificate(ctx, w.s.keychain, w.application.AppID, cert); err != nil {
		return "", err
	}
	return w.certificateText(), w.s.keychain.Delete(ctx, key)
}

func (w *setup) addCertificate(ctx context.Context) (string, error) {
	_, _, err := w.s.graph.EnsureCertificate(ctx, w.application.AppID, w.certificate.DER(), w.application.DisplayName, w.fresh)
	return w.certificateText(), err
}

// unknownYet are what Entra says of a certificate, an application or a service
// principal that it has not heard of everywhere.
var unknownYet = []int{700027, 7000215, 700016, 7000229}

// untilAccepted waits until Entra takes the certificate. What refuses it for
// another reason than its age says nothing about it.
func (w *setup) untilAccepted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acceptLimit)
	defer cancel()
	assertion := w.certificate.Assertion(w.profile.AssertionAlgorithm, w.Now)
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		_, err := w.s.entra.ClientAssertion(ctx, w.application.AppID, assertion, w.profile.Cloud.ExchangeResource+"/.default")
		ee, ok := errors.AsType[*entra.Error](err)
		switch {
		case err == nil:
			return nil
		case !ok:
			return err
		case ee.Kind() == entra.Unavailable, slices.Contains(unknownYet, ee.Number()):
		default:
			w.warn("%v", err)
			return nil
		}
		w.progress.set("waiting for Entra to accept the new certificate")
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return &failedError{code: unavailable, msg: fmt.Sprintf("entra does not accept the new certificate yet: %v", err), hint: "wait some minutes", errs: []error{err}}
		case <-time.After(pause):
		}
	}
}
