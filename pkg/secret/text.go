package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that is ever printed of a Text.
const redacted = "[secret]"

// errMarshal is what every marshaller gets: a secret that is to be kept goes
// through a Keychain, one that is to be sent through Reveal.
var errMarshal = errors.New("a secret cannot be marshalled; use Reveal where it is meant to leave the program")

// Text is a secret string: a password, a token, a private key. It cannot be
// printed, logged or marshalled by accident, neither by itself nor as a field
// of something else; Reveal is the only way to what it holds. The zero value
// is the empty secret.
//
// Texts are copied freely and never change. They cannot be compared with ==,
// which does not compile; use Equal.
type Text struct {
	// A pointer, since fmt walks through unexported fields of other types by
	// reflection without asking for methods: it prints the address of a
	// string below the top level, never what is there.
	s *string
	_ [0]func() // not comparable
}

// New returns s as a secret.
func New(s string) Text { return Text{s: &s} }

// Reveal returns the secret itself. Call it at the point of use only: where
// the bytes go to the wire, to the keychain, or to the person who asked.
func (t Text) Reveal() string {
	if t.s == nil {
		return ""
	}
	return *t.s
}

// IsZero reports whether the secret is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether t and u hold the same secret. The time it takes tells
// nothing about where they differ. Two empty secrets are equal: a caller that
// checks a password refuses an empty one first.
func (t Text) Equal(u Text) bool {
	a, b := sha256.Sum256([]byte(t.Reveal())), sha256.Sum256([]byte(u.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns "[secret]".
func (t Text) String() string { return redacted }

// GoString returns "[secret]".
func (t Text) GoString() string { return redacted }

// Format implements fmt.Formatter: every verb prints "[secret]".
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer: the value logged is "[secret]".
func (t Text) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails. It stands for XML, YAML and TOML as well, and for
// keys of JSON objects.
func (t Text) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalJSON always fails.
func (t Text) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalYAML always fails.
func (t Text) MarshalYAML() (any, error) { return nil, errMarshal }

// MarshalBinary always fails. It stands for gob as well.
func (t Text) MarshalBinary() ([]byte, error) { return nil, errMarshal }
