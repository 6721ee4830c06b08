package apppassword

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// other is the machine that app passwords go to.
type other struct {
	*fixture // of the machine that they come from: the sandbox, above all
	Importer
	keychain *memory
	file     string // what a profile there names as certificate
}

func newOther(t *testing.T, f *fixture) *other {
	t.Helper()
	o := &other{fixture: f, keychain: &memory{}}
	o.Importer = Importer{
		Registry: Registry{Dir: t.TempDir()}, Keychain: "there",
		Keychains: func(kind string) (secret.Keychain, error) {
			if kind != "there" {
				return nil, errors.New("no such keychain: " + kind)
			}
			return o.keychain, nil
		},
		Cloud: func(name string) (config.Cloud, error) {
			if name != f.Profile.Cloud.Name {
				return config.Cloud{}, errors.New("no such cloud")
			}
			return f.Profile.Cloud, nil
		},
		Entra: func(_ config.Cloud, tenant string) (*entra.Client, error) {
			return &entra.Client{Authority: f.authority, Tenant: tenant, MaxWait: -1}, nil
		},
		CertificateFile: func(string) string { return o.file },
	}
	return o
}

// takes imports and gives the one result.
func (o *other) takes(t *testing.T, p Parcel) Arrival {
	t.Helper()
	all, err := o.Import(t.Context(), p)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0]
}

func (o *other) serving(t *testing.T) *Verifier {
	t.Helper()
	v := o.fixture.verifier()
	v.Registry, v.Keychains = o.Importer.Registry, o.Importer.Keychains
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

// agreed holds registry and keychain there against each other.
func (o *other) agreed(t *testing.T, want int) {
	t.Helper()
	s, err := o.Importer.Registry.Load()
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range s.AppPasswords {
		keys = append(keys, itemKey(r.ID))
		if r.Backing == BackingCertificate && r.Certificate == "" && !slices.Contains(keys, certificateKey(r.ClientID)) {
			keys = append(keys, certificateKey(r.ClientID))
		}
	}
	for _, si := range s.SignIns {
		keys = append(keys, "mail-sign-in/"+si.ID)
	}
	slices.Sort(keys)
	got := slices.Sorted(maps.Keys(o.keychain.items))
	// The application's certificate has one place, whoever stands on it.
	got = slices.DeleteFunc(got, func(k string) bool { return strings.HasPrefix(k, "certificate/") && !slices.Contains(keys, k) })
	if len(s.AppPasswords) != want || len(s.Pending) != 0 || !slices.Equal(keys, got) {
		t.Errorf("%d app passwords, not %d; %d notes; the registry wants %v, the keychain has %v", len(s.AppPasswords), want, len(s.Pending), keys, got)
	}
}

// packed packs, and takes the parcel through its wire form.
func (f *fixture) packed(t *testing.T, recs ...Record) Parcel {
	t.Helper()
	f.Profile.Cloud.Authority, f.Profile.Cloud.Graph = f.authority, f.sandbox.Graph()
	p, err := f.Pack(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	return rewritten(t, p, nil)
}

// rewritten is the parcel after somebody has changed its JSON.
func rewritten(t *testing.T, p Parcel, change func(*parcelFile)) Parcel {
	t.Helper()
	q, err := rewrite(t, p, change)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func rewrite(t *testing.T, p Parcel, change func(*parcelFile)) (Parcel, error) {
	t.Helper()
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		return ParseParcel(text)
	}
	var file parcelFile
	if err := json.Unmarshal([]byte(text.Reveal()), &file); err != nil {
		t.Fatal(err)
	}
	change(&file)
	b, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return ParseParcel(secret.New(string(b)))
}

func why(err error) NotMoved {
	if e, ok := errors.AsType[*MoveError](err); ok {
		return e.Why
	}
	return ""
}

// TestMove moves an app password of each backing, and has it used there.
func TestMove(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		req := f.request("printer")
		req.Allow, req.Networks, req.MaxPerHour, req.LoginName, req.From = []string{"imap", "smtp"}, mustNetworks(t, "192.168.0.0/16"), 5, "scan", []string{"@contoso.com"}
		c, err := f.Create(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		p := f.packed(t, c.Record)
		o := newOther(t, f)
		a := o.takes(t, p)
		if a.Err != nil || a.Here {
			t.Fatalf("%+v", a)
		}
		o.agreed(t, 1)
		v := o.serving(t)
		rec, box, err := v.Verify(t.Context(), "scan", c.Password, "imap", home)
		if err != nil || box != "alice@contoso.com" || rec.MaxPerHour != 5 || rec.Keychain != "there" || time.Since(rec.Arrived) > time.Minute {
			t.Fatal(rec, box, err)
		}
		if _, err := v.Token(t.Context(), rec.ID); err != nil {
			t.Errorf("no token there: %v", err)
		}
		if _, err := f.serving(t).Token(t.Context(), rec.ID); err != nil {
			t.Errorf("no token here any more: %v", err)
		}
		// Again: nothing changes, and what the keychain has lost comes back.
		before, err := os.ReadFile(o.Importer.Registry.Path())
		if err != nil {
			t.Fatal(err)
		}
		if a := o.takes(t, f.packed(t, c.Record)); a.Err != nil || !a.Here {
			t.Errorf("again: %+v", a)
		}
		delete(o.keychain.items, itemKey(rec.ID))
		if a := o.takes(t, p); a.Err != nil || a.Here {
			t.Errorf("lost: %+v", a)
		}
		if after, err := os.ReadFile(o.Importer.Registry.Path()); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the registry was written again: %v", err)
		}
		o.agreed(t, 1)
		if _, _, err := o.serving(t).Verify(t.Context(), "alice@contoso.com", c.Password, "smtp", home); err != nil {
			t.Error(err)
		}
	})
}

func TestMoveDecoy(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.decoy("bait"))
	if err != nil {
		t.Fatal(err)
	}
	o := newOther(t, f)
	if a := o.takes(t, f.packed(t, c.Record)); a.Err != nil {
		t.Fatal(a.Err)
	}
	if _, _, err := o.serving(t).Verify(t.Context(), "x", c.Password, "imap", home); reason(t, err) != DecoyUsed {
		t.Error(err)
	}
	o.agreed(t, 1)
}

// TestImportUndone lets each step of an import fail: nothing is left, and the
// same import works afterwards.
func TestImportUndone(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		rec := f.made(t, "x")
		p := f.packed(t, rec)
		for step := 1; ; step++ {
			o := newOther(t, f)
			n := 0
			failed := false
			o.keychain.failing(func(op, key string) error {
				if n++; n == step && !strings.HasPrefix(key, "probe/") {
					failed = true
					return errors.New("the disk is full")
				}
				return nil
			})
			all, err := o.Import(t.Context(), p)
			o.keychain.failing(nil)
			if n < step {
				break
			}
			if failed && (err != nil || all[0].Err == nil) {
				t.Errorf("step %d: %v %v", step, all, err)
			}
			if failed {
				o.agreed(t, 0)
			}
			if a := o.takes(t, p); a.Err != nil {
				t.Errorf("after step %d: %v", step, a.Err)
			}
			o.agreed(t, 1)
		}
	})
}

// TestImportKilled leaves what a kill leaves after each step.
func TestImportKilled(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		rec := f.made(t, "x")
		p := f.packed(t, rec)
		o := newOther(t, f)
		rec.Keychain = "there"
		err := o.Importer.Registry.Update(t.Context(), func(s *State) error {
			s.Pending = movedNotes(rec, time.Now())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := storeSecrets(t.Context(), o.keychain, rec.ID, p.secrets[rec.ID]); err != nil {
			t.Fatal(err)
		}
		m := o.manager(rec.Profile, rec.Tenant, rec.ClientID)
		if notes, err := m.Interrupted(); err != nil || len(notes) != 0 {
			t.Errorf("list tells of a create: %v %v", notes, err)
		}
		// Whatever comes next clears it away: a command of the profile, or
		// another import, which finishes it.
		if err := m.RecoverLocal(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.agreed(t, 0)
		err = o.Importer.Registry.Update(t.Context(), func(s *State) error { s.Pending = movedNotes(rec, time.Now()); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if a := o.takes(t, p); a.Err != nil || a.Here {
			t.Errorf("%+v", a)
		}
		o.agreed(t, 1)
	})
}

func TestImportRefusals(t *testing.T) {
	f := newFixture(t)
	rec := f.made(t, "Printer")
	p := f.packed(t, rec)

	o := newOther(t, f)
	if a := o.takes(t, rewritten(t, p, func(p *parcelFile) { p.AppPasswords[0].Cloud = "moon" })); why(a.Err) != UnknownCloud {
		t.Errorf("unknown cloud: %v", a.Err)
	}
	o.agreed(t, 0)
	if a := o.takes(t, p); a.Err != nil {
		t.Fatal(a.Err)
	}
	// The same name with another id, in the same application or profile.
	for _, other := range []func(*Record){
		func(r *Record) { r.Profile = "elsewhere" },
		func(r *Record) { r.ClientID = "00001111-aaaa-2222-bbbb-3333cccc4444" },
	} {
		q := rewritten(t, p, func(p *parcelFile) {
			r := &p.AppPasswords[0]
			p.Secrets["11111111-2222-4333-8444-555555555555"] = p.Secrets[r.ID]
			delete(p.Secrets, r.ID)
			r.ID, r.Name = "11111111-2222-4333-8444-555555555555", "PRINTER"
			other(r)
		})
		a := o.takes(t, q)
		if e, ok := errors.AsType[*MoveError](a.Err); !ok || e.Why != NameIsTaken || e.Taken.ID != rec.ID {
			t.Errorf("name taken: %v", a.Err)
		}
	}
	for name, change := range map[string]func(*parcelFile){
		"record": func(p *parcelFile) { p.AppPasswords[0].Mailboxes = []string{"bob@contoso.com"} },
		"password": func(p *parcelFile) {
			p.Secrets[rec.ID] = secretsItem{Version: 1, Password: "abcdefghijklmnop", Secret: p.Secrets[rec.ID].Secret}
		},
		"secret": func(p *parcelFile) {
			p.Secrets[rec.ID] = secretsItem{Version: 1, Password: p.Secrets[rec.ID].Password, Secret: "x"}
		},
	} {
		if a := o.takes(t, rewritten(t, p, change)); why(a.Err) != DiffersHere {
			t.Errorf("another %s: %v", name, a.Err)
		}
	}
	o.agreed(t, 1)
	if err := o.Importer.Registry.Update(t.Context(), func(s *State) error { s.mark([]string{rec.ID}, time.Now()); return nil }); err != nil {
		t.Fatal(err)
	}
	if a := o.takes(t, p); why(a.Err) != RevokedHere {
		t.Errorf("revoked: %v", a.Err)
	}

	// What does not work for one works for none.
	o = newOther(t, f)
	o.keychain.failing(func(string, string) error { return &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked} })
	if _, err := o.Import(t.Context(), p); err == nil {
		t.Error("a locked keychain")
	}
	o.Importer.Registry = Registry{}
	if _, err := o.Import(t.Context(), p); !errors.Is(err, ErrNoState) {
		t.Error(err)
	}
	// One that fails does not keep the others from being taken.
	o = newOther(t, f)
	two := f.packed(t, rec, f.made(t, "another"))
	two = rewritten(t, two, func(p *parcelFile) { p.AppPasswords[0].Cloud = "moon" })
	all, err := o.Import(t.Context(), two)
	if err != nil || len(all) != 2 || why(all[0].Err) != UnknownCloud || all[1].Err != nil {
		t.Errorf("%+v %v", all, err)
	}
	o.agreed(t, 1)
}

// TestForget takes app passwords off a machine, with Entra left alone.
func TestForget(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		rec := f.made(t, "x")
		p := f.packed(t, rec)
		inEntra := len(f.sandbox.Credentials())
		stale := rec
		stale.Name = "older"
		if err := f.Forget(t.Context(), stale); why(err) != HasChanged {
			t.Errorf("one that was changed: %v", err)
		}
		f.keychain.failing(func(op, _ string) error {
			if op == "delete" {
				return errors.New("locked")
			}
			return nil
		})
		err := f.Forget(t.Context(), rec)
		if _, ok := errors.AsType[*HalfForgottenError](err); !ok {
			t.Fatal(err)
		}
		f.keychain.failing(nil)
		if s := f.state(t); len(s.AppPasswords) != 0 || len(s.Pending) != 1 {
			t.Errorf("%+v", s)
		}
		// It comes back before that was cleared away: nothing may delete it.
		back := Importer{Registry: f.Registry, Keychains: f.Keychains, Keychain: "file", Cloud: func(string) (config.Cloud, error) { return f.Profile.Cloud, nil }, Entra: func(config.Cloud, string) (*entra.Client, error) { return f.Entra, nil }, CertificateFile: func(string) string { return "" }}
		if all, err := back.Import(t.Context(), p); err != nil || all[0].Err != nil {
			t.Fatal(all, err)
		}
		if err := f.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Reveal(t.Context(), f.state(t).AppPasswords[0]); err != nil {
			t.Error(err)
		}
		// A kill after the entry: the next command deletes the item.
		if err := f.Registry.Update(t.Context(), func(s *State) error { s.remove(rec.ID); s.Pending = movedNotes(rec, time.Now()); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := f.RecoverLocal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.keychain.items[itemKey(rec.ID)]; ok || len(f.state(t).Pending) != 0 {
			t.Error("something is left")
		}
		another := f.made(t, "another")
		if err := f.Forget(t.Context(), another); err != nil {
			t.Fatal(err)
		}
		if s := f.state(t); len(s.AppPasswords)+len(s.Pending) != 0 {
			t.Errorf("%+v", s)
		}
		if got := len(f.sandbox.Credentials()); f.Profile.Backing == "" && got != inEntra+1 {
			t.Errorf("%d credentials in Entra, not %d", got, inEntra+1)
		}
	})
}

// TestMoveRotated moves an app password in the overlap of a rotation: both
// passwords are good there. One whose rotation is over but not finished stays
// where that can be done.
func TestMoveRotated(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		c, err := f.Create(t.Context(), f.request("x"))
		if err != nil {
			t.Fatal(err)
		}
		before := f.packed(t, c.Record)
		r, err := f.Rotate(t.Context(), "x", RotateRequest{Overlap: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		p := f.packed(t, r.Record)
		o := newOther(t, f)
		if a := o.takes(t, p); a.Err != nil {
			t.Fatal(a.Err)
		}
		v := o.serving(t)
		for _, password := range []secret.Text{c.Password, r.Password} {
			rec, _, err := v.Verify(t.Context(), "alice@contoso.com", password, "imap", home)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Token(t.Context(), rec.ID); err != nil {
				t.Error(err)
			}
		}
		if a := o.takes(t, p); a.Err != nil || !a.Here {
			t.Errorf("again: %+v", a)
		}
		if a := o.takes(t, before); why(a.Err) != RotatedHere {
			t.Errorf("an older one: %+v", a)
		}
		o = newOther(t, f)
		if a := o.takes(t, before); a.Err != nil {
			t.Fatal(a.Err)
		}
		if a := o.takes(t, p); why(a.Err) != RotatedThere {
			t.Errorf("a newer one: %+v", a)
		}
		over := r.Record
		over.Previous = over.asPrevious(time.Now().Add(-time.Minute))
		if _, err := f.Pack(t.Context(), []Record{over}); why(err) != IsRotating {
			t.Errorf("over: %v", err)
		}
		if err := f.Forget(t.Context(), r.Record); err != nil {
			t.Fatal(err)
		}
		for _, id := range r.Record.ids() {
			if _, ok := f.keychain.items[itemKey(id)]; ok {
				t.Errorf("the item of %s is left", id)
			}
		}
	})
}
