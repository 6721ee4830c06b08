package gateway

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Limits on what a client may send before sign-in.
const (
	// imapMaxCommand holds the longest command that a standard allows here:
	// ID with 30 fields of 1,024 bytes (RFC 2971 section 3.3), twice over for
	// its escapes. RFC 9051 section 4 asks for 8 KiB.
	imapMaxCommand = 64 << 10
	imapMaxTag     = 64
)

// imapCodes are the response codes of RFC 5530. EXPIRED would fit a sign-in that
// has ended, but it tells mail programs to ask for another password, and this
// one is good again after the next sign-in. CONTACTADMIN has them show the text.
var imapCodes = map[Reason]string{
	BadCredentials:     "AUTHENTICATIONFAILED",
	ProtocolNotAllowed: "AUTHORIZATIONFAILED",
	NetworkNotAllowed:  "AUTHORIZATIONFAILED",
	MailboxNotAllowed:  "AUTHORIZATIONFAILED",
	Expired:            "EXPIRED",
	Revoked:            "AUTHENTICATIONFAILED",
	Unavailable:        "UNAVAILABLE",
	Policy:             "CONTACTADMIN",
	SignInRequired:     "CONTACTADMIN",
	DecoyUsed:          "AUTHENTICATIONFAILED",
}

// imapState is what a session remembers between commands.
type imapState struct {
	tag string // of the sign-in to be answered
}

const imapPrivacy answer = "NO [PRIVACYREQUIRED] a password is not taken in clear from another machine; use TLS or STARTTLS"

func imapGreet(s *session) error {
	return s.reply("* OK [CAPABILITY %s] o365pw ready", imapCapabilities(s))
}

// imapCapabilities is what the gateway offers before sign-in. The upstream's
// own capabilities follow with the OK to the sign-in.
func imapCapabilities(s *session) string {
	list := "IMAP4rev1 LITERAL+ SASL-IR ID"
	if !s.client.tls && s.tls != nil {
		list += " STARTTLS"
	}
	if s.client.private() {
		return list + " AUTH=PLAIN AUTH=LOGIN"
	}
	return list + " LOGINDISABLED" // RFC 9051 section 6.2.3
}

func imapAccept(s *session, welcome string) error {
	return s.reply("%s %s", s.imap.tag, welcome)
}

func imapRefuse(s *session, r *Refusal) error {
	return s.reply("%s NO [%s] %s", s.imap.tag, r.code(imapCodes), imapText(r.public()))
}

func imapBye(e *ending) string { return "* BYE o365pw: " + imapText(e.public) + "\r\n" }

// imapText makes a resp-text of whatever a text holds (RFC 9051 section 9):
// no bracket in it can be taken for a code's.
func imapText(text string) string {
	return strings.NewReplacer("[", "(", "]", ")").Replace(lineText(text))
}

// lineText makes one line of printable ASCII of whatever a text holds.
func lineText(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\r', r == '\n', r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
	if text = strings.TrimSpace(text); text == "" {
		return "refused"
	}
	return text[:min(len(text), 400)]
}

// imapNext reads a command and executes it. A refusal goes behind its tag.
func imapNext(ctx context.Context, s *session) (prefix string, cred *credentials, err error) {
	cmd, err := imapRead(s)
	if err != nil {
		return "", nil, err
	}
	s.imap.tag = cmd.tag
	cred, err = imapDo(ctx, s, cmd)
	return cmd.tag + " ", cred, err
}

// imapDo executes one command: credentials if it was a sign-in, an answer
// if it is to be refused, any other error if the connection is over.
func imapDo(ctx context.Context, s *session, cmd imapCommand) (*credentials, error) {
	known := slices.Contains([]string{"CAPABILITY", "NOOP", "ID", "LOGOUT", "STARTTLS", "LOGIN", "AUTHENTICATE"}, cmd.verb)
	if err := s.known(known); err != nil {
		return nil, err
	}
	if !known {
		return nil, answer("BAD unknown command, or one that needs a sign-in first")
	}
	if cmd.declined && (cmd.verb != "LOGIN" || s.client.private()) {
		return nil, answer("BAD literal not accepted")
	}
	switch cmd.verb {
	case "LOGIN":
		return imapLogin(s, cmd)
	case "AUTHENTICATE":
		return imapAuthenticate(s, cmd)
	case "ID": // RFC 2971
		return nil, s.reply("* ID (\"name\" \"o365pw\")\r\n%s OK ID completed", cmd.tag)
	}
	if len(cmd.args) > 0 {
		return nil, answer("BAD " + cmd.verb + " has no arguments")
	}
	switch cmd.verb {
	case "CAPABILITY":
		return nil, s.reply("* CAPABILITY %s\r\n%s OK CAPABILITY completed", imapCapabilities(s), cmd.tag)
	case "NOOP":
		return nil, s.reply("%s OK NOOP completed", cmd.tag)
	case "LOGOUT":
		if err := s.reply("* BYE o365pw says good-bye\r\n%s OK LOGOUT completed", cmd.tag); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	return nil, imapStartTLS(ctx, s, cmd)
}

// imapStartTLS is RFC 9051 section 6.2.1.
func imapStartTLS(ctx context.Context, s *session, cmd imapCommand) error {
	switch {
	case s.client.tls:
		return answer("BAD TLS is active already")
	case s.tls == nil:
		return answer("NO TLS is not set up here")
	}
	return s.upgrade(ctx, cmd.tag+" OK begin TLS now")
}

// imapLogin is RFC 9051 section 6.2.3.
func imapLogin(s *session, cmd imapCommand) (*credentials, error) {
	if !s.client.private() {
		return nil, imapPrivacy
	}
	p := imapParser{cmd.args}
	user, ok := p.astring()
	password, ok2 := "", false
	if ok && p.space() {
		password, ok2 = p.astring()
	}
	if !ok || !ok2 || !p.done() {
		return nil, answer("BAD LOGIN takes a user name and a password")
	}
	return &credentials{user, secret.New(password)}, nil
}

// imapAuthenticate is RFC 9051 section 6.2.2, with the initial response of
// RFC 4959.
func imapAuthenticate(s *session, cmd imapCommand) (*credentials, error) {
	return s.authenticate(string(cmd.args), "+ ")
}

var imapSASL = map[saslProblem]answer{
	saslUnknown:   "NO mechanism not supported; use PLAIN or LOGIN",
	saslInClear:   imapPrivacy,
	saslCancelled: "BAD AUTHENTICATE cancelled",
	saslInitial:   "BAD initial response is not base64",
	saslEncoding:  "BAD response is not base64",
	saslMalformed: "BAD malformed PLAIN response",
	saslBehalf:    "NO [AUTHORIZATIONFAILED] signing in on behalf of somebody else is not supported",
	saslLong:      "BAD user name or password too long",
	saslNUL:       "BAD user name or password with a NUL",
}
