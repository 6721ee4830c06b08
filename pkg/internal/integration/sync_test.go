//go:build integration

package integration

import "testing"

// TestMailbox shows that the mailbox comes through unchanged: what was
// delivered, what Dovecot gives by itself, and what the gateway passes on.
func TestMailbox(t *testing.T) {
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
