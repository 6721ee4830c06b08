package apppassword

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// Interrupted are the notes of this profile's creates that did not end and are
// not running: they may have left something in Entra. Those of moves, which leave
// nothing there, are not among them. It changes nothing.
func (m *Manager) Interrupted() ([]Pending, error) {
	notes, err := m.abandoned()
	return slices.DeleteFunc(notes, func(p Pending) bool { return p.Watched || p.Moved }), err
}

// abandoned are the notes that no running create holds.
func (m *Manager) abandoned() ([]Pending, error) {
	s, err := m.Registry.Load()
	if err != nil {
		return nil, err
	}
	notes := m.notes(s)
	if len(notes) == 0 {
		return nil, nil
	}
	unlock, free, err := durable.TryLock(m.createLock())
	if err != nil || !free {
		return nil, err
	}
	unlock()
	return notes, nil
}

// Recover removes what the notes of this profile tell of, in Entra and in the
// keychain, and finishes its rotations as [Manager.FinishRotations] does. It does
// nothing while a create is running. What cannot be removed keeps its note, and
// does not keep the rest from being removed.
func (m *Manager) Recover(ctx context.Context) error { return m.recover(ctx, false) }

// RecoverLocal is Recover for what is on this machine alone, which Graph need
// not be asked about.
func (m *Manager) RecoverLocal(ctx context.Context) error { return m.recover(ctx, true) }

func (m *Manager) recover(ctx context.Context, localOnly bool) error {
	s, err := m.Registry.Load()
	if err != nil || len(m.notes(s)) == 0 && len(m.unfinished(s)) == 0 {
		return err
	}
	unlock, free, err := durable.TryLock(m.createLock())
	if err != nil || !free {
		return err
	}
	defer unlock()
	return m.recoverLocked(ctx, localOnly)
}

func (m *Manager) notes(s State) []Pending {
	var out []Pending
	for _, p := range s.Pending {
		if p.Profile == m.Profile.Name && m.reaches(p.Tenant, p.ClientID) && !m.running(p) {
			out = append(out, p)
		}
	}
	return out
}

// recoverLocked is recover for a caller that holds the create lock.
func (m *Manager) recoverLocked(ctx context.Context, localOnly bool) error {
	s, err := m.Registry.Load()
	if err != nil {
		return err
	}
	var errs []error
	for _, note := range m.notes(s) {
		clear := m.clearAway
		switch {
		case note.local():
			clear = func(ctx context.Context, note Pending, _ State) error { return m.clearLocal(ctx, note) }
		case localOnly:
			continue
		}
		if err := clear(ctx, note, s); err != nil {
			errs = append(errs, fmt.Errorf("clear away what is left of %q: %w", note.Name, err))
		}
	}
	if _, err := m.finishAll(ctx, m.unfinished(s), localOnly); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// clearAway removes what the create of the note left in Entra and in the
// keychain, and the note once that is sure.
func (m *Manager) clearAway(ctx context.Context, note Pending, s State) error {
	ids, err := m.leftBy(ctx, note, s)
	if err != nil {
		return err
	}
	done := len(ids) > 0
	for _, id := range ids {
		m.progress("clearing away what is left of %q", note.Name)
		settled, err := m.removeCredential(ctx, note.ClientID, id, note.Since, nil)
		if done = done && settled; err != nil {
			return err
		}
		if err := m.deleteItem(ctx, note.Keychain, id); err != nil {
			return err
		}
		if settled && !note.Watched {
			m.warn("removed client secret %s, which an interrupted create or rotate of %q had left", id, note.Name)
		}
	}
	// A credential so young may not be listed yet: look again later.
	if !done && m.now().Sub(note.Since) < replication {
		return nil
	}
	return m.Registry.Update(ctx, func(s *State) error { s.forget(note); return nil })
}

// leftBy finds the credentials that the create of the note made.
func (m *Manager) leftBy(ctx context.Context, note Pending, s State) ([]string, error) {
	known := s.ids()
	if note.KeyID != "" {
		if known[note.KeyID] {
			return nil, nil
		}
		return []string{note.KeyID}, nil
	}
	var ids []string
	for _, start := range note.Starts {
		creds, err := m.Graph.Orphans(ctx, note.ClientID, note.Name, start)
		if ge, ok := errors.AsType[*graph.Error](err); ok && ge.IsNotFound() {
			return nil, nil // the application is gone, and its credentials with it
		}
		if err != nil {
			return nil, err
		}
		for _, c := range creds {
			if !known[c.KeyID] {
				ids = append(ids, c.KeyID)
			}
		}
	}
	return ids, nil
}

// removeCredential takes the credential off the application and sees that it
// is gone. One that is not there is removed already. settled is false where
// Graph has not taken the removal of a credential so young that it may yet
// appear: whoever calls leaves a note, so that it is removed then. taken, where
// not nil, is called once Graph has taken the removal.
func (m *Manager) removeCredential(ctx context.Context, clientID, keyID string, made time.Time, taken func()) (settled bool, err error) {
	settled = m.now().Sub(made) > replication
	err = m.Graph.RemovePassword(ctx, clientID, keyID, func() {
		settled = true
		if taken != nil {
			taken()
		}
	})
	if ge, ok := errors.AsType[*graph.Error](err); ok && (ge.IsNoSuchCredential() || ge.IsNotFound()) {
		err = nil
	}
	return settled, err
}
