package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// heldSignIn is a person's sign-in to Graph as the keychain holds it.
type heldSignIn struct {
	ClientID string
	Username string
	Name     string
	Since    time.Time
	// AzureCLI tells that tokens come from an installed Azure CLI, which keeps
	// the sign-in itself: there is no refresh token then.
	AzureCLI bool
	refresh  secret.Text
}

type heldSignInItem struct {
	Version  int       `json:"v"`
	ClientID string    `json:"clientId"`
	Username string    `json:"username"`
	Name     string    `json:"name"`
	Since    time.Time `json:"since"`
	AzureCLI bool      `json:"azureCli,omitempty"`
	Refresh  string    `json:"refreshToken"`
}

// signInStore is the keychain item of one profile's sign-in. It is the
// [entra.RefreshStore] of that profile.
type signInStore struct {
	keychain secret.Keychain
	key      string
	lock     string
}

func (s *session) signIns() *signInStore {
	return &signInStore{keychain: s.keychain, key: "sign-in/" + s.profile.Name, lock: filepath.Join(s.stateDir, "sign-in-"+s.profile.Name+".lock")}
}

func (st *signInStore) read(ctx context.Context) (heldSignIn, error) {
	t, err := st.keychain.Get(ctx, st.key)
	if err != nil {
		return heldSignIn{}, err
	}
	var it heldSignInItem
	if err := json.Unmarshal([]byte(t.Reveal()), &it); err != nil || it.Version != 1 {
		return heldSignIn{}, errors.New("the keychain item of the sign-in cannot be understood; sign in again")
	}
	return heldSignIn{ClientID: it.ClientID, Username: it.Username, Name: it.Name, Since: it.Since, AzureCLI: it.AzureCLI, refresh: secret.New(it.Refresh)}, nil
}

func (st *signInStore) write(ctx context.Context, h heldSignIn) error {
	b, err := json.Marshal(heldSignInItem{Version: 1, ClientID: h.ClientID, Username: h.Username, Name: h.Name, Since: h.Since, AzureCLI: h.AzureCLI, Refresh: h.refresh.Reveal()})
	if err != nil {
		return fmt.Errorf("put the sign-in into a keychain item: %w", err)
	}
	return st.keychain.Set(ctx, st.key, secret.New(string(b)))
}

// Lock lets one process at a time refresh. The keychain is opened before that: a
// person who is asked for its passphrase keeps nobody waiting.
func (st *signInStore) Lock(ctx context.Context) (func(), error) {
	if _, err := st.keychain.Get(ctx, st.key); err != nil && !errors.Is(err, secret.ErrNotFound) {
		return nil, err
	}
	return durable.Lock(ctx, st.lock)
}

// Load gives the refresh token.
func (st *signInStore) Load(ctx context.Context) (secret.Text, error) {
	h, err := st.read(ctx)
	return h.refresh, err
}

// Save keeps a rotated refresh token with the rest of the sign-in.
func (st *signInStore) Save(ctx context.Context, refresh secret.Text) error {
	h, err := st.read(ctx)
	if err != nil {
		return err
	}
	h.refresh = refresh
	return st.write(ctx, h)
}
