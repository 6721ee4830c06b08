package entra

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Odd but usable answers.
func TestExpiresIn(t *testing.T) {
	tests := []struct {
		name string
		in   any
		want time.Duration
	}{
		{"number", 3599, 3599 * time.Second},
		{"string", "3599", 3599 * time.Second},
		{"fraction", 1.5, 1500 * time.Millisecond},
		{"zero", 0, 0},
		{"negative", -60, 0},
		{"missing", nil, unknownLife},
		{"words", "soon", unknownLife},
		{"NaN", "NaN", unknownLife},
		{"object", map[string]any{}, unknownLife},
		{"huge", 1e18, longestLife},
		{"beyond float", "1e999", longestLife},
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := decodeObject([]byte(tokenReply(map[string]any{"expires_in": tt.in}).body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeToken(m, now)
			if err != nil {
				t.Fatal(err)
			}
			if life := got.Expires.Sub(now); life != tt.want {
				t.Errorf("lives %v, want %v", life, tt.want)
			}
		})
	}
}

// Answers that make no sense are outages: nothing is thrown away for them.
func TestGarbage(t *testing.T) {
	with := func(name string, value any) reply { return tokenReply(map[string]any{name: value}) }
	tests := []struct {
		name string
		in   reply
		says string
	}{
		{"empty", reply{status: 200}, "not a JSON object"},
		{"HTML", reply{status: 200, body: "<html>Welcome to Hotel WiFi</html>"}, "not a JSON object"},
		{"HTML 404", reply{status: 404, body: "<html>"}, "not a JSON object"},
		{"null", reply{status: 200, body: "null"}, "not a JSON object"},
		{"array", reply{status: 200, body: "[]"}, "not a JSON object"},
		{"cut short", reply{status: 200, body: `{"access_token":"eyJ`}, "not a JSON object"},
		{"no error named", reply{status: 403, body: `{}`}, "names no error"},
		{"error an object", reply{status: 400, body: `{"error":{"code":"x"}}`}, "names no error"},
		{"no access token", with("access_token", nil), "no access token"},
		{"empty access token", with("access_token", ""), "no access token"},
		{"access token a number", with("access_token", 5), "no access token"},
		{"access token with line break", with("access_token", "ab\r\nX: y"), "characters"},
		{"refresh token with NUL", with("refresh_token", "ab\x00"), "characters"},
		{"type missing", with("token_type", nil), "no bearer token"},
		{"type pop", with("token_type", "pop"), "no bearer token"},
		{"too large", reply{status: 200, body: `{"x":"` + strings.Repeat("x", maxAnswer) + `"}`}, "larger than 1 MB"},
		{"redirect", reply{status: 307, header: map[string]string{"Location": "http://elsewhere.test/x"}}, "redirected to elsewhere.test"},
		{"redirect to nowhere", reply{status: 302}, "redirected"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := newClient(t, tt.in)
			_, err := c.RefreshToken(t.Context(), testClient, secret.New("0.old"), testScope)
			e := asError(t, err)
			if e.Kind() != Unavailable || e.Status != tt.in.status || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %s (kind %s, status %d), want %q", e, e.Kind(), e.Status, tt.says)
			}
			if n := len(f.got()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// An error is one under any status.
func TestErrorUnder200(t *testing.T) {
	c, _ := newClient(t, reply{status: 200, body: `{"error":"invalid_client","access_token":"x","token_type":"Bearer"}`})
	_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
	if k := asError(t, err).Kind(); k != Refused {
		t.Errorf("got kind %s", k)
	}
}

func TestBearerInAnyCase(t *testing.T) {
	c, _ := newClient(t, reply{status: 200, body: "\xef\xbb\xbf" + tokenReply(map[string]any{"token_type": "bEARER"}).body})
	if _, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope); err != nil {
		t.Error(err)
	}
}

// An answer that quotes the request does not carry secrets into an error.
func TestSecretsStayOut(t *testing.T) {
	echo := func(r string) reply {
		return reply{status: 400, body: toJSON(map[string]any{"error": "invalid_" + r, "suberror": r, "trace_id": r, "correlation_id": r,
			"timestamp": r, "claims": r, "error_description": "bad request: client_secret=" + r})}
	}
	for _, s := range []string{testSecret, "Yq38Q~a%2Bb%2Fc%26d%3D%C3%A9-Op9"} {
		c, _ := newClient(t, echo(s))
		_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
		e := asError(t, err)
		for _, text := range []string{err.Error(), e.Code, e.Suberror, e.Description, e.TraceID, e.CorrelationID, e.Timestamp, e.Claims} {
			if strings.Contains(text, "Yq38Q") {
				t.Errorf("secret in %q", text)
			}
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tests := map[string]time.Duration{
		"": 0, "5": 5 * time.Second, " 5 ": 5 * time.Second, "-5": 0, "5.5": 0, "soon": 0,
		"4294967295": 24 * time.Hour, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat): 0,
	}
	for in, want := range tests {
		if got := retryAfter(in, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestIdentity(t *testing.T) {
	tests := []struct {
		name, in string
		want     Identity
	}{
		{"upn", idToken(map[string]any{"upn": "a@b", "name": 5, "oid": []int{1}}), Identity{Username: "a@b"}},
		{"personal account", idToken(map[string]any{"email": "a@outlook.com", "tid": "9188040d"}), Identity{Username: "a@outlook.com", Email: "a@outlook.com", TenantID: "9188040d"}},
		{"name before address", idToken(map[string]any{"preferred_username": "a@b", "email": "alice@b"}), Identity{Username: "a@b", Email: "alice@b"}},
		{"terminal", idToken(map[string]any{"name": "A\x1b]0;x\x07\nB"}), Identity{Name: "A]0;x"}},
		{"empty", "", Identity{}},
		{"two parts", "a.b", Identity{}},
		{"not base64", "a.!.c", Identity{}},
		{"not JSON", "a.YWJj.c", Identity{}},
		{"padded", "a.eyJuYW1lIjoiQSJ9====.c", Identity{Name: "A"}},
	}
	for _, tt := range tests {
		if got := decodeIdentity(tt.in); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(tokenReply(nil).body))
	f.Add([]byte(tokenReply(map[string]any{"expires_in": "-1e400", "id_token": "a.b.c"}).body))
	f.Add([]byte(errorReply(401, "invalid_client", 7000215).body))
	f.Add([]byte(`{"error":"x","error_codes":["7000215",-1,null,1e9,{}],"error_description":"AADSTS99999999999: \r\n\x1b"}`))
	f.Add([]byte(`{"device_code":"d","user_code":"u","verification_uri":"https://x/","interval":-5,"expires_in":1e300}`))
	f.Add([]byte("<html>"))
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeObject(body)
		if err != nil {
			return
		}
		if tok, err := decodeToken(m, now); err == nil {
			if tok.Access.IsZero() || strings.ContainsAny(tok.Access.Reveal(), "\x00\x01\r\n ") {
				t.Errorf("accepted token %q", tok.Access.Reveal())
			}
			if life := tok.Expires.Sub(now); life < 0 || life > longestLife {
				t.Errorf("life %v", life)
			}
		}
		if g, err := decodeGrant(m, now); err == nil {
			if g.interval < shortestPoll || g.interval > longestPoll || g.life <= 0 || g.life > longestDeviceCode || g.UserCode == "" {
				t.Errorf("accepted %+v", g)
			}
		}
		e := &Error{Op: "fuzz", Status: 400}
		e.decode(m, strings.NewReplacer())
		_ = e.Kind()
		if text := e.Error(); strings.ContainsAny(text, "\r\n\x1b") || !utf8.ValidString(text) || len(text) > 8000 {
			t.Errorf("message %q", text)
		}
		for _, n := range e.Numbers {
			if n <= 0 {
				t.Errorf("number %d", n)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(idToken(map[string]any{"name": "Alice", "oid": "o", "tid": "t", "preferred_username": "a@b"}))
	f.Add("a.bnVsbA.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		id := decodeIdentity(token)
		for _, s := range []string{id.Name, id.Username, id.Email, id.ObjectID, id.TenantID} {
			if strings.ContainsAny(s, "\r\n\x1b\x00") || !utf8.ValidString(s) {
				t.Errorf("identity %q", s)
			}
		}
	})
}
