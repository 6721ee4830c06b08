package apppassword

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Manager makes, lists, reveals and revokes the app passwords of one profile.
// Its methods may be called from several processes at once: creates of one
// profile wait for each other, and every change of the registry is locked.
type Manager struct {
	Profile  config.Profile
	Graph    *graph.Client
	Policies *graph.Client   // Graph with a token that may read policies; nil: policies are not read
	Entra    *entra.Client   // for tokens of the new secret, in the profile's tenant
	Keychain secret.Keychain // not asked before a secret is needed
	Registry Registry

	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Progress is told what a long step waits for; Warn what the person
	// should know although the command goes on. Both may be nil.
	Progress func(format string, args ...any)
	Warn     func(format string, args ...any)
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

// records are the profile's own of the registry's.
func (m *Manager) records(s State) []Record {
	var out []Record
	for _, r := range s.AppPasswords {
		if r.Profile == m.Profile.Name {
			out = append(out, r)
		}
	}
	return out
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

// ProbeKey is the keychain item that is written, read and removed to find out
// whether the keychain works.
const ProbeKey = "probe"

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
// that nothing is made that could not be kept.
func ProbeKeychain(ctx context.Context, k secret.Keychain) error {
	want := Generate()
	if err := k.Set(ctx, ProbeKey, want); err != nil {
		return err
	}
	got, err := k.Get(ctx, ProbeKey)
	if err != nil {
		return err
	}
	if !got.Equal(want) {
		return &secret.UnavailableError{Keychain: k.String(), Reason: secret.Damaged, Err: fmt.Errorf("it gave back another value than was put in")}
	}
	return k.Delete(ctx, ProbeKey)
}

// Reveal gives the app password of a record of this machine. A missing item is
// [secret.ErrNotFound].
func (m *Manager) Reveal(ctx context.Context, rec Record) (secret.Text, error) {
	s, err := loadSecrets(ctx, m.Keychain, rec.ID)
	if err != nil {
		return secret.Text{}, fmt.Errorf("read the app password %q: %w", rec.Name, err)
	}
	return s.Password, nil
}
