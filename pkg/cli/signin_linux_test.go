package cli_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// TestSignInStaysWithItsTenant: where a profile has come to name another tenant
// or cloud, the refresh token kept for it is not sent there.
func TestSignInStaysWithItsTenant(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "BROWSER=browser")
	m.run("login", "--for", "graph")
	m.run("list")
	var sent []string
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = append(sent, r.URL.Path+" "+string(body))
		http.Error(w, "{}", http.StatusBadRequest)
	}))
	defer stranger.Close()
	path := filepath.Join(m.dir, "config.toml")
	was := m.config()
	for name, change := range map[string]func(string) string{
		"authority": func(s string) string {
			return regexp.MustCompile(`authority = .*`).ReplaceAllString(s, `authority = "`+stranger.URL+`"`)
		},
		"tenant": func(s string) string {
			return regexp.MustCompile(`tenant *= .*`).ReplaceAllString(s, `tenant = "fabrikam.com"`)
		},
	} {
		now := change(was)
		if now == was {
			t.Fatalf("%s: the configuration is not another", name)
		}
		if err := os.WriteFile(path, []byte(now), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, out := m.command("list")
		err := cmd.Run()
		ee, ok := errors.AsType[*exec.ExitError](err)
		if !ok || ee.ExitCode() != 3 || !strings.Contains(out.String(), "the sign-in that is kept is for") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if len(sent) > 0 {
		t.Errorf("the stranger was sent %q", sent)
	}
	if err := os.WriteFile(path, []byte(was), 0o600); err != nil {
		t.Fatal(err)
	}
	m.run("list")
}

// TestLoginsAtOnce: logins that run at the same time all succeed, and what is
// kept at the end is good.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	for _, purpose := range []string{"mail", "graph"} {
		m := newMachine(t)
		m.env = append(m.env, "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "BROWSER=browser")
		var wg sync.WaitGroup
		for range 8 {
			cmd, out := m.command("login", "--for", purpose)
			wg.Go(func() {
				if err := cmd.Run(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		wg.Wait()
		if out := m.run("login", "--ensure", "--for", purpose); !strings.Contains(out, "still signed in") {
			t.Errorf("%s", out)
		}
	}
}
