package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"github.com/google/uuid"
)

const (
	smtpTooLarge  = "552 5.3.4 Message size exceeds fixed maximum message size"
	smtpBareLF    = "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds, which cannot be sent via DATA"
	smtpLongLine  = "554 5.6.0 Message has a line of more than 1000 octets"
	smtpAddress   = "501 5.1.7 Invalid address"
	smtpNeedsUTF8 = "550 5.6.7 The address needs SMTPUTF8"
	smtpNeedsBDAT = "503 5.5.1 BODY=BINARYMIME needs BDAT"
)

// data does DATA (RFC 5321 section 4.1.1.4).
func (c *smtpConn) data(args string) error {
	problem := c.notReady()
	switch {
	case args != "":
		return c.wrong(smtpArguments)
	case problem != "":
		return c.wrong(problem)
	case c.tx.chunked:
		return c.wrong(smtpSequence)
	case c.tx.binary:
		return c.wrong(smtpNeedsBDAT) // RFC 3030 section 3
	}
	if err := c.say("354 Start mail input; end with <CRLF>.<CRLF>"); err != nil {
		return err
	}
	tx := c.tx
	c.tx = nil
	data, tooLarge, err := readData(c.br, c.limit, func() { c.conn.SetReadDeadline(time.Now().Add(smtpDataTimeout)) })
	if err != nil {
		return err
	}
	tx.data = data
	return c.accept(tx, tooLarge)
}

// readData reads a message up to CRLF "." CRLF, and that alone, and takes the
// dots off that were put before others (RFC 5321 section 4.5.2). It calls wait
// before each read. Beyond limit it reads on, but keeps nothing.
func readData(br *bufio.Reader, limit int, wait func()) (data []byte, tooLarge bool, err error) {
	start := true // of a line, which only CRLF ends
	for last := byte(0); ; {
		wait()
		part, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, false, err
		}
		if start && string(part) == ".\r\n" {
			return data, tooLarge, nil
		}
		before := last
		if len(part) > 1 {
			before = part[len(part)-2]
		}
		last = part[len(part)-1]
		if start {
			part = bytes.TrimPrefix(part, []byte("."))
		}
		start = before == '\r' && last == '\n'
		if tooLarge = tooLarge || len(data)+len(part) > limit; tooLarge {
			data = nil
			continue
		}
		data = append(data, part...)
	}
}

// badLines says what is wrong with the lines of a message that is text, or "".
func badLines(data []byte) string {
	long := false
	for line := range bytes.SplitAfterSeq(data, []byte("\r\n")) {
		text := bytes.TrimSuffix(line, []byte("\r\n"))
		if bytes.ContainsAny(text, "\r\n") {
			return smtpBareLF
		}
		long = long || len(line) > maxSMTPText
	}
	if long {
		return smtpLongLine
	}
	return ""
}

// bdat does BDAT (RFC 3030 section 2). Its octets come in any case, so they
// are read before it is refused; without their number there is no going on.
func (c *smtpConn) bdat(args string) error {
	number, rest, more := strings.Cut(args, " ")
	size, err := strconv.ParseUint(number, 10, 63)
	last := strings.EqualFold(rest, "LAST")
	if err != nil || more && !last {
		c.end(smtpArguments)
		return errOver
	}
	if size > maxSMTPMessage {
		c.end(smtpTooLarge)
		return errOver
	}
	problem := c.notReady()
	if problem == "" && c.tx.failed {
		problem = smtpSequence
	}
	tooLarge := problem == "" && len(c.tx.data)+int(size) > c.limit
	if problem != "" || tooLarge {
		if err := c.chunk(io.Discard, int64(size)); err != nil {
			return err
		}
		if problem != "" {
			return c.wrong(problem)
		}
		c.tx.chunked, c.tx.failed, c.tx.data = true, true, nil
		return c.say(smtpTooLarge)
	}
	c.tx.chunked = true
	buf := bytes.NewBuffer(c.tx.data)
	if err := c.chunk(buf, int64(size)); err != nil {
		return err
	}
	c.tx.data = buf.Bytes()
	if !last {
		return c.say(fmt.Sprintf("250 2.0.0 %d octets received", size))
	}
	tx := c.tx
	c.tx = nil
	return c.accept(tx, false)
}

// chunk reads what belongs to BDAT, with a time limit for each part of it.
func (c *smtpConn) chunk(w io.Writer, size int64) error {
	for size > 0 {
		c.conn.SetReadDeadline(time.Now().Add(smtpDataTimeout))
		n, err := io.CopyN(w, c.br, min(size, maxLine))
		if err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// mailParams are the parameters of MAIL that matter here.
type mailParams struct{ binary, utf8 bool }

// parseMail takes the arguments of MAIL apart. reply is a refusal, or "".
func parseMail(args string) (from string, params mailParams, reply string) {
	from, list, reply := parsePath(args, "FROM:")
	if reply != "" {
		return "", params, reply
	}
	seen := make(map[string]bool)
	for _, p := range list {
		key, value, has := strings.Cut(p, "=")
		key = strings.ToUpper(key)
		ok := has && !seen[key]
		seen[key] = true
		switch key {
		case "SIZE": // RFC 1870
			size, err := strconv.ParseUint(value, 10, 63)
			ok = ok && err == nil
			if ok && size > maxSMTPMessage {
				return "", params, smtpTooLarge
			}
		case "BODY": // RFC 6152, RFC 3030
			body := strings.ToUpper(value)
			params.binary = body == "BINARYMIME"
			ok = ok && (params.binary || body == "7BIT" || body == "8BITMIME")
		case "SMTPUTF8": // RFC 6531
			params.utf8 = true
			ok = !has
		case "RET": // RFC 3461
			ok = ok && (strings.EqualFold(value, "FULL") || strings.EqualFold(value, "HDRS"))
		case "ENVID":
			ok = ok && len(value) <= 100 && xtext(value)
		case "AUTH": // RFC 4954 section 5
			ok = ok && len(value) <= 500 && xtext(value)
		default:
			ok = false
		}
		if !ok {
			return "", params, smtpArguments
		}
	}
	if !params.utf8 && !ascii(from) {
		return "", params, smtpNeedsUTF8
	}
	return from, params, ""
}

// parseRcpt takes the arguments of RCPT apart. reply is a refusal, or "".
func parseRcpt(args string, international bool) (to, reply string) {
	to, list, reply := parsePath(args, "TO:")
	switch {
	case reply != "":
		return "", reply
	case to == "":
		return "", smtpAddress
	case !international && !ascii(to):
		return "", smtpNeedsUTF8
	}
	seen := make(map[string]bool)
	for _, p := range list { // RFC 3461
		key, value, has := strings.Cut(p, "=")
		key = strings.ToUpper(key)
		ok := has && !seen[key]
		seen[key] = true
		switch key {
		case "NOTIFY":
			words := strings.Split(strings.ToUpper(value), ",")
			for _, w := range words {
				ok = ok && (w == "SUCCESS" || w == "FAILURE" || w == "DELAY" || w == "NEVER" && len(words) == 1)
			}
		case "ORCPT":
			kind, address, typed := strings.Cut(value, ";")
			ok = ok && typed && kind != "" && address != "" && len(value) <= 500 && (international || xtext(value))
		default:
			ok = false
		}
		if !ok {
			return "", smtpArguments
		}
	}
	return to, ""
}

// parsePath takes FROM:<address> or TO:<address> and the parameters behind it
// apart. Spaces that RFC 5321 section 4.1.2 does not have are refused, and so
// are routes and quoted names.
func parsePath(args, prefix string) (address string, params []string, reply string) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return "", nil, smtpArguments
	}
	path, ok := strings.CutPrefix(args[len(prefix):], "<")
	address, rest, closed := strings.Cut(path, ">")
	if !ok || !closed || len(address) > 254 {
		return "", nil, smtpAddress
	}
	if address != "" {
		local, _, _ := strings.Cut(address, "@")
		parsed, err := mail.ParseAddress("<" + address + ">")
		if err != nil || parsed.Address != address || len(local) > 64 || strings.Contains(address, " ") || !utf8.ValidString(address) {
			return "", nil, smtpAddress
		}
	}
	if rest == "" {
		return address, nil, ""
	}
	params = strings.Split(rest, " ")
	if params[0] != "" || slices.Contains(params[1:], "") {
		return "", nil, smtpArguments
	}
	return address, params[1:], ""
}

// xtext says whether a value is in the form of RFC 3461 section 4.
func xtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b < '!' || b > '~' || b == '=':
			return false
		case b == '+':
			if _, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8); err != nil || i+3 > len(s) || s[i+1:i+3] != strings.ToUpper(s[i+1:i+3]) {
				return false
			}
		}
	}
	return s != ""
}

// denied gives the address that a message is sent as, and may not be: that of
// the envelope, or one of the header's. "" means that it may.
func (tx *smtpTransaction) denied(may func(string) bool) string {
	if !may(tx.from) {
		return "<" + tx.from + ">"
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(tx.data))
	if err != nil {
		return ""
	}
	for _, field := range parsed.Header["From"] {
		authors, err := mail.ParseAddressList(field)
		if err != nil {
			return "what From says"
		}
		for _, a := range authors {
			if !may(a.Address) {
				return "<" + printable(a.Address) + ">"
			}
		}
	}
	return ""
}

// submit stores a message: in the sender's Sent Items, in the INBOX of those
// recipients that are here, and for Sent. It gives the message's id.
func (x *exchange) submit(box *mailbox, tx *smtpTransaction) (id string, err error) {
	id = uuid.NewString() + "@" + strings.ToLower(smtpHost)
	if x.s.ForgetSent {
		return id, nil
	}
	now := x.s.now()
	if err := box.deliver("Sent Items", tx.data, now, imap.FlagSeen); err != nil {
		return "", err
	}
	var done []*mailbox
	for _, to := range tx.to {
		m := x.mailbox(to)
		if m == nil || slices.Contains(done, m) {
			continue
		}
		if err := m.deliver("INBOX", tx.data, now); err != nil {
			return "", err
		}
		done = append(done, m)
	}
	x.mu.Lock()
	x.sent = append(x.sent, Message{By: "smtp", Mailbox: box.Address, From: tx.from, To: tx.to, Data: tx.data, Received: now})
	x.mu.Unlock()
	return id, nil
}

func (x *exchange) listSent() []Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]Message, len(x.sent))
	for i, m := range x.sent {
		list[i] = m
		list[i].To, list[i].Data, list[i].Posted = slices.Clone(m.To), bytes.Clone(m.Data), bytes.Clone(m.Posted)
	}
	return list
}
