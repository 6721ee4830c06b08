package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	backings  = []string{"secret", "user", "certificate"}
	protocols = []string{"imap", "pop3", "smtp"}
	keychains = []string{"system", "file"}
	sendings  = []string{"auto", "smtp", "graph"}
	// algorithms are those of RFC 7518 that Entra takes for client assertions:
	// https://learn.microsoft.com/entra/identity-platform/certificate-credentials
	algorithms = []string{"PS256", "RS256"}

	domainForm = regexp.MustCompile(`^` + domainPattern + `$`)
	guidForm   = regexp.MustCompile(`^` + guidPattern + `$`)
	nameForm   = regexp.MustCompile(`^` + namePattern + `$`)
	// hostForm is RFC 1123 section 2.1, with underscores, which some write.
	hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*$`)
)

// namePattern is what profiles and clouds may be called.
const namePattern = `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`

const (
	minRevalidate = time.Second
	maxRevalidate = 24 * time.Hour
)

// A check says what is wrong with a value, with a hint; an empty problem means
// nothing.
type check func(value string) (problem, hint string)

// checked notes a fault where value is not empty and check finds one.
func (r *reader) checked(key path, value string, c check) {
	if value == "" {
		return
	}
	if problem, hint := c(value); problem != "" {
		r.fail(key, problem, hint)
	}
}

func checkGUID(v string) (string, string) {
	if guidForm.MatchString(v) {
		return "", ""
	}
	return fmt.Sprintf("%q is not a GUID", v), "it is the application (client) id on the app registration's page, as in 00001111-aaaa-2222-bbbb-3333cccc4444"
}

// IsGUID tells whether v has the form of a GUID.
func IsGUID(v string) bool { return guidForm.MatchString(v) }

// IsName tells whether a profile or a cloud may be called v.
func IsName(v string) bool { return nameForm.MatchString(v) }

// IsTenant tells whether v has the form of a tenant: a GUID, a domain, or one of
// the words for many.
func IsTenant(v string) bool {
	problem, _ := checkTenant(v)
	return problem == ""
}

func checkMailbox(v string) (string, string) {
	local, domain, ok := strings.Cut(v, "@")
	blank := strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == utf8.RuneError })
	if !ok || local == "" || domain == "" || blank || strings.Contains(domain, "@") || strings.ContainsAny(v, `<>,;"`) {
		return fmt.Sprintf("%q is not a mail address", v), "as in alice@contoso.com"
	}
	return "", ""
}

func checkExpires(v string) (string, string) {
	if _, err := parseExpiry(v, time.Now()); err != nil {
		return err.Error(), expiryHint
	}
	return "", ""
}

func oneOf(known []string) check {
	return func(v string) (string, string) {
		if slices.Contains(known, v) {
			return "", ""
		}
		return fmt.Sprintf("%q is not one of %s", v, strings.Join(known, ", ")), suggest(v, known, "known")
	}
}

func (r *reader) profile(name string, f fileProfile, own map[string]Cloud) Profile {
	key := func(k string) path { return path{"profiles", name, k} }
	r.name("profiles", name)
	r.checked(key("tenant"), f.Tenant, checkTenant)
	r.checked(key("client_id"), f.ClientID, checkGUID)
	r.checked(key("login_client_id"), f.LoginClientID, checkGUID)
	r.checked(key("mailbox"), f.Mailbox, checkMailbox)
	r.checked(key("backing"), f.Backing, oneOf(backings))
	r.checked(key("expires"), f.Expires, checkExpires)
	r.checked(key("keychain"), f.Keychain, oneOf(keychains))
	r.checked(key("assertion_algorithm"), f.AssertionAlgorithm, oneOf(algorithms))
	r.checked(key("send"), f.Send, oneOf(sendings))
	if f.Allow != nil && len(f.Allow) == 0 {
		r.fail(key("allow"), "is empty: nothing would be allowed", "known: "+strings.Join(protocols, ", "))
	}
	for i, p := range f.Allow {
		if problem, hint := oneOf(protocols)(p); problem != "" {
			r.fail(key("allow"), problem, hint)
		} else if slices.Contains(f.Allow[:i], p) {
			r.fail(key("allow"), fmt.Sprintf("%q is there twice", p), "")
		}
	}

	p := Profile{
		Name: name, Tenant: f.Tenant, ClientID: f.ClientID, LoginClientID: f.LoginClientID, Mailbox: f.Mailbox,
		Backing: f.Backing, Allow: f.Allow, Expires: f.Expires, CloudName: f.Cloud, Keychain: f.Keychain,
		Certificate: r.file(f.Certificate), AssertionAlgorithm: f.AssertionAlgorithm, Send: f.Send,
	}
	p.fillDefaults()
	cloud, ok := own[p.CloudName]
	if !ok {
		cloud, ok = BuiltinCloud(p.CloudName)
	}
	if !ok {
		known := slices.Concat(builtinNames(), slices.Sorted(maps.Keys(own)))
		r.fail(key("cloud"), fmt.Sprintf("there is no cloud %q", p.CloudName), suggest(p.CloudName, known, "known"))
	}
	p.Cloud = cloud
	if slices.Contains(backings, p.Backing) {
		r.checked(key("tenant"), f.Tenant, func(v string) (string, string) { return CheckTenant(v, p.Backing, cloud) })
	}
	return p
}

func (p *Profile) fillDefaults() {
	p.Backing = cmp.Or(p.Backing, DefaultBacking)
	p.Expires = cmp.Or(p.Expires, DefaultExpires)
	p.CloudName = cmp.Or(p.CloudName, DefaultCloud)
	p.Keychain = cmp.Or(p.Keychain, DefaultKeychain)
	p.AssertionAlgorithm = cmp.Or(p.AssertionAlgorithm, DefaultAssertionAlgorithm)
	p.Send = cmp.Or(p.Send, DefaultSend)
	if len(p.Allow) == 0 {
		p.Allow = []string{"imap", "smtp"}
	}
}

// name checks the name of a profile or cloud, which goes into keychain items
// and file names.
func (r *reader) name(table, name string) {
	if !nameForm.MatchString(name) {
		r.fail(path{table, name}, fmt.Sprintf("%q is not a good name", name),
			"use letters, digits, dot, underscore and hyphen, up to 64, with a letter or digit first")
	}
}

func (r *reader) cloud(name string, f fileCloud) Cloud {
	key := func(k string) path { return path{"clouds", name, k} }
	r.name("clouds", name)
	if _, ok := BuiltinCloud(name); ok {
		r.fail(path{"clouds", name}, fmt.Sprintf("%q is the name of a built-in cloud", name), "choose another name")
	}
	for k, v := range map[string]string{"authority": f.Authority, "graph": f.Graph} {
		if v == "" {
			r.fail(key(k), "is missing", "a cloud needs authority and graph")
		}
	}
	r.checked(key("authority"), f.Authority, checkURL)
	r.checked(key("graph"), f.Graph, checkURL)
	r.checked(key("exchange_resource"), f.ExchangeResource, checkResource)
	k := kin(f.Graph)
	c := Cloud{
		Name: name, Authority: strings.TrimRight(f.Authority, "/"), Graph: strings.TrimRight(f.Graph, "/"),
		GraphResource:    cmp.Or(k.GraphResource, global.GraphResource),
		ExchangeResource: strings.TrimRight(cmp.Or(f.ExchangeResource, k.ExchangeResource, global.ExchangeResource), "/"),
		CAFile:           r.file(f.CAFile),
		Portal:           k.Portal, ExchangeEnvironment: k.ExchangeEnvironment,
	}
	c.ExchangeDelegated = delegated(c.ExchangeResource)
	c.IMAP = r.endpoint(key("imap"), f.IMAP)
	c.POP3 = r.endpoint(key("pop3"), f.POP3)
	c.SMTP = r.endpoint(key("smtp"), f.SMTP)
	return c
}

// checkURL takes https, and http to this very machine: a token goes there.
func checkURL(v string) (string, string) {
	u, err := url.Parse(v)
	if err != nil || u.Opaque != "" || !goodHost(u.Hostname()) || !goodPort(u) {
		return fmt.Sprintf("%q is not a URL", redact(v)), "as in https://login.microsoftonline.com"
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "the URL has more than scheme, host and path", "as in https://login.microsoftonline.com"
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return "", ""
	case u.Scheme == "http":
		return fmt.Sprintf("%q would send tokens in clear", v), "use https; http is for 127.0.0.1, ::1 and localhost"
	}
	return fmt.Sprintf("%q does not begin with https://", v), ""
}

func checkResource(v string) (string, string) {
	u, err := url.Parse(v)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Sprintf("%q is not a resource", redact(v)), "as in https://outlook.office365.com, without /.default"
	}
	if strings.HasSuffix(u.Path, "/.default") {
		return "the resource is given with its scope", "leave /.default away"
	}
	return "", ""
}

// redact takes out what stands before an @, which may be a password.
func redact(v string) string {
	if i := strings.LastIndexByte(v, '@'); i >= 0 {
		return "…" + v[i:]
	}
	return v
}

// endpointForms are the schemes of the mail protocols with their ports and
// transport security (RFC 8314).
var endpointForms = map[string]struct {
	protocol string
	port     int
	security string
}{
	"imaps": {"imap", 993, "tls"}, "imap": {"imap", 143, "starttls"},
	"pop3s": {"pop3", 995, "tls"}, "pop3": {"pop3", 110, "starttls"},
	"smtps": {"smtp", 465, "tls"}, "smtp": {"smtp", 587, "starttls"},
}

func (r *reader) endpoint(key path, v string) Endpoint {
	protocol := key[len(key)-1]
	if v == "" {
		return Endpoint{}
	}
	hint := fmt.Sprintf("as in %ss://host:port (TLS) or %s://host:port (STARTTLS)", protocol, protocol)
	u, err := url.Parse(v)
	if err != nil || u.Opaque != "" || !goodHost(u.Hostname()) || !goodPort(u) {
		r.fail(key, fmt.Sprintf("%q is not the URL of a mail server", redact(v)), hint)
		return Endpoint{}
	}
	form, ok := endpointForms[u.Scheme]
	if !ok || form.protocol != protocol {
		r.fail(key, fmt.Sprintf("%q is not a scheme for %s", u.Scheme, protocol), hint)
		return Endpoint{}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		r.fail(key, "the URL has more than scheme, host and port", hint)
		return Endpoint{}
	}
	port := form.port
	if p := u.Port(); p != "" {
		port, _ = strconv.Atoi(p) // goodPort has looked
	}
	return Endpoint{Host: u.Hostname(), Port: port, Security: form.security}
}

func goodHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	return len(h) <= 253 && hostForm.MatchString(h)
}

func goodPort(u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") {
		return false
	}
	if u.Port() == "" {
		return true
	}
	p, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && p > 0
}

func isLoopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

func (r *reader) gateway(f fileGateway) Gateway {
	g := DefaultGateway()
	for _, l := range []struct {
		key   string
		value *string
		into  *string
	}{{"imap", f.IMAP, &g.IMAP}, {"pop3", f.POP3, &g.POP3}, {"smtp", f.SMTP, &g.SMTP}} {
		if l.value == nil {
			g.Unnamed = append(g.Unnamed, l.key)
			continue
		}
		*l.into = *l.value
		r.checked(path{"gateway", l.key}, *l.value, CheckListen)
	}
	if len(g.Unnamed) == len(protocols) {
		g.Unnamed = nil
	}
	g.Metrics = f.Metrics
	r.checked(path{"gateway", "metrics"}, f.Metrics, CheckListen)
	g.Autoconfig = f.Autoconfig
	r.checked(path{"gateway", "autoconfig"}, f.Autoconfig, CheckListen)
	domains := path{"gateway", "autoconfig_domains"}
	if f.AutoconfigDomains != nil && len(f.AutoconfigDomains) == 0 {
		r.fail(domains, "is empty", "leave it out for the domains of the app passwords' mailboxes")
	}
	for i, d := range f.AutoconfigDomains {
		if !IsDomain(d) {
			r.fail(domains, strconv.Quote(d)+" is not a mail domain", "as in contoso.com")
		} else if slices.Contains(f.AutoconfigDomains[:i], d) {
			r.fail(domains, strconv.Quote(d)+" is there twice", "")
		}
		g.AutoconfigDomains = append(g.AutoconfigDomains, strings.ToLower(d))
	}
	g.TLSCert, g.TLSKey = r.file(f.TLSCert), r.file(f.TLSKey)
	switch {
	case f.TLSCert != "" && f.TLSKey == "":
		r.fail(path{"gateway", "tls_cert"}, "there is no tls_key to it", "give both, or neither for a certificate of the local CA")
	case f.TLSCert == "" && f.TLSKey != "":
		r.fail(path{"gateway", "tls_key"}, "there is no tls_cert to it", "give both, or neither for a certificate of the local CA")
	}
	for _, l := range []struct{ key, value string }{{"imap", f.Legacy.IMAP}, {"pop3", f.Legacy.POP3}, {"smtp", f.Legacy.SMTP}} {
		if l.value == "" {
			continue
		}
		if g.Legacy == nil {
			g.Legacy = map[string]string{}
		}
		g.Legacy[l.key] = l.value
		r.checked(path{"gateway", "legacy", l.key}, l.value, checkLegacy)
	}
	if f.Revalidate != nil {
		d, err := parseInterval(*f.Revalidate)
		if err != nil {
			r.fail(path{"gateway", "revalidate"}, err.Error(), "as in 60s")
		}
		g.Revalidate = d
	}
	return g
}

// IsDomain tells whether s is a domain as it stands in a mail address: a host name
// of two labels at least (RFC 1123 section 2.1), in any case.
func IsDomain(s string) bool { return len(s) <= 253 && domainForm.MatchString(s) }

// CheckListen tells what keeps v from being an address to listen on, host:port
// with a number for the port, and how it is to look; nothing if it is one. That
// this machine has the address, and nobody else does, is found by listening.
func CheckListen(v string) (problem, hint string) {
	const form = "as in 127.0.0.1:1993, or :1993 for every address of this machine"
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Sprintf("%q is not host:port", v), form
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("%q is not a port", port), form
	}
	if host != "" && !goodHost(strings.SplitN(host, "%", 2)[0]) {
		return fmt.Sprintf("%q is neither an address nor a host name", host), form
	}
	return "", ""
}

// checkLegacy takes addresses of private networks alone: TLS 1.0 and 1.1 keep
// nothing from those who can listen and are at it. A name may come to mean
// another address, and the address for all of a machine's includes the public
// ones.
func checkLegacy(v string) (problem, hint string) {
	if problem, hint = CheckListen(v); problem != "" {
		return problem, hint
	}
	host, _, _ := net.SplitHostPort(v) // CheckListen has looked
	hint = "name one address of this machine in its private network, as in 192.168.1.10:2587"
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && addr.IsUnspecified():
		return "old TLS on every address of this machine might be reached from anywhere", hint
	case err != nil:
		return fmt.Sprintf("%q is a name, and old TLS needs an address", host), hint
	case !isPrivate(addr):
		return fmt.Sprintf("%s is no address of a private network", host), hint
	}
	return "", ""
}

// isPrivate tells whether an address is of a private network: RFC 1918, RFC 4193,
// link-local, or this machine's own.
func isPrivate(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast()
}

func (r *reader) hooks(f fileHooks) Hooks {
	h := Hooks(f)
	r.checked(path{"hooks", "on_expiring"}, h.OnExpiring, checkCommand)
	r.checked(path{"hooks", "on_sign_in_required"}, h.OnSignInRequired, checkCommand)
	r.checked(path{"hooks", "on_refused"}, h.OnRefused, checkCommand)
	r.checked(path{"hooks", "on_decoy"}, h.OnDecoy, checkCommand)
	return h
}

func checkCommand(v string) (string, string) {
	const hint = `a line for the shell, as in "/usr/local/bin/alert --to admin@contoso.com"; leave the key out for none`
	switch {
	case strings.TrimSpace(v) == "":
		return "is blank", hint
	case strings.Contains(v, "\x00"):
		return "holds a NUL character, which no command can", hint
	}
	return "", ""
}

func parseInterval(v string) (time.Duration, error) {
	d, err := ParseDuration(v)
	switch {
	case err != nil:
		return 0, err
	case d < minRevalidate:
		return 0, fmt.Errorf("%q is shorter than %s, which Entra takes for a loop", v, minRevalidate)
	case d > maxRevalidate:
		return 0, fmt.Errorf("%q is longer than a day", v)
	}
	return d, nil
}
