package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// Limits on what an upstream may send before the client is signed in.
const (
	imapMaxResponse  = 64 << 10
	imapMaxResponses = 200
)

// imapUpstream signs in at the upstream: one round trip for XOAUTH2, one to
// see that the mailbox is there. Exchange accepts a token for a mailbox that
// it then does not open; it says so to the first command ("User is
// authenticated but not connected"), which hence must not be the client's.
func imapUpstream(ctx context.Context, u *upstream, l login) (string, error) {
	d := &imapDialog{u: u, login: l}
	if err := d.greeting(); err != nil {
		return "", err
	}
	if !u.inTLS {
		if err := d.startTLS(ctx); err != nil {
			return "", err
		}
	}
	if err := d.authenticate(); err != nil {
		return "", err
	}
	if err := d.probe(); err != nil {
		return "", err
	}
	list := imapPassedOn(d.capabilities, l.narrow)
	u.offers = d.capabilities
	if len(list) == 0 {
		return "OK signed in", nil
	}
	return "OK [CAPABILITY " + strings.Join(list, " ") + "] signed in", nil
}

// imapPassedOn are the upstream's capabilities that hold for the client: not
// those about signing in, and not COMPRESS, which would hide from the gateway
// where a response ends. With narrow, those that take a command which imapFilter
// refuses are left out as well.
func imapPassedOn(all []string, narrow bool) []string {
	return slices.DeleteFunc(slices.Clone(all), func(c string) bool {
		c = strings.ToUpper(c)
		return strings.HasPrefix(c, "AUTH=") || strings.HasPrefix(c, "COMPRESS=") ||
			slices.Contains([]string{"SASL-IR", "STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "UNAUTHENTICATE"}, c) ||
			narrow && slices.Contains([]string{"ENABLE", "CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "UTF8=ONLY", "MOVE", "MULTIAPPEND", "BINARY", "REPLACE", "NOTIFY", "IMAP4REV2"}, c)
	})
}

// imapDialog is the gateway as a client of the upstream.
type imapDialog struct {
	u            *upstream
	login        login
	capabilities []string // as announced last; nil: not yet
}

func (d *imapDialog) greeting() error {
	d.u.at(StepGreeting)
	r, err := d.read()
	if err != nil {
		return d.u.unavailable("greeting", err)
	}
	if r.tag != "*" || r.status != "OK" {
		return d.u.unavailable("greeting", r.unexpected())
	}
	d.note(r)
	return nil
}

func (d *imapDialog) startTLS(ctx context.Context) error {
	d.u.at(StepTLS)
	if err := d.u.send("g0 STARTTLS\r\n"); err != nil {
		return d.u.unavailable("STARTTLS", err)
	}
	rs, err := d.finish(nil, "g0")
	if err == nil && rs[0].status != "OK" {
		err = rs[0].unexpected()
	}
	if err == nil {
		err = d.u.startTLS(ctx)
	}
	if err != nil {
		return d.u.unavailable("STARTTLS", err)
	}
	d.capabilities = nil // said in clear (RFC 9051 section 6.2.1)
	return nil
}

// authenticate sends the token with the command (RFC 4959). Exchange announces
// nothing in its greeting and offers SASL-IR, so that is what silence means.
func (d *imapDialog) authenticate() error {
	d.u.at(StepAuth)
	if d.capabilities != nil && !d.has("AUTH=XOAUTH2") {
		return d.u.unavailable("sign-in", &unexpectedError{problem: "it does not offer AUTH=XOAUTH2: is this the right server?"})
	}
	raw, err := xoauth2.InitialResponse(d.login.mailbox, d.login.token)
	if err != nil {
		return d.u.unsayable("AUTHENTICATE", err)
	}
	response := base64.StdEncoding.EncodeToString(raw)
	lines := []string{""} // answers to challenges: an error one is answered by an empty line
	command := "g1 AUTHENTICATE " + xoauth2.Mechanism
	if d.capabilities == nil || d.has("SASL-IR") {
		command += " " + response
	} else {
		lines = []string{response, ""}
	}
	if err := d.u.send(command + "\r\n"); err != nil {
		return d.u.unavailable("AUTHENTICATE", err)
	}
	d.capabilities = nil
	rs, err := d.finish(func() error {
		if len(lines) == 0 {
			return &unexpectedError{problem: "one challenge too many"}
		}
		line := lines[0]
		lines = lines[1:]
		return d.u.send(line + "\r\n")
	}, "g1")
	if err != nil {
		return d.u.unavailable("AUTHENTICATE", err)
	}
	return d.judge("AUTHENTICATE", rs[0])
}

// probe asks for the capabilities after sign-in and for the mailbox.
func (d *imapDialog) probe() error {
	d.u.at(StepMailbox)
	if err := d.u.send("g2 CAPABILITY\r\ng3 STATUS INBOX (UIDNEXT)\r\n"); err != nil {
		return d.u.unavailable("STATUS INBOX", err)
	}
	rs, err := d.finish(nil, "g2", "g3")
	if err != nil {
		return d.u.unavailable("STATUS INBOX", err)
	}
	status, capability := d.judge("STATUS INBOX", rs[1]), d.judge("CAPABILITY", rs[0])
	// That the mailbox is closed is said to the first command, and not always to
	// the next one too.
	if _, said := ends(capability); said {
		if _, too := ends(status); !too {
			return capability
		}
	}
	return cmp.Or(status, capability)
}

// judge makes a Refusal of a command's final answer, if it was refused.
//
// The person's app password is right at this point, and no code may make a
// mail program throw it away: AUTHENTICATIONFAILED and AUTHORIZATIONFAILED
// would.
func (d *imapDialog) judge(step string, r imapResponse) error {
	if r.status == "OK" {
		return nil
	}
	said := d.u.refused(step, d.login, r.said())
	code, _, _ := strings.Cut(strings.ToUpper(r.code), " ")
	switch {
	case askedForPause(r.text), slices.Contains([]string{"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG"}, code):
		return said.putOff(r.text)
	case strings.Contains(strings.ToLower(r.text), "not connected"):
		return said.notLetIn(FaultNotConnected, IMAP, d.login, "open the mailbox "+d.login.mailbox+" for it")
	case step == "AUTHENTICATE" && r.status == "NO":
		return said.notLetIn(FaultRefused, IMAP, d.login, "let it open "+d.login.mailbox)
	}
	return &Refusal{Reason: Unavailable, Err: said}
}

// finish reads until all tags have been answered, and returns the answers in
// the order of tags. challenge answers a continuation request.
func (d *imapDialog) finish(challenge func() error, tags ...string) ([]imapResponse, error) {
	answers := make([]imapResponse, len(tags))
	missing := len(tags)
	for range imapMaxResponses {
		r, err := d.read()
		if err != nil {
			return nil, err
		}
		i := slices.Index(tags, r.tag)
		switch {
		case r.tag == "*" && r.status == "BYE":
			return nil, r.unexpected()
		case r.tag == "*":
			d.note(r)
		case r.tag == "+" && challenge != nil:
			if err := challenge(); err != nil {
				return nil, err
			}
		case i >= 0 && answers[i].tag == "" && slices.Contains([]string{"OK", "NO", "BAD"}, r.status):
			d.note(r)
			answers[i] = r
			if missing--; missing == 0 {
				return answers, nil
			}
		default:
			return nil, r.unexpected()
		}
	}
	return nil, &unexpectedError{problem: fmt.Sprintf("more than %d responses without an answer", imapMaxResponses)}
}

// note keeps the capabilities that a response announces.
func (d *imapDialog) note(r imapResponse) {
	list := r.code
	if r.tag == "*" && r.status == "CAPABILITY" {
		list = "CAPABILITY " + r.text
	}
	words := strings.Fields(list)
	if len(words) == 0 || !strings.EqualFold(words[0], "CAPABILITY") {
		return
	}
	d.capabilities = slices.DeleteFunc(words[1:], func(w string) bool {
		return len(w) > 64 || strings.ContainsFunc(w, func(r rune) bool { return !isAtomChar(r) })
	})
}

func (d *imapDialog) has(capability string) bool {
	return slices.ContainsFunc(d.capabilities, func(c string) bool { return strings.EqualFold(c, capability) })
}

func (d *imapDialog) read() (imapResponse, error) {
	unit, _, err := readUnit(d.u.in, imapMaxResponse, func([]byte, int64, bool) (bool, error) { return true, nil })
	if errors.Is(err, io.EOF) {
		return imapResponse{}, errors.New("it closed the connection")
	}
	if err != nil {
		return imapResponse{}, err
	}
	return parseIMAPResponse(unit)
}

// imapResponse is one line from the upstream (RFC 9051 section 7).
type imapResponse struct {
	tag    string // "*", "+" or a command's
	status string // OK, NO, BAD, BYE, or the name of an untagged response, in upper case; "" after "+"
	code   string // between the brackets of a status response
	text   string // the rest
}

// parseIMAPResponse takes a response apart. A line that is none is an error
// that quotes its beginning.
func parseIMAPResponse(unit []byte) (imapResponse, error) {
	line := withoutEOL(unit)
	if rest, ok := bytes.CutPrefix(line, []byte("+")); ok {
		return imapResponse{tag: "+", text: string(bytes.TrimPrefix(rest, []byte(" ")))}, nil
	}
	tag, rest, _ := bytes.Cut(line, []byte(" "))
	name, text, _ := bytes.Cut(rest, []byte(" "))
	valid := len(name) > 0 && !bytes.ContainsFunc(name, func(r rune) bool { return !isAtomChar(r) })
	if string(tag) != "*" {
		valid = valid && len(tag) > 0 && !bytes.ContainsFunc(tag, func(r rune) bool { return !isTagChar(r) })
	}
	if !valid {
		return imapResponse{}, &unexpectedError{problem: "not an IMAP response:", reply: quoted(string(line), 100)}
	}
	r := imapResponse{tag: string(tag), status: strings.ToUpper(string(name)), text: string(text)}
	if slices.Contains([]string{"OK", "NO", "BAD", "BYE", "PREAUTH"}, r.status) && strings.HasPrefix(r.text, "[") {
		if code, text, ok := strings.Cut(r.text[1:], "]"); ok {
			r.code, r.text = code, strings.TrimPrefix(text, " ")
		}
	}
	return r, nil
}

// said is an answer without its tag.
func (r imapResponse) said() string {
	if r.code == "" {
		return r.status + " " + r.text
	}
	return r.status + " [" + r.code + "] " + r.text
}

// unexpected is the error for a response that has no place where it came.
func (r imapResponse) unexpected() error {
	said := strings.TrimSpace(r.tag + " " + r.status + " " + r.text)
	return &unexpectedError{problem: "unexpected answer", reply: quoted(said, 200), later: r.status == "BYE"}
}
