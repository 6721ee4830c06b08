package apppassword

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Why a sign-in is refused.
type Refused string

// The reasons of a [*RefusedError].
const (
	WrongPassword      Refused = "no app password matches"
	MailboxNotAllowed  Refused = "the app password is not for this mailbox"
	ProtocolNotAllowed Refused = "the app password is not for this protocol"
	NetworkNotAllowed  Refused = "the app password is not for this network"
	PasswordExpired    Refused = "the app password has expired"
	PasswordRevoked    Refused = "the app password was revoked"
	PasswordChanged    Refused = "the app password was changed"
	PasswordReplaced   Refused = "the app password was replaced by a new one"
	TenantRefuses      Refused = "the tenant refuses"
	NotAvailable       Refused = "not available for now"
	// SignInAgain tells that the person's sign-in behind the app password has
	// ended; the app password is right, and works again after a new one.
	SignInAgain Refused = "the sign-in behind it has ended"
	// DecoyUsed tells that somebody has a password that was laid out to be
	// found. Its Record is the decoy's.
	DecoyUsed Refused = "a decoy was used"
)

// RefusedError is a refused sign-in: Reason for the mail client, Err for the
// log.
type RefusedError struct {
	Reason Refused
	Record Record // zero where no app password matched
	Err    error
}

// Error gives the private side, for the log.
func (e *RefusedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return string(e.Reason)
}

// Unwrap gives the cause, which may be nil.
func (e *RefusedError) Unwrap() error { return e.Err }

// retryItems is how soon after a failure a sign-in makes the verifier ask the
// keychain again.
const retryItems = 5 * time.Second

// watchInterval is how often Watch looks at the registry file. A look is one
// stat call, works in network folders, and cannot run out of watches.
const watchInterval = 250 * time.Millisecond

// Verifier answers for the gateway which app password a mail client presents
// and gets access tokens with what stands behind it. It holds all records and
// their secrets in memory; a sign-in costs one hash and one map lookup.
// Methods may be called concurrently.
type Verifier struct {
	Registry  Registry
	Keychains func(kind string) (secret.Keychain, error) // by Record.Keychain
	Clouds    func(name string) (config.Cloud, error)    // by Record.Cloud
	Entra     func(cloud config.Cloud, tenant string) (*entra.Client, error)
	Tokens    *entra.Cache
	Log       *slog.Logger
	Now       func() time.Time

	mu       sync.RWMutex
	only     string                      // the one id that is held; empty: all
	seen     os.FileInfo                 // the registry file as it was read; nil where it was missing
	byHash   map[[sha256.Size]byte]*held // of the normalised password
	byID     map[string]*held
	signIns  map[string]SignIn // by id
	missing  map[string]bool   // ids whose keychain item could not be read
	lastTry  time.Time         // of reading those
	loads    int               // how often the registry was read
	tryItems sync.Mutex        // one reader of the keychain at a time
	reload   sync.Mutex        // one sign-in loads what all of that moment need

	certificates certificates
}

// held is a record with its secrets. An app password that is being rotated is
// two of them: as it is, and as it was, the second with what was replaced.
type held struct {
	rec Record
	secrets
	replaced *Previous // nil: it is the new one
}

// status is that of the record, and false where it was replaced and the overlap
// is over.
func (h *held) status(now time.Time) (_ Status, inForce bool) {
	return h.rec.LocalStatus(now), h.replaced == nil || !h.replaced.Over(now)
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// Verify finds the record that password belongs to and holds it to its
// mailboxes, protocols, networks and expiry. user is the mailbox address or the
// login name that the mail client gave. It returns the record and the mailbox
// to open. Its error is a [*RefusedError]; once a password has matched, it has
// the Record, whatever the reason. It never quotes a
// user that [Verifier.IsPassword] holds for.
func (v *Verifier) Verify(ctx context.Context, user string, password secret.Text, protocol string, remote netip.Addr) (Record, string, error) {
	v.catchUp(ctx)
	h := v.find(password)
	if h == nil && v.incomplete() {
		v.loadMissing(ctx)
		if h = v.find(password); h == nil && v.unreadableFor(user) {
			return Record{}, "", &RefusedError{Reason: NotAvailable, Err: errors.New("the keychain item of an app password for this mailbox cannot be read")}
		}
	}
	if h == nil {
		return Record{}, "", &RefusedError{Reason: WrongPassword}
	}
	mailbox, err := v.judge(h, user, protocol, remote)
	if err != nil {
		return Record{}, "", err
	}
	return h.rec, mailbox, nil
}

// judge holds an app password to its mailboxes, protocols, networks and expiry.
func (v *Verifier) judge(h *held, user, protocol string, remote netip.Addr) (mailbox string, err error) {
	rec := h.rec
	refuse := func(why Refused, format string, args ...any) (string, error) {
		return "", &RefusedError{Reason: why, Record: rec, Err: fmt.Errorf(format, args...)}
	}
	if rec.Decoy { // also after its end: only a wrong password is told as little
		return refuse(DecoyUsed, "somebody at %s has found it", remote)
	}
	mailbox, mine := rec.mailbox(user)
	status, inForce := h.status(v.now())
	switch {
	case status == Revoked:
		return refuse(PasswordRevoked, "revoked at %s", rec.Revoked.Format(time.RFC3339))
	case !inForce:
		return refuse(PasswordReplaced, "the old one was good until %s", cmp.Or(h.replaced.Ended, h.replaced.Until).Format(time.RFC3339))
	case status == Expired:
		return refuse(PasswordExpired, "expired at %s", rec.Expires.Format(time.RFC3339))
	case !mine && v.IsPassword(user):
		return refuse(MailboxNotAllowed, "an app password was typed as the user name")
	case !mine:
		return refuse(MailboxNotAllowed, "%.80q is none of %s", user, strings.Join(rec.Mailboxes, ", "))
	case !slices.Contains(rec.Allow, protocol):
		return refuse(ProtocolNotAllowed, "%s is none of %s", protocol, strings.Join(rec.Allow, ", "))
	case !networkAllowed(rec.Networks, remote):
		return refuse(NetworkNotAllowed, "%s is in none of its networks", remote)
	}
	return mailbox, nil
}

// catchUp loads the registry where it has changed, before [Verifier.Watch] has
// seen it: made a moment ago, people sign in with an app password at once;
// revoked a moment ago, nobody does any more.
func (v *Verifier) catchUp(ctx context.Context) {
	if !v.stale() {
		return
	}
	v.reload.Lock()
	defer v.reload.Unlock()
	if !v.stale() {
		return // another sign-in has loaded it
	}
	if err := v.Load(ctx); err != nil {
		v.log().Error("the registry has changed but cannot be read", "error", err)
	}
}

// IsPassword tells whether text is an app password of this machine, as people
// type one into the field for the user name: whoever logs user names asks this
// first. It costs one hash and one map lookup, whatever text is.
func (v *Verifier) IsPassword(text string) bool { return v.find(secret.New(text)) != nil }

// Records are those of all app passwords, sorted by name. What was replaced by a
// rotation is in the Previous of its successor. The slices in them are not to be
// changed.
func (v *Verifier) Records() []Record {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]Record, 0, len(v.byID))
	for _, h := range v.byID {
		if h.replaced == nil {
			out = append(out, h.rec)
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(a.ID, b.ID)) < 0
	})
	return out
}

// Record is that of the app password of that id, as [Verifier.Records] has it; ok
// is false where there is none.
func (v *Verifier) Record(id string) (rec Record, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.byID[id]
	if h == nil {
		return Record{}, false
	}
	return h.rec, true
}

func networkAllowed(networks []netip.Prefix, remote netip.Addr) bool {
	remote = remote.Unmap().WithZone("")
	return len(networks) == 0 || slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(remote) })
}

// find looks the password up by its hash. How long the lookup takes depends on
// the hash alone, which nobody can steer towards that of 75 random bits; the
// comparison of the password itself takes constant time.
func (v *Verifier) find(typed secret.Text) *held {
	p := Normalise(typed)
	if p.IsZero() {
		return nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.byHash[sha256.Sum256([]byte(p.Reveal()))]
	if h == nil || !Normalise(h.Password).Equal(p) {
		return nil
	}
	return h
}

func (v *Verifier) incomplete() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.missing) > 0
}

func (v *Verifier) unreadableFor(user string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for id := range v.missing {
		if h := v.byID[id]; h != nil {
			if _, mine := h.rec.mailbox(user); mine {
				return true
			}
		}
	}
	return false
}

// Allowed tells whether the record still is what it was when a session signed
// in under revision: nil, or a [*RefusedError].
func (v *Verifier) Allowed(id, revision string) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.byID[id]
	if h == nil {
		return &RefusedError{Reason: PasswordRevoked}
	}
	status, inForce := h.status(v.now())
	switch {
	case status == Revoked:
		return &RefusedError{Reason: PasswordRevoked, Record: h.rec}
	case !inForce:
		return &RefusedError{Reason: PasswordReplaced, Record: h.rec}
	case status == Expired:
		return &RefusedError{Reason: PasswordExpired, Record: h.rec}
	case h.rec.Revision() != revision:
		return &RefusedError{Reason: PasswordChanged, Record: h.rec}
	}
	return nil
}
