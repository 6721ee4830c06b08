package apppassword

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// another profile on the fixture's machine.
func (f *fixture) profile(name string) *Manager {
	m := *f.Manager
	m.Profile.Name = name
	return &m
}

// An application that two profiles name is read by the second where the first
// cannot, and what is on it can be revoked then.
func TestFleetReadsByWhoCan(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	broken := f.profile("a")
	broken.Graph = &graph.Client{BaseURL: f.Graph.BaseURL}
	broken.Graph.Token = func(context.Context) (secret.Text, error) { return secret.Text{}, errors.New("not signed in") }
	fleet := Fleet{Managers: []*Manager{broken, f.Manager}}
	entries, errs := fleet.List(t.Context())
	if len(errs) != 0 || len(entries) != 1 || entries[0].ID != c.Record.ID || !entries[0].Remote {
		t.Fatalf("%v, %v", entries, errs)
	}
	fleet.Revoke(t.Context(), entries, func(out []Outcome) {
		for _, o := range out {
			if o.Err != nil {
				t.Error(o.Err)
			}
		}
	})
	f.consistent(t, 0)

	// Where nobody can, each profile says why.
	fleet = Fleet{Managers: []*Manager{broken}}
	if entries, errs := fleet.List(t.Context()); len(entries) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "not signed in") {
		t.Errorf("%v, %v", entries, errs)
	}
	other := *broken
	other.Profile.Name = "b"
	fleet = Fleet{Managers: []*Manager{broken, &other}}
	_, errs = fleet.List(t.Context())
	var of []string
	for _, err := range errs {
		if e, ok := errors.AsType[*ProfileError](err); ok {
			of = append(of, e.Profile)
		}
	}
	if strings.Join(of, " ") != "a b" {
		t.Errorf("%v", errs)
	}
}

// Nothing is begun once the command has ended, and each one says so.
func TestFleetRevokeEnded(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	entries, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fleet := Fleet{Managers: []*Manager{f.Manager}}
	told := 0
	fleet.Revoke(ctx, entries, func(out []Outcome) {
		for _, o := range out {
			told++
			if _, ok := errors.AsType[*NotTriedError](o.Err); !ok || !errors.Is(o.Err, context.Canceled) {
				t.Errorf("%v", o.Err)
			}
		}
	})
	if told != 1 || len(f.sandbox.Removals()) != 0 {
		t.Errorf("told %d times, %v removals", told, f.sandbox.Removals())
	}
	f.consistent(t, 1)
}

// What Graph does not show yet has not gone.
func TestFleetGone(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	fleet := Fleet{Managers: []*Manager{f.Manager}}
	e := Entry{Record: c.Record, Status: Revoked}
	if fleet.Gone(t.Context(), e) {
		t.Error("Entra accepts it still")
	}
	f.sandbox.RemoveCredential(e.ID)
	if !fleet.Gone(t.Context(), e) {
		t.Error("Entra refuses it")
	}
	if e.Verified = false; fleet.Gone(t.Context(), e) {
		t.Error("Entra may not have it yet")
	}
	if e.Created = time.Now().Add(-time.Hour); !fleet.Gone(t.Context(), e) {
		t.Error("that is long enough for Graph to show it")
	}
}

// A profile whose client_id was changed reads its former application. What is of
// another profile there is held on this machine, and no orphan.
func TestFleetKnowsWhatOthersHold(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"mine", "theirs"} {
		if _, err := f.Create(t.Context(), f.request(name)); err != nil {
			t.Fatal(err)
		}
	}
	foreign, _, err := f.Graph.AddPassword(t.Context(), f.Profile.ClientID, graph.NewPassword{DisplayName: "foreign", End: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	moved := f.profile("moved")
	moved.Profile.ClientID = f.sandbox.MailApps()[1]
	err = f.Registry.Update(t.Context(), func(s *State) error {
		s.AppPasswords[0].Profile = "moved"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := moved.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, string(e.Status)+" "+e.Name)
	}
	if got := strings.Join(names, ", "); got != "active mine, remote-only foreign" {
		t.Errorf("%s (%s)", got, foreign.KeyID)
	}
}
