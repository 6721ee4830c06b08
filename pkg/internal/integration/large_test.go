//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-smtp"
)

// TestAppend puts a message of 50 MB into the mailbox, which Exchange takes
// over IMAP, and looks for it on Dovecot's disk.
func TestAppend(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	password := l.create("append")
	l.serve()
	line := bytes.Repeat([]byte("50 MB of mail. "), 5)
	text := append([]byte(header("append")+"\n"), bytes.Repeat(append(line, '\n'), 50<<20/len(line))...)
	data := crlf(append(text, "Grüße\n.\nthe end"...))

	c, err := imapclient.DialTLS(l.gateway["imap"], &imapclient.Options{TLSConfig: l.trust()})
	must(t, err)
	defer c.Close()
	must(t, c.Login(mailbox, password).Wait())
	command := c.Append("INBOX", int64(len(data)), nil)
	_, err = command.Write(data)
	must(t, err)
	must(t, command.Close())
	_, err = command.Wait()
	must(t, err)
	must(t, c.Logout().Wait())

	found := mail(t, filepath.Join(l.dovecot.dir, "mail"))
	if len(found) != 1 {
		t.Errorf("%d messages in the Maildir, want 1", len(found))
	}
	for _, got := range found {
		checkSame(t, "append", crlf([]byte(got)), data)
	}
}

// TestChunking sends by BDAT (RFC 3030): its bytes are a message, whatever they
// look like, and the next command may come right after them.
func TestChunking(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	password := l.create("chunking")
	l.serve()
	s := l.smtp(password, "235 ")
	first := header("chunking", "Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit") + "\n.\nQUIT\nRSET\nGr\xfc\xdfe\n"
	chunks := [][]byte{crlf([]byte(first)), bytes.Repeat([]byte("0123456789abcde\r\n"), 600_000), []byte(".\r\nBDAT 3\r\n")}
	var batch bytes.Buffer
	fmt.Fprintf(&batch, "MAIL FROM:<%s> BODY=8BITMIME\r\nRCPT TO:<chunks@example.org>\r\n", mailbox)
	for i, chunk := range chunks {
		fmt.Fprintf(&batch, "BDAT %d%s\r\n", len(chunk), map[bool]string{true: " LAST"}[i == len(chunks)-1])
		batch.Write(chunk)
	}
	batch.WriteString("NOOP\r\nQUIT\r\n")
	go s.conn.Write(batch.Bytes()) // at once; the replies are read meanwhile
	for range 2 + len(chunks) + 1 {
		s.expect("250 ")
	}
	s.expect("221 ")

	got := l.dovecot.sink.to("chunks@example.org")
	if len(got) != 1 {
		t.Fatalf("%d messages have arrived, want 1", len(got))
	}
	if got[0].from != mailbox || got[0].body != smtp.Body8BitMIME {
		t.Errorf("it came from %q with BODY=%s", got[0].from, got[0].body)
	}
	checkSame(t, "chunking", withoutReceived(t, got[0].data), bytes.Join(chunks, nil))
}
