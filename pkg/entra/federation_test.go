package entra

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestFederatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	assertion := FederatedFile(path)
	tests := []struct {
		name, content string
		want          string // the assertion, or the error
	}{
		{"one", "aaa.bb-b.c_c", "aaa.bb-b.c_c"},
		{"replaced", "ddd.eee.fff\n", "ddd.eee.fff"},
		{"blanks and byte order mark", "\ufeff \r\naaa.bbb.ccc\r\n\r\n", "aaa.bbb.ccc"},
		{"empty", " \n", "empty"},
		{"two", "aaa.bbb.ccc\nddd.eee.fff\n", "one JWT"},
		{"JSON", `{"value":"hunter2"}`, "one JWT"},
		{"too few parts", "hunter2.bbb", "one JWT"},
		{"no signature", "hunter2.bbb.", "one JWT"},
		{"too large", strings.Repeat("a", 1<<20) + ".bbb.ccc", "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := assertion(t.Context(), testClient, "x")
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got error %q, want %q", err, tt.want)
				}
			} else if got.Reveal() != tt.want {
				t.Errorf("got %q, want %q", got.Reveal(), tt.want)
			}
		})
	}
	for name, path := range map[string]string{"missing": path + "-not", "a folder": filepath.Dir(path)} {
		if _, err := FederatedFile(path)(t.Context(), testClient, "x"); err == nil || strings.Count(err.Error(), path) != 1 ||
			errors.Is(err, fs.ErrNotExist) != (name == "missing") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// gitHub is a fake of the endpoint that gives identity tokens.
func gitHub(t *testing.T, a reply) (requestURL string, requests *int) {
	requests = new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if r.Method != http.MethodGet || r.URL.Path != "/idtoken/x" || r.Header.Get("Authorization") != "bearer runner-token" ||
			r.URL.Query().Encode() != "api-version=2.0&audience=api%3A%2F%2FAzureADTokenExchange" {
			t.Errorf("got %s %s %v", r.Method, r.URL, r.Header)
		}
		for k, v := range a.header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	t.Cleanup(s.Close)
	return s.URL + "/idtoken/x?api-version=2.0", requests
}

func TestGitHubActions(t *testing.T) {
	address, requests := gitHub(t, reply{status: 200, body: `{"count":1,"value":"aaa.bbb.ccc"}`})
	c, f := newClient(t, tokenReply(nil))
	a := GitHubActions(nil, address, secret.New("runner-token"))
	for range 2 {
		if _, err := c.ClientAssertion(t.Context(), testClient, a, testScope); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.got()[1].form.Get("client_assertion"); got != "aaa.bbb.ccc" || *requests != 2 {
		t.Errorf("got assertion %q, %d requests to GitHub", got, *requests)
	}
}

func TestGitHubActionsFails(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer thief.Close()
	tests := []struct {
		name   string
		answer reply
		kind   Kind
		want   string
	}{
		{"not allowed", reply{status: 403, body: "no for runner-token"}, Misconfigured, "id-token: write"},
		{"token over", reply{status: 401}, Misconfigured, "id-token: write"},
		{"not found", reply{status: 404, body: "what?"}, Misconfigured, "what?"},
		{"throttled", reply{status: 429}, Unavailable, "HTTP 429"},
		{"down", reply{status: 503, body: "<html>"}, Unavailable, "<html>"},
		{"redirect", reply{status: 307, header: map[string]string{"Location": thief.URL}}, Unavailable, "not followed"},
		{"not JSON", reply{status: 200, body: "hello"}, Unavailable, "not a JSON object"},
		{"no value", reply{status: 200, body: "{}"}, Unavailable, "no identity token"},
		{"odd value", reply{status: 200, body: `{"value":"hunter2"}`}, Unavailable, "no identity token"},
		{"endless", reply{status: 200, body: strings.Repeat(" ", 2<<20)}, Unavailable, "1 MB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := gitHub(t, tt.answer)
			c, f := newClient(t, tokenReply(nil))
			_, err := c.ClientAssertion(t.Context(), testClient, GitHubActions(nil, address, secret.New("runner-token")), testScope)
			e := asError(t, err)
			if e.Kind() != tt.kind || !strings.Contains(e.Error(), tt.want) || e.Status != tt.answer.status {
				t.Errorf("got %v: %v", e.Kind(), e)
			}
			for _, s := range []string{"runner-token", "hunter2", "api-version"} {
				if strings.Contains(e.Error(), s) {
					t.Errorf("%v holds %s", e, s)
				}
			}
			if len(f.got()) != 0 {
				t.Error("Entra was asked")
			}
		})
	}
	for name, tt := range map[string]struct{ url, token string }{
		"no permission": {"", ""}, "no token": {"https://x.test", ""}, "in clear": {"http://192.0.2.1/x", "t"},
		"no host": {"https:///x", "t"}, "with a password": {"https://a:hunter2@x.test/", "t"}, "garbage": {"%", "t"},
		"a line end in the token": {"https://x.test", "t\r\nX: y"},
	} {
		_, err := GitHubActions(nil, tt.url, secret.New(tt.token))(t.Context(), testClient, "x")
		if e := asError(t, err); e.Kind() != Misconfigured || strings.Contains(e.Error(), "hunter2") {
			t.Errorf("%s: got %v: %v", name, e.Kind(), e)
		}
	}
}

// A short outage of GitHub's is gone through as one of Entra's.
func TestGitHubActionsRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			rec := httptest.NewRecorder()
			if n++; n < 3 {
				rec.WriteHeader(503)
			} else {
				_, _ = rec.WriteString(`{"value":"aaa.bbb.ccc"}`)
			}
			return rec.Result(), nil
		})}
		c, f := newBubbleClient(t, tokenReply(nil))
		_, err := c.ClientAssertion(t.Context(), testClient, GitHubActions(h, "https://github.test/x", secret.New("t")), testScope)
		if err != nil || n != 3 || len(f.got()) != 1 {
			t.Errorf("got %v, %d requests to GitHub, %d to Entra", err, n, len(f.got()))
		}
	})
}
