package apppassword

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Pack puts app passwords of this machine into a parcel for another one, with
// what stands behind each: its client secret, the person's sign-in, the
// certificate with its key. A certificate in a PEM file does not travel, which
// Warn is told. Nothing is changed here, and nobody else is asked. Errors: a
// [*MoveError] of one that is revoked or was lost, [*SignInError],
// [*CertificateError], and those of secret.
func (m *Manager) Pack(ctx context.Context, recs []Record) (Parcel, error) {
	p := Parcel{Made: m.now().UTC(), Clouds: map[string]string{}, secrets: map[string]secrets{}, signIns: map[string]movedSignIn{}, certificates: map[string]movedCertificate{}}
	s, err := m.Registry.Load()
	if err != nil {
		return Parcel{}, err
	}
	for _, rec := range recs {
		if !rec.Revoked.IsZero() {
			return Parcel{}, &MoveError{Record: rec, Why: IsRevoked}
		}
		if rec.Previous != nil && rec.Previous.Over(m.now()) { // here is who can tell Entra
			return Parcel{}, &MoveError{Record: rec, Why: IsRotating}
		}
		k, err := m.Keychains(rec.Keychain)
		if err != nil {
			return Parcel{}, err
		}
		for _, id := range rec.ids() {
			if p.secrets[id], err = loadSecrets(ctx, k, id); errors.Is(err, secret.ErrNotFound) {
				return Parcel{}, &MoveError{Record: rec, Why: IsLost}
			} else if err != nil {
				return Parcel{}, fmt.Errorf("read the app password %q: %w", rec.Name, err)
			}
		}
		switch rec.Backing {
		case BackingUser:
			err = p.packSignIn(ctx, m, s, rec)
		case BackingCertificate:
			err = p.packCertificate(ctx, m, k, rec)
		}
		if err != nil {
			return Parcel{}, err
		}
		if _, builtin := config.BuiltinCloud(rec.Cloud); !builtin && rec.Cloud == m.Profile.Cloud.Name {
			p.Clouds[rec.Cloud] = m.Profile.Cloud.Table()
		}
		rec.Keychain, rec.Arrived = "", time.Time{}
		p.Records = append(p.Records, rec)
	}
	return p, p.readable()
}

// readable reads the parcel as another machine will: what nobody could take must
// not be all that is left of an app password.
func (p Parcel) readable() error {
	text, err := p.Text()
	if err == nil {
		_, err = ParseParcel(text)
	}
	return err
}

func (p Parcel) packSignIn(ctx context.Context, m *Manager, s State, rec Record) error {
	if _, packed := p.signIns[rec.SignIn]; packed {
		return nil
	}
	si := s.signIn(rec.SignIn)
	if si == nil || si.Since.IsZero() {
		return &SignInError{Profile: rec.Profile}
	}
	if !si.Ended.IsZero() { // no machine would take it
		return &SignInError{Profile: rec.Profile, Username: si.Username, Err: errors.New(si.Why)}
	}
	store, err := newSignInStore(m.Registry, m.Keychains, *si)
	if err != nil {
		return err
	}
	refresh, err := store.Load(ctx)
	if errors.Is(err, secret.ErrNotFound) {
		return &SignInError{Profile: rec.Profile, Username: si.Username, Err: err}
	}
	if err != nil {
		return fmt.Errorf("read the sign-in behind %q: %w", rec.Name, err)
	}
	moved := *si
	moved.Profiles, moved.Keychain, moved.Former = nil, "", ""
	p.signIns[si.ID] = movedSignIn{moved, refresh}
	return nil
}

func (p Parcel) packCertificate(ctx context.Context, m *Manager, k secret.Keychain, rec Record) error {
	if _, packed := p.certificates[certificatePlace(rec)]; packed {
		return nil
	}
	cert, err := LoadCertificate(ctx, k, rec.ClientID, rec.Certificate)
	if err != nil {
		return err
	}
	moved := movedCertificate{digest: digest(cert)}
	if rec.Certificate == "" {
		moved.pem = cert.PEM()
	} else {
		m.warn("the certificate behind %q does not travel, since it is in a file: put %s on the other machine, and name it in a profile there", rec.Name, rec.Certificate)
	}
	p.certificates[certificatePlace(rec)] = moved
	return nil
}

// digest is the SHA-256, in hex, of a certificate with its private key.
func digest(cert entra.Certificate) string {
	sum := sha256.Sum256([]byte(cert.PEM().Reveal()))
	return hex.EncodeToString(sum[:])
}

// Forget takes an app password off this machine that another one has got, and
// leaves Entra alone, where its credential stays good. The entry goes first, with
// a note in the same write that names the keychain item; then the item, then the
// note:
//
//	registry → keychain → registry
//
// A kill leaves the app password as it was, or a note by which the next create
// or revoke deletes the item. One that was changed since rec was read is a
// [*MoveError], and stays. A [*HalfForgottenError] is one whose item is left.
func (m *Manager) Forget(ctx context.Context, rec Record) error {
	unlock, err := durable.Lock(ctx, m.Registry.createLock(rec.Profile))
	if err != nil {
		return err
	}
	defer unlock()
	err = m.Registry.Update(ctx, func(s *State) error {
		now := s.record(rec.ID)
		if now == nil || now.Revision() != rec.Revision() || !slices.Equal(now.ids(), rec.ids()) {
			return &MoveError{Record: rec, Why: HasChanged}
		}
		s.remove(rec.ID)
		for _, n := range movedNotes(rec, m.now()) {
			s.note(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	for _, id := range rec.ids() {
		if err := m.deleteItem(ctx, rec.Keychain, id); err != nil {
			return &HalfForgottenError{Name: rec.Name, Err: err}
		}
	}
	err = m.Registry.Update(ctx, func(s *State) error { s.forgetMoved(rec.ids()); return nil })
	if err != nil {
		return &HalfForgottenError{Name: rec.Name, Err: err}
	}
	if rec.SignIn != "" {
		m.sweepSignIns(ctx)
	}
	return nil
}

// movedNotes name the keychain items of a record that comes or leaves.
func movedNotes(rec Record, now time.Time) []Pending {
	var notes []Pending
	for _, id := range rec.ids() {
		notes = append(notes, Pending{ID: uuid.NewString(), Name: rec.Name, Profile: rec.Profile, Tenant: rec.Tenant, ClientID: rec.ClientID,
			Keychain: rec.Keychain, Since: now.UTC(), KeyID: id, Backing: rec.Backing, Moved: true})
	}
	return notes
}

// NotMoved says why an app password cannot be moved.
type NotMoved string

// The reasons: on the machine that it is to leave, and on the one it is to go to.
const (
	IsRevoked          NotMoved = "it is revoked, and opens nothing"
	IsRotating         NotMoved = "its rotation is not finished: what it had before is over, but still there"
	IsLost             NotMoved = "the keychain does not hold it any more"
	HasChanged         NotMoved = "it was changed meanwhile"
	NameIsTaken        NotMoved = "another app password here has its name"
	DiffersHere        NotMoved = "it is here already, but not the same"
	RotatedHere        NotMoved = "it is here already, and was rotated here"
	RotatedThere       NotMoved = "it is here already, as it was before its rotation"
	RevokedHere        NotMoved = "it is here already, and revoked"
	UnknownCloud       NotMoved = "its cloud is not in this machine's configuration"
	NoCertificate      NotMoved = "the certificate that it stands on is in a file, and none of this machine's profiles names the same one"
	CertificateRefused NotMoved = "Entra does not know the certificate that it stands on"
	SignInEnded        NotMoved = "Entra does not take its sign-in any more"
	OtherCertificate   NotMoved = "it stands on another certificate than the one that this machine has for the application"
)

// MoveError tells why an app password was not moved.
type MoveError struct {
	Record Record
	Why    NotMoved
	Taken  Record // of NameIsTaken: the one that is here
	Table  string // of UnknownCloud: the table to add; empty where it is not known
	Err    error  // may be nil
}

// Error names the app password and the reason.
func (e *MoveError) Error() string {
	text := fmt.Sprintf("%q cannot be moved: %s", shorten(e.Record.Name), e.Why)
	switch e.Why {
	case NameIsTaken:
		text += " (" + e.Taken.ID + ")"
	case UnknownCloud:
		text += fmt.Sprintf(" (%q)", e.Record.Cloud)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives the cause, which may be nil.
func (e *MoveError) Unwrap() error { return e.Err }

// HalfForgottenError tells that this machine does not use an app password any
// more, but that something of it is still here. The next create or revoke of the
// profile removes it.
type HalfForgottenError struct {
	Name string
	Err  error
}

// Error says what is done and what is left.
func (e *HalfForgottenError) Error() string {
	return fmt.Sprintf("%q is no longer used here, but its item could not be taken out of the keychain: %v", e.Name, e.Err)
}

// Unwrap gives the cause.
func (e *HalfForgottenError) Unwrap() error { return e.Err }

// sameApplication tells whether two records are listed together.
func sameApplication(a, b Record) bool {
	return a.Profile == b.Profile || strings.EqualFold(a.ClientID, b.ClientID)
}
