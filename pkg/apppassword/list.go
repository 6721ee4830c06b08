package apppassword

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"
)

// Entry is an app password as list shows it: the record of this machine, or
// what Graph tells of a credential this machine does not know, with its
// status.
type Entry struct {
	Record
	Status  Status
	Remote  bool // Graph shows the credential
	LastUse LastUse
	// PreviousGone tells that Graph no longer has what a rotation has replaced:
	// it was removed elsewhere.
	PreviousGone bool

	// RemoteUse is the last sign-in with the credential behind it, by Graph's
	// report; zero: unknown, or not asked for. See [Fleet.RemoteUse].
	RemoteUse time.Time
}

// InOverlap tells whether two passwords are good: the one that a rotation has
// replaced, and the new one.
func (e Entry) InOverlap(now time.Time) bool {
	return e.overlap() && !e.PreviousGone && !e.Previous.Over(now)
}

// Unfinished tells whether something is left of what a rotation has replaced,
// although its overlap is over; what, [Manager.FinishRotations] removes.
func (e Entry) Unfinished(now time.Time) bool { return e.overlap() && e.Previous.Over(now) }

// Local lists the profile's app passwords of this machine, by the registry
// alone, with their last use as far as the gateway has written it down.
func (m *Manager) Local() ([]Entry, error) {
	f := Fleet{Managers: []*Manager{m}}
	return f.Local()
}

// rereads is how often List looks again before it shows a young record as
// revoked: Graph's reads lag behind its writes and disagree for a while. What
// is shown decides nothing: Revoke asks Graph for itself.
const rereads = 3

// List joins the registry with the password credentials of the application.
// A profile whose client_id was changed still finds the credentials of its
// former application. Graph is asked only where there can be one: not for a
// profile whose app passwords, and those it would make, are all local. The order
// is the registry's, then Graph's.
func (m *Manager) List(ctx context.Context) ([]Entry, error) {
	f := Fleet{Managers: []*Manager{m}}
	entries, errs := f.List(ctx)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return entries, nil
}

// asksGraph tells whether Graph may know something of these, or of others that
// the profile has made elsewhere.
func (m *Manager) asksGraph(local []Entry) bool {
	return cmp.Or(m.Profile.Backing, BackingSecret) == BackingSecret ||
		slices.ContainsFunc(local, func(e Entry) bool { return e.Backing == BackingSecret })
}

// expected tells whether Graph, where it could be read, should show e.
func expected(e Entry) bool { return e.Status != Revoked && e.Backing == BackingSecret }

// pause waits between two reads that are to be compared.
func (m *Manager) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(cmp.Or(m.ReadPause, 400*time.Millisecond)):
		return nil
	}
}

// unknown are the credentials that this machine does not know.
func (a *application) unknown(known map[string]bool) []Entry {
	var out []Entry
	for _, c := range a.creds {
		if a.reader == nil || known[c.KeyID] {
			continue
		}
		p := a.reader.Profile
		out = append(out, Entry{Status: RemoteOnly, Remote: true, Record: Record{
			ID: c.KeyID, Name: c.DisplayName, Profile: p.Name, Tenant: p.Tenant, ClientID: a.id,
			Mailboxes: []string{}, Allow: []string{}, Networks: []netip.Prefix{}, Backing: BackingSecret,
			Hint: c.Hint, Created: c.Start, Expires: c.End,
		}})
	}
	return out
}
