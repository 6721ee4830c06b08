package gateway

import (
	"bytes"
	"strings"
)

// imapCommand is one command before sign-in.
type imapCommand struct {
	tag      string // "*" where the client sent none that could be repeated
	verb     string // in upper case
	args     []byte // after the verb and its space, as on the wire with its literals, without the last CRLF
	declined bool   // it ends by announcing a literal that was not let come
}

// imapRead reads a command. A literal that the client waits to send is let
// come only where it has a meaning.
func imapRead(s *session) (imapCommand, error) {
	unit, declined, err := readUnit(s.client.in, imapMaxCommand, func(unit []byte, size int64, sync bool) (bool, error) {
		verb := parseIMAPCommand(unit).verb
		take := size <= maxCredential && (verb == "ID" || verb == "LOGIN" && s.client.private())
		if take && sync {
			return true, s.reply("+ go ahead")
		}
		return take, nil
	})
	if err != nil {
		return imapCommand{}, err
	}
	cmd := parseIMAPCommand(unit)
	cmd.declined = declined
	return cmd, nil
}

// parseIMAPCommand splits a command (RFC 9051 section 9, "command"). What has
// no valid tag or verb has an empty verb, which no command has.
func parseIMAPCommand(unit []byte) imapCommand {
	unit = withoutEOL(unit)
	tag, rest, _ := bytes.Cut(unit, []byte(" "))
	if len(tag) == 0 || len(tag) > imapMaxTag || bytes.ContainsFunc(tag, func(r rune) bool { return !isTagChar(r) }) {
		return imapCommand{tag: "*"}
	}
	cmd := imapCommand{tag: string(tag)}
	verb, args, hasArgs := bytes.Cut(rest, []byte(" "))
	if len(verb) == 0 || len(verb) > len("AUTHENTICATE") || bytes.ContainsFunc(verb, func(r rune) bool { return !isAtomChar(r) }) {
		return cmd
	}
	if hasArgs && len(args) == 0 {
		return cmd // a space that announces nothing
	}
	cmd.verb, cmd.args = strings.ToUpper(string(verb)), args
	return cmd
}

func withoutEOL(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// isAtomChar is ATOM-CHAR of RFC 9051.
func isAtomChar(r rune) bool {
	return r > ' ' && r <= '~' && !strings.ContainsRune(`(){%*"\]`, r)
}

// isAstringChar is ASTRING-CHAR.
func isAstringChar(r rune) bool { return isAtomChar(r) || r == ']' }

// isTagChar is what a tag consists of.
func isTagChar(r rune) bool { return isAstringChar(r) && r != '+' }

// imapParser takes arguments apart.
type imapParser struct{ rest []byte }

func (p *imapParser) done() bool { return len(p.rest) == 0 }

func (p *imapParser) space() bool {
	rest, ok := bytes.CutPrefix(p.rest, []byte(" "))
	p.rest = rest
	return ok
}

// astring is an atom, a quoted string or a literal, of at most maxCredential
// bytes and without NUL.
func (p *imapParser) astring() (string, bool) {
	var s string
	var ok bool
	switch {
	case len(p.rest) == 0:
		return "", false
	case p.rest[0] == '"':
		s, ok = p.quoted()
	case p.rest[0] == '{':
		s, ok = p.literal()
	default:
		end := bytes.IndexFunc(p.rest, func(r rune) bool { return !isAstringChar(r) })
		if end < 0 {
			end = len(p.rest)
		}
		s, ok = string(p.rest[:end]), end > 0
		p.rest = p.rest[end:]
	}
	return s, ok && len(s) <= maxCredential && !strings.ContainsRune(s, 0)
}

// quoted takes eight-bit characters as well, which old clients send.
func (p *imapParser) quoted() (string, bool) {
	var s []byte
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = p.rest[i+1:]
			return string(s), true
		case '\r', '\n':
			return "", false
		case '\\':
			i++
			if i == len(p.rest) || (p.rest[i] != '"' && p.rest[i] != '\\') {
				return "", false
			}
			s = append(s, p.rest[i])
		default:
			s = append(s, c)
		}
	}
	return "", false
}

func (p *imapParser) literal() (string, bool) {
	end := bytes.IndexByte(p.rest, '\n') + 1
	size, _, ok := announcedLiteral(append([]byte(" "), p.rest[:end]...))
	if !ok || size > int64(len(p.rest)-end) {
		return "", false
	}
	s := string(p.rest[end : end+int(size)])
	p.rest = p.rest[end+int(size):]
	return s, true
}
