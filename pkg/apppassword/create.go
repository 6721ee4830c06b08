package apppassword

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

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
	// Send is that of [Record]; empty: as the profile says, whenever it sends.
	Send string
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
	if req.Send != "" {
		if err := CheckSend(req.Send); err != nil {
			return err
		}
		if !smtp || req.Decoy {
			return &InvalidError{Field: "way to send", Value: req.Send, Problem: "has no meaning where smtp is not allowed", Needs: "smtp"}
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
		ReadOnly: req.ReadOnly, From: req.From, MaxPerHour: req.MaxPerHour, LoginName: req.LoginName, Decoy: req.Decoy, Send: req.Send,
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
	unlock, err := m.lockCreates(ctx)
	if err != nil {
		return Created{}, err
	}
	defer unlock()
	// One that is damaged is told of once, before anybody is asked anything.
	if _, err := m.Registry.Load(); err != nil {
		return Created{}, err
	}
	if req.Decoy || req.Backing != BackingSecret {
		return m.createLocal(ctx, req)
	}
	if err := m.checkFree(ctx, req.Name); err != nil {
		return Created{}, err
	}
	rec := m.record(req)
	rec.Backing = BackingSecret
	return m.issueSecret(ctx, rec, issue{expiresAsked: req.ExpiresAsked, noWait: req.NoWait, commit: putNew})
}

func (m *Manager) createLock() string { return m.Registry.createLock(m.Profile.Name) }

// createLock is held by whoever makes, takes or gives away app passwords of the
// profile.
func (r Registry) createLock(profile string) string {
	return filepath.Join(r.Dir, "create-"+profile+".lock")
}

// checkFree clears away what a killed create left, and tells whether the name
// is free here and in the application.
func (m *Manager) checkFree(ctx context.Context, name string) error {
	if err := m.clearFirst(ctx, false); err != nil {
		return err
	}
	entries, err := m.List(ctx)
	if err != nil {
		return err
	}
	return NameFree(entries, name)
}

// clearFirst clears away what was left before. What cannot be cleared away is no
// concern of what comes next: its note stays.
func (m *Manager) clearFirst(ctx context.Context, localOnly bool) error {
	err := m.recoverLocked(ctx, localOnly)
	if err != nil && ctx.Err() == nil {
		m.warn("%v", err)
		err = nil
	}
	return err
}

// NameFree tells whether a new app password may have a name beside these. Error:
// [*NameTakenError].
func NameFree(entries []Entry, name string) error {
	for _, e := range entries {
		if sameName(e.Name, name) {
			return &NameTakenError{Name: e.Name, ID: e.ID, Status: e.Status}
		}
	}
	return nil
}
