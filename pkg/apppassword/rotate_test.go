package apppassword

import (
	"context"
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// agree holds Entra, keychain and registry against each other: nothing is
// anywhere that the registry does not know, and no note is left.
func (f *fixture) agree(t *testing.T) {
	t.Helper()
	s := f.state(t)
	want := slices.Sorted(maps.Keys(s.ids()))
	var items, creds []string
	f.keychain.mu.Lock()
	for key := range f.keychain.items {
		if id, ok := strings.CutPrefix(key, "app-password/"); ok {
			items = append(items, id)
		}
	}
	f.keychain.mu.Unlock()
	slices.Sort(items)
	if !slices.Equal(items, want) || len(s.Pending) != 0 {
		t.Errorf("the keychain has %v, the registry %v and %d notes", items, want, len(s.Pending))
	}
	if f.Profile.Backing != "" {
		return
	}
	for _, c := range f.sandbox.Credentials() {
		creds = append(creds, c.KeyID)
	}
	slices.Sort(creds)
	if !slices.Equal(creds, want) {
		t.Errorf("Entra has %v, the registry %v", creds, want)
	}
}

// uses writes down that an app password was used.
func (f *fixture) uses(t *testing.T, id string, protocols ...string) {
	t.Helper()
	r := &UsageRecorder{Usage: Usage{Dir: f.Registry.Dir}, Registry: f.Registry}
	for _, p := range protocols {
		r.Note(id, LastUse{Time: time.Now(), Protocol: p, Address: "192.168.1.5"})
	}
	r.runIn(t)()
}

// created makes x, with whatever a record can have.
func (f *fixture) created(t *testing.T) Created {
	t.Helper()
	req := f.request("x")
	req.Allow, req.ReadOnly, req.MaxPerHour, req.LoginName = []string{"imap", "smtp"}, true, 7, "ex"
	c, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pass lets time pass: what the registry holds is older from then on.
func (f *fixture) pass(t *testing.T, d time.Duration) {
	t.Helper()
	err := f.Registry.Update(t.Context(), func(s *State) error {
		for i := range s.AppPasswords {
			r := &s.AppPasswords[i]
			r.Created, r.Expires = r.Created.Add(-d), r.Expires.Add(-d)
			if p := r.Previous; p != nil {
				p.Created, p.Expires, p.Until = p.Created.Add(-d), p.Expires.Add(-d), p.Until.Add(-d)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) rotated(t *testing.T, overlap time.Duration) Rotated {
	t.Helper()
	r, err := f.Rotate(t.Context(), "X", RotateRequest{Overlap: overlap})
	if err != nil || r.Left != nil {
		t.Fatal(err, r.Left)
	}
	return r
}

func TestRotate(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		f.created(t)
		f.pass(t, 24*time.Hour)
		c := Created{Record: f.state(t).AppPasswords[0]}
		var err error
		if c.Password, err = f.Reveal(t.Context(), c.Record); err != nil {
			t.Fatal(err)
		}
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		before, _, err := v.Verify(t.Context(), "ex", c.Password, "imap", home)
		if err != nil {
			t.Fatal(err)
		}
		r := f.rotated(t, time.Hour)
		f.agree(t)
		if r.Password.Equal(c.Password) || r.Record.ID == c.Record.ID || !r.Record.Verified {
			t.Errorf("%+v", r.Record)
		}
		// But for what is the credential's, it is the same record.
		same := r.Record
		same.ID, same.Hint, same.Created, same.Expires, same.Verified, same.Previous = c.Record.ID, c.Record.Hint, c.Record.Created, c.Record.Expires, c.Record.Verified, nil
		if !reflect.DeepEqual(same, c.Record) {
			t.Errorf("%+v\nbecame\n%+v", c.Record, r.Record)
		}
		if life := r.Record.Expires.Sub(r.Record.Created); (life-c.Record.Expires.Sub(c.Record.Created)).Abs() > 2*time.Second || time.Since(r.Record.Created) > time.Hour {
			t.Errorf("it lives for %v, from %v", life, r.Record.Created)
		}
		if p := r.Record.Previous; p.ID != c.Record.ID || p.Until.Sub(r.Record.Created) != time.Hour || !p.Ended.IsZero() {
			t.Errorf("%+v", p)
		}
		b, err := os.ReadFile(f.Registry.Path())
		if err != nil || !strings.Contains(string(b), `"version": 4`) {
			t.Errorf("older programs take the registry: %s, %v", b, err)
		}

		// Both are good, and what was signed in with the old one goes on.
		old, _, err := v.Verify(t.Context(), "ex", c.Password, "imap", home)
		if err != nil || old.ID != c.Record.ID || old.Revision() != before.Revision() {
			t.Fatalf("the old one: %+v, %v", old, err)
		}
		rec, _, err := v.Verify(t.Context(), "ex", r.Password, "smtp", home)
		if err != nil || rec.ID != r.Record.ID {
			t.Fatalf("the new one: %+v, %v", rec, err)
		}
		for _, one := range []Record{old, rec} {
			if _, err := v.Token(t.Context(), one.ID); err != nil {
				t.Error(err)
			}
			if err := v.Allowed(one.ID, one.Revision()); err != nil {
				t.Error(err)
			}
		}
		if recs := v.Records(); len(recs) != 1 || recs[0].ID != r.Record.ID || recs[0].Previous == nil {
			t.Errorf("%+v", recs)
		}
		entries, err := f.List(t.Context())
		if err != nil || len(entries) != 1 || !entries[0].InOverlap(time.Now()) || entries[0].Unfinished(time.Now()) || entries[0].Status != Active {
			t.Errorf("%+v, %v", entries, err)
		}
		if done, err := f.FinishRotations(t.Context()); err != nil || len(done) != 0 {
			t.Errorf("finished too early: %v, %v", done, err)
		}

		// Its time is over, whether or not anybody has noted it.
		late := func() time.Time { return time.Now().Add(time.Hour) }
		v.Now, f.Now = late, late
		if _, _, err := v.Verify(t.Context(), "ex", c.Password, "imap", home); reason(t, err) != PasswordReplaced {
			t.Errorf("after the overlap: %v", err)
		}
		if err := v.Allowed(old.ID, old.Revision()); reason(t, err) != PasswordReplaced {
			t.Errorf("a session after the overlap: %v", err)
		}
		if entries, err := f.Local(); err != nil || entries[0].InOverlap(late()) || !entries[0].Unfinished(late()) {
			t.Errorf("%+v, %v", entries, err)
		}
		var told []Ended
		f.Ended = func(e Ended) { told = append(told, e) }
		done, err := f.FinishRotations(t.Context())
		if err != nil || len(done) != 1 || done[0].Previous.ID != c.Record.ID || len(told) != 1 || told[0].Why != EndOverlap {
			t.Errorf("%+v, %v, told %+v", done, err, told)
		}
		f.agree(t)
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := v.Allowed(rec.ID, rec.Revision()); err != nil {
			t.Errorf("a session with the new one: %v", err)
		}
		if _, _, err := v.Verify(t.Context(), "ex", c.Password, "imap", home); reason(t, err) != WrongPassword {
			t.Errorf("%v", err)
		}
		if err := v.Allowed(old.ID, old.Revision()); reason(t, err) != PasswordRevoked {
			t.Errorf("%v", err)
		}
		b, err = os.ReadFile(f.Registry.Path())
		if err != nil || strings.Contains(string(b), `"version": 4`) {
			t.Errorf("older programs refuse the registry still: %s, %v", b, err)
		}
	})
}

func TestRotateWithoutOverlap(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c := f.created(t)
		var told []Ended
		f.Ended = func(e Ended) { told = append(told, e) }
		r := f.rotated(t, 0)
		f.agree(t)
		if s := f.state(t); r.Record.Previous != nil || s.AppPasswords[0].Previous != nil || len(told) != 1 || told[0].Record.Previous.ID != c.Record.ID || told[0].Why != EndAsked {
			t.Errorf("%+v, told %+v", s.AppPasswords, told)
		}
		// What has expired gets a new life, and has no overlap.
		f.pass(t, 181*24*time.Hour)
		r = f.rotated(t, time.Hour)
		f.agree(t)
		if r.Record.Previous != nil || r.Record.LocalStatus(time.Now()) != Active {
			t.Errorf("%+v", r.Record)
		}
		r, err := f.Rotate(t.Context(), r.Record.ID, RotateRequest{Overlap: time.Hour, Expires: time.Now().Add(2 * time.Hour)})
		if err != nil || time.Until(r.Record.Expires) > 3*time.Hour {
			t.Errorf("%+v, %v", r.Record, err)
		}
	})
}

// Rotated again, the one that nobody has used goes; one that is used stays.
func TestRotateAgain(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		first := f.created(t)
		f.uses(t, first.Record.ID, "imap")
		second := f.rotated(t, time.Hour)
		third := f.rotated(t, 2*time.Hour)
		f.agree(t)
		if p := third.Record.Previous; p == nil || p.ID != first.Record.ID || p.Until.Sub(third.Record.Created) != 2*time.Hour {
			t.Fatalf("%+v", third.Record)
		}
		v := f.verifier()
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec, _, err := v.Verify(t.Context(), "ex", first.Password, "imap", home); err != nil || rec.Revision() != first.Record.Revision() {
			t.Errorf("the one in use: %v", err)
		}
		if _, _, err := v.Verify(t.Context(), "ex", second.Password, "imap", home); reason(t, err) != WrongPassword {
			t.Errorf("the one that nobody used: %v", err)
		}
		f.uses(t, third.Record.ID, "imap")
		fourth := f.rotated(t, time.Hour)
		f.agree(t)
		if p := fourth.Record.Previous; p == nil || p.ID != third.Record.ID {
			t.Fatalf("%+v", fourth.Record)
		}
		// An overlap that is over is not taken up again.
		f.pass(t, 3*time.Hour)
		fifth := f.rotated(t, time.Hour)
		f.agree(t)
		if p := fifth.Record.Previous; p == nil || p.ID != fourth.Record.ID {
			t.Fatalf("%+v", fifth.Record)
		}
	})
}

// The mail program begins to use the new one while it is about to be replaced.
func TestRotateOfOneThatIsUsedMeanwhile(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		first := f.created(t)
		second := f.rotated(t, time.Hour)
		f.keychain.failing(func(op, key string) error {
			if op == "set" && strings.HasPrefix(key, "app-password/") {
				f.uses(t, second.Record.ID, "imap")
			}
			return nil
		})
		_, err := f.Rotate(t.Context(), "x", RotateRequest{Overlap: time.Hour})
		if err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
			t.Errorf("%v", err)
		}
		f.keychain.failing(nil)
		f.agree(t)
		if rec := f.state(t).AppPasswords[0]; rec.ID != second.Record.ID || rec.Previous.ID != first.Record.ID {
			t.Errorf("%+v", rec)
		}
	})
}

// Each step fails in turn: the app password is as it was, and works.
func TestRotateUndoesWhatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, step := range []string{"probe", "keychain", "registry", "entra", "slow", "interrupt", "revoked"} {
		eachBacking(t, step, func(t *testing.T, f *fixture) {
			c := f.created(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			mine := func(op, key string) bool { return op == "set" && strings.HasPrefix(key, "app-password/") }
			var good []byte
			var want func(error) bool
			switch step {
			case "probe":
				f.keychain.failing(func(op, key string) error {
					if strings.HasPrefix(key, "probe/") {
						return broken
					}
					return nil
				})
			case "keychain":
				f.keychain.failing(func(op, key string) error {
					if mine(op, key) {
						return broken
					}
					return nil
				})
			case "registry":
				f.keychain.failing(func(op, key string) error {
					switch {
					case mine(op, key):
						good, _ = os.ReadFile(f.Registry.Path())
						writeFile(t, f.Registry.Path(), "{")
					case op == "delete" && strings.HasPrefix(key, "app-password/"):
						writeFile(t, f.Registry.Path(), string(good))
					}
					return nil
				})
			case "interrupt":
				f.keychain.failing(func(op, key string) error {
					if mine(op, key) {
						cancel()
					}
					return nil
				})
			case "revoked":
				// Somebody revokes it while it is rotated.
				f.keychain.failing(func(op, key string) error {
					if mine(op, key) {
						if err := f.Registry.Update(ctx, func(s *State) error { s.mark([]string{c.Record.ID}, time.Now()); return nil }); err != nil {
							t.Error(err)
						}
					}
					return nil
				})
				want = func(err error) bool { _, ok := errors.AsType[*NotRotatableError](err); return ok }
			case "entra":
				f.sandbox.SetFaults(func(f *sandbox.Faults) { f.AppDisabled, f.ConditionalAccess = true, true })
				want = func(err error) bool { ue, ok := errors.AsType[*UnusableError](err); return ok && ue.Rotated }
			case "slow":
				f.WaitLimit = 20 * time.Millisecond
				f.sandbox.SetFaults(func(f *sandbox.Faults) { f.EntraStatus = 500 })
				want = func(err error) bool {
					_, ok := errors.AsType[*NotAcceptedError](err)
					ee, isEntra := errors.AsType[*entra.Error](err)
					return ok || isEntra && ee.Kind() == entra.Unavailable // of a sign-in
				}
			}
			_, err := f.Rotate(ctx, "x", RotateRequest{Overlap: time.Hour})
			if err == nil || want != nil && !want(err) {
				t.Fatalf("%T: %v", err, err)
			}
			f.keychain.failing(nil)
			f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
			f.agree(t)
			rec := f.state(t).AppPasswords[0]
			if step == "revoked" {
				rec.Revoked = time.Time{}
			}
			if rec.Revision() != c.Record.Revision() || rec.Previous != nil {
				t.Errorf("it is not what it was: %+v", rec)
			}
			if p, err := f.Reveal(t.Context(), rec); err != nil || !p.Equal(c.Password) {
				t.Errorf("its password is another: %v", err)
			}
		})
	}
}

// A write that fails after it was done takes nothing away.
func TestRotateUndoesADoneWrite(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c := f.created(t)
		r := f.rotated(t, time.Hour)
		note := f.noteFor(r.Record)
		note.KeyID = r.Record.ID
		if r.Record.Local() {
			note.Backing = r.Record.Backing
			if err := f.clearLocal(t.Context(), note); err != nil {
				t.Fatal(err)
			}
		} else if err := f.undo(t.Context(), note, note.KeyID, errors.New("fsync")); err == nil || err.Error() != "fsync" {
			t.Fatal(err)
		}
		f.agree(t)
		if rec := f.state(t).AppPasswords[0]; rec.Revision() != c.Record.Revision() {
			t.Errorf("%+v", rec)
		}
	})
}

func TestRotateRefuses(t *testing.T) {
	f := newFixture(t)
	c := f.created(t)
	req := f.request("lure")
	req.Decoy = true
	if _, err := f.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	refused := func(arg string, decoy bool, status Status) {
		t.Helper()
		_, err := f.Rotate(t.Context(), arg, RotateRequest{})
		ne, ok := errors.AsType[*NotRotatableError](err)
		if !ok || ne.Decoy != decoy || ne.Status != status {
			t.Errorf("%s: %v", arg, err)
		}
	}
	refused("lure", true, "")
	f.sandbox.RemoveCredential(c.Record.ID)
	refused("x", false, Revoked)
	if _, err := f.Rotate(t.Context(), "nobody", RotateRequest{}); err == nil {
		t.Error("nobody was rotated")
	}
	elsewhere := f.named(t, "y")
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.remove(elsewhere.Record.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	refused("y", false, RemoteOnly)
	z := f.named(t, "z")
	err := f.Registry.Update(t.Context(), func(s *State) error {
		s.holder(z.Record.ID).Tenant, s.holder(z.Record.ID).ClientID = "fabrikam.example", "00000000-0000-4000-8000-000000000001"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Rotate(t.Context(), z.Record.ID, RotateRequest{})
	if _, ok := errors.AsType[*OtherTenantError](err); !ok {
		t.Errorf("of another tenant: %v", err)
	}
}

func (f *fixture) named(t *testing.T, name string) Created {
	t.Helper()
	c, err := f.Create(t.Context(), f.request(name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// One that is being rotated moves with both of its passwords.
func TestRotatedMoves(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c := f.created(t)
		r := f.rotated(t, time.Hour)
		o := newOther(t, f)
		if a := o.takes(t, f.packed(t, r.Record)); a.Err != nil {
			t.Fatal(a.Err)
		}
		v := o.serving(t)
		for _, password := range []secret.Text{c.Password, r.Password} {
			rec, _, err := v.Verify(t.Context(), "ex", password, "imap", home)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Token(t.Context(), rec.ID); err != nil {
				t.Error(err)
			}
		}
		if err := f.Forget(t.Context(), r.Record); err != nil {
			t.Fatal(err)
		}
		if s := f.state(t); len(s.AppPasswords) != 0 || len(s.Pending) != 0 || slices.ContainsFunc(slices.Collect(maps.Keys(f.keychain.items)), func(k string) bool { return strings.HasPrefix(k, "app-password/") }) {
			t.Errorf("left: %+v", s)
		}
	})
}
