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
	b := lines{format: "%s = %s\n"}
	// %(name)s would be another key's value: the quotes around it are closed and
	// opened again.
	command := strings.ReplaceAll(a.PasswordCommand(), "%(", "%''(")
	b.put("[o365pw]\n")
	in := a.Servers["imap"]
	scheme := "imap" // STARTTLS
	if in.Security == "none" {
		scheme = "imap+insecure"
	}
	b.set("source", strings.TrimSuffix(serverURL(scheme, in, a.User), "/"))
	b.set("source-cred-cmd", iniValue(command))
	b.set("default", "INBOX")
	b.set("from", iniValue(a.Sender()))
	if out, ok := a.Servers["smtp"]; ok {
		b.set("outgoing", strings.TrimSuffix(serverURL("smtp", out, a.User), "/"))
		b.set("outgoing-cred-cmd", iniValue(command))
		if out.Security == "starttls" {
			b.set("smtp-starttls", "yes")
		}
	}
	return text("~/.config/aerc/accounts.conf", b.text,
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
		return Config{}, fmt.Errorf("a user name for Alpine cannot hold %q", a.User[i:i+1])
	}
	b := lines{format: "%s=%s\n"}
	server := func(s Server, protocol string) string {
		how := map[string]string{"tls": "ssl", "starttls": "tls", "none": "notls"}[s.Security]
		return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) + protocol + "/" + how + `/user="` + a.User + `"`
	}
	switch protocol, in := a.reading("imap", "pop3"); protocol {
	case "imap":
		b.set("inbox-path", "{"+server(in, "/imap")+"}INBOX")
		b.set("folder-collections", "Exchange {"+server(in, "/imap")+"}[]")
	case "pop3":
		b.set("inbox-path", "{"+server(in, "/pop3")+"}INBOX")
	}
	if out, ok := a.Servers["smtp"]; ok {
		b.set("smtp-server", server(out, ""))
	}
	_, domain, _ := strings.Cut(a.Sender(), "@")
	b.set("user-domain", domain)
	b.set("customized-hdrs", "From: "+a.Sender())
	b.set("default-fcc", `""`) // Exchange keeps one in Sent Items
	b.set("feature-list", "disable-password-file-saving")
	// $name is a variable of the environment.
	content := []byte(strings.ReplaceAll(string(b.text), "$", "$$"))
	return text("~/.pinerc", content, append([]string{"Alpine asks for the password; to see it: " + a.PasswordCommand()}, trusting(a, "alpine", "Alpine")...)...), nil
}

// himalaya writes the configuration of version 2 (config.sample.toml of
// Himalaya v2.1.0), TOML 1.0.
func himalaya(a Account) (Config, error) {
	b := lines{format: "%s = %s\n"}
	var command []string
	for _, arg := range a.PasswordArgs() {
		command = append(command, escapedText(arg))
	}
	b.put("[accounts.o365pw]\ndefault = true\n")
	b.set("email", escapedText(a.Sender()))
	for _, p := range []string{"imap", "smtp"} {
		s, ok := a.Servers[p]
		if !ok {
			continue
		}
		b.set(p+".server", escapedText(strings.TrimSuffix(serverURL(p, s, ""), "/")))
		if s.Security == "starttls" {
			b.set(p+".starttls", "true")
		}
		if a.CAFile != "" {
			b.set(p+".tls.cert", escapedText(a.CAFile))
		}
		b.set(p+".sasl.plain.username", escapedText(a.User))
		b.set(p+".sasl.plain.password.command", "["+strings.Join(command, ", ")+"]")
	}
	return text("~/.config/himalaya/config.toml", b.text, "this is for Himalaya 2; version 1 has other keys"), nil
}
