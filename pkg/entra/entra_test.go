package entra

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	testTenant = "contoso.onmicrosoft.com"
	testClient = "11111111-2222-3333-4444-555555555555"
	testScope  = "https://outlook.office365.com/.default"
	testSecret = "Yq38Q~a+b/c&d=é-Op9"
)

// request is one as a fake Entra has got it.
type request struct {
	path   string
	header http.Header
	form   url.Values
}

// fakeEntra answers each request by the next of answers, the last for ever.
type fakeEntra struct {
	t       *testing.T
	answers []reply

	mu       sync.Mutex
	requests []request
}

type reply struct {
	status int
	body   string
	header map[string]string
}

func (f *fakeEntra) next(r *http.Request) reply {
	if err := r.ParseForm(); err != nil {
		f.t.Errorf("form: %v", err)
	}
	if r.Method != http.MethodPost || r.URL.RawQuery != "" {
		f.t.Errorf("got %s %s, want a POST without a query", r.Method, r.URL)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, request{r.URL.Path, r.Header, r.PostForm})
	return f.answers[min(len(f.requests), len(f.answers))-1]
}

func (f *fakeEntra) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := f.next(r)
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// RoundTrip answers without a network, for tests under synctest.
func (f *fakeEntra) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	a := f.next(r)
	if a.status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	for k, v := range a.header {
		rec.Header().Set(k, v)
	}
	rec.WriteHeader(a.status)
	_, _ = rec.WriteString(a.body)
	return rec.Result(), nil
}

func (f *fakeEntra) got() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// newClient is a client of a fake Entra over real HTTP, without repeats.
func newClient(t *testing.T, answers ...reply) (*Client, *fakeEntra) {
	f := &fakeEntra{t: t, answers: answers}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return &Client{HTTP: s.Client(), Authority: s.URL, Tenant: testTenant, MaxWait: -1}, f
}

// newBubbleClient is one for tests under synctest, with repeats.
func newBubbleClient(t *testing.T, answers ...reply) (*Client, *fakeEntra) {
	f := &fakeEntra{t: t, answers: answers}
	return &Client{HTTP: &http.Client{Transport: f}, Authority: "https://entra.test", Tenant: testTenant}, f
}

// tokenReply is a good answer, with members replaced or (nil) left out.
func tokenReply(change map[string]any) reply {
	m := map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ.access.token"}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return reply{status: http.StatusOK, body: toJSON(m)}
}

// errorReply is a refusal in Entra's form.
func errorReply(status int, code string, number int) reply {
	m := map[string]any{"error": code, "trace_id": "trace-1", "correlation_id": "corr-1", "timestamp": "2026-01-09 02:02:12Z"}
	if number != 0 {
		m["error_codes"] = []int{number}
		m["error_description"] = "AADSTS" + toJSON(number) + ": Something is wrong.\r\nTrace ID: trace-1\r\nCorrelation ID: corr-1\r\nTimestamp: 2026-01-09 02:02:12Z"
	}
	return reply{status: status, body: toJSON(m)}
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func idToken(claims map[string]any) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(toJSON(claims))) + "." + enc([]byte("signature"))
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got error %v (%T), want an *Error", err, err)
	}
	return e
}

func TestClientSecret(t *testing.T) {
	c, f := newClient(t, tokenReply(nil))
	c.Authority += "/" // as people write it
	c.UserAgent = "o365pw/1.2.3 (linux; amd64)"
	before := time.Now()
	got, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
	if err != nil {
		t.Fatal(err)
	}
	if got.Access.Reveal() != "eyJ.access.token" || !got.Refresh.IsZero() {
		t.Errorf("got tokens %q, %q", got.Access.Reveal(), got.Refresh.Reveal())
	}
	if life := got.Expires.Sub(before); life < 3599*time.Second || life > 3660*time.Second {
		t.Errorf("token lives %v, want 3599 s", life)
	}
	r := f.got()[0]
	want := url.Values{"grant_type": {"client_credentials"}, "client_id": {testClient},
		"client_secret": {testSecret}, "scope": {testScope}}
	if r.form.Encode() != want.Encode() {
		t.Errorf("got form %v, want %v", r.form, want)
	}
	if r.path != "/"+testTenant+"/oauth2/v2.0/token" {
		t.Errorf("got path %s", r.path)
	}
	if r.header.Get("Authorization") != "" || len(r.header.Get("client-request-id")) != 36 || r.header.Get("User-Agent") != c.UserAgent {
		t.Errorf("got headers %v", r.header)
	}
}

func TestEachRequestHasItsID(t *testing.T) {
	c, f := newClient(t, reply{status: 500})
	var ids []string
	for range 2 {
		_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
		ids = append(ids, asError(t, err).CorrelationID)
	}
	if a, b := f.got()[0].header.Get("client-request-id"), f.got()[1].header.Get("client-request-id"); a == b || a != ids[0] || b != ids[1] {
		t.Errorf("sent ids %s and %s, errors have %v", a, b, ids)
	}
}

func TestRefreshToken(t *testing.T) {
	c, f := newClient(t, tokenReply(map[string]any{
		"refresh_token": "0.rotated", "scope": "Mail.Read",
		"id_token": idToken(map[string]any{"name": "Alice", "preferred_username": "alice@contoso.com", "oid": "o1", "tid": "t1"}),
	}))
	got, err := c.RefreshToken(t.Context(), testClient, secret.New("0.old"), "https://graph.microsoft.com/.default openid")
	if err != nil {
		t.Fatal(err)
	}
	if got.Refresh.Reveal() != "0.rotated" || got.Scope != "Mail.Read" {
		t.Errorf("got %q, %q", got.Refresh.Reveal(), got.Scope)
	}
	if want := (Identity{Name: "Alice", Username: "alice@contoso.com", ObjectID: "o1", TenantID: "t1"}); got.Identity != want {
		t.Errorf("got %+v, want %+v", got.Identity, want)
	}
	want := url.Values{"grant_type": {"refresh_token"}, "client_id": {testClient}, "refresh_token": {"0.old"},
		"scope": {"https://graph.microsoft.com/.default openid profile offline_access"}}
	if form := f.got()[0].form; form.Encode() != want.Encode() {
		t.Errorf("got form %v, want %v", form, want)
	}
}

// What cannot work is found before a secret leaves the machine.
func TestRefusedBeforeSending(t *testing.T) {
	withSecret := func(c *Client, s string) error {
		_, err := c.ClientSecret(t.Context(), testClient, secret.New(s), testScope)
		return err
	}
	tests := []struct {
		name string
		call func(*Client) error
		kind Kind
	}{
		{"empty secret", func(c *Client) error { return withSecret(c, "") }, Misconfigured},
		{"no refresh token", func(c *Client) error {
			_, err := c.RefreshToken(t.Context(), testClient, secret.Text{}, testScope)
			return err
		}, SignInRequired},
		{"no client", func(c *Client) error {
			_, err := c.ClientSecret(t.Context(), "", secret.New(testSecret), testScope)
			return err
		}, Misconfigured},
		{"no authority", func(c *Client) error { c.Authority = ""; return withSecret(c, testSecret) }, Misconfigured},
		{"authority in clear", func(c *Client) error { c.Authority = "http://login.example"; return withSecret(c, testSecret) }, Misconfigured},
		{"authority of another kind", func(c *Client) error { c.Authority = "ftp://127.0.0.1"; return withSecret(c, testSecret) }, Misconfigured},
		{"authority no address", func(c *Client) error {
			c.Authority = "http://u:" + testSecret + "@[x"
			return withSecret(c, testSecret)
		}, Misconfigured},
		{"authority with password", func(c *Client) error {
			c.Authority = "https://u:Yq38Q~topsecret@login.example"
			return withSecret(c, testSecret)
		}, Misconfigured},
		{"authority with query", func(c *Client) error { c.Authority += "?x=1"; return withSecret(c, testSecret) }, Misconfigured},
		{"no tenant", func(c *Client) error { c.Tenant = ""; return withSecret(c, testSecret) }, Misconfigured},
		{"tenant a path", func(c *Client) error { c.Tenant = "a/../b"; return withSecret(c, testSecret) }, Misconfigured},
		{"tenant dots", func(c *Client) error { c.Tenant = ".."; return withSecret(c, testSecret) }, Misconfigured},
		{"tenant with query", func(c *Client) error { c.Tenant = "a?b"; return withSecret(c, testSecret) }, Misconfigured},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := newClient(t, tokenReply(nil))
			err := tt.call(c)
			if k := asError(t, err).Kind(); k != tt.kind {
				t.Errorf("got %v, kind %s, want %s", err, k, tt.kind)
			}
			if n := len(f.got()); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
			if strings.Contains(err.Error(), "Yq38Q") {
				t.Errorf("secret in %v", err)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	started := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(started)
		<-r.Context().Done()
	}))
	defer s.Close()
	c := &Client{HTTP: s.Client(), Authority: s.URL, Tenant: testTenant}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-started; cancel(errors.New("a cause of one's own")) }()
	_, err := c.ClientSecret(ctx, testClient, secret.New(testSecret), testScope)
	if !errors.Is(err, context.Canceled) || asError(t, err).Kind() != Unavailable {
		t.Errorf("got %v", err)
	}
}
