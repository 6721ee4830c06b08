// Package audit keeps the log of what was done to app passwords and with them:
// one JSON object a line, appended only, each carrying the hash of the line
// before, so that a change of what was written shows. It holds metadata, never
// a secret.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Event is what happened.
type Event string

// The events. Lost and Repaired are about the log itself.
const (
	Created       Event = "created"        // an app password was made
	Shown         Event = "shown"          // its password was shown or copied
	TokenIssued   Event = "token-issued"   // another program was given an access token by it
	Rotated       Event = "rotated"        // it got a new credential
	Retired       Event = "retired"        // its old password was shut out, after it was rotated
	Exported      Event = "exported"       // it was sealed for another machine
	Forgotten     Event = "forgotten"      // it was taken off this machine, and not revoked
	Imported      Event = "imported"       // it came from another machine
	Revoked       Event = "revoked"        // it was revoked
	SignIn        Event = "sign-in"        // a mail program signed in with it
	Refused       Event = "refused"        // a sign-in was refused
	SessionClosed Event = "session-closed" // a session was closed by revocation, expiry or change
	DecoyUsed     Event = "decoy-used"     // somebody tried a decoy
	Lost          Event = "lost"           // Count entries could not be written
	Repaired      Event = "repaired"       // what stands before was torn by a crash
)

// Events are all events, in the order of an app password's life.
func Events() []Event {
	return []Event{Created, Shown, TokenIssued, Rotated, Retired, Exported, Forgotten, Imported, Revoked, SignIn, Refused, SessionClosed, DecoyUsed, Lost, Repaired}
}

const (
	// maxField is the longest text of a field in bytes. What a stranger typed
	// is cut to it.
	maxField = 512
	// maxLine is the longest line that is taken for an entry: ten fields,
	// each byte of them escaped, fit.
	maxLine = 64 << 10
)

// noPrev is the Prev of the first entry.
var noPrev = strings.Repeat("0", 2*sha256.Size)

// Entry is one line of the log. Empty fields are left out of it.
type Entry struct {
	// Seq counts from 1. It and Prev are set by [Log.Append].
	Seq uint64 `json:"seq"`
	// Time of the event. In the log UTC, with milliseconds (RFC 3339).
	Time        time.Time `json:"time"`
	Event       Event     `json:"event"`
	AppPassword string    `json:"appPassword,omitempty"` // its name
	ID          string    `json:"id,omitempty"`          // its id
	Profile     string    `json:"profile,omitempty"`
	Mailbox     string    `json:"mailbox,omitempty"`
	Protocol    string    `json:"protocol,omitempty"` // imap, pop3, smtp
	Address     string    `json:"address,omitempty"`  // the client's IP address, or IP:port
	User        string    `json:"user,omitempty"`     // the user name as typed; for refusals only
	Reason      string    `json:"reason,omitempty"`
	Actor       string    `json:"actor,omitempty"` // who ran the command: the system's user name
	Count       int       `json:"count,omitempty"`
	// Prev is the SHA-256, in hex, of the line before without its line end; 64
	// zeros in the first entry. Where torn lines stand before a Repaired entry,
	// it is that of everything from the last whole line on, so that the chain
	// holds across them.
	Prev string `json:"prev"`
}

// MarshalJSON writes the time with milliseconds, and escapes what would move a
// terminal's cursor or turn the direction of its text.
func (e Entry) MarshalJSON() ([]byte, error) {
	type plain Entry
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Seq  uint64 `json:"seq"`
		Time string `json:"time"`
		plain
	}{e.Seq, e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), plain(e)})
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	return escapeUnprintable(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// escapeUnprintable does what encoding/json does for ASCII alone. Such
// characters stand in strings only, so that no look at the syntax is needed.
func escapeUnprintable(b []byte) []byte {
	unprintable := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if !bytes.ContainsFunc(b, unprintable) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		switch {
		case !unprintable(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// line is the entry as it stands in the file, without the line end.
func (e Entry) line() ([]byte, error) {
	e.Event = Event(cut(string(e.Event)))
	for _, s := range []*string{&e.AppPassword, &e.ID, &e.Profile, &e.Mailbox, &e.Protocol, &e.Address, &e.User, &e.Reason, &e.Actor} {
		*s = cut(*s)
	}
	return e.MarshalJSON()
}

// cut shortens a text to maxField bytes.
func cut(s string) string {
	const more = "…"
	if len(s) <= maxField {
		return s
	}
	n := maxField - len(more)
	for n > maxField-len(more)-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
}

// parse reads a line. What has no place in the chain is no entry.
func parse(line []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, fmt.Errorf("it is no JSON object of an entry: %w", err)
	}
	switch {
	case e.Seq < 1 || e.Seq > 1<<53: // what JSON numbers hold
		return Entry{}, errors.New("it has no seq")
	case e.Time.IsZero():
		return Entry{}, errors.New("it has no time")
	case e.Event == "":
		return Entry{}, errors.New("it has no event")
	case !IsHash(e.Prev):
		return Entry{}, errors.New("its prev is no hash")
	}
	return e, nil
}

// IsHash tells whether s has the form of a hash in the log: SHA-256 in
// lower-case hex.
func IsHash(s string) bool {
	return len(s) == 2*sha256.Size && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) })
}

// Known tells whether e is one of [Events].
func (e Event) Known() bool { return slices.Contains(Events(), e) }

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
