package apppassword

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	entries, errs := m.asTheyAre(ctx, entries)
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
	for i, e := range entries {
		switch {
		case !here(i) || marked[e.ID]:
		case e.Local():
			errs[i] = markErr
		default:
			errs[i] = &HalfRevokedError{Name: e.Name, Left: InRegistry, Err: markErr}
		}
	}
	again := m.rotatedMeanwhile(ctx, entries, errs)
	watched = append(watched, m.takeOffPrevious(ctx, entries, errs)...)
	var gone []int
	for i, e := range entries {
		if !here(i) || slices.Contains(again, i) {
			continue
		}
		if err := m.deleteItems(ctx, e.Record); err != nil {
			errs[i] = &HalfRevokedError{Name: e.Name, Left: InKeychain, Err: err}
			continue
		}
		gone = append(gone, i)
	}
	if len(gone) == 0 {
		return errs
	}
	err := m.settle(ctx, func(s *State) {
		for _, i := range gone {
			s.remove(entries[i].ID)
		}
		for _, p := range watched {
			s.note(p)
		}
	})
	for _, i := range gone {
		if err != nil {
			errs[i] = &HalfRevokedError{Name: entries[i].Name, Left: InRegistry, Err: err}
		}
	}
	if err == nil && slices.ContainsFunc(gone, func(i int) bool { return entries[i].SignIn != "" }) {
		m.sweepSignIns(ctx)
	}
	return errs
}

func (m *Manager) deleteItems(ctx context.Context, rec Record) error {
	for _, id := range rec.ids() {
		if err := m.deleteItem(ctx, rec.Keychain, id); err != nil {
			return err
		}
	}
	return nil
}

// asTheyAre are the entries as the registry has them now, with their old
// passwords shut out where a rotation has left one: they may have been rotated
// since they were listed, while a person was asked. Those that cannot be told any
// more have an error.
func (m *Manager) asTheyAre(ctx context.Context, entries []Entry) (now []Entry, errs []error) {
	now, errs = slices.Clone(entries), make([]error, len(entries))
	s, err := m.Registry.Load()
	if err != nil {
		return now, errs // it keeps nobody from revoking in Entra
	}
	var over []string
	for i, e := range now {
		if e.Status == RemoteOnly {
			continue
		}
		r := s.holder(e.ID)
		switch {
		case r != nil && r.ID != e.ID:
			now[i].Remote = true // whatever was listed was listed of another id
			fallthrough
		case r != nil:
			now[i].Record = *r
		case s.named(e.Record):
			errs[i] = changedMeanwhile(e)
			continue
		}
		if p := now[i].Previous; p != nil && p.Ended.IsZero() {
			over = append(over, p.ID)
		}
	}
	if len(over) > 0 {
		// One that cannot be written will not take the mark either, which is told.
		_ = m.settle(ctx, func(s *State) {
			for _, id := range over {
				s.end(id, m.now())
			}
		})
	}
	return now, errs
}

func changedMeanwhile(e Entry) error {
	return fmt.Errorf("%s was changed meanwhile; look at it again, and run the command again", displayName(e))
}

// rotatedMeanwhile revokes those that were rotated while they were being revoked,
// as they are now, and tells which they are. One whose name belongs to something
// else now has an error: nothing is called revoked whose name still signs in.
func (m *Manager) rotatedMeanwhile(ctx context.Context, entries []Entry, errs []error) (which []int) {
	s, err := m.Registry.Load()
	if err != nil {
		return nil // what comes next needs it, and says so
	}
	var again []Entry
	for i, e := range entries {
		if errs[i] != nil || e.Status == RemoteOnly || s.record(e.ID) != nil {
			continue
		}
		// A rotation that replaces one that nobody has used keeps the password of
		// before that, and forgets the id.
		var now *Record
		for _, id := range e.ids() {
			now = cmp.Or(now, s.holder(id))
		}
		switch {
		case now != nil:
			which = append(which, i)
			again = append(again, Entry{Record: *now, Status: now.LocalStatus(m.now()), Remote: true})
		case s.named(e.Record):
			errs[i] = changedMeanwhile(e)
		}
	}
	if len(again) > 0 {
		for n, err := range m.revoke(ctx, again) {
			errs[which[n]] = err
		}
	}
	return which
}

// takeOffPrevious removes from their application what rotations have left, and
// gives notes as takeOff does.
func (m *Manager) takeOffPrevious(ctx context.Context, entries []Entry, errs []error) []Pending {
	var olds []Entry
	var of []int
	for i, e := range entries {
		if errs[i] == nil && e.Previous != nil && !e.Local() {
			olds, of = append(olds, Entry{Record: e.previous(), Status: Active, Remote: true}), append(of, i)
		}
	}
	oldErrs := make([]error, len(olds))
	watched := m.takeOff(ctx, olds, oldErrs, func([]string) {})
	for n, err := range oldErrs {
		if left, ok := errors.AsType[*NotTriedError](err); ok {
			err = left.Err // of the app password something was done
		}
		if err != nil {
			errs[of[n]] = &HalfRevokedError{Name: olds[n].Name, Left: InEntra, Err: err}
		}
	}
	return watched
}

// takeOff removes the credentials from their application, and gives notes of
// those that may yet turn up. mark is told of those that Graph has taken and
// this machine knows. Those that have an error are left out.
func (m *Manager) takeOff(ctx context.Context, entries []Entry, errs []error, mark func(ids []string)) (watched []Pending) {
	made, index := map[string]time.Time{}, map[string][]int{} // an orphan may be what a rotation has made meanwhile
	var ids []string
	for i, e := range entries {
		remoteOnly := e.Status == RemoteOnly
		switch {
		case e.Local() || errs[i] != nil:
		case !remoteOnly && !e.Remote && !m.reaches(e.Tenant, e.ClientID):
			errs[i] = &OtherTenantError{Name: e.Name, Tenant: e.Tenant, Profile: m.Profile.Name, ProfileTenant: m.Profile.Tenant}
		case remoteOnly || e.Remote || e.Revoked.IsZero() || m.now().Sub(e.made()) < replication: // else Graph had taken it, and shows it no more
			id := strings.ToLower(e.ID) // as graph tells of it
			since := e.made()
			if remoteOnly {
				since = e.Created
			}
			if len(index[id]) == 0 {
				ids = append(ids, id)
			}
			if index[id] = append(index[id], i); since.After(made[id]) || len(index[id]) == 1 {
				made[id] = since
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	settled, failed := m.removeCredentials(ctx, entries[index[ids[0]][0]].ClientID, made, ids, func(taken []string) {
		var here []string
		for _, id := range taken {
			for _, i := range index[id] {
				if e := entries[i]; e.Status != RemoteOnly {
					here = append(here, e.ID)
				}
			}
		}
		mark(here)
	})
	for n, id := range ids {
		_, asked := errors.AsType[*graph.Error](failed[n])
		_, unconfirmed := errors.AsType[*graph.UnconfirmedError](failed[n])
		for _, i := range index[id] {
			e, err := entries[i], failed[n]
			switch {
			case err != nil && ctx.Err() != nil && !asked && !unconfirmed:
				err = &NotTriedError{Err: ctx.Err()}
			case err == nil && !settled[id] && e.Status == RemoteOnly:
				err = &graph.UnconfirmedError{AppID: e.ClientID, KeyID: e.ID}
			case err == nil && !settled[id]:
				watched = append(watched, m.watchFor(e.Record))
			}
			errs[i] = err
		}
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
