package sandbox

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// accessToken is what an access token stands for; see accessTokenText.
type accessToken struct {
	audience    string
	app         *application
	principalID string  // of app, when the token was issued
	person      *person // nil for an app-only token
	roles       []string
	scopes      []string
	expires     time.Time
}

type refreshToken struct {
	app     *application
	person  *person
	scope   string
	expires time.Time
	revoked bool
}

// grant is what a token request turned out to be entitled to.
type grant struct {
	kind   string // the grant type, for TokensIssued
	app    *application
	person *person // nil: app-only
	scope  scope
	nonce  string // for the ID token
}

// serveToken is the token endpoint.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	g, refusal := s.tokenGrant(r)
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	writeJSON(w, http.StatusOK, s.issue(g))
}

// tokenGrant checks a token request.
func (s *Server) tokenGrant(r *http.Request) (*grant, *oauthError) {
	form, refusal := readForm(r)
	if refusal != nil {
		return nil, refusal
	}
	kind := form.Get("grant_type")
	if kind == "" {
		return nil, missing("grant_type")
	}
	in, refusal := s.realm(r)
	if refusal != nil {
		return nil, refusal
	}
	if in != home && kind == "client_credentials" {
		return nil, &oauthError{code: "invalid_request", number: 9001023,
			text: "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."}
	}
	if refusal := basicCredentials(r, form); refusal != nil {
		return nil, refusal
	}
	if form.Get("client_id") == "" {
		return nil, missing("client_id")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked()
	if kind == "client_credentials" {
		return s.clientCredentialsLocked(form, s.authority+r.URL.Path)
	}
	app, refusal := s.publicClientLocked(in, form)
	if refusal != nil {
		return nil, refusal
	}
	var g *grant
	switch kind {
	case "authorization_code":
		g, refusal = s.redeemCodeLocked(app, form)
	case "refresh_token":
		g, refusal = s.redeemRefreshLocked(app, form)
	case deviceGrant:
		g, refusal = s.redeemDeviceLocked(app, form)
	default:
		refusal = &oauthError{code: "unsupported_grant_type", number: 70003,
			text: fmt.Sprintf("The app requested an unsupported grant type '%s'.", printable(kind))}
	}
	if refusal != nil {
		return nil, refusal
	}
	if !in.admits(g.person) {
		return nil, &oauthError{code: "invalid_grant", number: 70000, text: "Provided grant is invalid or malformed."}
	}
	return g, nil
}

// basicCredentials moves a client id and secret from HTTP Basic, where each is
// form encoded (RFC 6749 section 2.3.1), to the form. Both ways at once are
// forbidden.
func basicCredentials(r *http.Request, form url.Values) *oauthError {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil
	}
	bad := &oauthError{code: "invalid_client", number: 7000215, text: "The Authorization header is not a client id and secret by HTTP Basic."}
	id, secret, ok := r.BasicAuth()
	if !ok {
		return bad
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err1 != nil || err2 != nil {
		return bad
	}
	if form.Has("client_secret") || form.Has("client_assertion") || form.Has("client_id") && form.Get("client_id") != id {
		return &oauthError{code: "invalid_request", number: 9000411, text: "The client has sent credentials in more than one way."}
	}
	form.Set("client_id", id)
	form.Set("client_secret", secret)
	return nil
}

// appLocked finds the application of a request and refuses what Entra refuses
// of every grant.
func (s *Server) appLocked(in realm, form url.Values) (*application, *oauthError) {
	id := form.Get("client_id")
	app := s.dir.byClientID(id)
	if app == nil || !s.replicatedLocked(app.created) {
		return nil, unknownApp(printable(id), s.Tenant)
	}
	if refusal := in.takes(app); refusal != nil {
		return nil, refusal
	}
	switch {
	case !s.principalLocked(app):
		return nil, &oauthError{code: "invalid_client", number: 7000229,
			text: fmt.Sprintf("The client application %s is missing service principal in the tenant %s. See instructions here: https://go.microsoft.com/fwlink/?linkid=2225119", id, s.Tenant)}
	case s.disabledLocked(app):
		return nil, &oauthError{code: "unauthorized_client", number: 7000112,
			text: fmt.Sprintf("Application '%s'(%s) is disabled.", id, printable(app.displayName))}
	case s.Faults.ConditionalAccess:
		return nil, blockedByPolicy()
	}
	return app, nil
}

func blockedByPolicy() *oauthError {
	return &oauthError{code: "invalid_grant", suberror: "message_only", number: 53003,
		text: "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."}
}

// publicClientLocked is appLocked for the grants of people. All applications
// here are public clients in these, and those must not send a secret.
func (s *Server) publicClientLocked(in realm, form url.Values) (*application, *oauthError) {
	app, refusal := s.appLocked(in, form)
	if refusal != nil {
		return nil, refusal
	}
	if form.Has("client_secret") || form.Has("client_assertion") {
		return nil, &oauthError{code: "invalid_client", number: 700025,
			text: "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."}
	}
	if len(app.redirectURIs) == 0 && !app.fallbackPublic {
		return nil, &oauthError{code: "invalid_client", number: 7000218,
			text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	return app, nil
}

// clientCredentialsLocked is RFC 6749 section 4.4. The same request, refused
// too often within a minute, is taken for a loop.
func (s *Server) clientCredentialsLocked(form url.Values, endpoint string) (*grant, *oauthError) {
	now := s.nowLocked()
	// Assertions differ from each other even in a loop.
	print := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %t",
		form.Get("client_id"), form.Get("client_secret"), form.Get("scope"), form.Has("client_assertion")))
	recent := slices.DeleteFunc(s.entra.refused[print], func(t time.Time) bool { return now.Sub(t) > time.Minute })
	if len(recent) >= s.LoopLimit {
		return nil, &oauthError{code: "invalid_grant", number: 50196,
			text: "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."}
	}
	g, refusal := s.checkClientLocked(form, endpoint, now)
	if refusal != nil {
		s.entra.refused[print] = append(recent, now)
		return nil, refusal
	}
	delete(s.entra.refused, print)
	return g, nil
}

func (s *Server) checkClientLocked(form url.Values, endpoint string, now time.Time) (*grant, *oauthError) {
	app, refusal := s.appLocked(home, form)
	if refusal != nil {
		return nil, refusal
	}
	secret, assertion := form.Get("client_secret"), form.Get("client_assertion")
	switch {
	case secret == "" && assertion == "":
		return nil, &oauthError{code: "invalid_client", number: 7000218,
			text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	case secret != "" && assertion != "":
		return nil, &oauthError{code: "invalid_request", number: 9000411, text: "The client has sent credentials in more than one way."}
	case app.public:
		return nil, &oauthError{code: "invalid_client", number: 700025,
			text: "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."}
	case form.Get("scope") == "":
		return nil, missing("scope")
	case secret != "":
		refusal = s.checkSecretLocked(app, secret, now)
	default:
		refusal = s.checkAssertionLocked(app, form, endpoint, now)
	}
	if refusal != nil {
		return nil, refusal
	}
	sc, refusal := s.appScopeLocked(form.Get("scope"))
	if refusal != nil {
		return nil, refusal
	}
	if c := app.match(secret, now, s.Faults.ReplicationDelay); c != nil {
		c.used, c.usedFor = now, s.dir.serviceOf(sc.resource)
	}
	return &grant{kind: "client_credentials", app: app, scope: sc}, nil
}

func (s *Server) checkSecretLocked(app *application, secret string, now time.Time) *oauthError {
	c := app.match(secret, now, s.Faults.ReplicationDelay)
	switch {
	case c == nil || now.Before(c.start):
		return &oauthError{code: "invalid_client", number: 7000215,
			text: fmt.Sprintf("Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", app.clientID)}
	case !now.Before(c.end):
		return &oauthError{code: "invalid_client", number: 7000222,
			text: fmt.Sprintf("The provided client secret keys for app '%s' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.", app.clientID)}
	}
	return nil
}

// redeemRefreshLocked is RFC 6749 section 6.
func (s *Server) redeemRefreshLocked(app *application, form url.Values) (*grant, *oauthError) {
	text := form.Get("refresh_token")
	if text == "" {
		return nil, missing("refresh_token")
	}
	t := s.entra.refresh[text]
	switch now := s.nowLocked(); {
	case t == nil || t.app != app:
		return nil, &oauthError{code: "invalid_grant", number: 70000,
			text: "Provided grant is invalid or malformed."}
	case t.revoked || s.Faults.RevokeRefreshTokens:
		return nil, &oauthError{code: "invalid_grant", suberror: "bad_token", number: 50173,
			text: "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password."}
	case s.Faults.SignInFrequency:
		return nil, &oauthError{code: "invalid_grant", suberror: "bad_token", number: 70043,
			text: "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access."}
	case !now.Before(t.expires):
		return nil, &oauthError{code: "invalid_grant", suberror: "bad_token", number: 700082,
			text: "The refresh token has expired due to inactivity."}
	}
	asked := t.scope
	if form.Has("scope") {
		asked = form.Get("scope")
	}
	sc, refusal := s.delegatedScopeLocked(app, asked, t.person)
	if refusal != nil {
		return nil, refusal
	}
	sc.offline = true // a refresh token is always given for a refresh token
	if s.RevokeRotatedRefreshTokens {
		t.revoked = true
	}
	return &grant{kind: "refresh_token", app: app, person: t.person, scope: sc}, nil
}

// tokenAnswer is RFC 6749 section 5.1 with Entra's additions.
type tokenAnswer struct {
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	ExtExpiresIn int    `json:"ext_expires_in"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
}

// issue makes the tokens of a grant.
func (s *Server) issue(g *grant) tokenAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	a := tokenAnswer{
		TokenType:    "Bearer",
		ExpiresIn:    int(s.TokenLife / time.Second),
		ExtExpiresIn: int(s.TokenLife / time.Second),
	}
	t := &accessToken{
		audience: g.scope.resource, app: g.app, principalID: g.app.principalID, person: g.person, expires: now.Add(s.TokenLife),
	}
	if g.person == nil {
		t.roles = s.rolesLocked(g.app, g.scope.resource)
	} else {
		t.scopes = g.scope.names
	}
	a.AccessToken = s.accessTokenText(t, now)
	s.entra.tokens[a.AccessToken] = t
	s.entra.issued[g.kind]++
	if g.person == nil {
		return a
	}
	a.Scope = g.scope.String()
	if g.scope.offline {
		a.RefreshToken = newToken(900, 1300)
		s.entra.refresh[a.RefreshToken] = &refreshToken{
			app: g.app, person: g.person, scope: g.scope.asked, expires: now.Add(s.RefreshTokenLife),
		}
	}
	if g.scope.openid {
		a.IDToken = s.idToken(g, now)
	}
	return a
}

// token looks an access token up; nil if there is none, or not any more.
func (s *Server) token(text string) *accessToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.entra.tokens[text]
	if t == nil || !s.nowLocked().Before(t.expires) {
		return nil
	}
	return t
}

const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// newToken makes a token that cannot be read, from ≤ n < to characters long.
func newToken(from, to int) string {
	return randomText(from+mathrand.IntN(to-from), tokenAlphabet)
}

// verifier checks a code_verifier against its S256 challenge (RFC 7636
// section 4.6).
func verifier(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// printable makes what a stranger sent fit to be said again, in short.
func printable(s string) string { return printableUpTo(100, s) }

func printableUpTo(n int, s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}
