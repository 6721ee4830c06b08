package gateway

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// pop3MaxLine is more than RFC 2449 section 4 allows, 255 bytes, since people's
// user names and passwords are in it.
const pop3MaxLine = maxSASL

// pop3Codes are the response codes of RFC 3206 and RFC 2449. SYS/PERM is for
// what somebody has to mend elsewhere, mostly an administrator: a mail program
// must not throw the password away for that.
var pop3Codes = map[Reason]string{
	BadCredentials:     "AUTH",
	ProtocolNotAllowed: "AUTH",
	NetworkNotAllowed:  "AUTH",
	MailboxNotAllowed:  "AUTH",
	Expired:            "AUTH",
	Revoked:            "AUTH",
	Unavailable:        "SYS/TEMP",
	Policy:             "SYS/PERM",
	SignInRequired:     "SYS/PERM",
	DecoyUsed:          "AUTH",
}

// pop3State is what a session remembers between commands.
type pop3State struct {
	user string // of the last USER; empty: none
	utf8 bool   // the client has sent UTF8
}

const pop3Privacy answer = "a password is not taken in clear from another machine; use TLS or STLS"

func pop3Greet(s *session) error { return s.reply("+OK o365pw ready") }

func pop3Accept(s *session, welcome string) error { return s.reply("+OK %s", welcome) }

func pop3Refuse(s *session, r *Refusal) error {
	return s.reply("-ERR [%s] %s", r.code(pop3Codes), lineText(r.public()))
}

// pop3Bye says by its code whether it is worth to come again (RFC 3206).
func pop3Bye(e *ending) string {
	code := pop3Codes[e.reason]
	if errors.Is(e.cause, errShutdown) || errors.Is(e.cause, errIdle) {
		code = "SYS/TEMP"
	}
	if code != "" {
		code = "[" + code + "] "
	}
	return "-ERR " + code + "o365pw: " + lineText(e.public) + "\r\n"
}

// pop3Command splits a command (RFC 1939 section 3). The verb is in upper case.
func pop3Command(line []byte) (verb, args string) {
	verb, args, _ = strings.Cut(string(withoutEOL(line)), " ")
	return strings.ToUpper(verb), args
}

// pop3Next reads a command and executes it.
func pop3Next(ctx context.Context, s *session) (prefix string, cred *credentials, err error) {
	line, err := readLine(s.client.in, pop3MaxLine)
	if err != nil {
		return "", nil, err
	}
	cred, err = pop3Do(ctx, s, line)
	return "-ERR ", cred, err
}

// pop3Do executes one command of the authorization state (RFC 1939 section 4):
// credentials if it was a sign-in, an answer if it is to be refused, any
// other error if the connection is over.
func pop3Do(ctx context.Context, s *session, line []byte) (*credentials, error) {
	verb, args := pop3Command(line)
	known := slices.Contains([]string{"USER", "PASS", "AUTH", "CAPA", "STLS", "UTF8", "QUIT", "NOOP", "APOP"}, verb)
	if err := s.known(known); err != nil {
		return nil, err
	}
	switch verb {
	case "CAPA":
		return nil, s.reply("+OK\r\n%s\r\n.", strings.Join(pop3Capabilities(ctx, s), "\r\n"))
	case "USER":
		return nil, pop3User(s, args)
	case "PASS":
		return pop3Pass(s, args)
	case "AUTH":
		return pop3Auth(s, args)
	case "STLS":
		return nil, pop3StartTLS(ctx, s)
	case "UTF8":
		return nil, pop3UTF8(ctx, s)
	case "NOOP": // not of this state, but clients keep connections alive by it
		return nil, s.reply("+OK")
	case "QUIT":
		if err := s.reply("+OK o365pw says good-bye"); err != nil {
			return nil, err
		}
		return nil, io.EOF
	case "APOP":
		return nil, answer("APOP is not supported; use USER and PASS")
	}
	return nil, answer("unknown command, or one that needs a sign-in first")
}

// pop3Capabilities are the gateway's own (RFC 2449), and of the upstream's
// those that are known before sign-in and hold then as well.
func pop3Capabilities(ctx context.Context, s *session) []string {
	list := s.server.offered(ctx, s.name, s.proto)
	list = append(list, "RESP-CODES", "AUTH-RESP-CODE")
	if !s.client.tls && s.tls != nil {
		list = append(list, "STLS") // RFC 2595 section 4
	}
	if s.client.private() {
		list = append(list, "USER", "SASL PLAIN LOGIN")
	}
	return list
}

func pop3User(s *session, name string) error {
	switch {
	case !s.client.private():
		return pop3Privacy
	case name == "" || len(name) > maxCredential || strings.ContainsRune(name, 0):
		return answer("USER takes a user name")
	}
	s.pop3.user = name
	return s.reply("+OK and the password?")
}

// pop3Pass takes the rest of the line for the password, blanks included (RFC
// 1939 section 7).
func pop3Pass(s *session, password string) (*credentials, error) {
	user := s.pop3.user
	s.pop3.user = ""
	switch {
	case !s.client.private():
		return nil, pop3Privacy
	case user == "":
		return nil, answer("send USER first")
	case password == "" || len(password) > maxCredential || strings.ContainsRune(password, 0):
		return nil, answer("PASS takes a password")
	}
	return &credentials{user, secret.New(password)}, nil
}

// pop3Auth is RFC 5034. Without a mechanism it lists those there are, as
// servers did before that and as some clients still ask.
func pop3Auth(s *session, args string) (*credentials, error) {
	if args == "" {
		if !s.client.private() {
			return nil, pop3Privacy
		}
		return nil, s.reply("+OK\r\nPLAIN\r\nLOGIN\r\n.")
	}
	s.pop3.user = ""
	return s.authenticate(args, "+ ")
}

var pop3SASL = map[saslProblem]answer{
	saslUnknown:   "mechanism not supported; use PLAIN or LOGIN",
	saslInClear:   pop3Privacy,
	saslCancelled: "AUTH cancelled",
	saslInitial:   "response is not base64",
	saslEncoding:  "response is not base64",
	saslMalformed: "malformed PLAIN response",
	saslBehalf:    "[AUTH] signing in on behalf of somebody else is not supported",
	saslLong:      "user name or password too long",
	saslNUL:       "user name or password with a NUL",
}

// pop3StartTLS is RFC 2595 section 4.
func pop3StartTLS(ctx context.Context, s *session) error {
	switch {
	case s.client.tls:
		return answer("TLS is active already")
	case s.tls == nil:
		return answer("TLS is not set up here")
	}
	s.pop3 = pop3State{} // said in clear
	return s.upgrade(ctx, "+OK begin TLS now")
}

// pop3UTF8 is RFC 6856 section 2: it belongs before sign-in, so the upstream is
// sent it there, if it has it.
func pop3UTF8(ctx context.Context, s *session) error {
	if !slices.ContainsFunc(s.server.offered(ctx, s.name, s.proto), func(line string) bool { return keyword(line) == "UTF8" }) {
		return answer("the mail server does not have UTF8")
	}
	s.pop3.utf8 = true
	return s.reply("+OK UTF8 it is")
}
