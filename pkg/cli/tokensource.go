package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tokenSource gives access tokens for Graph to one command: from
// O365PW_ACCESS_TOKEN as it is, else from what the environment holds for
// unattended use (see unattended.go), else by the sign-in that login left in
// the keychain.
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
	byAccessToken signInKind = "O365PW_ACCESS_TOKEN"
	bySignIn      signInKind = "login"
)

func (t *tokenSource) kind() signInKind {
	if t.a.Getenv("O365PW_ACCESS_TOKEN") != "" {
		return byAccessToken
	}
	if u, ok := t.a.unattended(); ok {
		return u.kind
	}
	return bySignIn
}

// Token gives an access token for Graph. It asks Entra once per command.
func (t *tokenSource) Token(ctx context.Context) (secret.Text, error) {
	return t.scoped(ctx, "graph", t.s.graphScope())
}

// PolicyToken gives an access token that may read the tenant's policies, where
// an administrator has consented to that. A person's sign-in does not ask for
// it: one permission more than needed would keep people from signing in.
func (t *tokenSource) PolicyToken(ctx context.Context) (secret.Text, error) {
	return t.scoped(ctx, "policies", t.s.profile.Cloud.GraphResource+"/Policy.Read.All")
}

// scoped gives a token for Graph with a person's consent to scope; what has no
// person behind it gets what it was granted, whatever the scope.
func (t *tokenSource) scoped(ctx context.Context, key, scope string) (secret.Text, error) {
	if t.kind() == byAccessToken {
		token := strings.TrimSpace(t.a.Getenv("O365PW_ACCESS_TOKEN"))
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return secret.Text{}, &usageError{problem: "O365PW_ACCESS_TOKEN holds no token: there are blanks or control characters in it", hint: "set it to the access token alone"}
		}
		return secret.New(token), nil
	}
	u, unattended := t.a.unattended()
	if unattended {
		key = string(u.kind)
	}
	tok, err := t.cache.Token(ctx, key, func(ctx context.Context) (entra.Token, error) {
		t.a.progress.set("signing in")
		if !unattended {
			if t.a.Getenv("AZURE_CLIENT_ID") != "" {
				// A CI secret that is missing or empty looks like this.
				t.a.warn("AZURE_CLIENT_ID is set, but nothing that goes with it (AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE, AZURE_FEDERATED_TOKEN): the sign-in of login is used")
			}
			tok, err := t.refresh(ctx, scope)
			if e, ok := errors.AsType[*signInError](err); ok {
				e.hint = t.a.missingInCI()
			}
			return tok, err
		}
		tok, err := u.token(ctx, t.s)
		if err != nil {
			return tok, &unattendedError{by: u.kind, err: err}
		}
		return tok, nil
	})
	return tok.Access, err
}

// signedIn gives a token by the sign-in that login left, whatever else is set.
func (t *tokenSource) signedIn(ctx context.Context) (secret.Text, error) {
	tok, err := t.cache.Token(ctx, "graph", func(ctx context.Context) (entra.Token, error) {
		t.a.progress.set("signing in")
		return t.refresh(ctx, t.s.graphScope())
	})
	return tok.Access, err
}

func (t *tokenSource) refresh(ctx context.Context, scope string) (entra.Token, error) {
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
	if err := held.isFor(t.s.profile); err != nil {
		return entra.Token{}, &signInError{err: err}
	}
	if held.AzureCLI {
		return t.a.azureCLIToken(ctx, t.s)
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
