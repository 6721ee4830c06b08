// Package xoauth2 is both ends of the SASL mechanism XOAUTH2, by which
// Exchange Online lets IMAP, POP3 and SMTP clients sign in with an OAuth 2.0
// access token.
//
// XOAUTH2 has no RFC; Microsoft documents it under "Authenticate an IMAP, POP
// or SMTP connection using OAuth", Google (who made it) under "XOAUTH2
// Mechanism". It is one message from the client:
//
//	user=<mailbox>^Aauth=Bearer <access token>^A^A
//
// where ^A is the byte 0x01. Everything here is about these bytes themselves;
// base64 and line lengths belong to the protocol that carries them. The
// package keeps strictly to the form above: it neither sends nor accepts
// another order, another case or further fields.
package xoauth2

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-sasl"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Mechanism is the name as servers announce it. Send it in upper case:
// Exchange Online was seen to refuse it otherwise.
const Mechanism = "XOAUTH2"

// ErrMalformed is returned, wrapped, where a response is not XOAUTH2. The
// text around it says what is wrong and never holds a part of the token.
var ErrMalformed = errors.New("malformed XOAUTH2 response")

const (
	userField = "user="
	authField = "\x01auth=Bearer "
	end       = "\x01\x01"
)

// InitialResponse returns the client's message, before base64. User is the
// address of the mailbox to open. An error is returned where user is empty,
// not UTF-8 or holds control characters (0x01 would let it add fields of its
// own), and where token is empty or holds anything but visible ASCII
// characters (RFC 6749 appendix A.12).
func InitialResponse(user string, token secret.Text) ([]byte, error) {
	if problem := problemWith(user, token.Reveal()); problem != "" {
		return nil, fmt.Errorf("sign in by XOAUTH2: %s", problem)
	}
	return []byte(userField + user + authField + token.Reveal() + end), nil
}

// Parse takes the client's message apart, after base64. It accepts exactly
// what InitialResponse makes, and returns an error that is ErrMalformed for
// anything else.
func Parse(response []byte) (user string, token secret.Text, err error) {
	rest, ok := strings.CutPrefix(string(response), userField)
	if !ok {
		return "", secret.Text{}, fmt.Errorf("%w: it does not begin with %q", ErrMalformed, userField)
	}
	rest, ok = strings.CutSuffix(rest, end)
	if !ok {
		return "", secret.Text{}, fmt.Errorf("%w: it does not end with %q", ErrMalformed, end)
	}
	user, bearer, ok := strings.Cut(rest, authField)
	if !ok {
		return "", secret.Text{}, fmt.Errorf("%w: it has no field %q after the user", ErrMalformed, authField[1:])
	}
	if problem := problemWith(user, bearer); problem != "" {
		return "", secret.Text{}, fmt.Errorf("%w: %s", ErrMalformed, problem)
	}
	return user, secret.New(bearer), nil
}

// problemWith says what is wrong with user or token, or nothing.
func problemWith(user, token string) string {
	switch {
	case user == "":
		return "the user is empty"
	case !utf8.ValidString(user), strings.ContainsFunc(user, unicode.IsControl):
		return "the user holds control characters or is not UTF-8"
	case token == "":
		return "the access token is empty"
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "the access token holds something other than visible ASCII characters"
	}
	return ""
}

// NewClient returns the client's end. Start returns the message of
// InitialResponse and its errors. Exchange Online sends no challenge; other
// servers send one with a JSON error before they refuse, which is answered
// with an empty response, so that the protocol's own refusal follows and the
// caller gets that. A second challenge is sasl.ErrUnexpectedServerChallenge.
func NewClient(user string, token secret.Text) sasl.Client {
	return &client{user: user, token: token}
}

type client struct {
	user       string
	token      secret.Text
	challenged bool
}

func (c *client) Start() (mech string, ir []byte, err error) {
	ir, err = InitialResponse(c.user, c.token)
	if err != nil {
		return "", nil, err
	}
	return Mechanism, ir, nil
}

func (c *client) Next([]byte) (response []byte, err error) {
	if c.challenged {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	c.challenged = true
	return []byte{}, nil
}

// NewServer returns the server's end, which hands what the client sent to
// authenticate and returns its error as it is. A message that is not XOAUTH2
// ends the exchange with an error that is ErrMalformed. Like Exchange Online,
// and unlike Google, it refuses without an error challenge; the one challenge
// it sends is the empty one that asks for a missing initial response.
func NewServer(authenticate func(user string, token secret.Text) error) sasl.Server {
	return &server{authenticate: authenticate}
}

type server struct {
	authenticate func(user string, token secret.Text) error
	asked, done  bool
}

func (s *server) Next(response []byte) (challenge []byte, done bool, err error) {
	if s.done {
		return nil, true, sasl.ErrUnexpectedClientResponse
	}
	// Nil is "no initial response" (sasl.Server), and means so only once.
	if response == nil && !s.asked {
		s.asked = true
		return []byte{}, false, nil
	}
	s.done = true
	user, token, err := Parse(response)
	if err != nil {
		return nil, true, err
	}
	return nil, true, s.authenticate(user, token)
}
