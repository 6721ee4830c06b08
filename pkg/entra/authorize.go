package entra

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"
)

// prompts are the values of prompt (OpenID Connect Core section 3.1.2.1) that
// make sense with a person in front of a browser.
var prompts = []string{"", "select_account", "consent", "login"}

// authorization is one sign-in by authorization code (RFC 6749 section 4.1)
// with PKCE S256 (RFC 7636), from its request to its token.
type authorization struct {
	op        string
	authorize string // endpoint
	redirect  string
	state     string
	verifier  string
	clientID  string
	scope     string
	loginHint string
	claims    string
	prompt    string
}

// start completes a, and checks what is known before anybody is asked.
func (c *Client) start(a authorization) (authorization, error) {
	var err error
	a.authorize, err = c.endpoint(authorizePath)
	switch {
	case err != nil:
	case a.clientID == "":
		err = errors.New("the client id is missing")
	case a.claims != "" && !json.Valid([]byte(a.claims)):
		err = errors.New("the claims are not JSON")
	case !slices.Contains(prompts, a.prompt):
		err = fmt.Errorf("prompt %q is not known", a.prompt)
	}
	if err != nil {
		return a, &Error{Op: a.op, URL: a.authorize, Err: err, kind: Misconfigured}
	}
	a.state, a.verifier = rand.Text(), oauth2.GenerateVerifier()
	return a, nil
}

// address is what the browser opens (RFC 6749 section 4.1.1).
func (a authorization) address() string {
	config := oauth2.Config{
		ClientID:    a.clientID,
		RedirectURL: a.redirect,
		Scopes:      withSignInScopes(a.scope),
		Endpoint:    oauth2.Endpoint{AuthURL: a.authorize},
	}
	options := []oauth2.AuthCodeOption{
		oauth2.S256ChallengeOption(a.verifier),
		oauth2.SetAuthURLParam("response_mode", "query"),
	}
	prompt := a.prompt
	if a.loginHint != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", a.loginHint))
	} else {
		// A browser signed in with another account would choose that silently.
		prompt = cmp.Or(prompt, "select_account")
	}
	if prompt != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", prompt))
	}
	if a.claims != "" {
		options = append(options, oauth2.SetAuthURLParam("claims", a.claims))
	}
	return config.AuthCodeURL(a.state, options...)
}

// hasState reports whether answer belongs to a sign-in with this state
// (RFC 6749 section 10.12).
func hasState(answer url.Values, state string) bool {
	return subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(state)) == 1
}

// isAnswer reports whether query is what an authorization endpoint sends: a
// code or an error, and no parameter twice (RFC 6749 sections 3.1, 4.1.2).
func isAnswer(query url.Values) bool {
	for _, values := range query {
		if len(values) > 1 {
			return false
		}
	}
	return (query.Get("code") == "") != (query.Get("error") == "")
}

// redeem makes an answer into a token, or into the error that it holds.
func (c *Client) redeem(ctx context.Context, a authorization, answer url.Values) (Token, error) {
	if answer.Get("error") != "" {
		e := &Error{Op: a.op, URL: a.authorize}
		e.fromBrowser(answer)
		return Token{}, e
	}
	return c.token(ctx, a.op, url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {a.clientID},
		"code":          {answer.Get("code")},
		"redirect_uri":  {a.redirect},
		"code_verifier": {a.verifier},
		"scope":         {strings.Join(withSignInScopes(a.scope), " ")},
	}, onlyUndone)
}

// fromBrowser fills e from an authorization error answer (RFC 6749 section
// 4.1.2.1). Entra calls the suberror error_subcode there.
func (e *Error) fromBrowser(answer url.Values) {
	e.Code = line(answer.Get("error"))
	e.Suberror = line(cmp.Or(answer.Get("suberror"), answer.Get("error_subcode")))
	e.Claims = answer.Get("claims")
	e.describe(answer.Get("error_description"))
}
