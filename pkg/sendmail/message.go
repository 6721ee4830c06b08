package sendmail

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaxSize is how long a message may be, in bytes: Exchange takes no more than
// 150 MB, whatever an administrator sets.
const MaxSize = 150 << 20

// SizeError tells that a message is longer than what is taken.
type SizeError struct{ Limit int64 }

// Error says how long it may be.
func (e *SizeError) Error() string {
	return fmt.Sprintf("the message is longer than %d bytes, which is the most that can be sent", e.Limit)
}

// LocalError tells of a recipient without a domain who is not the caller.
type LocalError struct{ Name string }

// Error names the recipient.
func (e *LocalError) Error() string {
	return fmt.Sprintf("the recipient %q is no mail address, and no mail is delivered on this machine", e.Name)
}

// AddressError tells of what cannot be read as addresses.
type AddressError struct {
	Where string // the field's name, or "recipient", "sender"
	Err   error
}

// Error says what was wrong, and where.
func (e *AddressError) Error() string { return e.Where + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// ErrNoRecipient tells that a message is to go to nobody.
var ErrNoRecipient = errors.New("there is no recipient: name some behind the options, or with -t in the message")

// field of a header. Its text has no line end at its end; folded lines are
// separated by LF.
type field struct {
	name string
	text string // with name and colon
}

// value is what stands behind the colon.
func (f field) value() string {
	_, v, _ := strings.Cut(f.text, ":")
	return strings.Trim(v, " \t\n")
}

// Message is one message with its envelope.
type Message struct {
	fields []field
	body   []byte // lines end in LF

	sender     string // empty: the null sender, once it is complete
	null       bool
	recipients []address
}

// Read reads a message to its end: of r, or a line with a lone dot where the
// options do not ignore that. The message may have come with any line ends, with
// or without a header. What no server takes is mended: a NUL is left out, and a
// CR that ends no line becomes a blank.
//
// Its errors are those of r, a [*SizeError] and an [*AddressError].
func Read(r io.Reader, o Options) (*Message, error) {
	text, err := readText(r, o.IgnoreDots)
	if err != nil {
		return nil, err
	}
	m := &Message{null: o.NullSender, sender: o.Sender}
	m.parse(text)
	for _, arg := range o.Recipients {
		list, err := parseAddresses(arg)
		if err != nil {
			return nil, &AddressError{"recipient", err}
		}
		m.recipients = append(m.recipients, list...)
	}
	if o.FromMessage {
		if err := m.addressed(); err != nil {
			return nil, err
		}
	}
	if o.Sender != "" {
		a, err := parseAddress(o.Sender)
		if err == nil {
			err = checked([]address{a})
		}
		if err != nil {
			return nil, &AddressError{"sender", err}
		}
		m.sender = a.spec
	}
	// A copy that nobody else is to see, and what only a delivery may write.
	m.fields = slices.DeleteFunc(m.fields, func(f field) bool {
		return slices.Contains([]string{"bcc", "resent-bcc", "return-path", "content-length"}, strings.ToLower(f.name))
	})
	return m, nil
}

// readText reads lines, and gives each an LF as its end.
func readText(r io.Reader, ignoreDots bool) ([]byte, error) {
	in := bufio.NewReader(io.LimitReader(r, MaxSize+1))
	var text bytes.Buffer
	for read := 0; ; {
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		if read += len(line); read > MaxSize {
			return nil, &SizeError{MaxSize}
		}
		if len(line) > 0 {
			line = bytes.TrimRight(line, "\n")
			line = bytes.TrimRight(line, "\r")
			if !ignoreDots && len(line) == 1 && line[0] == '.' {
				return text.Bytes(), nil
			}
			line = bytes.ReplaceAll(line, []byte{0}, nil)
			text.Write(bytes.ReplaceAll(line, []byte{'\r'}, []byte{' '}))
			text.WriteByte('\n')
		}
		if err != nil {
			return text.Bytes(), nil
		}
	}
}

// fieldName begins a field (RFC 5322 section 3.6.8, and the blank of 4.5.8).
var fieldName = regexp.MustCompile(`^([!-9;-~]+)[ \t]*:`)

// parse splits header and body. A line that belongs to no header begins the
// body, also where there is no empty line before it. The "From " line of a
// mailbox file is left out.
func (m *Message) parse(text []byte) {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		name := fieldName.FindSubmatch(line)
		switch {
		case len(line) == 0:
			m.body = rest
			return
		case len(m.fields) == 0 && (bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))):
		case (line[0] == ' ' || line[0] == '\t') && len(m.fields) > 0:
			if len(bytes.Trim(line, " \t")) > 0 { // else servers disagree where the header ends
				m.fields[len(m.fields)-1].text += "\n" + string(line)
			}
		case name != nil:
			m.fields = append(m.fields, field{string(name[1]), string(name[1]) + ":" + string(line[len(name[0]):])})
		default:
			m.body = text
			return
		}
		text = rest
	}
}

// addressed adds the recipients that the message names: those of the last time
// that it was resent, if it was (RFC 5322 section 3.6.6).
func (m *Message) addressed() error {
	names := []string{"to", "cc", "bcc"}
	if slices.ContainsFunc(m.fields, func(f field) bool {
		return slices.Contains([]string{"resent-to", "resent-cc", "resent-bcc"}, strings.ToLower(f.name))
	}) {
		names = []string{"resent-to", "resent-cc", "resent-bcc"}
	}
	for _, f := range m.fields {
		if !slices.Contains(names, strings.ToLower(f.name)) {
			continue
		}
		list, err := parseAddresses(f.value())
		if err != nil {
			return &AddressError{f.name, err}
		}
		m.recipients = append(m.recipients, list...)
	}
	return nil
}

// get is the first field of that name.
func (m *Message) get(name string) (f field, ok bool) {
	i := slices.IndexFunc(m.fields, func(f field) bool { return strings.EqualFold(f.name, name) })
	if i < 0 {
		return field{}, false
	}
	return m.fields[i], true
}

// set replaces a field, or adds it.
func (m *Message) set(name, value string) {
	f := field{name, name + ": " + value}
	i := slices.IndexFunc(m.fields, func(f field) bool { return strings.EqualFold(f.name, name) })
	if i < 0 {
		m.fields = append(m.fields, f)
		return
	}
	m.fields[i] = f
	m.fields = append(m.fields[:i+1], slices.DeleteFunc(m.fields[i+1:], func(f field) bool { return strings.EqualFold(f.name, name) })...)
}

// From is the address that the message is sent as: of the envelope, else of the
// field From; empty where neither has one with a domain.
func (m *Message) From() string {
	if strings.Contains(m.sender, "@") {
		return m.sender
	}
	if f, ok := m.get("From"); ok {
		if list, err := parseAddresses(f.value()); err == nil && len(list) > 0 && !list[0].local() {
			return list[0].spec
		}
	}
	return ""
}

// Completion is what a message takes that lacks something.
type Completion struct {
	Mailbox string    // who sends, where the message does not say so
	User    string    // the caller's name on this machine, which stands for Mailbox
	Name    string    // for a From field that is made; may be empty
	Now     time.Time // for a Date field
}

// Complete fills in what is missing: sender, From, Date, Message-ID, To (RFC
// 5322 section 3.6, RFC 6409 section 8). A sender without a domain becomes the
// mailbox. Its errors are [ErrNoRecipient] and a [*LocalError].
func (m *Message) Complete(c Completion) error {
	for i, r := range m.recipients {
		if !r.local() {
			continue
		}
		if r.spec != c.User {
			return &LocalError{r.spec}
		}
		m.recipients[i].spec = c.Mailbox
	}
	var seen []string
	m.recipients = slices.DeleteFunc(m.recipients, func(r address) bool {
		again := slices.Contains(seen, r.spec)
		seen = append(seen, r.spec)
		return again
	})
	if len(m.recipients) == 0 {
		return ErrNoRecipient
	}
	from := m.From()
	if from == "" {
		from = c.Mailbox
	}
	if !m.null && !strings.Contains(m.sender, "@") {
		m.sender = from
	}
	m.completeFrom(c)
	if _, ok := m.get("Date"); !ok {
		m.set("Date", c.Now.Format(time.RFC1123Z))
	}
	if _, ok := m.get("Message-ID"); !ok {
		_, domain, _ := strings.Cut(c.Mailbox, "@")
		m.set("Message-ID", "<"+strings.ToLower(rand.Text())+"@"+domain+">")
	}
	_, to := m.get("To")
	_, cc := m.get("Cc")
	if !to && !cc {
		m.set("To", "undisclosed-recipients:;")
	}
	return nil
}

// completeFrom makes a From field, or puts the mailbox in the place of a user's
// name. One that cannot be read is left to the server to judge.
func (m *Message) completeFrom(c Completion) {
	name := c.Name
	if f, ok := m.get("From"); ok {
		list, err := parseAddresses(f.value())
		if err != nil || len(list) > 0 && !list[0].local() {
			return
		}
		if len(list) > 0 && list[0].name != "" {
			name = list[0].name
		}
	}
	from := c.Mailbox
	if strings.Contains(m.sender, "@") {
		from = m.sender
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	value := wire(from)
	if name = strings.TrimSpace(name); name != "" {
		value = strings.ReplaceAll((&mail.Address{Name: name, Address: from}).String(), "\r\n", "\n")
	}
	m.set("From", value)
}
