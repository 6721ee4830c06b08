//go:build integration

package integration

import (
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// TestReadOnly has independent clients try to change a real mailbox with a
// read-only app password: they read all of it, and change nothing, the flags
// included.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: smallMessages()})
	password := strings.TrimSpace(l.o365pw("create", "reader", "--read-only", "--allow", "imap,pop3"))
	l.secrets = append(l.secrets, password)
	l.serve()
	before := l.dovecot.tree()
	if len(before) < len(smallMessages()) {
		t.Fatalf("the mailbox holds %d files", len(before))
	}

	c, err := imapclient.DialTLS(l.gateway["imap"], &imapclient.Options{TLSConfig: l.trust()})
	must(t, err)
	defer c.Close()
	must(t, c.Login(mailbox, password).Wait())
	_, err = c.Select("INBOX", nil).Wait()
	must(t, err)
	one := imap.SeqSetNum(1)
	uid := imap.UIDSetNum(1)
	deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
	// BODY[], not BODY.PEEK[]: in a folder that can be written to it would mark
	// the message as read.
	list, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{Flags: true, BodySection: []*imap.FetchItemBodySection{{}}}).Collect()
	must(t, err)
	if len(list) != len(smallMessages()) {
		t.Errorf("%d messages, want %d", len(list), len(smallMessages()))
	}
	append := func() error {
		text := []byte("Subject: x\r\n\r\nx\r\n")
		cmd := c.Append("INBOX", int64(len(text)), nil)
		if _, err := cmd.Write(text); err != nil {
			return err
		}
		if err := cmd.Close(); err != nil {
			return err
		}
		_, err := cmd.Wait()
		return err
	}
	for name, try := range map[string]func() error{
		"STORE":       func() error { return c.Store(one, deleted, nil).Close() },
		"UID STORE":   func() error { return c.Store(uid, deleted, nil).Close() },
		"COPY":        func() error { _, err := c.Copy(one, "INBOX").Wait(); return err },
		"UID COPY":    func() error { _, err := c.Copy(uid, "INBOX").Wait(); return err },
		"MOVE":        func() error { _, err := c.Move(one, "Trash").Wait(); return err },
		"UID MOVE":    func() error { _, err := c.Move(uid, "Trash").Wait(); return err },
		"EXPUNGE":     func() error { return c.Expunge().Close() },
		"UID EXPUNGE": func() error { return c.UIDExpunge(uid).Close() },
		"APPEND":      append,
		"CREATE":      func() error { return c.Create("new", nil).Wait() },
		"DELETE":      func() error { return c.Delete("INBOX").Wait() },
		"RENAME":      func() error { return c.Rename("INBOX", "old", nil).Wait() },
		"SUBSCRIBE":   func() error { return c.Subscribe("INBOX").Wait() },
		"UNSUBSCRIBE": func() error { return c.Unsubscribe("INBOX").Wait() },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Noop().Wait(); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
	must(t, c.Logout().Wait())

	r := l.try("", "mbsync", "--config", l.mbsync("tls", password, filepath.Join(t.TempDir(), "Maildir")), "--all", "--pull")
	if r.code != 0 {
		t.Errorf("mbsync: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if after := l.dovecot.tree(); !maps.Equal(before, after) {
		t.Errorf("the mailbox has changed:\n%v, before\n%v", after, before)
	}

	// Over POP3, servers mark what was fetched as read: it has no other way.
	s := l.pop3(password, "+OK")
	s.send("DELE 1")
	s.expect("-ERR [SYS/PERM] this app password is read-only")
	s.send("RETR 1")
	s.expect("+OK")
	s.expect(".")
	s.send("QUIT")
	s.expect("+OK")
	if got := len(mail(t, filepath.Join(l.dovecot.dir, "mail"))); got != len(smallMessages()) {
		t.Errorf("%d messages are left, of %d", got, len(smallMessages()))
	}
}

// tree are the messages of the mailbox with their flags, and its folders, but
// for what Dovecot keeps for itself.
func (d *dovecot) tree() map[string]bool {
	d.t.Helper()
	found := map[string]bool{}
	root := filepath.Join(d.dir, "mail")
	must(d.t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		if err == nil && !strings.HasPrefix(e.Name(), "dovecot") && !strings.HasPrefix(e.Name(), "maildir") {
			found[name] = true
		}
		return err
	}))
	return found
}
