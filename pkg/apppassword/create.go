package apppassword

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// undoLimit bounds the removal of what a failed create made. It runs also
// when the person has pressed Ctrl-C.
const undoLimit = 2 * time.Minute

// Request is what a person asks of Create.
type Request struct {
	Name      string
	Mailboxes []string
	Allow     []string
	Networks  []netip.Prefix
	Expires   time.Time
	// Backing is what is to stand behind it: secret, user or certificate;
	// empty: what the profile has. It has no meaning for a decoy.
	Backing string
	// ReadOnly, From, MaxPerHour, LoginName and Decoy are those of [Record].
	// A decoy may have no end: its Expires may be zero.
	ReadOnly   bool
	From       []string
	MaxPerHour int
	LoginName  string
	Decoy      bool
	// ExpiresAsked tells that the person chose Expires: it is then kept or
	// refused, never shortened to what the tenant's policy allows.
	ExpiresAsked bool
	// NoWait leaves out waiting for Entra to accept the new secret; Entra is not
	// asked for a token then, whatever the backing.
	NoWait bool
}

// Created is a new app password. Password is to be shown once.
type Created struct {
	Record   Record
	Password secret.Text
}

// check refuses what must not reach Graph, and puts the request in order.
func (req *Request) check(now time.Time) error {
	if err := CheckName(req.Name); err != nil {
		return err
	}
	if len(req.Mailboxes) == 0 {
		return &InvalidError{Field: "mailbox", Problem: "is missing: no --mailbox is given and the profile names none"}
	}
	var boxes []string
	for _, m := range req.Mailboxes {
		if err := CheckMailbox(m); err != nil {
			return err
		}
		if !slices.ContainsFunc(boxes, func(b string) bool { return strings.EqualFold(b, m) }) {
			boxes = append(boxes, m)
		}
	}
	req.Mailboxes = boxes
	if len(req.Allow) == 0 {
		return &InvalidError{Field: "protocol", Problem: "is missing: name at least one of imap, pop3, smtp"}
	}
	var err error
	if req.Allow, err = ParseAllow(req.Allow); err != nil {
		return err
	}
	if !req.Expires.After(now) && !(req.Decoy && req.Expires.IsZero()) {
		return &InvalidError{Field: "expiry", Value: req.Expires.Format(time.RFC3339), Problem: "is in the past"}
	}
	switch req.Backing {
	case BackingSecret, BackingUser, BackingCertificate:
	default:
		return &InvalidError{Field: "backing", Value: req.Backing, Problem: "is none of secret, user, certificate"}
	}
	return req.checkLimits()
}

// checkLimits refuses limits that would limit nothing.
func (req *Request) checkLimits() (err error) {
	if req.From, err = ParseFrom(req.From); err != nil {
		return err
	}
	smtp := slices.Contains(req.Allow, "smtp")
	if len(req.From) > 0 && !smtp {
		return &InvalidError{Field: "sender", Value: req.From[0], Problem: "has no meaning where smtp is not allowed", Needs: "smtp"}
	}
	if req.MaxPerHour != 0 {
		if err := CheckMaxPerHour(req.MaxPerHour); err != nil {
			return err
		}
		if !smtp {
			return &InvalidError{Field: "number of messages an hour", Value: strconv.Itoa(req.MaxPerHour), Problem: "has no meaning where smtp is not allowed", Needs: "smtp"}
		}
	}
	if req.LoginName != "" {
		if err := CheckLoginName(req.LoginName); err != nil {
			return err
		}
		if len(req.Mailboxes) != 1 {
			return &InvalidError{Field: "login name", Value: req.LoginName, Problem: fmt.Sprintf("stands for one mailbox, but there are %d", len(req.Mailboxes))}
		}
	}
	return nil
}

// record is the request as it will be kept, but for what stands behind it.
func (m *Manager) record(req Request) Record {
	return Record{
		Name: req.Name, Profile: m.Profile.Name, Tenant: m.Profile.Tenant, Cloud: m.Profile.Cloud.Name, ClientID: m.Profile.ClientID,
		Mailboxes: req.Mailboxes, Allow: req.Allow, Networks: append([]netip.Prefix{}, req.Networks...),
		Keychain: m.Profile.Keychain, Created: m.now().UTC().Truncate(time.Second), Expires: req.Expires.UTC(),
		ReadOnly: req.ReadOnly, From: req.From, MaxPerHour: req.MaxPerHour, LoginName: req.LoginName, Decoy: req.Decoy,
	}
}

// Create makes an app password. With a client secret of its own behind it:
//
//	token for Graph → addPassword → Entra accepts the secret → keychain →
//	registry
//
// With a person's sign-in or a certificate behind it Graph is not asked, only
// Entra, for a token; a decoy needs neither. What a failing step leaves is
// undone. Errors: [*InvalidError] and [*NameTakenError] before Graph is asked to
// change anything, [*PolicyError], [*UnusableError], [*LeftBehindError] with the
// key id that could not be removed, [*SignInError] and [*ScopeError] of a
// sign-in, [*CertificateError], and what graph, entra and secret return.
func (m *Manager) Create(ctx context.Context, req Request) (created Created, err error) {
	req.Backing = cmp.Or(req.Backing, m.Profile.Backing, BackingSecret)
	if err := req.check(m.now()); err != nil {
		return Created{}, err
	}
	if m.Registry.Dir == "" {
		return Created{}, ErrNoState
	}
	m.progress("waiting for another create of this profile")
	unlock, err := durable.Lock(ctx, m.createLock())
	if err != nil {
		return Created{}, err
	}
	defer unlock()
	if req.Decoy || req.Backing != BackingSecret {
		return m.createLocal(ctx, req)
	}
	if err := m.checkFree(ctx, req.Name); err != nil {
		return Created{}, err
	}
	keychain, err := m.openKeychain(ctx)
	if err != nil {
		return Created{}, err
	}

	note := Pending{ID: uuid.NewString(), Name: req.Name, Profile: m.Profile.Name, Tenant: m.Profile.Tenant,
		ClientID: m.Profile.ClientID, Keychain: m.Profile.Keychain, Since: m.now().UTC()}
	cred, clientSecret, expires, err := m.addPassword(ctx, req, &note)
	if err != nil {
		return Created{}, m.afterFailedAdd(ctx, note, err)
	}
	rec := m.record(req)
	rec.ID, rec.Backing, rec.Hint, rec.Expires = cred.KeyID, BackingSecret, cred.Hint, expires.UTC()
	defer func() {
		if err != nil {
			created, err = Created{}, m.undo(ctx, note, rec.ID, err)
		}
	}()
	note.KeyID = cred.KeyID
	if err := m.Registry.Update(ctx, func(s *State) error { s.note(note); return nil }); err != nil {
		return Created{}, err
	}
	if !req.NoWait {
		if rec.Verified, err = m.waitAccepted(ctx, m.newSecret(clientSecret)); err != nil {
			return Created{}, err
		}
	}
	s := secrets{Password: Generate(), Backing: clientSecret}
	if err := storeSecrets(ctx, keychain, rec.ID, s); err != nil {
		return Created{}, fmt.Errorf("put the app password into the keychain: %w", err)
	}
	err = m.Registry.Update(ctx, func(st *State) error {
		st.put(rec)
		st.forget(note)
		if len(note.Starts) > 1 {
			// An answer was lost. What it may have made can still appear: the
			// note stays until Graph's reads must have caught up.
			note.KeyID, note.Watched = "", true
			st.note(note)
		}
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return Created{Record: rec, Password: s.Password}, nil
}

// openKeychain gives the profile's keychain once it has proved to work.
func (m *Manager) openKeychain(ctx context.Context) (secret.Keychain, error) {
	k, err := m.Keychains(m.Profile.Keychain)
	if err == nil {
		err = ProbeKeychain(ctx, k, "create/"+m.Profile.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("nothing was made, since the app password could not be kept: %w", err)
	}
	return k, nil
}

func (m *Manager) createLock() string {
	return filepath.Join(m.Registry.Dir, "create-"+m.Profile.Name+".lock")
}

// checkFree clears away what a killed create left, and tells whether the name
// is free here and in the application.
func (m *Manager) checkFree(ctx context.Context, name string) error {
	if err := m.recoverLocked(ctx, false); err != nil {
		if ctx.Err() != nil {
			return err
		}
		m.warn("%v", err) // the note stays, and another create is not its concern
	}
	entries, err := m.List(ctx)
	if err != nil {
		return err
	}
	return nameFree(entries, name)
}

func nameFree(entries []Entry, name string) error {
	for _, e := range entries {
		if sameName(e.Name, name) {
			return &NameTakenError{Name: e.Name, ID: e.ID, Status: e.Status}
		}
	}
	return nil
}

// addPassword asks Graph for the credential, and notes in the registry what it
// is about to ask for. A life that the tenant's policy refuses is shortened
// unless the person asked for it.
func (m *Manager) addPassword(ctx context.Context, req Request, note *Pending) (graph.PasswordCredential, secret.Text, time.Time, error) {
	expires := req.Expires
	leaveNote := func(start time.Time) error {
		note.Starts = append(note.Starts, start)
		return m.Registry.Update(ctx, func(s *State) error { s.note(*note); return nil })
	}
	for {
		m.progress("asking Graph for a client secret")
		cred, text, err := m.Graph.AddPassword(ctx, m.Profile.ClientID, graph.NewPassword{DisplayName: req.Name, End: expires, BeforeSend: leaveNote})
		if err == nil {
			if cred.End.IsZero() {
				cred.End = expires
			}
			if expires != req.Expires {
				m.warn("the tenant's policy does not allow %s: this app password expires on %s",
					Days(req.Expires.Sub(m.now())), cred.End.Local().Format("2 January 2006"))
			}
			return cred, text, cred.End, nil
		}
		if _, ambiguous := errors.AsType[*graph.AmbiguousError](err); ambiguous {
			return cred, text, expires, err
		}
		ge, ok := errors.AsType[*graph.Error](err)
		if !ok || !(ge.PolicyForbidsSecrets() || ge.PolicyLifetime()) {
			return cred, text, expires, err
		}
		policy := &PolicyError{ForbidsSecrets: ge.PolicyForbidsSecrets(), Asked: expires.Sub(m.now()).Round(time.Minute), Err: err}
		if policy.ForbidsSecrets {
			return cred, text, expires, policy
		}
		if limit, ok := m.lifetimeLimit(ctx); ok {
			policy.Max = limit
		}
		shorter := nextShorter(policy.Asked, policy.Max)
		policy.Shorter = shorter
		if req.ExpiresAsked || shorter == 0 {
			return cred, text, expires, policy
		}
		expires = m.now().UTC().Truncate(time.Second).Add(shorter)
		note.Starts = nil // refused: nothing was made
	}
}

// lifetimeLimit reads the longest life the tenant's policy allows, where the
// token may read policies.
func (m *Manager) lifetimeLimit(ctx context.Context) (time.Duration, bool) {
	if m.Policies == nil {
		return 0, false
	}
	p, err := m.Policies.AppManagementPolicy(ctx)
	if err != nil || p.MaxLifetime <= 0 {
		return 0, false
	}
	return p.MaxLifetime, true
}

// nextShorter is the next life to try after asked was refused: the policy's
// maximum where it is known and shorter, else the next of the usual ones,
// since an application's own policy may be stricter than the tenant's and can
// often not be read. 0 means there is none.
func nextShorter(asked, limit time.Duration) time.Duration {
	// A minute short of the limit: Entra counts from its own clock.
	if limit -= time.Minute; limit > 0 && limit < asked-2*time.Minute {
		return limit
	}
	for _, days := range []int{90, 60, 30, 14, 7, 1} {
		if d := time.Duration(days)*24*time.Hour - time.Minute; d < asked-2*time.Minute {
			return d
		}
	}
	return 0
}

// undo removes what a create made before err stopped it.
func (m *Manager) undo(ctx context.Context, note Pending, keyID string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	m.progress("undoing")
	settled, uerr := m.removeCredential(ctx, note.ClientID, keyID, note.Since)
	if uerr != nil {
		return &LeftBehindError{Name: note.Name, KeyIDs: []string{keyID}, Cause: err, Undo: uerr}
	}
	// The secret opens nothing any more; an item that cannot be deleted now
	// is deleted by the next create, which still finds the note.
	if kerr := m.deleteItem(ctx, note.Keychain, keyID); kerr != nil {
		return err
	}
	rerr := m.Registry.Update(ctx, func(s *State) error {
		if s.remove(keyID); settled {
			s.forget(note)
		}
		return nil
	})
	return errors.Join(err, rerr)
}

// afterFailedAdd keeps the note where a credential may have been left, and
// names it.
func (m *Manager) afterFailedAdd(ctx context.Context, note Pending, err error) error {
	if amb, ok := errors.AsType[*graph.AmbiguousError](err); ok {
		return &LeftBehindError{Name: note.Name, KeyIDs: amb.KeyIDs, Cause: err, Undo: amb.CleanUp}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return errors.Join(err, m.Registry.Update(ctx, func(s *State) error { s.forget(note); return nil }))
}
