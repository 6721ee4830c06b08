package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// What Exchange Online says by SMTP submission. Most of its refusals name the
// server at the end.
const (
	smtpHost         = "SANDBOX.outlook.office365.com"
	smtpReady        = "220 2.0.0 SMTP server ready"
	smtpContinue     = "334 "
	smtpSignedIn     = "235 2.7.0 Authentication successful"
	smtpRefused      = "535 5.7.3 Authentication unsuccessful [" + smtpHost + "]"
	smtpAuthDisabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the %s. Visit https://aka.ms/smtp_auth_disabled for more information. [" + smtpHost + "]"
	smtpCanceled     = "501 5.7.0 Authentication canceled"
	smtpMechanism    = "504 5.7.4 Unrecognized authentication type [" + smtpHost + "]"
	smtpAuthLong     = "500 5.5.6 Authentication Exchange line is too long"
	smtpNotBase64    = "501 5.5.2 Cannot decode the response"
	smtpLong         = "500 5.5.2 Line too long"
	smtpSyntax       = "500 5.5.2 Syntax error"
	smtpUnknown      = "500 5.3.3 Unrecognized command"
	smtpArguments    = "501 5.5.4 Invalid arguments"
	smtpDomain       = "501 5.5.4 Invalid domain name"
	smtpHello        = "503 5.5.2 Send hello first"
	smtpSequence     = "503 5.5.2 Bad sequence of commands"
	smtpTLSRequired  = "451 5.7.3 STARTTLS is required to send mail [" + smtpHost + "]"
	smtpTLSInjected  = "554 5.5.1 Commands came after STARTTLS"
	smtpNoAuth       = "530 5.7.57 Client not authenticated to send mail. [" + smtpHost + "]"
	smtpBusy         = "451 4.7.500 Server busy. Please try again later. [" + smtpHost + "]"
	smtpTooMany      = "421 4.7.0 Too many errors on this connection, closing transmission channel"
	smtpExpired      = "421 4.7.0 Session invalidated - AccessTokenExpired"
	smtpGoodbye      = "221 2.0.0 Service closing transmission channel"
	smtpOK           = "250 2.0.0 OK"
)

// smtpExtensions are announced in the order of Exchange; STARTTLS becomes AUTH
// under TLS.
var smtpExtensions = []string{
	fmt.Sprintf("SIZE %d", maxSMTPMessage), "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS",
	"8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8",
}

const smtpAuthExtension = "AUTH LOGIN XOAUTH2"

// Limits. A command has 512 octets with its line end, MAIL and RCPT have more
// for their parameters (RFC 5321 section 4.5.3.1, RFC 3461 section 4); the
// line of a SASL response has maxLine. Timeouts are those of RFC 5321 section
// 4.5.3.2.
const (
	maxSMTPCommand    = 512
	maxSMTPPath       = 2048
	maxSMTPText       = 1000 // of a line of a message, with CRLF
	maxSMTPMessage    = 157286400
	maxSMTPRecipients = 1000
	maxSMTPFailed     = 3
	maxSMTPErrors     = 10
	smtpIdle          = 5 * time.Minute
	smtpDataTimeout   = 3 * time.Minute
)

// smtpConn is an SMTP connection.
type smtpConn struct {
	*lineConn
	x            *exchange
	limit        int // of a message
	secured      bool
	hello        string // EHLO or HELO, once that was said
	sess         *mailSession
	failed, errs int
	tx           *smtpTransaction // since MAIL
}

// smtpTransaction is a message on its way (RFC 5321 section 3.3).
type smtpTransaction struct {
	from   string
	to     []string
	binary bool // BODY=BINARYMIME
	utf8   bool // SMTPUTF8
	// BDAT has begun; data is what came so far. After a chunk was refused,
	// all others are (RFC 3030 section 2).
	chunked, failed bool
	data            []byte
}

func (x *exchange) newSMTPConn(conn net.Conn) *smtpConn {
	return &smtpConn{lineConn: newLineConn(conn), x: x, limit: maxSMTPMessage}
}

// smtpSession serves one SMTP connection.
func (x *exchange) smtpSession(raw net.Conn) {
	c := x.newSMTPConn(raw)
	defer func() { c.conn.Close() }()
	c.say("220 " + smtpHost + " Microsoft ESMTP MAIL Service ready at " + x.s.now().Format(time.RFC1123Z))
	c.serve()
}

// serve serves a connection after its greeting.
func (c *smtpConn) serve() {
	for c.sess == nil {
		if err := c.next(preAuthTimeout); err != nil {
			return
		}
	}
	defer c.x.signOut(c.sess)
	c.x.whileSignedIn(c.sess, func() { c.end(smtpExpired) }, func() {
		for c.next(smtpIdle) == nil {
		}
	})
}

// errOver ends a connection that everything has been said on.
var errOver = errors.New("the connection is over")

// next serves one command. An error means that the connection is over.
func (c *smtpConn) next(timeout time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	line, err := c.readLine()
	if err != nil {
		if errors.Is(err, errTooLong) {
			c.end(smtpLong)
		}
		return err
	}
	if c.sess != nil && c.x.expired(c.sess) {
		c.end(smtpExpired)
		return errOver
	}
	text, ok := plainLine(line)
	verb, args, _ := strings.Cut(text, " ")
	verb = strings.ToUpper(verb)
	switch path := verb == "MAIL" || verb == "RCPT"; {
	case !ok || verb == "":
		return c.wrong(smtpSyntax)
	case verb == "AUTH" && len(line) > maxSMTPCommand:
		return c.wrong(smtpAuthLong) // RFC 4954 section 4: the response goes alone
	case !path && len(line) > maxSMTPCommand, len(line) > maxSMTPPath:
		return c.wrong(smtpLong)
	}
	switch verb {
	case "EHLO", "HELO":
		return c.greet(verb, args)
	case "STARTTLS":
		return c.startTLS(args)
	case "AUTH":
		return c.auth(args)
	case "MAIL":
		return c.mail(args)
	case "RCPT":
		return c.rcpt(args)
	case "DATA":
		return c.data(args)
	case "BDAT":
		return c.bdat(args)
	case "RSET":
		if args != "" {
			return c.wrong(smtpArguments)
		}
		c.tx = nil
		return c.say("250 2.0.0 Resetting")
	case "NOOP":
		return c.say(smtpOK)
	case "VRFY":
		return c.say("252 2.1.5 Cannot VRFY user")
	case "QUIT":
		if args != "" {
			return c.wrong(smtpArguments)
		}
		c.end(smtpGoodbye)
		return errOver
	}
	return c.wrong(smtpUnknown)
}

// wrong refuses something that no client should send, and hangs up when that
// was too often.
func (c *smtpConn) wrong(reply string) error {
	if c.errs++; c.errs >= maxSMTPErrors {
		c.end(reply, smtpTooMany)
		return errOver
	}
	return c.say(reply)
}

func (c *smtpConn) greet(verb, name string) error {
	if name == "" || strings.Contains(name, " ") || !ascii(name) {
		return c.wrong(smtpDomain)
	}
	host, _, err := net.SplitHostPort(c.conn.RemoteAddr().String())
	if err != nil {
		host = c.conn.RemoteAddr().String()
	}
	c.hello, c.tx = verb, nil
	first := "250-" + smtpHost + " Hello [" + host + "]"
	if verb == "HELO" {
		return c.say(strings.Replace(first, "-", " ", 1))
	}
	lines := []string{first}
	for _, e := range smtpExtensions {
		if e == "STARTTLS" && c.secured {
			e = smtpAuthExtension
		}
		lines = append(lines, "250-"+e)
	}
	last := len(lines) - 1
	lines[last] = strings.Replace(lines[last], "-", " ", 1)
	return c.say(lines...)
}

// startTLS does STARTTLS (RFC 3207). What was sent before the handshake must
// not be taken for something that came under its protection.
func (c *smtpConn) startTLS(args string) error {
	switch {
	case args != "":
		return c.wrong(smtpArguments)
	case c.secured:
		return c.wrong(smtpSequence)
	case c.hello != "EHLO":
		return c.wrong(smtpHello)
	case c.br.Buffered() > 0:
		c.end(smtpTLSInjected)
		return errOver
	}
	if err := c.say(smtpReady); err != nil {
		return err
	}
	conn, err := c.x.startTLS(c.conn)
	if err != nil {
		return err
	}
	c.lineConn, c.secured, c.hello, c.errs = newLineConn(conn), true, "", 0
	return nil
}

// stall says nothing until the other side has had enough.
func (c *smtpConn) stall() error {
	c.conn.SetReadDeadline(time.Time{})
	io.Copy(io.Discard, c.br)
	return errOver
}

func (c *smtpConn) mail(args string) error {
	faults := c.x.s.CurrentFaults()
	switch {
	case c.hello == "":
		return c.wrong(smtpHello)
	case !c.secured:
		return c.wrong(smtpTLSRequired)
	case c.sess == nil:
		return c.wrong(smtpNoAuth)
	case c.tx != nil:
		return c.wrong("503 5.5.2 Sender already specified")
	case faults.ExchangeThrottled:
		return c.say(smtpBusy)
	}
	from, params, reply := parseMail(args)
	if reply != "" {
		return c.wrong(reply)
	}
	c.tx = &smtpTransaction{from: from, binary: params.binary, utf8: params.utf8}
	return c.say("250 2.1.0 Sender OK")
}

func (c *smtpConn) rcpt(args string) error {
	switch {
	case c.hello == "":
		return c.wrong(smtpHello)
	case c.tx == nil:
		return c.wrong("503 5.5.2 Need mail command")
	case c.tx.chunked:
		return c.wrong(smtpSequence)
	case len(c.tx.to) >= maxSMTPRecipients:
		return c.say("452 4.5.3 Too many recipients")
	}
	to, reply := parseRcpt(args, c.tx.utf8)
	if reply != "" {
		return c.wrong(reply)
	}
	c.tx.to = append(c.tx.to, to)
	return c.say("250 2.1.5 Recipient OK")
}

// notReady says what a message cannot come before, or "".
func (c *smtpConn) notReady() string {
	switch {
	case c.hello == "":
		return smtpHello
	case c.tx == nil:
		return "503 5.5.2 Need mail command"
	case len(c.tx.to) == 0:
		return "503 5.5.2 Need rcpt command"
	}
	return ""
}

// accept decides on a message that has come as a whole, and answers.
func (c *smtpConn) accept(tx *smtpTransaction, tooLarge bool) error {
	faults, box := c.x.s.CurrentFaults(), c.sess.mailbox
	if faults.SMTPStallData {
		return c.stall()
	}
	problem := ""
	if !tx.binary {
		problem = badLines(tx.data)
	}
	denied := tx.denied(func(address string) bool { return c.x.maySendAs(c.sess, address) })
	switch {
	case tooLarge:
		return c.say(smtpTooLarge)
	case problem != "":
		return c.say(problem)
	case !unchanged(tx.data):
		return c.say("554 5.6.0 Invalid message content: not in the form of RFC 5322")
	case denied != "":
		return c.say("554 5.2.252 SendAsDenied; " + box.Address + " not allowed to send as " + denied +
			"; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception. [" + smtpHost + "]")
	case c.sess.notConnected || faults.ExchangeNotConnected:
		return c.say("430 4.2.0 STOREDRV; mailbox logon failure [" + smtpHost + "]")
	case faults.SMTPConcurrent:
		return c.say("432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [" + smtpHost + "]")
	}
	id, err := c.x.submit(box, tx)
	if err != nil {
		c.x.s.Log.Error("submission", "error", err)
		return c.say("554 5.2.0 STOREDRV.Submission.Exception: the message was not stored [" + smtpHost + "]")
	}
	return c.say(smtpOK + " <" + id + "> [Hostname=" + smtpHost + "]")
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e })
}
