package apppassword

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Token gives an access token for Exchange for the app password of that id,
// from the cache where one is good. Its error is a [*RefusedError].
func (v *Verifier) Token(ctx context.Context, id string) (secret.Text, error) {
	t, err := v.token(ctx, id, forExchange, false)
	return t.Access, err
}

// GraphToken gives an access token for Microsoft Graph for the app password of
// that id, from the cache where one is good: by its secret or certificate with
// all that the application may do there, by a person's sign-in with what it was
// consented to for sending ([GraphScopes]). That there is a token says nothing
// about Mail.Send where it is an application's.
//
// Its error is a [*RefusedError]. Where the person has not consented its Reason
// is SignInAgain and its Err a [*GraphConsentError]; the sign-in stays good for
// everything else.
func (v *Verifier) GraphToken(ctx context.Context, id string) (secret.Text, error) {
	t, err := v.token(ctx, id, forGraph, false)
	return t.Access, err
}

// audience is whom an access token is for.
type audience string

const (
	forExchange audience = ""
	forGraph    audience = "/graph"
)

// key is the cache's, of the token for the audience by the credential.
func (a audience) key(credential string) string { return credential + string(a) }

// scope is what an application asks for.
func (a audience) scope(c config.Cloud) string {
	if a == forGraph {
		return c.GraphResource + "/.default"
	}
	return exchangeScope(c)
}

// Revalidate asks Entra whether the backing credential of the app password is
// still good. A refusal is a [*RefusedError] with another reason than
// NotAvailable; an outage is one with NotAvailable, and says nothing about the
// credential.
//
// A person's sign-in is asked about no more often than Token does, when its
// access token nears its end: each time rotates the refresh token and writes
// the keychain, which once a minute would be the likeliest way to lose it. What
// ends a sign-in in Entra does not end the access token either.
func (v *Verifier) Revalidate(ctx context.Context, id string) error {
	_, err := v.token(ctx, id, forExchange, true)
	return err
}

// getter is Token or Renew of the cache.
type getter func(ctx context.Context, key string, fetch func(context.Context) (entra.Token, error)) (entra.Token, error)

func (v *Verifier) token(ctx context.Context, id string, to audience, renew bool) (entra.Token, error) {
	v.mu.RLock()
	h := v.byID[id]
	v.mu.RUnlock()
	if h == nil || h.rec.Decoy {
		return entra.Token{}, &RefusedError{Reason: PasswordRevoked}
	}
	cloud, err := v.Clouds(h.rec.Cloud)
	if err != nil {
		// Not an outage: nothing could ever be asked about its credential.
		return entra.Token{}, &RefusedError{Reason: TenantRefuses, Record: h.rec, Err: err}
	}
	get := v.Tokens.Token
	if renew && h.rec.Backing != BackingUser {
		get = v.Tokens.Renew
	}
	var t entra.Token
	switch h.rec.Backing {
	case BackingUser:
		t, err = v.bySignIn(ctx, h.rec, cloud, to, get)
	case BackingCertificate:
		t, err = v.byCertificate(ctx, h.rec, cloud, to, get)
	default:
		if h.Backing.IsZero() {
			return entra.Token{}, &RefusedError{Reason: PasswordRevoked}
		}
		t, err = v.bySecret(ctx, h, cloud, to, get)
	}
	if err != nil {
		if ended(err) {
			// Both tokens come from the same credential.
			other := forExchange
			if to == forExchange {
				other = forGraph
			}
			v.Tokens.Forget(other.key(v.CredentialKey(h.rec)))
		}
		return entra.Token{}, refusedByEntra(h.rec, v.now(), err)
	}
	return t, nil
}

func (v *Verifier) bySecret(ctx context.Context, h *held, cloud config.Cloud, to audience, get getter) (entra.Token, error) {
	return get(ctx, to.key(secretKey(h.rec)), func(ctx context.Context) (entra.Token, error) {
		c, err := v.Entra(cloud, h.rec.Tenant)
		if err != nil {
			return entra.Token{}, err
		}
		return c.ClientSecret(ctx, h.rec.ClientID, h.Backing, to.scope(cloud))
	})
}

func (v *Verifier) bySignIn(ctx context.Context, rec Record, cloud config.Cloud, to audience, get getter) (entra.Token, error) {
	v.mu.RLock()
	si, ok := v.signIns[rec.SignIn]
	v.mu.RUnlock()
	if !ok {
		return entra.Token{}, &SignInError{Profile: rec.Profile}
	}
	return get(ctx, to.key(signInKey(si)), func(ctx context.Context) (entra.Token, error) {
		c, err := v.Entra(cloud, si.Tenant)
		if err != nil {
			return entra.Token{}, err
		}
		r := refresher{registry: v.Registry, keychains: v.Keychains, now: v.now, complain: func(err error) { v.log().Error("a sign-in", "error", err) }}
		if to == forGraph {
			return r.refreshGraph(ctx, c, cloud, si)
		}
		return r.refresh(ctx, c, cloud, si)
	})
}

// byCertificate looks for the certificate again where Entra does not take the
// one held: it may have been renewed since.
func (v *Verifier) byCertificate(ctx context.Context, rec Record, cloud config.Cloud, to audience, get getter) (entra.Token, error) {
	cert, err := v.certificate(ctx, rec, false)
	if err != nil {
		return entra.Token{}, err
	}
	t, err := v.assert(ctx, rec, cloud, to, cert, get)
	if !certificateRefused(err) {
		return t, err
	}
	again, rerr := v.certificate(ctx, rec, true)
	if rerr != nil || again.Thumbprint() == cert.Thumbprint() {
		return t, err
	}
	return v.assert(ctx, rec, cloud, to, again, get)
}

func (v *Verifier) assert(ctx context.Context, rec Record, cloud config.Cloud, to audience, cert entra.Certificate, get getter) (entra.Token, error) {
	t, err := get(ctx, to.key(assertionKey(rec, cert)), func(ctx context.Context) (entra.Token, error) {
		if err := checkTime(cert, rec.ClientID, rec.Certificate, v.now()); err != nil {
			return entra.Token{}, err
		}
		c, err := v.Entra(cloud, rec.Tenant)
		if err != nil {
			return entra.Token{}, err
		}
		return c.ClientAssertion(ctx, rec.ClientID, cert.Assertion(rec.CertificateAlg, v.now), to.scope(cloud))
	})
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() == entra.Refused {
		err = &CertificateError{ClientID: rec.ClientID, File: rec.Certificate, Err: fmt.Errorf("%.16s…: %w", cert.Thumbprint(), err)}
	}
	return t, err
}

func certificateRefused(err error) bool {
	_, ok := errors.AsType[*CertificateError](err)
	return ok
}

// CredentialKey names what stands behind the record as far as it is known now:
// records with the same key share tokens and are revalidated together.
func (v *Verifier) CredentialKey(rec Record) string {
	switch rec.Backing {
	case BackingUser:
		v.mu.RLock()
		defer v.mu.RUnlock()
		si, ok := v.signIns[rec.SignIn]
		if !ok {
			si.ID = rec.SignIn
		}
		return signInKey(si)
	case BackingCertificate:
		return assertionKey(rec, v.certificates.held(rec))
	}
	return secretKey(rec)
}

func secretKey(rec Record) string { return rec.Tenant + "/" + rec.ClientID + "/" + rec.ID }

// signInKey changes with each new sign-in of the person, so that what was known
// of the one before, as that it had ended, is no answer any more.
func signInKey(si SignIn) string { return "sign-in/" + si.ID + "/" + si.Since.Format(time.RFC3339Nano) }

func assertionKey(rec Record, cert entra.Certificate) string {
	return rec.Tenant + "/" + rec.ClientID + "/certificate/" + rec.CertificateAlg + "/" + cert.Thumbprint()
}

// ended tells that Entra takes the credential for nothing any more, and not that
// it gives no token for what was asked.
func ended(err error) bool {
	ee, ok := errors.AsType[*entra.Error](err)
	return ok && (ee.Kind() == entra.Refused || ee.Kind() == entra.SignInRequired) && !needsConsent(ee)
}

func refusedByEntra(rec Record, now time.Time, err error) error {
	refuse := func(why Refused) error { return &RefusedError{Reason: why, Record: rec, Err: err} }
	if rec.Backing == BackingUser && needsSignIn(err) {
		return refuse(SignInAgain)
	}
	if se, ok := errors.AsType[*SignInError](err); ok && se.Err == nil {
		return refuse(SignInAgain)
	}
	if ce, ok := errors.AsType[*CertificateError](err); ok && !ce.Expired.IsZero() {
		return refuse(TenantRefuses)
	}
	ee, ok := errors.AsType[*entra.Error](err)
	if !ok || ee.Kind() == entra.Unavailable {
		return refuse(NotAvailable)
	}
	// What Entra has never been seen to accept may not have arrived everywhere.
	young := !rec.Verified && now.Sub(rec.Created) <= replication
	switch {
	case ee.Kind() == entra.Refused && rec.Backing == BackingSecret && !young:
		return refuse(PasswordRevoked)
	case ee.Kind() == entra.Refused && rec.Backing == BackingSecret, certificateUnknown(ee) && young:
		return refuse(NotAvailable)
	}
	return refuse(TenantRefuses)
}

func exchangeScope(c config.Cloud) string { return c.ExchangeResource + "/.default" }
