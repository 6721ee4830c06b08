package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// Limits on what an upstream may send before the client is signed in.
const (
	maxUpstreamLine  = 8 << 10
	maxUpstreamLines = 200
)

// pop3Upstream signs in at the upstream, and asks for the mailbox: like IMAP,
// Exchange may accept a token for a mailbox that it then does not open.
func pop3Upstream(ctx context.Context, u *upstream, l login) (string, error) {
	d := pop3Dialog{u, l}
	if err := d.begin(ctx); err != nil {
		return "", err
	}
	u.at(StepAuth)
	if l.utf8 {
		if line, err := d.command("UTF8"); err != nil || !pop3OK(line) {
			return "", u.unavailable("UTF8", orUnexpected(err, line))
		}
	}
	raw, err := xoauth2.InitialResponse(l.mailbox, l.token)
	if err != nil {
		return "", u.unsayable("AUTH", err)
	}
	// Exchange documents the two lines only.
	line, err := d.command("AUTH " + xoauth2.Mechanism)
	if err == nil && strings.HasPrefix(line, "+") && !pop3OK(line) {
		line, err = d.command(base64.StdEncoding.EncodeToString(raw))
	}
	if err == nil && strings.HasPrefix(line, "+") && !pop3OK(line) {
		line, err = d.command("") // an error in a challenge
	}
	if err != nil {
		return "", u.unavailable("AUTH", err)
	}
	if err := d.judge("AUTH", line); err != nil {
		return "", err
	}
	u.at(StepMailbox)
	if line, err = d.command("STAT"); err != nil {
		return "", u.unavailable("STAT", err)
	}
	return "signed in", d.judge("STAT", line)
}

// pop3Dialog is the gateway as a client of the upstream.
type pop3Dialog struct {
	u     *upstream
	login login
}

// begin reads the greeting, and begins TLS where that is not done.
func (d pop3Dialog) begin(ctx context.Context) error {
	if err := d.greeting(); err != nil || d.u.inTLS {
		return err
	}
	d.u.at(StepTLS)
	line, err := d.command("STLS")
	if err == nil && !pop3OK(line) {
		err = unexpected(line)
	}
	if err == nil {
		err = d.u.startTLS(ctx)
	}
	if err != nil {
		return d.u.unavailable("STLS", err)
	}
	return nil
}

func (d pop3Dialog) greeting() error {
	d.u.at(StepGreeting)
	line, err := d.u.line()
	if err != nil || !pop3OK(line) {
		return d.u.unavailable("greeting", orUnexpected(err, line))
	}
	return nil
}

func (d pop3Dialog) command(line string) (string, error) {
	if err := d.u.send(line + "\r\n"); err != nil {
		return "", err
	}
	return d.u.line()
}

func pop3OK(line string) bool { return strings.HasPrefix(line, "+OK") }

// judge makes a Refusal of an answer, if it is one. As for IMAP, the person's
// app password is right at this point, and not to be blamed.
func (d pop3Dialog) judge(step, line string) error {
	if pop3OK(line) {
		return nil
	}
	said := d.u.refused(step, d.login, line)
	upper := strings.ToUpper(line)
	switch {
	case askedForPause(line), strings.Contains(upper, "[SYS/TEMP]"), strings.Contains(upper, "[IN-USE]"), strings.Contains(upper, "[LOGIN-DELAY]"):
		return said.putOff(line)
	case !strings.HasPrefix(line, "-ERR"):
		return &Refusal{Reason: Unavailable, Err: said}
	}
	// Before STAT the token is judged, by STAT the mailbox.
	fault := FaultRefused
	if d.u.step == StepMailbox {
		fault = FaultNotConnected
	}
	return said.notLetIn(fault, POP3, d.login, "let it open "+d.login.mailbox)
}

// pop3Offers asks an upstream what it can do (RFC 2449), and keeps what a
// client can be told before sign-in.
func pop3Offers(ctx context.Context, u *upstream) ([]string, error) {
	d := pop3Dialog{u: u}
	if err := d.begin(ctx); err != nil {
		return nil, err
	}
	line, err := d.command("CAPA")
	if err != nil {
		return nil, err
	}
	list := []string{}
	if !pop3OK(line) {
		return list, u.send("QUIT\r\n")
	}
	for range maxUpstreamLines {
		if line, err = u.line(); err != nil {
			return nil, err
		}
		switch word, _, _ := strings.Cut(strings.ToUpper(line), " "); word {
		case ".":
			return list, u.send("QUIT\r\n")
		case "TOP", "UIDL", "UTF8", "PIPELINING", "EXPIRE", "LOGIN-DELAY":
			list = append(list, lineText(strings.ToUpper(line)))
		}
	}
	return nil, &unexpectedError{problem: "the list of capabilities does not end"}
}

// line reads one line, without its end.
func (u *upstream) line() (string, error) {
	line, err := readLine(u.in, maxUpstreamLine)
	if errors.Is(err, io.EOF) {
		return "", errors.New("it closed the connection")
	}
	return string(bytes.TrimRight(line, "\r\n")), err
}

// orUnexpected is err, else that line is not what should have come.
func orUnexpected(err error, line string) error {
	if err != nil {
		return err
	}
	return unexpected(line)
}
