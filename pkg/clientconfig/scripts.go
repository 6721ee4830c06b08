package clientconfig

import (
	"fmt"
	"strconv"
	"strings"
)

// scripts are examples for programs of one's own.
func scripts() []Client {
	return []Client{
		{Name: "curl", Title: "curl", Does: "reads and sends, in scripts", Protocols: []string{"imap", "pop3", "smtp"}, Checked: ByProgram, Write: curl},
		{Name: "python", Title: "Python", Does: "reads and sends, in programs", Protocols: []string{"imap", "pop3", "smtp"}, Checked: ByProgram, Write: python},
	}
}

// curl: curl(1). The password comes to it in a configuration on its standard
// input.
func curl(a Account) (Config, error) {
	options := func(protocol string, s Server) string {
		url := fmt.Sprintf("%s://%s:%d/", protocol, bracketed(s.Host), s.Port)
		more := ""
		switch s.Security {
		case "tls":
			url = fmt.Sprintf("%ss://%s:%d/", protocol, bracketed(s.Host), s.Port)
		case "starttls":
			more = " --ssl-reqd"
		}
		if s.Security != "none" && a.CAFile != "" {
			more += " --cacert " + Shell(a.CAFile)
		}
		return more + " " + Shell(url)
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\npassword=$(" + a.PasswordCommand() + ")\n\n# signed_in runs curl with the user name and the password.\nsigned_in() {\n" +
		"\tprintf '%s%s\"\\n' " + singleQuoted(`user = "`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.User)+":") + ` "$password" |` + "\n" +
		"\t\tcurl --silent --show-error --config - \"$@\"\n}\n")
	steps := []string{}
	const file = "~/.config/o365pw/curl.sh"
	if s, ok := a.Servers["smtp"]; ok {
		b.WriteString("\n# sh curl.sh FILE ADDRESS... sends the message in a file.\nif [ $# -gt 1 ]; then\n\tmessage=$1\n\tshift\n" +
			"\tfor address in \"$@\"; do\n\t\tset -- \"$@\" --mail-rcpt \"$address\"\n\t\tshift\n\tdone\n" +
			"\tsigned_in --crlf --mail-from " + Shell(a.Sender()) + " \"$@\" --upload-file \"$message\"" + options("smtp", s) + "\n\texit\nfi\n")
		steps = append(steps, "Send: sh "+file+" message.eml "+Shell(a.Sender()))
	}
	switch protocol, s := a.reading("imap", "pop3"); protocol {
	case "imap":
		b.WriteString("\n# sh curl.sh prints the folders. A message: the URL with INBOX/;MAILINDEX=1 behind it.\nsigned_in" + options("imap", s) + "\n")
		steps = append(steps, "Read: sh "+file)
	case "pop3":
		b.WriteString("\n# sh curl.sh prints the messages' numbers and sizes. A message: the URL with its number behind it.\nsigned_in" + options("pop3", s) + "\n")
		steps = append(steps, "Read: sh "+file)
	}
	return Config{Files: []File{{Path: file, Content: []byte(b.String())}}, Steps: steps}, nil
}

// python: imaplib, poplib, smtplib and ssl of Python 3's library.
func python(a Account) (Config, error) {
	const file = "~/.config/o365pw/mail.py"
	var args []string
	for _, arg := range a.PasswordArgs() {
		args = append(args, strconv.Quote(arg)) // whose escapes Python has, too
	}
	protocol, in := a.reading("imap", "pop3")
	out, sends := a.Servers["smtp"]
	modules := []string{"ssl", "subprocess"}
	if protocol != "" {
		modules = append(modules, strings.TrimSuffix(protocol, "3")+"lib")
	}
	if sends {
		modules = append(modules, "email.message", "email.policy", "email.utils", "smtplib", "sys")
	}
	ca := "None"
	if a.CAFile != "" {
		ca = strconv.Quote(a.CAFile)
	}
	var b strings.Builder
	b.WriteString("#!/usr/bin/env python3\n")
	for _, m := range modules {
		b.WriteString("import " + m + "\n")
	}
	b.WriteString("\nADDRESS = " + strconv.Quote(a.Sender()) + "\nUSER = " + strconv.Quote(a.User) + "\n" +
		"TLS = ssl.create_default_context(cafile=" + ca + ")\n\n\n" +
		"def password():\n    command = [" + strings.Join(args, ", ") + "]\n" +
		"    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()\n")
	steps := []string{}
	if sends {
		b.WriteString("\n\ndef send(to, subject, text):\n" +
			"    message = email.message.EmailMessage(policy=email.policy.SMTP)\n" +
			"    message[\"From\"], message[\"To\"], message[\"Subject\"] = ADDRESS, to, subject\n" +
			"    message[\"Date\"], message[\"Message-ID\"] = email.utils.localtime(), email.utils.make_msgid(domain=ADDRESS.partition(\"@\")[2])\n" +
			"    message.set_content(text)\n" +
			pythonServer("SMTP", "smtplib.SMTP", out, "starttls(context=TLS)") +
			"        server.login(USER, password())\n        server.send_message(message)\n")
		steps = append(steps, "Send: echo text | python3 "+file+" "+Shell(a.Sender())+" subject")
	}
	switch protocol {
	case "imap":
		b.WriteString("\n\ndef read():\n" + pythonServer("IMAP4", "imaplib.IMAP4", in, "starttls(TLS)") +
			"        server.login(USER, password())\n        status, count = server.select(\"INBOX\", readonly=True)\n" +
			"        print(int(count[0]), \"messages\")\n        if int(count[0]):\n" +
			"            for part in server.fetch(count[0], \"(BODY.PEEK[])\")[1]:\n" +
			"                if isinstance(part, tuple):\n                    print(part[1].decode(\"utf-8\", \"replace\"))\n")
	case "pop3":
		b.WriteString("\n\ndef read():\n" + pythonServer("POP3", "poplib.POP3", in, "stls(TLS)") +
			"        server.user(USER)\n        server.pass_(password())\n        count, size = server.stat()\n" +
			"        print(count, \"messages\")\n        if count:\n" +
			"            print(b\"\\n\".join(server.retr(count)[1]).decode(\"utf-8\", \"replace\"))\n" +
			"    finally:\n        server.quit()\n")
	}
	if protocol != "" {
		steps = append(steps, "Read the last message: python3 "+file)
	}
	b.WriteString("\n\nif __name__ == \"__main__\":\n")
	switch {
	case sends && protocol != "":
		b.WriteString("    if len(sys.argv) > 2:\n        send(sys.argv[1], sys.argv[2], sys.stdin.read())\n    else:\n        read()\n")
	case sends:
		b.WriteString("    send(sys.argv[1], sys.argv[2], sys.stdin.read())\n")
	default:
		b.WriteString("    read()\n")
	}
	return Config{Files: []File{{Path: file, Content: []byte(b.String())}}, Steps: steps}, nil
}

// pythonServer opens the connection, for the length of a block.
func pythonServer(name, class string, s Server, startTLS string) string {
	where := strconv.Quote(s.Host) + ", " + strconv.Itoa(s.Port)
	open := class + "(" + where + ")"
	if s.Security == "tls" {
		open = map[string]string{"SMTP": "smtplib.SMTP_SSL", "IMAP4": "imaplib.IMAP4_SSL", "POP3": "poplib.POP3_SSL"}[name] + "(" + where + map[string]string{"SMTP": ", context=TLS)", "IMAP4": ", ssl_context=TLS)", "POP3": ", context=TLS)"}[name]
	}
	block := "    with " + open + " as server:\n"
	if name == "POP3" { // which cannot be used so
		block = "    server = " + open + "\n    try:\n"
	}
	if s.Security == "starttls" {
		block += "        server." + startTLS + "\n"
	}
	return block
}
