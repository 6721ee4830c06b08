package gateway

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	d := smtpDialog{u: u, mailbox: l.mailbox, hello: cmp.Or(l.hello, "localhost")}
	if err := d.begin(ctx); err != nil {
		return "", err
	}
	u.offers = d.passable()
	for _, line := range l.offered {
		if !slices.ContainsFunc(u.offers, func(o string) bool { return keyword(o) == keyword(line) }) {
			return "", u.unavailable("EHLO", fmt.Errorf("it has no %s any more, which the client was told of; the next connection is told what is true", line))
		}
	}
	if !d.takes("AUTH", xoauth2.Mechanism) {
		return "", u.unavailable("sign-in", errors.New("it does not offer AUTH XOAUTH2: is this the right server?"))
	}
	raw, err := xoauth2.InitialResponse(l.mailbox, l.token)
	if err != nil {
		return "", &Refusal{Reason: Policy, Err: fmt.Errorf("sign in to %s: %w", u.address, err)}
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
	return "signed in", d.judge(reply)
}

// smtpDialog is the gateway as a client of the upstream.
type smtpDialog struct {
	u          *upstream
	mailbox    string
	hello      string
	extensions []string // lines of the last EHLO's reply but the first, in upper case
}

// begin reads the greeting, begins TLS where that is not done, and asks for
// the extensions.
func (d *smtpDialog) begin(ctx context.Context) error {
	reply, err := d.reply()
	if err == nil && reply.code != "220" {
		err = reply.unexpected()
	}
	if err == nil {
		err = d.ehlo()
	}
	if err == nil && !d.u.inTLS {
		if reply, err = d.command("STARTTLS"); err == nil && reply.code != "220" {
			err = reply.unexpected()
		}
		if err == nil {
			err = d.u.startTLS(ctx)
		}
		if err != nil {
			return d.u.unavailable("STARTTLS", err)
		}
		err = d.ehlo() // RFC 3207 section 4.2: what was said in clear does not count
	}
	if err != nil {
		return d.u.unavailable("EHLO", err)
	}
	return nil
}

func (d *smtpDialog) ehlo() error {
	reply, err := d.command("EHLO " + d.hello)
	if err == nil && reply.code != "250" {
		err = reply.unexpected()
	}
	if err != nil {
		return err
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
	said := fmt.Errorf("upstream %s refused AUTH for %s: %q", d.u.address, limited(d.mailbox, 100), quoted(reply.text(), 300))
	switch {
	case reply.code[0] == '4' || strings.Contains(strings.ToLower(reply.text()), "throttled"):
		return throttled(said, reply.text())
	case strings.Contains(reply.text(), "5.7.139") && strings.Contains(strings.ToLower(reply.text()), "smtpclientauthentication"):
		return &Refusal{Reason: Policy, Reply: reply.code + " " + quoted(strings.Join(reply.lines, " "), 240) +
			"; an administrator runs: Set-CASMailbox -Identity " + limited(d.mailbox, 100) + " -SmtpClientAuthenticationDisabled $false",
			Err: fmt.Errorf("%w: SMTP AUTH is switched off, for OAuth as well: for the mailbox Set-CASMailbox -Identity %s -SmtpClientAuthenticationDisabled $false, which goes before the organisation's Set-TransportConfig -SmtpClientAuthenticationDisabled $false; security defaults must be off too", said, d.mailbox)}
	case reply.code == "535":
		return &Refusal{Reason: Policy, Public: "the app password is right, but the mail server does not let it send for " + d.mailbox + "; ask your administrator",
			Err: fmt.Errorf("%w: check that the service principal is registered in Exchange by the object id of the enterprise application (New-ServicePrincipal), has FullAccess on the mailbox (Add-MailboxPermission) and the permission SMTP.SendAsApp", said)}
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
	return fmt.Errorf("unexpected answer %q", quoted(r.code+" "+r.text(), 200))
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
			return r, fmt.Errorf("not an SMTP reply: %q", quoted(line, 100))
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
	return r, errors.New("a reply without end")
}
