package gateway

import (
	"fmt"
	"strconv"
	"strings"
)

// smtpAddress reads the arguments of MAIL and RCPT (RFC 5321 section 4.1.2): an
// address in angle brackets after prefix, which is FROM: or TO:, and parameters
// after it. Quotes around the local part are undone, as net/mail does; source
// routes and address literals, which nobody uses, are not taken. An empty address is the null sender.
func smtpAddress(prefix, args string) (address string, params []string, ok bool) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return "", nil, false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(args[len(prefix):], " "), "<")
	if !ok {
		return "", nil, false
	}
	var local string
	if quoted, is := strings.CutPrefix(rest, `"`); is {
		if local, rest, ok = unquote(quoted); !ok {
			return "", nil, false
		}
		if !strings.HasPrefix(rest, "@") {
			return "", nil, false
		}
	}
	bare, after, ok := strings.Cut(rest, ">")
	if !ok || after != "" && after[0] != ' ' {
		return "", nil, false
	}
	params = strings.Fields(after)
	if local == "" {
		if bare == "" {
			return "", params, true
		}
		if local, bare, ok = strings.Cut(bare, "@"); !ok || !dotString(local) {
			return "", nil, false
		}
	} else {
		bare = bare[1:]
	}
	if !plainText(bare, "-.") || !dotString(bare) {
		return "", nil, false
	}
	return local + "@" + bare, params, true
}

// dotString is RFC 5321's Dot-string.
func dotString(s string) bool {
	return plainText(s, smtpAtext) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// unquote reads RFC 5321's Quoted-string after its first quote.
func unquote(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], b.Len() > 0
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
			fallthrough
		default:
			if c < ' ' || c > '~' {
				return "", "", false
			}
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// submitMailParams holds the parameters of MAIL to what Graph can do; limit is
// the largest message. It returns a reply where it cannot. That no report of a
// success will come (RFC 3461) has to be told; that other reports come in the
// form that Exchange gives them need not.
func submitMailParams(params []string, limit int64) answer {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "SIZE": // RFC 1870
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return "501 5.5.4 SIZE takes a number of bytes"
			}
			if n > uint64(limit) {
				return tooLarge(limit)
			}
		case "BODY": // RFC 6152
			if v := strings.ToUpper(value); v != "7BIT" && v != "8BITMIME" {
				return "555 5.5.4 this mailbox sends by Graph, which takes BODY=7BIT and BODY=8BITMIME only"
			}
		case "SMTPUTF8": // RFC 6531
			return "550 5.6.7 this mailbox sends by Graph, which takes no addresses beyond ASCII"
		case "AUTH", "RET", "ENVID": // RFC 4954 section 5, RFC 3461: no harm in their absence
		default:
			return answer(lineText("555 5.5.4 this mailbox sends by Graph, which does not know " + limited(name, 40)))
		}
	}
	return ""
}

func submitRcptParams(params []string) answer {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "NOTIFY":
			for v := range strings.SplitSeq(strings.ToUpper(value), ",") {
				if v == "SUCCESS" {
					return "555 5.5.4 this mailbox sends by Graph, which reports no deliveries: switch that off in the mail program"
				}
			}
		case "ORCPT":
		default:
			return answer(lineText("555 5.5.4 this mailbox sends by Graph, which does not know " + limited(name, 40)))
		}
	}
	return ""
}

// tooLarge refuses a message by its size.
func tooLarge(limit int64) answer {
	return answer(fmt.Sprintf("552 5.3.4 the message is too large: this mailbox sends by Graph, which takes %d bytes", limit))
}
