package sendmail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// RefusedError is a refusal of the server. Nothing was sent.
type RefusedError struct {
	Command string // what was refused, as "RCPT TO:<bob@contoso.com>"
	Code    int    // the reply's code (RFC 5321 section 4.2)
	Text    string // and its text, several lines separated by LF
}

// Error is the reply with its code.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("nothing was sent: %s: the server says %d %s", e.Command, e.Code, e.Text)
}

// Temporary tells that it may be taken later.
func (e *RefusedError) Temporary() bool { return e.Code/100 == 4 }

// BrokenError tells that the connection failed before the message was whole.
// Nothing was sent.
type BrokenError struct {
	Command string
	Err     error
}

// Error says at which command it failed.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("nothing was sent: %s: %v", e.Command, e.Err)
}

// Unwrap is the cause.
func (e *BrokenError) Unwrap() error { return e.Err }

// UnknownError tells that the server got the whole message and has not answered,
// or does not know itself: it may have been sent. To send it again may send it twice.
type UnknownError struct {
	MessageID string
	err       error
}

// Error names the message. It does not wrap its cause, which may be that of an
// interrupt: what has become of the message is the news.
func (e *UnknownError) Error() string {
	if said, ok := errors.AsType[*textproto.Error](e.err); ok {
		return fmt.Sprintf("the message %s may have been sent: the server got all of it and says %d %s", e.MessageID, said.Code, said.Msg)
	}
	return fmt.Sprintf("the message %s may have been sent: the server got all of it and did not answer: %v", e.MessageID, e.err)
}

// undecided tells that a reply to a message leaves open whether it was sent: the
// gateway says so where Graph's answer was lost, and 421 is the end of a session
// whose message was on its way.
func undecided(e *textproto.Error) bool {
	return e.Code == 421 || strings.Contains(e.Msg, "the message may have been sent")
}

// stepLimit is how long a reply may take (RFC 5321 section 4.5.3.2.6 has ten
// minutes for the last, and five for most).
const stepLimit = 10 * time.Minute

// submission is an SMTP connection.
type submission struct {
	conn   net.Conn
	client *smtp.Client
}

// Submit sends the message, which is complete, on a connection to a server (RFC
// 6409). auth signs in first; nil: that is done. The message is sent to all
// recipients or to none. It returns the server's last reply.
//
// It closes the connection. Its errors are a [*RefusedError], a [*BrokenError],
// an [*UnknownError] and a [*SizeError].
func (m *Message) Submit(ctx context.Context, conn net.Conn, host string, auth smtp.Auth) (reply string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	defer func() {
		if e, ok := errors.AsType[*BrokenError](err); ok && ctx.Err() != nil {
			e.Err = ctx.Err()
		}
	}()
	s := &submission{conn: conn}
	if err := s.open(host, auth); err != nil {
		return "", err
	}
	eight, _ := s.client.Extension("8BITMIME")
	data := m.encode(eight)
	if err := m.begin(s, data, eight); err != nil {
		return "", err
	}
	return m.data(s, data)
}

// open greets and signs in.
func (s *submission) open(host string, auth smtp.Auth) (err error) {
	s.wait()
	if s.client, err = smtp.NewClient(s.conn, host); err != nil {
		return failedAt("connect", err)
	}
	s.wait()
	if err := s.client.Hello("localhost"); err != nil {
		return failedAt("EHLO", err)
	}
	if auth != nil {
		s.wait()
		if err := s.client.Auth(auth); err != nil {
			return failedAt("sign in", err)
		}
	}
	return nil
}

func (s *submission) wait() { _ = s.conn.SetDeadline(time.Now().Add(stepLimit)) }

// command sends one, and takes a reply that begins with the digit of code.
func (s *submission) command(code int, line string) error {
	s.wait()
	id, err := s.client.Text.Cmd("%s", line)
	if err != nil {
		return failedAt(line, err)
	}
	s.client.Text.StartResponse(id)
	defer s.client.Text.EndResponse(id)
	if _, _, err := s.client.Text.ReadResponse(code); err != nil {
		return failedAt(line, err)
	}
	return nil
}

func failedAt(command string, err error) error {
	if e, ok := errors.AsType[*textproto.Error](err); ok {
		return &RefusedError{command, e.Code, e.Msg}
	}
	return &BrokenError{command, err}
}

// begin sends the envelope.
func (m *Message) begin(s *submission, data []byte, eight bool) error {
	from, sender := "MAIL FROM:<", m.sender
	if sender != "" {
		from += wire(sender)
	}
	from += ">"
	if ok, limit := s.client.Extension("SIZE"); ok {
		if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 && int64(len(data)) > n {
			return &SizeError{n}
		}
		from += fmt.Sprintf(" SIZE=%d", len(data))
	}
	header, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	if eight && !ascii(string(body)) {
		from += " BODY=8BITMIME"
	}
	beyond := !ascii(sender) || !ascii(string(header))
	for _, r := range m.recipients {
		beyond = beyond || !ascii(r.spec)
	}
	if utf8, _ := s.client.Extension("SMTPUTF8"); utf8 && beyond { // RFC 6531
		from += " SMTPUTF8"
	}
	if err := s.command(2, from); err != nil {
		return err
	}
	for _, r := range m.recipients {
		if err := s.command(2, "RCPT TO:<"+wire(r.spec)+">"); err != nil {
			return err
		}
	}
	return s.command(354, "DATA")
}

// data sends the message. From its last line on nobody knows what has become of
// it until the server answers.
func (m *Message) data(s *submission, data []byte) (reply string, err error) {
	w := s.client.Text.W
	for line := range bytes.Lines(data) {
		s.wait()
		if line[0] == '.' {
			_ = w.WriteByte('.') // RFC 5321 section 4.5.2
		}
		if _, err = w.Write(line); err != nil {
			break
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		// A server that takes no more of it may have said why.
		_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, rerr := s.client.Text.ReadResponse(2); errors.As(rerr, new(*textproto.Error)) {
			err = rerr
		}
		return "", failedAt("message", err)
	}
	s.wait()
	_, err = w.WriteString(".\r\n")
	if err == nil {
		err = w.Flush()
	}
	var code int
	if err == nil {
		code, reply, err = s.client.Text.ReadResponse(2)
	}
	if e, ok := errors.AsType[*textproto.Error](err); ok && !undecided(e) {
		return "", &RefusedError{"message", e.Code, e.Msg}
	}
	if err != nil {
		id, _ := m.get("Message-ID")
		return "", &UnknownError{id.value(), err}
	}
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	_ = s.client.Quit() // it has the message, whatever it says to this
	return fmt.Sprintf("%d %s", code, reply), nil
}
