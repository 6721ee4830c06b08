package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"
)

// session is one mail program's visit: it signs in, works, and leaves, now and
// then without a word. n chooses protocol, security and manner.
func (l *lab) session(ctx context.Context, n int) error {
	protocol := []string{"imap", "imap", "pop3", "smtp"}[n%4]
	security := []string{"tls", "starttls", "clear"}[n/4%3]
	work := map[string]func(*client) error{"imap": l.imap, "pop3": l.pop3, "smtp": l.smtp}[protocol]
	c, err := l.connect(ctx, protocol, security)
	if err == nil {
		defer c.close()
		err = work(c)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", protocol, security, err)
	}
	return nil
}

// client is a mail program's connection.
type client struct {
	ctx  context.Context
	conn net.Conn
	in   *bufio.Reader
	no   []string // how refusals begin
	rude bool     // leaves without a word
	stop func() bool
}

// patience is what a machine under full load may take.
const patience = 2 * time.Minute

func (l *lab) connect(ctx context.Context, protocol, security string) (*client, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.gateway[protocol])
	if err != nil {
		return nil, err
	}
	c := &client{ctx: ctx, conn: raw, rude: rand.IntN(5) == 0}
	c.stop = context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	_ = raw.SetDeadline(time.Now().Add(patience))
	if security == "tls" {
		c.conn = tls.Client(raw, l.trust)
	}
	c.in = bufio.NewReader(c.conn)
	c.no = map[string][]string{"imap": {"a NO", "a BAD"}, "pop3": {"-ERR"}, "smtp": {"4", "5"}}[protocol]
	greeting := map[string]string{"imap": "* OK", "pop3": "+OK", "smtp": "220"}[protocol]
	if err := c.expect(greeting); err != nil {
		c.close()
		return nil, err
	}
	if security == "starttls" {
		command := map[string]string{"imap": "s STARTTLS|s OK", "pop3": "STLS|+OK", "smtp": "STARTTLS|220"}[protocol]
		if err := c.do(command); err != nil {
			c.close()
			return nil, err
		}
		c.conn = tls.Client(raw, l.trust)
		c.in = bufio.NewReader(c.conn)
	}
	return c, nil
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close()
}

// do sends commands, each with the beginning of the line that ends its answer:
// "NOOP|+OK".
func (c *client) do(steps ...string) error {
	for _, step := range steps {
		command, answer, _ := strings.Cut(step, "|")
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if _, err := fmt.Fprintf(c.conn, "%s\r\n", command); err != nil {
			return fmt.Errorf("send %.20q: %w", command, err)
		}
		if err := c.expect(answer); err != nil {
			return err
		}
	}
	return nil
}

// expect reads up to the line that begins so.
func (c *client) expect(prefix string) error {
	for {
		line, err := c.in.ReadString('\n')
		if strings.HasPrefix(line, prefix) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for %q: %w", prefix, err)
		}
		if slices.ContainsFunc(c.no, func(no string) bool { return strings.HasPrefix(line, no) }) {
			return fmt.Errorf("waiting for %q: %q", prefix, strings.TrimSpace(line))
		}
	}
}

// wait is the time that a person or a program takes between two commands.
func (c *client) wait() {
	select {
	case <-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond):
	case <-c.ctx.Done():
	}
}

func (l *lab) imap(c *client) error {
	if err := c.do("a LOGIN "+mailbox+" "+l.password+"|a OK", "a SELECT INBOX|a OK", "a FETCH 1:* (FLAGS ENVELOPE)|a OK"); err != nil {
		return err
	}
	c.wait()
	if err := c.do("a FETCH 1 BODY.PEEK[]|a OK"); err != nil {
		return err
	}
	if rand.IntN(10) == 0 {
		if err := c.do("a IDLE|+"); err != nil {
			return err
		}
		c.wait()
		if err := c.do("DONE|a OK"); err != nil {
			return err
		}
	}
	c.wait()
	if c.rude {
		return nil
	}
	return c.do("a LOGOUT|a OK")
}

func (l *lab) pop3(c *client) error {
	if err := c.do("USER "+mailbox+"|+OK", "PASS "+l.password+"|+OK", "STAT|+OK", "LIST|."); err != nil {
		return err
	}
	c.wait()
	if err := c.do("RETR 1|."); err != nil {
		return err
	}
	c.wait()
	if c.rude {
		return nil
	}
	return c.do("QUIT|+OK")
}

func (l *lab) smtp(c *client) error {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + mailbox + "\x00" + l.password))
	if err := c.do("EHLO soak.example|250 ", "AUTH PLAIN "+plain+"|235"); err != nil {
		return err
	}
	c.wait()
	body := "Subject: soak\r\n\r\n" + strings.Repeat("a line of the message\r\n", rand.IntN(2000)) + "."
	if err := c.do("MAIL FROM:<"+mailbox+">|250", "RCPT TO:<bob@fabrikam.example>|250", "DATA|354", body+"|250"); err != nil {
		return err
	}
	c.wait()
	if c.rude {
		return nil
	}
	return c.do("QUIT|221")
}
