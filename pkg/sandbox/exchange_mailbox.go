package sandbox

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// mailbox is a Mailbox with its folders.
type mailbox struct {
	Mailbox
	sid  sid // the person's
	user *imapmemserver.User
}

// upn is the user principal name of the mailbox's person.
func (m *mailbox) upn() string { return cmp.Or(m.UPN, m.Address) }

// names are what the mailbox is known by, in lower case.
func (m *mailbox) names() map[string]bool {
	return map[string]bool{strings.ToLower(m.Address): true, strings.ToLower(m.upn()): true}
}

// imapCaps is what the library must be able to do: what imapPostAuth announces.
var imapCaps = imap.CapSet{
	imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {}, imap.CapMove: {},
	imap.CapChildren: {}, imap.CapLiteralPlus: {},
}

func newMailbox(m Mailbox, now time.Time) (*mailbox, error) {
	address, err := mail.ParseAddress(m.Address)
	if err != nil || address.Address != m.Address {
		return nil, fmt.Errorf("mailbox %q is not an address", m.Address)
	}
	for _, other := range m.SendAs {
		if a, err := mail.ParseAddress(other); err != nil || a.Address != other {
			return nil, fmt.Errorf("mailbox %s: SendAs %q is not an address", m.Address, other)
		}
	}
	if m.UPN != "" {
		if a, err := mail.ParseAddress(m.UPN); err != nil || a.Address != m.UPN {
			return nil, fmt.Errorf("mailbox %s: UPN %q is not in the form of an address", m.Address, m.UPN)
		}
	}
	box := &mailbox{Mailbox: m, sid: newSID(), user: imapmemserver.NewUser(m.Address, "")}
	for _, folder := range []string{"INBOX", "Archive", "Deleted Items", "Drafts", "Junk Email", "Sent Items"} {
		if err := box.user.Create(folder, nil); err != nil {
			return nil, err
		}
		if err := box.user.Subscribe(folder); err != nil {
			return nil, err
		}
	}
	for i, msg := range m.Messages {
		if err := box.deliver("INBOX", msg, now); err != nil {
			return nil, fmt.Errorf("message %d of %s: %w", i+1, m.Address, err)
		}
	}
	return box, nil
}

// deliver puts a message in a folder, dated as its header says, else now.
func (m *mailbox) deliver(folder string, message []byte, now time.Time, flags ...imap.Flag) error {
	if !unchanged(message) {
		return fmt.Errorf("the message is not in the form of RFC 5322 (a header, an empty line, lines that end in CRLF)")
	}
	date := now
	if parsed, err := mail.ReadMessage(bytes.NewReader(message)); err == nil {
		if d, err := parsed.Header.Date(); err == nil {
			date = d
		}
	}
	_, err := m.user.Append(folder, newLiteral(message), &imap.AppendOptions{Time: date, Flags: flags})
	return err
}

// withINBOX is withFolder for the INBOX.
func (x *exchange) withINBOX(box *mailbox, f func(*imapclient.Client, *imap.SelectData) error) error {
	return x.withFolder(box, "INBOX", f)
}

// withFolder lets f use a folder of a mailbox by a client of the IMAP library:
// its messages cannot be reached in another way.
func (x *exchange) withFolder(box *mailbox, folder string, f func(*imapclient.Client, *imap.SelectData) error) error {
	near, far := net.Pipe()
	lib := &pipeConn{Conn: far, mailbox: box, ended: make(chan struct{})}
	if !x.pipes.hand(lib) {
		near.Close()
		far.Close()
		return net.ErrClosed
	}
	client := imapclient.New(near, nil)
	defer func() {
		client.Close()
		<-lib.ended
	}()
	if err := client.WaitGreeting(); err != nil {
		return err
	}
	selected, err := client.Select(folder, nil).Wait()
	if err != nil {
		return err
	}
	return f(client, selected)
}

// unchanged says whether the library will give a message back byte for byte.
// It takes headers apart and does not keep what it cannot understand.
func unchanged(message []byte) bool {
	return bytes.Equal(message, imapserver.ExtractBodySection(bytes.NewReader(message), &imap.FetchItemBodySection{}))
}

type literalReader struct {
	io.Reader
	size int64
}

func newLiteral(b []byte) imap.LiteralReader {
	return &literalReader{bytes.NewReader(bytes.Clone(b)), int64(len(b))}
}

func (l *literalReader) Size() int64 { return l.size }

// imapLibrarySession is the library's in-memory session with what it lacks:
// EXAMINE that cannot change anything (RFC 9051 section 6.3.3), APPEND that
// refuses what it would damage, and IDLE that misses nothing.
type imapLibrarySession struct {
	*imapmemserver.UserSession
	readOnly bool
}

func newIMAPSession(conn *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	p, ok := conn.NetConn().(*pipeConn)
	if !ok {
		return nil, nil, fmt.Errorf("sandbox: an IMAP connection that was not handed over")
	}
	sess := &imapLibrarySession{UserSession: imapmemserver.NewUserSession(p.mailbox.user)}
	return sess, &imapserver.GreetingData{PreAuth: true}, nil
}

var errReadOnly = &imap.Error{Type: imap.StatusResponseTypeNo, Text: "The folder was opened by EXAMINE."}

// Login is never reached: the session is authenticated from the start.
func (s *imapLibrarySession) Login(string, string) error { return imapserver.ErrAuthFailed }

func (s *imapLibrarySession) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	data, err := s.UserSession.Select(name, options)
	s.readOnly = err == nil && options.ReadOnly
	return data, err
}

func (s *imapLibrarySession) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	message, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if !unchanged(message) {
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "APPEND failed: the message is not in the form of RFC 5322."}
	}
	return s.UserSession.Append(name, newLiteral(message), options)
}

func (s *imapLibrarySession) Fetch(w *imapserver.FetchWriter, nums imap.NumSet, options *imap.FetchOptions) error {
	if s.readOnly {
		for _, section := range options.BodySection {
			section.Peek = true
		}
	}
	return s.UserSession.Fetch(w, nums, options)
}

func (s *imapLibrarySession) Store(w *imapserver.FetchWriter, nums imap.NumSet, flags *imap.StoreFlags, options *imap.StoreOptions) error {
	if s.readOnly {
		return errReadOnly
	}
	return s.UserSession.Store(w, nums, flags, options)
}

// Expunge does nothing after EXAMINE, since CLOSE must not fail there.
func (s *imapLibrarySession) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	if s.readOnly {
		return nil
	}
	return s.UserSession.Expunge(w, uids)
}

func (s *imapLibrarySession) Move(w *imapserver.MoveWriter, nums imap.NumSet, dest string) error {
	if s.readOnly {
		return errReadOnly
	}
	return s.UserSession.Move(w, nums, dest)
}

// Idle looks for news itself: the library's own tells of what comes after it
// has begun, which is a little after it told the client so.
func (s *imapLibrarySession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	for {
		if err := s.Poll(w, true); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
	}
}

const idlePoll = 50 * time.Millisecond

// Delete keeps INBOX (RFC 9051 section 6.3.5).
func (s *imapLibrarySession) Delete(name string) error {
	if strings.EqualFold(name, "INBOX") {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Text: "DELETE failed: INBOX stays."}
	}
	return s.UserSession.Delete(name)
}
