package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/explain"
)

// Step is a part of a sign-in at a mail server.
type Step string

// The steps of a sign-in, in the order in which they are taken. Where TLS is
// begun by STARTTLS, [StepGreeting] comes before [StepTLS]. A step by a proxy
// has [StepProxy] in place of [StepConnect].
const (
	StepConnect  Step = "connect"  // name resolution and TCP
	StepProxy    Step = "proxy"    // connection to the proxy, and its answer
	StepTLS      Step = "tls"      // STARTTLS, handshake and certificate
	StepGreeting Step = "greeting" // the server's first words
	StepAuth     Step = "auth"     // the sign-in itself
	StepMailbox  Step = "mailbox"  // STATUS INBOX, STAT, MAIL FROM
)

// Fault is the kind of what went wrong at a [Step].
type Fault string

// The faults of a [ServerError].
const (
	// FaultUnreachable: there was no answer, or no more of them: an unknown
	// name, no connection, a failed handshake, a lost connection, no time left.
	FaultUnreachable Fault = "unreachable"
	// FaultUnexpected: the answer is none that the protocol has there. It is
	// another server, or something stands in between.
	FaultUnexpected Fault = "unexpected"
	// FaultRefused: the token or the sender is not accepted, by a proxy the
	// connection.
	FaultRefused Fault = "refused"
	// FaultNotConnected: the token is accepted, the mailbox stays closed
	// ("authenticated but not connected").
	FaultNotConnected Fault = "not-connected"
	// FaultSMTPAuthOff: SMTP AUTH is switched off for the mailbox or the tenant
	// (5.7.139).
	FaultSMTPAuthOff Fault = "smtp-auth-off"
	// FaultThrottled: the server asks for a pause.
	FaultThrottled Fault = "throttled"
	// FaultTemporary: the server refuses for now, for another reason.
	FaultTemporary Fault = "temporary"
)

// ServerError is a sign-in that a mail server did not let happen. It is the
// cause of each [Refusal] that comes from there, so that errors.AsType finds it.
type ServerError struct {
	Address string // host:port
	Proxy   string // scheme and host of the proxy in between, without user and password; empty: none
	Step    Step
	Command string // that was refused or not answered, or what was waited for
	Mailbox string // of a command that was refused
	Fault   Fault

	// Reply is what the server or, at [StepProxy], the proxy has said, fit for a
	// log: shortened, without control characters, without what may be a token.
	// Empty: nothing.
	Reply string
	// Wait is how long the server asks to be left alone.
	Wait time.Duration
	// Fix is what mends it, as far as Reply tells: commands for an
	// administrator of Exchange, or a setting. Empty: unknown.
	Fix string
	// Err is the cause where it is no refusal. Nil: Reply says it all.
	Err error

	gateway bool // it is no upstream, but a gateway of this kind
}

// Error is for the log.
func (e *ServerError) Error() string {
	var b strings.Builder
	who := "upstream"
	if e.gateway {
		who = "gateway"
	}
	switch {
	case e.Step == StepConnect:
		fmt.Fprintf(&b, "connect to the %s %s: %v", who, e.Address, e.Err)
	case e.Step == StepProxy:
		fmt.Fprintf(&b, "connect to the %s %s through the proxy %s: %v", who, e.Address, e.Proxy, e.Err)
	case e.Err != nil:
		fmt.Fprintf(&b, "%s %s: %s: %v", who, e.Address, e.Command, e.Err)
	case e.Wait > 0 && e.Reply == "":
		fmt.Fprintf(&b, "%s %s is left alone for %s", who, e.Address, limited(e.Mailbox, 100))
	default:
		fmt.Fprintf(&b, "%s %s refused %s for %s: %q", who, e.Address, e.Command, limited(e.Mailbox, 100), e.Reply)
	}
	if e.Wait > 0 {
		fmt.Fprintf(&b, ": the upstream throttles this mailbox and asks for %s of rest", e.Wait)
	}
	if e.Fix != "" {
		b.WriteString(": " + e.Fix)
	}
	return b.String()
}

// Unwrap returns the cause, which may be nil.
func (e *ServerError) Unwrap() error { return e.Err }

// unexpectedError is an answer that has no place where it came, or the lack of
// something in it.
type unexpectedError struct {
	problem string
	reply   string // fit for a log; empty: no one line of it matters
	later   bool   // it says that the server does not serve now
}

// unexpected is the error for an answer that should have been another.
func unexpected(reply string) error {
	return &unexpectedError{problem: "unexpected answer", reply: quoted(reply, 200)}
}

func (e *unexpectedError) Error() string {
	if e.reply == "" {
		return e.problem
	}
	return fmt.Sprintf("%s %q", e.problem, e.reply)
}

// failed is the error for a command, or whatever else command names, that was
// not answered as it should have been.
func (u *upstream) failed(command string, err error) *ServerError {
	e := &ServerError{Address: u.address, Proxy: u.proxy, Step: u.step, Command: command, Fault: FaultUnreachable, Err: err, gateway: u.gateway}
	if said, ok := errors.AsType[*unexpectedError](err); ok {
		e.Fault, e.Reply = FaultUnexpected, said.reply
		if said.later {
			e.Fault = FaultTemporary
		}
	} else if errors.Is(err, errTooLong) {
		e.Fault = FaultUnexpected
	}
	return e
}

// unavailable is a refusal for what a later attempt may not meet.
func (u *upstream) unavailable(command string, err error) error {
	return &Refusal{Reason: Unavailable, Err: u.failed(command, err)}
}

// unsayable is a refusal for what cannot be said in a command: no server was
// asked, and none would take it.
func (u *upstream) unsayable(command string, err error) error {
	e := u.failed(command, err)
	e.Fault = FaultRefused
	return &Refusal{Reason: Policy, Err: e}
}

// refused is the error for a command that the server has answered by reply, and
// not by its consent.
func (u *upstream) refused(command string, l login, reply string) *ServerError {
	return &ServerError{Address: u.address, Proxy: u.proxy, Step: u.step, Command: command, Mailbox: l.mailbox,
		Fault: FaultUnexpected, Reply: quoted(reply, 300), gateway: u.gateway}
}

// backoffAsked is how Exchange asks to be left alone.
var backoffAsked = regexp.MustCompile(`(?i)suggested backoff time: (\d{1,9}) milliseconds`)

// askedForPause tells that a server puts off whoever comes now, whatever else
// its answer says.
func askedForPause(reply string) bool { return strings.Contains(strings.ToLower(reply), "throttled") }

// putOff is the Refusal for an answer by which a server puts a sign-in off.
func (e *ServerError) putOff(reply string) *Refusal {
	r := &Refusal{Reason: Unavailable, Err: e}
	e.Fault = FaultTemporary
	if askedForPause(reply) {
		e.Fault = FaultThrottled
	}
	if m := backoffAsked.FindStringSubmatch(reply); m != nil {
		ms, _ := strconv.Atoi(m[1])
		e.Fault, e.Wait = FaultThrottled, time.Duration(ms)*time.Millisecond
		r.Public = publicPause
	}
	return r
}

// notLetIn is the Refusal for an answer that waiting does not change. The
// person's app password is right, and who can mend it is the administrator:
// hence [Policy].
func (e *ServerError) notLetIn(f Fault, name Protocol, l login, what string) *Refusal {
	e.Fault = f
	e.Fix = e.fixFor(name, l)
	return &Refusal{Reason: Policy, Err: e, Public: "the app password is right, but the mail server does not " + what + "; ask your administrator"}
}

const publicPause = "the mail server asks for a pause; try again later"

// base64Run is what may be a token, in base64 or base64url: a server that
// quotes the command it refuses would bring it into the log.
var base64Run = regexp.MustCompile(`[A-Za-z0-9+/=_-]{40,}`)

// quoted makes what a server said fit for a log.
func quoted(text string, n int) string { return limited(base64Run.ReplaceAllString(text, "…"), n) }

// fixFor is what mends it by the table of package explain. What went wrong is
// judged here, by code and step: the same words of a server can mean something
// else elsewhere.
func (e *ServerError) fixFor(name Protocol, l login) string {
	code := refusedCodes[name]
	switch {
	case e.Fault == FaultSMTPAuthOff:
		code = "SmtpClientAuthentication"
	case e.Fault == FaultNotConnected:
		code = "authenticated but not connected"
	case e.Step == StepMailbox && name == SMTP:
		code = "5.7.60"
	}
	x, ok := explain.Exchange(code)
	if !ok {
		return ""
	}
	return x.For(l.delegated).Fill(map[string]string{"ADDRESS": limited(l.mailbox, 100)}).Line()
}

// refusedCodes are the codes by which package explain knows a refused token.
var refusedCodes = map[Protocol]string{IMAP: "AUTHENTICATE failed", POP3: "unknown user name or bad password", SMTP: "5.7.3"}
