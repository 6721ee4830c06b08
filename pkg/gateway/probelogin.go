package gateway

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// LoginProbe is a sign-in at a running gateway, to be tried as a mail program
// would.
type LoginProbe struct {
	Protocol Protocol
	Address  string      // host:port
	TLS      *tls.Config // for implicit TLS; nil: clear text, which only this machine is sent
	User     string
	Password secret.Text

	// Dial is as that of [Server].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ProbeLogin signs in by SASL PLAIN (RFC 4616) and leaves. A gateway's OK means
// that the upstream has opened the mailbox. It returns the steps that were done,
// in order; where one failed, the error is a [*ServerError] with the gateway's
// reply. Without a deadline of ctx it takes a minute at most. No proxy is used.
func ProbeLogin(ctx context.Context, r LoginProbe) (passed []Step, err error) {
	p, ok := protocols[r.Protocol]
	if !ok {
		return nil, fmt.Errorf("gateway: protocol %q is not served", r.Protocol)
	}
	ctx, cancel := withDeadline(ctx, probeTimeout)
	defer cancel()
	d := dialer{dialTCP: r.Dial, passed: func(s Step) { passed = append(passed, s) }, gateway: true}
	up, err := d.dial(ctx, Upstream{Address: r.Address, TLS: r.TLS, StartTLS: r.TLS == nil}) // which is not begun
	if err != nil {
		return passed, bare(err)
	}
	defer up.close()
	if r.TLS == nil && !addrPort(up.raw.RemoteAddr()).Addr().IsLoopback() {
		up.at(StepTLS)
		return passed, up.failed("sign-in", errors.New("a password is not sent in clear to another machine"))
	}
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + r.User + "\x00" + r.Password.Reveal()))
	if err := up.during(ctx, func() error { return p.logIn(up, r.User, response) }); err != nil {
		return passed, withoutPassword(bare(err), response, r.Password)
	}
	up.at("")
	_ = up.send(p.leave)
	return passed, nil
}

// bare takes the [*ServerError] out of the Refusal that it would be for a mail
// client.
func bare(err error) error {
	if e, ok := errors.AsType[*ServerError](err); ok {
		return e
	}
	return err
}

// withoutPassword is err, unless the server has repeated what it was sent.
func withoutPassword(err error, response string, password secret.Text) error {
	e, ok := errors.AsType[*ServerError](err)
	text := err.Error()
	if !ok || password.IsZero() || !strings.Contains(text, response) && !strings.Contains(text, password.Reveal()) {
		return err
	}
	return &ServerError{Address: e.Address, Step: e.Step, Command: e.Command, Fault: FaultUnexpected, gateway: true,
		Err: &unexpectedError{problem: "its answer repeats the password"}}
}

// notLoggedIn is the error for a reply of the gateway that is no OK.
func (u *upstream) notLoggedIn(command, user, reply string, temporary bool) error {
	e := u.refused(command, login{mailbox: user}, reply)
	e.Fault = FaultRefused
	if temporary {
		e.Fault = FaultTemporary
	}
	return e
}

func imapLogIn(u *upstream, user, response string) error {
	d := &imapDialog{u: u}
	if err := d.greeting(); err != nil {
		return err
	}
	u.at(StepAuth)
	err := u.send("g1 AUTHENTICATE PLAIN " + response + "\r\n")
	if err != nil {
		return u.failed("AUTHENTICATE", err)
	}
	rs, err := d.finish(nil, "g1")
	if err != nil {
		return u.failed("AUTHENTICATE", err)
	}
	if rs[0].status != "OK" {
		return u.notLoggedIn("AUTHENTICATE", user, rs[0].said(), strings.EqualFold(rs[0].code, imapCodes[Unavailable]))
	}
	return nil
}

func pop3LogIn(u *upstream, user, response string) error {
	d := pop3Dialog{u: u}
	if err := d.greeting(); err != nil {
		return err
	}
	u.at(StepAuth)
	line, err := d.command("AUTH PLAIN " + response)
	if err != nil {
		return u.failed("AUTH", err)
	}
	if !pop3OK(line) {
		return u.notLoggedIn("AUTH", user, line, strings.Contains(line, "["+pop3Codes[Unavailable]+"]"))
	}
	return nil
}

func smtpLogIn(u *upstream, user, response string) error {
	d := smtpDialog{u: u, hello: "localhost"}
	if err := d.greeting(); err != nil {
		return err
	}
	u.at(StepAuth)
	reply, err := d.command("AUTH PLAIN " + response)
	if err != nil {
		return u.failed("AUTH", err)
	}
	if reply.code != "235" {
		return u.notLoggedIn("AUTH", user, reply.code+" "+reply.text(), reply.code[0] == '4')
	}
	return nil
}
