package sandbox

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// What Exchange Online says by POP3.
const (
	popGreeting     = "+OK The Microsoft Exchange POP3 service is ready. [UwBBAE4ARABCAE8AWAA=]"
	popSignedIn     = "+OK User successfully authenticated."
	popRefused      = "-ERR Authentication failure: unknown user name or bad password."
	popLogin        = "-ERR Logon failure: unknown user name or bad password."
	popCanceled     = "-ERR Authentication canceled."
	popSyntax       = "-ERR Protocol error. 14"
	popState        = "-ERR Command is not valid in this state."
	popNoMessage    = "-ERR The specified message is out of range."
	popDeleted      = "-ERR The message is deleted already."
	popUnavailable  = "-ERR The mailbox is not available."
	popNotDeleted   = "-ERR Some deleted messages were not removed."
	popNoMailbox    = "-ERR User is authenticated but not connected."
	popThrottled    = "-ERR Request is throttled. Suggested Backoff Time: 92415 milliseconds"
	popGoodbye      = "+OK Microsoft Exchange Server POP3 server signing off."
	popDisconnect   = "-ERR Protocol error. Connection is closed. 10"
	popContinuation = "+ "
)

// popCapabilities is the answer to CAPA (RFC 2449), before sign-in and after
// it. There is no USER: nothing signs in by a password.
var popCapabilities = []string{"TOP", "UIDL", "SASL XOAUTH2", "UTF8"}

// Limits. A command has 255 octets with its line end (RFC 2449 section 4); the
// line of a SASL response has maxLine. A session that is idle ends after
// popIdle (RFC 1939 section 3: 10 minutes at least).
const (
	maxPOPCommand = 255
	maxPOPFailed  = 3
	maxPOPErrors  = 10
	popIdle       = 10 * time.Minute
)

// popConn is a POP3 connection.
type popConn struct {
	*lineConn
	x    *exchange
	sess *mailSession
	// The maildrop as it was at sign-in. What others remove meanwhile keeps
	// its number, and is not there when it is asked for.
	validity uint32
	messages []popMessage
}

// popSession serves one POP3 connection.
func (x *exchange) popSession(raw net.Conn) {
	conn, err := x.startTLS(raw)
	if err != nil {
		return
	}
	defer conn.Close()
	c := &popConn{lineConn: newLineConn(conn), x: x}
	c.say(popGreeting)
	c.serve()
}

// serve serves a connection after its greeting.
func (c *popConn) serve() {
	c.authorization()
	if c.sess == nil {
		return
	}
	defer c.x.signOut(c.sess)
	// RFC 1939 section 3 lets a server end a session, but not say so.
	c.x.whileSignedIn(c.sess, c.hangUp, c.transaction)
}

func (c *popConn) hangUp() { c.conn.Close() }

// popCommand is a command, its verb in upper case and empty where the line is
// no command.
type popCommand struct {
	verb string
	args []string
}

// readCommand reads a command. It counts what is none, and gives an error when
// the connection is over.
func (c *popConn) readCommand(timeout time.Duration, errs *int) (popCommand, error) {
	for {
		c.conn.SetReadDeadline(time.Now().Add(timeout))
		line, err := c.readLine()
		if err != nil {
			if err == errTooLong {
				c.end(popDisconnect)
			}
			return popCommand{}, err
		}
		text, ok := plainLine(line)
		words := strings.Split(text, " ")
		if ok && len(line) <= maxPOPCommand && words[0] != "" && words[len(words)-1] != "" {
			return popCommand{strings.ToUpper(words[0]), words[1:]}, nil
		}
		if err := c.wrong(popSyntax, errs); err != nil {
			return popCommand{}, err
		}
	}
}

// wrong refuses something that no client should send, and hangs up when that
// was too often.
func (c *popConn) wrong(reply string, errs *int) error {
	if *errs++; *errs >= maxPOPErrors {
		c.end(reply, popDisconnect)
		return errTooMany
	}
	return c.say(reply)
}

// authorization serves the AUTHORIZATION state, until somebody has signed in
// or the connection is over.
func (c *popConn) authorization() {
	failed, errs := 0, 0
	for c.sess == nil {
		cmd, err := c.readCommand(preAuthTimeout, &errs)
		if err != nil {
			return
		}
		switch {
		case cmd.verb == "CAPA" && len(cmd.args) == 0:
			err = c.multiLine("+OK", popCapabilities...)
		case cmd.verb == "UTF8" && len(cmd.args) == 0: // RFC 6856 section 2: in this state only
			err = c.say("+OK")
		case cmd.verb == "QUIT" && len(cmd.args) == 0:
			c.end(popGoodbye)
			return
		case cmd.verb == "USER", cmd.verb == "PASS", cmd.verb == "APOP":
			failed++
			err = c.say(popLogin)
		case cmd.verb == "AUTH" && len(cmd.args) == 1:
			if c.x.s.CurrentFaults().ExchangeStallAuth {
				c.conn.SetReadDeadline(time.Time{})
				io.Copy(io.Discard, c.br)
				return
			}
			failed++
			err = c.authenticate(cmd.args[0])
		case popTransactionVerbs[cmd.verb]:
			err = c.wrong(popState, &errs)
		default: // AUTH with an initial response too
			err = c.wrong(popSyntax, &errs)
		}
		if err == nil && c.sess == nil && failed >= maxPOPFailed {
			c.end(popDisconnect)
			return
		}
		if err != nil {
			return
		}
	}
}

// authenticate does AUTH (RFC 5034), which Exchange takes in two lines only.
func (c *popConn) authenticate(mechanism string) error {
	if mechanism != "XOAUTH2" {
		return c.say(popRefused)
	}
	if err := c.say(popContinuation); err != nil {
		return err
	}
	line, err := c.readLine()
	if err != nil {
		if err == errTooLong {
			c.end(popDisconnect)
		}
		return err
	}
	text, ok := plainLine(line)
	if ok && text == "*" {
		return c.say(popCanceled)
	}
	response, decoded := decodeBase64(text)
	if !ok || !decoded {
		return c.say(popSyntax)
	}
	sess, err := c.x.signIn("POP", c.conn.RemoteAddr().String(), response)
	if err != nil {
		return c.say(popRefused)
	}
	if err := c.open(sess); err != nil {
		c.x.signOut(sess)
		c.x.s.Log.Error("maildrop", "error", err)
		return c.say(popUnavailable)
	}
	if err := c.say(popSignedIn); err != nil {
		c.x.signOut(sess)
		return err
	}
	c.sess = sess
	return nil
}

var popTransactionVerbs = map[string]bool{
	"STAT": true, "LIST": true, "UIDL": true, "RETR": true, "TOP": true, "DELE": true, "RSET": true, "NOOP": true,
}

// transaction serves the TRANSACTION state until the connection is over.
func (c *popConn) transaction() {
	errs := 0
	for {
		cmd, err := c.readCommand(popIdle, &errs)
		if err != nil {
			return
		}
		if c.x.expired(c.sess) {
			c.hangUp()
			return
		}
		faults := c.x.s.CurrentFaults()
		switch {
		case cmd.verb == "QUIT" && len(cmd.args) == 0:
			c.end(c.update())
			return
		case c.sess.notConnected, faults.ExchangeNotConnected:
			err = c.say(popNoMailbox)
		case faults.ExchangeThrottled:
			err = c.say(popThrottled)
		case cmd.verb == "CAPA" && len(cmd.args) == 0:
			err = c.multiLine("+OK", popCapabilities...)
		case cmd.verb == "NOOP" && len(cmd.args) == 0:
			err = c.say("+OK")
		case cmd.verb == "RSET" && len(cmd.args) == 0:
			for i := range c.messages {
				c.messages[i].deleted = false
			}
			err = c.say("+OK")
		case cmd.verb == "STAT" && len(cmd.args) == 0:
			n, size := 0, int64(0)
			for _, m := range c.messages {
				if !m.deleted {
					n, size = n+1, size+m.size
				}
			}
			err = c.say(fmt.Sprintf("+OK %d %d", n, size))
		case cmd.verb == "LIST" && len(cmd.args) <= 1:
			err = c.list(cmd.args, func(m popMessage) string { return strconv.FormatInt(m.size, 10) })
		case cmd.verb == "UIDL" && len(cmd.args) <= 1:
			err = c.list(cmd.args, func(m popMessage) string { return fmt.Sprintf("%d-%d", c.validity, m.uid) })
		case cmd.verb == "DELE" && len(cmd.args) == 1:
			m, problem := c.message(cmd.args[0])
			if m != nil {
				m.deleted = true
			}
			err = c.say(problem)
		case cmd.verb == "RETR" && len(cmd.args) == 1:
			err = c.retrieve(cmd.args[0], -1)
		case cmd.verb == "TOP" && len(cmd.args) == 2:
			if lines, parseErr := strconv.ParseUint(cmd.args[1], 10, 31); parseErr == nil {
				err = c.retrieve(cmd.args[0], int(lines))
			} else {
				err = c.wrong(popSyntax, &errs)
			}
		case cmd.verb == "USER", cmd.verb == "PASS", cmd.verb == "APOP", cmd.verb == "AUTH", cmd.verb == "UTF8":
			err = c.wrong(popState, &errs)
		default:
			err = c.wrong(popSyntax, &errs)
		}
		if err != nil {
			return
		}
	}
}

// message finds a message by its number. Its second result is the answer to
// the client, "+OK" where there is a message.
func (c *popConn) message(number string) (*popMessage, string) {
	n, err := strconv.ParseUint(number, 10, 31)
	switch {
	case err != nil:
		return nil, popSyntax
	case n == 0 || n > uint64(len(c.messages)):
		return nil, popNoMessage
	case c.messages[n-1].deleted:
		return nil, popDeleted
	}
	return &c.messages[n-1], "+OK"
}

// list answers LIST and UIDL, for one message or all.
func (c *popConn) list(args []string, what func(popMessage) string) error {
	if len(args) == 1 {
		m, answer := c.message(args[0])
		if m == nil {
			return c.say(answer)
		}
		return c.say(answer + " " + args[0] + " " + what(*m))
	}
	var lines []string
	for i, m := range c.messages {
		if !m.deleted {
			lines = append(lines, fmt.Sprintf("%d %s", i+1, what(m)))
		}
	}
	return c.multiLine("+OK", lines...)
}

// multiLine says a response of several lines, none of which begins with a dot.
func (c *popConn) multiLine(first string, lines ...string) error {
	all := append([]string{first}, lines...)
	return c.say(append(all, ".")...)
}
