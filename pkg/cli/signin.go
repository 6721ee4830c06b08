package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// heldSignIn is a person's sign-in to Graph as the keychain holds it.
type heldSignIn struct {
	ClientID string
	// Authority and Tenant are those of the profile at that time, and TenantID is
	// the tenant's GUID, where Entra has told it. All are empty in sign-ins of
	// versions that did not note them.
	Authority string
	Tenant    string
	TenantID  string
	Username  string
	Name      string
	Since     time.Time
	// AzureCLI tells that tokens come from an installed Azure CLI, which keeps
	// the sign-in itself: there is no refresh token then.
	AzureCLI bool
	refresh  secret.Text
}

type heldSignInItem struct {
	Version   int       `json:"v"`
	ClientID  string    `json:"clientId"`
	Authority string    `json:"authority,omitempty"`
	Tenant    string    `json:"tenant,omitempty"`
	TenantID  string    `json:"tenantId,omitempty"`
	Username  string    `json:"username"`
	Name      string    `json:"name"`
	Since     time.Time `json:"since"`
	AzureCLI  bool      `json:"azureCli,omitempty"`
	Refresh   string    `json:"refreshToken"`
}

// isFor returns nil where the sign-in was made for what the profile names now. A
// profile that has come to name another tenant or cloud must not send a refresh
// token there, nor work in the tenant of before.
func (h heldSignIn) isFor(p config.Profile) error {
	switch {
	case h.AzureCLI, h.Tenant == "":
		return nil // az is asked for the profile's tenant
	case h.Authority != p.Cloud.Authority:
		return fmt.Errorf("the sign-in that is kept is for %s, and profile %s names %s", h.Authority, p.Name, p.Cloud.Authority)
	case strings.EqualFold(h.Tenant, p.Tenant), strings.EqualFold(h.TenantID, p.Tenant):
		return nil
	}
	return fmt.Errorf("the sign-in that is kept is for tenant %s, and profile %s names %s", h.Tenant, p.Name, p.Tenant)
}

// signInStore is the keychain item of one profile's sign-in. It is the
// [entra.RefreshStore] of that profile.
type signInStore struct {
	keychain secret.Keychain
	key      string
	lock     string
}

func (s *session) signIns() *signInStore { return signInStoreOf(s, s.profile.Name) }

// signInStoreOf is the item of any profile, in the keychain of this one.
func signInStoreOf(s *session, profile string) *signInStore {
	return &signInStore{keychain: s.keychain, key: "sign-in/" + profile, lock: filepath.Join(s.stateDir, "sign-in-"+profile+".lock")}
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
	return heldSignIn{ClientID: it.ClientID, Authority: it.Authority, Tenant: it.Tenant, TenantID: it.TenantID, Username: it.Username, Name: it.Name, Since: it.Since, AzureCLI: it.AzureCLI, refresh: secret.New(it.Refresh)}, nil
}

func (st *signInStore) write(ctx context.Context, h heldSignIn) error {
	b, err := json.Marshal(heldSignInItem{Version: 1, ClientID: h.ClientID, Authority: h.Authority, Tenant: h.Tenant, TenantID: h.TenantID, Username: h.Username, Name: h.Name, Since: h.Since, AzureCLI: h.AzureCLI, Refresh: h.refresh.Reveal()})
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
