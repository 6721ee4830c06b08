package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tokenSource gives access tokens for Graph to one command, from the first of
// these that is there:
//
//  1. O365PW_ACCESS_TOKEN, used as it is
//  2. AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (tenant: AZURE_TENANT_ID, else
//     the profile's)
//  3. the sign-in that login left in the keychain
type tokenSource struct {
	a     *app
	s     *session
	cache entra.Cache
}

func newTokenSource(a *app, s *session) *tokenSource {
	t := &tokenSource{a: a, s: s}
	a.tokens = append(a.tokens, &t.cache)
	return t
}

// signInKind names where tokens come from.
type signInKind string

const (
	byAccessToken  signInKind = "O365PW_ACCESS_TOKEN"
	byClientSecret signInKind = "AZURE_CLIENT_SECRET"
	bySignIn       signInKind = "login"
)

func (t *tokenSource) kind() signInKind {
	switch {
	case t.a.Getenv("O365PW_ACCESS_TOKEN") != "":
		return byAccessToken
	case t.a.Getenv("AZURE_CLIENT_ID") != "" && t.a.Getenv("AZURE_CLIENT_SECRET") != "":
		return byClientSecret
	}
	return bySignIn
}

// Token gives an access token for Graph. It asks Entra once per command.
func (t *tokenSource) Token(ctx context.Context) (secret.Text, error) {
	if t.kind() == byAccessToken {
		token := strings.TrimSpace(t.a.Getenv("O365PW_ACCESS_TOKEN"))
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return secret.Text{}, &usageError{problem: "O365PW_ACCESS_TOKEN holds no token: there are blanks or control characters in it", hint: "set it to the access token alone"}
		}
		return secret.New(token), nil
	}
	tok, err := t.cache.Token(ctx, string(t.kind()), func(ctx context.Context) (entra.Token, error) {
		t.a.progress.set("signing in")
		if t.kind() == byClientSecret {
			return t.clientSecret(ctx)
		}
		return t.refresh(ctx, t.s.graphScope())
	})
	return tok.Access, err
}

func (t *tokenSource) clientSecret(ctx context.Context) (entra.Token, error) {
	tenant := t.a.Getenv("AZURE_TENANT_ID")
	if tenant == "" {
		tenant = t.s.profile.Tenant
	}
	c := t.a.entraClient(t.s.http, t.s.profile.Cloud, tenant)
	tok, err := c.ClientSecret(ctx, t.a.Getenv("AZURE_CLIENT_ID"), secret.New(t.a.Getenv("AZURE_CLIENT_SECRET")), t.s.profile.Cloud.GraphResource+"/.default")
	if err != nil {
		return tok, &unattendedError{err}
	}
	return tok, nil
}

// PolicyToken gives an access token that may read the tenant's policies, where
// an administrator has consented to that. A person's sign-in does not ask for
// it: one permission more than needed would keep people from signing in.
func (t *tokenSource) PolicyToken(ctx context.Context) (secret.Text, error) {
	if t.kind() != bySignIn {
		return t.Token(ctx) // .default holds what was consented to
	}
	tok, err := t.cache.Token(ctx, "policies", func(ctx context.Context) (entra.Token, error) {
		return t.refresh(ctx, t.s.profile.Cloud.GraphResource+"/Policy.Read.All")
	})
	return tok.Access, err
}

func (t *tokenSource) refresh(ctx context.Context, scope string) (entra.Token, error) {
	if t.a.Getenv("AZURE_CLIENT_ID") != "" {
		// A CI secret that is missing or empty looks like this.
		t.a.warn("AZURE_CLIENT_ID is set, but AZURE_CLIENT_SECRET is empty: the sign-in of login is used")
	}
	if t.s.stateDir == "" {
		return entra.Token{}, &signInError{} // nowhere to lock, and no home to have signed in from
	}
	store := t.s.signIns()
	// What is stored says which client it belongs to: the profile may have
	// been changed since.
	held, err := store.read(ctx)
	if errors.Is(err, secret.ErrNotFound) {
		return entra.Token{}, &signInError{}
	}
	if ue, ok := errors.AsType[*secret.UnavailableError](err); ok && (ue.Reason == secret.NoSession || ue.Reason == secret.NoService) {
		return entra.Token{}, &signInError{keychain: err} // nobody can have signed in here
	}
	if err != nil {
		return entra.Token{}, fmt.Errorf("read the sign-in of profile %s: %w", t.s.profile.Name, err)
	}
	tok, err := t.s.entra.RefreshStored(ctx, held.ClientID, scope, store)
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() == entra.SignInRequired {
		return tok, &signInError{err: err}
	}
	return tok, err
}

// graphScope is what a person consents to: reading and writing the
// applications this person owns or administers.
func (s *session) graphScope() string {
	return s.profile.Cloud.GraphResource + "/Application.ReadWrite.All"
}

// loginClientID is the public client a person signs in to Graph with.
func (s *session) loginClientID() string {
	if s.profile.LoginClientID != "" {
		return s.profile.LoginClientID
	}
	return s.profile.ClientID
}

// heldSignIn is a person's sign-in as the keychain holds it.
type heldSignIn struct {
	ClientID string
	Username string
	Name     string
	Since    time.Time
	refresh  secret.Text
}

type heldSignInItem struct {
	Version  int       `json:"v"`
	ClientID string    `json:"clientId"`
	Username string    `json:"username"`
	Name     string    `json:"name"`
	Since    time.Time `json:"since"`
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
	return heldSignIn{ClientID: it.ClientID, Username: it.Username, Name: it.Name, Since: it.Since, refresh: secret.New(it.Refresh)}, nil
}

func (st *signInStore) write(ctx context.Context, h heldSignIn) error {
	b, err := json.Marshal(heldSignInItem{Version: 1, ClientID: h.ClientID, Username: h.Username, Name: h.Name, Since: h.Since, Refresh: h.refresh.Reveal()})
	if err != nil {
		return fmt.Errorf("put the sign-in into a keychain item: %w", err)
	}
	return st.keychain.Set(ctx, st.key, secret.New(string(b)))
}

// Lock lets one process at a time refresh.
func (st *signInStore) Lock(ctx context.Context) (func(), error) { return durable.Lock(ctx, st.lock) }

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
