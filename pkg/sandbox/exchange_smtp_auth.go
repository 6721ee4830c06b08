package sandbox

import (
	"errors"
	"fmt"
	"strings"
)

// auth does AUTH (RFC 4954).
func (c *smtpConn) auth(args string) error {
	mechanism, initial, inline := strings.Cut(args, " ")
	switch {
	case c.hello != "EHLO":
		return c.wrong(smtpHello)
	case c.sess != nil:
		return c.wrong(smtpSequence)
	case args == "", inline && initial == "":
		return c.wrong(smtpArguments)
	}
	if c.x.s.CurrentFaults().ExchangeStallAuth {
		return c.stall()
	}
	var response []byte
	var err error
	switch {
	case mechanism == "XOAUTH2" && c.secured:
		response, err = c.ask(smtpContinue, initial)
	case mechanism == "LOGIN" && c.secured:
		if response, err = c.ask("334 VXNlcm5hbWU6", initial); response != nil {
			response, err = c.ask("334 UGFzc3dvcmQ6", "")
		}
	default:
		return c.wrong(smtpMechanism)
	}
	if err != nil {
		return err
	}
	if response == nil {
		return c.refused("")
	}
	if mechanism == "LOGIN" {
		return c.refused(smtpRefused)
	}
	sess, err := c.x.signIn("SMTP", c.conn.RemoteAddr().String(), response)
	if off, ok := errors.AsType[*smtpOffError](err); ok {
		return c.refused(fmt.Sprintf(smtpAuthDisabled, off.where))
	}
	if err != nil {
		return c.refused(smtpRefused)
	}
	if err := c.say(smtpSignedIn); err != nil {
		c.x.signOut(sess)
		return err
	}
	c.sess = sess
	return nil
}

// ask gets a SASL response: the initial one, or else what the client answers.
// It is nil where that was refused and the client knows.
func (c *smtpConn) ask(challenge, initial string) ([]byte, error) {
	encoded := initial
	if initial == "" {
		if err := c.say(challenge); err != nil {
			return nil, err
		}
		line, err := c.readLine()
		if err != nil {
			if errors.Is(err, errTooLong) {
				c.end(smtpAuthLong)
			}
			return nil, err
		}
		text, ok := plainLine(line)
		if text == "*" {
			return nil, c.say(smtpCanceled)
		}
		if encoded = text; !ok {
			return nil, c.say(smtpNotBase64)
		}
	}
	if encoded == "=" && initial != "" { // RFC 4954 section 4: an empty one
		return []byte{}, nil
	}
	response, ok := decodeBase64(encoded)
	if !ok {
		return nil, c.say(smtpNotBase64)
	}
	return response, nil
}

// refused answers a failed sign-in, unless reply is empty since that was done,
// and hangs up when that was too often.
func (c *smtpConn) refused(reply string) error {
	if c.failed++; c.failed < maxSMTPFailed {
		if reply == "" {
			return nil
		}
		return c.say(reply)
	}
	if reply == "" {
		c.end(smtpTooMany)
	} else {
		c.end(reply, smtpTooMany)
	}
	return errOver
}
