package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// Reason says in one word why a sign-in is refused or a session ended. Each
// protocol has its own code for it.
type Reason string

// The reasons of a [Refusal], with the IMAP response code (RFC 5530) of each.
// POP3 tells them by RFC 3206, SMTP by RFC 4954 and RFC 3463.
const (
	BadCredentials     Reason = "bad-credentials"      // AUTHENTICATIONFAILED: no such app password
	ProtocolNotAllowed Reason = "protocol-not-allowed" // AUTHORIZATIONFAILED
	NetworkNotAllowed  Reason = "network-not-allowed"  // AUTHORIZATIONFAILED
	MailboxNotAllowed  Reason = "mailbox-not-allowed"  // AUTHORIZATIONFAILED
	Expired            Reason = "expired"              // EXPIRED
	Revoked            Reason = "revoked"              // AUTHENTICATIONFAILED
	Unavailable        Reason = "unavailable"          // UNAVAILABLE: try again later, the password is not at fault
	Policy             Reason = "policy"               // CONTACTADMIN: the tenant does not let it happen
	SignInRequired     Reason = "sign-in-required"     // CONTACTADMIN: the person's own sign-in, which the app password stands on, has ended
	DecoyUsed          Reason = "decoy-used"           // told as BadCredentials, in every word
)

// publicTexts are what the client is told where a Refusal has no text of its
// own. BadCredentials has this one text only, whatever the Refusal says, so
// that nobody learns from it which half was wrong, or what a decoy is.
var publicTexts = map[Reason]string{
	BadCredentials:     "user name or app password not accepted",
	ProtocolNotAllowed: "this app password may not be used for this protocol",
	NetworkNotAllowed:  "this app password may not be used from this network",
	MailboxNotAllowed:  "this app password may not open this mailbox",
	Expired:            "this app password has expired; make a new one",
	Revoked:            "this app password was revoked",
	Unavailable:        "the mail server cannot be reached for now; try again later",
	Policy:             "the app password is right, but the organisation does not let it in; ask its administrator",
	SignInRequired:     "the sign-in behind this app password has ended; run: o365pw login",
}

// Refusal is why a sign-in is not granted, or a session not kept: a public
// half for the mail client and a private one for the log.
type Refusal struct {
	Reason Reason
	Public string // for the person at the mail client: what to do; empty: a text by Reason
	Err    error  // for the log: the cause and what mends it; may be nil

	// Reply, where not empty, is the upstream's own reply, which an SMTP client
	// gets in place of one by Reason: code, enhanced status code and text on
	// one line.
	Reply string

	// UserIsSecret tells that what the client gave as its user name is an app
	// password, typed into the wrong field, which no log may hold.
	UserIsSecret bool
}

// Error gives the private side. It is for the log, not for the client.
func (r *Refusal) Error() string {
	if r.Err == nil {
		return string(r.Reason)
	}
	return fmt.Sprintf("%s: %v", r.Reason, r.Err)
}

// Unwrap returns the private cause.
func (r *Refusal) Unwrap() error { return r.Err }

// wrongPassword tells that the client did not present a password that opens
// anything.
func (r *Refusal) wrongPassword() bool { return r.Reason == BadCredentials || r.Reason == DecoyUsed }

// code is the refusal's among those of a protocol.
func (r *Refusal) code(codes map[Reason]string) string {
	return cmp.Or(codes[r.Reason], codes[Unavailable])
}

// public is the text for the client.
func (r *Refusal) public() string {
	if r.wrongPassword() {
		return publicTexts[BadCredentials]
	}
	return cmp.Or(r.Public, publicTexts[r.Reason], publicTexts[Unavailable])
}

// refusalOf makes a Refusal of whatever a backend or an upstream returned.
// What is not one already is a fault that a later attempt may not meet.
func refusalOf(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return &Refusal{Reason: Unavailable, Err: err}
}

// ends says whether err ends an open session: only a refusal does, and not
// one that says no more than that nobody could be asked.
func ends(err error) (*Refusal, bool) {
	r, ok := errors.AsType[*Refusal](err)
	return r, ok && r.Reason != Unavailable
}

// ending is why a session is closed from this side, as the cause of its
// context (context.Cause).
type ending struct {
	public string // the client's last line says it
	reason Reason // where it is one of a Refusal
	cause  error
}

func (e *ending) Error() string { return e.cause.Error() }
func (e *ending) Unwrap() error { return e.cause }

// The endings that have no Refusal.
var (
	errShutdown = errors.New("the gateway is shutting down")
	errIdle     = errors.New("idle for too long")
	errExpired  = errors.New("the app password has expired")
)

// endingOf returns the ending that ctx was ended by.
func endingOf(ctx context.Context) *ending {
	if e, ok := errors.AsType[*ending](context.Cause(ctx)); ok {
		return e
	}
	return &ending{public: "the gateway is shutting down", cause: errShutdown}
}
