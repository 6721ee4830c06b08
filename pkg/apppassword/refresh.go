package apppassword

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// signInStore is the keychain item with the refresh token of one [SignIn]. It is
// its [entra.RefreshStore].
type signInStore struct {
	id       string
	lock     string
	keychain secret.Keychain
	former   secret.Keychain // where the token may be as long as keychain has none; may be nil
}

// signInItem is the item's wire form.
type signInItem struct {
	Version int    `json:"v"`
	Refresh string `json:"refreshToken"`
}

func newSignInStore(r Registry, keychains func(kind string) (secret.Keychain, error), si SignIn) (*signInStore, error) {
	st := &signInStore{id: si.ID, lock: filepath.Join(r.Dir, "mail-sign-in-"+si.ID+".lock")}
	var err error
	if st.keychain, err = keychains(si.Keychain); err == nil && si.Former != "" {
		st.former, err = keychains(si.Former)
	}
	return st, err
}

func (st *signInStore) key() string { return "mail-sign-in/" + st.id }

// Lock lets one process, and one goroutine, at a time refresh. The keychain is
// opened before that: a person who is asked for its passphrase keeps nobody
// waiting, and the gateway least of all.
func (st *signInStore) Lock(ctx context.Context) (func(), error) {
	if _, err := st.keychain.Get(ctx, st.key()); err != nil && !errors.Is(err, secret.ErrNotFound) {
		return nil, err
	}
	return durable.Lock(ctx, st.lock)
}

// Load gives the refresh token.
func (st *signInStore) Load(ctx context.Context) (secret.Text, error) {
	t, err := st.keychain.Get(ctx, st.key())
	if errors.Is(err, secret.ErrNotFound) && st.former != nil {
		t, err = st.former.Get(ctx, st.key())
	}
	if err != nil {
		return secret.Text{}, err
	}
	var it signInItem
	if err := json.Unmarshal([]byte(t.Reveal()), &it); err != nil || it.Version != 1 || it.Refresh == "" {
		// The decoder's own error could quote the item.
		return secret.Text{}, fmt.Errorf("the keychain item of the sign-in for mail cannot be understood; sign in again")
	}
	return secret.New(it.Refresh), nil
}

// Save keeps a refresh token in place of the one before.
func (st *signInStore) Save(ctx context.Context, refresh secret.Text) error {
	b, err := json.Marshal(signInItem{Version: 1, Refresh: refresh.Reveal()})
	if err != nil {
		return fmt.Errorf("put the sign-in into a keychain item: %w", err)
	}
	return st.keychain.Set(ctx, st.key(), secret.New(string(b)))
}

// Delete removes the item wherever it is; one that is not there is removed
// already.
func (st *signInStore) Delete(ctx context.Context) error {
	if err := st.keychain.Delete(ctx, st.key()); err != nil && !errors.Is(err, secret.ErrNotFound) {
		return err
	}
	return st.deleteFormer(ctx)
}

func (st *signInStore) deleteFormer(ctx context.Context) error {
	if st.former == nil {
		return nil
	}
	if err := st.former.Delete(ctx, st.key()); err != nil && !errors.Is(err, secret.ErrNotFound) {
		return err
	}
	return nil
}

// noteLimit bounds the writing of what a refresh has shown. Those who wait for
// the token wait for it too.
const noteLimit = 10 * time.Second

// refresher gets access tokens by sign-ins, and notes in the registry which of
// them have ended.
type refresher struct {
	registry  Registry
	keychains func(kind string) (secret.Keychain, error)
	now       func() time.Time
	complain  func(error) // of a note that could not be written
}

// refresh is [entra.Client.RefreshStored] for a sign-in. An outage says nothing
// about it.
func (r refresher) refresh(ctx context.Context, c *entra.Client, cloud config.Cloud, si SignIn) (entra.Token, error) {
	store, err := newSignInStore(r.registry, r.keychains, si)
	if err != nil {
		return entra.Token{}, err
	}
	tok, err := c.RefreshStored(ctx, si.ClientID, si.scope(cloud), store)
	var change func(*SignIn)
	switch {
	case needsSignIn(err) && si.Ended.IsZero():
		change = func(now *SignIn) { now.Ended, now.Why = r.now().UTC(), whyEnded(err) }
	case err == nil && (!si.Ended.IsZero() || si.Since.IsZero()):
		change = func(now *SignIn) {
			now.Ended, now.Why = time.Time{}, ""
			if now.Since.IsZero() { // interrupted when all but this was done
				now.Since = r.now().UTC()
			}
		}
	default:
		return tok, err
	}
	r.note(ctx, si, change)
	return tok, err
}

// refreshGraph is refresh for Graph. What was consented to for mail, and whether
// it still is, does not show here: the sign-in is marked where it has ended, and
// a mark stays.
func (r refresher) refreshGraph(ctx context.Context, c *entra.Client, cloud config.Cloud, si SignIn) (entra.Token, error) {
	store, err := newSignInStore(r.registry, r.keychains, si)
	if err != nil {
		return entra.Token{}, err
	}
	tok, err := c.RefreshStored(ctx, si.ClientID, si.graphScope(cloud), store)
	ee, ok := errors.AsType[*entra.Error](err)
	switch {
	case ok && needsConsent(ee):
		return tok, &GraphConsentError{Username: si.Username, Err: err}
	case needsSignIn(err) && si.Ended.IsZero():
		r.note(ctx, si, func(now *SignIn) { now.Ended, now.Why = r.now().UTC(), whyEnded(err) })
	}
	return tok, err
}

// note changes the sign-in in the registry, unless it was made anew meanwhile.
func (r refresher) note(ctx context.Context, si SignIn, change func(*SignIn)) {
	nctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	nerr := r.registry.Update(nctx, func(s *State) error {
		// Somebody who has signed in anew meanwhile is not meant.
		if now := s.signIn(si.ID); now != nil && now.Since.Equal(si.Since) {
			change(now)
		}
		return nil
	})
	if nerr != nil {
		r.complain(fmt.Errorf("what became of the sign-in of %s could not be noted: %w", cmp.Or(si.Username, si.ID), nerr))
	}
}

// needsSignIn tells whether err is mended by the person signing in again:
// because the sign-in has ended, or because the consent that it stood on was
// taken back. Entra's sub-error says so as well as its number.
func needsSignIn(err error) bool {
	ee, ok := errors.AsType[*entra.Error](err)
	switch {
	case !ok || ee.Kind() == entra.Unavailable:
		return false
	case ee.Kind() == entra.SignInRequired:
		return true
	}
	return needsConsent(ee)
}

// needsConsent tells that the person, or an administrator for them, has not
// consented to what was asked for.
func needsConsent(ee *entra.Error) bool {
	return ee.Suberror == "consent_required" || ee.Code == "consent_required" || slices.Contains(ee.Numbers, 65001)
}

// whyEnded is what Entra said, in one line without the ids of the request.
func whyEnded(err error) string {
	text := err.Error()
	if ee, ok := errors.AsType[*entra.Error](err); ok {
		text = cmp.Or(ee.Description, text)
	}
	text, _, _ = strings.Cut(text, "\n")
	text, _, _ = strings.Cut(text, " Trace ID:")
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unprintable(r) {
			return ' '
		}
		return r
	}, text))
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "…"
	}
	return text
}
