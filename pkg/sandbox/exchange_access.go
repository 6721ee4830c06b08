package sandbox

import (
	"errors"
	"fmt"
	"slices"
)

// mailPermissions are what a token must carry for a protocol: app-only, and on
// behalf of a person.
var mailPermissions = map[string]struct{ role, scope string }{
	"IMAP": {"IMAP.AccessAsApp", "IMAP.AccessAsUser.All"},
	"POP":  {"POP.AccessAsApp", "POP.AccessAsUser.All"},
	"SMTP": {"SMTP.SendAsApp", "SMTP.Send"},
}

// errRefused is all that Exchange says of a refused sign-in, with one
// exception: smtpOffError.
var errRefused = errors.New("authentication failed")

// smtpOffError is the refusal of a sign-in whose token is good, since SMTP AUTH
// is switched off.
type smtpOffError struct{ where string } // "Tenant" or "Mailbox"

func (e *smtpOffError) Error() string {
	return fmt.Sprintf("SmtpClientAuthentication is disabled for the %s", e.where)
}

// access is what Exchange makes of a token for a mailbox.
type access struct {
	refused      string // why, for the log
	notConnected bool   // signed in, to no avail
	as           sid
	delegate     bool
}

// access decides on a token by the rules for a protocol.
func (x *exchange) access(config *exchangeConfig, t *accessToken, box *mailbox, protocol string) access {
	var a access
	m := config.mailboxes[box]
	if t.person != nil {
		a = x.personAccess(m, t, box, protocol)
	} else {
		a = x.appAccess(config, t, box, protocol)
	}
	switch protocol {
	case "IMAP":
		a.notConnected = a.notConnected || m.imapDisabled
	case "POP":
		a.notConnected = a.notConnected || m.popDisabled
	}
	return a
}

// personAccess is for a person: in the own mailbox, and in others by
// FullAccess.
func (x *exchange) personAccess(m mailboxConfig, t *accessToken, box *mailbox, protocol string) access {
	if t.audience != exchangeDelegated || !slices.Contains(t.scopes, mailPermissions[protocol].scope) {
		return access{refused: "audience or permission of the token"}
	}
	own := x.byUser(t.person.address)
	if own == nil {
		return access{refused: "the person has no mailbox"}
	}
	if own != box && !slices.Contains(m.fullAccess, own.sid) {
		return access{refused: "the person has no FullAccess"}
	}
	return access{as: own.sid, delegate: own != box}
}

// appAccess is for an application. It needs the permission and FullAccess; to
// send, an assignment of smtpRole instead of both. It is the permission that
// makes Exchange ask for FullAccess, whatever was assigned.
func (x *exchange) appAccess(config *exchangeConfig, t *accessToken, box *mailbox, protocol string) access {
	permitted := slices.Contains(t.roles, mailPermissions[protocol].role)
	p := config.principal(t.app.clientID, t.principalID)
	switch {
	case t.audience != exchangeResource:
		return access{refused: "audience of the token"}
	case box.Personal:
		return access{refused: "the mailbox is in no tenant"}
	case p == nil:
		return access{refused: "Exchange knows no service principal of these two ids"}
	case !permitted && protocol == "SMTP" && config.assigned(smtpRole, p.sid, box):
		return access{as: p.sid}
	case !permitted:
		return access{refused: "the token lacks the permission"}
	case slices.Contains(config.mailboxes[box].fullAccess, p.sid):
		return access{as: p.sid}
	case protocol == "IMAP":
		return access{as: p.sid, notConnected: true}
	}
	return access{refused: "the application has no FullAccess"}
}

// switchedOff says whether SMTP AUTH is off: what is set for the mailbox comes
// before what is set for the tenant.
func (x *exchange) switchedOff(config *exchangeConfig, box *mailbox, protocol string) error {
	of := config.mailboxes[box].smtpDisabled
	switch {
	case protocol != "SMTP":
	case x.s.CurrentFaults().SMTPAuthDisabled:
		return &smtpOffError{"Tenant"}
	case of != nil && *of:
		return &smtpOffError{"Mailbox"}
	case of == nil && config.smtpDisabled && !box.Personal:
		return &smtpOffError{"Tenant"}
	}
	return nil
}

// maySendAs says whether a session may send as an address. FullAccess does not
// let a person send as the mailbox: that is SendAs.
func (x *exchange) maySendAs(sess *mailSession, address string) bool {
	config := x.config()
	if owner := x.mailbox(address); owner != nil && slices.Contains(config.mailboxes[owner].sendAs, sess.as) {
		return true
	}
	if sess.delegate && !slices.Contains(config.mailboxes[sess.mailbox].sendAs, sess.as) {
		return false
	}
	return sameFold(address, sess.mailbox.Address) ||
		slices.ContainsFunc(sess.mailbox.SendAs, func(a string) bool { return sameFold(a, address) })
}
