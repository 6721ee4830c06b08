package gateway

import (
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
)

// smtpMaxLine is for commands: RFC 5321 section 4.5.3.1.4 has 512 bytes, and
// extensions add some hundred each. With AUTH a response in base64 may come.
const smtpMaxLine = maxSASL

// smtpCodes are reply codes (RFC 4954 section 6) with enhanced status codes
// (RFC 3463, RFC 5248). What waiting does not mend is a permanent failure, which
// mail programs show: after a temporary one they try again, and say nothing.
var smtpCodes = map[Reason]string{
	BadCredentials:     "535 5.7.8",
	ProtocolNotAllowed: "535 5.7.8",
	NetworkNotAllowed:  "535 5.7.8",
	MailboxNotAllowed:  "535 5.7.8",
	Expired:            "535 5.7.8",
	Revoked:            "535 5.7.8",
	Unavailable:        "454 4.7.0",
	Policy:             "535 5.7.0",
	SignInRequired:     "535 5.7.0",
	DecoyUsed:          "535 5.7.8",
}

// smtpState is what a session remembers between commands.
type smtpState struct {
	hello   string   // the name that the client gave itself
	offered []string // the upstream's extensions that it was told of
}

const (
	smtpNeedsTLS    answer = "530 5.7.0 a password is not taken in clear from another machine; use TLS or STARTTLS" // RFC 3207 section 4
	smtpNeedsSignIn answer = "530 5.7.0 sign in first: AUTH PLAIN or AUTH LOGIN with an app password"               // RFC 4954 section 6
)

func smtpGreet(s *session) error { return s.reply("220 o365pw ESMTP ready") }

func smtpAccept(s *session, welcome string) error { return s.reply("235 2.7.0 %s", welcome) }

func smtpRefuse(s *session, r *Refusal) error {
	if r.Reply != "" {
		return s.reply("%s", lineText(r.Reply))
	}
	return s.reply("%s %s", r.code(smtpCodes), lineText(r.public()))
}

// smtpBye is the reply that announces the end of a connection (RFC 5321
// section 3.8).
func smtpBye(e *ending) string { return "421 4.3.2 o365pw: " + lineText(e.public) + "\r\n" }

// smtpCommand splits a command (RFC 5321 section 2.4). The verb is in upper
// case.
func smtpCommand(line []byte) (verb, args string) {
	verb, args, _ = strings.Cut(string(withoutEOL(line)), " ")
	return strings.ToUpper(verb), strings.TrimLeft(args, " ")
}

// smtpNext reads a command and executes it.
func smtpNext(ctx context.Context, s *session) (prefix string, cred *credentials, err error) {
	line, err := readLine(s.client.in, smtpMaxLine)
	if err != nil {
		return "", nil, err
	}
	cred, err = smtpDo(ctx, s, line)
	return "", cred, err
}

// smtpDo executes one command before sign-in: credentials if it was one, an
// answer if it is to be refused, any other error if the connection is over.
func smtpDo(ctx context.Context, s *session, line []byte) (*credentials, error) {
	verb, args := smtpCommand(line)
	known := slices.Contains([]string{"EHLO", "HELO", "AUTH", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT"}, verb)
	if err := s.known(known); err != nil {
		return nil, err
	}
	switch verb {
	case "EHLO":
		return nil, smtpEHLO(ctx, s, args)
	case "HELO":
		s.smtp = smtpState{hello: smtpName(args)}
		return nil, s.reply("250 o365pw")
	case "AUTH":
		return smtpAuth(s, args)
	case "STARTTLS":
		return nil, smtpStartTLS(ctx, s, args)
	case "NOOP", "RSET":
		return nil, s.reply("250 2.0.0 OK")
	case "HELP":
		return nil, s.reply("214 2.0.0 sign in with an app password: AUTH PLAIN or AUTH LOGIN")
	case "QUIT":
		if err := s.reply("221 2.0.0 o365pw says good-bye"); err != nil {
			return nil, err
		}
		return nil, io.EOF
	case "MAIL", "RCPT", "DATA", "BDAT", "VRFY", "EXPN":
		if verb == "BDAT" { // its bytes follow, whatever the answer is
			return nil, &ending{public: "sign in first", cause: errors.New("BDAT before sign-in")}
		}
		if !s.client.private() {
			return nil, smtpNeedsTLS
		}
		return nil, smtpNeedsSignIn
	}
	return nil, answer("500 5.5.2 unknown command")
}

// smtpEHLO announces what the upstream takes, since what the client sends goes
// there, and the gateway's own sign-in.
func smtpEHLO(ctx context.Context, s *session, name string) error {
	if name == "" {
		return answer("501 5.5.4 EHLO takes the client's name")
	}
	s.smtp = smtpState{hello: smtpName(name), offered: s.server.offered(ctx, s.name, s.proto)}
	list := append([]string{"o365pw"}, s.smtp.offered...)
	if !s.client.tls && s.tls != nil {
		list = append(list, "STARTTLS") // RFC 3207
	}
	if s.client.private() {
		list = append(list, "AUTH PLAIN LOGIN") // RFC 4954
	}
	return s.reply("%s", smtpLines("250", list))
}

// smtpLines is a reply of several lines (RFC 5321 section 4.2.1).
func smtpLines(code string, lines []string) string {
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		lines[i] = code + sep + line
	}
	return strings.Join(lines, "\r\n")
}

var smtpNameForm = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]{1,255}$`)

// smtpName is the name that the client gives itself. It goes on to the
// upstream, which notes it in the message, if it has the form of one.
func smtpName(name string) string {
	if name = strings.TrimSpace(name); smtpNameForm.MatchString(name) {
		return name
	}
	return ""
}

// smtpAuth is RFC 4954 section 4.
func smtpAuth(s *session, args string) (*credentials, error) {
	return s.authenticate(args, "334 ")
}

var smtpSASL = map[saslProblem]answer{
	saslUnknown:   "504 5.5.4 mechanism not supported; use PLAIN or LOGIN",
	saslInClear:   "538 5.7.11 a password is not taken in clear from another machine; use TLS or STARTTLS",
	saslCancelled: "501 5.7.0 AUTH cancelled",
	saslInitial:   "501 5.5.2 response is not base64",
	saslEncoding:  "501 5.5.2 response is not base64",
	saslMalformed: "501 5.5.2 malformed PLAIN response",
	saslBehalf:    "535 5.7.8 signing in on behalf of somebody else is not supported",
	saslLong:      "500 5.5.6 user name or password too long",
	saslNUL:       "501 5.5.2 user name or password with a NUL",
}

// smtpStartTLS is RFC 3207. All that was said before counts for nothing after
// it, the client's name included.
func smtpStartTLS(ctx context.Context, s *session, args string) error {
	switch {
	case args != "":
		return answer("501 5.5.4 STARTTLS has no arguments")
	case s.client.tls:
		return answer("503 5.5.1 TLS is active already")
	case s.tls == nil:
		return answer("454 4.7.0 TLS is not set up here")
	}
	s.smtp = smtpState{}
	return s.upgrade(ctx, "220 2.0.0 begin TLS now")
}
