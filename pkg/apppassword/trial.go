package apppassword

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// trialName is how an administrator sees the client secret of a trial, and
// trialLife how long it lives should nobody be left to remove it.
const (
	trialName = "o365pw trial"
	trialLife = time.Hour
)

// Token gets an access token for Exchange by what stands behind rec, which is
// one of the profile's: its client secret, the person's sign-in, or the
// application's certificate. Entra is asked each time. Errors are those of
// secret and entra, [*SignInError] and [*CertificateError].
func (m *Manager) Token(ctx context.Context, rec Record) (entra.Token, error) {
	c := *m.Entra
	c.Tenant = rec.Tenant
	switch rec.Backing {
	case BackingUser:
		return m.signInToken(ctx, rec)
	case BackingCertificate:
		cert, err := m.certificate(ctx, rec)
		if err != nil {
			return entra.Token{}, err
		}
		return c.ClientAssertion(ctx, rec.ClientID, cert.Assertion(rec.CertificateAlg, m.now), exchangeScope(m.Profile.Cloud))
	}
	k, err := m.Keychains(rec.Keychain)
	if err != nil {
		return entra.Token{}, err
	}
	s, err := loadSecrets(ctx, k, rec.ID)
	if err != nil {
		return entra.Token{}, fmt.Errorf("read what stands behind the app password %q: %w", rec.Name, err)
	}
	return c.ClientSecret(ctx, rec.ClientID, s.Backing, exchangeScope(m.Profile.Cloud))
}

// CertificateToken gets an access token for Exchange by the certificate of the
// profile's application, whether or not an app password stands on it. Errors
// are those of [Manager.Token].
func (m *Manager) CertificateToken(ctx context.Context) (entra.Token, error) {
	p := m.Profile
	return m.Token(ctx, Record{Tenant: p.Tenant, ClientID: p.ClientID, Keychain: p.Keychain, Backing: BackingCertificate,
		Certificate: p.Certificate, CertificateAlg: p.AssertionAlgorithm})
}

// Trial lends use a client secret of the profile's application: one that is
// made for this, lives for an hour at most, and is removed when use returns.
// token gets access tokens for Exchange by it. Creates of the profile go on
// meanwhile, as it may take long. The note of it in the registry lets the next
// one remove what a killed trial leaves. Errors are those of use and, before and
// after it, those of [Manager.Create].
func (m *Manager) Trial(ctx context.Context, use func(token func(context.Context) (entra.Token, error)) error) (err error) {
	if m.Registry.Dir == "" {
		return ErrNoState
	}
	note := Pending{ID: uuid.NewString(), Name: trialName, Profile: m.Profile.Name, Tenant: m.Profile.Tenant,
		ClientID: m.Profile.ClientID, Keychain: m.Profile.Keychain, Since: m.now().UTC(), Trial: true}
	// Held before there is a note, and until that is gone: who finds the note
	// alone finds what was left.
	unlock, err := durable.Lock(ctx, m.trialLock(note))
	if err != nil {
		return err
	}
	defer func() {
		unlock()
		_ = os.Remove(m.trialLock(note)) // nobody else ever makes a trial of that id
	}()
	clientSecret, err := m.addTrial(ctx, &note)
	if err != nil {
		return err
	}
	defer func() { err = m.undo(ctx, note, note.KeyID, err) }()
	trial := m.newSecret(Record{Tenant: note.Tenant, ClientID: note.ClientID}, clientSecret)
	trial.backing = "" // of no app password
	if _, err := m.waitAccepted(ctx, trial); err != nil {
		return err
	}
	return use(func(ctx context.Context) (entra.Token, error) {
		return m.Entra.ClientSecret(ctx, m.Profile.ClientID, clientSecret, exchangeScope(m.Profile.Cloud))
	})
}

// addTrial makes the client secret of a trial, while no create is running, and
// notes its key id.
func (m *Manager) addTrial(ctx context.Context, note *Pending) (secret.Text, error) {
	m.progress("waiting for another create of this profile")
	unlock, err := durable.Lock(ctx, m.createLock())
	if err != nil {
		return secret.Text{}, err
	}
	defer unlock()
	if err := m.recoverLocked(ctx, false); err != nil {
		if ctx.Err() != nil {
			return secret.Text{}, err
		}
		m.warn("%v", err)
	}
	cred, clientSecret, _, err := m.addPassword(ctx, Request{Name: trialName, Expires: m.now().Add(trialLife)}, note)
	if err != nil {
		return secret.Text{}, m.afterFailedAdd(ctx, *note, err)
	}
	note.KeyID = cred.KeyID
	if err := m.Registry.Update(ctx, func(s *State) error { s.note(*note); return nil }); err != nil {
		return secret.Text{}, m.undo(ctx, *note, cred.KeyID, err)
	}
	return clientSecret, nil
}

func (m *Manager) trialLock(note Pending) string {
	return filepath.Join(m.Registry.Dir, "trial-"+note.ID+".lock")
}

// running tells whether the note is of a trial that goes on.
func (m *Manager) running(note Pending) bool {
	if !note.Trial {
		return false // the create lock tells
	}
	unlock, free, err := durable.TryLock(m.trialLock(note))
	if err != nil || !free {
		return true
	}
	unlock()
	_ = os.Remove(m.trialLock(note))
	return false
}
