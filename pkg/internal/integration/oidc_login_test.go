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
func newUser(t *testing.T, authority, tenant, clientID string) *lab {
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
`, tenant, clientID, authority, authority+"/v1.0"))
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
	l := newUser(t, p.issuer, oidcTenant, publicClient)
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
	l := newUser(t, p.issuer, oidcTenant, publicClient)
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
	l := newUser(t, p.issuer, oidcTenant, publicClient)
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
	g := newGate(t, p.issuer)
	l := newUser(t, g.address, oidcTenant, publicClient)
	var opened atomic.Int32
	l.browser(func(address string) {
		opened.Add(1)
		if _, _, err := newPerson(mailbox).walk(t.Context(), address, ""); err != nil {
			t.Error(err)
		}
	})
	r := l.try("", binary, "login")
	l.signedIn(r.code, r.stderr, "graph")
	g.close()
	killed := l.start(binary, "login", "--ensure")
	g.await(t)
	killed.kill()
	g.open()

	r = l.try("", binary, "login", "--ensure")
	l.signedIn(r.code, r.stderr, "graph")
	if n := opened.Load(); n != 2 {
		t.Errorf("the browser was opened %d times, want twice", n)
	}
}

func (p *oidcProvider) testLoginDeclined(t *testing.T) {
	l := newUser(t, p.issuer, oidcTenant, publicClient)
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

// gate is a way to a server on which one answer of its token endpoint can be
// held back.
type gate struct {
	address string
	closed  atomic.Bool
	held    chan string // the status of the answer that is held back
	opened  chan struct{}
	open    func()
}

func newGate(t *testing.T, upstream string) *gate {
	t.Helper()
	to, err := url.Parse(upstream)
	must(t, err)
	g := &gate{held: make(chan string, 1), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // about connections that end early
	proxy.ModifyResponse = func(resp *http.Response) error {
		if strings.HasSuffix(resp.Request.URL.Path, "/token") && g.closed.CompareAndSwap(true, false) {
			g.held <- resp.Status
			<-g.opened
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	g.address = server.URL
	t.Cleanup(func() {
		g.open()
		server.Close()
	})
	return g
}

// close holds the next answer back until open is called.
func (g *gate) close() { g.closed.Store(true) }

// await waits until an answer, which has to be a token, is held back.
func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case status := <-g.held:
		if !strings.HasPrefix(status, "200 ") {
			t.Fatalf("the token endpoint has answered %s", status)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody has asked for a token")
	}
}
