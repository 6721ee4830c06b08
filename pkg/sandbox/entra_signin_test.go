package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

const testVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636 appendix B
const testChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

func authorizeQuery(s *Server) url.Values {
	return url.Values{
		"client_id": {s.LoginClientID()}, "response_type": {"code"}, "redirect_uri": {"http://localhost:40123"},
		"scope": {"https://graph.microsoft.com/Application.ReadWrite.All openid profile offline_access"},
		"state": {"st&te"}, "nonce": {"n1"}, "code_challenge": {testChallenge}, "code_challenge_method": {"S256"},
		"login_hint": {"bob@contoso.com"},
	}
}

func authorize(t *testing.T, s *Server, q url.Values) response {
	t.Helper()
	return send(t, "GET", s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/authorize?"+q.Encode(), "", "")
}

var requestField = regexp.MustCompile(`name="request" value="([^"]+)"`)

// signIn walks through the page as a browser does and gives the query that the
// redirect carries.
func signIn(t *testing.T, s *Server, q url.Values, answer url.Values) url.Values {
	t.Helper()
	r := authorize(t, s, q)
	m := requestField.FindStringSubmatch(r.text)
	if r.status != 200 || m == nil {
		t.Fatalf("page: %d %s", r.status, r.text)
	}
	answer.Set("request", html.UnescapeString(m[1]))
	return redirected(t, postForm(t, s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/signin", answer))
}

func redirected(t *testing.T, r response) url.Values {
	t.Helper()
	u, err := url.Parse(r.header.Get("Location"))
	if r.status != http.StatusFound || err != nil || u.Host != "localhost:40123" || u.Path != "/" || u.Query().Get("state") != "st&te" {
		t.Fatalf("redirect: %d %s %s", r.status, r.header.Get("Location"), r.text)
	}
	return u.Query()
}

func codeForm(s *Server, code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {s.LoginClientID()}, "code": {code},
		"redirect_uri": {"http://localhost:40123"}, "code_verifier": {testVerifier},
	}
}

func TestAuthorizationCode(t *testing.T) {
	s := start(t, &Server{})
	code := signIn(t, s, authorizeQuery(s), url.Values{"user": {"alice@contoso.com"}, "action": {"accept"}}).Get("code")
	r := postForm(t, s.tokenURL(), codeForm(s, code))
	if r.status != 200 || r.body["refresh_token"] == nil || r.body["scope"] != "https://graph.microsoft.com/Application.ReadWrite.All openid profile" {
		t.Fatalf("%d %s", r.status, r.text)
	}
	claims := verifyIDToken(t, s, r.body["id_token"].(string))
	if claims["aud"] != s.LoginClientID() || claims["preferred_username"] != "alice@contoso.com" || claims["tid"] != s.Tenant ||
		claims["name"] != "Alice" || claims["nonce"] != "n1" || claims["iss"] != s.Authority()+"/"+s.Tenant+"/v2.0" {
		t.Errorf("claims %v", claims)
	}
	if again := postForm(t, s.tokenURL(), codeForm(s, code)); again.status != 400 || aadsts(again) != 54005 {
		t.Errorf("second use: %s", again.text)
	}

	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {s.LoginClientID()}, "refresh_token": {r.body["refresh_token"].(string)}}
	first := postForm(t, s.tokenURL(), refresh)
	if first.status != 200 || first.body["refresh_token"] == refresh.Get("refresh_token") || first.body["access_token"] == r.body["access_token"] {
		t.Fatalf("refresh: %s", first.text)
	}
	if old := postForm(t, s.tokenURL(), refresh); old.status != 200 {
		t.Errorf("Entra keeps rotated refresh tokens: %s", old.text)
	}
	if got := s.TokensIssued(); got["authorization_code"] != 1 || got["refresh_token"] != 2 {
		t.Errorf("issued %v", got)
	}
}

func verifyIDToken(t *testing.T, s *Server, token string) map[string]any {
	t.Helper()
	var keys struct{ Keys []struct{ X, Y, Kid string } }
	r := send(t, "GET", s.Authority()+"/"+s.Tenant+"/v2.0/.well-known/openid-configuration", "", "")
	if err := json.Unmarshal([]byte(send(t, "GET", r.body["jwks_uri"].(string), "", "").text), &keys); err != nil {
		t.Fatal(err)
	}
	point := []byte{4} // uncompressed
	for _, coordinate := range []string{keys.Keys[0].X, keys.Keys[0].Y} {
		b, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil {
			t.Fatal(err)
		}
		point = append(point, b...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 {
		t.Fatal("signature")
	}
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(key, hash[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the ID token's signature is wrong")
	}
	var claims map[string]any
	b, _ := base64.RawURLEncoding.DecodeString(parts[1])
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestAuthorizeRefuses(t *testing.T) {
	s := start(t, &Server{})
	for name, change := range map[string][2]string{ // shown on a page, without redirect
		"unknown client": {"client_id", "7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10"}, "no redirect": {"redirect_uri", ""},
		"other path": {"redirect_uri", "http://localhost:40123/other"}, "other host": {"redirect_uri", "http://127.0.0.1:40123"},
		"https": {"redirect_uri", "https://localhost:40123"}, "fragment": {"redirect_uri", "http://localhost:40123/#x"},
		"user": {"redirect_uri", "http://localhost@evil.example/"}, "query": {"redirect_uri", "http://localhost:1/?x=y"},
		"app without redirects": {"client_id", s.dir.admin.clientID},
	} {
		q := authorizeQuery(s)
		q.Set(change[0], change[1])
		if r := authorize(t, s, q); r.status != 400 || r.header.Get("Location") != "" || !strings.Contains(r.text, "AADSTS") {
			t.Errorf("%s: %d %s", name, r.status, r.header.Get("Location"))
		}
	}
	for name, test := range map[string]struct{ key, value, code string }{ // told to the client
		"no PKCE":        {"code_challenge", "", "invalid_request"},
		"plain PKCE":     {"code_challenge_method", "plain", "invalid_request"},
		"no method":      {"code_challenge_method", "", "invalid_request"},
		"challenge":      {"code_challenge", testChallenge + "=", "invalid_request"},
		"implicit":       {"response_type", "token", "unsupported_response_type"},
		"no type":        {"response_type", "", "invalid_request"},
		"fragment":       {"response_mode", "fragment", "invalid_request"},
		"no scope":       {"scope", "", "invalid_request"},
		"no consent":     {"scope", "https://graph.microsoft.com/Mail.Read", "invalid_grant"},
		"two resources":  {"scope", "User.Read https://outlook.office.com/SMTP.Send", "invalid_request"},
		"other resource": {"scope", "https://example.com/x", "invalid_resource"},
		"silent":         {"prompt", "none", "interaction_required"},
	} {
		q := authorizeQuery(s)
		q.Set(test.key, test.value)
		if got := redirected(t, authorize(t, s, q)); got.Get("error") != test.code || !strings.HasPrefix(got.Get("error_description"), "AADSTS") {
			t.Errorf("%s: %v", name, got)
		}
	}
	if r := send(t, "GET", s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/authorize?"+authorizeQuery(s).Encode()+"&state=x", "", ""); r.status != 400 {
		t.Errorf("twice: %d", r.status)
	}
	if got := signIn(t, s, authorizeQuery(s), url.Values{"action": {"decline"}}); got.Get("error") != "access_denied" {
		t.Errorf("declined: %v", got)
	}
	r := postForm(t, s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/signin", url.Values{"request": {"<b>"}, "user": {"alice@contoso.com"}})
	if r.status != 400 || strings.Contains(r.text, "<b>") {
		t.Errorf("unknown request: %d", r.status)
	}
}

func TestRedeemCodeRefuses(t *testing.T) {
	s := start(t, &Server{AutoSignIn: true})
	for name, test := range map[string]struct {
		key, value string
		number     int
		later      time.Duration
	}{
		"verifier":       {"code_verifier", "x", 501481, 0},
		"no verifier":    {"code_verifier", "", 900144, 0},
		"redirect":       {"redirect_uri", "http://localhost:40124", 500112, 0},
		"client":         {"client_id", s.dir.mail.clientID, 70000, 0},
		"client without": {"client_id", s.dir.admin.clientID, 7000218, 0},
		"secret":         {"client_secret", "x", 700025, 0},
		"unknown":        {"code", "x", 70000, 0},
		"expired":        {"", "", 70008, 11 * time.Minute},
		"other resource": {"scope", exchangeDelegated + "/SMTP.Send", 65001, 0},
		"all right":      {"", "", 0, 0},
	} {
		form := codeForm(s, redirected(t, authorize(t, s, authorizeQuery(s))).Get("code"))
		if test.key != "" {
			form.Set(test.key, test.value)
		}
		s.FastForward(test.later)
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != test.number {
			t.Errorf("%s: %s", name, r.text)
		}
	}
	// A wrong verifier uses the code up.
	code := redirected(t, authorize(t, s, authorizeQuery(s))).Get("code")
	form := codeForm(s, code)
	form.Set("code_verifier", "guess")
	postForm(t, s.tokenURL(), form)
	if r := postForm(t, s.tokenURL(), codeForm(s, code)); aadsts(r) != 54005 {
		t.Errorf("after a guess: %s", r.text)
	}
}

func TestRefreshTokens(t *testing.T) {
	get := func(t *testing.T, s *Server) url.Values {
		r := postForm(t, s.tokenURL(), codeForm(s, redirected(t, authorize(t, s, authorizeQuery(s))).Get("code")))
		token, _ := r.body["refresh_token"].(string)
		return url.Values{"grant_type": {"refresh_token"}, "client_id": {s.LoginClientID()}, "refresh_token": {token}}
	}
	t.Run("rotated", func(t *testing.T) {
		s := start(t, &Server{AutoSignIn: true, RevokeRotatedRefreshTokens: true})
		form := get(t, s)
		if r := postForm(t, s.tokenURL(), form); r.status != 200 {
			t.Fatal(r.text)
		}
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != 50173 || r.body["suberror"] != "bad_token" {
			t.Errorf("%s", r.text)
		}
	})
	s := start(t, &Server{AutoSignIn: true})
	t.Run("expired", func(t *testing.T) {
		form := get(t, s)
		s.FastForward(91 * 24 * time.Hour)
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != 700082 || r.body["error"] != "invalid_grant" {
			t.Errorf("%s", r.text)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		form := get(t, s)
		s.SetFaults(func(f *Faults) { f.RevokeRefreshTokens = true })
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != 50173 {
			t.Errorf("%s", r.text)
		}
		s.SetFaults(func(f *Faults) { *f = Faults{} })
	})
	t.Run("others", func(t *testing.T) {
		form := get(t, s)
		form.Set("client_id", s.dir.mail.clientID)
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != 70000 {
			t.Errorf("another client: %s", r.text)
		}
		form.Del("refresh_token")
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != 900144 {
			t.Errorf("none: %s", r.text)
		}
	})
}

func TestDeviceCode(t *testing.T) {
	s := start(t, &Server{})
	begin := func() (response, url.Values) {
		r := postForm(t, s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/devicecode", url.Values{
			"client_id": {s.LoginClientID()}, "scope": {"User.Read offline_access"},
		})
		if r.status != 200 || r.body["interval"] != 5.0 || r.body["expires_in"] != 900.0 || r.body["verification_uri_complete"] != nil {
			t.Fatalf("%d %s", r.status, r.text)
		}
		return r, url.Values{"grant_type": {deviceGrant}, "client_id": {s.LoginClientID()}, "device_code": {r.body["device_code"].(string)}}
	}
	poll := func(form url.Values, want string) {
		t.Helper()
		r := postForm(t, s.tokenURL(), form)
		if got, _ := r.body["error"].(string); got != want {
			t.Fatalf("want %q: %s", want, r.text)
		}
	}
	answer := func(r response, action string) {
		t.Helper()
		got := postForm(t, r.body["verification_uri"].(string), url.Values{
			"user_code": {strings.ToLower(r.body["user_code"].(string))}, "user": {"bob@contoso.com"}, "action": {action}})
		if got.status != 200 {
			t.Fatalf("%d %s", got.status, got.text)
		}
	}

	r, form := begin()
	if page := send(t, "GET", r.body["verification_uri"].(string), "", ""); page.status != 200 || !strings.Contains(page.text, "user_code") {
		t.Errorf("page: %d", page.status)
	}
	poll(form, "authorization_pending")
	poll(form, "slow_down")
	s.FastForward(6 * time.Second)
	poll(form, "slow_down") // the interval has grown to 10 s, then 15 s
	s.FastForward(16 * time.Second)
	poll(form, "authorization_pending")
	answer(r, "accept")
	poll(form, "")
	poll(form, "bad_verification_code")

	r, form = begin()
	answer(r, "decline")
	poll(form, "authorization_declined")

	_, form = begin()
	s.FastForward(15 * time.Minute)
	poll(form, "expired_token")

	form.Set("device_code", "x")
	poll(form, "bad_verification_code")
	if r := postForm(t, s.Authority()+"/devicelogin", url.Values{"user_code": {"x"}, "user": {"bob@contoso.com"}}); r.status != 400 {
		t.Errorf("unknown user code: %d", r.status)
	}
	if r := postForm(t, s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/devicecode", url.Values{"client_id": {s.dir.admin.clientID}, "scope": {"User.Read"}}); aadsts(r) != 7000218 {
		t.Errorf("confidential client: %s", r.text)
	}

	auto := start(t, &Server{AutoSignIn: true})
	r = postForm(t, auto.Authority()+"/"+auto.Tenant+"/oauth2/v2.0/devicecode", url.Values{"client_id": {auto.LoginClientID()}, "scope": {"User.Read"}})
	got := postForm(t, auto.tokenURL(), url.Values{"grant_type": {deviceGrant}, "client_id": {auto.LoginClientID()}, "device_code": {r.body["device_code"].(string)}})
	if got.status != 200 || got.body["refresh_token"] != nil {
		t.Errorf("automatic: %s", got.text)
	}
}
