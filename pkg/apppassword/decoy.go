package apppassword

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// createDecoy makes a decoy on this machine alone:
//
//	note → keychain → registry
//
// The note names the keychain item before it is there, so that a create that
// is killed leaves nothing nobody knows of. The caller holds the create lock.
func (m *Manager) createDecoy(ctx context.Context, req Request) (created Created, err error) {
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
	keychain, err := m.openKeychain(ctx)
	if err != nil {
		return Created{}, err
	}
	rec := m.record(req)
	rec.ID, rec.Backing = uuid.NewString(), BackingNone
	note := Pending{ID: uuid.NewString(), Name: rec.Name, Profile: rec.Profile, Tenant: rec.Tenant, ClientID: rec.ClientID,
		Keychain: rec.Keychain, Since: m.now().UTC(), KeyID: rec.ID, Decoy: true}
	if err := m.Registry.Update(ctx, func(s *State) error { s.note(note); return nil }); err != nil {
		return Created{}, err
	}
	defer func() {
		if err != nil {
			// Also when the person has pressed Ctrl-C. What cannot be undone
			// now is left to the next create, which finds the note.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
			defer cancel()
			created, err = Created{}, errors.Join(err, m.clearDecoy(ctx, note))
		}
	}()
	password := Generate()
	if err := storeSecrets(ctx, keychain, rec.ID, secrets{Password: password}); err != nil {
		return Created{}, fmt.Errorf("put the app password into the keychain: %w", err)
	}
	err = m.Registry.Update(ctx, func(s *State) error {
		s.put(rec)
		s.forget(note)
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return Created{Record: rec, Password: password}, nil
}

// clearDecoy removes the keychain item that the note names, and the note.
func (m *Manager) clearDecoy(ctx context.Context, note Pending) error {
	if err := m.deleteItem(ctx, note.Keychain, note.KeyID); err != nil {
		return err
	}
	return m.Registry.Update(ctx, func(s *State) error {
		s.remove(note.KeyID)
		s.forget(note)
		return nil
	})
}

// revokeDecoy forgets a decoy. It is marked first, so that the gateway takes it
// for revoked even if the keychain makes trouble.
func (m *Manager) revokeDecoy(ctx context.Context, e Entry) error {
	if err := m.settle(ctx, func(s *State) { s.mark(e.ID, m.now()) }); err != nil {
		return err
	}
	if err := m.deleteItem(ctx, e.Keychain, e.ID); err != nil {
		return &HalfRevokedError{Name: e.Name, Left: InKeychain, Err: err}
	}
	if err := m.settle(ctx, func(s *State) { s.remove(e.ID) }); err != nil {
		return &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: err}
	}
	return nil
}
