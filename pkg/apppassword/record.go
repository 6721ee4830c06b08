package apppassword

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Protocols an app password may be allowed, in the order they are shown.
var protocols = []string{"imap", "pop3", "smtp"}

// What stands behind an app password.
const (
	BackingSecret      = "secret"      // an Entra client secret of its own
	BackingUser        = "user"        // a person's sign-in, which several may share
	BackingCertificate = "certificate" // the application's certificate, which several share
	BackingNone        = "none"        // nothing: a decoy
)

// maxPerHour is the most messages an hour that an app password can be held to.
const maxPerHour = 10000

// replication is how long Graph's reads may lag behind its writes. Within it
// a new credential that a listing lacks has not been revoked.
const replication = 10 * time.Minute

// Record is what the registry holds of one app password. Nothing in it is
// secret.
type Record struct {
	ID        string         `json:"id"` // the Entra keyId where Backing is secret
	Name      string         `json:"name"`
	Profile   string         `json:"profile"`
	Tenant    string         `json:"tenant"`
	Cloud     string         `json:"cloud"`    // name of the cloud, by which the gateway finds Entra and Exchange
	ClientID  string         `json:"clientId"` // the application that holds the credential
	Mailboxes []string       `json:"mailboxes"`
	Allow     []string       `json:"allow"` // imap, pop3, smtp
	Networks  []netip.Prefix `json:"networks"`
	Backing   string         `json:"backing"`
	Hint      string         `json:"hint"` // first three characters of the Entra secret, as Graph shows them
	Created   time.Time      `json:"created"`
	Expires   time.Time      `json:"expires"`
	Keychain  string         `json:"keychain"` // which keychain holds the secrets: system or file
	// Verified tells that Entra has accepted the secret once. Until then a
	// refusal may be replication.
	Verified bool `json:"verified,omitzero"`
	// Revoked is set once Graph has taken the removal; the gateway refuses
	// from then on, also when the rest of the revocation is interrupted.
	Revoked time.Time `json:"revoked,omitzero"`

	// What follows is absent where it does not hold, so that records of
	// earlier versions keep their Revision.

	// ReadOnly lets nothing be changed over IMAP and POP3. Sending is not its
	// concern.
	ReadOnly bool `json:"readOnly,omitzero"`
	// From is what messages may be sent as: addresses, and whole domains like
	// @contoso.com, domains in lower case. Empty: whatever Exchange lets pass.
	From []string `json:"from,omitempty"`
	// MaxPerHour is how many messages may be sent an hour; 0 is no limit.
	MaxPerHour int `json:"maxPerHour,omitzero"`
	// LoginName is a user name that stands for the one mailbox, beside its
	// address; empty: none.
	LoginName string `json:"loginName,omitzero"`
	// Decoy marks an app password that never signs in and whose use raises an
	// alert. Its Backing is BackingNone, and Graph knows nothing of it.
	Decoy bool `json:"decoy,omitzero"`
	// SignIn is the id of the [SignIn] behind it, where Backing is user.
	SignIn string `json:"signIn,omitempty"`
	// Certificate is the absolute path of the PEM file with certificate and
	// key, where Backing is certificate; empty: both are in the keychain.
	Certificate string `json:"certificate,omitempty"`
	// CertificateAlg is how assertions are signed with it: PS256 or RS256;
	// empty: [entra.PS256].
	CertificateAlg string `json:"certificateAlg,omitempty"`
	// Arrived is when it came from another machine; zero: it was made here. Of the
	// time before, this machine knows no use.
	Arrived time.Time `json:"arrived,omitzero"`
	// Send is how its messages go out: auto, smtp or graph; empty: as its profile
	// says at that time.
	Send string `json:"send,omitempty"`
	// Previous is what a rotation has replaced, as long as something of it is
	// left; nil: nothing is.
	Previous *Previous `json:"previous,omitempty"`
}

// Local tells that Graph knows nothing of the app password: there is no
// credential of its own behind it.
func (r Record) Local() bool {
	return r.Decoy || r.Backing == BackingUser || r.Backing == BackingCertificate
}

// made is since when Graph has to show the credential: one that Entra has
// accepted once has reached it, and what Graph lacks then is gone.
func (r Record) made() time.Time {
	if r.Verified {
		return time.Time{}
	}
	return r.Created
}

// mailbox finds the mailbox that user names: by its address, or by the login
// name. Case does not matter.
func (r Record) mailbox(user string) (string, bool) {
	for _, m := range r.Mailboxes {
		if strings.EqualFold(m, user) {
			return m, true
		}
	}
	if r.LoginName != "" && len(r.Mailboxes) == 1 && strings.EqualFold(r.LoginName, user) {
		return r.Mailboxes[0], true
	}
	return "", false
}

// Revision changes with every field of the record: a session signed in under
// one revision is not good under another. What becomes of its Previous is no
// concern of a session that was signed in with the new password.
func (r Record) Revision() string {
	r.Previous = nil
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("record of plain values does not marshal: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Status is where an app password stands.
type Status string

// The four states of an app password.
const (
	Active     Status = "active"
	Expired    Status = "expired"
	Revoked    Status = "revoked"     // known here, gone from Graph
	RemoteOnly Status = "remote-only" // in Graph, unknown here
)

// LocalStatus is the status at a time, as far as the registry alone can tell:
// active, expired or revoked.
func (r Record) LocalStatus(now time.Time) Status {
	switch {
	case !r.Revoked.IsZero():
		return Revoked
	case !r.Expires.IsZero() && !now.Before(r.Expires):
		return Expired
	}
	return Active
}

// sameName compares names as the contract has it: without regard to case.
func sameName(a, b string) bool { return strings.EqualFold(a, b) }

// CheckName tells what is wrong with a name as an [*InvalidError].
func CheckName(name string) error {
	invalid := func(problem string) error { return &InvalidError{Field: "name", Value: name, Problem: problem} }
	switch {
	case strings.TrimSpace(name) == "":
		return invalid("is empty")
	case !utf8.ValidString(name):
		return invalid("is not UTF-8 text")
	case utf8.RuneCountInString(name) > 120:
		return invalid(fmt.Sprintf("has %d characters; 120 is the most", utf8.RuneCountInString(name)))
	case strings.ContainsFunc(name, unprintable):
		return invalid("holds control characters or line breaks")
	case uuid.Validate(name) == nil:
		return invalid("has the form of an id")
	case name != strings.TrimSpace(name):
		return invalid("begins or ends with a blank")
	}
	return nil
}

// unprintable holds for what would break a line, a terminal or the order of
// the letters on it.
func unprintable(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Bidi_Control, r) ||
		r == '\u200b' || r == '\u2060' || r == '\ufeff' || r == '\u00ad' // take no room at all
}

// CheckMailbox tells what is wrong with a mailbox address as an
// [*InvalidError]. A display name beside the address is refused too: the
// gateway compares addresses.
func CheckMailbox(address string) error {
	a, err := mail.ParseAddress(address)
	_, domain, _ := strings.Cut(address, "@")
	if err != nil || a.Address != address || strings.ContainsFunc(address, unprintable) || domain == "" || strings.ContainsAny(address, " \"\\") {
		return &InvalidError{Field: "mailbox", Value: address, Problem: "is not an address like alice@contoso.com"}
	}
	return nil
}

// ParseFrom reads what messages may be sent as, given singly or with commas:
// addresses, and domains like @contoso.com. Domains come back in lower case,
// and nothing twice. Its error is an [*InvalidError].
func ParseFrom(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		for s := range strings.SplitSeq(v, ",") {
			s = strings.TrimSpace(s)
			if err := CheckFrom(s); err != nil {
				return nil, err
			}
			local, domain, _ := strings.Cut(s, "@")
			s = local + "@" + strings.ToLower(domain)
			if !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, s) }) {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// CheckFrom tells what is wrong with one value that messages may be sent as,
// an address or @DOMAIN, as an [*InvalidError]. There are no wildcards: a
// domain does not stand for those below it.
func CheckFrom(value string) error {
	address := value
	if strings.HasPrefix(value, "@") {
		address = "x" + value
	}
	_, domain, _ := strings.Cut(address, "@")
	if CheckMailbox(address) != nil || !isDomain(domain) {
		return &InvalidError{Field: "sender", Value: value, Problem: "is neither an address like alice@contoso.com nor a domain like @contoso.com"}
	}
	return nil
}

// isDomain holds for names of hosts (RFC 5321 section 2.3.5), also in letters
// beyond ASCII (RFC 6531).
func isDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return r != '-' && !unicode.In(r, unicode.L, unicode.M, unicode.Nd)
			}) {
			return false
		}
	}
	return true
}

// CheckLoginName tells what is wrong with a login name as an [*InvalidError]:
// it has 1 to 64 ASCII letters, digits, dots, hyphens and underscores, which
// every device can type.
func CheckLoginName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	invalid := func(problem string) error {
		return &InvalidError{Field: "login name", Value: name, Problem: problem}
	}
	switch {
	case name == "":
		return invalid("is empty")
	case len(name) > 64:
		return invalid("has more than 64 characters")
	case strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(allowed, r) }):
		return invalid("may have letters, digits and . _ - only")
	}
	return nil
}

// CheckMaxPerHour tells what is wrong with a number of messages an hour as an
// [*InvalidError].
func CheckMaxPerHour(n int) error {
	if n < 1 || n > maxPerHour {
		return &InvalidError{Field: "number of messages an hour", Value: strconv.Itoa(n), Problem: fmt.Sprintf("is not between 1 and %d", maxPerHour)}
	}
	return nil
}

// sendings are the ways of [Record.Send].
var sendings = []string{"auto", "smtp", "graph"}

// CheckSend tells what is wrong with a way to send as an [*InvalidError].
func CheckSend(way string) error {
	if !slices.Contains(sendings, way) {
		return &InvalidError{Field: "way to send", Value: way, Problem: "is none of auto, smtp, graph"}
	}
	return nil
}

// ParseAllow reads protocol names, given singly or with commas, into the order
// they are shown in. Its error is an [*InvalidError].
func ParseAllow(values []string) ([]string, error) {
	var want []string
	for _, v := range values {
		for p := range strings.SplitSeq(v, ",") {
			p = strings.ToLower(strings.TrimSpace(p))
			if !slices.Contains(protocols, p) {
				return nil, &InvalidError{Field: "protocol", Value: p, Problem: "is none of imap, pop3, smtp"}
			}
			want = append(want, p)
		}
	}
	var out []string
	for _, p := range protocols {
		if slices.Contains(want, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// ParseNetworks reads networks in CIDR form, or single addresses. Its error is
// an [*InvalidError].
func ParseNetworks(values []string) ([]netip.Prefix, error) {
	out := []netip.Prefix{}
	for _, v := range values {
		for s := range strings.SplitSeq(v, ",") {
			s = strings.TrimSpace(s)
			p, err := netip.ParsePrefix(s)
			if err != nil {
				a, aerr := netip.ParseAddr(s)
				if aerr != nil || a.Zone() != "" {
					return nil, &InvalidError{Field: "network", Value: s, Problem: "is not a network like 192.168.1.0/24 or an address"}
				}
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if p.Addr().Is4In6() {
				return nil, &InvalidError{Field: "network", Value: s, Problem: "is an IPv4 network in IPv6 form; write it as IPv4"}
			}
			out = append(out, p.Masked())
		}
	}
	return out, nil
}
