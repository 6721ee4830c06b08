package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// play has a server say and expect lines: "S: " what it says, "C: " how the
// client's line begins, "TLS" the handshake, "SILENCE" until the client leaves.
// The connection is closed at the end. It returns the client's lines.
func (r *rig) play(conn net.Conn, lines ...string) (said []string) {
	r.t.Helper()
	in := bufio.NewReader(conn)
	for _, line := range lines {
		switch kind, text, _ := strings.Cut(line, ": "); kind {
		case "S":
			_, _ = io.WriteString(conn, text+"\r\n")
		case "C":
			got, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(got, text) {
				r.t.Fatalf("got %q (%v), want %q", got, err, text)
			}
			said = append(said, strings.TrimRight(got, "\r\n"))
		case "TLS":
			conn = tls.Server(conn, r.tls)
			in = bufio.NewReader(conn)
		case "SILENCE":
			_, _ = io.Copy(io.Discard, in)
		default:
			r.t.Fatalf("not a step: %q", line)
		}
	}
	_ = conn.Close()
	return said
}

// playUpstream is play on the gateway's next connection upstream.
func (r *rig) playUpstream(lines ...string) []string {
	r.t.Helper()
	conn, err := r.acceptUpstream()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.play(conn, lines...)
}

var (
	imapAsked = []string{"TLS", "S: * OK ready", "C: g1 AUTHENTICATE XOAUTH2 ", "S: g1 OK done", "C: g2 CAPABILITY", "C: g3 STATUS INBOX (UIDNEXT)"}
	pop3Asked = []string{"TLS", "S: +OK ready", "C: AUTH XOAUTH2", "S: + ", "C: ", "S: +OK done", "C: STAT"}
	smtpAsked = []string{"TLS", "S: 220 ready", "C: EHLO localhost", "S: 250-x", "S: 250 AUTH LOGIN XOAUTH2", "C: AUTH XOAUTH2", "S: 334 ", "C: "}
	smtpNamed = append(slices.Clone(smtpAsked), "S: 235 2.7.0 done", "C: MAIL FROM:<alice@contoso.com>")
)

// TestProbe: how far a sign-in comes, and what each fault is.
func TestProbe(t *testing.T) {
	const (
		disabled     = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information."
		notConnected = "User is authenticated but not connected."
		throttles    = "Request is throttled. Suggested Backoff Time: 92415 milliseconds"
	)
	all := []Step{StepConnect, StepTLS, StepGreeting, StepAuth, StepMailbox}
	for name, tc := range map[string]struct {
		protocol  Protocol
		change    func(*ProbeRequest)
		upstream  []string
		passed    []Step
		step      Step
		fault     Fault
		reply     string // that the error holds
		text      string // in the error
		reason    Reason
		delegated bool
	}{
		"imap": {protocol: IMAP, passed: all,
			upstream: append(slices.Clone(imapAsked), "S: * CAPABILITY IMAP4rev1", "S: g2 OK x", "S: g3 OK x", "C: g9 LOGOUT")},
		"imap, token refused": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultRefused, reason: Policy,
			upstream: append(slices.Clone(imapAsked[:3]), "S: g1 NO AUTHENTICATE failed."), reply: "NO AUTHENTICATE failed.", text: "IMAP.AccessAsApp"},
		"imap, a person's token refused": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultRefused, reason: Policy, delegated: true,
			upstream: append(slices.Clone(imapAsked[:3]), "S: g1 NO AUTHENTICATE failed."), reply: "NO AUTHENTICATE failed.", text: "IMAP.AccessAsUser.All"},
		"imap, not connected": {protocol: IMAP, passed: all[:4], step: StepMailbox, fault: FaultNotConnected, reason: Policy,
			upstream: append(slices.Clone(imapAsked), "S: g2 BAD "+notConnected, "S: g3 BAD "+notConnected), reply: "BAD " + notConnected, text: "service principal has no FullAccess"},
		"imap, a person not connected": {protocol: IMAP, passed: all[:4], step: StepMailbox, fault: FaultNotConnected, reason: Policy, delegated: true,
			upstream: append(slices.Clone(imapAsked), "S: g2 OK x", "S: g3 NO "+notConnected), reply: "NO " + notConnected, text: "the person who signed in"},
		"imap, throttled": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultThrottled, reason: Unavailable,
			upstream: append(slices.Clone(imapAsked[:3]), "S: g1 BAD "+throttles), reply: throttles, text: "1m32.415s of rest"},
		"imap, for now": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultTemporary, reason: Unavailable,
			upstream: append(slices.Clone(imapAsked[:3]), "S: g1 NO [UNAVAILABLE] later"), reply: "NO [UNAVAILABLE] later", text: "later"},
		"imap, another server": {protocol: IMAP, passed: all[:2], step: StepGreeting, fault: FaultUnexpected, reason: Unavailable,
			upstream: []string{"TLS", "S: 220 ESMTP"}, reply: "220 ESMTP", text: "220 ESMTP"},
		"imap, says good-bye": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultTemporary, reason: Unavailable,
			upstream: append(slices.Clone(imapAsked[:3]), "S: * BYE Too many connections"), reply: "* BYE Too many connections", text: "AUTHENTICATE"},
		"smtp, not now": {protocol: SMTP, passed: all[:2], step: StepGreeting, fault: FaultTemporary, reason: Unavailable,
			upstream: []string{"TLS", "S: 421 4.3.2 Service not available"}, reply: "421 4.3.2 Service", text: "greeting"},
		"imap, no OAuth": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultUnexpected, reason: Unavailable,
			upstream: []string{"TLS", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready"}, text: "is this the right server?"},
		"imap, lost": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultUnreachable, reason: Unavailable,
			upstream: imapAsked[:3], text: "it closed the connection"},
		"imap, silent": {protocol: IMAP, passed: all[:2], step: StepGreeting, fault: FaultUnreachable, reason: Unavailable,
			upstream: []string{"TLS", "SILENCE"}, text: "greeting"},
		"imap, STARTTLS refused": {protocol: IMAP, passed: []Step{StepConnect, StepGreeting}, step: StepTLS, fault: FaultUnexpected, reason: Unavailable,
			change: func(r *ProbeRequest) { r.Upstream.StartTLS = true }, upstream: []string{"S: * OK x", "C: g0 STARTTLS", "S: g0 NO not today"}, reply: "NO not today", text: "STARTTLS"},
		"no TLS there": {protocol: IMAP, passed: all[:1], step: StepTLS, fault: FaultUnreachable, reason: Unavailable,
			upstream: []string{"S: * OK ready", "SILENCE"}, text: "handshake"},
		"another name on the certificate": {protocol: POP3, passed: all[:1], step: StepTLS, fault: FaultUnreachable, reason: Unavailable,
			change: func(r *ProbeRequest) {
				r.Upstream.TLS = r.Upstream.TLS.Clone()
				r.Upstream.TLS.ServerName = "outlook.office365.com"
			},
			upstream: []string{"TLS", "SILENCE"}, text: "outlook.office365.com"},
		"nobody there": {protocol: SMTP, step: StepConnect, fault: FaultUnreachable, reason: Unavailable, text: "no route to host",
			change: func(r *ProbeRequest) {
				r.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }
			}},
		"no address": {protocol: SMTP, step: StepConnect, fault: FaultUnreachable, reason: Unavailable, text: "missing port",
			change: func(r *ProbeRequest) { r.Upstream.Address = "mail.example" }},
		"no token": {protocol: IMAP, passed: all[:3], step: StepAuth, fault: FaultRefused, reason: Policy, text: "token",
			change: func(r *ProbeRequest) { r.Token = secret.Text{} }, upstream: []string{"TLS", "S: * OK ready"}},
		"pop3": {protocol: POP3, passed: all, upstream: append(slices.Clone(pop3Asked), "S: +OK 2 320", "C: QUIT")},
		"pop3, token refused": {protocol: POP3, passed: all[:3], step: StepAuth, fault: FaultRefused, reason: Policy, text: "-PopEnabled",
			upstream: append(slices.Clone(pop3Asked[:5]), "S: -ERR Authentication failure: unknown user name or bad password."), reply: "-ERR Authentication failure"},
		"pop3, not connected": {protocol: POP3, passed: all[:4], step: StepMailbox, fault: FaultNotConnected, reason: Policy, text: "has no FullAccess on the mailbox",
			upstream: append(slices.Clone(pop3Asked), "S: -ERR no"), reply: "-ERR no"},
		"smtp": {protocol: SMTP, passed: all, upstream: append(slices.Clone(smtpNamed), "S: 250 2.1.0 Sender OK", "C: RSET", "S: 250 2.0.0 Resetting", "C: QUIT")},
		"smtp, by STARTTLS": {protocol: SMTP, passed: []Step{StepConnect, StepGreeting, StepTLS, StepAuth, StepMailbox},
			change: func(r *ProbeRequest) { r.Upstream.StartTLS = true },
			upstream: slices.Concat([]string{"S: 220 ready", "C: EHLO", "S: 250-x", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go", "TLS"}, smtpNamed[2:],
				[]string{"S: 250 2.1.0 Sender OK", "C: RSET", "S: 250 2.0.0 Resetting", "C: QUIT"})},
		"smtp, token refused": {protocol: SMTP, passed: all[:3], step: StepAuth, fault: FaultRefused, reason: Policy, text: "SMTP.SendAsApp",
			upstream: append(slices.Clone(smtpAsked), "S: 535 5.7.3 Authentication unsuccessful [SN2PR00CA0018.namprd00.prod.outlook.com]"), reply: "535 5.7.3 Authentication unsuccessful ["},
		"smtp, switched off": {protocol: SMTP, passed: all[:3], step: StepAuth, fault: FaultSMTPAuthOff, reason: Policy, text: "Set-CASMailbox -Identity alice@contoso.com",
			upstream: append(slices.Clone(smtpAsked), "S: "+disabled), reply: disabled},
		"smtp, too many at once": {protocol: SMTP, passed: all[:3], step: StepAuth, fault: FaultTemporary, reason: Unavailable, text: "432",
			upstream: append(slices.Clone(smtpAsked), "S: 432 4.3.2 Concurrent connections limit exceeded."), reply: "432 4.3.2 Concurrent"},
		"smtp, not this sender": {protocol: SMTP, passed: all[:4], step: StepMailbox, fault: FaultRefused, reason: Policy, text: "Add-RecipientPermission",
			upstream: append(slices.Clone(smtpNamed), "S: 550 5.7.60 SMTP; Client does not have permissions to send as this sender"), reply: "550 5.7.60 SMTP;"},
		"smtp, not this sender for now": {protocol: SMTP, passed: all[:4], step: StepMailbox, fault: FaultTemporary, reason: Unavailable, text: "MAIL FROM",
			upstream: append(slices.Clone(smtpNamed), "S: 451 4.7.0 later"), reply: "451 4.7.0 later"},
		"smtp, what is no address": {protocol: SMTP, passed: all[:4], step: StepMailbox, fault: FaultRefused, reason: Policy, text: "no plain address",
			change: func(r *ProbeRequest) { r.Mailbox = "a>b <c" }, upstream: append(slices.Clone(smtpAsked), "S: 235 2.7.0 done")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				req := ProbeRequest{Protocol: tc.protocol, Upstream: r.backend.grant.Upstream, Mailbox: goodUser, Token: secret.New(goodToken), Delegated: tc.delegated, Dial: r.server.Dial}
				if tc.change != nil {
					tc.change(&req)
				}
				var passed []Step
				done := make(chan error, 1)
				go func() {
					var err error
					passed, err = Probe(t.Context(), req)
					done <- err
				}()
				if tc.upstream != nil {
					r.playUpstream(tc.upstream...)
				}
				err := <-done
				if !slices.Equal(passed, tc.passed) {
					t.Errorf("passed %v, want %v", passed, tc.passed)
				}
				if tc.step == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				e, ok := errors.AsType[*ServerError](err)
				if !ok {
					t.Fatalf("no ServerError: %v", err)
				}
				if e.Step != tc.step || e.Fault != tc.fault || !strings.Contains(e.Reply, tc.reply) || (e.Reply == "") != (tc.reply == "") || e.Address != req.Upstream.Address {
					t.Errorf("%+v", e)
				}
				if text := err.Error(); !strings.Contains(text, tc.text) || strings.Contains(text, goodToken) || !strings.Contains(text, e.Reply) {
					t.Errorf("text: %s", text)
				}
				if got := refusalOf(err); got.Reason != tc.reason {
					t.Errorf("reason %s", got.Reason)
				}
			})
		})
	}
	if _, err := Probe(t.Context(), ProbeRequest{Protocol: "gopher"}); err == nil {
		t.Error("gopher is served")
	}
}

// TestSharedMailbox: what is opened is the mailbox of the grant, whoever signed
// in: for a shared mailbox the token is the person's, and user= the mailbox.
func TestSharedMailbox(t *testing.T) {
	const shared = "office@contoso.com"
	for name, script := range map[Protocol][]string{
		IMAP: append(slices.Clone(imapAsked), "S: g2 OK x", "S: g3 OK x", "C: g9 LOGOUT"),
		POP3: append(slices.Clone(pop3Asked), "S: +OK 0 0", "C: QUIT"),
		SMTP: append(slices.Clone(smtpAsked), "S: 235 done", "C: MAIL FROM:<"+shared+">", "S: 250 OK", "C: RSET", "S: 250 OK", "C: QUIT"),
	} {
		t.Run(string(name), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.backend.grant.Mailbox, r.backend.grant.Delegated = shared, true
			}, func(t *testing.T, r *rig) {
				checked := make(chan error, 1)
				go func() { checked <- r.server.Check(t.Context(), name, r.backend.grant) }()
				said := r.playUpstream(script...)
				if err := <-checked; err != nil {
					t.Fatal(err)
				}
				var users []string
				for word := range strings.FieldsSeq(strings.Join(said, " ")) {
					if raw, err := base64.StdEncoding.DecodeString(word); err == nil {
						if user, token, err := xoauth2.Parse(raw); err == nil && token.Reveal() == goodToken {
							users = append(users, user)
						}
					}
				}
				if !slices.Equal(users, []string{shared}) {
					t.Errorf("user= %q", users)
				}
			})
		})
	}
}

// TestProbeLogin signs in at a gateway in each protocol, over TLS and in clear,
// with and without success.
func TestProbeLogin(t *testing.T) {
	mailbox := map[Protocol][]string{
		IMAP: append(slices.Clone(imapAsked), "S: g2 OK x", "S: g3 OK x", "SILENCE"),
		POP3: append(slices.Clone(pop3Asked), "S: +OK 0 0", "SILENCE"),
		SMTP: append(slices.Clone(smtpAsked), "S: 235 done", "SILENCE"),
	}
	closed := map[Protocol][]string{
		IMAP: append(slices.Clone(imapAsked), "S: g2 BAD User is authenticated but not connected.", "S: g3 BAD no"),
		POP3: append(slices.Clone(pop3Asked), "S: -ERR no"),
		SMTP: append(slices.Clone(smtpAsked), "S: 535 5.7.3 Authentication unsuccessful"),
	}
	steps := map[bool][]Step{
		true:  {StepConnect, StepTLS, StepGreeting, StepAuth},
		false: {StepConnect, StepGreeting, StepAuth},
	}
	for _, name := range Protocols() {
		for _, overTLS := range []bool{true, false} {
			for how, tc := range map[string]struct {
				password string
				upstream []string
				fault    Fault
				reply    map[Protocol]string
			}{
				"good":           {password: "abcd efgh ijkl mnop", upstream: mailbox[name]},
				"wrong password": {password: "wrong", fault: FaultRefused, reply: map[Protocol]string{IMAP: "NO [AUTHENTICATIONFAILED] user name", POP3: "-ERR [AUTH] user name", SMTP: "535 5.7.8 user name"}},
				"mailbox closed": {password: goodPassword, upstream: closed[name], fault: FaultRefused, reply: map[Protocol]string{IMAP: "NO [CONTACTADMIN] the app", POP3: "-ERR [SYS/PERM] the app", SMTP: "535 5.7.0 the app"}},
				"upstream lost":  {password: goodPassword, upstream: []string{"TLS"}, fault: FaultTemporary, reply: map[Protocol]string{IMAP: "NO [UNAVAILABLE] the mail", POP3: "-ERR [SYS/TEMP] the mail", SMTP: "454 4.7.0 the mail"}},
			} {
				t.Run(fmt.Sprintf("%s/TLS %t/%s", name, overTLS, how), func(t *testing.T) {
					bubble(t, func(r *rig) {
						r.name = name
						r.server.offers.learned(r.backend.grant.Upstream.Address, nil)
					}, func(t *testing.T, r *rig) {
						p := LoginProbe{Protocol: name, Address: "127.0.0.1:1993", User: goodUser, Password: secret.New(tc.password),
							Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
								return r.memory.dial(ctx, netip.MustParseAddrPort("127.0.0.1:5000"))
							}}
						if overTLS {
							p.TLS = r.trust
						}
						var passed []Step
						done := make(chan error, 1)
						go func() {
							var err error
							passed, err = ProbeLogin(t.Context(), p)
							done <- err
						}()
						if tc.upstream != nil {
							r.playUpstream(tc.upstream...)
						}
						err := <-done
						want := steps[overTLS]
						if tc.fault == "" {
							if err != nil || !slices.Equal(passed, want) {
								t.Errorf("passed %v: %v", passed, err)
							}
							return
						}
						e, ok := errors.AsType[*ServerError](err)
						if !ok || e.Step != StepAuth || e.Fault != tc.fault || !strings.HasPrefix(e.Reply, tc.reply[name]) || !slices.Equal(passed, want[:len(want)-1]) {
							t.Errorf("passed %v: %+v", passed, err)
						}
						if text := err.Error(); !strings.HasPrefix(text, "gateway 127.0.0.1:1993 refused AUTH") || strings.Contains(text, tc.password) {
							t.Error(text)
						}
					})
				})
			}
		}
	}
}

// TestProbeLoginElsewhere: servers that are no gateway, and what they must not
// get or make appear.
func TestProbeLoginElsewhere(t *testing.T) {
	response := base64.StdEncoding.EncodeToString([]byte("\x00a\x00" + goodPassword))
	for name, tc := range map[string]struct {
		protocol Protocol
		server   []string
		from     string // the server's address
		step     Step
		fault    Fault
		text     string
	}{
		"http":                         {IMAP, []string{"S: HTTP/1.1 400 Bad Request"}, "127.0.0.1:1", StepGreeting, FaultUnexpected, "400 Bad Request"},
		"leaves at once":               {POP3, nil, "127.0.0.1:1", StepGreeting, FaultUnreachable, "it closed the connection"},
		"silent":                       {SMTP, []string{"SILENCE"}, "127.0.0.1:1", StepGreeting, FaultUnreachable, "greeting"},
		"another machine":              {IMAP, []string{"S: * OK ready", "SILENCE"}, "203.0.113.9:1", StepTLS, FaultUnreachable, "in clear"},
		"imap repeats the password":    {IMAP, []string{"S: * OK ready", "C: g1", "S: g1 BAD " + goodPassword}, "[::1]:1", StepAuth, FaultUnexpected, "repeats the password"},
		"pop3 repeats the response":    {POP3, []string{"S: +OK ready", "C: AUTH", "S: -ERR what is " + response}, "127.0.0.1:1", StepAuth, FaultUnexpected, "repeats the password"},
		"smtp repeats it out of place": {SMTP, []string{"S: 220 ready", "C: EHLO", "S: 250 x", "C: AUTH", "S: " + goodPassword}, "127.0.0.1:1", StepAuth, FaultUnexpected, "repeats the password"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				near, far := memPipe(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2}, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tc.from)))
				done := make(chan error, 1)
				go func() {
					_, err := ProbeLogin(t.Context(), LoginProbe{Protocol: tc.protocol, Address: tc.from, User: "a", Password: secret.New(goodPassword),
						Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }})
					done <- err
				}()
				r.play(far, tc.server...)
				err := <-done
				e, ok := errors.AsType[*ServerError](err)
				if !ok || e.Step != tc.step || e.Fault != tc.fault {
					t.Fatalf("%+v", err)
				}
				if text := err.Error(); !strings.Contains(text, tc.text) || strings.Contains(text, goodPassword) || strings.Contains(text, response) {
					t.Error(text)
				}
			})
		})
	}
	if _, err := ProbeLogin(t.Context(), LoginProbe{Protocol: "gopher"}); err == nil {
		t.Error("gopher is served")
	}
}

// TestProbeCertificate: the cause of a handshake that failed can be looked into.
func TestProbeCertificate(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		done := make(chan error, 1)
		go func() {
			_, err := Probe(t.Context(), ProbeRequest{Protocol: IMAP, Upstream: Upstream{Address: "localhost:993"}, Mailbox: goodUser, Token: secret.New(goodToken), Dial: r.server.Dial})
			done <- err
		}()
		r.playUpstream("TLS", "SILENCE")
		if _, ok := errors.AsType[*tls.CertificateVerificationError](<-done); !ok {
			t.Error("no CertificateVerificationError")
		}
		// Whoever probes can be told to stop.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			_, err := Probe(ctx, ProbeRequest{Protocol: IMAP, Upstream: r.backend.grant.Upstream, Mailbox: goodUser, Token: secret.New(goodToken), Dial: r.server.Dial})
			done <- err
		}()
		began := time.Now()
		r.playUpstream("TLS", "S: * OK ready", "SILENCE")
		if err := <-done; err == nil || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
