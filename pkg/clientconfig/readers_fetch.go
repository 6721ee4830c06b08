package clientconfig

import (
	"fmt"
	"net/netip"
	"strings"
)

// Mail is kept in this folder by those that fetch it, as Maildir.
const (
	mailFolder  = "~/Mail"
	makeMailbox = "the folder must be there: mkdir -p ~/Mail/Inbox/cur ~/Mail/Inbox/new ~/Mail/Inbox/tmp"
)

// mbsync writes an mbsyncrc (mbsync(1)).
func mbsync(a Account) (Config, error) {
	in := a.Servers["imap"]
	b := lines{format: "%s %s\n"}
	b.set("IMAPAccount", "o365pw")
	b.set("Host", escapedText(in.Host))
	b.set("Port", fmt.Sprint(in.Port))
	b.set("User", escapedText(a.User))
	b.set("PassCmd", escapedText(a.PasswordCommand()))
	b.set("SSLType", map[string]string{"tls": "IMAPS", "starttls": "STARTTLS", "none": "None"}[in.Security])
	if a.CAFile != "" {
		b.set("CertificateFile", escapedText(a.CAFile))
	}
	b.put("\nIMAPStore o365pw-remote\nAccount o365pw\n\n")
	b.put("MaildirStore o365pw-local\nPath " + mailFolder + "/\nInbox " + mailFolder + "/Inbox\nSubFolders Verbatim\n\n")
	b.put("Channel o365pw\nFar :o365pw-remote:\nNear :o365pw-local:\nPatterns *\nCreate Near\nSyncState *\n")
	if a.ReadOnly {
		b.put("Sync Pull\n")
	}
	steps := []string{"the folder must be there: mkdir -p " + mailFolder, "then: mbsync o365pw"}
	if _, err := netip.ParseAddr(in.Host); err == nil && in.Security != "none" {
		steps = append(steps, "mbsync 1.4 compares the certificate with names only: if it refuses it, put a name of this machine in the place of "+in.Host)
	}
	return text("~/.mbsyncrc", b.text, steps...), nil
}

// offlineimap writes an offlineimaprc (offlineimap.conf, which comes with it).
// Python reads it, with %(name)s to put in.
func offlineimap(a Account) (Config, error) {
	b := lines{format: "%s = %s\n"}
	in, plain := a.Servers["imap"], func(s string) string { return strings.ReplaceAll(s, "%", "%%") }
	b.put("[general]\naccounts = o365pw\n\n")
	b.put("[Account o365pw]\nlocalrepository = o365pw-local\nremoterepository = o365pw-remote\n\n")
	b.put("[Repository o365pw-local]\ntype = Maildir\nlocalfolders = " + mailFolder + "\n\n")
	b.put("[Repository o365pw-remote]\ntype = IMAP\n")
	b.set("remotehost", in.Host)
	b.set("remoteport", fmt.Sprint(in.Port))
	b.set("remoteuser", plain(a.User))
	b.set("remotepasseval", plain(`__import__("subprocess").check_output(`+pythonTuple(a.PasswordArgs())+`, text=True).strip()`))
	b.set("ssl", yesNo(in.Security == "tls"))
	b.set("starttls", yesNo(in.Security == "starttls"))
	if a.CAFile != "" {
		b.set("sslcacertfile", plain(a.CAFile))
	} else if in.Security != "none" {
		b.set("sslcacertfile", "OS-DEFAULT")
	}
	if a.ReadOnly {
		b.set("readonly", "True")
	}
	return text("~/.offlineimaprc", b.text, "then: offlineimap -a o365pw"), nil
}

// getmail writes a getmailrc (getmail's documentation, "Configuring getmail").
func getmail(a Account) (Config, error) {
	b := lines{format: "%s = %s\n"}
	protocol, in := a.reading("imap", "pop3")
	kind := "Simple" + strings.ToUpper(protocol)
	if in.Security == "tls" {
		kind += "SSL"
	}
	b.put("[retriever]\n")
	b.set("type", kind+"Retriever")
	b.set("server", in.Host)
	b.set("port", fmt.Sprint(in.Port))
	b.set("username", a.User)
	b.set("password_command", pythonTuple(a.PasswordArgs()))
	if a.CAFile != "" && in.Security == "tls" {
		b.set("ca_certs", a.CAFile)
	}
	b.put("\n[destination]\ntype = Maildir\npath = " + mailFolder + "/Inbox/\n\n[options]\nread_all = false\ndelete = false\n")
	steps := []string{makeMailbox, "then: getmail"}
	if in.Security == "starttls" {
		steps = append(steps, "getmail has no STARTTLS: the gateway takes the password in clear from this machine alone")
	}
	return text("~/.config/getmail/getmailrc", b.text, steps...), nil
}

// pythonTuple is a tuple of texts in Python, in ASCII: the file may be read in
// any encoding.
func pythonTuple(args []string) string {
	var b strings.Builder
	b.WriteString("(")
	for i, arg := range args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(`"`)
		for _, r := range arg {
			switch {
			case r == '"' || r == '\\':
				b.WriteString(`\` + string(r))
			case r < 0x7f:
				b.WriteRune(r)
			case r <= 0xffff:
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				fmt.Fprintf(&b, `\U%08x`, r)
			}
		}
		b.WriteString(`"`)
	}
	return b.String() + ")"
}

// fetchmail writes a fetchmailrc (fetchmail(1), "The run control file"). It runs
// no command for the password, but reads its file from a pipe, where the
// password can follow.
func fetchmail(a Account) (Config, error) {
	protocol, in := a.reading("imap", "pop3")
	var b lines
	b.put("poll %s protocol %s service %d\n", escapedText(in.Host), strings.ToUpper(protocol), in.Port)
	b.put("  user %s keep\n", escapedText(a.User))
	switch in.Security {
	case "tls":
		b.put("  ssl sslcertck\n")
	case "starttls":
		b.put("  sslproto \"auto\" sslcertck\n")
	case "none":
		b.put("  sslproto \"\"\n")
	}
	if a.CAFile != "" && in.Security != "none" {
		b.put("  sslcertfile %s\n", escapedText(a.CAFile))
	}
	steps := []string{
		"fetchmail wants the file to be readable by you alone: chmod 600 ~/.fetchmailrc",
		"on a terminal it asks for the password; without one, as from cron: { cat ~/.fetchmailrc; " + a.PasswordCommand() + ` | sed 's/.*/password "&"/'; } | fetchmail --fetchmailrc -`,
		`mail goes to this machine's mail server; to give it to a program instead, put a line such as mda "/usr/bin/maildrop" at the file's end`,
	}
	if a.ReadOnly {
		steps = append(steps, "in a mailbox that cannot be changed nothing is marked as read: what is unread is fetched each time")
	}
	return text("~/.fetchmailrc", b.text, steps...), nil
}

// fdm writes an fdm.conf (fdm.conf(5)), which runs what is in $().
func fdm(a Account) (Config, error) {
	protocol, in := a.reading("imap", "pop3")
	var b lines
	b.put("$home = $(echo \"$HOME\")\nset lock-file \"${home}/.fdm.lock\"\n")
	if in.Security != "none" {
		b.put("set verify-certificates\n")
	}
	name, more := protocol, ""
	switch in.Security {
	case "tls":
		name += "s"
	case "starttls":
		more = " starttls"
	}
	only := " new-only"
	if protocol == "pop3" {
		only = ` new-only cache "${home}/.fdm.o365pw.cache"`
	}
	// What is between single quotes is the shell's alone; outside of them, a
	// backslash does not keep one from beginning a text.
	command := strings.ReplaceAll(a.PasswordCommand(), `'\''`, `'"'"'`)
	b.put("account \"o365pw\" %s server %s port %d user %s pass $(%s)%s%s keep\n",
		name, fdmText(in.Host), in.Port, fdmText(a.User), command, only, more)
	b.put("action \"inbox\" maildir \"${home}/Mail/Inbox\"\nmatch all action \"inbox\"\n")
	steps := trusting(a, "fdm fetch", "fdm")
	if steps == nil {
		steps = []string{"then: fdm fetch"}
	}
	if a.ReadOnly && protocol == "imap" {
		steps = append(steps, "in a mailbox that cannot be changed nothing is marked as read: what is unread is fetched each time")
	}
	return text("~/.fdm.conf", b.text, steps...), nil
}

// fdmText quotes a text for an fdm.conf, where ${name} and %{name} are put in.
func fdmText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, `%`, `\%`).Replace(s) + `"`
}

// mpop writes an mpoprc (mpop(1)). A value is what is left of its line.
func mpop(a Account) (Config, error) {
	in := a.Servers["pop3"]
	b := lines{format: "%s %s\n"}
	b.set("account", "o365pw")
	b.set("host", in.Host)
	b.set("port", fmt.Sprint(in.Port))
	b.set("user", a.User)
	b.set("passwordeval", a.PasswordCommand())
	if in.Security == "none" {
		b.set("tls", "off")
	} else {
		b.set("tls", "on")
		b.set("tls_starttls", map[bool]string{true: "on", false: "off"}[in.Security == "starttls"])
	}
	if a.CAFile != "" && in.Security != "none" {
		b.set("tls_trust_file", `"`+a.CAFile+`"`)
	}
	b.set("keep", "on")
	b.set("delivery", "maildir "+mailFolder+"/Inbox")
	b.put("\naccount default : o365pw\n")
	return text("~/.mpoprc", b.text, makeMailbox, "then: mpop"), nil
}
