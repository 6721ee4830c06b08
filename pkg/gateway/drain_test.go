package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// smtpSession is a signed-in SMTP client with the upstream's end.
func (r *rig) smtpSession() *mailClient {
	r.t.Helper()
	conn := r.connect("127.0.0.1:50123")
	c := &mailClient{Conn: conn, in: bufio.NewReader(conn)}
	c.say("HELO x\r\nAUTH PLAIN " + "AGFsaWNlQGNvbnRvc28uY29tAGFiY2RlZmdoaWprbG1ub3A=" + "\r\n")
	expectLine(r.t, c.in, "220 ")
	expectLine(r.t, c.in, "250 ")
	raw, err := r.acceptUpstream()
	if err != nil {
		r.t.Fatal(err)
	}
	upstream := tls.Server(raw, r.tls)
	c.upstream = &upstreamEnd{upstream, bufio.NewReader(upstream)}
	c.upstream.say("220 x\r\n")
	c.upstream.expect(r.t, "EHLO x")
	c.upstream.say("250-x\r\n250 AUTH XOAUTH2\r\n")
	c.upstream.expect(r.t, "AUTH XOAUTH2")
	c.upstream.say("334 \r\n")
	c.upstream.expect(r.t, "dXNl")
	c.upstream.say("235 2.7.0 OK\r\n")
	expectLine(r.t, c.in, "235 2.7.0 signed in")
	return c
}

// step is one command with its reply.
func (c *mailClient) step(t testing.TB, command, reply string) {
	t.Helper()
	c.say(command + "\r\n")
	c.upstream.expect(t, command)
	c.upstream.say(reply + "\r\n")
	expectLine(t, c.in, reply)
}

// TestShutdownLetsAMessageBeSent: what is being sent arrives, and its sender is
// told so before the good-bye.
func TestShutdownLetsAMessageBeSent(t *testing.T) {
	bubble(t, func(r *rig) { r.name = SMTP }, func(t *testing.T, r *rig) {
		idle, c := r.smtpSession(), r.smtpSession()
		c.step(t, "MAIL FROM:<alice@contoso.com>", "250 OK")
		c.step(t, "RCPT TO:<bob@contoso.com>", "250 OK")
		c.step(t, "DATA", "354 go")
		c.say("Subject: x\r\n")
		c.upstream.expect(t, "Subject: x")
		r.stop()
		idle.ended(t, "421 4.3.2 o365pw: the gateway is shutting down\r\n")
		time.Sleep(5 * time.Second) // a slow sender
		c.say("\r\nbody\r\n.\r\n")
		for _, line := range []string{"\r\n", "body", "."} {
			c.upstream.expect(t, line)
		}
		time.Sleep(3 * time.Second) // a slow server
		c.upstream.say("250 2.0.0 queued\r\n")
		expectLine(t, c.in, "250 2.0.0 queued")
		c.ended(t, "421 4.3.2 o365pw: the gateway is shutting down\r\n")
	})
}

// TestShutdownLetsAMessageBeStored is the same for APPEND, with both kinds of
// literals.
func TestShutdownLetsAMessageBeStored(t *testing.T) {
	for _, literal := range []string{"{20+}", "{20}"} {
		bubble(t, nil, func(t *testing.T, r *rig) {
			idle, c := r.signIn(), r.signIn()
			c.say("b APPEND Sent " + literal + "\r\n")
			c.upstream.expect(t, "b APPEND Sent "+literal)
			if literal == "{20}" {
				c.upstream.say("+ go\r\n")
				expectLine(t, c.in, "+ go")
			}
			c.say("Subject: x\r\n")
			c.upstream.expect(t, "Subject: x")
			r.stop()
			idle.ended(t, "* BYE o365pw: the gateway is shutting down\r\n")
			time.Sleep(5 * time.Second)
			c.say("\r\nbody\r\n\r\n")
			for _, line := range []string{"\r\n", "body", "\r\n"} {
				c.upstream.expect(t, line)
			}
			time.Sleep(3 * time.Second)
			c.upstream.say("* 5 EXISTS\r\nb OK [APPENDUID 1 5] done\r\n")
			expectLine(t, c.in, "* 5 EXISTS")
			expectLine(t, c.in, "b OK")
			c.ended(t, "* BYE o365pw: the gateway is shutting down\r\n")
		})
	}
}

// TestShutdownHasALimit: a message that does not end is not waited for.
func TestShutdownHasALimit(t *testing.T) {
	bubble(t, func(r *rig) { r.name = SMTP }, func(t *testing.T, r *rig) {
		c := r.smtpSession()
		c.step(t, "MAIL FROM:<alice@contoso.com>", "250 OK")
		r.stop()
		began := time.Now()
		c.ended(t, "421 4.3.2 o365pw: the gateway is shutting down\r\n")
		if took := time.Since(began); took < r.server.finishTimeout() || took > r.server.finishTimeout()+time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestRefusedLiteralIsNotBusy: an APPEND that the server refuses before its
// message comes is over.
func TestRefusedLiteralIsNotBusy(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		c := r.signIn()
		c.say("b APPEND Sent {1000}\r\n")
		c.upstream.expect(t, "b APPEND Sent {1000}")
		c.upstream.say("b NO no\r\n")
		expectLine(t, c.in, "b NO no")
		c.alive(t)
		began := time.Now()
		r.stop()
		c.ended(t, "* BYE o365pw: the gateway is shutting down\r\n")
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestEnd closes one session of two.
func TestEnd(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		one, two := r.signIn(), r.signIn()
		if r.server.End(99) {
			t.Error("ended a session that is none")
		}
		if !r.server.End(r.server.Sessions()[0].ID) {
			t.Error("there was no such session")
		}
		one.ended(t, "* BYE o365pw: closed by the administrator\r\n")
		two.alive(t)
		_ = two.Close()
	})
}

// TestCheck: what a health check asks is what a client would meet.
func TestCheck(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		checked := make(chan error, 1)
		go func() { checked <- r.server.Check(t.Context(), IMAP, r.backend.grant) }()
		u := r.exchange()
		if err := <-checked; err != nil {
			t.Error(err)
		}
		u.expect(t, "g9 LOGOUT")
		expectEnd(t, u.in)
		if n := len(r.server.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
		r.server.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF }
		if err := r.server.Check(t.Context(), SMTP, r.backend.grant); err == nil || !strings.Contains(err.Error(), "connect to the upstream") {
			t.Errorf("got %v", err)
		}
		if err := r.server.Check(t.Context(), "gopher", r.backend.grant); err == nil {
			t.Error("gopher is served")
		}
	})
}

// TestObserverMayAsk: whoever is told of an event may ask the server, also with
// a lock of its own that others hold while they ask, and also while it drains.
func TestObserverMayAsk(t *testing.T) {
	bubble(t, func(r *rig) {
		r.name = SMTP
		lock := make(chan struct{}, 1) // a mutex that the bubble's clock does not wait for
		r.server.Observe = func(Event) {
			lock <- struct{}{}
			defer func() { <-lock }()
			time.Sleep(time.Second)
			r.server.Sessions()
		}
	}, func(t *testing.T, r *rig) {
		c := r.smtpSession()
		c.step(t, "MAIL FROM:<alice@contoso.com>", "250 OK")
		c.step(t, "DATA", "354 go")
		c.say("x\r\n.\r\n")
		c.upstream.expect(t, "x")
		c.upstream.expect(t, ".")
		r.stop()
		c.upstream.say("250 OK\r\n")
		expectLine(t, c.in, "250 OK")
		c.ended(t, "421 ")
	})
}

// TestSilentEntra: a token that never comes keeps nobody but its own client
// waiting, and that one not for ever.
func TestSilentEntra(t *testing.T) {
	bubble(t, func(r *rig) {
		r.backend.token = func(ctx context.Context, g Grant) (secret.Text, error) {
			if g.Name == "silent" {
				<-ctx.Done()
				return secret.Text{}, ctx.Err()
			}
			return secret.New(goodToken), nil
		}
	}, func(t *testing.T, r *rig) {
		c := r.signIn()
		r.backend.grant.Name = "silent"
		answer := make(chan string, 1)
		began := time.Now()
		go func() {
			text, _ := r.try("127.0.0.1:2", goodUser, goodPassword)
			answer <- text
		}()
		time.Sleep(10 * time.Second)
		c.alive(t)
		if text := <-answer; !strings.HasPrefix(text, "a NO [UNAVAILABLE] ") || time.Since(began) > r.server.upstreamTimeout()+time.Second {
			t.Errorf("%s after %s", text, time.Since(began))
		}
		c.alive(t)
		_ = c.Close()
	})
}
