package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/secret"
)

// signInStatus proves the sign-in to Graph by reading the application with it.
// Where no client secret has to be managed, none is missed.
func (a *app) signInStatus(ctx context.Context, s *session, st *statusJSON) {
	if s.source.kind() == bySignIn {
		if !st.Keychain.OK {
			return // one fault is enough
		}
		held, err := s.signIns().read(ctx)
		if errors.Is(err, secret.ErrNotFound) && !s.needsGraph() {
			st.SignIn.By = ""
			return
		}
		if err == nil {
			st.SignIn.Username, st.SignIn.Since = held.Username, utc(held.Since)
		}
	}
	if _, err := s.source.Token(ctx); err != nil {
		st.SignIn.Ended = advise(err).code == signInRequired
		st.fault(err)
		return
	}
	st.SignIn.OK = true
	a.progress.set("reading the application")
	app, err := s.graph.Application(ctx, s.profile.ClientID)
	if err != nil {
		if advise(err).code == signInRequired {
			st.SignIn.OK, st.SignIn.Ended = false, true
		}
		st.fault(err)
		return
	}
	st.Application.ID, st.Application.DisplayName, st.Application.OK = app.ID, app.DisplayName, true
}

// needsGraph tells that client secrets are managed here: new ones are asked
// for, or there are some.
func (s *session) needsGraph() bool {
	return s.profile.Backing == apppassword.BackingSecret || s.stands(apppassword.BackingSecret)
}

// stands tells whether an app password of this machine stands on that backing.
func (s *session) stands(backing string) bool {
	entries, err := s.manager.Local()
	return err == nil && slices.ContainsFunc(entries, func(e apppassword.Entry) bool { return e.Backing == backing && e.Revoked.IsZero() })
}

// mailSignInStatus proves the sign-in of backing user by getting a token.
func (a *app) mailSignInStatus(ctx context.Context, s *session, st *statusJSON) {
	si, ok, err := s.manager.SignInOf()
	switch {
	case err != nil:
		return // the registry's fault is told with the app passwords
	case !ok && s.profile.Backing != apppassword.BackingUser:
		return
	}
	m := &statusSignIn{By: string(bySignIn), Username: si.Username}
	st.MailSignIn = m
	if !si.Since.IsZero() {
		m.Since = utc(si.Since)
	}
	if !st.Keychain.OK {
		return
	}
	a.progress.set("checking the sign-in for mail")
	if _, err := s.manager.MailToken(ctx); err != nil {
		if m.Ended = advise(err).code == signInRequired; m.Ended {
			if now, _, err := s.manager.SignInOf(); err == nil {
				m.Why = now.Why
			}
		}
		st.fault(err)
		return
	}
	m.OK = true
}

// certificateStatus proves the certificate of backing certificate by getting a
// token with it.
func (a *app) certificateStatus(ctx context.Context, s *session, st *statusJSON) {
	if s.profile.Backing != apppassword.BackingCertificate && !s.stands(apppassword.BackingCertificate) {
		return
	}
	c := &statusCert{File: s.profile.Certificate}
	st.Certificate = c
	if c.File == "" && !st.Keychain.OK {
		return
	}
	cert, err := apppassword.LoadCertificate(ctx, s.keychain, s.profile.ClientID, s.profile.Certificate)
	if err != nil {
		st.fault(err)
		return
	}
	c.Thumbprint, c.Expires = cert.Thumbprint(), utc(cert.NotAfter())
	a.progress.set("checking the certificate")
	if _, err := s.manager.CertificateToken(ctx); err != nil {
		st.fault(err)
		return
	}
	c.OK = true
	if left := cert.NotAfter().Sub(a.Now()); left < certificateSoon {
		a.warn("the certificate of the application expires %s; make a new one: o365pw setup", relative(cert.NotAfter(), a.Now()))
	}
}

// certificateSoon is how long before its end a certificate is warned of.
const certificateSoon = 30 * 24 * time.Hour
