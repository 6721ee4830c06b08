package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Limits on what a client may send before sign-in.
const (
	maxCredential = 8 << 10  // a user name or password
	maxSASL       = 12 << 10 // a response in base64, as RFC 4954 section 4 has it
)

// saslExchange is one exchange of challenges and responses (RFC 4422), for PLAIN
// (RFC 4616) and LOGIN (draft-murchison-sasl-login). The three protocols
// differ in what stands before a challenge.
type saslExchange struct {
	s       *session
	prompt  string
	initial *[]byte // not used yet
}

// saslProblem is why an exchange brought no credentials; each protocol has its
// own words for it.
type saslProblem int

const (
	saslUnknown   saslProblem = iota + 1 // no such mechanism
	saslInClear                          // the connection would show the password
	saslCancelled                        // by the client
	saslInitial                          // the initial response is not base64
	saslEncoding                         // a later one is not
	saslMalformed                        // not of PLAIN's form
	saslBehalf                           // another identity to act as
	saslLong
	saslNUL
)

func (p saslProblem) Error() string {
	return [...]string{"", "no such mechanism", "not in clear", "cancelled", "not base64", "not base64", "malformed", "on behalf of another", "too long", "a NUL"}[p]
}

// authenticate asks the client for its credentials. args are those of
// AUTHENTICATE or AUTH: a mechanism and, if the client sends it at once, its
// first response (RFC 4959, RFC 5034, RFC 4954). The error is an answer, or the
// connection is over.
func (s *session) authenticate(args, prompt string) (*credentials, error) {
	cred, err := s.exchange(args, prompt)
	if p, ok := errors.AsType[saslProblem](err); ok {
		return nil, s.proto.sasl[p]
	}
	return cred, err
}

func (s *session) exchange(args, prompt string) (*credentials, error) {
	mechanism, initial, _ := strings.Cut(args, " ")
	x := saslExchange{s: s, prompt: prompt}
	if initial = strings.TrimSpace(initial); initial != "" {
		if initial == "=" { // an empty one
			initial = ""
		}
		response, err := base64.StdEncoding.DecodeString(initial)
		if err != nil {
			return nil, saslInitial
		}
		x.initial = &response
	}
	plain := strings.EqualFold(mechanism, "PLAIN")
	switch {
	case !plain && !strings.EqualFold(mechanism, "LOGIN"):
		return nil, saslUnknown
	case !x.s.client.private():
		return nil, saslInClear
	case plain:
		return x.plain()
	}
	return x.login()
}

func (x *saslExchange) plain() (*credentials, error) {
	response, err := x.ask("")
	if err != nil {
		return nil, err
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return nil, saslMalformed
	}
	authzid, user, password := string(parts[0]), string(parts[1]), string(parts[2])
	if authzid != "" && authzid != user {
		x.s.tell(Event{Kind: Refused, Reason: MailboxNotAllowed, Cause: errors.New("it asked to act as somebody else")})
		return nil, saslBehalf
	}
	return checkedCredentials(user, password)
}

// login takes an initial response for the user name, as several clients send
// it; an empty one does not count.
func (x *saslExchange) login() (*credentials, error) {
	if x.initial != nil && len(*x.initial) == 0 {
		x.initial = nil
	}
	user, err := x.ask("Username:")
	if err != nil {
		return nil, err
	}
	password, err := x.ask("Password:")
	if err != nil {
		return nil, err
	}
	return checkedCredentials(string(user), string(password))
}

func checkedCredentials(user, password string) (*credentials, error) {
	if len(user) > maxCredential || len(password) > maxCredential {
		return nil, saslLong
	}
	if strings.ContainsRune(user, 0) || strings.ContainsRune(password, 0) {
		return nil, saslNUL
	}
	return &credentials{user, secret.New(password)}, nil
}

// ask sends a challenge and returns the response.
func (x *saslExchange) ask(challenge string) ([]byte, error) {
	if x.initial != nil {
		response := *x.initial
		x.initial = nil
		return response, nil
	}
	if err := x.s.reply("%s%s", x.prompt, base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
		return nil, err
	}
	line, err := readLine(x.s.client.in, maxSASL)
	if errors.Is(err, errTooLong) {
		return nil, &ending{public: "response too long", cause: err}
	}
	if err != nil {
		return nil, noEOFWithin([]byte("+"), err)
	}
	line = withoutEOL(line)
	if string(line) == "*" {
		return nil, saslCancelled
	}
	response, err := base64.StdEncoding.DecodeString(string(line))
	if err != nil {
		return nil, saslEncoding
	}
	return response, nil
}
