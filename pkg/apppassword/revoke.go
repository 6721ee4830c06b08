package apppassword

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

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
	return m.revoke(ctx, []Entry{e})[0]
}

// revoke is Revoke for several entries, which are all of one application, or all
// on this machine alone. The errors are in their order; a [*NotTriedError] is of
// those that the end of ctx came before.
func (m *Manager) revoke(ctx context.Context, entries []Entry) []error {
	errs := make([]error, len(entries))
	marked := map[string]bool{}
	var markErr error
	// The mark shuts the mail client out at the gateway, before Graph's reads
	// agree and even if the keychain makes trouble.
	mark := func(ids []string) {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return marked[id] })
		if len(ids) == 0 {
			return
		}
		if markErr = m.settle(ctx, func(s *State) { s.mark(ids, m.now()) }); markErr == nil {
			for _, id := range ids {
				marked[id] = true
			}
		}
	}
	watched := m.takeOff(ctx, entries, errs, mark)

	here := func(i int) bool { return errs[i] == nil && entries[i].Status != RemoteOnly }
	var ids []string
	for i, e := range entries {
		if here(i) {
			ids = append(ids, e.ID)
		}
	}
	mark(ids)
	var gone []Entry
	for i, e := range entries {
		switch {
		case !here(i):
		case !marked[e.ID] && e.Local():
			errs[i] = markErr
		case !marked[e.ID]:
			errs[i] = &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: markErr}
		default:
			if err := m.deleteItem(ctx, e.Keychain, e.ID); err != nil {
				errs[i] = &HalfRevokedError{Name: e.Name, Left: InKeychain, Err: err}
				continue
			}
			gone = append(gone, e)
		}
	}
	if len(gone) == 0 {
		return errs
	}
	err := m.settle(ctx, func(s *State) {
		for _, e := range gone {
			s.remove(e.ID)
		}
		for _, p := range watched {
			s.note(p)
		}
	})
	for i, e := range entries {
		if err != nil && here(i) {
			errs[i] = &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: err}
		}
	}
	if err == nil && slices.ContainsFunc(gone, func(e Entry) bool { return e.SignIn != "" }) {
		m.sweepSignIns(ctx)
	}
	return errs
}

// takeOff removes the credentials from their application, and gives notes of
// those that may yet turn up. mark is told of those that Graph has taken and
// this machine knows.
func (m *Manager) takeOff(ctx context.Context, entries []Entry, errs []error, mark func(ids []string)) (watched []Pending) {
	made, index := map[string]time.Time{}, map[string]int{}
	var ids []string
	for i, e := range entries {
		remoteOnly := e.Status == RemoteOnly
		switch {
		case e.Local():
		case !remoteOnly && !e.Remote && !m.reaches(e.Tenant, e.ClientID):
			errs[i] = &OtherTenantError{Name: e.Name, Tenant: e.Tenant, Profile: m.Profile.Name, ProfileTenant: m.Profile.Tenant}
		case remoteOnly || e.Remote || e.Revoked.IsZero(): // else Graph had taken it, and shows it no more
			id := strings.ToLower(e.ID) // as graph tells of it
			ids = append(ids, id)
			index[id], made[id] = i, e.Created
			if e.Verified && !remoteOnly {
				made[id] = time.Time{} // Entra has known it: what Graph lacks is gone
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	settled, failed := m.removeCredentials(ctx, entries[index[ids[0]]].ClientID, made, ids, func(taken []string) {
		var here []string
		for _, id := range taken {
			if e := entries[index[id]]; e.Status != RemoteOnly {
				here = append(here, e.ID)
			}
		}
		mark(here)
	})
	for n, id := range ids {
		i := index[id]
		e, err := entries[i], failed[n]
		_, asked := errors.AsType[*graph.Error](err)
		_, unconfirmed := errors.AsType[*graph.UnconfirmedError](err)
		switch {
		case err != nil && ctx.Err() != nil && !asked && !unconfirmed:
			err = &NotTriedError{Err: ctx.Err()}
		case err == nil && !settled[id] && e.Status == RemoteOnly:
			err = &graph.UnconfirmedError{AppID: e.ClientID, KeyID: e.ID}
		case err == nil && !settled[id]:
			watched = append(watched, Pending{ID: uuid.NewString(), Name: e.Name, Profile: m.Profile.Name, Tenant: e.Tenant, ClientID: e.ClientID,
				Keychain: e.Keychain, Since: e.Created, KeyID: e.ID, Watched: true})
		}
		errs[i] = err
	}
	return watched
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
