// Package secret keeps the program's secrets: a type for them that cannot be
// printed, and two places where they last, the keychain of the operating
// system ([System]) and a file encrypted with age ([File]).
//
// A secret is never written anywhere in clear, and no keychain falls back to
// another one by itself: when the one that was chosen cannot be used, the
// caller gets an [UnavailableError] that says why.
//
// Values are UTF-8 text of at most 64 KiB, keys are short printable names. A
// value is kept whole or not at all: whatever kills a Set, its reader finds
// the old value or the new one.
//
// Limits: the secrets are in this process's memory in clear, where a debugger
// of the same user finds them. A keychain cannot list what it holds. Nothing
// here stops somebody who may write the file keychain from putting an older
// copy of it back.
package secret

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNotFound is returned, wrapped, by Get and Delete where the keychain
// answers and holds nothing under the key.
var ErrNotFound = errors.New("no such secret in the keychain")

// Keychain holds secrets under keys. All methods may be called by several
// goroutines, and several processes may use one keychain. Each honours ctx
// and returns its error, wrapped, when it ends first.
//
// Get and Delete return an error that is ErrNotFound where there is nothing
// under key, and all return an *UnavailableError where the keychain cannot be
// used; with Reason Damaged or Failed other keys may still work.
type Keychain interface {
	// Get returns the value kept under key.
	Get(ctx context.Context, key string) (Text, error)
	// Set keeps value under key in place of what was there. An empty value
	// is refused. After an error the old value is still there, except that
	// after a time-out the new one may be.
	Set(ctx context.Context, key string, value Text) error
	// Delete removes what is kept under key.
	Delete(ctx context.Context, key string) error
	// String names the keychain as a person knows it.
	String() string
}

// Reason says why a keychain cannot be used.
type Reason string

// The reasons. What a person can do about each differs, so callers that give
// hints switch on them.
const (
	NoSession       Reason = "no-session"       // no D-Bus session bus: an SSH login, a container, cron
	NoService       Reason = "no-service"       // nothing on the bus keeps secrets, or it has no keyring yet
	Locked          Reason = "locked"           // the keyring is locked and nobody unlocked it
	Timeout         Reason = "timeout"          // no answer in time; it may be waiting for a person
	NoPassphrase    Reason = "no-passphrase"    // the encrypted file needs one and none was given
	WrongPassphrase Reason = "wrong-passphrase" // the encrypted file does not open with the one given
	Damaged         Reason = "damaged"          // what is stored cannot be what was written
	TooBig          Reason = "too-big"          // more than the keychain holds
	Unsupported     Reason = "unsupported"      // no keychain on this system, or a newer format
	Failed          Reason = "failed"           // anything else; Err says what
)

var reasonTexts = map[Reason]string{
	NoSession:       "there is no session bus (D-Bus) to reach it by",
	NoService:       "no Secret Service is running, or it has no keyring yet",
	Locked:          "it is locked",
	Timeout:         "it does not answer, it may be waiting for you to unlock it",
	NoPassphrase:    "no passphrase was given",
	WrongPassphrase: "wrong passphrase",
	Damaged:         "damaged",
	TooBig:          "too big",
	Unsupported:     "not supported",
	Failed:          "failed",
}

// UnavailableError is returned where a keychain cannot be used. Neither its
// text nor Err ever holds a secret.
type UnavailableError struct {
	Keychain string // which one, by its String
	Reason   Reason
	Err      error // the cause; may be nil
}

// Error names the keychain, the reason in words, and the cause.
func (e *UnavailableError) Error() string {
	text, ok := reasonTexts[e.Reason]
	if !ok {
		text = string(e.Reason)
	}
	if e.Err == nil {
		return e.Keychain + ": " + text
	}
	return e.Keychain + ": " + text + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Bounds that hold for both keychains, so that a configuration does not work
// with one and fail with the other. maxKey leaves room for the key in the
// command line that go-keyring writes on macOS, whatever needs quoting there.
const (
	maxKey   = 255
	maxValue = 64 << 10
)

// checkKey refuses what a platform would store under another name or not at
// all: XML (KeePassXC) and the command line (macOS) take no control characters.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key of a secret is empty")
	case len(key) > maxKey:
		return fmt.Errorf("the key of a secret is %d bytes long, at most %d are possible", len(key), maxKey)
	case !utf8.ValidString(key), strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("the key %q of a secret holds control characters or is not UTF-8", key)
	}
	return nil
}

// checkValue refuses what would not come back as it went in. An empty value
// is a mistake of the caller's that would replace a good one.
func checkValue(keychain, key string, value Text) error {
	s := value.Reveal()
	switch {
	case s == "":
		return fmt.Errorf("keep %q in the keychain: the secret is empty", key)
	case !utf8.ValidString(s):
		return fmt.Errorf("keep %q in the keychain: the secret is not UTF-8 text", key)
	case len(s) > maxValue:
		return &UnavailableError{Keychain: keychain, Reason: TooBig,
			Err: fmt.Errorf("the secret %q has %d bytes, at most %d are kept", key, len(s), maxValue)}
	}
	return nil
}
