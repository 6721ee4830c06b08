package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// popMessage is a message of the maildrop.
type popMessage struct {
	uid     imap.UID
	size    int64
	deleted bool
}

// retrieve answers RETR, and TOP where lines is not negative.
func (c *popConn) retrieve(number string, lines int) error {
	m, answer := c.message(number)
	if m == nil {
		return c.say(answer)
	}
	text, err := c.fetch(m.uid)
	if err != nil {
		return c.say(popUnavailable)
	}
	if lines >= 0 {
		text = top(text, lines)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bw.WriteString(answer + "\r\n")
	writeStuffed(c.bw, text)
	return c.bw.Flush()
}

// top is a message's header, the empty line, and so many lines of its body.
func top(message []byte, lines int) []byte {
	end := 0
	if !bytes.HasPrefix(message, []byte("\r\n")) {
		if end = bytes.Index(message, []byte("\r\n\r\n")); end < 0 {
			return message
		}
		end += len("\r\n")
	}
	end += len("\r\n")
	for ; lines > 0; lines-- {
		n := bytes.Index(message[end:], []byte("\r\n"))
		if n < 0 {
			return message
		}
		end += n + len("\r\n")
	}
	return message[:end]
}

// writeStuffed writes a message as RFC 1939 section 3 has it: a dot before
// every line that begins with one, and a line of a dot at the end, for which a
// message that does not end in CRLF gets one.
func writeStuffed(w *bufio.Writer, message []byte) {
	for line := range bytes.SplitAfterSeq(message, []byte("\r\n")) {
		if bytes.HasPrefix(line, []byte(".")) {
			w.WriteString(".")
		}
		w.Write(line)
	}
	if len(message) > 0 && !bytes.HasSuffix(message, []byte("\r\n")) {
		w.WriteString("\r\n")
	}
	w.WriteString(".\r\n")
}

// open looks into the mailbox.
func (c *popConn) open(sess *mailSession) error {
	return c.x.withINBOX(sess.mailbox, func(client *imapclient.Client, inbox *imap.SelectData) error {
		c.validity, c.messages = inbox.UIDValidity, nil
		if inbox.NumMessages == 0 {
			return nil
		}
		list, err := client.Fetch(imap.UIDSet{{Start: 1}}, &imap.FetchOptions{UID: true, RFC822Size: true}).Collect()
		for _, m := range list {
			c.messages = append(c.messages, popMessage{uid: m.UID, size: m.RFC822Size})
		}
		return err
	})
}

// fetch gets a message. It stays unread: POP3 knows no flags.
func (c *popConn) fetch(uid imap.UID) (text []byte, err error) {
	section := &imap.FetchItemBodySection{Peek: true}
	err = c.x.withINBOX(c.sess.mailbox, func(client *imapclient.Client, inbox *imap.SelectData) error {
		list, err := client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		if err == nil && (len(list) != 1 || inbox.UIDValidity != c.validity) {
			err = fmt.Errorf("message %d is gone", uid)
		}
		if err == nil {
			text = list[0].FindBodySection(section)
		}
		return err
	})
	return text, err
}

// update is the UPDATE state: what was deleted goes now. It gives the answer
// to QUIT.
func (c *popConn) update() string {
	var gone imap.UIDSet
	for _, m := range c.messages {
		if m.deleted {
			gone.AddNum(m.uid)
		}
	}
	if len(gone) == 0 {
		return popGoodbye
	}
	err := c.x.withINBOX(c.sess.mailbox, func(client *imapclient.Client, inbox *imap.SelectData) error {
		if inbox.UIDValidity != c.validity {
			return errors.New("INBOX is another")
		}
		deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := client.Store(gone, deleted, nil).Close(); err != nil {
			return err
		}
		return client.UIDExpunge(gone).Close()
	})
	if err != nil {
		c.x.s.Log.Error("maildrop", "error", err)
		return popNotDeleted
	}
	return popGoodbye
}
