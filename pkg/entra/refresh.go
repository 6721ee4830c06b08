package entra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// saveLimit bounds RefreshStore.Save, which the caller's context does not.
const saveLimit = time.Minute

// RefreshStore keeps the refresh token of one sign-in.
type RefreshStore interface {
	// Lock keeps other processes and goroutines from refreshing the same
	// sign-in until unlock is called. It waits until ctx ends. Whatever asks a
	// person before Load and Save can be of use, asks before it is taken.
	Lock(ctx context.Context) (unlock func(), err error)
	// Load gives the token last saved, [secret.ErrNotFound] where there is none.
	Load(ctx context.Context) (secret.Text, error)
	// Save replaces it, whole or not at all.
	Save(ctx context.Context, refresh secret.Text) error
}

// RefreshStored gets an access token for scope by the refresh token in store.
// Under the store's lock it loads the token (another process may have replaced
// it since), asks Entra, and saves the new refresh token before it returns the
// access token. Saving goes on when ctx ends meanwhile. Whatever fails, the
// last good refresh token stays in the store.
//
// Where Entra says no, or there is no sign-in, the error is an [*Error] (with
// Kind SignInRequired for the latter, wrapping secret.ErrNotFound). Failures
// of the store are returned wrapped; after a failure to save there is no
// access token, since the next run would find the sign-in as it was before.
func (c *Client) RefreshStored(ctx context.Context, clientID, scope string, store RefreshStore) (Token, error) {
	unlock, err := store.Lock(ctx)
	if err != nil {
		return Token{}, fmt.Errorf("take hold of the sign-in: %w", err)
	}
	defer unlock()

	kept, err := store.Load(ctx)
	if errors.Is(err, secret.ErrNotFound) {
		return Token{}, &Error{Op: "refresh access token", Err: fmt.Errorf("nobody has signed in: %w", err), kind: SignInRequired}
	}
	if err != nil {
		return Token{}, fmt.Errorf("load refresh token: %w", err)
	}

	t, err := c.RefreshToken(ctx, clientID, kept, scope)
	if err != nil {
		return Token{}, err
	}
	if t.Refresh.IsZero() || t.Refresh.Equal(kept) {
		return t, nil
	}
	// An interrupt between the answer and here must not lose the new token.
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	if err := store.Save(sctx, t.Refresh); err != nil {
		return Token{}, fmt.Errorf("the sign-in could not be kept: save refresh token: %w", err)
	}
	return t, nil
}
