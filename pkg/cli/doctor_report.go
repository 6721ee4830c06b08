package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// reportMark is the beginning of every report, by which one is known.
const reportMark = "o365pw doctor report\n"

// mayReport refuses to write over anything but an older report.
func mayReport(file string) error {
	if file == "" || file == "-" {
		return nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	begin := make([]byte, len(reportMark))
	if n, _ := f.Read(begin); !bytes.Equal(begin[:n], []byte(reportMark)) {
		return &usageError{problem: file + " is there already, and is no report of doctor's", hint: "choose another name: o365pw doctor --report FILE"}
	}
	return nil
}

// writeReport makes a file for its owner alone. Where something has come into
// its place since it was looked at, that is looked at again.
func writeReport(file string, text []byte) error {
	if err := mayReport(file); err != nil {
		return err
	}
	if err := durable.WriteFile(file, text); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// report is what was found without what tells whose it is.
func (d *doctor) report(f findings) []byte {
	var b strings.Builder
	b.WriteString(reportMark)
	fmt.Fprintf(&b, "o365pw %s (%s/%s), %s\n\n", version(), runtime.GOOS, runtime.GOARCH, d.a.Now().UTC().Format(time.RFC3339))
	b.WriteString(findingsText(f.masked(d.masker(f.ids)), func(_, text string) string { return text }))
	return []byte(b.String())
}

// masked is f with all of its texts masked.
func (f findings) masked(m *masker) findings {
	fix := func(r findingFix) findingFix {
		out := findingFix{Cause: m.mask(r.Cause), Mover: r.Mover}
		for _, line := range r.Fix {
			out.Fix = append(out.Fix, m.mask(line))
		}
		return out
	}
	checks := slices.Clone(f.Checks)
	for i, c := range checks {
		first := fix(findingFix{c.Cause, c.Mover, c.Fix})
		checks[i].Title, checks[i].Detail, checks[i].Cause, checks[i].Fix = m.mask(c.Title), m.mask(c.Detail), first.Cause, first.Fix
		checks[i].More = nil
		for _, r := range c.More {
			checks[i].More = append(checks[i].More, fix(r))
		}
	}
	f.Checks, f.Message = checks, m.mask(f.Message)
	return f
}

// masker puts words in place of what tells whose a report is: the same word for
// the same thing, wherever it stands.
type masker struct {
	kept  []string          // GUIDs that stay
	known map[string]string // from what is to go, in lower case, to its word
	count map[string]int    // of words by their kind
}

// masker knows what is the person's own here.
func (d *doctor) masker(kept []string) *masker {
	m := &masker{kept: kept, known: map[string]string{}, count: map[string]int{}}
	if name, err := os.Hostname(); err == nil {
		m.hide("host", name)
	}
	m.path("HOME", cmp.Or(d.a.Getenv("HOME"), d.a.Getenv("USERPROFILE")))
	if dir, err := config.StateDir(d.a.Getenv); err == nil {
		m.path("STATE", dir)
	}
	if file, err := config.ConfigPath(d.a.configPath, d.a.Getenv); err == nil {
		m.path("CONFIG", filepath.Dir(file))
	}
	m.hide("user", cmp.Or(d.a.Getenv("USER"), d.a.Getenv("USERNAME")))
	if d.session == nil {
		return m
	}
	p := d.session.profile
	m.hide("tenant", p.Tenant)
	m.hide("client-id", p.ClientID)
	m.hide("client-id", p.LoginClientID)
	m.hide("tenant", d.tenantID)
	m.hide("service-principal", d.principalID())
	m.hide("profile", p.Name)
	m.hide("cloud", map[bool]string{true: "", false: p.Cloud.Name}[isBuiltin(p.Cloud.Name)])
	m.hide("application", d.app.DisplayName)
	for _, a := range append(slices.Clone(d.mailboxes), p.Mailbox, d.mailSignIn.Username, d.claims.Username) {
		m.address(a)
	}
	if entries, err := d.session.manager.Local(); err == nil {
		for _, e := range entries {
			m.hide("app-password", e.Name)
		}
	}
	for _, c := range d.app.PasswordCredentials {
		m.hide("app-password", c.DisplayName)
	}
	choose := gateway.ProxyFromEnvironment(d.a.Getenv)
	for _, t := range d.targets() {
		m.host(t.url.Hostname())
		if via, err := choose(t.url); err == nil && via != nil {
			m.host(via.Hostname())
		}
	}
	listening := []string{d.session.gateway.IMAP, d.session.gateway.POP3, d.session.gateway.SMTP, d.session.gateway.Metrics, d.session.gateway.Autoconfig}
	if d.gateway != nil {
		for _, addr := range d.gateway.Listeners {
			listening = append(listening, addr)
		}
	}
	for _, addr := range listening {
		if u, err := url.Parse("//" + addr); err == nil {
			m.host(u.Hostname())
		}
	}
	return m
}

// hide gives text a word of a kind, unless it has one.
func (m *masker) hide(kind, text string) {
	text = strings.ToLower(strings.TrimSpace(text))
	if text == "" || m.known[text] != "" {
		return
	}
	m.count[kind]++
	m.known[text] = fmt.Sprintf("%s-%d", kind, m.count[kind])
}

// path gives a folder a word, unless it is the root.
func (m *masker) path(word, folder string) {
	if folder = filepath.Clean(folder); len(folder) > 1 {
		m.known[strings.ToLower(folder)] = word
	}
}

// host hides a name that is neither Microsoft's nor that of every machine.
func (m *masker) host(name string) {
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" || microsofts(name) {
		return // addresses are found by their form
	}
	m.hide("host", name)
}

// microsofts tells whether a host is one that everybody knows.
func microsofts(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{
		"microsoftonline.com", "microsoftonline.us", "microsoftonline.cn", "chinacloudapi.cn", "microsoft.com", "microsoft.us", "microsoft",
		"office365.com", "office365.us", "office.com", "outlook.cn", "windows.net", "outlook.com", "live.com", "aka.ms",
	}, func(of string) bool { return name == of || strings.HasSuffix(name, "."+of) }) && !strings.HasSuffix(name, ".mail.protection.outlook.com")
}

func isBuiltin(cloud string) bool {
	return slices.Contains([]string{"global", "usgov", "dod", "china"}, cloud)
}

// address gives an address a word that still looks like one: a***@c***.com.
// Others that would look the same get a number. Its domain goes, too, where it
// stands alone.
func (m *masker) address(text string) string {
	key := strings.ToLower(text)
	if word := m.known[key]; word != "" {
		return word
	}
	user, domain, ok := strings.Cut(key, "@")
	if !ok || user == "" || domain == "" {
		return text
	}
	host := m.domain(domain)
	begin := string([]rune(user)[:1]) + "***"
	m.count[begin+"@"+host]++
	if n := m.count[begin+"@"+host]; n > 1 {
		begin += fmt.Sprint(n)
	}
	m.known[key] = begin + "@" + host
	return m.known[key]
}

func (m *masker) domain(name string) string {
	if word := m.known[name]; word != "" && strings.Contains(word, "***") {
		return word
	}
	label, rest := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		label, rest = name[:i], name[i:]
	}
	if strings.HasSuffix(name, ".onmicrosoft.com") {
		label, rest = strings.TrimSuffix(name, ".onmicrosoft.com"), ".onmicrosoft.com"
	}
	word := string([]rune(label)[:1]) + "***"
	m.count[word+rest]++
	if n := m.count[word+rest]; n > 1 {
		word += fmt.Sprint(n)
	}
	m.known[name] = word + rest
	if m.known[label] == "" && len(label) > 3 {
		m.known[label] = word // as in the name of the organisation
	}
	return m.known[name]
}

var (
	anAddress = regexp.MustCompile(`[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*`)
	aGUID     = regexp.MustCompile(`[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	anIPv4    = regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b`)
	anIPv6    = regexp.MustCompile(`\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?:%[\w.-]+)?\]?`)
	aTenant   = regexp.MustCompile(`(?i)[a-z0-9-]+\.onmicrosoft\.com`)
	// What Entra tells of the tenant and the application in its errors.
	aName    = regexp.MustCompile(`(tenant named |in the directory '|'\()([^'.)]+)`)
	userInfo = regexp.MustCompile(`//[^/\s@"]+@`)
)

// mask takes everything out of a text that is known, or looks like it.
func (m *masker) mask(text string) string {
	text = userInfo.ReplaceAllString(text, "//")
	for _, found := range aName.FindAllStringSubmatch(text, -1) {
		m.hide("name", found[2])
	}
	// First what has a form, in the order in which it stands, so that parts of
	// it are not taken for something else.
	text = anAddress.ReplaceAllStringFunc(text, m.address)
	text = aGUID.ReplaceAllStringFunc(text, func(id string) string {
		if slices.ContainsFunc(m.kept, func(k string) bool { return strings.EqualFold(k, id) }) {
			return id
		}
		if m.known[strings.ToLower(id)] == "" {
			m.hide("id", id)
		}
		return m.known[strings.ToLower(id)]
	})
	for _, form := range []*regexp.Regexp{anIPv4, anIPv6} {
		text = form.ReplaceAllStringFunc(text, func(s string) string {
			ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
			if err != nil || ip.IsLoopback() || ip.IsUnspecified() {
				return s
			}
			m.hide("address", s)
			return m.known[strings.ToLower(s)]
		})
	}
	text = aTenant.ReplaceAllStringFunc(text, func(s string) string { return m.domain(strings.ToLower(s)) })
	return m.replaceKnown(text)
}

// replaceKnown replaces what is known, the longest first, where it stands as a
// word of its own.
func (m *masker) replaceKnown(text string) string {
	var parts []string
	for s := range m.known {
		if len(s) > 1 {
			parts = append(parts, s)
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var quoted []string
	for _, s := range parts {
		quoted = append(quoted, regexp.QuoteMeta(s))
	}
	if len(quoted) == 0 {
		return text
	}
	all := regexp.MustCompile(`(?i)` + strings.Join(quoted, "|"))
	var b strings.Builder
	last := 0
	for _, at := range all.FindAllStringIndex(text, -1) {
		if inWord(text, at[0], at[1]) {
			continue
		}
		b.WriteString(text[last:at[0]] + m.known[strings.ToLower(text[at[0]:at[1]])])
		last = at[1]
	}
	return b.String() + text[last:]
}

// inWord tells whether text goes on with letters or digits on either side.
func inWord(text string, from, to int) bool {
	letter := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
	}
	return from > 0 && letter(text[from-1]) && letter(text[from]) || to < len(text) && letter(text[to]) && letter(text[to-1])
}
