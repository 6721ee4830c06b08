package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// mailClient is a signed-in client and the upstream's end of its session.
type mailClient struct {
	net.Conn
	in       *bufio.Reader
	upstream *upstreamEnd
}

// upstreamEnd plays Exchange.
type upstreamEnd struct {
	net.Conn
	in *bufio.Reader
}

// exchange accepts the gateway's next connection and the sign-in on it.
func (r *rig) exchange() *upstreamEnd {
	r.t.Helper()
	raw, err := r.acceptUpstream()
	if err != nil {
		r.t.Fatal(err)
	}
	conn := tls.Server(raw, r.tls)
	u := &upstreamEnd{conn, bufio.NewReader(conn)}
	u.say("* OK ready\r\n")
	u.expect(r.t, "g1 AUTHENTICATE XOAUTH2 ")
	u.say("g1 OK done\r\n")
	u.expect(r.t, "g2 CAPABILITY")
	u.expect(r.t, "g3 STATUS INBOX (UIDNEXT)")
	u.say("* CAPABILITY IMAP4rev1 IDLE\r\ng2 OK done\r\ng3 OK done\r\n")
	return u
}

func (u *upstreamEnd) say(text string) { _, _ = io.WriteString(u, text) }

func (u *upstreamEnd) expect(t testing.TB, prefix string) { expectLine(t, u.in, prefix) }

func expectLine(t testing.TB, in *bufio.Reader, prefix string) {
	t.Helper()
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) {
		t.Fatalf("got %q (%v), want %q", line, err, prefix)
	}
}

func expectEnd(t testing.TB, in io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("got %q (%v), want the end of the connection", rest, err)
	}
}

// signIn is a client that has signed in.
func (r *rig) signIn() *mailClient {
	r.t.Helper()
	conn := r.connect("127.0.0.1:50123")
	c := &mailClient{Conn: conn, in: bufio.NewReader(conn)}
	c.say("a LOGIN " + goodUser + " " + goodPassword + "\r\n")
	expectLine(r.t, c.in, "* OK [CAPABILITY")
	c.upstream = r.exchange()
	expectLine(r.t, c.in, "a OK [CAPABILITY IMAP4rev1 IDLE] signed in")
	return c
}

func (c *mailClient) say(text string) { _, _ = io.WriteString(c, text) }

// alive checks that bytes pass.
func (c *mailClient) alive(t testing.TB) {
	t.Helper()
	c.say("n NOOP\r\n")
	c.upstream.expect(t, "n NOOP")
	c.upstream.say("n OK done\r\n")
	expectLine(t, c.in, "n OK done")
}

// ended checks that the session was ended with a last line, on both sides.
func (c *mailClient) ended(t testing.TB, last string) {
	t.Helper()
	if last != "" {
		expectLine(t, c.in, last)
	}
	expectEnd(t, c.in)
	_ = c.Close()
	expectEnd(t, c.upstream.in)
}

func bubble(t *testing.T, change func(*rig), f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, change)
		defer r.close() // and leaves no goroutine, or the bubble complains
		f(t, r)
	})
}

func TestRecheck(t *testing.T) {
	var revoked atomic.Value
	revoked.Store("")
	bubble(t, func(r *rig) {
		n := 0
		r.backend.signIn = func(context.Context, Attempt) (Grant, error) {
			g := r.backend.grant
			n++
			g.ID = fmt.Sprint("id-", n)
			return g, nil
		}
		r.backend.allowed = func(g Grant) error {
			switch revoked.Load() {
			case g.ID:
				return &Refusal{Reason: Revoked, Err: errors.New("removed from the registry")}
			case "unreadable":
				return errors.New("registry cannot be read")
			case "unavailable":
				return &Refusal{Reason: Unavailable}
			}
			return nil
		}
	}, func(t *testing.T, r *rig) {
		one, two := r.signIn(), r.signIn()
		for _, outage := range []string{"", "unreadable", "unavailable"} {
			revoked.Store(outage)
			r.server.Recheck()
			one.alive(t)
			two.alive(t)
		}
		if got := r.server.Sessions(); len(got) != 2 || got[0].AppID != "id-1" || got[0].Mailbox != goodUser || got[0].BytesUp == 0 || got[0].BytesDown == 0 {
			t.Errorf("sessions: %+v", got)
		}
		revoked.Store("id-1")
		before := time.Now()
		r.server.Recheck()
		one.ended(t, "* BYE o365pw: this app password was revoked\r\n")
		if took := time.Since(before); took > time.Second { // of the bubble's time
			t.Errorf("closing took %s", took)
		}
		two.alive(t)
		if got := r.server.Sessions(); len(got) != 1 || got[0].AppID != "id-2" {
			t.Errorf("sessions: %+v", got)
		}
		if !strings.Contains(r.log.String(), "cause=\"revoked: removed from the registry\"") {
			t.Errorf("the log does not say why:\n%s", r.log)
		}
	})
}

func TestExpiry(t *testing.T) {
	bubble(t, func(r *rig) { r.backend.grant.Expires = time.Now().Add(20 * time.Minute) }, func(t *testing.T, r *rig) {
		c := r.signIn()
		time.Sleep(19 * time.Minute)
		c.alive(t)
		time.Sleep(time.Minute)
		c.ended(t, "* BYE o365pw: this app password has expired")

		// A backend that grants it nevertheless is not followed.
		conn := r.connect("127.0.0.1:50124")
		in := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "a LOGIN "+goodUser+" "+goodPassword+"\r\n")
		expectLine(t, in, "* OK")
		u := r.exchange()
		expectLine(t, in, "a NO [EXPIRED] ")
		expectEnd(t, u.in)
		_ = conn.Close()
	})
}

// TestRevocationDuringSignIn: a revocation after SignIn, which finds no session
// to close yet, is found before the client is told OK.
func TestRevocationDuringSignIn(t *testing.T) {
	bubble(t, func(r *rig) {
		r.backend.allowed = func(Grant) error { return &Refusal{Reason: Revoked} }
	}, func(t *testing.T, r *rig) {
		conn := r.connect("127.0.0.1:50123")
		in := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "a LOGIN "+goodUser+" "+goodPassword+"\r\n")
		expectLine(t, in, "* OK")
		u := r.exchange()
		expectLine(t, in, "a NO [AUTHENTICATIONFAILED] this app password was revoked")
		expectEnd(t, u.in)
		if n := len(r.server.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
		_ = conn.Close()
	})
}

func TestRevalidate(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	answers := map[string]error{}
	bubble(t, func(r *rig) {
		n := 0
		r.backend.signIn = func(context.Context, Attempt) (Grant, error) {
			g := r.backend.grant
			g.Credential = []string{"key-1", "key-1", "key-2", "key-3"}[n%4]
			n++
			return g, nil
		}
		r.backend.revalidate = func(ctx context.Context, g Grant) error {
			mu.Lock()
			asked[g.Credential]++
			err := answers[g.Credential]
			mu.Unlock()
			if g.Credential == "key-3" {
				<-ctx.Done() // Entra does not answer
				return ctx.Err()
			}
			if err != nil && err.Error() == "panic" {
				panic("a fault in the backend")
			}
			return err
		}
	}, func(t *testing.T, r *rig) {
		clients := []*mailClient{r.signIn(), r.signIn(), r.signIn(), r.signIn()}
		round := func(key string, err error) {
			mu.Lock()
			answers[key] = err
			clear(asked)
			mu.Unlock()
			time.Sleep(time.Minute + 31*time.Second)
		}
		for _, outage := range []error{errors.New("no route to host"), &Refusal{Reason: Unavailable, Err: errors.New("HTTP 503")}, errors.New("panic"), nil} {
			round("key-1", outage)
			for _, c := range clients {
				c.alive(t)
			}
		}
		mu.Lock()
		if asked["key-1"] == 0 || asked["key-1"] != asked["key-2"] || asked["key-1"] > 2 {
			t.Errorf("two sessions on key-1, one on key-2, and asked: %v", asked)
		}
		mu.Unlock()
		round("key-1", &Refusal{Reason: Revoked, Err: errors.New("AADSTS7000215")})
		clients[0].ended(t, "* BYE o365pw: this app password was revoked")
		clients[1].ended(t, "* BYE o365pw: this app password was revoked")
		clients[2].alive(t)
		clients[3].alive(t)
		round("key-2", &Refusal{Reason: SignInRequired, Err: errors.New("AADSTS700082")})
		clients[2].ended(t, "* BYE o365pw: the sign-in behind this app password has ended; run: o365pw login")
		clients[3].alive(t)
		if !strings.Contains(r.log.String(), "AADSTS7000215") || !strings.Contains(r.log.String(), "a fault in the backend") {
			t.Errorf("the log does not say why:\n%s", r.log)
		}
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.backend.token = func(ctx context.Context, g Grant) (secret.Text, error) {
			if g.Name == "slow" {
				<-ctx.Done()
				return secret.Text{}, ctx.Err()
			}
			return secret.New(goodToken), nil
		}
	}, func(t *testing.T, r *rig) {
		in := r.signIn()
		r.backend.grant.Name = "slow"
		silent := r.connect("127.0.0.1:1") // not greeted yet
		asking := r.connect("127.0.0.1:2")
		askingIn := bufio.NewReader(asking)
		_, _ = io.WriteString(asking, "a LOGIN "+goodUser+" "+goodPassword+"\r\n")
		expectLine(t, askingIn, "* OK")
		greeted := r.connect("127.0.0.1:3")
		greetedIn := bufio.NewReader(greeted)
		_, _ = io.WriteString(greeted, "a NOOP\r\n")
		expectLine(t, greetedIn, "* OK")
		expectLine(t, greetedIn, "a OK")

		r.stop()
		in.ended(t, "* BYE o365pw: the gateway is shutting down")
		expectEnd(t, silent)
		expectLine(t, askingIn, "* BYE o365pw: the gateway is shutting down")
		expectLine(t, greetedIn, "* BYE o365pw: the gateway is shutting down")
		for _, c := range []net.Conn{silent, asking, greeted} {
			_ = c.Close()
		}
		if _, err := r.memory.dial(context.Background(), addrPort(greeted.LocalAddr())); err == nil {
			t.Error("the gateway still accepts")
		}
	})
}

// TestPanic: a fault in one session is that session's alone.
func TestPanic(t *testing.T) {
	bubble(t, func(r *rig) {
		r.backend.signIn = func(_ context.Context, a Attempt) (Grant, error) {
			if a.User == "bomb" {
				panic("a fault in the backend")
			}
			return r.backend.grant, nil
		}
	}, func(t *testing.T, r *rig) {
		c := r.signIn()
		bomb := r.connect("127.0.0.1:2")
		in := bufio.NewReader(bomb)
		_, _ = io.WriteString(bomb, "a LOGIN bomb x\r\n")
		expectLine(t, in, "* OK")
		expectLine(t, in, "* BYE o365pw: internal error")
		expectEnd(t, in)
		_ = bomb.Close()
		c.alive(t)
		if log := r.log.String(); !strings.Contains(log, "a fault in the backend") || !strings.Contains(log, "session_test.go") {
			t.Errorf("the log holds no stack:\n%s", log)
		}
		_ = c.Close()
	})
}

// TestHalfClose: what a client asked for before it half-closed is answered;
// an upstream that then does not end is not waited for forever.
func TestHalfClose(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		c := r.signIn()
		c.say("b FETCH 1 BODY[]\r\n")
		_ = c.Conn.(*memConn).CloseWrite()
		c.upstream.expect(t, "b FETCH 1 BODY[]")
		expectEnd(t, c.upstream.in)
		c.upstream.say("b OK done\r\n")
		expectLine(t, c.in, "b OK done")
		time.Sleep(2 * leaveTime)
		expectLine(t, c.in, "* BYE o365pw: idle for too long")
		expectEnd(t, c.in)
	})
}

func TestUpstreamLost(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		c := r.signIn()
		_ = c.upstream.Conn.(interface{ NetConn() net.Conn }).NetConn().(*memConn).reset()
		expectLine(t, c.in, "* BYE o365pw: the connection to the mail server was lost")
		expectEnd(t, c.in)
		_ = c.Close()
	})
}
