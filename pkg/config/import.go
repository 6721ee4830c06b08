package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Imported is what the configuration of another program says about one account,
// in the terms of a profile. Nothing in it is a secret.
type Imported struct {
	Name        string   // proposed for the profile, from the address; each in a file has another
	Mailbox     string   // may be empty
	Tenant      string   // may be empty
	ClientID    string   // may be empty
	Backing     string   // user, secret or certificate
	Allow       []string // of imap, pop3, smtp; at least one
	Cloud       string   // a built-in one
	Certificate string   // absolute path of a PEM file with certificate and key; may be empty

	IMAP, POP3, SMTP string // host:port that the program listens on, as in [gateway]; empty where it does not

	Notes   []string // for people: what was left out or is open, and what to do about it
	Skipped string   // why the account makes no profile; then only Mailbox is filled in beside it
}

// Settings are the keys of the profile, for SetProfile; what is empty, and what is
// the default, is left out.
func (i Imported) Settings() []Setting {
	var all []Setting
	for _, s := range []Setting{
		{"tenant", i.Tenant}, {"client_id", i.ClientID}, {"mailbox", i.Mailbox}, {"backing", i.Backing}, {"certificate", i.Certificate},
	} {
		if s.Value != "" {
			all = append(all, s)
		}
	}
	all = append(all, Setting{"allow", i.Allow})
	if i.Cloud != DefaultCloud {
		all = append(all, Setting{"cloud", i.Cloud})
	}
	return all
}

func (i *Imported) note(format string, args ...any) {
	i.Notes = append(i.Notes, fmt.Sprintf(format, args...))
}

var (
	proxySection = regexp.MustCompile(`(?m)^[ \t]*\[((IMAP|POP|SMTP)-[0-9]+|[^\]\r\n]*@[^\r\n]*|emailproxy)\]`)
	davmailKey   = regexp.MustCompile(`(?m)^[ \t\f]*davmail\.[A-Za-z]`)
)

// Import reads the file at path, which may be the configuration of
// email-oauth2-proxy or of DavMail; its content decides. Errors are *Error: the
// file cannot be read, is neither of them, or is damaged.
func Import(path string) ([]Imported, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, &Error{Path: path, Problem: "cannot be found", Err: err}
	}
	// A pipe that nobody writes to would be waited for without end.
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return nil, &Error{Path: file, Problem: "cannot be read: it is no regular file", Hint: "name an emailproxy.config or a davmail.properties"}
	}
	f, err := os.Open(file)
	if err != nil {
		e := &Error{Path: file, Problem: "cannot be read", Hint: "name the configuration to import", Err: err}
		if pe, ok := errors.AsType[*os.PathError](err); ok {
			e.Problem += ": " + pe.Err.Error()
		}
		return nil, e
	}
	defer f.Close()
	data, err := readImport(f)
	var all []Imported
	if err == nil {
		defer clear(data)
		switch text := bytes.TrimPrefix(data, bom); {
		case proxySection.Match(text):
			all, err = importEmailProxy(data)
		case davmailKey.Match(text):
			all, err = importDavMail(data)
		default:
			err = &Error{Problem: "this is neither a configuration of email-oauth2-proxy nor of DavMail", Hint: "name an emailproxy.config or a davmail.properties"}
		}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Path = file
	}
	return all, err
}

// readImport reads a file that may hold secrets, without copies of it that the
// caller could not clear.
func readImport(r io.Reader) ([]byte, error) {
	data := make([]byte, maxFile+1)
	n, err := io.ReadFull(r, data)
	switch {
	case err == nil:
		clear(data)
		return nil, &Error{Problem: fmt.Sprintf("is longer than %d bytes", maxFile), Hint: "name an emailproxy.config or a davmail.properties"}
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		clear(data)
		return nil, &Error{Problem: "cannot be read: " + err.Error(), Err: err}
	}
	return data[:n], nil
}

// eachLine gives number and text of each line, whichever way it ends.
func eachLine(data []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		data = bytes.TrimPrefix(data, bom)
		for n := 1; len(data) > 0; n++ {
			line, rest := data, []byte(nil)
			if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
				line, rest = data[:i], data[i+1:]
				if data[i] == '\r' && len(rest) > 0 && rest[0] == '\n' {
					rest = rest[1:]
				}
			}
			if !yield(n, line) {
				return
			}
			data = rest
		}
	}
}

// Hosts of Entra and of the mail servers, beside those of the built-in clouds: of
// personal accounts, and former names.
var (
	moreLogins = map[string]string{
		"login.windows.net": "global", "login.microsoft.com": "global", "sts.windows.net": "global", "login.live.com": "global",
		"login.partner.microsoftonline.cn": "china",
	}
	moreMail = map[string]string{
		"outlook.office.com": "global", "smtp-mail.outlook.com": "global", "imap-mail.outlook.com": "global", "pop-mail.outlook.com": "global",
	}
)

// cloudOfLogin is the cloud of a sign-in host, or empty. GCC High and DoD share
// one: it gives the former.
func cloudOfLogin(host string) string {
	host = strings.ToLower(host)
	for _, c := range builtin {
		if host == hostOf(c.Authority) {
			return c.Name
		}
	}
	return moreLogins[host]
}

// cloudOfMail is the cloud of a mail server or of an Exchange resource, or empty.
func cloudOfMail(host string) string {
	host = strings.ToLower(host)
	for _, c := range builtin {
		if slices.Contains([]string{c.IMAP.Host, c.POP3.Host, c.SMTP.Host, hostOf(c.ExchangeResource), hostOf(c.ExchangeDelegated)}, host) {
			return c.Name
		}
	}
	return moreMail[host]
}

// personalDomain is what addresses of personal accounts mostly end in.
var personalDomain = regexp.MustCompile(`(?i)@(outlook|hotmail|live|msn)\.([a-z]{2,3}|com?\.[a-z]{2})$`)

// IsPersonalAddress tells whether an address looks like that of a personal
// account (Outlook.com), whose tenant is consumers. Personal accounts may have
// other addresses, too.
func IsPersonalAddress(address string) bool { return personalDomain.MatchString(address) }

// takeTenant fills in the tenant from the first part of an address's path, where
// it can be one. Those of personal accounts become consumers.
func (i *Imported) takeTenant(v string) {
	if problem, hint := checkTenant(v); problem != "" {
		i.note("no tenant was taken over: %s; %s", problem, hint)
		return
	}
	if strings.EqualFold(v, "common") && i.Backing == "user" && i.Cloud == DefaultCloud && IsPersonalAddress(i.Mailbox) {
		v = "consumers"
		i.note("%s looks like a personal account, so that the tenant is consumers, not common", i.Mailbox)
	}
	cloud, _ := BuiltinCloud(i.Cloud)
	if problem, hint := CheckTenant(v, i.Backing, cloud); problem != "" {
		i.note("no tenant was taken over: %s; %s", problem, hint)
		return
	}
	i.Tenant = v
}

// knownClients are client ids of other programs' own registrations.
var knownClients = map[string]string{
	davmailClientID:                        "DavMail",
	"9e5f94bc-e8a4-4e73-b8be-63364c29d753": "Mozilla Thunderbird",
	"d3590ed6-52b3-4102-aeff-aad2292ab01c": "Microsoft Office",
	"04b07795-8ddb-461a-bbee-02f9e1bf7b46": "the Azure CLI",
	"14d82eec-204b-4c2f-b7e8-296a70dab67e": "Microsoft Graph Command Line Tools",
}

// takeClientID fills in the client id, where it is one.
func (i *Imported) takeClientID(v string) {
	if problem, hint := checkGUID(v); problem != "" {
		if v == "" {
			problem = "there is none"
		}
		i.note("no client id was taken over: %s; %s", problem, hint)
		return
	}
	i.ClientID = strings.ToLower(v)
	if owner := knownClients[i.ClientID]; owner != "" {
		i.note("client id %s is %s's own: consent and sign-in logs show that name, and tenants block it; "+
			"a registration of your own is better (o365pw setup). Keep it only where that is not allowed and this one has consent for IMAP, POP and SMTP", i.ClientID, owner)
	}
}

// takeMailbox fills in the mailbox, where the name of an account is one.
func (i *Imported) takeMailbox(account string) {
	if problem, _ := checkMailbox(account); problem != "" {
		i.note("no mailbox was taken over: %s", problem)
		return
	}
	i.Mailbox = account
}

// takeListen notes where the program listens for the protocol.
func (i *Imported) takeListen(protocol, host string, port uint16) {
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if problem, _ := CheckListen(addr); problem != "" {
		i.note("the address that it listens on for %s was not taken over: %s", protocol, problem)
		return
	}
	switch protocol {
	case "imap":
		i.IMAP = addr
	case "pop3":
		i.POP3 = addr
	case "smtp":
		i.SMTP = addr
	}
}

// localPort reads a number from 1 to 65535; 0 is none.
func localPort(v string) uint16 {
	n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// nameProfiles proposes a name for each profile: what stands before the @, then
// with the domain's first part, then with a number.
func nameProfiles(all []Imported) {
	taken, count := map[string]bool{}, map[string]int{}
	for n := range all {
		i := &all[n]
		if i.Skipped != "" {
			continue
		}
		local, domain, _ := strings.Cut(i.Mailbox, "@")
		if i.Name != "" {
			local, domain = i.Name, ""
		}
		domain, _, _ = strings.Cut(domain, ".")
		name := profileName(local)
		if taken[name] && domain != "" {
			name = profileName(local + "-" + domain)
		}
		for base := name; taken[name]; {
			count[base]++
			name = base + "-" + strconv.Itoa(count[base]+1)
		}
		taken[name] = true
		i.Name = name
	}
}

// profileName makes a good name of s, short enough for a number behind it.
func profileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if nameForm.MatchString("x" + string(r)) {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	s = strings.TrimLeft(s[:min(len(s), 50)], "._-")
	s = strings.TrimRight(s, "._-")
	if s == "" {
		return "mail"
	}
	return s
}

// urlOf reads an address of which only host and path matter; what is none gives
// an empty one.
func urlOf(v string) *url.URL {
	u, err := url.Parse(strings.TrimSpace(v))
	if err != nil {
		return &url.URL{}
	}
	return u
}
