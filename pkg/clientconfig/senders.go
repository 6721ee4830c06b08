package clientconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// senders are programs that send, examples for scripts, and devices.
func senders() []Client {
	only := []string{"smtp"}
	send := Scope{Allow: only, OwnSender: true}
	return slices.Concat([]Client{
		{Name: "git-send-email", Title: "git send-email", Does: "sends patches", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: gitSendEmail},
		{Name: "mailx", Title: "bsd-mailx", Does: "sends", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: mailx},
		{Name: "msmtp", Title: "msmtp", Does: "sends, in the place of sendmail", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: msmtp},
		{Name: "postfix", Title: "Postfix", Does: "relays what a machine sends", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: postfix},
		{Name: "s-nail", Title: "S-nail", Does: "sends", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: snail},
		{Name: "sendmail", Title: "o365pw sendmail", Does: "sends, for cron and whatever calls sendmail", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: sendmail},
		{Name: "swaks", Title: "swaks", Does: "sends test messages", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: swaks},
	}, scripts(), devices())
}

// command is a command of o365pw for /bin/sh.
func (a Account) command(args ...string) string {
	var words []string
	for _, arg := range slices.Concat(a.Program, args) {
		words = append(words, Shell(arg))
	}
	return strings.Join(words, " ")
}

// address tells whether the host is no name.
func (s Server) address() bool {
	_, err := netip.ParseAddr(s.Host)
	return err == nil
}

// msmtp: msmtp(1). A value is the rest of its line; quotes are taken off where
// they are around all of it, which those of a command never are.
func msmtp(a Account) (Config, error) {
	s := a.Servers["smtp"]
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + " " + value + "\n") }
	b.WriteString("# msmtp: a message that is given to it goes through the gateway of o365pw.\n")
	line("account", "o365pw")
	line("host", s.Host)
	line("port", strconv.Itoa(s.Port))
	line("from", a.Sender())
	line("auth", "plain")
	line("user", a.User)
	line("passwordeval", a.PasswordCommand())
	if s.Security == "none" {
		line("tls", "off")
	} else {
		line("tls", "on")
		line("tls_starttls", map[bool]string{true: "on", false: "off"}[s.Security == "starttls"])
		if a.CAFile != "" {
			line("tls_trust_file", a.CAFile)
		}
	}
	line("account default", ": o365pw")
	for l := range strings.Lines(b.String()) {
		if len(l) > 500 { // LINEBUFSIZE in its conf.c
			return Config{}, errors.New("msmtp takes lines of 500 bytes at most, and the command for the password is longer: give the app password a shorter name")
		}
	}
	return Config{
		Files: []File{{Path: "~/.msmtprc", Content: []byte(b.String())}},
		Steps: []string{"Try it: echo test | msmtp " + Shell(a.Sender())},
	}, nil
}

// gitSendEmail: git-send-email(1), gitcredentials(7). The helper is asked for
// this server alone.
func gitSendEmail(a Account) (Config, error) {
	s := a.Servers["smtp"]
	if strings.Contains(s.Host, ":") {
		return Config{}, errors.New("git send-email takes no IPv6 address: let the gateway listen on a name or on 127.0.0.1, by smtp in [gateway]")
	}
	var b strings.Builder
	line := func(key, value string) { b.WriteString("\t" + key + " = " + gitQuote(value) + "\n") }
	b.WriteString("# git send-email sends through the gateway of o365pw, which also knows the password.\n[sendemail]\n")
	line("from", a.Sender())
	line("smtpServer", s.Host)
	line("smtpServerPort", strconv.Itoa(s.Port))
	switch s.Security {
	case "tls":
		line("smtpEncryption", "ssl")
	case "starttls":
		line("smtpEncryption", "tls")
	}
	if s.Security != "none" && a.CAFile != "" {
		line("smtpSSLCertPath", a.CAFile)
	}
	line("smtpUser", a.User)
	fmt.Fprintf(&b, "[credential %s]\n", gitQuote("smtp://"+s.Host+":"+strconv.Itoa(s.Port)))
	line("helper", "!"+a.command("git-credential", "--app-password", a.AppPassword))
	const file = "~/.config/o365pw/git-send-email"
	return Config{
		Files: []File{{Path: file, Content: []byte(b.String())}},
		Steps: []string{
			"Have git read it; without --global, in one repository alone: git config --global --add include.path " + file,
			"Your name goes before the address in the line from, as in: from = \"Alice <" + a.Sender() + ">\"",
			"Try it: git send-email --to " + Shell(a.Sender()) + " -1",
		},
	}, nil
}

// gitQuote is a value in double quotes (git-config(1), Syntax).
func gitQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// snail: s-nail(1). It has no command for the password, but one for the file
// .netrc, which it runs only when it signs in.
func snail(a Account) (Config, error) {
	s := a.Servers["smtp"]
	scheme, more := "smtps", ""
	switch s.Security {
	case "starttls":
		scheme, more = "smtp", "set smtp-use-starttls\n"
	case "none":
		scheme = "smtp"
	}
	if s.Security != "none" {
		more += "set tls-verify=strict\n"
		if a.CAFile != "" {
			more += "set tls-ca-file=" + singleQuoted(a.CAFile) + " tls-ca-no-defaults\n"
		}
	}
	netrc := "printf 'machine %s login %s password %s\\n' " + Shell(bracketed(s.Host)) + " " + Shell(a.User) + ` "$(` + a.PasswordCommand() + `)"`
	rc := "# S-nail sends through the gateway of o365pw. Without yes, quotes are another thing.\nset v15-compat=yes\n" +
		"set from=" + singleQuoted(a.Sender()) + "\n" +
		"set mta=" + singleQuoted(scheme+"://"+escaped(a.User)+"@"+hostPort(s)) + " smtp-auth=plain\n" +
		more +
		"set netrc-lookup netrc-pipe=" + singleQuoted(netrc) + "\n"
	return Config{
		Files: []File{{Path: "~/.mailrc", Content: []byte(rc)}},
		Steps: []string{"Try it: echo test | s-nail -s test " + Shell(a.Sender())},
	}, nil
}

// singleQuoted is a word in single quotes, whatever it holds.
func singleQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// mailx: mail(1) of bsd-mailx, which hands a message to a program that takes
// sendmail's arguments. Its setting is a path alone.
func mailx(a Account) (Config, error) {
	const script = "~/.config/o365pw/sendmail"
	return Config{
		Files: []File{{Path: script, Content: []byte("#!/bin/sh\n# For bsd-mailx and others that take a path alone.\nexec " + a.command("sendmail", "--app-password", a.AppPassword) + ` "$@"` + "\n")}},
		Steps: []string{
			"Make it a program: chmod 700 " + script,
			"Put this line into ~/.mailrc: set sendmail=" + script,
			"Try it: echo test | bsd-mailx -s test " + Shell(a.Sender()),
		},
	}, nil
}

// sendmail is this program's own, for those that call /usr/sbin/sendmail.
func sendmail(a Account) (Config, error) {
	own := a.command("sendmail", "--app-password", a.AppPassword)
	program := Shell(a.Program[0])
	if !strings.Contains(program, "/") { // a link is not looked for on the PATH
		program = `"$(command -v ` + program + `)"`
	}
	steps := []string{
		"Give a program that asks for sendmail's command this one: " + own,
		"For those that have a path of their own, where no mail server is installed: sudo ln -s " + program + " /usr/sbin/sendmail",
	}
	if !strings.EqualFold(a.AppPassword, "sendmail") {
		steps = append(steps, "By that name no app password can be told: where several may send as "+a.Sender()+", it takes the one named sendmail")
	}
	return Config{Steps: append(steps,
		"cron, in the crontab of the same user: MAILTO="+a.Sender(),
		"Try it: echo test | "+own+" "+Shell(a.Sender()))}, nil
}

// swaks: swaks(1). It takes a configuration, one option a line, from a file
// alone.
func swaks(a Account) (Config, error) {
	s := a.Servers["smtp"]
	options := []string{"server " + s.Host, "port " + strconv.Itoa(s.Port), "from " + a.Sender(), "auth PLAIN", "auth-user " + a.User}
	switch s.Security {
	case "tls":
		options = append(options, "tls-on-connect")
	case "starttls":
		options = append(options, "tls")
	}
	if s.Security != "none" {
		options = append(options, "tls-verify")
		if a.CAFile != "" {
			options = append(options, "tls-ca-path "+a.CAFile)
		}
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Sends a test message; swaks takes further arguments, such as --to.\nset -eu\npassword=$(" + a.PasswordCommand() + ")\nprintf '%s\\n' \\\n")
	for _, o := range options {
		b.WriteString("\t" + singleQuoted(o) + " \\\n")
	}
	b.WriteString("\t\"auth-password $password\" |\n\tswaks --config /dev/stdin \"$@\"\n")
	return Config{
		Files: []File{{Path: "~/.config/o365pw/swaks.sh", Content: []byte(b.String())}},
		Steps: []string{"Try it: sh ~/.config/o365pw/swaks.sh --to " + Shell(a.Sender())},
	}, nil
}
