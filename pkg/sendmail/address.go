package sendmail

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
)

// address is one of a list: with a domain, or a name on this machine.
type address struct {
	name string // for people
	spec string // local@domain, or the name of a user
}

// local tells that there is no domain.
func (a address) local() bool { return !strings.Contains(a.spec, "@") }

// wire is the address between the angle brackets of SMTP (RFC 5321 section
// 4.1.2): what has to be is in quotes.
func wire(spec string) string {
	return strings.TrimSuffix(strings.TrimPrefix((&mail.Address{Address: spec}).String(), "<"), ">")
}

// parseAddresses reads a list of addresses (RFC 5322 section 3.4), with what
// programs on one machine write: names of users, also with a comment behind.
func parseAddresses(list string) ([]address, error) {
	list = strings.ToValidUTF8(strings.ReplaceAll(list, "\n", " "), "?")
	if strings.Trim(list, ", \t") == "" {
		return nil, nil
	}
	var out []address
	if all, err := mail.ParseAddressList(list); err == nil {
		for _, a := range all {
			out = append(out, address{a.Name, a.Address})
		}
		return out, checked(out)
	}
	for _, item := range split(list) {
		a, err := parseAddress(item)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, checked(out)
}

// checked holds addresses to what can be in an SMTP command. The parser lets
// nothing else through; but this decides what a stranger makes of a line.
func checked(list []address) error {
	for _, a := range list {
		local, domain, found := strings.Cut(a.spec, "@")
		if i := strings.LastIndexByte(a.spec, '@'); found {
			local, domain = a.spec[:i], a.spec[i+1:]
		}
		bad := func(r rune) bool { return r < ' ' || r == 0x7f }
		if local == "" || found && domain == "" || strings.ContainsFunc(a.spec, bad) || strings.ContainsAny(domain, " <>\\\"") {
			return fmt.Errorf("%q is no address", a.spec)
		}
	}
	return nil
}

var (
	userName      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	userCommented = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._+-]*)\s*\(([^()]*)\)$`)
	userNamed     = regexp.MustCompile(`^([^<>]*?)\s*<\s*([A-Za-z0-9_][A-Za-z0-9._+-]*)\s*>$`)
)

// parseAddress reads one address, or the name of a user as in root, in
// root (Cron Daemon) and in "Cron Daemon" <root>.
func parseAddress(item string) (address, error) {
	item = strings.TrimSpace(item)
	a, err := mail.ParseAddress(item)
	if err == nil {
		return address{a.Name, a.Address}, nil
	}
	if userName.MatchString(item) {
		return address{spec: item}, nil
	}
	if m := userCommented.FindStringSubmatch(item); m != nil {
		return address{strings.TrimSpace(m[2]), m[1]}, nil
	}
	if m := userNamed.FindStringSubmatch(item); m != nil {
		return address{strings.Trim(m[1], `"`), m[2]}, nil
	}
	return address{}, fmt.Errorf("%q is no address: %s", item, strings.TrimPrefix(err.Error(), "mail: "))
}

// split is a list at its commas, but for those in quotes, comments and angle
// brackets. Nothing in it is empty.
func split(list string) []string {
	var out []string
	var item strings.Builder
	quoted, escaped, angle, depth := false, false, false, 0
	end := func() {
		if s := strings.TrimSpace(item.String()); s != "" {
			out = append(out, s)
		}
		item.Reset()
	}
	for _, r := range list {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && (quoted || depth > 0):
			escaped = true
		case r == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case r == '(':
			depth++
		case r == ')' && depth > 0:
			depth--
		case depth > 0:
		case r == '<':
			angle = true
		case r == '>':
			angle = false
		case r == ',' && !angle:
			end()
			continue
		}
		item.WriteRune(r)
	}
	end()
	return out
}
