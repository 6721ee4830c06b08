package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// Graph has no envelope: it sends to whom To, Cc and Bcc name, and as the
// mailbox. So a message that an SMTP client hands over with an envelope is held
// to it here, and gets a Bcc field for those whom only the envelope names. What
// is added stands before everything else; nothing else is changed.

// letter is what an SMTP client has handed over.
type letter struct {
	from    string   // of MAIL FROM
	to      []string // of RCPT TO, as net/mail writes addresses: quotes are undone
	message []byte   // with lines that end in CRLF
}

// fitted is a message as Graph is to get it.
type fitted struct {
	message []byte
	id      string // its Message-ID, in angle brackets; empty: it has none that could be looked for
	given   bool   // its Message-ID was added here
}

// maxHeader bounds a header: servers have limits, 256 KiB at the most.
const maxHeader = 256 << 10

// field is one field of a header.
type field struct {
	name       string // in lower case
	value      string // unfolded
	start, end int    // of all of it, in the message
}

// splitHeader reads the header of a message, strictly: what one program takes
// for a field and the next for text would be sent to somebody else.
func splitHeader(message []byte) ([]field, error) {
	var fields []field
	for at, n := 0, 1; at < len(message); n++ {
		line, _, _ := bytes.Cut(message[at:], []byte("\r\n"))
		end := min(at+len(line)+2, len(message))
		if len(line) == 0 {
			break
		}
		if end > maxHeader {
			return nil, answer("552 5.3.4 the header of the message is too long")
		}
		bad := answer(fmt.Sprintf("554 5.6.0 line %d of the message's header is no header field", n))
		if line[0] == ' ' || line[0] == '\t' {
			if len(fields) == 0 || len(bytes.Trim(line, " \t")) == 0 { // RFC 5322 section 3.2.2
				return nil, bad
			}
			f := &fields[len(fields)-1]
			f.value, f.end = f.value+string(line), end
		} else {
			name, value, ok := strings.Cut(string(line), ":")
			if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return nil, bad
			}
			fields = append(fields, field{strings.ToLower(name), value, at, end})
		}
		at = end
	}
	return fields, nil
}

// headerAddresses reads a field that holds addresses. Encoded words in an unknown
// character set stay as they are: only the addresses matter.
func headerAddresses(f field) ([]string, error) {
	if strings.TrimSpace(f.value) == "" {
		return nil, nil
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{
		CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil },
	}}
	list, err := parser.ParseList(f.value)
	if err != nil {
		return nil, answer(lineText(fmt.Sprintf("554 5.6.0 the field %s of the message is not a list of addresses: %s", f.name, limited(strings.TrimPrefix(err.Error(), "mail: "), 100))))
	}
	var all []string
	for _, a := range list {
		all = append(all, a.Address)
	}
	return all, nil
}

// single are fields that RFC 5322 section 3.6 allows once. Of several, nobody
// knows which counts.
var single = []string{"from", "sender", "to", "cc"}

// fit makes the message that Graph is to get; id is the Message-ID that one without
// gets. Its error is an answer: the message is not one that Graph would send as the
// client has asked.
func (l letter) fit(g Grant, now time.Time, id string) (fitted, error) {
	fields, err := splitHeader(l.message)
	if err != nil {
		return fitted{}, err
	}
	seen := map[string][]string{}
	count := map[string]int{}
	for _, f := range fields {
		if strings.HasPrefix(f.name, "resent-") {
			return fitted{}, answer("550 5.7.1 a message that is sent again (" + f.name + ") cannot go by Graph, which sends to whom To, Cc and Bcc name; forward it instead")
		}
		if count[f.name]++; count[f.name] > 1 && slices.Contains(single, f.name) {
			return fitted{}, answer("554 5.6.0 the message has more than one field " + f.name)
		}
		if slices.Contains([]string{"from", "sender", "to", "cc", "bcc"}, f.name) {
			addresses, err := headerAddresses(f)
			if err != nil {
				return fitted{}, err
			}
			seen[f.name] = append(seen[f.name], addresses...)
		}
	}
	if err := l.checkSender(seen, count, g); err != nil {
		return fitted{}, err
	}
	open := slices.Concat(seen["to"], seen["cc"])
	for _, a := range slices.Concat(open, seen["bcc"]) {
		if !containsAddress(l.to, a) {
			return fitted{}, answer(lineText("550 5.7.1 the message names " + limited(a, 100) + " as a recipient, and is not to go there: " +
				"Graph sends to all whom To, Cc and Bcc name; send it to all of them at once, not one by one"))
		}
	}

	var added bytes.Buffer
	rest := l.message
	if hidden := without(l.to, open); len(hidden) > 0 && (count["bcc"] > 1 || len(without(hidden, seen["bcc"])) > 0) || count["bcc"] > 1 {
		rest = cutFields(l.message, fields, "bcc")
		writeAddresses(&added, "Bcc", hidden)
	}
	if count["from"] == 0 { // RFC 5322 section 3.6 wants one
		writeAddresses(&added, "From", []string{l.from})
	}
	out := fitted{id: messageID(fields)}
	if count["message-id"] == 0 { // RFC 6409 section 8.3
		out.id, out.given = id, true
		added.WriteString("Message-ID: " + out.id + "\r\n")
	}
	if count["date"] == 0 { // RFC 6409 section 8.2
		added.WriteString("Date: " + now.Format(time.RFC1123Z) + "\r\n")
	}
	if len(fields) == 0 && !bytes.HasPrefix(l.message, []byte("\r\n")) {
		added.WriteString("\r\n")
	}
	out.message = append(added.Bytes(), rest...)
	return out, nil
}

// checkSender holds From and Sender to what the mailbox may send as.
func (l letter) checkSender(seen map[string][]string, count map[string]int, g Grant) error {
	for _, name := range []string{"from", "sender"} {
		if count[name] > 0 && len(seen[name]) != 1 {
			return answer(fmt.Sprintf("550 5.6.0 the field %s of the message names %d senders; by Graph a message has one", name, len(seen[name])))
		}
		for _, a := range seen[name] {
			if !g.maySendAs(a) {
				return answer(g.wrongSender("the field "+name, a))
			}
		}
	}
	return nil
}

// maySendAs says whether a message of a may go by Graph, which knows the mailbox
// and, where Exchange lets it send as those, others: those that the app password
// names. An alias of the mailbox would be replaced by its address.
func (g Grant) maySendAs(a string) bool {
	if len(g.From) > 0 {
		return senderAllowed(g.From, a)
	}
	return sameAddress(g.Mailbox, a)
}

func (g Grant) wrongSender(where, a string) string {
	may := g.Mailbox
	if len(g.From) > 0 {
		may = strings.Join(g.From, ", ")
	}
	if a == "" {
		a = "nobody (an empty sender)"
	}
	return lineText(fmt.Sprintf("550 5.7.60 %s is %s, and this app password sends as %s: set that as the sender; for another one, which Exchange has to allow: o365pw create --from",
		where, limited(a, 100), limited(may, 200)))
}

// messageID is the Message-ID, if there is one in the form that others take.
func messageID(fields []field) string {
	var ids []string
	for _, f := range fields {
		if f.name == "message-id" {
			ids = append(ids, strings.TrimSpace(f.value))
		}
	}
	if len(ids) != 1 {
		return ""
	}
	id := ids[0]
	if len(id) < 3 || len(id) > 900 || id[0] != '<' || id[len(id)-1] != '>' || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return id
}

func newMessageID(mailbox string) string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	_, domain, _ := strings.Cut(mailbox, "@")
	return "<" + hex.EncodeToString(random) + "@" + domain + ">"
}

// writeAddresses writes a field with an address a line (RFC 5322 section 2.2.3).
func writeAddresses(out *bytes.Buffer, name string, addresses []string) {
	out.WriteString(name + ": ")
	for i, a := range addresses {
		if i > 0 {
			out.WriteString(",\r\n ")
		}
		out.WriteString(headerAddress(a))
	}
	out.WriteString("\r\n")
}

// headerAddress is an address as a header has it, its local part in quotes where
// it has to be.
func headerAddress(a string) string {
	return strings.TrimSuffix(strings.TrimPrefix((&mail.Address{Address: a}).String(), "<"), ">")
}

// cutFields is the message without the fields of that name.
func cutFields(message []byte, fields []field, name string) []byte {
	var out []byte
	at := 0
	for _, f := range fields {
		if f.name == name {
			out = append(out, message[at:f.start]...)
			at = f.end
		}
	}
	return append(out, message[at:]...)
}

// sameAddress compares without regard to the case of ASCII letters, as Exchange
// does.
func sameAddress(a, b string) bool { return asciiLower(a) == asciiLower(b) }

func containsAddress(list []string, a string) bool {
	return slices.ContainsFunc(list, func(b string) bool { return sameAddress(a, b) })
}

// without is the list without those in others, each once.
func without(list, others []string) []string {
	var left []string
	for _, a := range list {
		if !containsAddress(others, a) && !containsAddress(left, a) {
			left = append(left, a)
		}
	}
	return left
}
