package clientconfig

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// readers are mail programs for the terminal, and those that fetch mail.
func readers() []Client {
	people := Scope{Allow: []string{"imap", "smtp"}}
	imap, either := []string{"imap"}, []string{"imap", "pop3"}
	fetch, look := Scope{Allow: imap}, Scope{Allow: imap, ReadOnly: true}
	return []Client{
		{Name: "aerc", Title: "aerc", Does: "reads and sends", Protocols: []string{"imap", "smtp"}, Needs: imap, Scope: people, Checked: ByProgram, Write: aerc},
		{Name: "alpine", Title: "Alpine", Does: "reads and sends", Protocols: []string{"imap", "pop3", "smtp"}, Scope: people, Checked: ByProgram, Write: alpine},
		{Name: "fdm", Title: "fdm", Does: "fetches", Protocols: either, Scope: fetch, Checked: ByProgram, Write: fdm},
		{Name: "fetchmail", Title: "fetchmail", Does: "fetches", Protocols: either, Scope: fetch, Checked: ByProgram, Write: fetchmail},
		{Name: "getmail", Title: "getmail", Does: "fetches", Protocols: either, Scope: look, Checked: ByProgram, Write: getmail},
		{Name: "himalaya", Title: "Himalaya 2", Does: "reads and sends", Protocols: []string{"imap", "smtp"}, Scope: people, Checked: ByFormat, Write: himalaya},
		{Name: "mbsync", Title: "mbsync (isync)", Does: "keeps a copy in step", Protocols: imap, Needs: imap, Scope: fetch, Checked: ByProgram, Write: mbsync},
		{Name: "mpop", Title: "mpop", Does: "fetches", Protocols: []string{"pop3"}, Needs: []string{"pop3"}, Scope: Scope{Allow: []string{"pop3"}, ReadOnly: true}, Checked: ByProgram, Write: mpop},
		{Name: "mutt", Title: "Mutt", Does: "reads and sends", Protocols: []string{"imap", "pop3", "smtp"}, Scope: people, Checked: ByProgram,
			Write: func(a Account) (Config, error) { return mutt(a, "~/.muttrc", inMutt), nil }},
		{Name: "neomutt", Title: "NeoMutt", Does: "reads and sends", Protocols: []string{"imap", "pop3", "smtp"}, Scope: people, Checked: ByProgram,
			Write: func(a Account) (Config, error) { return mutt(a, "~/.config/neomutt/neomuttrc", inNeoMutt), nil }},
		{Name: "offlineimap", Title: "OfflineIMAP", Does: "keeps a copy in step", Protocols: imap, Needs: imap, Scope: fetch, Checked: ByProgram, Write: offlineimap},
	}
}

// mutt writes Mutt's muttrc (manual, "Syntax of Initialization Files"), which
// NeoMutt reads as well. Both run what is in backquotes, but do not agree on
// how it is quoted.
func mutt(a Account, path string, quoted func(command string) string) Config {
	b := lines{format: "set %s = %s\n"}
	command := "\"`" + quoted(a.PasswordCommand()) + "`\""
	protocol, in := a.reading("imap", "pop3")
	out, sends := a.Servers["smtp"]
	switch protocol {
	case "imap":
		b.set("folder", muttText(serverURL("imap", in, "")))
		b.set("spoolfile", `"+INBOX"`)
		b.set("imap_user", muttText(a.User))
		b.set("imap_pass", command)
	case "pop3":
		b.set("spoolfile", muttText(serverURL("pop", in, "")))
		b.set("pop_user", muttText(a.User))
		b.set("pop_pass", command)
	default:
		in = out
	}
	b.set("from", muttText(a.Sender()))
	if sends {
		b.set("smtp_url", muttText(serverURL("smtp", out, a.User)))
		b.set("smtp_pass", command)
		b.set("copy", "no # Exchange keeps one in Sent Items")
	}
	b.set("ssl_starttls", yesNo(in.Security == "starttls"))
	b.set("ssl_force_tls", yesNo(in.Security != "none"))
	if a.CAFile != "" {
		b.set("certificate_file", muttText(a.CAFile))
	}
	return text(path, b.text)
}

// muttText quotes a text for a muttrc.
func muttText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(s) + `"`
}

// inMutt writes a command of [Account.PasswordCommand] between Mutt's
// backquotes. Behind a backslash one does not end the command, and the shell
// sees both: so it goes between two texts that are quoted.
func inMutt(command string) string { return strings.ReplaceAll(command, "`", "'\\`'") }

// inNeoMutt is the same for NeoMutt, which takes the backslashes away, and puts
// variables in, before the shell sees anything.
func inNeoMutt(command string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", `$`, `\$`).Replace(command)
}

// lines are those of a configuration file.
type lines struct {
	text   []byte
	format string // of a setting: its name, its value
}

func (l *lines) set(name, value string) { l.put(l.format, name, value) }

func (l *lines) put(format string, args ...any) { l.text = fmt.Appendf(l.text, format, args...) }

// text is a configuration that is one file of text.
func text(path string, content []byte, steps ...string) Config {
	return Config{Files: []File{{Path: path, Content: content}}, Steps: steps}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// serverURL is a server as many programs take it: scheme://user@host:port/, with
// an s behind the scheme for TLS from the first byte (RFC 3986).
func serverURL(scheme string, s Server, user string) string {
	if s.Security == "tls" {
		scheme += "s"
	}
	if user != "" {
		user = escaped(user) + "@"
	}
	return scheme + "://" + user + hostPort(s) + "/"
}

// escaped is a text in a URL: QueryEscape leaves nothing that has a meaning in
// any part of one.
func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func hostPort(s Server) string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// bracketed is a host where a port may follow, or a name is meant otherwise (RFC
// 3986 section 3.2.2).
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// escapedText is a text between double quotes, in which a backslash takes the
// meaning from both.
func escapedText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// trusting is how a program is called that trusts what OpenSSL's variable names,
// and has no setting for it; Go's programs read the variable too.
func trusting(a Account, program, title string) []string {
	if a.CAFile == "" {
		return nil
	}
	return []string{"start it so that it trusts the gateway's authority, for which " + title + " has no setting: SSL_CERT_FILE=" + Shell(a.CAFile) + " " + program}
}
