package sandbox

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Limits of mail by Graph. A request has 4 MB in all, of the smaller kind: who
// counts on 4 MiB is told so here.
const (
	maxMailRequest     = 4_000_000
	maxSending         = 4      // sendMail at a time, of an application in a mailbox
	maxSendPerMinute   = 30     // messages of a mailbox; those beyond are delivered later
	maxRecipientsDaily = 10_000 // of a mailbox
)

func errMail(status int, code, message string) *graphError {
	return &graphError{status: status, code: code, message: message}
}

var (
	errMailDenied   = errMail(http.StatusForbidden, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
	errMailPolicy   = errMail(http.StatusForbidden, "ErrorAccessDenied", "Access to OData is disabled: Blocked by tenant configured AppOnly AccessPolicy settings.")
	errSendAs       = errMail(http.StatusForbidden, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account.")
	errMailTooLarge = errMail(http.StatusRequestEntityTooLarge, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
	errMailBase64   = errMail(http.StatusBadRequest, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
	errRecipients   = errMail(http.StatusBadRequest, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
	errConcurrency  = errMail(http.StatusTooManyRequests, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
	errSendQuota    = errMail(http.StatusTooManyRequests, "ErrorSubmissionQuotaExceeded", "The sender's submission quota was exceeded.")
	errMailFilter   = errMail(http.StatusBadRequest, "ErrorInvalidUrlQueryFilter", "The query filter contains one or more invalid nodes.")
)

// carryOutMail carries a request about mail out, or loses it where a fault says
// so.
func (c *call) carryOutMail(op operation, args []string) (*answer, *graphError) {
	locked := func(f func()) {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		f()
	}
	var lose func(*graphError)
	locked(func() { lose = c.spoilLocked() })
	a, refusal := op.mail(c, args)
	locked(func() { lose(refusal) })
	return a, refusal
}

// mailSession is what the token may do in the mailbox of a person, by object id
// or user principal name, with a permission of Graph or one of the others. There
// is no session: nobody is signed in.
func (c *call) mailSession(key string, permissions ...string) (*mailSession, *graphError) {
	x, t := c.s.exchange, c.token
	c.s.mu.Lock()
	p := c.s.dir.member(key)
	c.s.mu.Unlock()
	if own := t.person; p == nil && own != nil && own.personal && (sameFold(own.objectID, key) || sameFold(own.upn, key)) {
		p = own
	}
	if p == nil {
		return nil, errMail(http.StatusNotFound, "ErrorInvalidUser", "The requested user '"+printable(key)+"' is invalid.")
	}
	box := x.byUser(p.upn)
	if box == nil {
		return nil, errMail(http.StatusNotFound, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
	}
	sess := &mailSession{mailbox: box}
	config := x.config()
	var scopes, roles []string
	assigned := false
	if t.person != nil {
		own := x.byUser(t.person.upn)
		if own == nil {
			return nil, errMailDenied
		}
		sess.as, sess.delegate = own.sid, own != box
		for _, p := range permissions {
			if !sess.delegate {
				scopes = append(scopes, p)
			}
			if !sess.delegate || slices.Contains(config.mailboxes[box].fullAccess, own.sid) {
				scopes = append(scopes, p+".Shared")
			}
		}
	} else {
		reg := config.principal(t.app.clientID, t.principalID)
		if reg != nil {
			sess.as = reg.sid
		}
		for _, p := range permissions {
			roles = append(roles, p, p+".All")
			assigned = assigned || reg != nil && config.assigned(rolePrefix+p, reg.sid, box)
		}
	}
	switch {
	case !assigned && !c.may(scopes, roles):
		return nil, errMailDenied
	case c.s.CurrentFaults().SendForbidden:
		return nil, errMailPolicy
	}
	return sess, nil
}

// sendMail takes a message in MIME; the real one takes JSON as well.
// https://learn.microsoft.com/graph/api/user-sendmail
func (c *call) sendMail(args []string) (*answer, *graphError) {
	message, refusal := readMIME(c.r)
	if refusal != nil {
		return nil, refusal
	}
	sess, refusal := c.mailSession(args[0], "Mail.Send")
	if refusal != nil {
		return nil, refusal
	}
	leave, refusal := c.enter(sess.mailbox)
	if refusal != nil {
		return nil, refusal
	}
	defer leave()

	s := c.s
	if s.take(func(f *Faults) *int { return &f.SendStallNext }) {
		select {
		case <-c.r.Context().Done():
		case <-s.closing:
		}
		cut()
	}
	if s.take(func(f *Faults) *int { return &f.SendDropNext }) {
		cut()
	}
	failing, faults := s.take(func(f *Faults) *int { return &f.SendErrorNext }), s.CurrentFaults()
	if failing && !faults.SendErrorDone {
		return nil, c.sendError(faults)
	}
	out, refusal := parseOutgoing(message)
	if refusal != nil {
		return nil, refusal
	}
	for _, a := range out.authors {
		switch own := slices.ContainsFunc(append([]string{sess.mailbox.Address}, sess.mailbox.SendAs...), func(o string) bool { return sameFold(o, a) }); {
		case !s.exchange.maySendAs(sess, a):
			return nil, errSendAs
		case !own && c.token.person != nil && !slices.Contains(c.token.scopes, "Mail.Send.Shared"):
			return nil, errMailDenied
		}
	}
	if refusal := s.exchange.post(sess.mailbox, out); refusal != nil {
		return nil, refusal
	}
	if failing {
		return nil, c.sendError(faults)
	}
	if s.take(func(f *Faults) *int { return &f.SendLoseNext }) {
		cut()
	}
	begin := s.now()
	s.await(func(f Faults) time.Time { return begin.Add(f.SendLate) }, c.r.Context().Done())
	return &answer{status: http.StatusAccepted}, nil
}

func (c *call) sendError(f Faults) *graphError {
	c.s.retryAfter(c.w, f)
	switch f.SendErrorStatus {
	case http.StatusTooManyRequests:
		return errConcurrency
	case 0, http.StatusServiceUnavailable:
		return errMail(http.StatusServiceUnavailable, "ErrorServerBusy", "The server cannot service this request right now. Try again later.")
	}
	return errMail(f.SendErrorStatus, "ErrorInternalServerError", "An internal server error occurred. The operation failed.")
}

// enter counts a sendMail of the token's application in a mailbox; leave ends it.
func (c *call) enter(box *mailbox) (leave func(), refusal *graphError) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	key, sending := c.token.app.clientID+" "+box.Address, c.s.graph.sending
	if sending[key] >= maxSending {
		c.s.retryAfter(c.w, c.s.Faults)
		return nil, errConcurrency
	}
	sending[key]++
	return func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if sending[key]--; sending[key] == 0 {
			delete(sending, key)
		}
	}, nil
}

// readMIME reads a message from a request: text/plain, in base64 whose lines may
// be broken.
func readMIME(r *http.Request) ([]byte, *graphError) {
	left := int64(maxMailRequest)
	for name, values := range r.Header {
		for _, v := range values {
			left -= int64(len(name) + len(": \r\n") + len(v))
		}
	}
	left -= int64(len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\nHost: \r\n\r\n") + len(r.Host))
	text, err := io.ReadAll(io.LimitReader(r.Body, left+1))
	switch {
	case err != nil:
		return nil, badRequest("The request body was cut off.")
	case int64(len(text)) > left:
		return nil, errMailTooLarge
	}
	if media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "text/plain" || len(params) > 0 {
		return nil, badRequest("The Content-Type of the request is not text/plain: the sandbox sends MIME alone.")
	}
	message, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(message) == 0 {
		return nil, errMailBase64
	}
	return message, nil
}

// sentFilter is the only filter on messages that there is here.
var sentFilter = regexp.MustCompile(`^internetMessageId eq '((?:[^']|'')*)'$`)

// findSent looks for a message in Sent Items by its Message-ID.
// https://learn.microsoft.com/graph/api/mailfolder-list-messages
func (c *call) findSent(args []string) (*answer, *graphError) {
	if _, refusal := readBody(c.r); refusal != nil {
		return nil, refusal
	}
	sess, refusal := c.mailSession(args[0], "Mail.ReadBasic", "Mail.Read")
	if refusal != nil {
		return nil, refusal
	}
	filter, _ := c.query.filter()
	m := sentFilter.FindStringSubmatch(filter)
	switch {
	case c.s.CurrentFaults().SentItemsDown:
		c.s.retryAfter(c.w, c.s.CurrentFaults())
		return nil, errMail(http.StatusServiceUnavailable, "ErrorServerBusy", "The server cannot service this request right now. Try again later.")
	case m == nil:
		return nil, errMailFilter
	case !slices.Equal(c.query.selected, []string{"id"}) || c.query.top != 1:
		return nil, badRequest("The sandbox has this list with $select=id and $top=1 alone.")
	}
	item, err := c.s.exchange.sentItem(sess.mailbox, strings.ReplaceAll(m[1], "''", "'"))
	if err != nil {
		c.s.Log.Error("Sent Items", "error", err)
		return nil, errMail(http.StatusInternalServerError, "ErrorInternalServerError", "An internal server error occurred. The operation failed.")
	}
	value := []any{}
	if item != "" {
		value = []any{map[string]any{"@odata.etag": `W/"CQAAABYAAAA="`, "id": item}}
	}
	return found("users('"+printable(args[0])+"')/mailFolders('sentitems')/messages(id)", map[string]any{"value": value}), nil
}

// sentItem gives the id of the message in Sent Items that has a Message-ID, or
// "". It says nothing to anybody else.
func (x *exchange) sentItem(box *mailbox, messageID string) (id string, err error) {
	section := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Peek: true}
	err = x.withFolder(box, "Sent Items", func(client *imapclient.Client, folder *imap.SelectData) error {
		if folder.NumMessages == 0 {
			return nil
		}
		list, err := client.Fetch(imap.UIDSet{{Start: 1}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		for _, m := range list {
			header, err := mail.ReadMessage(bytes.NewReader(m.FindBodySection(section)))
			if err == nil && header.Header.Get("Message-Id") == messageID {
				id = "AAMk" + base64.URLEncoding.EncodeToString(fmt.Appendf(nil, "%s %d %d", box.sid, folder.UIDValidity, m.UID))
			}
		}
		return err
	})
	return id, err
}
