package apppassword

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// undoLimit bounds the removal of what a failed create made. It runs also
// when the person has pressed Ctrl-C.
const undoLimit = 2 * time.Minute

// issue is how create and rotate differ in making what stands behind a record.
type issue struct {
	expiresAsked bool // the record's end was chosen: it is kept or refused, never shortened
	noWait       bool // Entra is not asked for a token
	must         bool // Entra has to give a token within the limit
	// commit puts the record into the registry, in the write that the note of it
	// goes with. Its error undoes all.
	commit func(*State, Record) error
}

// putNew is the commit of create.
func putNew(s *State, rec Record) error {
	s.put(rec)
	return nil
}

// noteFor is what is left in the registry before anything is made for rec.
func (m *Manager) noteFor(rec Record) Pending {
	return Pending{ID: uuid.NewString(), Name: rec.Name, Profile: m.Profile.Name, Tenant: rec.Tenant, ClientID: rec.ClientID,
		Keychain: rec.Keychain, Since: m.now().UTC()}
}

// issueSecret makes a client secret of its own and a password for rec, whose id,
// hint and end come of it. The caller holds the create lock.
func (m *Manager) issueSecret(ctx context.Context, rec Record, how issue) (created Created, err error) {
	keychain, err := m.openKeychain(ctx, rec.Keychain)
	if err != nil {
		return Created{}, err
	}
	note := m.noteFor(rec)
	cred, clientSecret, expires, err := m.addPassword(ctx, Request{Name: rec.Name, Expires: rec.Expires, ExpiresAsked: how.expiresAsked}, &note)
	if err != nil {
		return Created{}, m.afterFailedAdd(ctx, note, err)
	}
	rec.ID, rec.Hint, rec.Expires = cred.KeyID, cred.Hint, expires.UTC()
	defer func() {
		if err != nil {
			created, err = Created{}, m.undo(ctx, note, rec.ID, err)
		}
	}()
	note.KeyID = cred.KeyID
	if err := m.Registry.Update(ctx, func(s *State) error { s.note(note); return nil }); err != nil {
		return Created{}, err
	}
	if !how.noWait {
		awaited := m.newSecret(rec, clientSecret)
		awaited.must = how.must
		if rec.Verified, err = m.waitAccepted(ctx, awaited); err != nil {
			return Created{}, err
		}
	}
	s := secrets{Password: Generate(), Backing: clientSecret}
	if err := storeSecrets(ctx, keychain, rec.ID, s); err != nil {
		return Created{}, fmt.Errorf("put the app password into the keychain: %w", err)
	}
	err = m.Registry.Update(ctx, func(st *State) error {
		if err := how.commit(st, rec); err != nil {
			return err
		}
		st.forget(note)
		if len(note.Starts) > 1 {
			// An answer was lost. What it may have made can still appear: the
			// note stays until Graph's reads must have caught up.
			late := note
			late.KeyID, late.Watched = "", true
			st.note(late)
		}
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return Created{Record: rec, Password: s.Password}, nil
}

// issueLocal makes a password for rec, behind which stands nothing of its own.
// prove gets a token first; nil: there is nothing to prove. The note names the
// keychain item before it is there. The caller holds the create lock.
func (m *Manager) issueLocal(ctx context.Context, rec Record, prove func(context.Context) (bool, error), how issue) (created Created, err error) {
	rec.ID = uuid.NewString()
	keychain, err := m.openKeychain(ctx, rec.Keychain)
	if err != nil {
		return Created{}, err
	}
	if prove != nil && !how.noWait {
		if rec.Verified, err = prove(ctx); err != nil {
			return Created{}, err
		}
	}
	note := m.noteFor(rec)
	note.KeyID, note.Decoy = rec.ID, rec.Decoy
	if !rec.Decoy {
		note.Backing = rec.Backing
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
		if err := how.commit(s, rec); err != nil {
			return err
		}
		s.forget(note)
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return Created{Record: rec, Password: password}, nil
}

// openKeychain gives the keychain once it has proved to work.
func (m *Manager) openKeychain(ctx context.Context, kind string) (secret.Keychain, error) {
	k, err := m.Keychains(kind)
	if err == nil {
		err = ProbeKeychain(ctx, k, "create/"+m.Profile.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("nothing was made, since the app password could not be kept: %w", err)
	}
	return k, nil
}

// addPassword asks Graph for the credential, and notes in the registry what it
// is about to ask for. A life that the tenant's policy refuses is shortened
// unless the person asked for it.
func (m *Manager) addPassword(ctx context.Context, req Request, note *Pending) (graph.PasswordCredential, secret.Text, time.Time, error) {
	expires := req.Expires
	leaveNote := func(start time.Time) error {
		note.Starts = append(note.Starts, start)
		return m.Registry.Update(ctx, func(s *State) error { s.note(*note); return nil })
	}
	for {
		m.progress("asking Graph for a client secret")
		cred, text, err := m.Graph.AddPassword(ctx, note.ClientID, graph.NewPassword{DisplayName: req.Name, End: expires, BeforeSend: leaveNote})
		if err == nil {
			if cred.End.IsZero() {
				cred.End = expires
			}
			if expires != req.Expires {
				m.warn("the tenant's policy does not allow %s: this app password expires on %s",
					Days(req.Expires.Sub(m.now())), cred.End.Local().Format("2 January 2006"))
			}
			return cred, text, cred.End, nil
		}
		if _, ambiguous := errors.AsType[*graph.AmbiguousError](err); ambiguous {
			return cred, text, expires, err
		}
		ge, ok := errors.AsType[*graph.Error](err)
		if !ok || !(ge.PolicyForbidsSecrets() || ge.PolicyLifetime()) {
			return cred, text, expires, err
		}
		policy := &PolicyError{ForbidsSecrets: ge.PolicyForbidsSecrets(), Asked: expires.Sub(m.now()).Round(time.Minute), Err: err}
		if policy.ForbidsSecrets {
			return cred, text, expires, policy
		}
		if limit, ok := m.lifetimeLimit(ctx); ok {
			policy.Max = limit
		}
		shorter := nextShorter(policy.Asked, policy.Max)
		policy.Shorter = shorter
		if req.ExpiresAsked || shorter == 0 {
			return cred, text, expires, policy
		}
		expires = m.now().UTC().Truncate(time.Second).Add(shorter)
		note.Starts = nil // refused: nothing was made
	}
}

// lifetimeLimit reads the longest life the tenant's policy allows, where the
// token may read policies.
func (m *Manager) lifetimeLimit(ctx context.Context) (time.Duration, bool) {
	if m.Policies == nil {
		return 0, false
	}
	p, err := m.Policies.AppManagementPolicy(ctx)
	if err != nil || p.MaxLifetime <= 0 {
		return 0, false
	}
	return p.MaxLifetime, true
}

// nextShorter is the next life to try after asked was refused: the policy's
// maximum where it is known and shorter, else the next of the usual ones,
// since an application's own policy may be stricter than the tenant's and can
// often not be read. 0 means there is none.
func nextShorter(asked, limit time.Duration) time.Duration {
	// A minute short of the limit: Entra counts from its own clock.
	if limit -= time.Minute; limit > 0 && limit < asked-2*time.Minute {
		return limit
	}
	for _, days := range []int{90, 60, 30, 14, 7, 1} {
		if d := time.Duration(days)*24*time.Hour - time.Minute; d < asked-2*time.Minute {
			return d
		}
	}
	return 0
}

// undo removes what was made before err stopped it.
func (m *Manager) undo(ctx context.Context, note Pending, keyID string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	m.progress("undoing")
	settled, uerr := m.removeCredential(ctx, note.ClientID, keyID, note.Since, nil)
	if uerr != nil {
		return &LeftBehindError{Name: note.Name, KeyIDs: []string{keyID}, Cause: err, Undo: uerr}
	}
	// The secret opens nothing any more; an item that cannot be deleted now
	// is deleted by the next create, which still finds the note.
	if kerr := m.deleteItem(ctx, note.Keychain, keyID); kerr != nil {
		return err
	}
	rerr := m.Registry.Update(ctx, func(s *State) error {
		if s.withdraw(keyID); settled {
			s.forget(note)
		}
		return nil
	})
	return errors.Join(err, rerr)
}

// afterFailedAdd keeps the note where a credential may have been left, and
// names it.
func (m *Manager) afterFailedAdd(ctx context.Context, note Pending, err error) error {
	if amb, ok := errors.AsType[*graph.AmbiguousError](err); ok {
		return &LeftBehindError{Name: note.Name, KeyIDs: amb.KeyIDs, Cause: err, Undo: amb.CleanUp}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return errors.Join(err, m.Registry.Update(ctx, func(s *State) error { s.forget(note); return nil }))
}
