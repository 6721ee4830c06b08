package entra

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/o365pw/o365pw/pkg/secret"
)

// gitHub is a fake of the endpoint that gives identity tokens.
func gitHub(t *testing.T, a reply) (requestURL string, requests *int) {
	requests = new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if r.Method != http.MethodGet || r.URL.Path != "/idtoken/x" || r.Header.Get("Authorization") != "Bearer runner-token" ||
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

// azurePipelines is a fake of the endpoint of Azure DevOps.
func azurePipelines(t *testing.T, a reply) (requestURI string, requests *int) {
	requests = new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if r.Method != http.MethodPost || r.URL.Path != "/oidctoken" || r.Header.Get("Authorization") != "Bearer runner-token" ||
			r.Header.Get("X-TFS-FedAuthRedirect") != "Suppress" || r.ContentLength != 0 ||
			r.URL.Query().Encode() != "api-version=7.1&serviceConnectionId=c%26d" {
			t.Errorf("got %s %s %v", r.Method, r.URL, r.Header)
		}
		for k, v := range a.header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	t.Cleanup(s.Close)
	return s.URL + "/oidctoken", requests
}

func TestAzurePipelines(t *testing.T) {
	address, requests := azurePipelines(t, reply{status: 200, body: `{"oidcToken":"aaa.bbb.ccc"}`})
	c, f := newClient(t, tokenReply(nil))
	a := AzurePipelines(nil, address, secret.New("runner-token"), "c&d")
	for range 2 {
		if _, err := c.ClientAssertion(t.Context(), testClient, a, testScope); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.got()[1].form.Get("client_assertion"); got != "aaa.bbb.ccc" || *requests != 2 {
		t.Errorf("got assertion %q, %d requests to Azure DevOps", got, *requests)
	}
}

func TestAzurePipelinesFails(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer thief.Close()
	for _, tt := range []struct {
		name   string
		answer reply
		kind   Kind
		want   string
	}{
		{"not allowed", reply{status: 401, body: "no for runner-token"}, Misconfigured, "SYSTEM_ACCESSTOKEN: $(System.AccessToken)"},
		{"not authorised", reply{status: 403}, Misconfigured, "allowed to use the service connection"},
		{"sign-in page", reply{status: 203, body: "<html>sign in"}, Misconfigured, "<html>sign in"},
		{"redirect to one", reply{status: 302, header: map[string]string{"Location": thief.URL}}, Unavailable, "not followed"},
		{"no such connection", reply{status: 404, body: `{"message":"no"}`}, Misconfigured, "no"},
		{"throttled", reply{status: 429}, Unavailable, "HTTP 429"},
		{"down", reply{status: 503}, Unavailable, "HTTP 503"},
		{"GitHub's form", reply{status: 200, body: `{"value":"aaa.bbb.ccc"}`}, Unavailable, "no identity token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := azurePipelines(t, tt.answer)
			c, f := newClient(t, tokenReply(nil))
			_, err := c.ClientAssertion(t.Context(), testClient, AzurePipelines(nil, address, secret.New("runner-token"), "c&d"), testScope)
			e := asError(t, err)
			if e.Kind() != tt.kind || !strings.Contains(e.Error(), tt.want) || e.Status != tt.answer.status || !strings.Contains(e.Error(), "Azure Pipelines") {
				t.Errorf("got %v: %v", e.Kind(), e)
			}
			if strings.Contains(e.Error(), "runner-token") || len(f.got()) != 0 {
				t.Errorf("a secret in %v, or Entra was asked", e)
			}
		})
	}
	for name, tt := range map[string]struct{ uri, token string }{
		"no address": {"", "t"}, "no token": {"https://x.test", ""}, "in clear": {"http://192.0.2.1/x", "t"}, "a line end in the token": {"https://x.test", "t\r\nX: y"},
	} {
		_, err := AzurePipelines(nil, tt.uri, secret.New(tt.token), "c")(t.Context(), testClient, "x")
		if e := asError(t, err); e.Kind() != Misconfigured || !strings.Contains(e.Error(), "SYSTEM_") {
			t.Errorf("%s: got %v: %v", name, e.Kind(), e)
		}
	}
}
