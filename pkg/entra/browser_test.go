package entra

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// visit is what a browser gets for an address, without following anything.
func visit(t *testing.T, method, address, host string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := h.Do(r)
	if err != nil {
		t.Error(err)
		return 0, nil, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// consent is a browser whose person signs in: it answers the authorization
// request at address with what answer makes of its state.
func consent(t *testing.T, address string, answer map[string]string) (int, http.Header, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	back := url.Values{"state": {q.Get("state")}}
	for k, v := range answer {
		back.Set(k, v)
	}
	return visit(t, http.MethodGet, q.Get("redirect_uri")+"/?"+back.Encode(), "")
}

func TestSignInBrowser(t *testing.T) {
	c, f := newClient(t, tokenReply(map[string]any{"refresh_token": "0.r",
		"id_token": idToken(map[string]any{"preferred_username": "<b>alice</b>@contoso.com"})}))
	var address string
	page := make(chan string, 1)
	got, err := c.SignInBrowser(t.Context(), BrowserSignIn{
		ClientID: testClient, Scope: "https://graph.microsoft.com/.default",
		Announce: func(u string) { address = u },
		Open: func(u string) error {
			if address != u {
				t.Errorf("opened %s, announced %s", u, address)
			}
			status, header, body := consent(t, u, map[string]string{"code": "the-code", "session_state": "x"})
			if status != 200 || header.Get("Cache-Control") != "no-store" || header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("got %d, %v", status, header)
			}
			page <- body
			return errors.New("a browser that fails afterwards")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := <-page; !strings.Contains(body, "as &lt;b&gt;alice&lt;/b&gt;@contoso.com") || strings.Contains(body, "<script") {
		t.Errorf("page %s", body)
	}
	if got.Refresh.Reveal() != "0.r" || got.Identity.Username != "<b>alice</b>@contoso.com" {
		t.Errorf("got %+v", got)
	}

	u, _ := url.Parse(address)
	q := u.Query()
	if u.Path != "/"+testTenant+"/oauth2/v2.0/authorize" || q.Get("response_type") != "code" || q.Get("response_mode") != "query" ||
		q.Get("client_id") != testClient || q.Get("code_challenge_method") != "S256" || q.Get("prompt") != "select_account" ||
		q.Get("scope") != "https://graph.microsoft.com/.default openid profile offline_access" || len(q.Get("state")) < 26 {
		t.Errorf("authorize request %v", q)
	}
	if !regexp.MustCompile(`^http://localhost:\d+$`).MatchString(q.Get("redirect_uri")) {
		t.Errorf("redirect %s", q.Get("redirect_uri"))
	}
	form := f.got()[0].form
	challenge := sha256.Sum256([]byte(form.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(challenge[:]) != q.Get("code_challenge") {
		t.Error("verifier does not match the challenge")
	}
	if form.Get("grant_type") != "authorization_code" || form.Get("code") != "the-code" || form.Get("redirect_uri") != q.Get("redirect_uri") ||
		form.Get("client_id") != testClient || form.Has("client_secret") {
		t.Errorf("token request %v", form)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(q.Get("redirect_uri"), "http://")); err == nil {
		conn.Close()
		t.Error("still listening")
	}
}

func TestAuthorizationRequest(t *testing.T) {
	claims := `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
	for _, tt := range []struct {
		hint, prompt, claims string
		want                 string // prompt
	}{
		{"", "", "", "select_account"},
		{"a&b@c", "", "", ""},
		{"", "consent", claims, "consent"},
		{"a&b@c", "login", claims, "login"},
	} {
		a := authorization{authorize: "https://x/authorize", redirect: "http://localhost:1", state: "s", verifier: "v",
			clientID: "c", loginHint: tt.hint, prompt: tt.prompt, claims: tt.claims}
		u, _ := url.Parse(a.address())
		q := u.Query()
		if q.Get("login_hint") != tt.hint || q.Has("login_hint") != (tt.hint != "") || q.Get("prompt") != tt.want ||
			q.Has("prompt") != (tt.want != "") || q.Get("claims") != tt.claims || q.Has("claims") != (tt.claims != "") {
			t.Errorf("got %s", u)
		}
	}
}

func TestSignInBrowserFails(t *testing.T) {
	tests := []struct {
		name   string
		answer map[string]string
		token  reply
		kind   Kind
		number int
		page   string
	}{
		{"declined", map[string]string{"error": "access_denied", "error_subcode": "cancel", "error_description": "AADSTS65004: User declined to consent.\r\nTrace ID: t-1"},
			reply{}, Declined, 65004, "declined"},
		{"blocked", map[string]string{"error": "access_denied", "error_description": "AADSTS53003: Blocked."}, reply{}, Forbidden, 53003, "not allow"},
		{"passing fault", map[string]string{"error": "server_error"}, reply{}, Unavailable, 0, "could not be reached"},
		{"wrong scope", map[string]string{"error": "invalid_scope"}, reply{}, Misconfigured, 0, "did not work"},
		{"code refused", map[string]string{"code": "the-code"}, errorReply(400, "invalid_grant", 70008), SignInRequired, 70008, "did not work"},
		{"token endpoint down", map[string]string{"code": "the-code"}, reply{status: 503}, Unavailable, 0, "could not be reached"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newClient(t, tt.token)
			page := make(chan string, 1)
			_, err := c.SignInBrowser(t.Context(), BrowserSignIn{ClientID: testClient, Scope: "x", Open: func(u string) error {
				_, _, body := consent(t, u, tt.answer)
				page <- body
				return nil
			}})
			if e := asError(t, err); e.Kind() != tt.kind || e.Number() != tt.number || strings.ContainsAny(err.Error(), "\r\n") || strings.Contains(err.Error(), "the-code") {
				t.Errorf("got %v (%s, %d)", err, e.Kind(), e.Number())
			}
			if body := <-page; !strings.Contains(body, "Not signed in") || !strings.Contains(body, tt.page) {
				t.Errorf("page %s", body)
			}
		})
	}
}

// What strangers send neither ends the sign-in nor wins it.
func TestStrangersAtTheCallback(t *testing.T) {
	c, f := newClient(t, tokenReply(nil))
	_, err := c.SignInBrowser(t.Context(), BrowserSignIn{ClientID: testClient, Scope: "x", Open: func(address string) error {
		u, _ := url.Parse(address)
		here, state := u.Query().Get("redirect_uri"), u.Query().Get("state")
		own := strings.TrimPrefix(here, "http://")
		port := own[strings.LastIndex(own, ":"):]
		good := "/?code=evil&state=" + state
		for _, tt := range []struct {
			method, path, host string
			want               int
		}{
			{"GET", "/", "", 400},
			{"GET", "/?code=evil", "", 400},
			{"GET", "/?code=evil&state=", "", 400},
			{"GET", "/?code=evil&state=" + state + "x", "", 400},
			{"GET", "/?error=access_denied&state=wrong", "", 400},
			{"GET", "/?state=" + state, "", 400},
			{"GET", "/?state=" + state + "&code=evil&error=x", "", 400},
			{"GET", good + "&code=evil2", "", 400},
			{"GET", good + "&x=%zz", "", 400},
			{"GET", "/favicon.ico", "", 404},
			{"GET", "/callback" + good[1:], "", 404},
			{"POST", good, "", 405},
			{"HEAD", good, "", 405},
			{"OPTIONS", good, "", 405},
			{"GET", good, "evil.example" + port, 403},
			{"GET", good, "localhost", 403},
			{"GET", good, "localhost.evil.example" + port, 403},
		} {
			status, header, _ := visit(t, tt.method, here+tt.path, tt.host)
			if status != tt.want {
				t.Errorf("%s %s for host %q: got %d, want %d", tt.method, tt.path, tt.host, status, tt.want)
			}
			if header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", header)
			}
		}
		consent(t, address, map[string]string{"code": "the-code"})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.got()); n != 1 || f.got()[0].form.Get("code") != "the-code" {
		t.Errorf("%d token requests, %v", n, f.got())
	}
}

func newTestCallback() *callback { return newCallback(4711, "the-state") }

// A second answer, while the first waits for its outcome and after.
func TestCallbackOnce(t *testing.T) {
	cb := newTestCallback()
	get := func(code string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		cb.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost:4711/?state=the-state&code="+code, nil))
		return w
	}
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- get("one") }()
	answer := <-cb.answers
	if w := get("two"); w.Code != http.StatusConflict {
		t.Errorf("second answer: %d", w.Code)
	}
	cb.finish(Identity{}, nil)
	if w := <-first; w.Code != 200 || answer.Get("code") != "one" {
		t.Errorf("first answer: %d, %v", w.Code, answer)
	}
	if w := get("three"); w.Code != http.StatusConflict || len(cb.answers) != 0 {
		t.Errorf("third answer: %d", w.Code)
	}
}

// A browser that says how it came by the address has to go there as to a page;
// what it brings otherwise does not use up the answer.
func TestTopLevelOnly(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	navigation := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, tt := range []struct {
		name   string
		header http.Header
		ok     bool
	}{
		{"old browser", nil, true},
		{"from Entra's page", header(append(navigation, "Sec-Fetch-User", "?1")...), true},
		{"typed", header("Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), true},
		{"frame", header("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), false},
		{"object", header("Sec-Fetch-Dest", "object"), false},
		{"image", header("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"), false},
		{"script that fetches", header("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"), false},
		{"a site and no mode", header("Sec-Fetch-Site", "cross-site"), false},
		{"loaded ahead", header(append(navigation, "Sec-Purpose", "prefetch;prerender")...), false},
		{"loaded ahead, as before", header("Purpose", "prefetch"), false},
	} {
		cb := newTestCallback()
		cb.finish(Identity{}, nil)
		r := httptest.NewRequest("GET", "http://localhost:4711/?state=the-state&code=c", nil)
		r.Header = tt.header
		w := httptest.NewRecorder()
		cb.ServeHTTP(w, r)
		if ok := len(cb.answers) == 1; ok != tt.ok || (w.Code == 200) != tt.ok || !ok && w.Code != http.StatusForbidden {
			t.Errorf("%s: taken %v, status %d", tt.name, ok, w.Code)
		}
	}
}

func TestBrowserEndsWithContext(t *testing.T) {
	before := runtime.NumGoroutine()
	c := &Client{Authority: "http://127.0.0.1:1", Tenant: testTenant}
	ctx, cancel := context.WithCancel(t.Context())
	var half net.Conn // a browser that connects ahead and says nothing
	_, err := c.SignInBrowser(ctx, BrowserSignIn{ClientID: testClient, Scope: "x", Announce: func(address string) {
		u, _ := url.Parse(address)
		u, _ = url.Parse(u.Query().Get("redirect_uri"))
		half, _ = net.Dial("tcp", u.Host)
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if half == nil {
		t.Fatal("nobody listened")
	}
	half.Close()
	// The goroutine of a connection ends just after it has said it is closed.
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func TestBrowserLimit(t *testing.T) {
	c := &Client{Authority: "http://127.0.0.1:1", Tenant: testTenant}
	_, err := c.SignInBrowser(t.Context(), BrowserSignIn{ClientID: testClient, Scope: "x", Limit: time.Millisecond, Open: func(string) error { return errors.New("no browser") }})
	if k := asError(t, err).Kind(); k != Expired {
		t.Errorf("got %v (%s)", err, k)
	}
}

func TestBrowserMisconfigured(t *testing.T) {
	open := func(string) error { t.Error("opened"); return nil }
	for _, c := range []struct {
		client Client
		b      BrowserSignIn
	}{
		{Client{Tenant: "x"}, BrowserSignIn{ClientID: "x", Open: open}},
		{Client{Authority: "https://x", Tenant: "x"}, BrowserSignIn{Open: open}},
		{Client{Authority: "https://x", Tenant: "x"}, BrowserSignIn{ClientID: "x"}},
		{Client{Authority: "https://x", Tenant: "x"}, BrowserSignIn{ClientID: "x", Open: open, Claims: "{"}},
		{Client{Authority: "https://x", Tenant: "x"}, BrowserSignIn{ClientID: "x", Open: open, Prompt: "none"}},
	} {
		_, err := c.client.SignInBrowser(t.Context(), c.b)
		if k := asError(t, err).Kind(); k != Misconfigured {
			t.Errorf("got %v (%s)", err, k)
		}
	}
}

func FuzzCallback(f *testing.F) {
	f.Add("GET", "localhost:4711", "/", "code=c&state=the-state")
	f.Add("GET", "localhost:4711", "/", "error=access_denied&error_description=AADSTS65004%3a+x%0d%0aTrace+ID%3a+y&state=the-state")
	f.Add("POST", "evil.example", "//", "code=c&state=the-state&state=the-state")
	f.Add("GET", "[::1]:4711", "/", "%zz;&=&&state=")
	f.Fuzz(func(t *testing.T, method, host, path, query string) {
		cb := newTestCallback()
		cb.finish(Identity{}, nil)
		w := httptest.NewRecorder()
		cb.ServeHTTP(w, &http.Request{Method: method, Host: host, URL: &url.URL{Path: path, RawQuery: query}})
		select {
		case answer := <-cb.answers:
			if method != "GET" || path != "/" || answer.Get("state") != "the-state" || w.Code != 200 || !strings.HasSuffix(host, ":4711") {
				t.Errorf("took %s %s%s?%s", method, host, path, query)
			}
			e := &Error{Op: "fuzz"}
			e.fromBrowser(answer)
			_ = e.Kind()
			if text := e.Error(); strings.ContainsAny(text, "\r\n\x1b") {
				t.Errorf("message %q", text)
			}
		default:
			if w.Code < 400 {
				t.Errorf("status %d for a stranger", w.Code)
			}
		}
	})
}
