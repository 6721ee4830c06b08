package cli

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/o365pw/o365pw/pkg/explain"
)

// administratorMessage is what to send to the administrator: what is wrong,
// what to run, for which application, and which permissions it needs for what.
// It is empty where nothing that has failed is an administrator's move.
func (d *doctor) administratorMessage(checks []check, results []result) string {
	var wrong strings.Builder
	told := map[string]bool{}
	n := 0
	powerShell := false
	for i, r := range results {
		if r.status != checkFailed || len(r.remedies) == 0 || r.remedies[0].mover != explain.Administrator {
			continue
		}
		n++
		fmt.Fprintf(&wrong, "%d. %s: %s\n", n, printable(checks[i].title), printable(r.detail))
		var theirs []remedy
		for _, m := range r.remedies {
			key := m.cause + strings.Join(m.fix, "\n")
			if m.mover == explain.Administrator && !told[key] {
				told[key] = true
				theirs = append(theirs, m)
			}
		}
		switch len(theirs) {
		case 0:
			wrong.WriteString("   - the same as before\n")
		case 1:
		default:
			wrong.WriteString("   What it can be, in the order to look:\n")
		}
		for _, m := range theirs {
			fmt.Fprintf(&wrong, "   - %s\n", m.cause)
			for _, line := range m.fix {
				fmt.Fprintf(&wrong, "       %s\n", printable(line))
				powerShell = powerShell || cmdletLine.MatchString(line)
			}
		}
	}
	if n == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("o365pw, a gateway for mail programs, cannot open the mailbox")
	switch len(d.mailboxes) {
	case 0:
	case 1:
		b.WriteString(" " + d.mailboxes[0])
	default:
		b.WriteString("es " + sentence(d.mailboxes))
	}
	fmt.Fprintf(&b, ". What it has found:\n\n%s\n", wrong.String())
	p := d.session.profile
	if powerShell {
		connect := "Connect-ExchangeOnline"
		if env := p.Cloud.ExchangeEnvironment; env != "" && env != "O365Default" {
			connect += " -ExchangeEnvironmentName " + env
		}
		fmt.Fprintf(&b, "Lines like Set-CASMailbox are for Exchange Online PowerShell: %s\n\n", connect)
	}
	fmt.Fprintf(&b, "The application: client id %s, tenant %s", p.ClientID, p.Tenant)
	if id := d.principalID(); id != "" {
		fmt.Fprintf(&b, ", object id of its service principal (enterprise application) %s", id)
	}
	kind := "application"
	if d.delegated() {
		kind = "delegated"
	}
	fmt.Fprintf(&b, "\nThe permissions it needs (%s, of Office 365 Exchange Online):\n", kind)
	for _, permission := range d.permissions() {
		fmt.Fprintf(&b, "  %s: %s\n", permission, whatFor[protocolOf(permission)])
	}
	fmt.Fprintf(&b, "Consent to them: %s/%s/adminconsent?client_id=%s\n", p.Cloud.Authority, url.PathEscape(p.Tenant), url.QueryEscape(p.ClientID))
	return b.String()
}

var whatFor = map[string]string{
	"imap": "to read the mailbox over IMAP", "pop3": "to fetch mail over POP3", "smtp": "to send for the mailbox over SMTP",
}

// cmdletLine is how a line of PowerShell begins.
var cmdletLine = regexp.MustCompile(`^[A-Z][a-z]+-[A-Z]\w+ `)

// sentence lists words as people do.
func sentence(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
