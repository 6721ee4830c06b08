package graph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// MaxMIME is the largest message, in bytes, that SendMIME takes. Graph takes
// requests of 4 MB, whatever kind of MB that is, with their headers; 16 kB are
// left for those, and base64 makes four bytes of three.
//
// There is no other way for a larger one: an upload session carries single
// attachments of a message that is otherwise JSON, and a draft that is made from
// MIME has the same limit. Taking a message apart and having Exchange put it
// together again would not give the same one: signatures would break.
// https://learn.microsoft.com/graph/outlook-send-mime-message
// https://learn.microsoft.com/graph/outlook-large-attachments
const MaxMIME = (4_000_000 - 16_000) / 4 * 3

// uploadRate is how many bytes a second a slow line is expected to carry, for the
// time that SendMIME gives a request beyond Client.Timeout.
const uploadRate = 64 << 10

// SendMIME has Exchange send a message from a mailbox, and keep a copy in its
// Sent Items. Graph has no envelope: recipients are those in To, Cc and Bcc, and
// Bcc is taken out of what they get. It needs Mail.Send. nil means that Graph has
// accepted it (202), not that it was delivered.
//
// The request is sent once, and neither waits for others nor makes them wait:
// throttling of mail is by mailbox. message must have lines that end in CRLF, and
// must not be changed any more, not even after the return: an early answer may
// leave the connection still reading it.
//
// Errors: an *Error. Where its Ambiguous method says true, the message may have
// been sent; SentMessage tells, once the copy has appeared. Otherwise nothing was
// sent: Status 413 for one of more than MaxMIME bytes, which is refused without a
// request, 429 with RetryAfter when Graph asks to wait, 403 when it may not be
// sent (HasCode tells why), 404 when there is no such mailbox. Errors of Token
// are wrapped, and nothing was sent then.
// https://learn.microsoft.com/graph/api/user-sendmail
func (c *Client) SendMIME(ctx context.Context, mailbox string, message []byte) error {
	if !isAddress(mailbox) {
		return fmt.Errorf("%q is not an address", mailbox)
	}
	r := request{method: http.MethodPost, url: c.base() + "/users/" + url.PathEscape(mailbox) + "/sendMail", mime: message}
	switch n := len(message); {
	case n == 0:
		return errors.New("an empty message")
	case n > MaxMIME:
		return &Error{Method: r.method, URL: r.url, Status: http.StatusRequestEntityTooLarge,
			Err: fmt.Errorf("not sent: the message has %d bytes, and Microsoft Graph takes %d", n, MaxMIME)}
	}
	resp, err := c.sendOnce(ctx, r)
	if err != nil {
		return err
	}
	if resp.status != http.StatusAccepted {
		e := r.malformed(resp, errors.New("not 202, with which a message is accepted"))
		e.Status = resp.status
		return e
	}
	return nil
}

// SentMessage says whether a message is in the Sent Items of a mailbox, by its
// Message-ID as the header has it, in angle brackets. It needs Mail.ReadBasic or
// Mail.Read. The copy appears some time after SendMIME, so false is not sure
// before that has passed; nor is it when somebody has moved or deleted it. True is
// not either where the mail program puts a copy of its own there before it sends.
//
// Unlike SendMIME it repeats the request as the other reads do; ctx bounds that.
//
// Errors: an *Error; IsForbidden: the token may not read this mailbox.
// https://learn.microsoft.com/graph/api/mailfolder-list-messages
func (c *Client) SentMessage(ctx context.Context, mailbox, messageID string) (bool, error) {
	if !isAddress(mailbox) {
		return false, fmt.Errorf("%q is not an address", mailbox)
	}
	if len(messageID) < 3 || messageID[0] != '<' || messageID[len(messageID)-1] != '>' || strings.ContainsFunc(messageID, unicode.IsControl) {
		return false, fmt.Errorf("%q is not a Message-ID", messageID)
	}
	r := request{method: http.MethodGet, url: c.base() + "/users/" + url.PathEscape(mailbox) + "/mailFolders/sentitems/messages?" +
		filter("internetMessageId eq "+quoted(messageID)) + "&$select=id&$top=1"}
	resp, err := c.send(ctx, c.budget(), r)
	if err != nil {
		return false, err
	}
	items, next, err := decodePage(resp.body)
	if err == nil && len(items) == 0 && next != "" {
		err = errors.New("an empty page with more behind it")
	}
	for _, item := range items {
		var w struct {
			ID string `json:"id"`
		}
		if err = json.Unmarshal(item, &w); err == nil && w.ID == "" {
			err = errors.New("a message without id")
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		return false, r.malformed(resp, err)
	}
	return len(items) > 0, nil
}

// mimeTimeout is how long a request with that message may take beyond
// Client.Timeout.
func mimeTimeout(message []byte) time.Duration {
	return time.Duration(len(message)/3*4/uploadRate) * time.Second
}

// base64Reader gives rest in base64 (RFC 4648 section 4) without making a copy
// of all of it.
type base64Reader struct {
	rest  []byte
	ready []byte // in buf
	buf   [4096]byte
}

func (r *base64Reader) Read(p []byte) (int, error) {
	if len(r.ready) == 0 {
		if len(r.rest) == 0 {
			return 0, io.EOF
		}
		n := min(len(r.rest), base64.StdEncoding.DecodedLen(len(r.buf)))
		r.ready = base64.StdEncoding.AppendEncode(r.buf[:0], r.rest[:n])
		r.rest = r.rest[n:]
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}
