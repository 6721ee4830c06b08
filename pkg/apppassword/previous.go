package apppassword

import (
	"context"
	"slices"
	"time"
)

// Previous is the credential that a rotation has replaced: what of its record is
// not the same as the new one's. Its keychain item is named by its ID. Its
// password is good until the overlap is over.
type Previous struct {
	ID       string    `json:"id"` // the Entra keyId where the backing is secret
	Hint     string    `json:"hint"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Verified bool      `json:"verified,omitzero"`
	// Until is the end of the overlap: from then on the password is refused.
	Until time.Time `json:"until"`
	// Ended is when the password was shut out, be it before Until; zero: it was
	// not noted yet. What is left of it then is to be removed.
	Ended time.Time `json:"ended,omitzero"`
}

// Over tells whether the password is refused at that time.
func (p Previous) Over(now time.Time) bool { return !p.Ended.IsZero() || !now.Before(p.Until) }

// previous is the record as it was before the rotation, to the last field, so
// that sessions signed in under it go on.
func (r Record) previous() Record {
	p := r.Previous
	r.ID, r.Hint, r.Created, r.Expires, r.Verified, r.Previous = p.ID, p.Hint, p.Created, p.Expires, p.Verified, nil
	return r
}

// asPrevious is what a rotation keeps of the record, with an overlap until then, or at
// most until its own end.
func (r Record) asPrevious(until time.Time) *Previous {
	if !r.Expires.IsZero() && r.Expires.Before(until) {
		until = r.Expires
	}
	return &Previous{ID: r.ID, Hint: r.Hint, Created: r.Created, Expires: r.Expires, Verified: r.Verified, Until: until.UTC().Truncate(time.Second)}
}

// is tells whether the id is the app password's, or was until its rotation.
func (r Record) is(id string) bool { return r.ID == id || r.Previous != nil && r.Previous.ID == id }

// ids are that of the record, and that of what it has replaced.
func (r Record) ids() []string {
	if r.Previous == nil {
		return []string{r.ID}
	}
	return []string{r.ID, r.Previous.ID}
}

// overlap tells whether there is something left of what a rotation replaced.
// Revoke sees to what is revoked.
func (r Record) overlap() bool { return r.Previous != nil && r.Revoked.IsZero() }

// takenOver tells whether the mail program has been seen with the new password
// wherever it was seen with the old one: many keep one for reading and one for
// sending. seen gives when an id was last used, by protocol.
func (r Record) takenOver(seen func(id string) map[string]time.Time) bool {
	now := seen(r.ID)
	if len(now) == 0 {
		return false
	}
	for p := range seen(r.Previous.ID) {
		if _, ok := now[p]; !ok && slices.Contains(r.Allow, p) {
			return false
		}
	}
	return true
}

// holder is the record of that id, or the one that has it as its Previous; nil
// where there is none.
func (s *State) holder(id string) *Record {
	i := slices.IndexFunc(s.AppPasswords, func(r Record) bool { return r.is(id) })
	if i < 0 {
		return nil
	}
	return &s.AppPasswords[i]
}

// named tells whether the record's profile has an app password of its name.
func (s *State) named(rec Record) bool {
	return slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return r.Profile == rec.Profile && sameName(r.Name, rec.Name) })
}

// ids are all that app passwords have, and had until their rotation.
func (s *State) ids() map[string]bool {
	all := map[string]bool{}
	for _, r := range s.AppPasswords {
		for _, id := range r.ids() {
			all[id] = true
		}
	}
	return all
}

// withdraw takes out what was to be the credential of that id: with it goes the
// app password, or, where it came of a rotation, what it replaced is back.
func (s *State) withdraw(id string) {
	i := slices.IndexFunc(s.AppPasswords, func(r Record) bool { return r.ID == id })
	switch {
	case i < 0:
	case s.AppPasswords[i].Previous != nil:
		s.AppPasswords[i] = s.AppPasswords[i].previous()
	default:
		s.remove(id)
	}
}

// end notes that the old password of that id is shut out. It tells false where
// that was noted, or the id is no old one's any more.
func (s *State) end(id string, now time.Time) (Record, bool) {
	r := s.holder(id)
	if r == nil || r.ID == id || !r.Previous.Ended.IsZero() {
		return Record{}, false
	}
	p := *r.Previous // others may hold it
	p.Ended = now.UTC().Truncate(time.Second)
	r.Previous = &p
	return *r, true
}

// Why an old password was shut out.
const (
	EndTakenOver = "the mail program has been seen with the new one"
	EndOverlap   = "the overlap is over"
	EndAsked     = "it was asked for"
)

// Ended is an old password that was shut out. Its Record has it as its Previous.
type Ended struct {
	Record Record
	Why    string
}

// EndOverlaps shuts out, in the registry, the old passwords whose overlap is
// over, or whose mail program has been seen with the new one wherever it was seen
// with the old one, and returns them. seen gives when an id was last used, by
// protocol. What is left of them is for [Manager.FinishRotations] to remove. It
// writes only where there is something to write.
func EndOverlaps(ctx context.Context, registry Registry, seen func(id string) map[string]time.Time, now time.Time) ([]Ended, error) {
	s, err := registry.Load()
	if err != nil {
		return nil, err
	}
	over := func(r Record) (why string) {
		switch {
		case !r.overlap() || !r.Previous.Ended.IsZero():
			return ""
		case !now.Before(r.Previous.Until):
			return EndOverlap
		case r.takenOver(seen):
			return EndTakenOver
		}
		return ""
	}
	if !slices.ContainsFunc(s.AppPasswords, func(r Record) bool { return over(r) != "" }) {
		return nil, nil
	}
	var ended []Ended
	err = registry.Update(ctx, func(s *State) error {
		for _, r := range slices.Clone(s.AppPasswords) {
			if why := over(r); why != "" {
				rec, _ := s.end(r.Previous.ID, now)
				ended = append(ended, Ended{rec, why})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}
