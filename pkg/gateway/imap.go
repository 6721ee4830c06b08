package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Limits on what a client may send before sign-in.
const (
	// imapMaxCommand holds the longest command that a standard allows here:
	// ID with 30 fields of 1,024 bytes (RFC 2971 section 3.3), twice over for
	// its escapes. RFC 9051 section 4 asks for 8 KiB.
	imapMaxCommand = 64 << 10
	imapMaxString  = 8 << 10 // a user name or password
	imapMaxTag     = 64
	imapMaxBad     = 10 // commands refused on one connection, sign-ins aside
)

// imapCodes are the response codes of RFC 5530.
var imapCodes = map[Reason]string{
	BadCredentials:     "AUTHENTICATIONFAILED",
	ProtocolNotAllowed: "AUTHORIZATIONFAILED",
	NetworkNotAllowed:  "AUTHORIZATIONFAILED",
	MailboxNotAllowed:  "AUTHORIZATIONFAILED",
	Expired:            "EXPIRED",
	Revoked:            "AUTHENTICATIONFAILED",
	Unavailable:        "UNAVAILABLE",
	Policy:             "CONTACTADMIN",
}

// imapState is what a session remembers between commands.
type imapState struct {
	tag string // of the sign-in to be answered
	met bool   // the client has sent a command that exists
	bad int
}

// imapAnswer is how a command is refused: the status and text after its tag.
type imapAnswer string

func (a imapAnswer) Error() string { return string(a) }

const (
	imapPrivacy   imapAnswer = "NO [PRIVACYREQUIRED] a password is not taken in clear from another machine; use TLS or STARTTLS"
	imapCancelled imapAnswer = "BAD AUTHENTICATE cancelled"
)

func imapGreet(s *session) error {
	return s.reply("* OK [CAPABILITY %s] o365pw ready", imapCapabilities(s))
}

// imapCapabilities is what the gateway offers before sign-in. The upstream's
// own capabilities follow with the OK to the sign-in.
func imapCapabilities(s *session) string {
	list := "IMAP4rev1 LITERAL+ SASL-IR ID"
	if !s.client.tls && s.server.tls != nil {
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
	code, ok := imapCodes[r.Reason]
	if !ok {
		code = imapCodes[Unavailable]
	}
	return s.reply("%s NO [%s] %s", s.imap.tag, code, imapText(r.public()))
}

func imapBye(text string) string { return "* BYE o365pw: " + imapText(text) + "\r\n" }

// imapText makes a resp-text of whatever a text holds (RFC 9051 section 9):
// printable ASCII on one line, and no bracket that could be taken for a code's.
func imapText(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '[':
			return '('
		case r == ']':
			return ')'
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

// imapAsk answers commands until one is a sign-in.
func imapAsk(ctx context.Context, s *session) (credentials, error) {
	for {
		if err := s.awaitCommand(); err != nil {
			return credentials{}, err
		}
		cmd, err := imapRead(s)
		if errors.Is(err, errTooLong) {
			// Where the next command would begin is unknown.
			return credentials{}, &ending{public: "command too long", cause: err}
		}
		if err != nil {
			return credentials{}, err
		}
		cred, err := imapDo(ctx, s, cmd)
		if cred != nil && err == nil {
			s.imap.tag = cmd.tag
			return *cred, nil
		}
		if answer, ok := errors.AsType[imapAnswer](err); ok {
			if err = s.reply("%s %s", cmd.tag, string(answer)); err == nil {
				err = imapCountBad(s)
			}
		}
		if err != nil {
			return credentials{}, err
		}
	}
}

func imapCountBad(s *session) error {
	if s.imap.bad++; s.imap.bad >= imapMaxBad {
		return &ending{public: "too many bad commands", cause: errors.New("too many bad commands")}
	}
	return nil
}

// imapDo executes one command: credentials if it was a sign-in, an imapAnswer
// if it is to be refused, any other error if the connection is over.
func imapDo(ctx context.Context, s *session, cmd imapCommand) (*credentials, error) {
	switch cmd.verb {
	case "CAPABILITY", "NOOP", "ID", "LOGOUT", "STARTTLS", "LOGIN", "AUTHENTICATE":
		s.imap.met = true
	default:
		// A client of another protocol, such as a browser whom a web page
		// sent here, must not go on to send what could be taken for a command.
		if !s.imap.met {
			return nil, &ending{public: "not an IMAP command", cause: errors.New("the first command is not one of IMAP's before sign-in")}
		}
		return nil, imapAnswer("BAD unknown command, or one that needs a sign-in first")
	}
	if cmd.declined && (cmd.verb != "LOGIN" || s.client.private()) {
		return nil, imapAnswer("BAD literal not accepted")
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
		return nil, imapAnswer("BAD " + cmd.verb + " has no arguments")
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

// imapStartTLS is RFC 9051 section 6.2.1. What a client, or somebody between
// it and here, has sent in clear after the command must not be taken for
// something said over TLS (CVE-2011-0411): it ends the connection.
func imapStartTLS(ctx context.Context, s *session, cmd imapCommand) error {
	switch {
	case s.client.tls:
		return imapAnswer("BAD TLS is active already")
	case s.server.tls == nil:
		return imapAnswer("NO TLS is not set up here")
	case s.client.in.Buffered() > 0:
		return &ending{public: "nothing may follow STARTTLS before the handshake",
			cause: fmt.Errorf("%d bytes came in clear after STARTTLS", s.client.in.Buffered())}
	}
	if err := s.reply("%s OK begin TLS now", cmd.tag); err != nil {
		return err
	}
	return s.startTLS(ctx)
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
		return nil, imapAnswer("BAD LOGIN takes a user name and a password")
	}
	return &credentials{user, secret.New(password)}, nil
}

// imapAuthenticate is RFC 9051 section 6.2.2, with the initial response of
// RFC 4959, for PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).
func imapAuthenticate(s *session, cmd imapCommand) (*credentials, error) {
	mechanism, initial, hasInitial := strings.Cut(string(cmd.args), " ")
	sasl := imapSASL{s: s}
	if hasInitial {
		if initial == "=" { // an empty one
			initial = ""
		}
		response, err := base64.StdEncoding.DecodeString(initial)
		if err != nil {
			return nil, imapAnswer("BAD initial response is not base64")
		}
		sasl.initial = &response
	}
	switch strings.ToUpper(mechanism) {
	case "PLAIN", "LOGIN":
	default:
		return nil, imapAnswer("NO mechanism not supported; use PLAIN or LOGIN")
	}
	if !s.client.private() {
		return nil, imapPrivacy
	}
	if strings.EqualFold(mechanism, "LOGIN") {
		return sasl.login()
	}
	return sasl.plain()
}

// imapSASL is one exchange of challenges and responses.
type imapSASL struct {
	s       *session
	initial *[]byte // not used yet
}

func (a *imapSASL) plain() (*credentials, error) {
	response, err := a.ask("")
	if err != nil {
		return nil, err
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return nil, imapAnswer("BAD malformed PLAIN response")
	}
	authzid, user, password := string(parts[0]), string(parts[1]), string(parts[2])
	if authzid != "" && authzid != user {
		return nil, imapAnswer("NO [AUTHORIZATIONFAILED] signing in on behalf of somebody else is not supported")
	}
	return checkedCredentials(user, password)
}

// login takes an initial response for the user name, as several clients send
// it; an empty one does not count.
func (a *imapSASL) login() (*credentials, error) {
	if a.initial != nil && len(*a.initial) == 0 {
		a.initial = nil
	}
	user, err := a.ask("Username:")
	if err != nil {
		return nil, err
	}
	password, err := a.ask("Password:")
	if err != nil {
		return nil, err
	}
	return checkedCredentials(string(user), string(password))
}

func checkedCredentials(user, password string) (*credentials, error) {
	if len(user) > imapMaxString || len(password) > imapMaxString {
		return nil, imapAnswer("BAD user name or password too long")
	}
	if strings.ContainsRune(user, 0) || strings.ContainsRune(password, 0) {
		return nil, imapAnswer("BAD user name or password with a NUL")
	}
	return &credentials{user, secret.New(password)}, nil
}

// ask sends a challenge and returns the response.
func (a *imapSASL) ask(challenge string) ([]byte, error) {
	if a.initial != nil {
		response := *a.initial
		a.initial = nil
		return response, nil
	}
	if err := a.s.reply("+ %s", base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
		return nil, err
	}
	line, err := readLine(a.s.client.in, imapMaxCommand)
	if errors.Is(err, errTooLong) {
		return nil, &ending{public: "response too long", cause: err}
	}
	if err != nil {
		return nil, noEOFWithin([]byte("+"), err)
	}
	line = withoutEOL(line)
	if string(line) == "*" {
		return nil, imapCancelled
	}
	response, err := base64.StdEncoding.DecodeString(string(line))
	if err != nil {
		return nil, imapAnswer("BAD response is not base64")
	}
	return response, nil
}
