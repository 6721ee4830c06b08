package gateway

import (
	"bytes"
	"strings"
)

// pop3Relay is a signed-in POP3 session.
type pop3Relay struct {
	dialogue
	readOnly bool
}

func newPOP3Relay(s *session, up *upstream, grant Grant) relay {
	r := &pop3Relay{readOnly: grant.ReadOnly}
	r.start(s, up, pop3Whole)
	return r
}

// pop3Whole is RFC 1939 section 3: one line, or lines up to a lone dot where
// the command has such a reply and is not refused.
func pop3Whole(line []byte, first bool, want expected) bool {
	if first {
		return !want.lines || !bytes.HasPrefix(line, []byte("+OK"))
	}
	return string(line) == "."
}

func (r *pop3Relay) fromClient() error {
	return r.serve(maxCommand, "-ERR a command is one line of text", r.do)
}

// do serves one command in the transaction state (RFC 1939 section 5).
func (r *pop3Relay) do(line []byte) error {
	verb, args := pop3Command(line)
	switch verb {
	case "STAT", "NOOP", "RSET", "UTF8":
		return r.pass(line, expected{})
	case "QUIT":
		return r.pass(line, expected{done: func([]byte) { r.s.leaving.Store(true) }})
	case "RETR", "TOP", "CAPA":
		return r.pass(line, expected{lines: true})
	case "LIST", "UIDL", "LANG": // one line where they have an argument (LANG: RFC 6856)
		return r.pass(line, expected{lines: strings.TrimSpace(args) == ""})
	case "DELE":
		if r.readOnly {
			return r.answer("-ERR [SYS/PERM] this app password is read-only: it deletes nothing")
		}
		return r.pass(line, expected{})
	case "USER", "PASS", "APOP", "AUTH", "STLS":
		return r.answer("-ERR you have signed in")
	}
	return r.answer("-ERR unknown command")
}
