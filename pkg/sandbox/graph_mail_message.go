package sandbox

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// outgoing is a message that sendMail was given.
type outgoing struct {
	posted, data []byte // as it came, and without Bcc
	authors      []string
	recipients   []string // each once
}

func invalidMIME(why string) *graphError {
	return errMail(http.StatusBadRequest, "ErrorMimeContentInvalid", "Invalid MIME content: "+why+".")
}

// parseOutgoing reads a message, more strictly than the real service.
func parseOutgoing(message []byte) (*outgoing, *graphError) {
	if badLines(message) != "" {
		return nil, invalidMIME("a line does not end in CRLF, or is too long")
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil || len(parsed.Header) == 0 {
		return nil, invalidMIME("it has no header in the form of RFC 5322")
	}
	if err := checkParts(textproto.MIMEHeader(parsed.Header), parsed.Body, 0); err != nil {
		return nil, invalidMIME(printable(err.Error()))
	}
	out := &outgoing{posted: message, data: withoutField(message, "Bcc")}
	if !unchanged(out.data) {
		return nil, invalidMIME("it is not in the form of RFC 5322")
	}
	for _, field := range []string{"From", "Sender", "Message-Id", "Date"} {
		if len(parsed.Header[field]) > 1 || field == "From" && len(parsed.Header[field]) == 0 {
			return nil, invalidMIME("it does not have one field " + field)
		}
	}
	for _, field := range []string{"From", "Sender"} {
		for _, value := range parsed.Header[field] {
			list, err := mail.ParseAddressList(value)
			if err != nil || len(list) == 0 {
				return nil, invalidMIME("the field " + field + " holds no addresses")
			}
			for _, a := range list {
				out.authors = append(out.authors, a.Address)
			}
		}
	}
	for _, field := range []string{"To", "Cc", "Bcc"} {
		for _, value := range parsed.Header[field] {
			list, err := mail.ParseAddressList(value)
			if err != nil {
				return nil, errRecipients
			}
			for _, a := range list {
				if !slices.ContainsFunc(out.recipients, func(r string) bool { return sameFold(r, a.Address) }) {
					out.recipients = append(out.recipients, a.Address)
				}
			}
		}
	}
	if len(out.recipients) == 0 {
		return nil, errRecipients
	}
	return out, nil
}

// maxParts is how deep the parts of a message may be in others.
const maxParts = 20

// checkParts reads the parts of a message (RFC 2046 section 5.1).
func checkParts(header textproto.MIMEHeader, body io.Reader, depth int) error {
	value := header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(value)
	if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "multipart/") {
		return nil
	}
	switch {
	case err != nil:
		return err
	case params["boundary"] == "":
		return errors.New(media + " without boundary")
	case depth >= maxParts:
		return errors.New("too many parts in parts")
	}
	parts := multipart.NewReader(body, params["boundary"])
	for n := 0; ; n++ {
		p, err := parts.NextRawPart()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil {
			return errors.New(media + " without its parts")
		}
		if err := checkParts(p.Header, p, depth+1); err != nil {
			return err
		}
	}
}

// withoutField takes a field out of a header, wherever and however often it is
// there. Everything else stays as it is.
func withoutField(message []byte, name string) []byte {
	out := make([]byte, 0, len(message))
	drop := false
	for rest := message; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\r\n"))
		whole := rest[:len(rest)-len(after)]
		rest = after
		if len(line) == 0 { // the end of the header
			return append(append(out, whole...), rest...)
		}
		if line[0] != ' ' && line[0] != '\t' {
			field, _, _ := bytes.Cut(line, []byte(":"))
			drop = strings.EqualFold(strings.TrimRight(string(field), " \t"), name)
		}
		if !drop {
			out = append(out, whole...)
		}
	}
	return out
}

// sendRate is what a mailbox has sent by sendMail of late, oldest first.
type sendRate struct {
	delivered []time.Time // when each message is delivered
	sent      []sendCount
}

type sendCount struct {
	at         time.Time
	recipients int
}

// post sends a message: it puts a copy in Sent Items after a while, and the
// message in the INBOX of those recipients that are here. What a mailbox sends
// faster than it may is delivered later.
func (x *exchange) post(box *mailbox, out *outgoing) *graphError {
	now := x.s.now()
	x.mu.Lock()
	rate := x.rates[box]
	if rate == nil {
		rate = new(sendRate)
		x.rates[box] = rate
	}
	rate.sent = slices.DeleteFunc(rate.sent, func(c sendCount) bool { return !c.at.After(now.Add(-24 * time.Hour)) })
	count := len(out.recipients)
	for _, c := range rate.sent {
		count += c.recipients
	}
	if count > maxRecipientsDaily {
		x.mu.Unlock()
		return errSendQuota
	}
	rate.sent = append(rate.sent, sendCount{now, len(out.recipients)})
	at := now
	if n := len(rate.delivered) - maxSendPerMinute; n >= 0 {
		if free := rate.delivered[n].Add(time.Minute); free.After(at) {
			at = free
		}
		rate.delivered = slices.Delete(rate.delivered, 0, n)
	}
	rate.delivered = append(rate.delivered, at)
	if !x.s.ForgetSent {
		x.sent = append(x.sent, Message{By: "graph", Mailbox: box.Address, From: out.authors[0], To: out.recipients,
			Data: out.data, Posted: out.posted, Received: now})
	}
	x.mu.Unlock()
	if x.s.ForgetSent {
		return nil
	}

	put := func(m *mailbox, folder string, flags ...imap.Flag) {
		if err := m.deliver(folder, out.data, at, flags...); err != nil {
			x.s.Log.Error("delivery", "error", err)
		}
	}
	x.s.after(func(f Faults) time.Time { return at.Add(f.SentItemsDelay) }, func() { put(box, "Sent Items", imap.FlagSeen) })
	x.s.after(func(Faults) time.Time { return at }, func() {
		for _, to := range out.recipients {
			if m := x.mailbox(to); m != nil {
				put(m, "INBOX")
			}
		}
	})
	return nil
}
