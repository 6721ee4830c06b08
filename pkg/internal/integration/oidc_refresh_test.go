//go:build integration

package integration

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// signInStore keeps a refresh token in memory.
type signInStore struct {
	mu    sync.Mutex
	token secret.Text
	saves int
	fail  error // of Save
}

func (s *signInStore) Lock(context.Context) (func(), error) {
	s.mu.Lock()
	return s.mu.Unlock, nil
}

func (s *signInStore) Load(context.Context) (secret.Text, error) { return s.token, nil }

func (s *signInStore) Save(_ context.Context, token secret.Text) error {
	if s.fail != nil {
		return s.fail
	}
	s.token, s.saves = token, s.saves+1
	return nil
}

// testRefresh: each refresh token is good once here, so that one which is not
// saved is missed at the next turn. Several at once wait for each other.
func (p *oidcProvider) testRefresh(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	store := &signInStore{token: token.Refresh}
	const turns = 6
	var wg sync.WaitGroup
	for range turns {
		wg.Go(func() {
			fresh, err := p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
			if err != nil {
				t.Error(err)
				return
			}
			p.checkSignIn(t, fresh, graphScope)
		})
	}
	wg.Wait()
	if store.saves != turns {
		t.Errorf("%d refresh tokens were saved in %d turns", store.saves, turns)
	}
	// Unlike Entra, this server gives no token for what was not signed in for.
	_, err = p.client().RefreshStored(t.Context(), publicClient, mailScopes[0], store)
	checkKind(t, "another scope", err, entra.Misconfigured, "invalid_scope")
	if store.saves != turns {
		t.Error("a refused refresh has changed what is saved")
	}
}

// testRefreshKilled: where a refresh token is good once, an end between the
// answer and Save ends the sign-in. That is said, and no access token goes out
// that the next run could not have. Entra lets the old one live on.
func (p *oidcProvider) testRefreshKilled(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	store := &signInStore{token: token.Refresh, fail: errors.New("the disk is full")}
	lost, err := p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
	if !errors.Is(err, store.fail) || !lost.Access.IsZero() {
		t.Errorf("a refresh that cannot be saved: %v, with an access token: %t", err, !lost.Access.IsZero())
	}
	store.fail = nil
	_, err = p.client().RefreshStored(t.Context(), publicClient, graphScope, store)
	checkKind(t, "a refresh token used twice", err, entra.SignInRequired, "invalid_grant")
	if !store.token.Equal(token.Refresh) || store.saves != 0 {
		t.Error("the store holds another token than the last good one")
	}
}

func (p *oidcProvider) testRevoked(t *testing.T) {
	token, err := p.paste(t.Context(), p.client(), newPerson(mailbox), nil)
	must(t, err)
	if status, answer := p.post(t, p.issuer+"/token/revocation", url.Values{"client_id": {publicClient}, "token": {token.Refresh.Reveal()}}); status != http.StatusOK {
		t.Fatalf("revocation: HTTP %d, %v", status, answer)
	}
	_, err = p.client().RefreshToken(t.Context(), publicClient, token.Refresh, graphScope)
	checkKind(t, "a sign-in that was ended", err, entra.SignInRequired, "invalid_grant")
}
