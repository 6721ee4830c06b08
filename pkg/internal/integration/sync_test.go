//go:build integration

package integration

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMailbox shows that the mailbox comes through unchanged: what was
// delivered, what Dovecot gives by itself, and what the gateway passes on.
func TestMailbox(t *testing.T) {
	t.Parallel()
	want := messages()
	l := newLab(t, options{messages: want})
	password := l.create("go-imap")
	l.serve()
	checkMessages(t, "Dovecot", read(t, l.direct()), want)

	for name, dial := range l.ways() {
		c, err := dial()
		must(t, err)
		must(t, c.Login(mailbox, password).Wait())
		checkMessages(t, name, read(t, c), want)
	}
}

// TestSync keeps a Maildir and the mailbox the same in both directions by
// mbsync. TestClients has compared what it pulls; here a second run has
// nothing to do, and what is put into the Maildir arrives by APPEND.
func TestSync(t *testing.T) {
	t.Parallel()
	want := messages()
	l := newLab(t, options{messages: want, startTLS: true})
	maildir := filepath.Join(l.dir, "Maildir")
	password := l.create("mbsync")
	l.serve()
	config := l.mbsync("tls", password, maildir)
	sync := func() {
		t.Helper()
		if r := l.try("", "mbsync", "--config", config, "--all"); r.code != 0 {
			t.Fatalf("mbsync: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}

	sync()
	near, far := mail(t, maildir), mail(t, l.dovecot.dir+"/mail")
	if len(near) != len(want) || len(far) != len(want) {
		t.Fatalf("%d messages in the Maildir and %d at Dovecot, want %d", len(near), len(far), len(want))
	}
	sync()
	if now := mail(t, maildir); !maps.Equal(now, near) {
		t.Errorf("the second run has changed the Maildir: %d messages, it had %d", len(now), len(near))
	}
	if now := mail(t, l.dovecot.dir+"/mail"); !maps.Equal(now, far) {
		t.Errorf("the second run has changed the mailbox: %d messages, it had %d", len(now), len(far))
	}

	// All of it again, now as new mail of the Maildir's.
	pushed := map[string][]byte{}
	for i, m := range want {
		subject := "pushed " + m.subject
		data := strings.Replace(string(m.data), "Subject: "+m.subject, "Subject: "+subject, 1)
		pushed[subject] = []byte(data)
		name := filepath.Join(maildir, "INBOX", "new", "1800000000.M"+string(rune('a'+i))+".here")
		must(t, os.WriteFile(name, lf([]byte(data)), 0o600))
	}
	sync()
	all := read(t, l.direct())
	if len(all) != 2*len(want) {
		t.Errorf("%d messages in the mailbox after the push, want %d", len(all), 2*len(want))
	}
	checkMessages(t, "not pushed", without(all, pushed), want)
	for subject, data := range pushed {
		checkSame(t, subject, withoutTUID(t, all[subject]), data)
	}
}

// mail reads a Maildir: contents by file.
func mail(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		sub := filepath.Base(filepath.Dir(path))
		if err != nil || e.IsDir() || sub != "cur" && sub != "new" {
			return err
		}
		data, err := os.ReadFile(path)
		found[path] = string(data)
		return err
	}))
	return found
}

func without(all, some map[string][]byte) map[string][]byte {
	rest := maps.Clone(all)
	maps.DeleteFunc(rest, func(k string, _ []byte) bool { _, ok := some[k]; return ok })
	return rest
}
