package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// authRequest is an authorization request whose page waits for an answer.
type authRequest struct {
	in        realm
	app       *application
	redirect  string
	state     string
	hasState  bool
	challenge string
	scope     scope
	nonce     string
	expires   time.Time
}

// authCode is an authorization code. Once used it stays, to tell a second use
// from a code that never was.
type authCode struct {
	authRequest
	person *person
	used   bool
}

const codeLife = 10 * time.Minute

// serveAuthorize is the authorization endpoint (RFC 6749 section 4.1.1) with
// PKCE S256 (RFC 7636), which is optional in Entra and required here.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	form, refusal := parseForm(r.URL.RawQuery)
	var in realm
	if refusal == nil {
		in, refusal = s.realm(r)
	}
	var app *application
	var redirectURIs []string
	var name string
	if refusal == nil {
		s.mu.Lock()
		if app, refusal = s.appLocked(in, form); refusal == nil {
			redirectURIs, name = app.redirectURIs, app.displayName
		}
		s.mu.Unlock()
	}
	if refusal == nil && !matchRedirect(redirectURIs, form.Get("redirect_uri")) {
		refusal = &oauthError{number: 50011, text: fmt.Sprintf(
			"The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.",
			printable(form.Get("redirect_uri")), app.clientID)}
	}
	if refusal != nil {
		// The redirect URI is not to be trusted: RFC 6749 section 4.1.2.1.
		s.signInError(w, refusal)
		return
	}

	q := &authRequest{
		in: in, app: app, redirect: form.Get("redirect_uri"), state: form.Get("state"), hasState: form.Has("state"),
		challenge: form.Get("code_challenge"), nonce: form.Get("nonce"), expires: s.now().Add(codeLife),
	}
	refusal = q.check(form)
	if refusal == nil {
		s.mu.Lock()
		s.consentLocked(app, form.Get("scope"))
		q.scope, refusal = s.delegatedScopeLocked(app, form.Get("scope"), nil)
		s.mu.Unlock()
	}
	if refusal != nil {
		s.redirectError(w, r, q, refusal)
		return
	}
	if p := s.first(in); s.AutoSignIn && p != nil {
		s.redirectCode(w, r, q, p)
		return
	}
	if form.Get("prompt") == "none" {
		s.redirectError(w, r, q, &oauthError{code: "interaction_required", number: 50058,
			text: "A silent sign-in request was sent but no user is signed in."})
		return
	}
	id := uuid.NewString()
	s.mu.Lock()
	s.sweepLocked()
	s.entra.requests[id] = q
	s.mu.Unlock()
	s.writePage(w, http.StatusOK, signInPage, pageData{
		App: name, Action: "/" + s.segment(in) + "/oauth2/v2.0/signin", Hidden: map[string]string{"request": id},
		People: s.people(in, form.Get("login_hint")),
	})
}

// check looks at what may be told to the client at its redirect URI.
func (q *authRequest) check(form url.Values) *oauthError {
	bad := func(text string) *oauthError {
		return &oauthError{code: "invalid_request", number: 9000411, text: text}
	}
	switch mode := form.Get("response_mode"); {
	case form.Get("response_type") == "":
		return missing("response_type")
	case form.Get("response_type") != "code":
		return &oauthError{code: "unsupported_response_type", number: 700051,
			text: fmt.Sprintf("response_type '%s' is not enabled for the application.", printable(form.Get("response_type")))}
	case mode != "" && mode != "query":
		return bad("The sandbox has no response_mode but 'query'.")
	case form.Get("code_challenge") == "":
		return bad("Proof Key for Code Exchange is required: 'code_challenge' is missing.")
	case form.Get("code_challenge_method") != "S256":
		return bad("The parameter 'code_challenge_method' must be 'S256'.")
	case len(q.challenge) != 43 || strings.Trim(q.challenge, tokenAlphabet) != "":
		return bad("The parameter 'code_challenge' is not the base64url of a SHA-256 hash.")
	case form.Get("scope") == "":
		return missing("scope")
	}
	return nil
}

// serveSignIn takes the answer of the sign-in page: request, and either user
// (a user principal name) with action=accept, or action=decline.
func (s *Server) serveSignIn(w http.ResponseWriter, r *http.Request) {
	form, refusal := readForm(r)
	if refusal == nil {
		_, refusal = s.realm(r)
	}
	if refusal != nil {
		s.signInError(w, refusal)
		return
	}
	s.mu.Lock()
	q := s.entra.requests[form.Get("request")]
	var p *person
	if q != nil {
		p, refusal = s.signIn(q.in, form.Get("user"))
		if form.Get("action") == "decline" || p != nil {
			delete(s.entra.requests, form.Get("request"))
		}
	}
	s.mu.Unlock()

	switch {
	case q == nil || !s.now().Before(q.expires):
		s.signInError(w, &oauthError{number: 165000, text: "The sign-in page is not current. Start again from the application."})
	case form.Get("action") == "decline":
		s.redirectError(w, r, q, &oauthError{code: "access_denied", suberror: "user_cancelled", number: 65004,
			text: "User declined to consent to access the app."})
	case refusal != nil:
		s.signInError(w, refusal)
	default:
		s.redirectCode(w, r, q, p)
	}
}

// redirectCode sends the browser back with a code (RFC 6749 section 4.1.2).
func (s *Server) redirectCode(w http.ResponseWriter, r *http.Request, q *authRequest, p *person) {
	code := newToken(600, 900)
	s.mu.Lock()
	c := &authCode{authRequest: *q, person: p}
	c.expires = s.nowLocked().Add(codeLife)
	s.entra.codes[code] = c
	s.mu.Unlock()
	s.redirect(w, r, q, url.Values{"code": {code}, "session_state": {uuid.NewString()}})
}

func (s *Server) redirectError(w http.ResponseWriter, r *http.Request, q *authRequest, e *oauthError) {
	v := url.Values{
		"error":             {e.code},
		"error_description": {fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nTimestamp: %s", e.number, e.text, uuid.NewString(), s.now().Format("2006-01-02 15:04:05Z"))},
		"error_uri":         {fmt.Sprintf("%s/error?code=%d", s.authority, e.number)},
	}
	if e.suberror != "" {
		v.Set("error_subcode", e.suberror)
	}
	s.redirect(w, r, q, v)
}

// redirect goes to the redirect URI. One without a path gets "/", as Entra
// does it.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, q *authRequest, v url.Values) {
	if q.hasState {
		v.Set("state", q.state)
	}
	u, err := url.Parse(q.redirect) // matched before
	if err != nil {
		s.signInError(w, &oauthError{number: 50011, text: "The redirect URI is not a URI."})
		return
	}
	if u.Path == "" {
		u.Path = "/"
	}
	u.RawQuery = v.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, u.String(), http.StatusFound)
}

// matchRedirect compares a redirect URI with those registered. The port of
// localhost is ignored, its path is not; 127.0.0.1 is not localhost.
func matchRedirect(registered []string, uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Fragment != "" || u.RawQuery != "" || u.User != nil || u.Opaque != "" {
		return false
	}
	for _, one := range registered {
		reg, err := url.Parse(one)
		if err != nil || reg.Scheme != u.Scheme || reg.Hostname() != u.Hostname() {
			continue
		}
		samePort := u.Hostname() == "localhost" || reg.Port() == u.Port()
		if samePort && strings.TrimSuffix(reg.Path, "/") == strings.TrimSuffix(u.Path, "/") {
			return true
		}
	}
	return false
}

// redeemCodeLocked is RFC 6749 section 4.1.3 with RFC 7636 section 4.5.
func (s *Server) redeemCodeLocked(app *application, form url.Values) (*grant, *oauthError) {
	for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
		if form.Get(name) == "" {
			return nil, missing(name)
		}
	}
	invalid := func(number int, text string) *oauthError {
		return &oauthError{code: "invalid_grant", number: number, text: text}
	}
	c := s.entra.codes[form.Get("code")]
	switch {
	case c == nil || c.app != app:
		return nil, invalid(70000, "The provided value for the 'code' parameter is not valid.")
	case c.used:
		return nil, invalid(54005, "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.")
	}
	c.used = true // whatever comes of it: nobody gets to guess at the verifier
	switch {
	case !s.nowLocked().Before(c.expires):
		return nil, invalid(70008, "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource.")
	case form.Get("redirect_uri") != c.redirect:
		return nil, invalid(500112, "The reply address does not match the reply address provided when requesting Authorization code.")
	case !verifier(form.Get("code_verifier"), c.challenge):
		return nil, invalid(501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	asked := c.scope.asked
	if form.Has("scope") {
		asked = form.Get("scope")
	}
	sc, refusal := s.delegatedScopeLocked(app, asked, c.person)
	if refusal != nil {
		return nil, refusal
	}
	sc.offline, sc.openid, sc.email = c.scope.offline, c.scope.openid, c.scope.email // fixed by the authorization
	return &grant{kind: "authorization_code", app: app, person: c.person, scope: sc, nonce: c.nonce}, nil
}
