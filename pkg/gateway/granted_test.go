package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// granted is a session of [Server.ServeGranted].
type granted struct {
	*mailClient
	server  *Server
	stop    context.CancelFunc
	outcome chan error
}

// grant has a server of its own serve a granted session.
func (r *rig) grant(p Protocol) *granted {
	near, far := memPipe(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:50123")), r.ln.Addr())
	ctx, stop := context.WithCancel(context.Background())
	g := &granted{
		mailClient: &mailClient{Conn: near, in: bufio.NewReader(near)},
		server:     &Server{Backend: r.backend, Log: r.server.Log, Dial: r.server.Dial, Observe: r.server.Observe},
		stop:       stop, outcome: make(chan error, 1),
	}
	go func() { g.outcome <- g.server.ServeGranted(ctx, far, p, r.backend.grant) }()
	return g
}

// plays accepts the gateway's next connection, and answers it line by line.
func (r *rig) plays(greeting string, dialogue ...string) *upstreamEnd {
	r.t.Helper()
	raw, err := r.acceptUpstream()
	if err != nil {
		r.t.Fatal(err)
	}
	conn := tls.Server(raw, r.tls)
	u := &upstreamEnd{conn, bufio.NewReader(conn)}
	u.say(greeting)
	for i := 0; i < len(dialogue); i += 2 {
		u.expect(r.t, dialogue[i])
		u.say(dialogue[i+1])
	}
	return u
}

func (r *rig) smtpExchange() *upstreamEnd {
	return r.plays("220 ready\r\n", "EHLO localhost", "250-hello\r\n250-SIZE 1000\r\n250-XLOOP\r\n250-PIPELINING\r\n250 AUTH LOGIN XOAUTH2\r\n",
		"AUTH XOAUTH2", "334 \r\n", "", "235 2.7.0 welcome\r\n")
}

func TestGrantedIMAP(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		g := r.grant(IMAP)
		g.upstream = r.exchange()
		expectLine(t, g.in, "* PREAUTH [CAPABILITY IMAP4rev1 IDLE] signed in\r\n")
		g.alive(t)
		if list := g.server.Sessions(); len(list) != 1 || list[0].Name != "Outlook on Mac" {
			t.Errorf("sessions: %+v", list)
		}
		g.say("o LOGOUT\r\n")
		g.upstream.expect(t, "o LOGOUT")
		g.upstream.say("* BYE\r\no OK done\r\n")
		expectLine(t, g.in, "* BYE")
		expectLine(t, g.in, "o OK done")
		_ = g.upstream.Close()
		expectEnd(t, g.in)
		if err := <-g.outcome; err != nil {
			t.Errorf("after LOGOUT: %v", err)
		}
	})
}

// What a script pipes in is answered although its end has come.
func TestGrantedEndOfFile(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		g := r.grant(IMAP)
		g.say("n NOOP\r\n")
		_ = g.Conn.(*memConn).CloseWrite()
		g.upstream = r.exchange()
		expectLine(t, g.in, "* PREAUTH ")
		g.upstream.expect(t, "n NOOP")
		g.upstream.say("n OK done\r\n")
		expectLine(t, g.in, "n OK done")
		expectEnd(t, g.upstream.in)
		_ = g.upstream.Close()
		expectEnd(t, g.in)
		if err := <-g.outcome; err != nil {
			t.Errorf("after the end of the input: %v", err)
		}
	})
}

func TestGrantedSMTP(t *testing.T) {
	bubble(t, func(r *rig) { r.backend.grant.From = []string{goodUser} }, func(t *testing.T, r *rig) {
		g := r.grant(SMTP)
		g.upstream = r.smtpExchange()
		expectLine(t, g.in, "220 ")
		g.say("EHLO scanner\r\n")
		for _, want := range []string{"250-o365pw\r\n", "250-SIZE 1000\r\n", "250 PIPELINING\r\n"} {
			expectLine(t, g.in, want)
		}
		g.say("MAIL FROM:<eve@contoso.com>\r\n")
		expectLine(t, g.in, "550 5.7.60 ")
		g.say("MAIL FROM:<" + goodUser + ">\r\n")
		g.upstream.expect(t, "MAIL FROM:<"+goodUser+">")
		g.upstream.say("250 2.1.0 ok\r\n")
		expectLine(t, g.in, "250 2.1.0 ok")
		g.say("EHLO again\r\n")
		g.upstream.expect(t, "EHLO again")
		g.upstream.say("250 hello\r\n")
		expectLine(t, g.in, "250 hello")
		_ = g.Close()
		expectEnd(t, g.upstream.in)
		if err := <-g.outcome; err != nil {
			t.Errorf("after the client left: %v", err)
		}
	})
}

func TestGrantedPOP3(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		g := r.grant(POP3)
		expectLine(t, g.in, "+OK ")
		g.say("USER bob@contoso.com\r\n")
		expectLine(t, g.in, "+OK ")
		g.say("PASS x\r\n")
		expectLine(t, g.in, "-ERR [AUTH] this session is for "+goodUser)
		g.say("USER " + goodUser + "\r\n")
		expectLine(t, g.in, "+OK ")
		g.say("PASS x\r\n")
		g.upstream = r.plays("+OK ready\r\n", "AUTH XOAUTH2", "+ \r\n", "", "+OK\r\n", "STAT", "+OK 0 0\r\n")
		expectLine(t, g.in, "+OK ")
		g.say("QUIT\r\n")
		g.upstream.expect(t, "QUIT")
		g.upstream.say("+OK bye\r\n")
		expectLine(t, g.in, "+OK bye")
		_ = g.upstream.Close()
		if err := <-g.outcome; err != nil {
			t.Errorf("after QUIT: %v", err)
		}
	})
}

func TestGrantedIsDeclined(t *testing.T) {
	for _, c := range []struct {
		name     string
		p        Protocol
		token    error
		allowed  error
		greeting string
		reason   Reason
	}{
		{"policy over IMAP", IMAP, &Refusal{Reason: Policy}, nil, "* BYE [CONTACTADMIN] o365pw: the app password is right, but ", Policy},
		{"outage over IMAP", IMAP, errors.New("nobody answers"), nil, "* BYE [UNAVAILABLE] o365pw: ", Unavailable},
		{"policy over SMTP", SMTP, &Refusal{Reason: Policy}, nil, "554 5.7.0 o365pw: the app password is right, but ", Policy},
		{"outage over SMTP", SMTP, errors.New("nobody answers"), nil, "421 4.3.2 o365pw: ", Unavailable},
		{"revoked meanwhile", SMTP, nil, &Refusal{Reason: Revoked}, "554 5.7.0 o365pw: this app password was revoked", Revoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			var refused atomic.Int32
			bubble(t, func(r *rig) {
				r.server.Observe = func(e Event) {
					if e.Kind == Refused && e.Reason == c.reason && e.Grant.ID == "6f1c" {
						refused.Add(1)
					}
				}
				r.backend.allowed = func(Grant) error { return c.allowed }
				r.backend.token = func(context.Context, Grant) (secret.Text, error) { return secret.New(goodToken), c.token }
			}, func(t *testing.T, r *rig) {
				g := r.grant(c.p)
				if c.token == nil {
					defer r.smtpExchange().Close()
				}
				expectLine(t, g.in, c.greeting)
				expectEnd(t, g.in)
				if refusal, ok := errors.AsType[*Refusal](<-g.outcome); !ok || refusal.Reason != c.reason {
					t.Errorf("outcome: %v, want %s", refusal, c.reason)
				}
				if refused.Load() != 1 {
					t.Errorf("the refusal was told %d times", refused.Load())
				}
			})
		})
	}
}

func TestGrantedEnds(t *testing.T) {
	var allowed atomic.Pointer[Refusal]
	for _, c := range []struct {
		name   string
		change func(*rig)
		end    func(*granted)
		last   string
		reason Reason
	}{
		{"revoked", nil, func(g *granted) {
			allowed.Store(&Refusal{Reason: Revoked})
			g.server.Recheck()
		}, "* BYE o365pw: this app password was revoked", Revoked},
		{"refused by Entra", func(r *rig) {
			r.backend.revalidate = func(context.Context, Grant) error { return &Refusal{Reason: Policy} }
		}, func(*granted) { time.Sleep(time.Minute) }, "* BYE o365pw: the app password is right, but ", Policy},
		{"shutdown", nil, func(g *granted) { g.stop() }, "* BYE o365pw: the gateway is shutting down", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			allowed.Store(nil)
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(r *rig) {
					r.backend.allowed = func(Grant) error {
						if refusal := allowed.Load(); refusal != nil {
							return refusal
						}
						return nil
					}
					if c.change != nil {
						c.change(r)
					}
				})
				defer r.close()
				g := r.grant(IMAP)
				g.upstream = r.exchange()
				expectLine(t, g.in, "* PREAUTH ")
				go c.end(g)
				expectLine(t, g.in, c.last)
				_ = g.Close()
				err := <-g.outcome
				if refusal, ok := errors.AsType[*Refusal](err); c.reason == "" && err != nil || c.reason != "" && (!ok || refusal.Reason != c.reason) {
					t.Errorf("outcome: %v, want %q", err, c.reason)
				}
			})
		})
	}
}

func TestGrantedIsReadOnly(t *testing.T) {
	bubble(t, func(r *rig) { r.backend.grant.ReadOnly = true }, func(t *testing.T, r *rig) {
		g := r.grant(IMAP)
		g.upstream = r.exchange()
		expectLine(t, g.in, "* PREAUTH ")
		g.say("d DELETE Archive\r\n")
		line, err := g.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "d NO ") {
			t.Errorf("got %q (%v), want a refusal", line, err)
		}
		g.say("a LOGIN x y\r\n") // nobody else's mailbox either
		if line, err = g.in.ReadString('\n'); err != nil || strings.HasPrefix(line, "a OK") {
			t.Errorf("got %q (%v), want a refusal", line, err)
		}
		_ = g.Close()
		<-g.outcome
	})
}

func TestServeGrantedOnce(t *testing.T) {
	near, far := memPipe(nil, nil)
	defer near.Close()
	if err := (&Server{}).ServeGranted(t.Context(), far, IMAP, Grant{}); err == nil {
		t.Error("served without a backend")
	}
	near, far = memPipe(nil, nil)
	defer near.Close()
	if err := (&Server{Backend: &fakeBackend{}}).ServeGranted(t.Context(), far, "nntp", Grant{}); err == nil {
		t.Error("served a protocol that does not exist")
	}
}
