package apppassword

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// RotateRequest is what a person asks of Rotate.
type RotateRequest struct {
	// Overlap is how long the old password stays good beside the new one, unless
	// the mail program is seen with the new one before. 0: it is shut out and
	// removed before Rotate returns.
	Overlap time.Duration
	// Expires is the new end; zero: a life as long as the one before, from now.
	Expires time.Time
}

// Rotated is a new password of an app password. It is to be shown once.
type Rotated struct {
	Created
	// Left is an [*OldLeftError] where the old password is shut out, but not all
	// of it could be removed; nil otherwise.
	Left error
}

// Rotate gives the app password of that name or id a new password, and what
// stands behind it a new credential, where it has one of its own. Entra has to
// give a token by that before anything is changed:
//
//	addPassword → Entra accepts the secret → keychain → registry
//
// The record stays, and so do its name and what it may do; its ID is the new
// credential's, and its Previous the old one, whose password and sessions stay
// good for the overlap. There are never more than two: where nobody has used the
// new one of an earlier rotation, that goes, and the one before stays for the new
// overlap; else the earlier rotation is finished first.
//
// A step that fails is undone, and leaves the app password as it was. After a kill
// the next create, revoke or rotate clears away what is left. Errors: those of
// [Manager.Create] and, before anything is asked for, [*NotFoundError],
// [*SeveralError], [*NotRotatableError] and [*OtherTenantError]; a
// [*NotAcceptedError] where Entra gives no token within the limit.
func (m *Manager) Rotate(ctx context.Context, arg string, req RotateRequest) (Rotated, error) {
	unlock, err := m.lockCreates(ctx)
	if err != nil {
		return Rotated{}, err
	}
	defer unlock()
	e, err := m.rotatable(ctx, arg)
	if err != nil {
		return Rotated{}, err
	}
	t, err := m.turn(ctx, e.Record, req)
	if err != nil {
		return Rotated{}, err
	}
	var done Rotated
	if t.next.Local() {
		prove, err := m.proof(ctx, t.next, true)
		if err != nil {
			return Rotated{}, err
		}
		done.Created, err = m.issueLocal(ctx, t.next, prove, issue{commit: t.commit})
		if err != nil {
			return Rotated{}, err
		}
	} else {
		done.Created, err = m.issueSecret(ctx, t.next, issue{expiresAsked: !req.Expires.IsZero(), must: true, commit: t.commit})
		if err != nil {
			return Rotated{}, err
		}
	}
	m.clearUnused(ctx, t.unused)
	p := done.Record.Previous
	if !p.Ended.IsZero() {
		m.ended(done.Record, EndAsked)
	}
	if p.Over(m.now()) {
		if done.Left = m.finish(ctx, done.Record); done.Left == nil {
			done.Record.Previous = nil
		}
	}
	return done, nil
}

// lockCreates waits for other creates and rotations of the profile.
func (m *Manager) lockCreates(ctx context.Context) (unlock func(), err error) {
	if m.Registry.Dir == "" {
		return nil, ErrNoState
	}
	m.progress("waiting for another create of this profile")
	return durable.Lock(ctx, m.createLock())
}

// rotatable finds what is to be rotated, once what was left before is cleared
// away. Graph is asked unless the app password is on this machine alone: what
// somebody has revoked elsewhere must not come to life again.
func (m *Manager) rotatable(ctx context.Context, arg string) (Entry, error) {
	entries, err := m.Local()
	if err != nil {
		return Entry{}, err
	}
	e, err := Match(entries, arg)
	local := err == nil && e.Local()
	if err := m.clearFirst(ctx, local); err != nil {
		return Entry{}, err
	}
	if local {
		entries, err = m.Local()
	} else {
		entries, err = m.List(ctx)
	}
	if err == nil {
		e, err = Match(entries, arg)
	}
	switch {
	case err != nil:
		return Entry{}, err
	case e.Decoy:
		return Entry{}, &NotRotatableError{Name: e.Name, Decoy: true}
	case e.Status == RemoteOnly, e.Status == Revoked:
		return Entry{}, &NotRotatableError{Name: cmp.Or(e.Name, e.ID), Status: e.Status}
	case !local && !e.Remote && !m.reaches(e.Tenant, e.ClientID):
		return Entry{}, &OtherTenantError{Name: e.Name, Tenant: e.Tenant, Profile: m.Profile.Name, ProfileTenant: m.Profile.Tenant}
	}
	return e, nil
}

// turn is one rotation: the record as it is, as it is to be, and the credential
// of an earlier rotation that nobody has used, where there is one.
type turn struct {
	was, next Record
	unused    *Pending
}

// turn plans the rotation of rec. An earlier one that is in use is finished.
func (m *Manager) turn(ctx context.Context, rec Record, req RotateRequest) (turn, error) {
	now := m.now().UTC().Truncate(time.Second)
	t := turn{was: rec}
	old := rec
	if p := rec.Previous; p != nil && !p.Over(now) && !m.used(rec.ID) {
		// The mail program still has the password of before.
		old = rec.previous()
		note := m.noteFor(rec)
		note.KeyID, note.Since = rec.ID, rec.made()
		if rec.Local() {
			note.Backing = rec.Backing
		}
		t.unused = &note
	} else if p != nil {
		if !p.Over(now) {
			m.warn("the password before the last rotation of %q was still good; it is shut out now", rec.Name)
		}
		if err := m.finish(ctx, rec); err != nil {
			return t, err
		}
		t.was.Previous = nil
	}
	t.next = rec
	t.next.Created, t.next.Verified = now, false
	t.next.Expires = req.Expires.UTC()
	if req.Expires.IsZero() {
		t.next.Expires = now.Add(rec.Expires.Sub(rec.Created))
	}
	if !t.next.Expires.After(now) {
		return t, &InvalidError{Field: "expiry", Value: t.next.Expires.Format(time.RFC3339), Problem: "is in the past"}
	}
	t.next.Previous = old.asPrevious(now.Add(req.Overlap))
	if t.next.Previous.Over(now) {
		t.next.Previous.Ended = now // in the same write
	}
	return t, nil
}

// used tells whether a mail program was seen with the password of that id. What
// cannot be known counts as used: the newest password is the one to keep.
func (m *Manager) used(id string) bool {
	s, err := Usage{Dir: m.Registry.Dir}.Load()
	return err != nil || !s.LastUse[id].Time.IsZero()
}

// commit puts the rotated record in the place of the one that was rotated.
func (t turn) commit(s *State, rec Record) error {
	now := s.holder(t.was.ID)
	switch {
	case now == nil, !now.Revoked.IsZero():
		return &NotRotatableError{Name: t.was.Name, Status: Revoked} // meanwhile
	case now.ID != t.was.ID:
		return fmt.Errorf("%q was changed meanwhile; run the command again", t.was.Name)
	}
	*now = rec
	if t.unused != nil {
		s.note(*t.unused)
	}
	return nil
}

// clearUnused removes what an earlier rotation has made and nobody has used. Its
// note stays where that fails.
func (m *Manager) clearUnused(ctx context.Context, note *Pending) {
	if note == nil {
		return
	}
	clear := m.clearLocal
	if !note.local() {
		clear = func(ctx context.Context, note Pending) error {
			s, err := m.Registry.Load()
			if err != nil {
				return err
			}
			note.Watched = true // it was not interrupted
			return m.clearAway(ctx, note, s)
		}
	}
	if err := clear(ctx, *note); err != nil {
		m.warn("what the last rotation of %q had made, and nobody has used, could not be removed; the next create or rotate removes it: %v", note.Name, err)
	}
}

// ended tells who wants to know that an old password is shut out.
func (m *Manager) ended(rec Record, why string) {
	if m.Ended != nil {
		m.Ended(Ended{rec, why})
	}
}

// FinishRotations removes what is left of the old passwords of the profile whose
// overlap is over: in Entra, in the keychain and in the registry. Those of an
// overlap that goes on are left alone. It waits for a create or rotation of the
// profile that is running, and may be repeated after any interruption. It returns
// the records of which nothing is left, as they were, with their Previous. One
// that fails does not keep the others from being tried: the error joins an
// [*OldLeftError] for each.
func (m *Manager) FinishRotations(ctx context.Context) ([]Record, error) {
	s, err := m.Registry.Load()
	if err != nil || len(m.unfinished(s)) == 0 {
		return nil, err
	}
	unlock, err := m.lockCreates(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err = m.Registry.Load(); err != nil {
		return nil, err
	}
	return m.finishAll(ctx, m.unfinished(s), false)
}

// FinishRotation ends the overlap of the app password of that name or id, which
// is on this machine, and removes what is left of its old password. It tells false
// where there is none. Errors: [*NotFoundError], [*SeveralError],
// [*OldLeftError].
func (m *Manager) FinishRotation(ctx context.Context, arg string) (Entry, bool, error) {
	unlock, err := m.lockCreates(ctx)
	if err != nil {
		return Entry{}, false, err
	}
	defer unlock()
	entries, err := m.Local()
	if err != nil {
		return Entry{}, false, err
	}
	e, err := Match(entries, arg)
	if err != nil || !e.overlap() {
		return e, false, err
	}
	if err := m.finish(ctx, e.Record); err != nil {
		return e, true, err
	}
	e.Previous = nil
	return e, true, nil
}

// unfinished are the profile's records whose old password is shut out, or is to
// be, and not gone.
func (m *Manager) unfinished(s State) []Record {
	var out []Record
	for _, r := range m.records(s) {
		if r.overlap() && r.Previous.Over(m.now()) {
			out = append(out, r)
		}
	}
	return out
}

// finishAll finishes them for a caller that holds the create lock.
func (m *Manager) finishAll(ctx context.Context, recs []Record, localOnly bool) (finished []Record, err error) {
	var errs []error
	for _, rec := range recs {
		if localOnly && !rec.Local() {
			continue
		}
		if err := m.finish(ctx, rec); err != nil {
			errs = append(errs, err)
			continue
		}
		finished = append(finished, rec)
	}
	return finished, errors.Join(errs...)
}

// finish shuts the old password of rec out, and removes what is left of it:
//
//	mark → removePassword → keychain item → registry
//
// Its error is an [*OldLeftError].
func (m *Manager) finish(ctx context.Context, rec Record) error {
	p := *rec.Previous
	left := func(err error) error {
		return &OldLeftError{Name: rec.Name, ID: p.ID, Secret: !rec.Local(), Err: err}
	}
	m.progress("removing the old password of %q", rec.Name)
	marked := false
	if err := m.settle(ctx, func(s *State) { _, marked = s.end(p.ID, m.now()) }); err != nil {
		return left(err)
	}
	if marked {
		why := EndAsked
		if !m.now().Before(p.Until) {
			why = EndOverlap
		}
		m.ended(rec, why)
	}
	settled, err := m.removePrevious(ctx, rec)
	if err != nil {
		return left(err)
	}
	if err := m.deleteItem(ctx, rec.Keychain, p.ID); err != nil {
		return left(err)
	}
	err = m.settle(ctx, func(s *State) {
		if now := s.holder(p.ID); now != nil && now.ID != p.ID {
			now.Previous = nil
		}
		if !settled {
			s.note(m.watchFor(rec.previous()))
		}
	})
	if err != nil {
		return left(err)
	}
	return nil
}

// removePrevious takes the credential of before off the application, where it
// has one of its own. One that was removed elsewhere is gone.
func (m *Manager) removePrevious(ctx context.Context, rec Record) (settled bool, err error) {
	if rec.Local() {
		return true, nil
	}
	if !m.reaches(rec.Tenant, rec.ClientID) {
		return false, &OtherTenantError{Name: rec.Name, Tenant: rec.Tenant, Profile: m.Profile.Name, ProfileTenant: m.Profile.Tenant}
	}
	was := rec.previous()
	return m.removeCredential(ctx, rec.ClientID, was.ID, was.made(), nil)
}

// watchFor is the note of a credential that may turn up although it was removed.
func (m *Manager) watchFor(rec Record) Pending {
	note := m.noteFor(rec)
	note.Since, note.KeyID, note.Watched = rec.Created, rec.ID, true
	return note
}
