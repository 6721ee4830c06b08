package entra

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// ClientSecret gets an access token for the application itself by its client
// secret (RFC 6749 section 4.4). scope is one resource with /.default, such as
// https://outlook.office365.com/.default. A token proves only that the secret
// is right: Entra issues one to an application without any permission too.
//
// A failure is an [*Error]; a wrong, removed or expired secret is Refused.
func (c *Client) ClientSecret(ctx context.Context, clientID string, s secret.Text, scope string) (Token, error) {
	const op = "get token by client secret"
	if s.IsZero() {
		return Token{}, &Error{Op: op, Err: errors.New("the client secret is empty"), kind: Misconfigured}
	}
	form := clientCredentials(clientID, scope, url.Values{"client_secret": {s.Reveal()}})
	return c.token(ctx, op, form, safeToRepeat)
}

// clientCredentials is a request of RFC 6749 section 4.4. form brings what
// authenticates the client: a secret, or an assertion (RFC 7523 section 2.2).
func clientCredentials(clientID, scope string, form url.Values) url.Values {
	form.Set("grant_type", "client_credentials")
	form.Set("client_id", clientID)
	form.Set("scope", scope)
	return form
}

// RefreshToken gets an access token by a refresh token (RFC 6749 section 6).
// scope names one resource, and not necessarily the one signed in for: the
// same refresh token gets tokens for Graph and for Exchange, one a request.
// Entra answers with a new refresh token as a rule; the caller keeps it, or
// uses [Client.RefreshStored].
//
// A failure is an [*Error]; a refresh token that has ended is SignInRequired.
func (c *Client) RefreshToken(ctx context.Context, clientID string, refresh secret.Text, scope string) (Token, error) {
	const op = "refresh access token"
	if refresh.IsZero() {
		return Token{}, &Error{Op: op, Err: errors.New("there is no refresh token"), kind: SignInRequired}
	}
	return c.token(ctx, op, url.Values{
		"grant_type":    {"refresh_token"},
		"client_id":     {clientID},
		"refresh_token": {refresh.Reveal()},
		"scope":         {strings.Join(withSignInScopes(scope), " ")},
	}, safeToRepeat)
}
