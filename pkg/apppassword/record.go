package apppassword

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Protocols an app password may be allowed, in the order they are shown.
var protocols = []string{"imap", "pop3", "smtp"}

// BackingSecret is the backing in which an Entra client secret of its own
// stands behind each app password.
const BackingSecret = "secret"

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
}

// Revision changes with every field of the record: a session signed in under
// one revision is not good under another.
func (r Record) Revision() string {
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

// localStatus is the status as far as the registry alone can tell.
func (r Record) localStatus(now time.Time) Status {
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
