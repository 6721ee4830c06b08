package apppassword

import (
	"context"
	"errors"

	"github.com/o365pw/o365pw/pkg/entra"
)

// createLocal makes an app password that has no credential of its own: a decoy,
// or one on a person's sign-in or a certificate, for which Entra has to give a
// token first:
//
//	token → note → keychain → registry
//
// The note names the keychain item before it is there, so that a create that
// is killed leaves nothing nobody knows of; a token leaves nothing. The caller
// holds the create lock.
func (m *Manager) createLocal(ctx context.Context, req Request) (Created, error) {
	if err := m.clearFirst(ctx, true); err != nil {
		return Created{}, err
	}
	entries, err := m.Local()
	if err != nil {
		return Created{}, err
	}
	if err := NameFree(entries, req.Name); err != nil {
		return Created{}, err
	}
	rec := m.record(req)
	rec.Backing = req.Backing
	if req.Decoy {
		rec.Backing = BackingNone
	}
	if err := m.stand(&rec); err != nil {
		return Created{}, err
	}
	prove, err := m.proof(ctx, rec, false)
	if err != nil {
		return Created{}, err
	}
	return m.issueLocal(ctx, rec, prove, issue{noWait: req.NoWait, commit: putNew})
}

// stand puts what is to stand behind the app password into the record.
func (m *Manager) stand(rec *Record) error {
	switch rec.Backing {
	case BackingUser:
		si, ok, err := m.SignInOf()
		if err != nil {
			return err
		}
		if !ok {
			return &SignInError{Profile: m.Profile.Name}
		}
		rec.SignIn = si.ID
	case BackingCertificate:
		rec.Certificate, rec.CertificateAlg = m.Profile.Certificate, m.Profile.AssertionAlgorithm
	}
	return nil
}

// proof gets a token by what stands behind the record, as is known to be there:
// nil where there is nothing to prove. With must, Entra has to give one within
// the limit.
func (m *Manager) proof(ctx context.Context, rec Record, must bool) (func(context.Context) (bool, error), error) {
	switch rec.Backing {
	case BackingUser:
		s, err := m.Registry.Load()
		if err != nil {
			return nil, err
		}
		si := s.signIn(rec.SignIn)
		if si == nil {
			return nil, &SignInError{Profile: m.Profile.Name}
		}
		for _, p := range rec.Allow {
			if !si.grants(m.Profile.Cloud, p) {
				return nil, &ScopeError{Protocol: p, Username: si.Username}
			}
		}
		return func(ctx context.Context) (bool, error) { return m.proveSignIn(ctx, rec, must) }, nil
	case BackingCertificate:
		cert, err := m.certificate(ctx, rec)
		if err != nil {
			return nil, err
		}
		if cert.NotAfter().Before(rec.Expires) {
			m.warn("the certificate behind it ends before it does, on %s", cert.NotAfter().Local().Format("2 January 2006"))
		}
		awaited := m.newCertificate(cert, rec)
		awaited.must = must
		return func(ctx context.Context) (bool, error) { return m.waitAccepted(ctx, awaited) }, nil
	}
	return nil, nil
}

func (m *Manager) proveSignIn(ctx context.Context, rec Record, must bool) (bool, error) {
	m.progress("asking Entra for a token")
	_, err := m.signInToken(ctx, rec)
	if err == nil {
		return true, nil
	}
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() != entra.Unavailable && !needsSignIn(err) {
		err = &UnusableError{Backing: BackingUser, Rotated: must, Err: err}
	}
	return false, err
}

// certificate is the one that the record stands on, if it is good now.
func (m *Manager) certificate(ctx context.Context, rec Record) (entra.Certificate, error) {
	k, err := m.Keychains(rec.Keychain)
	if err != nil {
		return entra.Certificate{}, err
	}
	cert, err := LoadCertificate(ctx, k, rec.ClientID, rec.Certificate)
	if err == nil {
		err = checkTime(cert, rec.ClientID, rec.Certificate, m.now())
	}
	return cert, err
}

// clearLocal removes the keychain item that the note names, and the note.
func (m *Manager) clearLocal(ctx context.Context, note Pending) error {
	if err := m.deleteItem(ctx, note.Keychain, note.KeyID); err != nil {
		return err
	}
	return m.Registry.Update(ctx, func(s *State) error {
		s.withdraw(note.KeyID)
		s.forget(note)
		return nil
	})
}
