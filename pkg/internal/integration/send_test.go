//go:build integration

package integration

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// The functions here have a client send the message in the file a.mail to a.to.

func sendCurl(a *attempt) result {
	a.t.Helper()
	return a.curl("--mail-from", mailbox, "--mail-rcpt", a.to, "--upload-file", a.mail, a.pick("smtp", "smtp", "smtps")+"://"+a.gateway["smtp"])
}

func sendPython(a *attempt) result {
	a.t.Helper()
	return a.python("testdata/send.py", a.to, a.mail)
}

func sendMsmtp(a *attempt) result {
	a.t.Helper()
	rc := a.file("msmtprc", fmt.Appendf(nil, `account gateway
host localhost
port %s
from %s
user %[2]s
password "%s"
auth %s
tls %s
tls_starttls %s
tls_trust_file %s
`, a.port(), mailbox, a.password, strings.ToLower(strings.TrimPrefix(a.mechanism, "AUTH ")), a.pick("off", "on", "on"), a.pick("off", "on", "off"), a.ca))
	return a.try(a.text(), "msmtp", "--file", rc, "--account", "gateway", "--", a.to)
}

// text is the message for a client that makes CRLFs of LFs.
func (a *attempt) text() string {
	a.t.Helper()
	data, err := os.ReadFile(a.mail)
	must(a.t, err)
	return string(lf(data))
}

// attach makes an attachment of the message: no text, which some clients would
// send as such, with line ends of their own.
func (a *attempt) attach() (path string) {
	a.t.Helper()
	data, err := os.ReadFile(a.mail)
	must(a.t, err)
	a.attached = make([]byte, 0, 2*len(data))
	for _, b := range data[:min(len(data), bigSize/2)] { // as UTF-16 has it
		a.attached = append(a.attached, b, 0)
	}
	return a.file("attached.bin", a.attached)
}

func sendSwaks(a *attempt) result {
	a.t.Helper()
	rc := a.file("swaksrc", fmt.Appendf(nil, `server localhost
port %s
from %s
to %s
auth %s
auth-user %[2]s
auth-password %[5]s
%stls-ca-path %s
suppress-data
`, a.port(), mailbox, a.to, strings.TrimPrefix(a.mechanism, "AUTH "), a.password, a.pick("", "tls\ntls-verify\n", "tls-on-connect\ntls-verify\n"), a.ca))
	// It takes a dot at the end for the end.
	text := a.text() + "the end"
	a.copied = crlf([]byte(text + "\n"))
	return a.try(text, "swaks", "--config", rc, "--data", "-")
}

func sendGit(a *attempt) result {
	a.t.Helper()
	config := a.file("gitconfig", fmt.Appendf(nil, `[user]
name = Alice
email = %s
[sendemail]
smtpServer = localhost
smtpServerPort = %s
smtpUser = %[1]s
smtpPass = %[3]s
smtpEncryption = %s
smtpSSLCertPath = %s
smtpDomain = client.test
from = Alice <%[1]s>
confirm = never
suppressCc = all
transferEncoding = 8bit
xmailer = false
validate = false
`, mailbox, a.port(), a.password, a.pick("none", "tls", "ssl"), a.ca))
	a.headers = true
	a.env = append(a.env, "GIT_CONFIG_GLOBAL="+config, "GIT_CONFIG_NOSYSTEM=1")
	return a.try("", "git", "send-email", "--to", a.to, a.file("message.patch", []byte(a.text())))
}

// sendSnail gives the text; s-nail makes a message of it, and keeps a copy.
func sendSnail(a *attempt) result {
	a.t.Helper()
	record := filepath.Join(a.dir, "sent")
	r := a.snail(a.text(), "-s", "text", "-S", "record="+record, "-a", a.attach(), a.to)
	if data, err := os.ReadFile(record); err == nil {
		a.copied, a.made = crlf(withoutFrom(data)), quoted
	}
	return r
}

// snail runs s-nail with a configuration that holds the password.
func (a *attempt) snail(input string, args ...string) result {
	a.t.Helper()
	rc := a.file("mailrc", fmt.Appendf(nil, `set v15-compat ttycharset=utf-8 mime-encoding=8b from=%[1]s nosave
set user=%[1]s password="%[2]s"
set mta=%[3]s://%[4]s@localhost:%[5]s smtp-auth=plain
set tls-ca-file=%[6]s tls-ca-no-defaults tls-verify=strict %[7]s
`, mailbox, a.password, a.pick("smtp", "smtp", "smtps"), url.QueryEscape(mailbox), port(a.gateway["smtp"]), a.ca, a.pick("", "smtp-use-starttls pop3-use-starttls", "")))
	a.env = append(a.env, "MAILRC="+rc)
	return a.try(input, "s-nail", append([]string{"-:u"}, args...)...)
}
