package clientconfig

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// aerc writes accounts.conf (aerc-accounts(5), aerc-imap(5), aerc-smtp(5)). Its
// commands are run by sh -c.
func aerc(a Account) (Config, error) {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, iniValue(value)) }
	// %(name)s would be another key's value: the quotes around it are closed and
	// opened again.
	command := strings.ReplaceAll(a.PasswordCommand(), "%(", "%''(")
	b.WriteString("[o365pw]\n")
	in := a.Servers["imap"]
	scheme := "imap" // STARTTLS
	if in.Security == "none" {
		scheme = "imap+insecure"
	}
	set("source", strings.TrimSuffix(serverURL(scheme, in, a.User), "/"))
	set("source-cred-cmd", command)
	set("default", "INBOX")
	set("from", a.Sender())
	if out, ok := a.Servers["smtp"]; ok {
		set("outgoing", strings.TrimSuffix(serverURL("smtp", out, a.User), "/"))
		set("outgoing-cred-cmd", command)
		if out.Security == "starttls" {
			set("smtp-starttls", "yes")
		}
	}
	return text("~/.config/aerc/accounts.conf", b.String(),
		append([]string{"aerc wants the file to be readable by you alone: chmod 600 ~/.config/aerc/accounts.conf"}, trusting(a, "aerc", "aerc")...)...), nil
}

// iniValue quotes a value as go-ini reads it, where that is needed: between
// backquotes all is taken as it is, up to the last of them.
func iniValue(s string) string {
	if strings.ContainsAny(s, "#;`'\"\\") {
		return "`" + s + "`"
	}
	return s
}

// alpine writes a pinerc (Alpine's help, "Configuration Notes"). Alpine takes no
// password from a command: it asks.
func alpine(a Account) (Config, error) {
	if i := strings.IndexAny(a.User, "}"); i >= 0 {
		return Config{}, fmt.Errorf("Alpine takes no %q in a user name", a.User[i:i+1])
	}
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(value, "$", "$$")) }
	server := func(s Server, protocol string) string {
		how := map[string]string{"tls": "ssl", "starttls": "tls", "none": "notls"}[s.Security]
		return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) + protocol + "/" + how + `/user="` + a.User + `"`
	}
	switch protocol, in := a.reading("imap", "pop3"); protocol {
	case "imap":
		set("inbox-path", "{"+server(in, "/imap")+"}INBOX")
		set("folder-collections", "Exchange {"+server(in, "/imap")+"}[]")
	case "pop3":
		set("inbox-path", "{"+server(in, "/pop3")+"}INBOX")
	}
	if out, ok := a.Servers["smtp"]; ok {
		set("smtp-server", server(out, ""))
	}
	_, domain, _ := strings.Cut(a.Sender(), "@")
	set("user-domain", domain)
	set("customized-hdrs", "From: "+a.Sender())
	set("default-fcc", `""`) // Exchange keeps one in Sent Items
	set("feature-list", "disable-password-file-saving")
	return text("~/.pinerc", b.String(), append([]string{"Alpine asks for the password; to see it: " + a.PasswordCommand()}, trusting(a, "alpine", "Alpine")...)...), nil
}

// himalaya writes the configuration of version 2 (config.sample.toml of
// Himalaya v2.1.0), TOML 1.0.
func himalaya(a Account) (Config, error) {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, value) }
	var command []string
	for _, arg := range a.PasswordArgs() {
		command = append(command, escapedText(arg))
	}
	b.WriteString("[accounts.o365pw]\ndefault = true\n")
	set("email", escapedText(a.Sender()))
	for _, p := range []string{"imap", "smtp"} {
		s, ok := a.Servers[p]
		if !ok {
			continue
		}
		set(p+".server", escapedText(strings.TrimSuffix(serverURL(p, s, ""), "/")))
		if s.Security == "starttls" {
			set(p+".starttls", "true")
		}
		if a.CAFile != "" {
			set(p+".tls.cert", escapedText(a.CAFile))
		}
		set(p+".sasl.plain.username", escapedText(a.User))
		set(p+".sasl.plain.password.command", "["+strings.Join(command, ", ")+"]")
	}
	return text("~/.config/himalaya/config.toml", b.String(), "this is for Himalaya 2; version 1 has other keys"), nil
}
