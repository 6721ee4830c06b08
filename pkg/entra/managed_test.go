package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

const testResource = "https://graph.microsoft.com"

// managedAnswers is a transport that gives answers in turn, the last for ever,
// and keeps the requests.
func managedAnswers(requests *[]*http.Request, answers ...reply) *http.Client {
	return &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		*requests = append(*requests, r)
		a := answers[min(len(*requests), len(answers))-1]
		if a.status == 0 {
			return nil, errors.New("no route to host")
		}
		rec := httptest.NewRecorder()
		for k, v := range a.header {
			rec.Header().Set(k, v)
		}
		rec.WriteHeader(a.status)
		_, _ = rec.WriteString(a.body)
		return rec.Result(), nil
	})}
}

func TestManagedIdentity(t *testing.T) {
	tests := []struct {
		name    string
		m       ManagedIdentity
		want    string // the request
		headers map[string]string
	}{
		{"IMDS", ManagedIdentity{},
			"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fgraph.microsoft.com",
			map[string]string{"Metadata": "true", "X-Identity-Header": ""}},
		{"IMDS elsewhere, user-assigned", ManagedIdentity{IMDS: "http://127.0.0.1:8400/", ClientID: testClient},
			"http://127.0.0.1:8400/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=" + testClient + "&resource=https%3A%2F%2Fgraph.microsoft.com",
			map[string]string{"Metadata": "true"}},
		{"App Service", ManagedIdentity{Endpoint: "http://127.0.0.1:41741/msi/token", Header: secret.New("header-secret"), ClientID: testClient},
			"http://127.0.0.1:41741/msi/token?api-version=2019-08-01&client_id=" + testClient + "&resource=https%3A%2F%2Fgraph.microsoft.com",
			map[string]string{"Metadata": "", "X-Identity-Header": "header-secret"}},
		{"App Service on Linux", ManagedIdentity{Endpoint: "http://169.254.130.2:8081/msi/token", Header: secret.New("header-secret")},
			"http://169.254.130.2:8081/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fgraph.microsoft.com",
			map[string]string{"X-Identity-Header": "header-secret"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests []*http.Request
				in40 := time.Now().Add(40 * time.Minute)
				tt.m.HTTP = managedAnswers(&requests, tokenReply(map[string]any{
					"expires_in": "86399", "expires_on": fmt.Sprint(in40.Unix()), "refresh_token": "", "resource": testResource,
				}))
				got, err := tt.m.Token(t.Context(), testResource)
				if err != nil || got.Access.Reveal() != "eyJ.access.token" || !got.Expires.Equal(in40.Truncate(time.Second)) {
					t.Fatalf("got %+v, %v", got, err)
				}
				r := requests[0]
				if r.Method != http.MethodGet || r.URL.String() != tt.want {
					t.Errorf("got %s %s", r.Method, r.URL)
				}
				for name, want := range tt.headers {
					if r.Header.Get(name) != want {
						t.Errorf("got %s: %q", name, r.Header.Get(name))
					}
				}
			})
		})
	}
}

func TestManagedIdentityExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		tests := []struct {
			on, in any
			want   time.Duration
		}{
			{now.Unix() + 600, nil, 10 * time.Minute},
			{fmt.Sprint(now.Unix() + 600), "3599", 10 * time.Minute},
			{nil, "600", 10 * time.Minute},
			{"06/20/2026 02:57:58 +00:00", 600, 10 * time.Minute},
			{nil, nil, unknownLife},
			{now.Unix() - 600, nil, 0},
			{1e300, nil, longestLife},
			{-5, nil, 0},
		}
		for _, tt := range tests {
			var requests []*http.Request
			m := &ManagedIdentity{HTTP: managedAnswers(&requests, tokenReply(map[string]any{"expires_on": tt.on, "expires_in": tt.in}))}
			got, err := m.Token(t.Context(), testResource)
			if err != nil || got.Expires.Sub(now) != tt.want {
				t.Errorf("expires_on %v, expires_in %v: ends in %v, want %v (%v)", tt.on, tt.in, got.Expires.Sub(now), tt.want, err)
			}
		}
	})
}

func TestManagedIdentityRepeats(t *testing.T) {
	status := func(codes ...int) (answers []reply) {
		for _, c := range codes {
			answers = append(answers, reply{status: c, body: "<html>"})
		}
		return append(answers, tokenReply(nil))
	}
	app := ManagedIdentity{Endpoint: "http://127.0.0.1/msi/token", Header: secret.New("header-secret")}
	patient := reply{status: 429, header: map[string]string{"Retry-After": "7"}}
	never := reply{status: 429, header: map[string]string{"Retry-After": "3600"}}
	tests := []struct {
		name     string
		m        ManagedIdentity
		answers  []reply
		requests int
		fails    bool
		min, max time.Duration
	}{
		{"each of them", ManagedIdentity{}, status(404, 429, 500, 503), 5, false, 15 * time.Second, 18 * time.Second},
		{"updating", ManagedIdentity{}, status(410, 410, 410, 410, 410), 6, false, 70 * time.Second, 2 * time.Minute},
		{"for ever", ManagedIdentity{}, []reply{{status: 410}}, 6, true, 70 * time.Second, 2 * time.Minute},
		{"Retry-After", ManagedIdentity{}, []reply{patient, tokenReply(nil)}, 2, false, 7 * time.Second, 9 * time.Second},
		{"Retry-After too long", ManagedIdentity{}, []reply{never, tokenReply(nil)}, 1, true, 0, 0},
		{"wrong request", ManagedIdentity{}, status(400), 1, true, 0, 0},
		{"nobody there", ManagedIdentity{}, []reply{{}, tokenReply(nil)}, 1, true, 0, 0},
		{"App Service down", app, status(503, 429), 3, false, 3 * time.Second, 4 * time.Second},
		{"App Service, not found", app, status(404), 1, true, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests []*http.Request
				tt.m.HTTP = managedAnswers(&requests, tt.answers...)
				start := time.Now()
				_, err := tt.m.Token(t.Context(), testResource)
				if took := time.Since(start); took < tt.min || took > tt.max {
					t.Errorf("took %v, want %v to %v", took, tt.min, tt.max)
				}
				if len(requests) != tt.requests || (err != nil) != tt.fails {
					t.Errorf("%d requests, error %v; want %d, error %v", len(requests), err, tt.requests, tt.fails)
				}
			})
		})
	}
	t.Run("cancelled in the pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var requests []*http.Request
			m := &ManagedIdentity{HTTP: managedAnswers(&requests, status(410)...)}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := m.Token(ctx, testResource); !errors.Is(err, context.DeadlineExceeded) || len(requests) != 1 {
				t.Errorf("got %v after %d requests", err, len(requests))
			}
		})
	})
}

func TestManagedIdentityFails(t *testing.T) {
	app := ManagedIdentity{Endpoint: "http://127.0.0.1/msi/token", Header: secret.New("header-secret")}
	none := reply{status: 400, body: `{"error":"invalid_request","error_description":"Identity not found"}`}
	tests := []struct {
		name   string
		m      ManagedIdentity
		answer reply
		kind   Kind
		want   string
	}{
		{"no identity", ManagedIdentity{}, none, Misconfigured, "Identity not found"},
		{"wrong resource", ManagedIdentity{}, errorReply(400, "invalid_resource", 50001), Misconfigured, "AADSTS50001"},
		{"App Service's form", app, reply{status: 400, body: `{"statusCode":400,"message":"No identity for header-secret"}`}, Misconfigured, `No identity for [secret]`},
		{"wrong header", app, reply{status: 401}, Refused, "HTTP 401"},
		{"no JSON", ManagedIdentity{}, reply{status: 200, body: "<html>"}, Unavailable, "not a JSON object"},
		{"no token", ManagedIdentity{}, tokenReply(map[string]any{"access_token": nil}), Unavailable, "no access token"},
		{"redirect", ManagedIdentity{}, reply{status: 302, header: map[string]string{"Location": "http://192.0.2.1/"}}, Unavailable, "not followed"},
		{"nobody there", ManagedIdentity{}, reply{}, Unavailable, "is this a machine in Azure"},
		{"IMDS elsewhere", ManagedIdentity{IMDS: "http://192.0.2.1"}, none, Misconfigured, "not an address of this machine"},
		{"endpoint elsewhere", ManagedIdentity{Endpoint: "http://192.0.2.1", Header: app.Header}, none, Misconfigured, "IDENTITY_ENDPOINT"},
		{"Azure Arc", ManagedIdentity{Endpoint: app.Endpoint}, none, Misconfigured, "IDENTITY_HEADER"},
		{"header injection", ManagedIdentity{Endpoint: app.Endpoint, Header: secret.New("a\r\nb: c")}, none, Misconfigured, "IDENTITY_HEADER"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var requests []*http.Request
			tt.m.HTTP = managedAnswers(&requests, tt.answer)
			_, err := tt.m.Token(t.Context(), testResource)
			e := asError(t, err)
			if e.Kind() != tt.kind || !strings.Contains(e.Error(), tt.want) || strings.Contains(e.Error(), "header-secret") {
				t.Errorf("got %v: %v", e.Kind(), e)
			}
		})
	}
	if _, err := (&ManagedIdentity{}).Token(t.Context(), ""); asError(t, err).Kind() != Misconfigured {
		t.Errorf("no resource: got %v", err)
	}
}

// Without a client of the caller's no proxy is asked, whatever the environment
// says.
func TestManagedIdentityUsesNoProxy(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(tokenReply(nil).body))
	}))
	defer s.Close()
	if _, err := (&ManagedIdentity{IMDS: s.URL}).Token(t.Context(), testResource); err != nil {
		t.Error(err)
	}
	// A request through would not show it: loopback addresses are never
	// proxied, and the environment is read once in a process.
	if tr, ok := withoutProxy().Transport.(*http.Transport); !ok || tr.Proxy != nil {
		t.Error("a proxy would be asked")
	}
}
