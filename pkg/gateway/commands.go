package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// maxBadCommands are refused on one connection, sign-ins aside.
const maxBadCommands = 10

// answer is how a command before sign-in is refused, in the protocol's words:
// what stands after the tag over IMAP, after -ERR over POP3, a whole reply over
// SMTP.
type answer string

func (a answer) Error() string { return string(a) }

// ask answers the client's commands until one is a sign-in. It returns io.EOF
// when the client leaves, and an *ending when it has to.
func (s *session) ask(ctx context.Context) (credentials, error) {
	for {
		if err := s.awaitCommand(); err != nil {
			return credentials{}, err
		}
		prefix, cred, err := s.proto.next(ctx, s)
		if cred != nil && err == nil {
			return *cred, nil
		}
		if _, told := errors.AsType[*ending](err); !told && errors.Is(err, errTooLong) { // where the next one would begin is unknown
			return credentials{}, &ending{public: "command too long", cause: err}
		}
		if a, ok := errors.AsType[answer](err); ok {
			if err = s.reply("%s%s", prefix, string(a)); err == nil {
				err = s.countBad()
			}
		}
		if err != nil {
			return credentials{}, err
		}
	}
}

// awaitCommand waits for the first byte of the client's next command.
func (s *session) awaitCommand() error {
	b, err := s.client.in.Peek(1)
	if err != nil {
		return err
	}
	if !s.client.tls && b[0] == tlsHandshake {
		return fmt.Errorf("the client began TLS after it was greeted in clear, having been silent for longer than %s: choose STARTTLS there, if that happens again", s.silent)
	}
	return nil
}

// countBad ends a connection that sends nothing but nonsense.
func (s *session) countBad() error {
	if s.bad++; s.bad >= maxBadCommands {
		return &ending{public: "too many bad commands", cause: errors.New("too many bad commands")}
	}
	return nil
}

// known ends a connection whose first command is of another protocol, such as
// that of a browser whom a web page sent here: it must not go on to send what
// could be taken for a command.
func (s *session) known(is bool) error {
	if s.met = s.met || is; s.met {
		return nil
	}
	name := strings.ToUpper(string(s.name))
	article := map[Protocol]string{IMAP: "an", POP3: "a", SMTP: "an"}[s.name]
	return &ending{public: "not " + article + " " + name + " command", cause: fmt.Errorf("the first command is not one of %s's before sign-in", name)}
}
