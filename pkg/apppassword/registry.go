package apppassword

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// Versions of the file. One that holds limits is of version 2, one that holds
// sign-ins, or app passwords on them or on a certificate, of version 3, one with an
// app password that is being rotated of version 4, and one with an app password
// that has its own way to send of version 5. Programs that do not know these refuse
// it: they would let more in than is allowed, or send another way, and write the
// registry without them. Others stay readable for those.
const (
	registryPlain   = 1
	registryLimits  = 2
	registrySignIns = 3
	registryRotated = 4
	registryVersion = 5 // the latest
)

// Registry is the file that holds what is not secret of all app passwords of
// all profiles. A missing file is an empty registry; a damaged one is an
// error and stays as it is.
type Registry struct {
	Dir string // the state folder; empty: there is none, and nothing can be kept
}

// ErrNoState tells that there is no state folder to keep something in.
var ErrNoState = errors.New("there is no folder to keep app passwords in: neither O365PW_STATE nor HOME is set")

// State is the registry's content.
type State struct {
	AppPasswords []Record
	SignIns      []SignIn
	Pending      []Pending
}

// Pending is the note a create leaves before it asks Graph for a credential,
// so that one that is killed leaves nothing nobody knows of. A revoke leaves one
// for a credential so young that Graph's reads may not have shown it yet.
type Pending struct {
	ID       string      `json:"id"`
	Name     string      `json:"name"`
	Profile  string      `json:"profile"`
	Tenant   string      `json:"tenant"`
	ClientID string      `json:"clientId"`
	Keychain string      `json:"keychain"`
	Since    time.Time   `json:"since"`
	Starts   []time.Time `json:"starts"`          // the start time of each credential asked for
	KeyID    string      `json:"keyId,omitempty"` // once Graph has answered
	// Watched notes are of commands that have ended well: a credential that may
	// still turn up (its answer was lost, or Graph had not shown it when it was
	// revoked) is removed then.
	Watched bool `json:"watched,omitzero"`
	// Decoy notes are of decoys, of which Graph knows nothing: KeyID names the
	// keychain item.
	Decoy bool `json:"decoy,omitzero"`
	// Backing is what was to stand behind it, where Graph knows as little of
	// that: user or certificate. KeyID names the keychain item.
	Backing string `json:"backing,omitempty"`
	// Moved notes are of app passwords that come from another machine, or have
	// left for one. They have a Backing of any kind: whatever it is, the keychain
	// item that KeyID names is all there is to delete, and Entra is left alone.
	Moved bool `json:"moved,omitzero"`
	// Trial notes are of trials, which hold a lock of their own while they run.
	Trial bool `json:"trial,omitzero"`
}

// local tells that what the note is about is on this machine alone.
func (p Pending) local() bool { return p.Decoy || p.Backing != "" }

type registryFile struct {
	Version      int       `json:"version"`
	AppPasswords []Record  `json:"appPasswords"`
	SignIns      []SignIn  `json:"signIns,omitempty"`
	Pending      []Pending `json:"pending,omitempty"`
}

// Path is the registry file.
func (r Registry) Path() string { return filepath.Join(r.Dir, "registry.json") }

// Load reads the registry.
func (r Registry) Load() (State, error) {
	if r.Dir == "" {
		return State{}, nil
	}
	b, err := os.ReadFile(r.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read the registry: %w", err)
	}
	var f registryFile
	if err := json.Unmarshal(b, &f); err != nil {
		if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("%s cannot be a %s (byte %d)", cmp.Or(te.Field, "the whole"), te.Value, te.Offset) // its own words are about Go
		}
		return State{}, &DamagedError{Path: r.Path(), Err: err}
	}
	if f.Version > registryVersion {
		return State{}, &NewerError{Path: r.Path(), Version: f.Version}
	}
	if f.Version < registryPlain {
		return State{}, &DamagedError{Path: r.Path(), Err: fmt.Errorf("it has no version")}
	}
	seen := map[string]bool{}
	for _, rec := range f.AppPasswords {
		if rec.ID == "" || seen[rec.ID] {
			return State{}, &DamagedError{Path: r.Path(), Err: fmt.Errorf("id %q is empty or there twice", rec.ID)}
		}
		seen[rec.ID] = true
		if rec.Previous == nil {
			continue
		}
		if id := rec.Previous.ID; id == "" || seen[id] {
			return State{}, &DamagedError{Path: r.Path(), Err: fmt.Errorf("the id %q of what was rotated is empty or there twice", id)}
		}
		seen[rec.Previous.ID] = true
	}
	for _, si := range f.SignIns {
		if si.ID == "" || seen[si.ID] {
			return State{}, &DamagedError{Path: r.Path(), Err: fmt.Errorf("the id %q of a sign-in is empty or there twice", si.ID)}
		}
		seen[si.ID] = true
	}
	return State{AppPasswords: f.AppPasswords, SignIns: f.SignIns, Pending: f.Pending}, nil
}

// Update changes the registry under its lock and writes it whole. An error of
// change leaves the file as it was.
func (r Registry) Update(ctx context.Context, change func(*State) error) error {
	if r.Dir == "" {
		return ErrNoState
	}
	unlock, err := durable.Lock(ctx, r.Path()+".lock")
	if err != nil {
		return fmt.Errorf("change the registry: %w", err)
	}
	defer unlock()
	s, err := r.Load()
	if err != nil {
		return err
	}
	if err := change(&s); err != nil {
		return err
	}
	f := registryFile{Version: s.version(), AppPasswords: s.AppPasswords, SignIns: s.SignIns, Pending: s.Pending}
	if f.AppPasswords == nil {
		f.AppPasswords = []Record{}
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("change the registry: %w", err)
	}
	if err := durable.WriteFile(r.Path(), append(b, '\n')); err != nil {
		return fmt.Errorf("change the registry: %w", err)
	}
	return nil
}

// DamagedError tells that the registry cannot be understood. It is left as it
// is, for a person to look at or to put back from a backup.
type DamagedError struct {
	Path string
	Err  error
}

// Error names the file and what is wrong with it.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("the registry %s is damaged: %v", e.Path, e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *DamagedError) Unwrap() error { return e.Err }

// NewerError tells that a newer version of this program has written the
// registry. It is left as it is.
type NewerError struct {
	Path    string
	Version int
}

// Error names the file and the two versions.
func (e *NewerError) Error() string {
	return fmt.Sprintf("the registry %s was written by a newer o365pw (version %d; this one knows %d)", e.Path, e.Version, registryVersion)
}

// version is the least that can express the content.
func (s *State) version() int {
	switch {
	case slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.Send != "" }):
		return registryVersion
	case slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.Previous != nil }):
		return registryRotated
	case len(s.SignIns) > 0,
		slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.Local() && !r.Decoy }),
		slices.ContainsFunc(s.Pending, func(p Pending) bool { return p.Backing != "" }):
		return registrySignIns
	case slices.ContainsFunc(s.AppPasswords, Record.limited), slices.ContainsFunc(s.Pending, func(p Pending) bool { return p.Decoy }):
		return registryLimits
	}
	return registryPlain
}

// limited says whether the record has limits, which version 1 does not know.
func (r Record) limited() bool {
	return r.ReadOnly || len(r.From) > 0 || r.MaxPerHour > 0 || r.LoginName != "" || r.Decoy
}

// remove takes the record out.
func (s *State) remove(id string) {
	s.AppPasswords = slices.DeleteFunc(s.AppPasswords, func(r Record) bool { return r.ID == id })
}

// mark notes that the app passwords are revoked, where that is not noted yet. They
// may have been rotated meanwhile.
func (s *State) mark(ids []string, now time.Time) {
	for _, id := range ids {
		if r := s.holder(id); r != nil && r.Revoked.IsZero() {
			r.Revoked = now.UTC().Truncate(time.Second)
		}
	}
}

// put adds the record or replaces the one of its id.
func (s *State) put(rec Record) {
	if i := slices.IndexFunc(s.AppPasswords, func(r Record) bool { return r.ID == rec.ID }); i >= 0 {
		s.AppPasswords[i] = rec
		return
	}
	s.AppPasswords = append(s.AppPasswords, rec)
}

// note adds the note or replaces the one of its id.
func (s *State) note(p Pending) {
	s.forget(p)
	s.Pending = append(s.Pending, p)
}

// forgetMoved takes out the notes of moves about these keychain items.
func (s *State) forgetMoved(ids []string) {
	s.Pending = slices.DeleteFunc(s.Pending, func(p Pending) bool { return p.Moved && slices.Contains(ids, p.KeyID) })
}

// record is the app password of that id in the state, nil where there is none.
func (s *State) record(id string) *Record {
	i := slices.IndexFunc(s.AppPasswords, func(r Record) bool { return strings.EqualFold(r.ID, id) })
	if i < 0 {
		return nil
	}
	return &s.AppPasswords[i]
}

func (s *State) forget(p Pending) {
	s.Pending = slices.DeleteFunc(s.Pending, func(q Pending) bool { return p.ID == q.ID })
}

// signIn is the sign-in of that id in the state, nil where there is none.
func (s *State) signIn(id string) *SignIn {
	i := slices.IndexFunc(s.SignIns, func(si SignIn) bool { return si.ID == id })
	if i < 0 {
		return nil
	}
	return &s.SignIns[i]
}

// putSignIn adds the sign-in or replaces the one of its id.
func (s *State) putSignIn(si SignIn) {
	if now := s.signIn(si.ID); now != nil {
		*now = si
		return
	}
	s.SignIns = append(s.SignIns, si)
}

func (s *State) removeSignIn(id string) {
	s.SignIns = slices.DeleteFunc(s.SignIns, func(si SignIn) bool { return si.ID == id })
}

// usesSignIn tells whether a profile or an app password stands on the sign-in.
func (s *State) usesSignIn(id string) bool {
	si := s.signIn(id)
	return si != nil && len(si.Profiles) > 0 || slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.SignIn == id })
}
