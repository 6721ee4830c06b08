package apppassword

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/graph"
)

// Match finds among entries the one with that id or name. A name is compared
// without regard to case. Errors: [*NotFoundError], [*SeveralError].
func Match(entries []Entry, arg string) (Entry, error) {
	found, err := MatchAll(entries, arg)
	switch {
	case err != nil:
		return Entry{}, err
	case len(found) > 1:
		return Entry{}, &SeveralError{Name: arg, Entries: found}
	}
	return found[0], nil
}

// MatchAll is Match for all credentials of that name.
func MatchAll(entries []Entry, arg string) ([]Entry, error) {
	arg = strings.TrimSpace(arg) // as create does
	var found []Entry
	for _, e := range entries {
		if strings.EqualFold(e.ID, arg) {
			return []Entry{e}, nil
		}
		if e.Name != "" && sameName(e.Name, arg) {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, &NotFoundError{Arg: arg}
	}
	return found, nil
}

// Revoke takes the credential off the application, sees that it is gone, and
// then removes the keychain item and the registry entry. It may be repeated
// after any interruption. It needs neither keychain nor registry for an entry
// that this machine does not hold, and no Graph for what is on this machine
// alone ([Record.Local]). Errors: those of graph while the credential may still be there;
// [*HalfRevokedError] when only the keychain item or the registry entry is left.
func (m *Manager) Revoke(ctx context.Context, e Entry) error {
	m.progress("revoking %s", displayName(e))
	e, err := m.asItIs(ctx, e)
	if err != nil {
		return err
	}
	if e.Local() {
		return m.revokeLocal(ctx, e)
	}
	if e.Status == RemoteOnly {
		settled, err := m.removeCredential(ctx, e.ClientID, e.ID, e.Created, nil)
		if err == nil && !settled {
			err = &graph.UnconfirmedError{AppID: e.ClientID, KeyID: e.ID}
		}
		return err
	}
	if !e.Remote && !m.reaches(e.Tenant, e.ClientID) {
		return &OtherTenantError{Name: e.Name, Tenant: e.Tenant, Profile: m.Profile.Name, ProfileTenant: m.Profile.Tenant}
	}
	// The mark shuts the mail client out at the gateway, before Graph's reads
	// agree and even if the keychain makes trouble.
	var marked error
	mark := func() {
		marked = m.settle(ctx, func(s *State) { s.mark(e.ID, m.now()) })
	}
	settled := true
	if e.Remote || e.Revoked.IsZero() { // else Graph had taken it, and shows it no more
		if settled, err = m.removeCredential(ctx, e.ClientID, e.ID, e.made(), mark); err != nil {
			return err
		}
	}
	if mark(); marked != nil {
		return &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: marked}
	}
	if now, rotated := m.rotated(e.ID); rotated {
		return m.Revoke(ctx, now)
	}
	oldSettled := true
	if e.Previous != nil {
		if oldSettled, err = m.removePrevious(ctx, e.Record); err != nil {
			return &HalfRevokedError{Name: e.Name, Left: InEntra, Err: err}
		}
	}
	for _, id := range e.ids() {
		if err := m.deleteItem(ctx, e.Keychain, id); err != nil {
			return &HalfRevokedError{Name: e.Name, Left: InKeychain, Err: err}
		}
	}
	err = m.settle(ctx, func(s *State) {
		if s.remove(e.ID); !settled {
			s.note(m.watchFor(e.Record))
		}
		if !oldSettled {
			s.note(m.watchFor(e.previous()))
		}
	})
	if err != nil {
		return &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: err}
	}
	return nil
}

// asItIs is the entry as the registry has it now, with its old password shut out
// where a rotation has left one: it may have been rotated since it was listed,
// while a person was asked.
func (m *Manager) asItIs(ctx context.Context, e Entry) (Entry, error) {
	if e.Status == RemoteOnly {
		return e, nil
	}
	s, err := m.Registry.Load()
	if err != nil {
		return e, nil // it keeps nobody from revoking in Entra
	}
	now := s.holder(e.ID)
	switch {
	case now != nil && now.ID != e.ID:
		e.Remote = true // whatever was listed was listed of another id
		fallthrough
	case now != nil:
		e.Record = *now
	case slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.Profile == e.Profile && sameName(r.Name, e.Name) }):
		return e, fmt.Errorf("%s was changed meanwhile; look at it again, and run the command again", displayName(e))
	}
	if e.Previous != nil && e.Previous.Ended.IsZero() {
		// One that cannot be written will not take the mark either, which is told.
		_ = m.settle(ctx, func(s *State) { s.end(e.Previous.ID, m.now()) })
	}
	return e, nil
}

// rotated is the app password as it is where it was rotated while id was being
// revoked.
func (m *Manager) rotated(id string) (Entry, bool) {
	s, err := m.Registry.Load()
	if err != nil {
		return Entry{}, false // what comes next needs it, and says so
	}
	now := s.holder(id)
	if now == nil || now.ID == id {
		return Entry{}, false
	}
	return Entry{Record: *now, Status: now.LocalStatus(m.now()), Remote: true}, true
}

// settle writes to the registry what Graph has done already: an interrupt must
// not keep it from being written.
func (m *Manager) settle(ctx context.Context, change func(*State)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return m.Registry.Update(ctx, func(s *State) error { change(s); return nil })
}

func displayName(e Entry) string {
	if e.Name == "" {
		return e.ID
	}
	return fmt.Sprintf("%q", e.Name)
}

// OtherTenantError tells that an app password was made in another tenant than
// the profile names now, so that this profile cannot reach it.
type OtherTenantError struct{ Name, Tenant, Profile, ProfileTenant string }

// Error names both tenants.
func (e *OtherTenantError) Error() string {
	return fmt.Sprintf("%q was made in tenant %s, but profile %s now names tenant %s", e.Name, e.Tenant, e.Profile, e.ProfileTenant)
}
