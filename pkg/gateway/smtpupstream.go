package gateway

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// smtpPassable are the extensions that the gateway can pass on: those that
// change no more than the parameters of commands it knows.
var smtpPassable = []string{
	"SIZE", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8",
	"DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS", "LIMITS", "VRFY", "HELP",
}

// smtpUpstream signs in at the upstream.
func smtpUpstream(ctx context.Context, u *upstream, l login) (string, error) {
	d := smtpDialog{u: u, login: l, hello: cmp.Or(l.hello, "localhost")}
	if err := d.begin(ctx); err != nil {
		return "", err
	}
	u.at(StepAuth)
	u.offers = d.passable()
	for _, line := range l.offered {
		if !slices.ContainsFunc(u.offers, func(o string) bool { return keyword(o) == keyword(line) }) {
			return "", u.unavailable("EHLO", &unexpectedError{problem: "it has no " + line + " any more, which the client was told of; the next connection is told what is true"})
		}
	}
	if !d.takes("AUTH", xoauth2.Mechanism) {
		return "", u.unavailable("sign-in", &unexpectedError{problem: "it does not offer AUTH XOAUTH2: is this the right server?"})
	}
	raw, err := xoauth2.InitialResponse(l.mailbox, l.token)
	if err != nil {
		return "", u.unsayable("AUTH", err)
	}
	// The response is sent by itself: with the command it makes a line that is
	// longer than many servers take (RFC 4954 section 4 has 12,288 bytes for
	// it, RFC 5321 section 4.5.3.1.4 has 512 for a command).
	reply, err := d.command("AUTH " + xoauth2.Mechanism)
	if err == nil && reply.code == "334" {
		reply, err = d.command(base64.StdEncoding.EncodeToString(raw))
	}
	if err == nil && reply.code == "334" {
		reply, err = d.command("") // an error in a challenge
	}
	if err != nil {
		return "", u.unavailable("AUTH", err)
	}
	if err := d.judge(reply); err != nil || !l.probe {
		return "signed in", err
	}
	return "signed in", d.probe()
}

// smtpDialog is the gateway as a client of the upstream.
type smtpDialog struct {
	u          *upstream
	login      login
	hello      string
	extensions []string // lines of the last EHLO's reply but the first, in upper case
}

// begin reads the greeting, begins TLS where that is not done, and asks for
// the extensions.
func (d *smtpDialog) begin(ctx context.Context) error {
	if err := d.greeting(); err != nil || d.u.inTLS {
		return err
	}
	d.u.at(StepTLS)
	reply, err := d.command("STARTTLS")
	if err == nil && reply.code != "220" {
		err = reply.unexpected()
	}
	if err == nil {
		err = d.u.startTLS(ctx)
	}
	if err != nil {
		return d.u.unavailable("STARTTLS", err)
	}
	d.u.at(StepAuth) // which the second EHLO is there for
	return d.ehlo()  // RFC 3207 section 4.2: what was said in clear does not count
}

// greeting reads the greeting and asks for the extensions.
func (d *smtpDialog) greeting() error {
	d.u.at(StepGreeting)
	reply, err := d.reply()
	if err == nil && reply.code != "220" {
		err = reply.unexpected()
	}
	if err != nil {
		return d.u.unavailable("greeting", err)
	}
	return d.ehlo()
}

func (d *smtpDialog) ehlo() error {
	reply, err := d.command("EHLO " + d.hello)
	if err == nil && reply.code != "250" {
		err = reply.unexpected()
	}
	if err != nil {
		return d.u.unavailable("EHLO", err)
	}
	d.extensions = nil
	for _, line := range reply.lines[1:] {
		d.extensions = append(d.extensions, strings.ToUpper(lineText(line)))
	}
	return nil
}

// passable are the extensions that a client can be told of.
func (d *smtpDialog) passable() []string {
	list := slices.DeleteFunc(slices.Clone(d.extensions), func(line string) bool { return !slices.Contains(smtpPassable, keyword(line)) })
	if !d.takes("CHUNKING", "") { // without it BINARYMIME cannot be used (RFC 3030 section 3)
		list = slices.DeleteFunc(list, func(line string) bool { return line == "BINARYMIME" })
	}
	return list
}

// takes says whether an extension is there with a parameter, if one is named.
func (d *smtpDialog) takes(keyword, parameter string) bool {
	return slices.ContainsFunc(d.extensions, func(line string) bool {
		words := strings.Fields(line)
		return len(words) > 0 && words[0] == keyword && (parameter == "" || slices.Contains(words[1:], parameter))
	})
}

// judge makes a Refusal of the reply to AUTH, if it is one. As for IMAP, the
// person's app password is right at this point, and not to be blamed.
func (d *smtpDialog) judge(reply smtpReply) error {
	if reply.code == "235" {
		return nil
	}
	said := d.u.refused("AUTH", d.login, reply.code+" "+reply.text())
	switch {
	case reply.code[0] == '4' || askedForPause(reply.text()):
		return said.putOff(reply.text())
	case strings.Contains(reply.text(), "5.7.139") && strings.Contains(strings.ToLower(reply.text()), "smtpclientauthentication"):
		r := said.notLetIn(FaultSMTPAuthOff, SMTP, d.login, "let it send for "+d.login.mailbox)
		r.Reply = reply.code + " " + quoted(reply.text(), 240) + "; an administrator runs: Set-CASMailbox -Identity " + limited(d.login.mailbox, 100) + " -SmtpClientAuthenticationDisabled $false"
		return r
	case reply.code == "535":
		return said.notLetIn(FaultRefused, SMTP, d.login, "let it send for "+d.login.mailbox)
	}
	return &Refusal{Reason: Unavailable, Err: said}
}

// probe names the mailbox as the sender of a message, and takes that back:
// nothing is sent.
func (d *smtpDialog) probe() error {
	d.u.at(StepMailbox)
	command := "MAIL FROM:<" + d.login.mailbox + ">"
	if _, ok := smtpPath(command[len("MAIL "):]); !ok {
		return d.u.unsayable("MAIL FROM", fmt.Errorf("%q is no plain address", limited(d.login.mailbox, 100)))
	}
	if strings.ContainsFunc(d.login.mailbox, func(r rune) bool { return r > unicode.MaxASCII }) {
		command += " SMTPUTF8" // RFC 6531 section 3.4
	}
	reply, err := d.command(command)
	if err != nil {
		return d.u.unavailable("MAIL FROM", err)
	}
	if reply.code == "250" {
		if reply, err = d.command("RSET"); err == nil && reply.code != "250" {
			err = reply.unexpected()
		}
		if err != nil {
			return d.u.unavailable("RSET", err)
		}
		return nil
	}
	said := d.u.refused("MAIL FROM", d.login, reply.code+" "+reply.text())
	switch {
	case reply.code[0] == '4' || askedForPause(reply.text()):
		return said.putOff(reply.text())
	case reply.code[0] == '5':
		return said.notLetIn(FaultRefused, SMTP, d.login, "let it send as "+d.login.mailbox)
	}
	return &Refusal{Reason: Unavailable, Err: said}
}

// smtpOffers asks an upstream what it can do.
func smtpOffers(ctx context.Context, u *upstream) ([]string, error) {
	d := smtpDialog{u: u, hello: "localhost"}
	if err := d.begin(ctx); err != nil {
		return nil, err
	}
	return d.passable(), u.send("QUIT\r\n")
}

// smtpReply is a reply of one or more lines (RFC 5321 section 4.2).
type smtpReply struct {
	code  string   // three digits
	lines []string // what follows code and separator
}

func (r smtpReply) text() string { return strings.Join(r.lines, " ") }

func (r smtpReply) unexpected() error {
	return &unexpectedError{problem: "unexpected answer", reply: quoted(r.code+" "+r.text(), 200), later: r.code[0] == '4'}
}

func (d *smtpDialog) command(line string) (smtpReply, error) {
	if err := d.u.send(line + "\r\n"); err != nil {
		return smtpReply{}, err
	}
	return d.reply()
}

func (d *smtpDialog) reply() (smtpReply, error) {
	var r smtpReply
	for range maxUpstreamLines {
		line, err := d.u.line()
		if err != nil {
			return r, err
		}
		if len(line) < 3 || strings.Trim(line[:3], "0123456789") != "" || len(line) > 3 && line[3] != ' ' && line[3] != '-' || r.code != "" && r.code != line[:3] {
			return r, &unexpectedError{problem: "not an SMTP reply:", reply: quoted(line, 100)}
		}
		r.code = line[:3]
		if len(line) < 4 {
			r.lines = append(r.lines, "")
			return r, nil
		}
		r.lines = append(r.lines, line[4:])
		if line[3] == ' ' {
			return r, nil
		}
	}
	return r, &unexpectedError{problem: "a reply without end"}
}
