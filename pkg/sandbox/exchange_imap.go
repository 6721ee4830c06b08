package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// What Exchange Online says of itself. It announces neither ENABLE nor
// LITERAL-, and MOVE only after sign-in.
const (
	imapGreeting   = "The Microsoft Exchange IMAP4 service is ready. [UwBBAE4ARABCAE8AWAA=]"
	imapPreAuth    = "IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+"
	imapPostAuth   = "IMAP4 IMAP4rev1 AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+"
	imapID         = `* ID ("name" "Microsoft.Exchange.Imap4.Imap4Server" "version" "15.20")`
	imapSyntax     = "BAD Command Error. 12"
	imapState      = "BAD Command received in Invalid state."
	imapNoMailbox  = "BAD User is authenticated but not connected."
	imapThrottled  = "BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds"
	imapGoodbye    = "BYE Microsoft Exchange Server IMAP4 server signing off."
	imapDisconnect = "BYE Connection is closed. 13"
	imapExpired    = "BYE Session invalidated - AccessTokenExpired"
)

// Limits beside maxLine.
const (
	maxIMAPCommand = 128 << 10 // with its literals, before sign-in
	maxIMAPFailed  = 3
	maxIMAPErrors  = 10
)

// imapConn is the client's side of a connection.
type imapConn struct{ *lineConn }

func newIMAPConn(conn net.Conn) *imapConn { return &imapConn{newLineConn(conn)} }

// imapSession serves one IMAP connection: until sign-in itself, then by an
// IMAP server library behind it.
func (x *exchange) imapSession(raw net.Conn) {
	conn, err := x.startTLS(raw)
	if err != nil {
		return
	}
	defer conn.Close()
	c := newIMAPConn(conn)
	c.say("* OK " + imapGreeting)
	sess := x.imapPreAuth(c)
	if sess == nil {
		return
	}
	defer x.signOut(sess)
	x.relayIMAP(c, sess)
}

// imapPreAuth serves the not authenticated state. It returns nil where the
// connection is over.
func (x *exchange) imapPreAuth(c *imapConn) *mailSession {
	failed, errs := 0, 0
	for {
		c.conn.SetReadDeadline(time.Now().Add(preAuthTimeout))
		line, err := c.readCommand()
		if err != nil {
			c.tooLong(err)
			return nil
		}
		cmd := parseIMAPCommand(line)
		switch cmd.verb {
		case "CAPABILITY":
			c.say("* CAPABILITY "+imapPreAuth, cmd.tag+" OK CAPABILITY completed.")
		case "NOOP":
			c.say(cmd.tag + " OK NOOP completed.")
		case "ID":
			c.say(imapID, cmd.tag+" OK ID completed.")
		case "LOGOUT":
			c.say("* "+imapGoodbye, cmd.tag+" OK LOGOUT completed.")
			return nil
		case "LOGIN":
			c.say(cmd.tag + " NO LOGIN failed.")
			failed++
		case "AUTHENTICATE":
			if x.s.CurrentFaults().ExchangeStallAuth {
				c.conn.SetReadDeadline(time.Time{})
				io.Copy(io.Discard, c.br)
				return nil
			}
			sess, err := x.imapAuthenticate(c, cmd)
			if err != nil {
				return nil
			}
			if sess != nil {
				return sess
			}
			failed++
		case "":
			c.say("* " + imapSyntax)
			errs++
		default:
			c.say(cmd.tag + " " + imapSyntax)
			errs++
		}
		if failed >= maxIMAPFailed || errs >= maxIMAPErrors {
			c.say("* " + imapDisconnect)
			return nil
		}
	}
}

// imapAuthenticate does AUTHENTICATE (RFC 9051 section 6.2.2) with or without
// an initial response. No session and no error means that it was refused.
func (x *exchange) imapAuthenticate(c *imapConn, cmd imapCommand) (*mailSession, error) {
	mechanism, encoded, inline := strings.Cut(cmd.args, " ")
	if mechanism != "XOAUTH2" {
		return nil, c.say(cmd.tag + " NO AUTHENTICATE failed.")
	}
	if !inline {
		if err := c.say("+ "); err != nil {
			return nil, err
		}
		line, err := c.readLine()
		if err != nil {
			c.tooLong(err)
			return nil, err
		}
		if encoded = string(trimEnd(line)); encoded == "*" {
			return nil, c.say(cmd.tag + " BAD AUTHENTICATE canceled.")
		}
	}
	response, ok := decodeBase64(encoded)
	if !ok {
		return nil, c.say(cmd.tag + " " + imapSyntax)
	}
	sess, err := x.signIn("IMAP", c.conn.RemoteAddr().String(), response)
	if err != nil {
		return nil, c.say(cmd.tag + " NO AUTHENTICATE failed.")
	}
	if err := c.say(cmd.tag + " OK AUTHENTICATE completed."); err != nil {
		x.signOut(sess)
		return nil, err
	}
	return sess, nil
}

// bye says a last line and closes.
func (c *imapConn) bye(line string) { c.end("* " + line) }

// tooLong tells the client why the connection ends, where that is its length.
func (c *imapConn) tooLong(err error) {
	if errors.Is(err, errTooLong) {
		c.say("* " + imapDisconnect)
	}
}

// readCommand reads one command with its literals, each of which it asks for.
func (c *imapConn) readCommand() ([]byte, error) {
	first, err := c.readLine()
	if err != nil {
		return nil, err
	}
	return c.readRest(first)
}

// readRest reads what belongs to a command after its first line.
func (c *imapConn) readRest(first []byte) ([]byte, error) {
	command := bytes.Clone(first)
	for line := first; ; {
		size, wait, ok := literal(line)
		if !ok {
			return command, nil
		}
		if size > int64(maxIMAPCommand-len(command)) {
			return nil, errTooLong
		}
		if wait {
			if err := c.say("+ Ready for additional command text."); err != nil {
				return nil, err
			}
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(c.br, text); err != nil {
			return nil, err
		}
		command = append(command, text...)
		var err error
		if line, err = c.readLine(); err != nil {
			return nil, err
		}
		command = append(command, line...)
		if len(command) > maxIMAPCommand {
			return nil, errTooLong
		}
	}
}

// literal says whether a line ends by announcing a literal (RFC 9051 section
// 4.3, RFC 7888), and whether its sender waits to be asked for it.
func literal(line []byte) (size int64, wait, ok bool) {
	line, ok = bytes.CutSuffix(trimEnd(line), []byte("}"))
	open := bytes.LastIndexByte(line, '{')
	if !ok || open < 0 {
		return 0, false, false
	}
	digits, plus := bytes.CutSuffix(line[open+1:], []byte("+"))
	n, err := strconv.ParseUint(string(digits), 10, 63)
	return int64(n), !plus, err == nil
}

// imapCommand is a command's first line; the verb is in upper case, with UID
// before it where that was said, and empty where the line is no command.
type imapCommand struct{ tag, verb, args string }

func parseIMAPCommand(line []byte) imapCommand {
	text := string(trimEnd(line))
	tag, rest, ok := strings.Cut(text, " ")
	if !ok || tag == "" || rest == "" || strings.ContainsFunc(tag, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\+`, r)
	}) {
		return imapCommand{}
	}
	verb, args, _ := strings.Cut(rest, " ")
	verb = strings.ToUpper(verb)
	if verb == "UID" {
		sub, more, _ := strings.Cut(args, " ")
		verb, args = fmt.Sprintf("UID %s", strings.ToUpper(sub)), more
	}
	return imapCommand{tag, verb, args}
}
