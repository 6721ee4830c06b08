package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// demoMail is the demo's mail program: an independent IMAP client over a
// connection that shows what the server really said.
type demoMail struct {
	d      *demo
	client *imapclient.Client
	show   *shownConn
}

func dialMail(ctx context.Context, d *demo, addr, caFile string) (*demoMail, error) {
	show, err := d.dial(ctx, addr, caFile)
	if err != nil {
		return nil, err
	}
	return &demoMail{d: d, client: imapclient.New(show, nil), show: show}, nil
}

// dial connects over TLS, and shows what the server says.
func (d *demo) dial(ctx context.Context, addr, caFile string) (*shownConn, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", caFile)
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return &shownConn{Conn: conn, line: func(l string) {
		if r := []rune(l); len(r) > 100 {
			l = string(r[:100]) + "…"
		}
		d.line("S: %s", printable(l))
	}}, nil
}

// send sends a message to the mailbox itself, and looks for it in Exchange.
func (d *demo) send(ctx context.Context, caFile, mailbox, password string) error {
	conn, err := d.dial(ctx, d.smtp, caFile)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, "127.0.0.1")
	if err != nil {
		return err
	}
	d.line("C: EHLO localhost, AUTH PLAIN ****")
	if err := c.Auth(smtp.PlainAuth("", mailbox, password, "127.0.0.1")); err != nil {
		return err
	}
	d.line("C: MAIL FROM, RCPT TO, DATA and a message")
	if err := c.Mail(mailbox); err != nil {
		return err
	}
	if err := c.Rcpt(mailbox); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "From: %s\r\nTo: %[1]s\r\nSubject: Sent through the gateway\r\n\r\nHello.\r\n", mailbox); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	sent := d.sandbox.Sent()
	if len(sent) != 1 || !bytes.Contains(sent[0].Data, []byte("Subject: Sent through the gateway\r\n")) {
		return fmt.Errorf("%d messages have reached Exchange in place of one", len(sent))
	}
	d.line("Exchange has it: %d bytes from %s", len(sent[0].Data), sent[0].From)
	return c.Quit()
}

func (m *demoMail) signIn(mailbox, password string) error {
	m.d.line("C: LOGIN %s ****", mailbox)
	return m.client.Login(mailbox, password).Wait()
}

// readFirst reads the first message of the inbox.
func (m *demoMail) readFirst() error {
	m.d.line("C: SELECT INBOX")
	box, err := m.client.Select("INBOX", nil).Wait()
	if err != nil {
		return err
	}
	if box.NumMessages == 0 {
		return errors.New("the inbox is empty")
	}
	m.d.line("C: FETCH 1 (ENVELOPE BODY.PEEK[])")
	m.show.mute(true)
	body := &imap.FetchItemBodySection{Peek: true}
	msgs, err := m.client.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{Envelope: true, BodySection: []*imap.FetchItemBodySection{body}}).Collect()
	m.show.mute(false)
	if err != nil {
		return err
	}
	if len(msgs) != 1 || msgs[0].Envelope == nil {
		return fmt.Errorf("%d messages came in place of one", len(msgs))
	}
	m.d.line("the first of %d messages: %q, %d bytes", box.NumMessages, msgs[0].Envelope.Subject, len(msgs[0].FindBodySection(body)))
	return nil
}

// waitClosed waits until the server has closed the session.
func (m *demoMail) waitClosed(ctx context.Context, limit time.Duration) error {
	select {
	case <-m.client.Closed():
		return nil
	case <-time.After(limit):
		return errors.New("the session of a revoked app password is still open")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *demoMail) close() { _ = m.client.Close() }

// shownConn passes each line that comes in to a function.
type shownConn struct {
	net.Conn
	line func(string)

	mu    sync.Mutex
	part  []byte
	muted bool
}

func (c *shownConn) mute(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted, c.part = on, nil
}

// Read shows what it reads.
func (c *shownConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.muted {
		return n, err
	}
	c.part = append(c.part, p[:n]...)
	for {
		line, rest, found := strings.Cut(string(c.part), "\r\n")
		if !found {
			return n, err
		}
		c.part = []byte(rest)
		c.line(line)
	}
}
