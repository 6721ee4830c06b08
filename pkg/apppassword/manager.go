package apppassword

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Manager makes, lists, reveals, rotates and revokes the app passwords of one profile.
// Its methods may be called from several processes at once: creates of one
// profile wait for each other, and every change of the registry is locked.
type Manager struct {
	Profile  config.Profile
	Graph    *graph.Client
	Policies *graph.Client // Graph with a token that may read policies; nil: policies are not read
	Reports  *graph.Client // Graph with a token that may read reports on sign-ins; nil: they are not read
	Entra    *entra.Client // for tokens of the new secret, in the profile's tenant
	Registry Registry

	// Keychains gives the keychain of a kind: the profile's for what is made,
	// the record's for what was made before. None is asked before a secret is
	// needed.
	Keychains func(kind string) (secret.Keychain, error)

	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Progress is told what a long step waits for; Warn what the person
	// should know although the command goes on. Both may be nil.
	Progress func(format string, args ...any)
	Warn     func(format string, args ...any)
	// Ended is told of each old password that is shut out; it may be nil.
	Ended func(Ended)
	// WaitLimit is how long Create waits for Entra to accept a new secret;
	// 0 is two minutes. WaitStep is the first pause between two tries; 0 is
	// one second.
	WaitLimit, WaitStep time.Duration
	// ReadPause is the pause between reads of Graph that are compared, since
	// its reads lag behind its writes; 0 is 0.4 seconds.
	ReadPause time.Duration
}

func (m *Manager) now() time.Time {
	if m.Now != nil {
		return m.Now()
	}
	return time.Now()
}

func (m *Manager) progress(format string, args ...any) {
	if m.Progress != nil {
		m.Progress(format, args...)
	}
}

func (m *Manager) warn(format string, args ...any) {
	if m.Warn != nil {
		m.Warn(format, args...)
	}
}

// reaches tells whether the profile's sign-in can see that application. A
// client id says so by itself; a tenant can be spelt in several ways, so that
// two that differ may be one.
func (m *Manager) reaches(tenant, clientID string) bool {
	return strings.EqualFold(clientID, m.Profile.ClientID) || strings.EqualFold(tenant, m.Profile.Tenant)
}

// deleteItem removes the keychain item of an app password; one that is not
// there is removed already.
func (m *Manager) deleteItem(ctx context.Context, kind, id string) error {
	k, err := m.Keychains(kind)
	if err != nil {
		return err
	}
	// A token that it was given, good for an hour at most, is not what is kept from
	// being left behind.
	_ = k.Delete(ctx, cachedKey(id))
	if err := k.Delete(ctx, itemKey(id)); err != nil && !errors.Is(err, secret.ErrNotFound) {
		return err
	}
	return nil
}

// secrets is the keychain item of one app password: what the mail client
// knows, and what the gateway gets tokens with.
type secrets struct {
	Password secret.Text
	Backing  secret.Text // the Entra client secret
}

// secretsItem is the item's wire form. Its strings are revealed only on the
// way into and out of the keychain.
type secretsItem struct {
	Version  int    `json:"v"`
	Password string `json:"password"`
	Secret   string `json:"secret"`
}

func itemKey(id string) string { return "app-password/" + id }

func storeSecrets(ctx context.Context, k secret.Keychain, id string, s secrets) error {
	b, err := json.Marshal(secretsItem{Version: 1, Password: s.Password.Reveal(), Secret: s.Backing.Reveal()})
	if err != nil {
		return fmt.Errorf("put the app password into a keychain item: %w", err)
	}
	return k.Set(ctx, itemKey(id), secret.New(string(b)))
}

func loadSecrets(ctx context.Context, k secret.Keychain, id string) (secrets, error) {
	t, err := k.Get(ctx, itemKey(id))
	if err != nil {
		return secrets{}, err
	}
	var it secretsItem
	if err := json.Unmarshal([]byte(t.Reveal()), &it); err != nil || it.Version != 1 || it.Password == "" {
		// The decoder's own error could quote the item.
		return secrets{}, fmt.Errorf("the keychain item of app password %s cannot be understood", id)
	}
	return secrets{Password: secret.New(it.Password), Backing: secret.New(it.Secret)}, nil
}

// ProbeKeychain proves that the keychain takes and gives back a secret, so
// that nothing is made that could not be kept. Two probes at once must be for
// different users, which are part of the item's key.
func ProbeKeychain(ctx context.Context, k secret.Keychain, user string) error {
	want, key := Generate(), "probe/"+user
	if err := k.Set(ctx, key, want); err != nil {
		return err
	}
	got, err := k.Get(ctx, key)
	if err != nil {
		return err
	}
	if !got.Equal(want) {
		return &secret.UnavailableError{Keychain: k.String(), Reason: secret.Damaged, Err: fmt.Errorf("it gave back another value than was put in")}
	}
	return k.Delete(ctx, key)
}

// Reveal gives the app password of a record of this machine. A missing item is
// [secret.ErrNotFound].
func (m *Manager) Reveal(ctx context.Context, rec Record) (secret.Text, error) {
	k, err := m.Keychains(rec.Keychain)
	if err != nil {
		return secret.Text{}, err
	}
	s, err := loadSecrets(ctx, k, rec.ID)
	if err != nil {
		return secret.Text{}, fmt.Errorf("read the app password %q: %w", rec.Name, err)
	}
	return s.Password, nil
}
