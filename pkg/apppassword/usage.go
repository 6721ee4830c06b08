package apppassword

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

const (
	usageVersion = 1

	// usageInterval is the shortest time between two writes: a last use is no
	// older on the disk than this, and a busy gateway does not wear it out.
	usageInterval = time.Minute
	// usageEnd bounds a write, for which a gateway that stops waits.
	usageEnd = 5 * time.Second
)

// errUsageDamaged tells that the file holds nothing that can be understood.
var errUsageDamaged = errors.New("the last uses are damaged")

// LastUse is the last sign-in that was accepted. The zero value is none.
type LastUse struct {
	Time     time.Time `json:"lastUsed"`
	Protocol string    `json:"protocol"` // imap, pop3, smtp
	Address  string    `json:"address"`  // of the mail client, without its port
}

// Usage is the file that holds the last use of each app password. It is apart
// from the registry, whose records must not change when they are used, and it
// is convenience only: one that is damaged is written anew.
type Usage struct {
	Dir string // the state folder; empty: there is none
}

// UsageState is the content of the file.
type UsageState struct {
	LastUse map[string]LastUse // by id
	// Told is the number of days before its end that the owner of an app
	// password was last told of, by id.
	Told map[string]int
	// Protocols is when an app password was last used over each protocol, by id
	// and protocol. Of one that was used before this was noted, all count as
	// used then.
	Protocols map[string]map[string]time.Time
	// Since is from when on last uses are known; zero: none was ever noted, or
	// by a version that did not note this.
	Since time.Time
}

// note notes a use over a protocol.
func (s UsageState) note(id, protocol string, at time.Time) {
	if s.Protocols[id] == nil {
		s.Protocols[id] = map[string]time.Time{}
	}
	if at.After(s.Protocols[id][protocol]) {
		s.Protocols[id][protocol] = at
	}
}

// noteAll notes all uses of others.
func (s UsageState) noteAll(others map[string]map[string]time.Time) {
	for id, uses := range others {
		for protocol, at := range uses {
			s.note(id, protocol, at)
		}
	}
}

// KnownSince is from when on last uses are known, at the latest: zero where none
// is.
func (s UsageState) KnownSince() time.Time {
	since := s.Since
	for _, u := range s.LastUse {
		if since.IsZero() || u.Time.Before(since) {
			since = u.Time
		}
	}
	return since
}

type usageFile struct {
	Version      int                `json:"version"`
	AppPasswords map[string]LastUse `json:"appPasswords"`
	Told         map[string]int     `json:"told,omitempty"`
	// Protocols is always there: a file without was written by a program that
	// does not note them, or loses them.
	Protocols map[string]map[string]time.Time `json:"protocols"`
	Since     time.Time                       `json:"since,omitzero"`
}

// Path is the usage file.
func (u Usage) Path() string { return filepath.Join(u.Dir, "usage.json") }

// Load reads the file. One that is not there is empty; one that cannot be
// understood is an error, beside which the state is empty.
func (u Usage) Load() (UsageState, error) {
	s := UsageState{LastUse: map[string]LastUse{}, Told: map[string]int{}, Protocols: map[string]map[string]time.Time{}}
	if u.Dir == "" {
		return s, nil
	}
	b, err := os.ReadFile(u.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the last uses: %w", err)
	}
	var f usageFile
	if err := json.Unmarshal(b, &f); err != nil {
		return s, fmt.Errorf("%w: %s: %w", errUsageDamaged, u.Path(), err)
	}
	if f.Version != usageVersion {
		return s, fmt.Errorf("%w: %s has version %d, and this program knows %d", errUsageDamaged, u.Path(), f.Version, usageVersion)
	}
	maps.Copy(s.LastUse, f.AppPasswords)
	maps.Copy(s.Told, f.Told)
	s.Since = f.Since
	s.noteAll(f.Protocols)
	if f.Protocols == nil {
		for id, use := range s.LastUse {
			for _, p := range protocols {
				s.note(id, p, use.Time)
			}
		}
	}
	return s, nil
}

func (u Usage) write(s UsageState) error {
	b, err := json.MarshalIndent(usageFile{Version: usageVersion, AppPasswords: s.LastUse, Told: s.Told, Protocols: s.Protocols, Since: s.Since}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the last uses: %w", err)
	}
	if err := durable.WriteFile(u.Path(), append(b, '\n')); err != nil {
		return fmt.Errorf("write the last uses: %w", err)
	}
	return nil
}

// UsageRecorder notes last uses for a running gateway, and writes them down
// now and then. Its methods may be called from several goroutines.
type UsageRecorder struct {
	Usage    Usage
	Registry Registry     // what it lacks is forgotten
	Log      *slog.Logger // nil: nothing is logged

	mu        sync.Mutex
	wake      chan struct{} // holds one value once something is to be written
	hurried   chan struct{} // holds one value once that is not to wait
	lastUse   map[string]LastUse
	protocols UsageState // of which only Protocols
	told      map[string]int
	dirty     bool // something is not written yet
	failing   bool // the last write failed, which was logged
}

// clockSlack is how far clocks may be apart.
const clockSlack = time.Minute

// precedes tells whether use takes the place of u: it is not older, or u comes
// from a clock that was wrong.
func (u LastUse) precedes(use LastUse) bool {
	return !use.Time.Before(u.Time) || u.Time.After(time.Now().Add(clockSlack))
}

// Note notes a sign-in that was accepted. It writes nothing itself. A use that
// is older than the one noted counts for nothing, unless that one is of a time
// that is still to come. It tells whether this recorder sees the app password
// used over that protocol for the first time.
func (r *UsageRecorder) Note(id string, use LastUse) (first bool) {
	use.Time = use.Time.UTC().Truncate(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.protocols.Protocols == nil {
		r.protocols.Protocols = map[string]map[string]time.Time{}
	}
	_, before := r.protocols.Protocols[id][use.Protocol]
	r.protocols.note(id, use.Protocol, use.Time)
	r.noteLast(id, use)
	return !before
}

// NoteLast notes a use of what stands behind an app password without the password,
// which hence says nothing of whether a mail program has the new one where it is
// being rotated.
func (r *UsageRecorder) NoteLast(id string, use LastUse) {
	use.Time = use.Time.UTC().Truncate(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLast(id, use)
}

// noteLast is NoteLast and a part of Note. The caller holds the lock.
func (r *UsageRecorder) noteLast(id string, use LastUse) {
	if r.lastUse == nil {
		r.lastUse = map[string]LastUse{}
	}
	if r.lastUse[id].precedes(use) {
		r.lastUse[id] = use
	}
	r.changed()
}

// Seen is when the app password was last used over each protocol, also before the
// gateway was started.
func (r *UsageRecorder) Seen(id string) map[string]time.Time {
	s, err := r.Usage.Load()
	if err != nil {
		return nil // which is logged when it is written; no overlap ends for want of it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.noteAll(map[string]map[string]time.Time{id: r.protocols.Protocols[id]})
	return s.Protocols[id]
}

// Hurry has what was noted written at once, for others to read.
func (r *UsageRecorder) Hurry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.hurry() <- struct{}{}:
	default:
	}
}

// NoteTold notes that the owner of an app password has been told that it ends
// in so many days.
func (r *UsageRecorder) NoteTold(id string, days int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]int{}
	}
	r.told[id] = days
	r.changed()
}

// Told is what the owner of an app password was last told, also before the
// gateway was started; false: nothing yet.
func (r *UsageRecorder) Told(id string) (days int, ok bool) {
	r.mu.Lock()
	days, ok = r.told[id]
	r.mu.Unlock()
	if !ok {
		s, _ := r.Usage.Load() // what cannot be read is logged when it is written
		days, ok = s.Told[id]
	}
	return days, ok
}

// changed wakes Run. The caller holds the lock.
func (r *UsageRecorder) changed() {
	r.dirty = true
	select {
	case r.woken() <- struct{}{}:
	default:
	}
}

// woken is the channel that wakes Run. The caller holds the lock.
func (r *UsageRecorder) woken() chan struct{} {
	if r.wake == nil {
		r.wake = make(chan struct{}, 1)
	}
	return r.wake
}

// hurry is the channel that ends a pause. The caller holds the lock.
func (r *UsageRecorder) hurry() chan struct{} {
	if r.hurried == nil {
		r.hurried = make(chan struct{}, 1)
	}
	return r.hurried
}

// Run writes what was noted, at most once a minute unless it is asked to hurry,
// and when ctx ends. What cannot be written is logged once and tried again a minute later.
func (r *UsageRecorder) Run(ctx context.Context) {
	r.mu.Lock()
	wake, hurry := r.woken(), r.hurry()
	r.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
		case <-wake:
		}
		last := ctx.Err() != nil
		r.save(ctx)
		if last {
			return
		}
		select {
		case <-ctx.Done():
		case <-hurry:
		case <-time.After(usageInterval):
		}
	}
}

// save writes what was noted, also when ctx ends meanwhile: the gateway waits
// for that, for usageEnd at most. On a failure Run is woken again.
func (r *UsageRecorder) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), usageEnd)
	defer cancel()
	r.mu.Lock()
	noted := UsageState{LastUse: maps.Clone(r.lastUse), Told: maps.Clone(r.told), Protocols: map[string]map[string]time.Time{}}
	noted.noteAll(r.protocols.Protocols)
	dirty := r.dirty
	r.dirty = false
	r.mu.Unlock()
	if !dirty {
		return
	}
	err := r.merge(ctx, noted)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if !r.failing {
			r.log().Error("last uses cannot be written down; it is tried again every minute", "error", err)
		}
		r.changed()
	}
	r.failing = err != nil
}

// merge brings the file up to date, and forgets what the registry lacks.
func (r *UsageRecorder) merge(ctx context.Context, noted UsageState) error {
	if r.Usage.Dir == "" {
		return ErrNoState
	}
	unlock, err := durable.Lock(ctx, r.Usage.Path()+".lock")
	if err != nil {
		return fmt.Errorf("write the last uses: %w", err)
	}
	defer unlock()
	_, missing := os.Stat(r.Usage.Path())
	s, damage := r.Usage.Load()
	if damage != nil && !errors.Is(damage, errUsageDamaged) {
		return damage
	}
	if damage != nil || errors.Is(missing, fs.ErrNotExist) {
		s.Since = time.Now().UTC().Truncate(time.Second)
	}
	for id, use := range noted.LastUse {
		if s.LastUse[id].precedes(use) {
			s.LastUse[id] = use
		}
	}
	maps.Copy(s.Told, noted.Told)
	s.noteAll(noted.Protocols)
	// A registry that cannot be read says nothing about what it lacks.
	if reg, err := r.Registry.Load(); err == nil {
		known := reg.ids()
		maps.DeleteFunc(s.LastUse, func(id string, _ LastUse) bool { return !known[id] })
		maps.DeleteFunc(s.Told, func(id string, _ int) bool { return !known[id] })
		maps.DeleteFunc(s.Protocols, func(id string, _ map[string]time.Time) bool { return !known[id] })
	}
	if since := s.KnownSince(); !s.Since.IsZero() {
		s.Since = since
	}
	if err := r.Usage.write(s); err != nil {
		return err
	}
	if damage != nil {
		r.log().Error("the last uses of before are lost", "error", damage)
	}
	return nil
}

func (r *UsageRecorder) log() *slog.Logger {
	if r.Log != nil {
		return r.Log
	}
	return slog.New(slog.DiscardHandler)
}
