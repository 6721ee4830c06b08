package apppassword

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
)

// SignIn is a person's sign-in for mail, which stands behind the app passwords
// of backing user. Nothing in it is secret: its refresh token is an item of the
// keychain.
type SignIn struct {
	ID string `json:"id"`
	// Profiles are the profiles it was made under: those that create uses it
	// for. A profile has one sign-in.
	Profiles []string `json:"profiles,omitempty"`
	Tenant   string   `json:"tenant"`
	ClientID string   `json:"clientId"`
	Cloud    string   `json:"cloud"`
	Keychain string   `json:"keychain"` // which one holds the refresh token: system or file
	// Former is the keychain that held it before a sign-in that moves it has
	// ended; empty: none.
	Former   string   `json:"formerKeychain,omitempty"`
	Username string   `json:"username,omitempty"` // the address as a rule; for display
	ObjectID string   `json:"objectId,omitempty"`
	Scopes   []string `json:"scopes"` // granted, as Entra said
	// Since is when the person signed in; zero: that was interrupted, and there
	// may be no refresh token.
	Since time.Time `json:"since,omitzero"`
	// Ended is when Entra was first seen to ask for a new sign-in; zero: it is
	// good as far as anybody here knows. Why is what Entra said, in one line.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// isOf tells whether somebody who signs in at the profile is the person of this
// sign-in. Object ids decide where both sides have one: a user name can be
// given to somebody else.
func (si SignIn) isOf(p config.Profile, who entra.Identity) bool {
	if !strings.EqualFold(si.ClientID, p.ClientID) || si.Cloud != p.Cloud.Name {
		return false
	}
	switch {
	case si.ObjectID != "" && who.ObjectID != "":
		return strings.EqualFold(si.ObjectID, who.ObjectID)
	case si.Username == "" && who.Username == "": // Entra names nobody
		return slices.Contains(si.Profiles, p.Name)
	}
	return strings.EqualFold(si.Username, who.Username)
}

// SignInOf is the sign-in for mail of the profile; ok is false where there is
// none. Nobody but the registry is asked.
func (m *Manager) SignInOf() (si SignIn, ok bool, err error) {
	s, err := m.Registry.Load()
	if err != nil {
		return SignIn{}, false, err
	}
	for _, one := range s.SignIns {
		if slices.Contains(one.Profiles, m.Profile.Name) && strings.EqualFold(one.ClientID, m.Profile.ClientID) && one.Cloud == m.Profile.Cloud.Name &&
			(!ok || one.Since.After(si.Since)) {
			si, ok = one, true
		}
	}
	return si, ok, nil
}

// KeepSignIn keeps the sign-in for mail that has just brought tok, in the
// profile's keychain:
//
//	registry → keychain → registry
//
// so that nothing is ever in the keychain that the registry does not know. A
// person who has signed in before with the same client keeps the sign-in's id:
// what stands on it works again, also where the profile was renamed. The end of
// ctx does not cut it short, since the person has done their part. A kill
// leaves the former refresh token or the new one. Errors: [ErrNoState], those of
// secret, and one where tok brings no refresh token.
func (m *Manager) KeepSignIn(ctx context.Context, tok entra.Token) (SignIn, error) {
	if tok.Refresh.IsZero() {
		return SignIn{}, errors.New("entra gave no refresh token, so the sign-in would end within the hour; nothing was kept")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	granted := strings.Fields(tok.Scope)
	if len(granted) == 0 {
		granted = strings.Fields(MailScopes(m.Profile.Cloud))
	}
	si, err := m.adoptSignIn(ctx, tok.Identity, granted)
	if err != nil {
		return SignIn{}, err
	}
	if si, err = m.storeSignIn(ctx, si, tok, granted); err != nil {
		return SignIn{}, err
	}
	m.sweepSignIns(ctx)
	return si, nil
}

// storeSignIn puts the refresh token into the keychain, and then what is known
// of the sign-in into the registry.
func (m *Manager) storeSignIn(ctx context.Context, si SignIn, tok entra.Token, granted []string) (SignIn, error) {
	store, err := newSignInStore(m.Registry, m.Keychains, si)
	if err != nil {
		return SignIn{}, err
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return SignIn{}, errors.Join(err, m.moveBack(ctx, si, store))
	}
	defer unlock()
	// Whoever signed out in the meantime has taken the entry away.
	s, err := m.Registry.Load()
	if err == nil && s.signIn(si.ID) == nil {
		err = m.Registry.Update(ctx, func(s *State) error { s.putSignIn(si); return nil })
	}
	if err != nil {
		return SignIn{}, err
	}
	if err := store.Save(ctx, tok.Refresh); err != nil {
		return SignIn{}, errors.Join(fmt.Errorf("keep the sign-in: %w", err), m.undoAdopt(ctx, si, store))
	}
	err = m.Registry.Update(ctx, func(s *State) error {
		if now := s.signIn(si.ID); now != nil { // it may have been forgotten meanwhile
			si.Profiles = now.Profiles
		}
		for i := range s.SignIns {
			s.SignIns[i].leave(m.Profile.Name)
		}
		si.leave(m.Profile.Name)
		si.Profiles = append(si.Profiles, m.Profile.Name)
		si.Tenant, si.Scopes, si.Since = m.Profile.Tenant, granted, m.now().UTC()
		si.Username, si.ObjectID = tok.Identity.Username, tok.Identity.ObjectID
		si.Ended, si.Why = time.Time{}, ""
		s.putSignIn(si)
		return nil
	})
	if err != nil {
		return SignIn{}, err
	}
	if si.Former != "" {
		if err := store.deleteFormer(ctx); err != nil {
			m.warn("the sign-in of before is still in the keychain %q: %v", si.Former, err)
			return si, nil
		}
		si.Former = ""
		if err := m.Registry.Update(ctx, func(s *State) error { s.putSignIn(si); return nil }); err != nil {
			return SignIn{}, err
		}
	}
	return si, nil
}

// adoptSignIn finds the sign-in of that person, or begins one, and notes in the
// registry where its refresh token is about to be. Its former one stays good.
func (m *Manager) adoptSignIn(ctx context.Context, who entra.Identity, granted []string) (si SignIn, err error) {
	p := m.Profile
	err = m.Registry.Update(ctx, func(s *State) error {
		i := slices.IndexFunc(s.SignIns, func(one SignIn) bool { return one.isOf(p, who) })
		if i < 0 {
			si = SignIn{ID: uuid.NewString(), Profiles: []string{p.Name}, Tenant: p.Tenant, ClientID: p.ClientID, Cloud: p.Cloud.Name,
				Keychain: p.Keychain, Username: who.Username, ObjectID: who.ObjectID, Scopes: granted}
			s.putSignIn(si)
			return nil
		}
		si = s.SignIns[i]
		if si.Keychain != p.Keychain {
			si.Former, si.Keychain = si.Keychain, p.Keychain
		}
		if !slices.Contains(si.Profiles, p.Name) {
			si.Profiles = append(slices.Clone(si.Profiles), p.Name)
		}
		s.putSignIn(si)
		return nil
	})
	return si, err
}

// undoAdopt takes a sign-in that was begun, and could not be kept, out again. A
// former one stays as it was, in the keychain that it was in.
func (m *Manager) undoAdopt(ctx context.Context, si SignIn, store *signInStore) error {
	if !si.Since.IsZero() {
		return m.moveBack(ctx, si, store)
	}
	if store.Delete(ctx) != nil {
		return nil // the keychain is what failed before, and the registry knows the item
	}
	return m.Registry.Update(ctx, func(s *State) error {
		now := s.signIn(si.ID)
		if now == nil || !now.Since.IsZero() {
			return nil
		}
		if now.leave(m.Profile.Name); !s.usesSignIn(si.ID) {
			s.removeSignIn(si.ID)
		}
		return nil
	})
}

// moveBack notes that the refresh token of a sign-in that was to move is in its
// former keychain, unless the other one holds one all the same.
func (m *Manager) moveBack(ctx context.Context, si SignIn, store *signInStore) error {
	if si.Since.IsZero() || si.Former == "" {
		return nil
	}
	if _, err := store.keychain.Get(ctx, store.key()); err == nil {
		return nil
	}
	return m.Registry.Update(ctx, func(s *State) error {
		if now := s.signIn(si.ID); now != nil && now.Keychain == si.Keychain && now.Former == si.Former {
			now.Keychain, now.Former = si.Former, si.Keychain
		}
		return nil
	})
}

// signedOut is the Why of a sign-in that was forgotten here.
const signedOut = "signed out on this machine"

// ForgetSignIn takes the refresh token of the profile's sign-in out of the
// keychain, for all profiles that share it. It returns the app passwords that
// open nothing from then on, until the same person signs in again. Where there
// is no sign-in it does nothing. It may be repeated after any interruption.
func (m *Manager) ForgetSignIn(ctx context.Context) (lost []Record, err error) {
	si, ok, err := m.SignInOf()
	if err != nil || !ok {
		return nil, err
	}
	store, err := newSignInStore(m.Registry, m.Keychains, si)
	if err != nil {
		return nil, err
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// The mark comes first: what is half done is not taken for a sign-in.
	err = m.Registry.Update(ctx, func(s *State) error {
		if now := s.signIn(si.ID); now != nil {
			now.Ended, now.Why = m.now().UTC(), signedOut
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := store.Delete(ctx); err != nil {
		return nil, fmt.Errorf("take the sign-in out of the keychain: %w", err)
	}
	err = m.settle(ctx, func(s *State) {
		for _, r := range s.AppPasswords {
			if r.SignIn == si.ID && r.Revoked.IsZero() {
				lost = append(lost, r)
			}
		}
		if now := s.signIn(si.ID); now != nil {
			now.Profiles, now.Former = nil, ""
		}
		if !s.usesSignIn(si.ID) {
			s.removeSignIn(si.ID)
		}
	})
	return lost, err
}

// sweepSignIns forgets the sign-ins that no profile and no app password use any
// more. What cannot be forgotten now stays in the registry for the next time.
func (m *Manager) sweepSignIns(ctx context.Context) {
	s, err := m.Registry.Load()
	if err != nil {
		return
	}
	for _, si := range s.SignIns {
		if s.usesSignIn(si.ID) {
			continue
		}
		if err := m.dropSignIn(ctx, si); err != nil {
			m.warn("a sign-in that nothing uses any more is still kept: %v", err)
		}
	}
}

func (m *Manager) dropSignIn(ctx context.Context, si SignIn) error {
	store, err := newSignInStore(m.Registry, m.Keychains, si)
	if err != nil {
		return err
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Whoever takes it up meanwhile writes the registry first, and the keychain
	// once the lock is free.
	if s, err := m.Registry.Load(); err != nil || s.usesSignIn(si.ID) {
		return err
	}
	if err := store.Delete(ctx); err != nil {
		return err
	}
	return m.Registry.Update(ctx, func(s *State) error {
		if !s.usesSignIn(si.ID) {
			s.removeSignIn(si.ID)
		}
		return nil
	})
}

// MailToken gets an access token for mail by the profile's sign-in, for all
// protocols that were consented to. It notes in the registry when the person
// has to sign in again, and takes the note away when that is over. Errors:
// [*SignInError] where a person has to sign in, else those of entra and secret.
func (m *Manager) MailToken(ctx context.Context) (entra.Token, error) {
	si, ok, err := m.SignInOf()
	if err != nil {
		return entra.Token{}, err
	}
	if !ok {
		return entra.Token{}, &SignInError{Profile: m.Profile.Name}
	}
	return m.refresh(ctx, si)
}

// signInToken is MailToken by the sign-in behind the record, which may be
// another than the profile's.
func (m *Manager) signInToken(ctx context.Context, rec Record) (entra.Token, error) {
	s, err := m.Registry.Load()
	if err != nil {
		return entra.Token{}, err
	}
	si := s.signIn(rec.SignIn)
	if si == nil {
		return entra.Token{}, &SignInError{Profile: m.Profile.Name}
	}
	return m.refresh(ctx, *si)
}

func (m *Manager) refresh(ctx context.Context, si SignIn) (entra.Token, error) {
	c := *m.Entra
	c.Tenant = si.Tenant // a profile that names another tenant now says nothing about this sign-in
	r := refresher{registry: m.Registry, keychains: m.Keychains, now: m.now, complain: func(err error) { m.warn("%v", err) }}
	tok, err := r.refresh(ctx, &c, m.Profile.Cloud, si)
	if needsSignIn(err) {
		err = &SignInError{Profile: m.Profile.Name, Username: si.Username, Err: err}
	}
	return tok, err
}

// leave takes a profile from the sign-in. The slice may be shared.
func (si *SignIn) leave(profile string) {
	si.Profiles = slices.DeleteFunc(slices.Clone(si.Profiles), func(p string) bool { return p == profile })
}
