package gateway

import (
	"bufio"
	"slices"
	"strings"
	"unicode/utf8"
)

// message passes a message on, up to the line with a lone dot.
func (r *smtpRelay) message() error {
	out := bufio.NewWriterSize(upWriter{r.s, r.up}, bufferSize)
	return r.s.copyMessage(out, r.passed)
}

// copyMessage copies a message, up to the line with a lone dot (RFC 5321 section
// 4.5.2), which is copied as well; whole is called before that goes out.
//
// Only CRLF "." CRLF ends it. Servers disagree about what else does: some take
// a bare LF for a line's end, some a bare CR, some drop all CRs before an LF. A
// message could end for one and go on for the other, with commands in its
// second half that nobody has looked at. So a line has one end here, CRLF,
// whatever it was before (RFC 5321 section 2.3.8 allows no other), and a dot
// that is alone on its line without being the end, or that only this puts at
// the beginning of one, is doubled. A CR elsewhere becomes a blank: as a line's
// end it could make a new header field of the rest of one.
func (s *session) copyMessage(out *bufio.Writer, whole func()) error {
	in := s.client.in
	var (
		begin = true  // at the beginning of a line
		after = true  // the line before ended in CRLF
		dot   = false // the line so far is a dot, which is not written yet
		crs   = 0     // CRs that are not written yet: they may belong to the line's end
	)
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
			s.touch()
		}
		c, err := in.ReadByte()
		if err != nil {
			return readFailed(err)
		}
		switch {
		case c == '\n' && dot && after && crs == 1:
			_, _ = out.WriteString(".\r\n")
			whole()
			return out.Flush()
		case c == '\n':
			if dot {
				_, _ = out.WriteString("..")
			}
			_, err = out.WriteString("\r\n")
			begin, after, dot, crs = true, crs > 0, false, 0
		case c == '\r':
			crs++
			begin = false
		case c == '.' && begin:
			begin, dot = false, true
		default:
			if dot {
				_ = out.WriteByte('.')
				if !after {
					_ = out.WriteByte('.')
				}
			}
			for ; crs > 0; crs-- {
				_ = out.WriteByte(' ')
			}
			begin, dot = false, false
			err = out.WriteByte(c)
		}
		if err != nil {
			return err
		}
	}
}

// smtpPath is the address of MAIL FROM:<address> and its parameters (RFC 5321
// section 4.1.2), without the angle brackets; empty for the null sender. Only
// the plain form is taken: source routes, quotes and comments mean one address
// to one server and another to the next.
func smtpPath(args string) (address string, ok bool) {
	if len(args) < 5 || !strings.EqualFold(args[:5], "FROM:") {
		return "", false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(args[5:], " "), "<")
	if !ok {
		return "", false
	}
	address, rest, ok = strings.Cut(rest, ">")
	if !ok || rest != "" && rest[0] != ' ' {
		return "", false
	}
	local, domain, _ := strings.Cut(address, "@")
	return address, address == "" || plainText(local, smtpAtext) && plainText(domain, "-.")
}

// smtpAtext is what beside letters and digits a local part is made of (RFC 5321
// section 4.1.2, Dot-string).
const smtpAtext = "!#$%&'*+-/=?^_`{|}~."

// plainText says whether s consists of letters, digits, some other characters,
// and those beyond ASCII (RFC 6531).
func plainText(s, others string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x80 && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
	})
}

// senderAllowed compares without regard to the case of ASCII letters, as
// Exchange does; other letters have more than one counterpart.
func senderAllowed(allowed []string, sender string) bool {
	sender = asciiLower(sender)
	return slices.ContainsFunc(allowed, func(a string) bool {
		a = asciiLower(a)
		if strings.HasPrefix(a, "@") {
			at := strings.IndexByte(sender, '@')
			return at > 0 && sender[at:] == a
		}
		return sender == a
	})
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
