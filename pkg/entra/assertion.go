package entra

import (
	"context"
	"errors"
	"net/url"

	"github.com/o365pw/o365pw/pkg/secret"
)

// assertionType is the only kind of assertion there is here (RFC 7523
// section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Assertion gives a signed JWT that proves who the client is (RFC 7523 section
// 2.2). It is asked anew for every token request, since an assertion is good
// once and for minutes. tokenEndpoint is where the assertion will be sent. An
// error that is an [*Error] is returned to the caller as it is.
type Assertion func(ctx context.Context, clientID, tokenEndpoint string) (secret.Text, error)

// ClientAssertion gets an access token for the application itself by an
// assertion: one signed with its certificate (see [Certificate.Assertion]), or
// one of another issuer that it trusts (federation). Otherwise it is like
// [Client.ClientSecret]. A request that is repeated brings a fresh assertion.
//
// A failure is an [*Error]; a certificate or issuer that Entra does not know
// is Refused, and so is an assertion outside its time, as by a wrong clock.
func (c *Client) ClientAssertion(ctx context.Context, clientID string, a Assertion, scope string) (Token, error) {
	const op = "get token by client assertion"
	endpoint, err := c.endpoint(tokenPath)
	switch {
	case err != nil:
	case clientID == "":
		err = errors.New("the client id is missing")
	case a == nil:
		err = errors.New("there is no client assertion")
	}
	if err != nil {
		return Token{}, &Error{Op: op, URL: endpoint, Err: err, kind: Misconfigured}
	}
	return c.repeated(ctx, safeToRepeat, func() (Token, error) {
		jwt, err := a(ctx, clientID, endpoint)
		if err == nil && (jwt.IsZero() || !tokenText(jwt.Reveal())) {
			err = errors.New("the client assertion is not a JWT")
		}
		if err != nil {
			return Token{}, notAsserted(ctx, op, endpoint, err)
		}
		return c.tokenOnce(ctx, op, clientCredentials(clientID, scope, url.Values{
			"client_assertion_type": {assertionType},
			"client_assertion":      {jwt.Reveal()},
		}))
	})
}

// notAsserted is the failure to make an assertion. Entra was not asked.
func notAsserted(ctx context.Context, op, endpoint string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Op: op, URL: endpoint, Err: err, kind: Misconfigured}
	if ctx.Err() != nil {
		e.Err, e.kind = ctx.Err(), ""
	}
	return e
}
