//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The functions here have a client save each message of INBOX in a file of its
// own in a.folder. Passwords are in files or on stdin, which no list of
// processes shows.

// fetchCurl gives the password in a configuration on stdin.
func fetchCurl(a *attempt) result {
	a.t.Helper()
	url := a.protocol + a.pick("", "", "s") + "://" + a.gateway[a.protocol] + map[string]string{"imap": "/INBOX/;UID=", "pop3": "/"}[a.protocol]
	return a.curl("--output", filepath.Join(a.folder, "#1"), fmt.Sprintf("%s[1-%d]", url, max(1, len(a.want))))
}

func (a *attempt) curl(args ...string) result {
	a.t.Helper()
	if a.way == "starttls" {
		args = append(args, "--ssl-reqd")
	}
	args = append([]string{"--config", "-", "--silent", "--show-error", "--cacert", a.ca, "--max-time", "60", "--fail-early"}, args...)
	rc := fmt.Sprintf("user = \"%s:%s\"\n", mailbox, a.password)
	if a.curlrc != "" {
		rc = fmt.Sprintf("user = \"%s\"\n%s", mailbox, a.curlrc)
	}
	return a.try(rc, "curl", args...)
}

func fetchPython(a *attempt) result {
	a.t.Helper()
	return a.python("testdata/fetch.py", a.folder)
}

// python gives the password on stdin.
func (a *attempt) python(script string, args ...string) result {
	a.t.Helper()
	host, port, _ := net.SplitHostPort(a.gateway[a.protocol])
	args = append([]string{absolute(a.t, script), a.protocol, a.way, a.mechanism, host, port, a.ca, mailbox}, args...)
	return a.try(a.password+"\n", "python3", args...)
}

// mbsync writes an mbsync configuration for a new, empty Maildir.
func (l *lab) mbsync(way, password, maildir string) (config string) {
	l.t.Helper()
	kind := map[string]string{"tls": "IMAPS", "starttls": "STARTTLS", "clear": "None"}[way]
	must(l.t, os.MkdirAll(maildir, 0o700))
	return l.file("mbsyncrc", fmt.Appendf(nil, `IMAPAccount gateway
Host localhost
Port %s
User %s
Pass "%s"
SSLType %s
CertificateFile %s

IMAPStore far
Account gateway

MaildirStore near
Path %[6]s/
Inbox %[6]s/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Both
SyncState *
CopyArrivalDate yes
`, port(l.gateway["imap"]), mailbox, password, kind, l.ca, maildir))
}

func fetchMbsync(a *attempt) result {
	a.t.Helper()
	maildir := filepath.Join(a.dir, "Maildir")
	r := a.try("", "mbsync", "--config", a.mbsync(a.way, a.password, maildir), "--all")
	a.unix, a.undo = true, func(data []byte) []byte { return withoutTUID(a.t, data) }
	a.collect(filepath.Join(maildir, "INBOX"))
	return r
}

// collect copies the messages of a Maildir, if there is one.
func (a *attempt) collect(maildir string) {
	a.t.Helper()
	if _, err := os.Stat(maildir); errors.Is(err, fs.ErrNotExist) {
		return
	}
	for path, data := range mail(a.t, maildir) {
		must(a.t, os.WriteFile(filepath.Join(a.folder, filepath.Base(path)), []byte(data), 0o600))
	}
}

var tuid = regexp.MustCompile(`(?m)^X-TUID: .{12}\r?\n`)

// withoutTUID takes off the one line that mbsync puts into the header of what
// it copies.
func withoutTUID(t *testing.T, data []byte) []byte {
	t.Helper()
	return withoutLine(t, data, tuid)
}

// withoutLine takes one line off the header, which must have it once.
func withoutLine(t *testing.T, data []byte, line *regexp.Regexp) []byte {
	t.Helper()
	end := max(bytes.Index(data, []byte("\n\n")), bytes.Index(data, []byte("\n\r\n"))) + 1
	at := line.FindAllIndex(data[:end], -1)
	if len(at) != 1 {
		t.Errorf("%q has %d lines %s", subjectOf(data), len(at), line)
		return data
	}
	return bytes.Join([][]byte{data[:at[0][0]], data[at[0][1]:]}, nil)
}

func fetchOfflineimap(a *attempt) result {
	a.t.Helper()
	maildir := filepath.Join(a.dir, "Maildir")
	rc := a.file("offlineimaprc", fmt.Appendf(nil, `[general]
accounts = gateway
metadata = %s/metadata
[Account gateway]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = %s
[Repository far]
type = IMAP
remotehost = localhost
remoteport = %s
remoteuser = %s
remotepass = %s
ssl = %s
starttls = %s
sslcacertfile = %s
folderfilter = lambda name: name == "INBOX"
`, a.dir, maildir, a.port(), mailbox, a.password, a.pick("no", "no", "yes"), a.pick("no", "yes", "no"), a.ca))
	if a.way == "starttls" {
		// Its threads read and write at the same time on one OpenSSL
		// connection, which is not allowed: with the tickets that every TLS 1.3
		// server sends after the handshake it hangs, or fails, now and then.
		a.env = append(a.env, "OPENSSL_CONF="+a.file("openssl.cnf", []byte(`openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = limits
[limits]
MaxProtocol = TLSv1.2
`)))
	}
	r := a.try("", "offlineimap", "-c", rc, "-o", "-u", "basic")
	a.unix, a.undo = true, withoutEpilogue
	a.collect(filepath.Join(maildir, "INBOX"))
	return r
}

// withoutEpilogue takes out the empty line that Python's email package puts
// after a multipart within another one.
func withoutEpilogue(data []byte) []byte {
	return bytes.Replace(data, []byte("\n--i--\n\n--o\n"), []byte("\n--i--\n--o\n"), 1)
}

// fetchFetchmail has fetchmail keep to the message as it is: no line Received,
// no addresses made whole.
func fetchFetchmail(a *attempt) result {
	a.t.Helper()
	rc := a.file("fetchmailrc", fmt.Appendf(nil, `set invisible
poll localhost protocol %s port %s
user "%s" password "%s" %s sslcertfile "%s"
fetchall keep no rewrite no mimedecode stripcr mda "cat >%s/$$"
`, a.protocol, a.port(), mailbox, a.password, a.pick(`sslproto ""`, `sslproto "auto" sslcertck`, "ssl sslcertck"), a.ca, a.folder))
	a.unix, a.made = true, ended
	return a.try("", "fetchmail", "--fetchmailrc", rc, "--pidfile", filepath.Join(a.dir, "pid"), "--nosyslog", "--verbose")
}

func fetchGetmail(a *attempt) result {
	a.t.Helper()
	kind := map[string]string{"imap": "SimpleIMAP", "pop3": "SimplePOP3"}[a.protocol] + a.pick("", "", "SSL") + "Retriever"
	ca := a.pick("", "", "ca_certs = "+a.ca+"\n")
	host, signIn := "localhost", "password = "+a.password
	if a.getmailToken {
		host, signIn = "127.0.0.1", fmt.Sprintf("use_xoauth2 = true\npassword_command = (%q, %q, %q)", binary, "token", "helpers")
	}
	rc := a.file("getmailrc", fmt.Appendf(nil, `[retriever]
type = %s
server = %s
port = %s
username = %s
%s
%s[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >%s/$$")
allow_root_commands = true
[options]
read_all = true
delete = false
received = false
delivered_to = false
`, kind, host, a.port(), mailbox, signIn, ca, a.folder))
	a.unix = true
	a.undo = func(data []byte) []byte {
		data = withoutLine(a.t, data, regexp.MustCompile(`\AReturn-Path: <unknown>\n`))
		if a.protocol == "imap" {
			data = withoutLine(a.t, data, regexp.MustCompile(`(?m)^X-getmail-retrieved-from-mailbox: INBOX\n`))
		}
		return withoutEpilogue(data)
	}
	return a.try("", "getmail", "--getmaildir", a.dir, "--rcfile", rc)
}

// fetchFdm has it trust the authority by OpenSSL's own variable; it has no
// setting.
func fetchFdm(a *attempt) result {
	a.t.Helper()
	conf := a.file("fdm.conf", fmt.Appendf(nil, `set no-received
set maximum-size 100M
set lock-file "%[1]s/lock"
account "gateway" %[2]s server "localhost" port "%[3]s" user "%[4]s" pass "%[5]s" %[6]s
action "save" pipe "cat >%[7]s/$$"
match all action "save"
`, a.dir, a.protocol+a.pick("", "", "s"), a.port(), mailbox, a.password, a.pick("", "starttls", ""), a.folder))
	a.env = append(a.env, "SSL_CERT_FILE="+a.ca)
	a.unix = true
	return a.try("", "fdm", "-vv", "-k", "-f", conf, "fetch")
}

// fetchSnail copies each message into an mbox of its own.
func fetchSnail(a *attempt) result {
	a.t.Helper()
	var commands strings.Builder
	for i := range max(1, len(a.want)) {
		fmt.Fprintf(&commands, "copy %d %s/%[1]d\n", i+1, a.folder)
	}
	a.unix, a.undo, a.made = true, withoutFrom, quoted
	return a.snail(commands.String()+"exit\n", "-f", fmt.Sprintf("%s://localhost:%s", a.pick("pop3", "pop3", "pop3s"), a.port()))
}

// withoutFrom takes off the first line of an mbox.
func withoutFrom(data []byte) []byte {
	_, data, _ = bytes.Cut(data, []byte("\n"))
	return data
}

var fromLine = regexp.MustCompile(`(?m)^From `)

// quoted is a message as s-nail writes it into an mbox (mboxo, RFC 4155), which
// does not let a reader tell what has been there before.
func quoted(data []byte) []byte {
	data = fromLine.ReplaceAll(data, []byte(">From "))
	if !bytes.HasSuffix(data, []byte("\r\n\r\n")) {
		data = append(data, "\r\n"...)
	}
	return data
}
