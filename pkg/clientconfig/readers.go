package clientconfig

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// readers are mail programs for the terminal, and those that fetch mail.
func readers() []Client {
	readAndSend := Scope{Allow: []string{"imap", "smtp"}}
	return []Client{
		{Name: "mutt", Title: "Mutt", Does: "reads and sends", Protocols: []string{"imap", "pop3", "smtp"},
			Scope: readAndSend, Checked: ByProgram, Write: mutt("~/.muttrc")},
		{Name: "neomutt", Title: "NeoMutt", Does: "reads and sends", Protocols: []string{"imap", "pop3", "smtp"},
			Scope: readAndSend, Checked: ByProgram, Write: mutt("~/.config/neomutt/neomuttrc")},
	}
}

// mutt writes Mutt's muttrc (manual, "Syntax of Initialization Files"), which
// NeoMutt reads as well. Both run what is in backquotes.
func mutt(path string) func(Account) (Config, error) {
	return func(a Account) (Config, error) {
		var b strings.Builder
		set := func(name, value string) { fmt.Fprintf(&b, "set %s = %s\n", name, value) }
		command := "\"`" + inBackquotes(a.PasswordCommand()) + "`\""
		protocol, in := a.reading("imap", "pop3")
		out, sends := a.Servers["smtp"]
		switch protocol {
		case "imap":
			set("folder", muttText(serverURL("imap", in, "")))
			set("spoolfile", `"+INBOX"`)
		case "pop3":
			set("spoolfile", muttText(serverURL("pop", in, a.User)))
			set("pop_delete", "no")
		}
		if name := strings.TrimSuffix(protocol, "3"); name != "" {
			set(name+"_user", muttText(a.User))
			set(name+"_pass", command)
		}
		set("from", muttText(a.Sender()))
		if sends {
			set("smtp_url", muttText(serverURL("smtp", out, a.User)))
			set("smtp_pass", command)
			set("copy", "no # Exchange keeps one in Sent Items")
		}
		security := in.Security
		if protocol == "" {
			security = out.Security
		}
		set("ssl_starttls", map[bool]string{true: "yes", false: "no"}[security == "starttls"])
		set("ssl_force_tls", map[bool]string{true: "no", false: "yes"}[security == "none"])
		if a.CAFile != "" {
			set("certificate_file", muttText(a.CAFile))
		}
		return Config{Files: []File{{Path: path, Content: []byte(b.String())}}}, nil
	}
}

// muttText quotes a text for a muttrc.
func muttText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(s) + `"`
}

// inBackquotes writes a command of [Account.PasswordCommand] so that none of its
// backquotes ends it. They are between single quotes, where a backslash would
// be the shell's to see: they go between two texts that are quoted.
func inBackquotes(command string) string {
	return strings.ReplaceAll(command, "`", "'\\`'")
}

// serverURL is a server as many programs take it: scheme://user@host:port, with
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

// escaped is a text for a URL, with all that has a meaning in some part of one
// escaped, "+" and "&" among it: not all who read it know which part they are in.
func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// hostPort is host:port, an IPv6 address in brackets.
func hostPort(s Server) string { return bracketed(s.Host) + ":" + strconv.Itoa(s.Port) }

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return cmp.Or(host, "localhost")
}
