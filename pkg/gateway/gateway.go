// Package gateway lets mail clients that know only a user name and a password
// into a mailbox whose server takes OAuth 2.0 alone.
//
// A [Server] listens, asks for the sign-in in the client's own protocol, lets
// its [Backend] judge it, connects to the upstream (Exchange Online) and signs
// in there by XOAUTH2. Only when the upstream has accepted is the client told
// so; from then on it passes on what both say.
//
// What it guarantees:
//
//   - A password is taken over TLS, or in clear from a loopback address. From
//     anywhere else it is refused before the backend hears of it.
//   - The client's OK means that the upstream has opened the mailbox. Every
//     refusal carries a public text for the person, in the protocol's terms
//     (RFC 5530 response codes), and a private cause for the log.
//   - A session whose app password is revoked, changed or expired ends within
//     a second of [Server.Recheck], of its expiry, or of the revalidation that
//     found it refused, with a BYE where the stream is between two responses.
//     An outage never ends a session.
//   - A client is held to the scope of its app password: read-only over IMAP
//     and POP3, the senders and the number of messages over SMTP.
//   - Wrong passwords never reach the upstream. From the sixth on, each costs
//     its address, and its user name, a growing delay.
//   - A shutdown lets a message that is being stored or sent arrive.
//   - A message that goes by Graph, since SMTP is closed, goes to whom the client
//     has named and to nobody else, and not twice. The client's 250 means that
//     Graph has it; nothing is kept here.
//   - One session's fault, a panic included, stays with that session.
//   - No password and no token is logged.
//
// After sign-in, IMAP is passed on as it comes, and followed only as far as it
// takes to know where a response or an APPEND ends; with a read-only app
// password each command is read whole before it may pass. POP3 and SMTP
// commands are always read one by one, and paired with their replies.
package gateway

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Protocol is a mail protocol, by the name that configuration, scope and
// output use for it.
type Protocol string

// The protocols of a mail client.
const (
	IMAP Protocol = "imap" // RFC 9051, RFC 3501
	POP3 Protocol = "pop3" // RFC 1939
	SMTP Protocol = "smtp" // submission, RFC 6409
)

// Attempt is one sign-in as a mail client asked for it.
type Attempt struct {
	Protocol Protocol
	User     string         // as typed; up to 8 KiB of anything but NUL
	Password secret.Text    // as typed: spaces and dashes are the backend's to ignore
	Remote   netip.AddrPort // the client's address; IPv4 is never in its IPv6 form
}

// Grant is what an accepted [Attempt] may do: one app password's record, as
// it was at that moment.
type Grant struct {
	ID         string    // the app password's id, a GUID
	Name       string    // the app password's name, for people
	Profile    string    // the profile it belongs to
	Mailbox    string    // the address to open; goes into XOAUTH2 as the user
	Expires    time.Time // the session is closed then; zero means never
	Credential string    // the backing credential; grants that share it are revalidated together
	Revision   string    // of the record, for [Backend.Allowed] to compare
	Upstream   Upstream

	// Delegated tells that the token is that of a person who signed in, and not
	// the application's own. The mailbox may be another's, as of a shared one:
	// the server decides by the token whether the person may open it.
	Delegated bool

	ReadOnly   bool     // IMAP and POP3 commands that change the mailbox are refused
	From       []string // senders that MAIL FROM may name, addresses or @domain, in any case; empty: any
	MaxPerHour int      // messages that may be sent within an hour; 0: any number
	Send       Sending  // how messages go out over SMTP; empty: by the upstream
	Quota      string   // what they are counted under, by all grants that share it; empty: ID
}

// expired goes by the wall clock, which is what expiries are written in.
func (g Grant) expired() bool { return !g.Expires.IsZero() && !time.Now().Before(g.Expires) }

// Upstream says where the mailbox is served.
type Upstream struct {
	Address  string      // host:port; every address of the host is tried
	StartTLS bool        // TLS is begun by STARTTLS rather than at once
	TLS      *tls.Config // nil: the system's roots and the host of Address

	// ByGraph tells that no message goes there: the app password sends by Graph
	// alone.
	ByGraph bool
}

// Backend judges sign-ins. Its methods are called from many goroutines at
// once. An error that is no [*Refusal] is taken for a fault of the backend:
// the client is told "unavailable", the log gets the error.
type Backend interface {
	// SignIn finds the app password that user and password belong to, and
	// whether it may be used for this protocol, mailbox and address. With a
	// refusal, the grant names the app password (ID, Name, Profile) where the
	// password did match one.
	SignIn(ctx context.Context, attempt Attempt) (Grant, error)

	// Token returns an access token for the upstream, from a cache where it
	// has one with enough life left.
	Token(ctx context.Context, grant Grant) (secret.Text, error)

	// Allowed says whether the record is still as it was at sign-in. It is
	// asked often and must answer at once, from memory. It refuses by
	// [*Refusal]; any other error leaves open sessions alone.
	Allowed(grant Grant) error

	// Revalidate asks whether the backing credential is still accepted where
	// it comes from. A [*Refusal], unless its reason is [Unavailable], closes
	// every session of that credential; any other error is an outage and
	// closes nothing.
	Revalidate(ctx context.Context, grant Grant) error

	// Upstreams are the servers that app passwords lead to in this protocol.
	// Clients of POP3 and SMTP are told before sign-in what those can do.
	Upstreams(protocol Protocol) []Upstream
}
