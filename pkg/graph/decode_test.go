package graph

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

const lifetimeRefusal = `{"error":{"code":"CredentialInvalidLifetimeAsPerAppPolicy",
 "message":"Credential lifetime exceeds the max value allowed as per assigned policy 'p'.",
 "details":[{"code":"InvalidKeyEndDate","message":"Credential lifetime exceeds the max value allowed.","target":"EndDate"}],
 "innerError":{"date":"2024-03-05T13:14:55","request-id":"inner-id","client-request-id":"c"}}}`

func decoded(status int, header http.Header, body string) *Error {
	e := &Error{Method: "GET", URL: "https://graph.example/v1.0/x", Status: status}
	e.decode(header, []byte(body), time.Now())
	return e
}

func TestDecodeError(t *testing.T) {
	for name, tt := range map[string]struct {
		body          string
		code, message string
		requestID     string
	}{
		"policy":         {lifetimeRefusal, "CredentialInvalidLifetimeAsPerAppPolicy", "Credential lifetime exceeds the max value allowed as per assigned policy 'p'.", "inner-id"},
		"empty code":     {`{"error":{"code":"","message":"No.","innererror":{"request-id":"r","date":"2025-02-13T10:17:06"}}}`, "", "No.", "r"},
		"inner code":     {`{"error":{"code":"UnknownError","message":"","innerError":{"code":"Specific","message":"Why","innerError":{"request-id":"deep"}}}}`, "Specific", "Why", "deep"},
		"nested message": {`{"error":{"code":"UnknownError","message":"{\"errorCode\":\"PermissionScopeNotGranted\",\"message\":\"Authorization failed\"}"}}`, "PermissionScopeNotGranted", "Authorization failed", ""},
		"brace message":  {`{"error":{"code":"X","message":"{not json"}}`, "X", "{not json", ""},
		"odd types":      {`{"error":{"code":5,"message":["x"],"details":"d","innerError":7}}`, "", "", ""},
		"odd details":    {`{"error":{"code":"A","message":"m","details":[null,{"code":1}],"innerError":{"request-id":5}}}`, "A", "m", ""},
		"oauth":          {`{"error":"invalid_token","error_description":"no\r\ntoken"}`, "invalid_token", "no token", ""},
		"control":        {`{"error":{"code":"A\u0007B","message":"one\r\n\ttwo\u001b[31m\u202e"}}`, "A B", "one two [31m", ""},
		"empty":          {``, "", "an answer without body", ""},
		"html":           {`<html>Sign in</html>`, "", "the answer is not JSON (text/html, 20 bytes); a proxy or sign-in page may stand between", ""},
		"array":          {`[]`, "", "the answer is not JSON (text/html, 2 bytes); a proxy or sign-in page may stand between", ""},
		"null":           {`{"error":null}`, "", "an answer without error code", ""},
		"nothing":        {`{}`, "", "an answer without error code", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := decoded(400, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, tt.body)
			if e.Code != tt.code || e.Message != tt.message || e.RequestID != tt.requestID {
				t.Errorf("code %q, message %q, request-id %q", e.Code, e.Message, e.RequestID)
			}
			if !strings.HasPrefix(e.Error(), "GET https://graph.example/v1.0/x: 400 Bad Request") {
				t.Error(e)
			}
		})
	}
	e := decoded(400, http.Header{"Request-Id": {"outer-id"}}, lifetimeRefusal)
	if e.RequestID != "outer-id" || len(e.Details) != 1 || e.Details[0] != (Detail{"InvalidKeyEndDate", "Credential lifetime exceeds the max value allowed.", "EndDate"}) {
		t.Errorf("%+v", e)
	}
}

func TestPredicates(t *testing.T) {
	mark := func(e *Error) (marks []string) {
		for name, is := range map[string]bool{"not found": e.IsNotFound(), "forbidden": e.IsForbidden(), "unauthorized": e.IsUnauthorized(), "throttled": e.IsThrottled(),
			"temporary": e.Temporary(), "none": e.IsNoSuchCredential(), "no secrets": e.PolicyForbidsSecrets(), "lifetime": e.PolicyLifetime()} {
			if is {
				marks = append(marks, name)
			}
		}
		slices.Sort(marks)
		return marks
	}
	for _, tt := range []struct {
		status int
		body   string
		want   string
	}{
		{400, `{"error":{"code":"Request_BadRequest","message":"x"}}`, ""},
		{401, "", "unauthorized"}, {403, "", "forbidden"}, {404, "", "not found"}, {409, "", ""}, {302, "", ""},
		{429, "", "temporary throttled"}, {500, "", "temporary"}, {503, "", "temporary"}, {408, "", "temporary"}, {0, "", "temporary"},
		{400, `{"error":{"code":"Request_BadRequest","message":"No password credential found with keyId 'x'."}}`, "none"},
		{400, lifetimeRefusal, "lifetime"},
		{400, `{"error":{"code":"","message":"Credential lifetime exceeds the max value allowed as per assigned policy"}}`, "lifetime"},
		{400, `{"error":{"code":"CredentialTypeNotAllowedAsPerAppPolicy","message":"x"}}`, "no secrets"},
		{400, `{"error":{"code":"Other","message":"x","innerError":{"code":"CredentialTypeNotAllowedAsPerAppPolicy"}}}`, "no secrets"},
		{400, `{"error":{"code":"Other","message":"Credential type not allowed as per assigned policy 'p'."}}`, "no secrets"},
	} {
		if got := strings.Join(mark(decoded(tt.status, nil, tt.body)), " "); got != tt.want {
			t.Errorf("%d %s: %q, not %q", tt.status, tt.body, got, tt.want)
		}
	}
}

func TestClaims(t *testing.T) {
	claims := `{"access_token":{"nbf":{"essential":true,"value":"1702682181"}}}`
	for _, encoded := range []string{base64.StdEncoding.EncodeToString([]byte(claims)), base64.RawURLEncoding.EncodeToString([]byte(claims))} {
		header := http.Header{"Www-Authenticate": {`Negotiate`, `Bearer realm="", authorization_uri="https://x", error="insufficient_claims", claims="` + encoded + `"`}}
		if e := decoded(401, header, ""); e.Claims != claims {
			t.Errorf("%q", e.Claims)
		}
		if e := decoded(403, header, ""); e.Claims != "" {
			t.Errorf("%q", e.Claims)
		}
	}
	for _, h := range []string{`Bearer error="invalid_token"`, `Bearer error="insufficient_claims"`, `Bearer error="insufficient_claims", claims="!!"`, `Bearer error="insufficient_claims", claims="AAAA"`} {
		if e := decoded(401, http.Header{"Www-Authenticate": {h}}, ""); e.Claims != "" {
			t.Errorf("%s: %q", h, e.Claims)
		}
	}
}

func TestDecodeApplicationStrict(t *testing.T) {
	base := fmt.Sprintf(`{"id":%q,"appId":%q,"unknown":{"a":[1]},"passwordCredentials":%%s}`, objectID, clientID)
	if app, err := decodeApplication(fmt.Appendf(nil, base, `[]`)); err != nil || len(app.PasswordCredentials) != 0 {
		t.Errorf("%v", err)
	}
	for _, body := range []string{
		"", "{}", "[]", "null", `{"id":"x","appId":"y","passwordCredentials":[]}`,
		fmt.Sprintf(`{"id":%q,"appId":%q}`, objectID, clientID),
		fmt.Sprintf(base, "null"), fmt.Sprintf(base, "{}"), fmt.Sprintf(base, "[{}]"), fmt.Sprintf(base, "[null]"),
		fmt.Sprintf(base, `[{"keyId":"x"}]`), fmt.Sprintf(base, `[{"keyId":"{`+oldKey+`}"}]`),
		fmt.Sprintf(base, `[{"keyId":"`+oldKey+`","startDateTime":"yesterday"}]`), fmt.Sprintf(base, "[]") + "x",
	} {
		if app, err := decodeApplication([]byte(body)); err == nil {
			t.Errorf("%s gave %+v", body, app)
		}
	}
}

func TestISODuration(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{"P90D": 90 * day, "P1Y": 365 * day, "P180D": 180 * day, "P6M": 180 * day, "P2W": 14 * day,
		"PT12H": 12 * time.Hour, "P1DT2H3M4S": day + 2*time.Hour + 3*time.Minute + 4*time.Second, "PT0.5S": 0, "P0D": 0, "P4DT12H30M5S": 4*day + 12*time.Hour + 30*time.Minute + 5*time.Second,
		"P99999Y": math.MaxInt64, "P99999999999999999999D": math.MaxInt64} {
		if got, err := parseISODuration(s); err != nil || got != want {
			t.Errorf("%s: %s %v", s, got, err)
		}
	}
	for _, s := range []string{"", "P", "PT", "90D", "P90", "P1DT", "-P1D", "P1.5D", "P1H", "p1d", "P1D ", "P1M1Y"} {
		if got, err := parseISODuration(s); err == nil {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func FuzzDecodeError(f *testing.F) {
	for _, s := range []string{lifetimeRefusal, "", "{}", `{"error":"x"}`, `{"error":{"message":"{\"errorCode\":\"a\"}"}}`, `{"error":{"innererror":{"innererror":{}}}}`, "<html>", "\xff", `{"error":{"details":[{}]}}`} {
		f.Add(400, s, "30", `Bearer error="insufficient_claims", claims="e30="`)
	}
	f.Fuzz(func(t *testing.T, status int, body, retry, challenge string) {
		e := decoded(status, http.Header{"Retry-After": {retry}, "Www-Authenticate": {challenge}, "Request-Id": {body}, "Content-Type": {retry}}, body)
		if strings.ContainsFunc(e.Error(), unicode.IsControl) || len(e.Error()) > 20*maxText || e.RetryAfter < 0 {
			t.Errorf("%q", e.Error())
		}
		e.Temporary()
		e.PolicyLifetime()
	})
}

func FuzzDecodeApplication(f *testing.F) {
	f.Add(fmt.Sprintf(`{"id":%q,"appId":%q,"passwordCredentials":[{"keyId":%q,"startDateTime":"2019-09-09T19:50:29.3086381Z"}]}`, objectID, clientID, oldKey))
	f.Add(`{"value":[],"@odata.nextLink":"https://graph.example/next"}`)
	f.Add(`{"keyId":"` + oldKey + `","secretText":"s"}`)
	f.Fuzz(func(t *testing.T, body string) {
		if app, err := decodeApplication([]byte(body)); err == nil {
			if !isGUID(app.ID) || !isGUID(app.AppID) || slices.ContainsFunc(app.PasswordCredentials, func(c PasswordCredential) bool { return !isGUID(c.KeyID) }) {
				t.Errorf("%+v", app)
			}
		}
		if cred, text, err := decodeAdded([]byte(body)); err == nil && (!isGUID(cred.KeyID) || text.IsZero()) {
			t.Errorf("%+v", cred)
		}
		_, _, _ = decodePage([]byte(body))
		_, _ = decodePolicy([]byte(body))
		_, _ = decodeOwnPolicy([]byte(body))
		_, _ = decodeUser([]byte(body))
		if u, err := decodeUse([]byte(body)); err == nil && u.keyID != strings.ToLower(u.keyID) {
			t.Errorf("%+v", u)
		}
		_, _ = decodeRegistered(response{body: []byte(body)})
		_, _ = decodePrincipal([]byte(body), clientID)
		_, _ = decodeAssignment([]byte(body))
		if keys, err := decodeKeys([]byte(body)); err == nil {
			for _, key := range keys {
				if !isGUID(key.KeyID) || len(key.raw) == 0 {
					t.Errorf("%+v", key)
				}
			}
		}
		if grant, err := decodeGrant([]byte(body)); err == nil && grant.ID == "" {
			t.Errorf("%+v", grant)
		}
	})
}

func FuzzISODuration(f *testing.F) {
	for _, s := range []string{"P90D", "P1Y2M3DT4H5M6S", "PT", "P", "P9999999999W"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseISODuration(s); d < 0 || err != nil && d != 0 {
			t.Errorf("%q: %s %v", s, d, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("30", "")
	f.Add("Sat, 01 Jan 2000 00:00:20 GMT", "Sat, 01 Jan 2000 00:00:00 GMT")
	f.Add("-1", "x")
	f.Add("99999999999999999999", "Mon, 01 Jan 0001 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, value, date string) {
		if d := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Now()); d < 0 {
			t.Errorf("%s", d)
		}
	})
}

func FuzzSameService(f *testing.F) {
	for _, s := range []string{"https://graph.example/v1.0/x?$skiptoken=1", "https://graph.example.evil/", "https://graph.example@evil/", "//graph.example/", "https:graph.example", "https://GRAPH.example:443/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		if sameService("https://graph.example/v1.0", link) != nil {
			return
		}
		r, err := http.NewRequest(http.MethodGet, link, nil)
		if err != nil {
			return
		}
		if !strings.EqualFold(r.URL.Scheme, "https") || !strings.EqualFold(r.URL.Hostname(), "graph.example") || r.URL.Port() != "" && r.URL.Port() != "443" || r.URL.User != nil {
			t.Errorf("%q leads to %s", link, r.URL.Host)
		}
	})
}
