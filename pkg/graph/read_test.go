package graph

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// pages serves a client whose GETs are answered by handler.
func serving(t *testing.T, handler http.HandlerFunc) *Client {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &Client{BaseURL: server.URL + "/v1.0", HTTP: server.Client(), Pause: time.Millisecond,
		Token: func(context.Context) (secret.Text, error) { return secret.New(theToken), nil }}
}

func page(next string, names ...string) string {
	var apps []string
	for _, name := range names {
		apps = append(apps, fmt.Sprintf(`{"id":%q,"appId":%q,"displayName":%q,"passwordCredentials":[]}`, objectID, clientID, name))
	}
	link := ""
	if next != "" {
		link = fmt.Sprintf(`,"@odata.nextLink":%q`, next)
	}
	return fmt.Sprintf(`{"value":[%s]%s}`, strings.Join(apps, ","), link)
}

func TestApplications(t *testing.T) {
	var asked []string
	c := serving(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		next := "http://" + r.Host + "/v1.0/applications?$skiptoken="
		switch r.URL.Query().Get("$skiptoken") {
		case "":
			fmt.Fprint(w, page(next+"1", "a", "b"))
		case "1":
			fmt.Fprint(w, page(next+"2"))
		default:
			fmt.Fprint(w, page("", "c"))
		}
	})
	var names []string
	for app, err := range c.Applications(t.Context(), "it's mine") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, app.DisplayName)
	}
	if strings.Join(names, "") != "abc" || len(asked) != 3 {
		t.Errorf("%v %v", names, asked)
	}
	if want := "/v1.0/applications?$select=id,appId,displayName,passwordCredentials&$filter=tags%2Fany%28t%3At%20eq%20%27it%27%27s%20mine%27%29"; asked[0] != want {
		t.Errorf("asked for %s", asked[0])
	}
	asked = nil
	for range c.Applications(t.Context(), "") {
		break
	}
	if len(asked) != 1 || strings.Contains(asked[0], "filter") {
		t.Errorf("%v", asked)
	}
}

func TestApplicationsFaults(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the token went to %s", r.Host) }))
	defer evil.Close()
	for name, answer := range map[string]func(host string, n int) string{
		"elsewhere":  func(string, int) string { return page(evil.URL+"/v1.0/applications", "a") },
		"other port": func(string, int) string { return page("http://127.0.0.1:1/v1.0/applications", "a") },
		"https":      func(host string, _ int) string { return page("https://"+host+"/v1.0/applications", "a") },
		"user":       func(host string, _ int) string { return page("http://a:b@"+host+"/v1.0/applications", "a") },
		"relative":   func(string, int) string { return page("/v1.0/applications?2", "a") },
		"circle":     func(host string, _ int) string { return page("http://"+host+"/v1.0/applications?x", "a") },
		"no end": func(host string, n int) string {
			return page(fmt.Sprintf("http://%s/v1.0/applications?%d", host, n), "a")
		},
		"no value":   func(string, int) string { return "{}" },
		"bad":        func(string, int) string { return `{"value":[{}]}` },
		"not a list": func(string, int) string { return `{"value":{}}` },
		"not a link": func(string, int) string { return page("http://%zz", "a") },
		"late garble": func(host string, n int) string {
			return []string{"", page("http://"+host+"/v1.0/applications?2", "a"), "<"}[n]
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			c := serving(t, func(w http.ResponseWriter, r *http.Request) { n++; fmt.Fprint(w, answer(r.Host, n)) })
			var last error
			for _, err := range c.Applications(t.Context(), "x") {
				if last != nil {
					t.Error("an item after the error")
				}
				last = err
			}
			if e, ok := last.(*Error); !ok || strings.Contains(e.Error(), "?") {
				t.Errorf("%v", last)
			}
			if n > maxPages {
				t.Errorf("%d pages", n)
			}
		})
	}
}

func TestSmallReads(t *testing.T) {
	c := serving(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.0/me":
			if want := "id,displayName,userPrincipalName,mail"; r.URL.Query().Get("$select") != want {
				t.Error(r.URL)
			}
			fmt.Fprint(w, `{"id":"i","displayName":"Alice","userPrincipalName":"alice@contoso.com","mail":null}`)
		case "/v1.0/organization":
			fmt.Fprintf(w, `{"value":[{"id":%q,"displayName":"Contoso"}]}`, objectID)
		default:
			w.WriteHeader(404)
		}
	})
	if u, err := c.Me(t.Context()); err != nil || u.ID != "i" || u.DisplayName != "Alice" || u.UserPrincipalName != "alice@contoso.com" || u.Mail != "" || u.Disabled {
		t.Errorf("%v %v", u, err)
	}
	if o, err := c.Organization(t.Context()); err != nil || o != (Organization{objectID, "Contoso"}) {
		t.Errorf("%v %v", o, err)
	}
	c = serving(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"value":[]}`) })
	if _, err := c.Organization(t.Context()); err == nil {
		t.Error("no organization, no error")
	}
}

func TestAppManagementPolicy(t *testing.T) {
	from := time.Date(2019, 10, 19, 10, 37, 0, 0, time.UTC)
	restrictions := func(enabled bool, list string) string {
		return fmt.Sprintf(`{"id":"x","isEnabled":%t,"applicationRestrictions":{"passwordCredentials":[%s],"keyCredentials":[]}}`, enabled, list)
	}
	lifetime := `{"restrictionType":"passwordLifetime","state":"enabled","maxLifetime":"P90D","restrictForAppsCreatedAfterDateTime":"2019-10-19T10:37:00Z"}`
	addition := `{"restrictionType":"passwordAddition","state":"%s","maxLifetime":null,"restrictForAppsCreatedAfterDateTime":null}`
	for _, tt := range []struct {
		body string
		want AppManagementPolicy
		bad  bool
	}{
		{restrictions(true, lifetime), AppManagementPolicy{MaxLifetime: 90 * 24 * time.Hour, MaxLifetimeFrom: from}, false},
		{restrictions(true, fmt.Sprintf(addition, "enabled")), AppManagementPolicy{ForbidsSecrets: true}, false},
		{restrictions(true, fmt.Sprintf(addition, "disabled")+","+lifetime), AppManagementPolicy{MaxLifetime: 90 * 24 * time.Hour, MaxLifetimeFrom: from}, false},
		{restrictions(true, `{"restrictionType":"customPasswordAddition","state":"enabled"}`), AppManagementPolicy{}, false},
		{restrictions(false, lifetime), AppManagementPolicy{}, false},
		{`{"isEnabled":true}`, AppManagementPolicy{}, false},
		{restrictions(true, `{"restrictionType":"passwordLifetime","maxLifetime":"90 days"}`), AppManagementPolicy{}, true},
		{`{}`, AppManagementPolicy{}, true},
		{`<html>`, AppManagementPolicy{}, true},
	} {
		c := serving(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1.0/policies/defaultAppManagementPolicy" {
				t.Error(r.URL)
			}
			fmt.Fprint(w, tt.body)
		})
		if got, err := c.AppManagementPolicy(t.Context()); (err != nil) != tt.bad || got != tt.want {
			t.Errorf("%s: %+v %v", tt.body, got, err)
		}
	}
	c := serving(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	if _, err := c.AppManagementPolicy(t.Context()); err == nil || !err.(*Error).IsForbidden() {
		t.Errorf("%v", err)
	}
}
