package apppassword

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/o365pw/o365pw/pkg/graph"
)

const (
	// atOnce is how many applications are read, or written to, at the same time.
	// Graph allows a program 350 reads a second and 20 writes a second on average
	// in the smallest tenant; eight that wait for each answer stay below both
	// (https://learn.microsoft.com/graph/throttling-limits).
	atOnce = 8
	// batch is how many are revoked between two writes of the registry: few, so
	// that the gateway soon hears of them, and a kill leaves little to do again.
	batch = 20
)

// Fleet is the managers of several profiles with one registry, worked on
// together: each application is read once, also where profiles share it, several
// at the same time; and it is written to by one request after the other.
type Fleet struct {
	Managers []*Manager // at least one

	readers map[string]*Manager // who has read an application, by its client id
}

// ProfileError tells which of several profiles something is about.
type ProfileError struct {
	Profile string
	Err     error
}

// Error names the profile.
func (e *ProfileError) Error() string { return fmt.Sprintf("profile %s: %v", e.Profile, e.Err) }

// Unwrap gives the cause.
func (e *ProfileError) Unwrap() error { return e.Err }

// owner is the manager that a record belongs to; nil where it belongs to none.
func (f *Fleet) owner(r Record) *Manager {
	for _, m := range f.Managers {
		if r.Profile == m.Profile.Name {
			return m
		}
	}
	for _, m := range f.Managers {
		if strings.EqualFold(r.ClientID, m.Profile.ClientID) {
			return m
		}
	}
	return nil
}

// holder is the manager that an entry is revoked with: the one that has seen its
// application, where one has.
func (f *Fleet) holder(e Entry) *Manager {
	m := f.owner(e.Record)
	if !e.Local() || m == nil {
		if r := f.readers[strings.ToLower(e.ClientID)]; r != nil {
			return r
		}
	}
	if m == nil {
		return f.Managers[0]
	}
	return m
}

// Local is [Manager.Local] for all profiles.
func (f *Fleet) Local() ([]Entry, error) {
	entries, _, err := f.local()
	return entries, err
}

// local also gives all ids of the registry: what other profiles hold is no
// stranger's.
func (f *Fleet) local() (out []Entry, known map[string]bool, err error) {
	registry, now := f.Managers[0].Registry, f.Managers[0].now()
	s, err := registry.Load()
	if err != nil {
		return nil, nil, err
	}
	// Last uses that cannot be read are missing; the gateway complains of them.
	used, _ := Usage(registry).Load()
	for _, r := range s.AppPasswords {
		if f.owner(r) != nil {
			out = append(out, Entry{Record: r, Status: r.LocalStatus(now), LastUse: used.LastUse[r.ID]})
		}
	}
	return out, s.ids(), nil
}

// List is [Manager.List] for all profiles. What could not be read is left out,
// and told by errors; where there are several profiles, each is a
// [*ProfileError].
func (f *Fleet) List(ctx context.Context) ([]Entry, []error) {
	local, known, err := f.local()
	if damaged, ok := errors.AsType[*DamagedError](err); ok && slices.ContainsFunc(f.Managers, func(m *Manager) bool { return m.asksGraph(nil) }) {
		// Whoever has to revoke must not be kept from it.
		f.Managers[0].warn("%v; it is left out", damaged)
	} else if err != nil {
		return nil, []error{err}
	}
	apps := f.applications(local)
	switch len(apps) {
	case 0:
		return local, nil
	case 1:
		f.Managers[0].progress("reading the application's credentials")
	default:
		f.Managers[0].progress("reading the credentials of %d applications", len(apps))
	}
	each(apps, func(app *application) { app.read(ctx, local) })

	f.readers = map[string]*Manager{}
	byID := map[string]*application{}
	var errs []error
	for _, app := range apps {
		byID[app.id] = app
		switch {
		case app.reader != nil:
			f.readers[app.id] = app.reader
		case app.own == 0 && ctx.Err() == nil:
			app.readers[0].warn("the application %s, which %s named before, cannot be read: %v", app.id, f.thisProfile(app.readers[0]), app.errs[0])
		default:
			for i, err := range app.errs {
				if len(f.Managers) > 1 {
					err = &ProfileError{Profile: app.readers[i].Profile.Name, Err: err}
				}
				errs = append(errs, err)
			}
		}
	}
	out := slices.DeleteFunc(local, func(e Entry) bool {
		app := byID[strings.ToLower(e.ClientID)]
		return e.Backing == BackingSecret && app != nil && app.reader == nil && app.own > 0
	})
	for i, e := range out {
		app := byID[strings.ToLower(e.ClientID)]
		if app == nil || app.reader == nil {
			continue
		}
		out[i].Remote = app.has(e.ID)
		if expected(e) && !out[i].Remote {
			out[i].Status = Revoked
		}
		if e.Previous != nil {
			out[i].PreviousGone = expected(Entry{Record: e.previous(), Status: Active}) && !app.has(e.Previous.ID)
		}
	}
	for _, app := range apps {
		out = append(out, app.unknown(known)...)
	}
	return out, errs
}

func (f *Fleet) thisProfile(m *Manager) string {
	if len(f.Managers) > 1 {
		return "profile " + m.Profile.Name
	}
	return "this profile"
}

// applications are those to read: of the profiles first, then those that they
// have named before. Each is there once.
func (f *Fleet) applications(local []Entry) []*application {
	var apps []*application
	add := func(m *Manager, clientID string, own bool) {
		id := strings.ToLower(clientID)
		i := slices.IndexFunc(apps, func(a *application) bool { return a.id == id })
		if i < 0 {
			i, apps = len(apps), append(apps, &application{id: id})
		}
		if app := apps[i]; !slices.Contains(app.readers, m) {
			app.readers = append(app.readers, m)
			if own {
				app.own++
			}
		}
	}
	byOwner := map[*Manager][]Entry{}
	for _, e := range local {
		m := f.owner(e.Record)
		byOwner[m] = append(byOwner[m], e)
	}
	asking := slices.DeleteFunc(slices.Clone(f.Managers), func(m *Manager) bool { return !m.asksGraph(byOwner[m]) })
	for _, m := range asking {
		add(m, m.Profile.ClientID, true)
	}
	for _, m := range asking {
		for _, e := range byOwner[m] {
			if e.Backing == BackingSecret && m.reaches(e.Tenant, e.ClientID) {
				add(m, e.ClientID, false)
			}
		}
	}
	return apps
}

// each calls do for all items, for atOnce of them at the same time.
func each[T any](items []T, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, it := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(it)
		})
	}
	wg.Wait()
}

// application is one that is read, with what Graph shows of it.
type application struct {
	id      string     // client id, in lower case
	readers []*Manager // who may read it; the first own of them name it as theirs
	own     int

	reader *Manager // who has; nil: nobody could
	errs   []error  // of the readers, in their order
	creds  []graph.PasswordCredential
}

// read asks by each of the readers, until one has an answer. It looks again
// while a young record is missing.
func (a *application) read(ctx context.Context, local []Entry) {
	for _, m := range a.readers {
		app, err := m.Graph.Application(ctx, a.id)
		if ge, ok := errors.AsType[*graph.Error](err); ok && ge.IsNotFound() && a.own == 0 {
			err = nil // deleted, with all its credentials
		}
		a.creds = app.PasswordCredentials
		if err == nil {
			err = a.readAgain(ctx, m, local)
		}
		if err == nil {
			a.reader = m
			return
		}
		if a.errs = append(a.errs, err); ctx.Err() != nil {
			return
		}
	}
}

func (a *application) readAgain(ctx context.Context, m *Manager, local []Entry) error {
	youngMissing := func(e Entry) bool {
		return strings.EqualFold(e.ClientID, a.id) && expected(e) && !a.has(e.ID) && m.now().Sub(e.Created) < replication
	}
	for range rereads {
		if !slices.ContainsFunc(local, youngMissing) {
			return nil
		}
		if err := m.pause(ctx); err != nil {
			return err
		}
		again, err := m.Graph.Application(ctx, a.id)
		if err != nil {
			return err
		}
		for _, c := range again.PasswordCredentials {
			if !a.has(c.KeyID) {
				a.creds = append(a.creds, c)
			}
		}
	}
	return nil
}

func (a *application) has(keyID string) bool {
	return slices.ContainsFunc(a.creds, func(c graph.PasswordCredential) bool { return c.KeyID == keyID })
}

// Outcome is what became of an entry that was to be revoked.
type Outcome struct {
	Entry Entry
	Err   error // as of [Manager.Revoke]; a [*NotTriedError] where ctx ended before
}

// Revoke is [Manager.Revoke] for several entries, of which List has given each
// that is not on this machine alone. A failure ends nothing but that one. tell
// gets what has become of them, some at a time, in the order in which it is
// known; its calls do not overlap.
func (f *Fleet) Revoke(ctx context.Context, entries []Entry, tell func([]Outcome)) {
	type group struct {
		m       *Manager
		app     string
		entries []Entry
	}
	var groups []*group
	for _, e := range entries {
		m, app := f.holder(e), strings.ToLower(e.ClientID)
		if e.Local() {
			app = "" // nobody but this machine knows of it
		}
		i := slices.IndexFunc(groups, func(g *group) bool { return g.m == m && g.app == app })
		if i < 0 {
			i, groups = len(groups), append(groups, &group{m: m, app: app})
		}
		groups[i].entries = append(groups[i].entries, e)
	}
	var mu sync.Mutex
	each(groups, func(g *group) {
		for some := range slices.Chunk(g.entries, batch) {
			var errs []error
			if ctx.Err() == nil {
				errs = g.m.revoke(ctx, some)
			}
			var out []Outcome
			for i, e := range some {
				o := Outcome{Entry: e, Err: &NotTriedError{Err: ctx.Err()}}
				if errs != nil {
					o.Err = errs[i]
				}
				out = append(out, o)
			}
			mu.Lock()
			tell(out)
			mu.Unlock()
		}
	})
}

// NotTriedError tells that nothing was done, since the command ended before.
type NotTriedError struct{ Err error }

// Error says why.
func (e *NotTriedError) Error() string { return fmt.Sprintf("not tried: %v", e.Err) }

// Unwrap gives what ended it.
func (e *NotTriedError) Unwrap() error { return e.Err }

// Recover is [Manager.Recover] for all profiles; localOnly as
// [Manager.RecoverLocal].
func (f *Fleet) Recover(ctx context.Context, localOnly bool) error {
	noting, err := f.noting()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range noting {
		if err := m.recover(ctx, localOnly); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Interrupted is [Manager.Interrupted] for all profiles.
func (f *Fleet) Interrupted() ([]Pending, error) {
	noting, err := f.noting()
	if err != nil {
		return nil, err
	}
	var notes []Pending
	for _, m := range noting {
		n, err := m.Interrupted()
		if err != nil {
			return nil, err
		}
		notes = append(notes, n...)
	}
	return notes, nil
}

// noting are the managers that the registry has notes or ended rotations for.
func (f *Fleet) noting() ([]*Manager, error) {
	s, err := f.Managers[0].Registry.Load()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(f.Managers), func(m *Manager) bool { return len(m.notes(s)) == 0 && len(m.unfinished(s)) == 0 }), nil
}
