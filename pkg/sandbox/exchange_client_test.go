package sandbox

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// oauthClient is a client of go-sasl's, written here since it has none.
type oauthClient struct{ user, token string }

func (c *oauthClient) Start() (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + c.user + "\x01auth=Bearer " + c.token + "\x01\x01"), nil
}
func (c *oauthClient) Next([]byte) ([]byte, error) { return []byte{}, nil }

var _ sasl.Client = (*oauthClient)(nil)

func imapSignIn(t *testing.T, s *Server, user, token string, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	if options == nil {
		options = &imapclient.Options{}
	}
	options.TLSConfig = s.clientTLS(t)
	c, err := imapclient.DialTLS(s.IMAP(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Authenticate(&oauthClient{user, token}); err != nil {
		t.Fatal(err)
	}
	return c
}

// fetchAll gives the messages of the selected folder by UID.
func fetchAll(t *testing.T, c *imapclient.Client) map[imap.UID][]byte {
	t.Helper()
	section := &imap.FetchItemBodySection{Peek: true}
	list, err := c.Fetch(imap.UIDSet{imap.UIDRange{Start: 1}}, &imap.FetchOptions{
		UID: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[imap.UID][]byte)
	for _, m := range list {
		all[m.UID] = m.FindBodySection(section)
		if int64(len(all[m.UID])) != m.RFC822Size {
			t.Errorf("message %d: %d bytes, RFC822.SIZE %d", m.UID, len(all[m.UID]), m.RFC822Size)
		}
	}
	return all
}

// A mail client's day, by a client that somebody else wrote.
func TestIMAPClient(t *testing.T) {
	large := []byte("From: a@b.example\r\nSubject: large\r\n\r\n")
	for line := range 150000 {
		large = fmt.Appendf(large, "%08d %064x\r\n", line, rand.Uint64())
	}
	eight := []byte("From: Zoë <zoe@b.example>\r\nX-Folded: a\r\n\tb\r\n\r\nGr\xfc\xdfe \xff\xfe\r\n\x80\r\nno line end")
	boxes := DefaultMailboxes()
	boxes[0].Messages = append(boxes[0].Messages, large, eight, []byte("Subject: empty\r\n\r\n"))
	s := start(t, &Server{Mailboxes: boxes})
	token := mailToken(t, s)
	c := imapSignIn(t, s, "alice@contoso.com", token, nil)

	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil || selected.NumMessages != 7 {
		t.Fatalf("%+v, %v", selected, err)
	}
	got := fetchAll(t, c)
	for i, want := range boxes[0].Messages {
		if !bytes.Equal(got[imap.UID(i+1)], want) {
			t.Errorf("message %d is not what was put in", i+1)
		}
	}

	// Copied, changed, moved, appended, searched, expunged.
	if _, err := c.Copy(imap.SeqSetNum(6), "Archive").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.SeqSetNum(7), "Deleted Items").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "minutes"}}}, nil).Wait()
	if err != nil || len(found.AllUIDs()) != 1 || found.AllUIDs()[0] != 3 {
		t.Errorf("search: %v, %v", found, err)
	}
	for folder, want := range map[string][]byte{"Archive": eight, "Sent Items": large} {
		if folder == "Sent Items" {
			w := c.Append(folder, int64(len(large)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
			if _, err := w.Write(large); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if data, err := w.Wait(); err != nil || data.UID != 1 {
				t.Fatalf("append: %+v, %v", data, err)
			}
		}
		if _, err := c.Select(folder, nil).Wait(); err != nil {
			t.Fatal(err)
		}
		if all := fetchAll(t, c); len(all) != 1 || !bytes.Equal(all[1], want) {
			t.Errorf("%s: %d messages, or others than were put in", folder, len(all))
		}
	}
	folders, err := c.List("", "*", nil).Collect()
	if err != nil || len(folders) != 6 {
		t.Errorf("folders: %v, %v", folders, err)
	}

	// What one session changed, another sees; EXAMINE leaves \Seen alone.
	other := imapSignIn(t, s, "alice@contoso.com", token, nil)
	if data, err := other.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil || data.NumMessages != 5 {
		t.Errorf("other session: %+v, %v", data, err)
	}
	if err := other.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Close(); err != nil {
		t.Fatal(err)
	}
	list, err := other.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{Flags: true}).Collect()
	if err != nil || len(list) != 1 || len(list[0].Flags) != 0 {
		t.Errorf("flags after EXAMINE: %+v, %v", list, err)
	}
	if bob := imapSignIn(t, s, "bob@contoso.com", token, nil); len(s.Sessions()) != 3 {
		t.Errorf("%d sessions", len(s.Sessions()))
	} else if data, err := bob.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 4 {
		t.Errorf("bob: %+v, %v", data, err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Error(err)
	}
}

func TestIMAPIdle(t *testing.T) {
	s := start(t, &Server{})
	news := make(chan uint32, 1)
	c := imapSignIn(t, s, "alice@contoso.com", mailToken(t, s), &imapclient.Options{
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				news <- *data.NumMessages
			}
		}},
	})
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver("alice@contoso.com", []byte("Subject: new\r\n\r\nmail\r\n")); err != nil {
		t.Fatal(err)
	}
	if n := <-news; n != 5 {
		t.Errorf("%d messages", n)
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Fatal(err)
	}
}
