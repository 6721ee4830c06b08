package sandbox

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

func newTestLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// aadsts is the number of a refusal.
func aadsts(r response) int {
	codes, _ := r.body["error_codes"].([]any)
	if len(codes) != 1 {
		return 0
	}
	n, _ := codes[0].(float64)
	return int(n)
}

func TestClientCredentials(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	_, secret := newPassword(t, s, bearer, "laptop")
	_, id := s.MailApp()
	good := credentialsForm(id, secret, exchangeResource)

	for _, tenant := range []string{s.Tenant, strings.ToUpper(s.Tenant), s.Domain} {
		r := postForm(t, s.Authority()+"/"+tenant+"/oauth2/v2.0/token", good)
		token, _ := r.body["access_token"].(string)
		if r.status != 200 || r.body["token_type"] != "Bearer" || r.body["expires_in"] != 3599.0 || r.body["ext_expires_in"] != 3599.0 ||
			len(token) < 1500 || len(token) > 2000 || r.body["refresh_token"] != nil || r.body["scope"] != nil {
			t.Errorf("%s: %d %s", tenant, r.status, r.text)
		}
	}
	if got := r0(s.token(appToken(t, s, id, secret, graphResource))).roles; len(got) != 0 {
		t.Errorf("the mail application has Graph roles: %v", got)
	}

	basic := url.Values{"grant_type": {"client_credentials"}, "scope": good["scope"]}
	req, _ := http.NewRequest("POST", s.tokenURL(), strings.NewReader(basic.Encode()))
	req.Header.Set("Content-Type", formType)
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	if res, err := client(t).Do(req); err != nil || res.StatusCode != 200 {
		t.Errorf("basic: %v %v", res, err)
	} else {
		res.Body.Close()
	}

	with := func(pairs ...string) url.Values {
		form := url.Values{}
		for k, v := range good {
			form[k] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			if form.Del(pairs[i]); pairs[i+1] != "" {
				form.Set(pairs[i], pairs[i+1])
			}
		}
		return form
	}
	for _, test := range []struct {
		name, tenant string
		form         url.Values
		status       int
		code         string
		number       int
	}{
		{"wrong secret", "", with("client_secret", "x"), 401, "invalid_client", 7000215},
		{"no secret", "", with("client_secret", ""), 401, "invalid_client", 7000218},
		{"another app's secret", "", with("client_id", s.dir.admin.clientID), 401, "invalid_client", 7000215},
		{"object id", "", with("client_id", s.dir.mail.objectID), 400, "unauthorized_client", 700016},
		{"public client", "", with("client_id", s.LoginClientID()), 401, "invalid_client", 700025},
		{"no client", "", with("client_id", ""), 400, "invalid_request", 900144},
		{"no scope", "", with("scope", ""), 400, "invalid_request", 900144},
		{"no grant", "", with("grant_type", ""), 400, "invalid_request", 900144},
		{"password grant", "", with("grant_type", "password"), 401, "invalid_client", 700025},
		{"unknown grant", "", with("grant_type", "magic", "client_secret", ""), 400, "unsupported_grant_type", 70003},
		{"scope of people", "", with("scope", exchangeResource+"/IMAP.AccessAsApp"), 400, "invalid_scope", 70011},
		{"two scopes", "", with("scope", exchangeResource+"/.default "+graphResource+"/.default"), 400, "invalid_scope", 70011},
		{"unknown resource", "", with("scope", "https://example.com/.default"), 400, "invalid_resource", 500011},
		{"trailing slash", "", with("scope", exchangeResource+"//.default"), 400, "invalid_resource", 500011},
		{"common", "common", good, 400, "invalid_request", 9001023},
		{"organizations", "organizations", good, 400, "invalid_request", 9001023},
		{"other tenant", "7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10", good, 400, "invalid_request", 90002},
		{"other domain", "fabrikam.example", good, 400, "invalid_request", 90002},
		{"no tenant", "fabrikam", good, 400, "invalid_request", 900023},
	} {
		t.Run(test.name, func(t *testing.T) {
			tenant := test.tenant
			if tenant == "" {
				tenant = s.Tenant
			}
			r := postForm(t, s.Authority()+"/"+tenant+"/oauth2/v2.0/token", test.form)
			if r.status != test.status || r.body["error"] != test.code || aadsts(r) != test.number {
				t.Errorf("%d %s", r.status, r.text)
			}
		})
	}

	t.Run("malformed", func(t *testing.T) {
		for name, r := range map[string]response{
			"twice":      send(t, "POST", s.tokenURL(), formType, good.Encode()+"&scope=x"),
			"JSON":       send(t, "POST", s.tokenURL(), "application/json", `{"grant_type":"client_credentials"}`),
			"no type":    send(t, "POST", s.tokenURL(), "", good.Encode()),
			"in query":   send(t, "POST", s.tokenURL()+"?"+good.Encode(), formType, ""),
			"not a form": send(t, "POST", s.tokenURL(), formType, "grant_type=%zz"),
			"both ways":  send(t, "POST", s.tokenURL(), formType, good.Encode(), "Authorization", "Basic eDp5"),
		} {
			if r.status != 400 || r.body["error"] != "invalid_request" || aadsts(r) == 0 {
				t.Errorf("%s: %d %s", name, r.status, r.text)
			}
		}
		if r := send(t, "POST", s.tokenURL(), formType, "x="+strings.Repeat("x", maxForm)); r.status != 413 {
			t.Errorf("long: %d", r.status)
		}
		if r := send(t, "GET", s.tokenURL(), "", ""); r.status != 405 {
			t.Errorf("GET: %d", r.status)
		}
		if r := send(t, "POST", s.tokenURL(), formType, basic.Encode(), "Authorization", "Bearer x"); r.status != 401 || aadsts(r) != 7000215 {
			t.Errorf("bearer: %d %s", r.status, r.text)
		}
	})
}

func r0(t *accessToken) accessToken { return *t }

// The shape of an error is what clients take apart.
func TestOAuthErrorShape(t *testing.T) {
	s := start(t, &Server{Now: func() time.Time { return time.Date(2026, 1, 9, 2, 2, 12, 0, time.UTC) }})
	_, id := s.MailApp()
	correlation := "6b0c6f1e-52d4-4d3e-9a53-9d6c5c3a4e10"
	r := send(t, "POST", s.tokenURL(), formType, credentialsForm(id, "x", exchangeResource).Encode(), "client-request-id", correlation)
	want := regexp.MustCompile(`^AADSTS7000215: Invalid client secret provided\. .*'` + id + `'\.\r\nTrace ID: ([0-9a-f-]{36})\r\nCorrelation ID: ` +
		correlation + `\r\nTimestamp: 2026-01-09 02:02:12Z$`)
	m := want.FindStringSubmatch(r.body["error_description"].(string))
	if m == nil || r.body["trace_id"] != m[1] || r.body["correlation_id"] != correlation || r.body["timestamp"] != "2026-01-09 02:02:12Z" ||
		r.body["error_uri"] != s.Authority()+"/error?code=7000215" || r.header.Get("Cache-Control") == "" {
		t.Errorf("%s", r.text)
	}
}

func TestSecretLife(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	r := graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword",
		`{"passwordCredential":{"startDateTime":"`+s.now().Add(time.Hour).Format(time.RFC3339)+`","endDateTime":"`+s.now().Add(2*time.Hour).Format(time.RFC3339)+`"}}`)
	form := credentialsForm(id, r.body["secretText"].(string), exchangeResource)
	for _, step := range []struct {
		after  time.Duration
		number int
	}{{0, 7000215}, {time.Hour + time.Minute, 0}, {time.Hour, 7000222}} {
		s.FastForward(step.after)
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != step.number {
			t.Errorf("after %v: %s", step.after, r.text)
		}
	}
	keyID, secret := newPassword(t, s, graphBearer(t, s), "x")
	if !s.RemoveCredential(keyID) || s.RemoveCredential(keyID) {
		t.Error("RemoveCredential")
	}
	if r := postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource)); aadsts(r) != 7000215 {
		t.Errorf("removed: %s", r.text)
	}
}

func TestLoopDetection(t *testing.T) {
	s := start(t, &Server{LoopLimit: 3})
	_, id := s.MailApp()
	form := credentialsForm(id, "wrong", exchangeResource)
	for i, want := range []int{7000215, 7000215, 7000215, 50196, 50196} {
		if r := postForm(t, s.tokenURL(), form); aadsts(r) != want {
			t.Fatalf("%d: %s", i, r.text)
		}
	}
	if r := postForm(t, s.tokenURL(), credentialsForm(id, "other", exchangeResource)); aadsts(r) != 7000215 {
		t.Errorf("another secret: %s", r.text)
	}
	s.FastForward(61 * time.Second)
	if r := postForm(t, s.tokenURL(), form); aadsts(r) != 7000215 {
		t.Errorf("a minute later: %s", r.text)
	}
}

func TestEntraFaults(t *testing.T) {
	s := start(t, &Server{})
	_, secret := newPassword(t, s, graphBearer(t, s), "x")
	_, id := s.MailApp()
	ask := func() response { return postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource)) }
	for _, test := range []struct {
		name   string
		faults Faults
		ok     func(r response) bool
	}{
		{"down", Faults{EntraDown: true}, func(r response) bool { return r.err != nil }},
		{"429", Faults{EntraStatus: 429, RetryAfter: 7}, func(r response) bool {
			return r.status == 429 && r.header.Get("Retry-After") == "7" && r.body["error"] == "temporarily_unavailable"
		}},
		{"500 plain", Faults{EntraStatus: 500, EntraPlain: true}, func(r response) bool {
			return r.status == 500 && r.body == nil && r.header.Get("Retry-After") == "" && r.header.Get("Content-Type") == "text/html"
		}},
		{"garbage", Faults{EntraGarbage: true}, func(r response) bool { return r.status == 200 && r.body == nil }},
		{"conditional access", Faults{ConditionalAccess: true}, func(r response) bool {
			return r.status == 400 && aadsts(r) == 53003 && r.body["error"] == "invalid_grant" && r.body["suberror"] == "message_only"
		}},
		{"no service principal", Faults{NoServicePrincipal: true}, func(r response) bool { return r.status == 401 && aadsts(r) == 7000229 }},
		{"disabled", Faults{AppDisabled: true}, func(r response) bool {
			return r.status == 400 && aadsts(r) == 7000112 && r.body["error"] == "unauthorized_client"
		}},
		{"none", Faults{}, func(r response) bool { return r.status == 200 }},
	} {
		s.SetFaults(func(f *Faults) { *f = test.faults })
		if r := ask(); !test.ok(r) {
			t.Errorf("%s: %d %s %v", test.name, r.status, r.text, r.err)
		}
	}
}

func TestIntrospection(t *testing.T) {
	s := start(t, &Server{TokenLife: time.Hour})
	bearer := graphBearer(t, s)
	keyID, secret := newPassword(t, s, bearer, "x")
	_, id := s.MailApp()
	token := appToken(t, s, id, secret, exchangeResource)
	ask := func(token string) response {
		return postForm(t, s.Authority()+"/introspect/alice@contoso.com", url.Values{"token": {token}, "client_id": {""}, "client_secret": {""}})
	}
	// As at Exchange, a token outlives the secret that it was got with.
	s.RemoveCredential(keyID)
	r := ask(token)
	if r.status != 200 || r.body["active"] != true || r.body["username"] != "alice@contoso.com" || r.body["aud"] != exchangeResource ||
		r.body["exp"] != float64(r0(s.token(token)).expires.Unix()) {
		t.Errorf("live: %s", r.text)
	}
	for name, other := range map[string]string{"Graph's": bearer, "unknown": "x", "none": ""} {
		if r := ask(other); r.status != 200 || r.text != `{"active":false}` {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	s.FastForward(time.Hour)
	if r := ask(token); r.text != `{"active":false}` {
		t.Errorf("expired: %s", r.text)
	}
}
