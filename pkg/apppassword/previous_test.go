package apppassword

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// The mail program may keep one password for reading and another for sending.
func TestTakenOver(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		old, new string // protocols
		allow    string
		want     bool
	}{
		{"", "", "imap smtp", false},
		{"imap", "", "imap smtp", false},
		{"", "imap", "imap smtp", true},
		{"imap", "imap", "imap smtp", true},
		{"imap", "smtp", "imap smtp", false},
		{"imap smtp", "imap", "imap smtp", false},
		{"imap smtp", "smtp", "imap smtp", false},
		{"imap smtp", "smtp imap", "imap smtp", true},
		{"imap pop3 smtp", "smtp imap", "imap pop3 smtp", false},
		{"imap pop3 smtp", "smtp imap", "imap smtp", true}, // nobody can be seen where it is not allowed
		{"imap", "imap pop3", "imap pop3", true},
	} {
		seen := func(id string) map[string]time.Time {
			m := map[string]time.Time{}
			for _, p := range strings.Fields(map[string]string{"old": tc.old, "new": tc.new}[id]) {
				m[p] = now
			}
			return m
		}
		rec := Record{ID: "new", Allow: strings.Fields(tc.allow), Previous: &Previous{ID: "old"}}
		if got := rec.takenOver(seen); got != tc.want {
			t.Errorf("old over %q, new over %q, allowed %q: %v", tc.old, tc.new, tc.allow, got)
		}
	}
}

func TestEndOverlaps(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := Registry{Dir: t.TempDir()}
	rec := func(id string, until time.Time) Record {
		return Record{ID: id, Name: id, Allow: []string{"imap"}, Previous: &Previous{ID: "old-" + id, Until: until}}
	}
	revoked := rec("revoked", now.Add(-time.Hour))
	revoked.Revoked = now
	err := r.Update(t.Context(), func(s *State) error {
		s.AppPasswords = []Record{rec("goes-on", now.Add(time.Hour)), rec("over", now), rec("seen", now.Add(time.Hour)), revoked, {ID: "plain"}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := func(id string) map[string]time.Time {
		if id == "seen" {
			return map[string]time.Time{"imap": now}
		}
		return nil
	}
	ended, err := EndOverlaps(t.Context(), r, seen, now)
	if err != nil || len(ended) != 2 || ended[0].Record.ID != "over" || ended[0].Why != EndOverlap || ended[1].Record.ID != "seen" || ended[1].Why != EndTakenOver {
		t.Fatalf("%+v, %v", ended, err)
	}
	s, err := r.Load()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, true, false} {
		p := s.AppPasswords[i].Previous
		if p.Ended.Equal(now) != want || p.Ended.IsZero() == want {
			t.Errorf("%s: ended %v", s.AppPasswords[i].Name, p.Ended)
		}
	}
	if again, err := EndOverlaps(t.Context(), r, seen, now); err != nil || len(again) != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
}

func TestDamagedPrevious(t *testing.T) {
	for _, content := range []string{
		`{"version":4,"appPasswords":[{"id":"a","previous":{"id":""}}]}`,
		`{"version":4,"appPasswords":[{"id":"a","previous":{"id":"a"}}]}`,
		`{"version":4,"appPasswords":[{"id":"a","previous":{"id":"b"}},{"id":"b"}]}`,
	} {
		r := Registry{Dir: t.TempDir()}
		writeFile(t, r.Path(), content)
		_, err := r.Load()
		if _, ok := errors.AsType[*DamagedError](err); !ok {
			t.Errorf("%s: %v", content, err)
		}
	}
}

// What becomes of the old one ends no session of the new one.
func TestRevisionWithoutPrevious(t *testing.T) {
	rec := oldRecord()
	want := rec.Revision()
	rec.Previous = &Previous{ID: "b"}
	if rec.Revision() != want || rec.Previous == nil {
		t.Error("the revision has changed, or the record")
	}
}

// Graph fails when the old one is to be removed: the new one is good, the old one
// is refused, and what is left is removed by whatever comes next.
func TestOldIsLeft(t *testing.T) {
	ctx := t.Context()
	for _, next := range []string{"create", "recover", "finish", "finish all", "rotate", "revoke"} {
		t.Run(next, func(t *testing.T) {
			f := newFixture(t)
			c := f.named(t, "x")
			f.keychain.failing(func(op, key string) error {
				if op == "set" && strings.HasPrefix(key, "app-password/") {
					f.sandbox.SetFaults(func(f *sandbox.Faults) { f.Forbidden = true })
				}
				return nil
			})
			r, err := f.Rotate(ctx, "x", RotateRequest{})
			left, ok := errors.AsType[*OldLeftError](r.Left)
			if err != nil || !ok || left.ID != c.Record.ID || !strings.Contains(left.Error(), left.ID) {
				t.Fatalf("%v, %v", err, r.Left)
			}
			f.keychain.failing(nil)
			v := f.verifier()
			if err := v.Load(ctx); err != nil {
				t.Fatal(err)
			}
			if _, _, err := v.Verify(ctx, "alice@contoso.com", c.Password, "imap", home); reason(t, err) != PasswordReplaced && reason(t, err) != WrongPassword {
				t.Errorf("the old one: %v", err)
			}
			if _, _, err := v.Verify(ctx, "alice@contoso.com", r.Password, "imap", home); err != nil {
				t.Errorf("the new one: %v", err)
			}
			// It is not taken up again, nor is a second one made beside it.
			if _, err := f.Rotate(ctx, "x", RotateRequest{Overlap: time.Hour}); err == nil {
				t.Error("rotated although Graph forbids it")
			}
			f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
			if e, err := f.List(ctx); err != nil || len(e) != 1 || !e[0].Unfinished(time.Now()) {
				t.Errorf("%+v, %v", e, err)
			}
			switch next {
			case "create":
				f.named(t, "y")
			case "recover":
				err = f.Recover(ctx)
			case "finish":
				_, _, err = f.FinishRotation(ctx, "X")
			case "finish all":
				_, err = f.FinishRotations(ctx)
			case "rotate":
				f.rotated(t, time.Hour)
			case "revoke":
				var e []Entry
				if e, err = f.List(ctx); err == nil {
					err = f.Revoke(ctx, e[0])
				}
			}
			if err != nil {
				t.Error(err)
			}
			f.agree(t)
		})
	}
}

// Both go, whichever was listed, and whatever fails on the way.
func TestRevokeOfARotated(t *testing.T) {
	ctx := t.Context()
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		f.created(t)
		f.rotated(t, time.Hour)
		revoke := func() error {
			e, err := f.List(ctx)
			if err != nil || len(e) != 1 {
				t.Fatalf("%+v, %v", e, err)
			}
			return f.Revoke(ctx, e[0])
		}
		f.keychain.failing(func(op, key string) error {
			if op == "delete" {
				return errors.New("locked")
			}
			return nil
		})
		if _, ok := errors.AsType[*HalfRevokedError](revoke()); !ok {
			t.Error("no word of what is left")
		}
		f.keychain.failing(nil)
		if err := revoke(); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)

		// Listed, then rotated while a person was asked.
		f.created(t)
		before, err := f.Local()
		if err != nil {
			t.Fatal(err)
		}
		f.rotated(t, time.Hour)
		if err := f.Revoke(ctx, before[0]); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
		f.created(t)
		if before, err = f.Local(); err != nil {
			t.Fatal(err)
		}
		f.rotated(t, 0)
		if err := f.Revoke(ctx, before[0]); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
			t.Errorf("what was replaced is revoked, and what is there is not: %v", err)
		}
		f.agree(t)
		if err := revoke(); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
	})
}

// Rotated since it was listed: before anything is asked, or after Graph has taken
// the removal and before that is marked.
func TestRevokeFollowsARotation(t *testing.T) {
	for _, late := range []bool{false, true} {
		f := newFixture(t)
		c := f.named(t, "x")
		e, err := f.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		next := f.named(t, "other") // takes the part of the new credential
		err = f.Registry.Update(t.Context(), func(s *State) error {
			s.remove(next.Record.ID)
			rec := next.Record
			rec.Name, rec.Previous = "x", c.Record.asPrevious(time.Now().Add(time.Hour))
			*s.holder(c.Record.ID) = rec
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if late {
			errs := []error{nil}
			if which := f.rotatedMeanwhile(t.Context(), e, errs); len(which) != 1 || errs[0] != nil {
				t.Errorf("revoked as they are now: %v, %v", which, errs)
			}
		} else if err := f.Revoke(t.Context(), e[0]); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
	}
}

// What was removed in Entra by somebody else is just gone.
func TestPreviousRemovedElsewhere(t *testing.T) {
	f := newFixture(t)
	c := f.named(t, "x")
	f.rotated(t, time.Hour)
	f.sandbox.RemoveCredential(c.Record.ID)
	e, err := f.List(t.Context())
	if err != nil || len(e) != 1 || !e[0].PreviousGone || e[0].Status != Active || e[0].InOverlap(time.Now()) {
		t.Errorf("%+v, %v", e, err)
	}
	if _, was, err := f.FinishRotation(t.Context(), "x"); err != nil || !was {
		t.Errorf("%v, %v", was, err)
	}
	f.agree(t)
	if _, was, err := f.FinishRotation(t.Context(), "x"); err != nil || was {
		t.Errorf("once more: %v, %v", was, err)
	}
}

// A note of a create knows the old one for what it is.
func TestPreviousIsNoOrphan(t *testing.T) {
	f := newFixture(t)
	c := f.named(t, "x")
	f.rotated(t, time.Hour)
	note := f.noteFor(c.Record)
	note.Starts = []time.Time{f.sandbox.Credentials()[0].Start}
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.note(note); return nil }); err != nil {
		t.Fatal(err)
	}
	f.Now = func() time.Time { return time.Now().Add(30 * time.Minute) }
	if err := f.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	f.agree(t)
	if n := len(f.sandbox.Credentials()); n != 2 {
		t.Errorf("%d credentials", n)
	}
}

// A file from before the protocols were noted says only which was last: all that
// may have been count.
func TestProtocolsOfBefore(t *testing.T) {
	r, _ := recorder(t, "a")
	writeFile(t, r.Usage.Path(), `{"version":1,"appPasswords":{"a":{"lastUsed":"2026-11-20T08:30:00Z","protocol":"imap","address":"10.0.0.1"}}}`)
	if got := r.Seen("a"); len(got) != 3 || !got["smtp"].Equal(at("2026-11-20T08:30:00Z")) {
		t.Errorf("%v", got)
	}
	if got := r.Seen("b"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if !r.Note("b", LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "pop3"}) || r.Note("b", LastUse{Time: at("2026-11-22T08:31:00Z"), Protocol: "pop3"}) ||
		!r.Note("b", LastUse{Time: at("2026-11-22T08:32:00Z"), Protocol: "imap"}) {
		t.Error("what is new is not told")
	}
	r.Note("a", LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "imap"})
	r.runIn(t)()
	got := r.written(t)
	if len(got.Protocols) != 1 || len(got.Protocols["a"]) != 3 || !got.Protocols["a"]["imap"].Equal(at("2026-11-22T08:30:00Z")) {
		t.Errorf("%v", got.Protocols)
	}
	// Of an app password that is being rotated, both are kept.
	err := r.Registry.Update(t.Context(), func(s *State) error { s.AppPasswords[0].Previous = &Previous{ID: "b"}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	r.Note("b", LastUse{Time: at("2026-11-22T08:33:00Z"), Protocol: "imap"})
	r.runIn(t)()
	if got := r.written(t); len(got.Protocols["b"]) != 2 || got.LastUse["b"].Time.IsZero() || len(got.Protocols["a"]) != 3 {
		t.Errorf("%v", got)
	}
}

// What a rotate goes by is on the disk at once.
func TestHurriedUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := recorder(t, "a", "b")
		defer r.runIn(t)()
		r.Note("a", LastUse{Time: time.Now(), Protocol: "imap"})
		synctest.Wait()
		r.Note("b", LastUse{Time: time.Now(), Protocol: "imap"})
		synctest.Wait()
		if got := r.written(t); len(got.LastUse) != 1 {
			t.Errorf("%v", got)
		}
		r.Hurry()
		synctest.Wait()
		if got := r.written(t); len(got.LastUse) != 2 {
			t.Errorf("%v", got)
		}
	})
}

// Two rotations at once follow each other.
func TestRotateAtOnce(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c := f.created(t)
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := f.Rotate(context.WithoutCancel(t.Context()), "x", RotateRequest{Overlap: time.Hour})
				errs <- err
			}()
		}
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		f.agree(t)
		s := f.state(t)
		if len(s.AppPasswords) != 1 || s.AppPasswords[0].Previous.ID != c.Record.ID || !slices.Equal(s.AppPasswords[0].ids(), []string{s.AppPasswords[0].ID, c.Record.ID}) {
			t.Errorf("%+v", s.AppPasswords)
		}
	})
}

// Rotated once more, before anybody has used the new password, while Graph is
// asked for the removal: what is called revoked does not sign in.
func TestRevokeFollowsARotationOfARotation(t *testing.T) {
	f := newFixture(t)
	f.named(t, "x")
	f.rotated(t, time.Hour)
	e, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	planned, listed, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	plan := sync.OnceFunc(func() { close(planned); <-listed })
	other := *f.Manager // another process
	other.Keychains = func(kind string) (secret.Keychain, error) {
		plan()
		return f.keychain, nil
	}
	go func() {
		defer close(done)
		if _, err := other.Rotate(t.Context(), "x", RotateRequest{Overlap: time.Hour}); err != nil {
			t.Error(err)
		}
	}()
	<-planned
	asks := graph.Client{BaseURL: f.Graph.BaseURL, Pause: f.Graph.Pause, ConfirmWait: f.Graph.ConfirmWait}
	rotate := sync.OnceFunc(func() { close(listed); <-done })
	asks.Token = func(ctx context.Context) (secret.Text, error) {
		rotate()
		return f.Manager.Graph.Token(ctx)
	}
	revoking := *f.Manager
	revoking.Graph = &asks
	if err := revoking.Revoke(t.Context(), e[0]); err != nil {
		t.Fatal(err)
	}
	f.agree(t)
	f.consistent(t, 0)
}

// Another of its name has taken its place meanwhile: it is not said to be
// revoked, and what is there now stays.
func TestRevokeOfOneThatWasReplaced(t *testing.T) {
	f := newFixture(t)
	f.named(t, "x")
	e, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := *f.Manager
	asks := graph.Client{BaseURL: f.Graph.BaseURL, Pause: f.Graph.Pause, ConfirmWait: f.Graph.ConfirmWait}
	replace := sync.OnceFunc(func() {
		for range 2 { // the second finishes the first
			if r, err := other.Rotate(t.Context(), "x", RotateRequest{}); err != nil || r.Left != nil {
				t.Error(err, r.Left)
			}
		}
	})
	asks.Token = func(ctx context.Context) (secret.Text, error) {
		replace()
		return f.Manager.Graph.Token(ctx)
	}
	revoking := *f.Manager
	revoking.Graph = &asks
	if err := revoking.Revoke(t.Context(), e[0]); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("%v", err)
	}
	f.agree(t)
	f.consistent(t, 1)
}

// A credential that was listed as made elsewhere may be what a rotation has made
// since: its removal is asked for once, and its failure is that of both.
func TestRevokeOfWhatIsListedTwice(t *testing.T) {
	f := newFixture(t)
	c := f.named(t, "x")
	twice := []Entry{{Record: c.Record, Status: Active, Remote: true}, {Record: c.Record, Status: RemoteOnly, Remote: true}}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.Forbidden = true })
	for i, err := range f.revoke(t.Context(), twice) {
		if ge, ok := errors.AsType[*graph.Error](err); !ok || !ge.IsForbidden() {
			t.Errorf("%d: %v", i, err)
		}
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	f.consistent(t, 1)
	if err := errors.Join(f.revoke(t.Context(), twice)...); err != nil {
		t.Error(err)
	}
	f.consistent(t, 0)
}

// A removal whose answer was lost, and that was interrupted then, may not have
// been carried out: reads that lag behind do not say that it was.
func TestRevokeAgainAsksForAYoungOne(t *testing.T) {
	f := newFixture(t)
	c := f.named(t, "x")
	rec := c.Record
	rec.Verified, rec.Revoked = false, time.Now()
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.put(rec); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := f.Revoke(t.Context(), Entry{Record: rec, Status: Revoked}); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 0)
}
