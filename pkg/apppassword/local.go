package apppassword

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

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
func (m *Manager) createLocal(ctx context.Context, req Request) (created Created, err error) {
	if err := m.recoverLocked(ctx, true); err != nil {
		m.warn("%v", err) // the note stays, and another create is not its concern
	}
	entries, err := m.Local()
	if err != nil {
		return Created{}, err
	}
	if err := nameFree(entries, req.Name); err != nil {
		return Created{}, err
	}
	rec := m.record(req)
	rec.ID, rec.Backing = uuid.NewString(), req.Backing
	note := Pending{ID: uuid.NewString(), Name: rec.Name, Profile: rec.Profile, Tenant: rec.Tenant, ClientID: rec.ClientID,
		Keychain: rec.Keychain, Since: m.now().UTC(), KeyID: rec.ID}
	if req.Decoy {
		rec.Backing, note.Decoy = BackingNone, true
	} else {
		note.Backing = rec.Backing
	}
	prove, err := m.stand(ctx, &rec)
	if err != nil {
		return Created{}, err
	}
	keychain, err := m.openKeychain(ctx)
	if err != nil {
		return Created{}, err
	}
	if prove != nil && !req.NoWait {
		if rec.Verified, err = prove(ctx); err != nil {
			return Created{}, err
		}
	}
	if err := m.Registry.Update(ctx, func(s *State) error { s.note(note); return nil }); err != nil {
		return Created{}, err
	}
	defer func() {
		if err != nil {
			// Also when the person has pressed Ctrl-C. What cannot be undone
			// now is left to the next create, which finds the note.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
			defer cancel()
			created, err = Created{}, errors.Join(err, m.clearLocal(ctx, note))
		}
	}()
	password := Generate()
	if err := storeSecrets(ctx, keychain, rec.ID, secrets{Password: password}); err != nil {
		return Created{}, fmt.Errorf("put the app password into the keychain: %w", err)
	}
	err = m.Registry.Update(ctx, func(s *State) error {
		if rec.SignIn != "" && s.signIn(rec.SignIn) == nil {
			return &SignInError{Profile: rec.Profile} // forgotten meanwhile
		}
		s.put(rec)
		s.forget(note)
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return Created{Record: rec, Password: password}, nil
}

// stand finds what is to stand behind the app password and puts it into the
// record. prove gets a token by it; nil: there is nothing to prove.
func (m *Manager) stand(ctx context.Context, rec *Record) (prove func(context.Context) (bool, error), err error) {
	switch rec.Backing {
	case BackingUser:
		si, ok, err := m.SignInOf()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &SignInError{Profile: m.Profile.Name}
		}
		for _, p := range rec.Allow {
			if !si.grants(m.Profile.Cloud, p) {
				return nil, &ScopeError{Protocol: p, Username: si.Username}
			}
		}
		rec.SignIn = si.ID
		return m.proveSignIn, nil
	case BackingCertificate:
		rec.Certificate, rec.CertificateAlg = m.Profile.Certificate, m.Profile.AssertionAlgorithm
		cert, err := m.certificate(ctx, *rec)
		if err != nil {
			return nil, err
		}
		if cert.NotAfter().Before(rec.Expires) {
			m.warn("the certificate behind it ends before it does, on %s", cert.NotAfter().Local().Format("2 January 2006"))
		}
		return func(ctx context.Context) (bool, error) { return m.waitAccepted(ctx, m.newCertificate(cert, *rec)) }, nil
	}
	return nil, nil
}

func (m *Manager) proveSignIn(ctx context.Context) (bool, error) {
	m.progress("asking Entra for a token")
	_, err := m.MailToken(ctx)
	if err == nil {
		return true, nil
	}
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() != entra.Unavailable && !needsSignIn(err) {
		err = &UnusableError{Backing: BackingUser, Err: err}
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
		s.remove(note.KeyID)
		s.forget(note)
		return nil
	})
}
