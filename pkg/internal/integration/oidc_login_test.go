//go:build integration

package integration

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// newUser is somebody with o365pw and a configuration whose cloud is at
// authority, but without mail servers.
func newUser(t *testing.T, authority string) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	l.state = filepath.Join(l.dir, "state")
	config := l.file("config.toml", fmt.Appendf(nil, `default_profile = "work"

[profiles.work]
tenant    = %q
client_id = %q
cloud     = "own"

[clouds.own]
authority         = %q
graph             = %q
imap              = "imaps://127.0.0.1:9"
pop3              = "pop3s://127.0.0.1:9"
smtp              = "smtp://127.0.0.1:9"
exchange_resource = "https://outlook.office365.com"
`, oidcTenant, publicClient, authority, authority+"/v1.0"))
	l.env = append(l.fileKeychain(),
		"PATH="+os.Getenv("PATH"), "TERM=dumb", "LC_ALL=C.UTF-8", "HOME="+l.dir, "O365PW_CONFIG="+config, "O365PW_STATE="+l.state)
	return l
}

// browser makes the user's BROWSER a program that hands the address to open.
func (l *lab) browser(open func(address string)) {
	l.t.Helper()
	var wg sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := r.PostFormValue("url")
		wg.Go(func() { open(address) })
	}))
	l.t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	script := l.file("browser", fmt.Appendf(nil, "#!/bin/sh\nexec %s --silent --show-error --fail --data-urlencode \"url=$1\" %s\n",
		tool(l.t, "curl"), server.URL))
	l.env = append(l.env, "BROWSER=sh "+script)
}

func (p *oidcProvider) testLogin(t *testing.T) {
	l := newUser(t, p.issuer)
	l.browser(func(address string) {
		page, _, err := newPerson(mailbox).walk(t.Context(), address, "")
		if err != nil || !strings.Contains(page, "<h1>Signed in</h1>") {
			t.Errorf("the browser: %v\n%s", err, page)
		}
	})
	r := l.try("", binary, "login")
	l.signedIn(r.code, r.stderr, "graph")
}

func (p *oidcProvider) testLoginPaste(t *testing.T) {
	l := newUser(t, p.issuer)
	login := l.start(binary, "login", "--paste")
	login.await("paste it here: ")
	address := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\S+$`).FindString(login.out.String())
	_, ended, err := newPerson(mailbox).walk(t.Context(), address, "")
	must(t, err)
	_, err = fmt.Fprintln(login.stdin, ended)
	must(t, err)
	must(t, login.stdin.Close())
	code := login.wait(time.Minute)
	l.signedIn(code, login.out.String(), "graph")
}

func (p *oidcProvider) testLoginDeviceCode(t *testing.T) {
	l := newUser(t, p.issuer)
	login := l.start(binary, "login", "--device-code", "--for", "mail")
	shown := regexp.MustCompile(`open (\S+) and enter the code (\S+)\n`)
	eventually(t, "the device code", func() bool { return shown.MatchString(login.out.String()) })
	m := shown.FindStringSubmatch(login.out.String())
	_, _, err := newPerson(mailbox).walk(t.Context(), m[1], m[2])
	must(t, err)
	code := login.wait(time.Minute)
	l.signedIn(code, login.out.String(), "mail")
}

// signedIn checks what login said, and that the sign-in is kept and renews
// itself: its refresh token is good once, so that --ensure works twice only
// where the next one was kept.
func (l *lab) signedIn(code int, stderr, purpose string) {
	l.t.Helper()
	if code != 0 || !regexp.MustCompile(`o365pw: signed in (for mail )?as `+mailbox).MatchString(stderr) {
		l.t.Fatalf("login: exit code %d\n%s", code, stderr)
	}
	for range 2 {
		r := l.try("", binary, "login", "--ensure", "--for", purpose)
		if r.code != 0 || !strings.Contains(r.stderr, "o365pw: still signed in ") {
			l.t.Errorf("login --ensure: exit code %d\n%s", r.code, r.stderr)
		}
	}
}

// testLoginKilled kills the program between the server's answer, which has
// used up the refresh token, and the keychain. The next login finds that out,
// and asks the person once.
func (p *oidcProvider) testLoginKilled(t *testing.T) {
	upstream, err := url.Parse(p.issuer)
	must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // about the connection that is killed
	var hold atomic.Bool
	answered, release := make(chan struct{}), make(chan struct{})
	proxy.ModifyResponse = func(resp *http.Response) error {
		if strings.HasSuffix(resp.Request.URL.Path, "/token") && hold.CompareAndSwap(true, false) {
			if resp.StatusCode != http.StatusOK {
				t.Errorf("the refresh was answered by %s", resp.Status)
			}
			close(answered)
			<-release
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)

	l := newUser(t, server.URL)
	var opened atomic.Int32
	l.browser(func(address string) {
		opened.Add(1)
		if _, _, err := newPerson(mailbox).walk(t.Context(), address, ""); err != nil {
			t.Error(err)
		}
	})
	r := l.try("", binary, "login")
	l.signedIn(r.code, r.stderr, "graph")
	hold.Store(true)
	killed := l.start(binary, "login", "--ensure")
	select {
	case <-answered:
	case <-time.After(time.Minute):
		t.Errorf("no refresh has come")
	}
	killed.kill()
	close(release)

	r = l.try("", binary, "login", "--ensure")
	l.signedIn(r.code, r.stderr, "graph")
	if n := opened.Load(); n != 2 {
		t.Errorf("the browser was opened %d times, want twice", n)
	}
}

func (p *oidcProvider) testLoginDeclined(t *testing.T) {
	l := newUser(t, p.issuer)
	l.browser(func(address string) {
		page, _, err := declining(mailbox).walk(t.Context(), address, "")
		if err != nil || !strings.Contains(page, "<h1>Not signed in</h1>") {
			t.Errorf("the browser: %v\n%s", err, page)
		}
	})
	r := l.try("", binary, "login")
	if r.code != 3 || !strings.Contains(r.stderr, "access_denied: End-User aborted interaction") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	if r := l.try("", binary, "login", "--ensure"); r.code != 3 {
		t.Errorf("after a sign-in that was declined, exit code %d\n%s", r.code, r.stderr)
	}
}
