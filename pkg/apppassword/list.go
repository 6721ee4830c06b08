package apppassword

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/graph"
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
	s, err := m.Registry.Load()
	if err != nil {
		return nil, err
	}
	// Last uses that cannot be read are missing; the gateway complains of them.
	used, _ := Usage{Dir: m.Registry.Dir}.Load()
	var out []Entry
	for _, r := range m.records(s) {
		out = append(out, Entry{Record: r, Status: r.LocalStatus(m.now()), LastUse: used.LastUse[r.ID]})
	}
	return out, nil
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
	local, err := m.Local()
	if damaged, ok := errors.AsType[*DamagedError](err); ok && m.asksGraph(nil) {
		// Whoever has to revoke must not be kept from it.
		m.warn("%v; it is left out", damaged)
	} else if err != nil {
		return nil, err
	}
	if !m.asksGraph(local) {
		return local, nil
	}
	m.progress("reading the application's credentials")
	remote, err := m.remote(ctx, local)
	if err != nil {
		return nil, err
	}
	youngMissing := func(e Entry) bool {
		return remote.expected(e) && !remote.has(e) && m.now().Sub(e.Created) < replication
	}
	for range rereads {
		if !slices.ContainsFunc(local, youngMissing) {
			break
		}
		if err := m.pause(ctx); err != nil {
			return nil, err
		}
		again, err := m.remote(ctx, local)
		if err != nil {
			return nil, err
		}
		remote.merge(again)
	}
	for i, e := range local {
		local[i].Remote = remote.has(e)
		if remote.expected(e) && !local[i].Remote {
			local[i].Status = Revoked
		}
		if e.Previous != nil {
			was := Entry{Record: e.previous(), Status: Active}
			local[i].PreviousGone = remote.expected(was) && !remote.has(was)
		}
	}
	return append(local, remote.unknown(m, local)...), nil
}

// asksGraph tells whether Graph may know something of these, or of others that
// the profile has made elsewhere.
func (m *Manager) asksGraph(local []Entry) bool {
	return cmp.Or(m.Profile.Backing, BackingSecret) == BackingSecret ||
		slices.ContainsFunc(local, func(e Entry) bool { return e.Backing == BackingSecret })
}

// expected tells whether Graph, as it was read, should show e.
func (rc remoteCredentials) expected(e Entry) bool {
	_, read := rc.byApp[strings.ToLower(e.ClientID)]
	return read && e.Status != Revoked && e.Backing == BackingSecret
}

// pause waits between two reads that are to be compared.
func (m *Manager) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(cmp.Or(m.ReadPause, 400*time.Millisecond)):
		return nil
	}
}

// remoteCredentials are what Graph shows, by client id in lower case.
type remoteCredentials struct {
	apps  []string // in the order they were read
	byApp map[string][]graph.PasswordCredential
}

// remote reads the profile's application and those of the records. An
// application that the profile no longer names and that cannot be read is
// warned of: what belongs to it is shown as the registry has it.
func (m *Manager) remote(ctx context.Context, local []Entry) (remoteCredentials, error) {
	rc := remoteCredentials{byApp: map[string][]graph.PasswordCredential{}}
	own := strings.ToLower(m.Profile.ClientID)
	apps := []string{own}
	for _, e := range local {
		if id := strings.ToLower(e.ClientID); e.Backing == BackingSecret && m.reaches(e.Tenant, e.ClientID) && !slices.Contains(apps, id) {
			apps = append(apps, id)
		}
	}
	for _, id := range apps {
		app, err := m.Graph.Application(ctx, id)
		if ge, ok := errors.AsType[*graph.Error](err); ok && ge.IsNotFound() && id != own {
			err = nil // deleted, with all its credentials
		}
		switch {
		case err != nil && (id == own || ctx.Err() != nil):
			return rc, err
		case err != nil:
			m.warn("the application %s, which this profile named before, cannot be read: %v", id, err)
			continue
		}
		rc.apps = append(rc.apps, id)
		rc.byApp[id] = app.PasswordCredentials
	}
	return rc, nil
}

func (rc remoteCredentials) has(e Entry) bool {
	return slices.ContainsFunc(rc.byApp[strings.ToLower(e.ClientID)], func(c graph.PasswordCredential) bool { return c.KeyID == e.ID })
}

func (rc remoteCredentials) merge(other remoteCredentials) {
	for app, creds := range other.byApp {
		for _, c := range creds {
			if !rc.has(Entry{Record: Record{ID: c.KeyID, ClientID: app}}) {
				rc.byApp[app] = append(rc.byApp[app], c)
			}
		}
	}
}

// unknown are the credentials that no local entry stands for.
func (rc remoteCredentials) unknown(m *Manager, local []Entry) []Entry {
	var out []Entry
	for _, app := range rc.apps {
		for _, c := range rc.byApp[app] {
			if slices.ContainsFunc(local, func(e Entry) bool { return e.is(c.KeyID) }) {
				continue
			}
			out = append(out, Entry{Status: RemoteOnly, Remote: true, Record: Record{
				ID: c.KeyID, Name: c.DisplayName, Profile: m.Profile.Name, Tenant: m.Profile.Tenant, ClientID: app,
				Mailboxes: []string{}, Allow: []string{}, Networks: []netip.Prefix{}, Backing: BackingSecret,
				Hint: c.Hint, Created: c.Start, Expires: c.End,
			}})
		}
	}
	return out
}
