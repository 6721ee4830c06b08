//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// helper is a program that runs o365pw in the place of a connection or a
// password, with no gateway.
type helper struct {
	name     string
	protocol string
	skip     string // the subject of a message that the program itself damages
	run      func(*attempt) result
}

// tunnelCommand opens the mailbox on standard input and output.
func (a *attempt) tunnelCommand() string { return binary + " connect " + a.protocol + " helpers" }

var tunnels = []helper{
	{"mutt", "imap", "", func(a *attempt) result { a.tunnelled(); return fetchMutt("mutt")(a) }},
	{"neomutt", "imap", "", func(a *attempt) result { a.tunnelled(); return fetchMutt("neomutt")(a) }},
	{"mbsync", "imap", "", func(a *attempt) result {
		maildir := filepath.Join(a.dir, "Maildir")
		must(a.t, os.MkdirAll(maildir, 0o700))
		rc := a.file("mbsyncrc", fmt.Appendf(nil, "IMAPAccount tunnel\nTunnel \"%s\"\n\nIMAPStore far\nAccount tunnel\n\nMaildirStore near\nPath %[2]s/\nInbox %[2]s/INBOX\n\n"+
			"Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nSyncState *\nCopyArrivalDate yes\n", a.tunnelCommand(), maildir))
		r := a.try("", "mbsync", "--config", rc, "--all")
		a.unix, a.undo = true, func(data []byte) []byte { return withoutTUID(a.t, data) }
		a.collect(filepath.Join(maildir, "INBOX"))
		return r
	}},
	{"offlineimap", "imap", "", func(a *attempt) result {
		return a.offlineimap("preauthtunnel = " + a.tunnelCommand() + "\n")
	}},
	{"fetchmail", "imap", "long lines", func(a *attempt) result { return a.fetchmailPlugin(`auth ssh`) }},
	{"fetchmail", "pop3", "long lines", func(a *attempt) result { return a.fetchmailPlugin(`password "any"`) }},
	{"python3", "smtp", "", func(a *attempt) result {
		return a.try("", "python3", absolute(a.t, "testdata/tunnel.py"), mailbox, a.to, a.mail, binary, "connect", "smtp", "helpers")
	}},
	{"swaks", "smtp", "", func(a *attempt) result {
		text := a.text() + "the end"
		a.copied = crlf([]byte(text + "\n"))
		return a.try(text, "swaks", "--pipe", a.tunnelCommand(), "--from", mailbox, "--to", a.to, "--suppress-data", "--data", "-")
	}},
}

// tokenCommand prints what a program signs in with.
func (a *attempt) tokenCommand() string { return binary + " token helpers --for " + a.protocol }

var tokenClients = []helper{
	{"curl", "imap", "", func(a *attempt) result {
		a.bearer()
		return fetchCurl(a)
	}},
	{"curl", "smtp", "", func(a *attempt) result {
		a.way = "starttls"
		a.bearer()
		return sendCurl(a)
	}},
	{"mutt", "imap", "", func(a *attempt) result { a.refreshed(); return fetchMutt("mutt")(a) }},
	{"neomutt", "imap", "", func(a *attempt) result { a.refreshed(); return fetchMutt("neomutt")(a) }},
	{"msmtp", "smtp", "", func(a *attempt) result {
		rc := a.file("msmtprc", fmt.Appendf(nil, "account exchange\nhost 127.0.0.1\nport %s\nfrom %s\nuser %[2]s\nauth xoauth2\npasswordeval \"%s\"\ntls on\ntls_starttls on\ntls_trust_file %s\n",
			a.port(), mailbox, a.tokenCommand(), a.ca))
		return a.try(a.text(), "msmtp", "--file", rc, "--account", "exchange", "--", a.to)
	}},
	{"offlineimap", "imap", "", func(a *attempt) result {
		code := a.file("token.py", fmt.Appendf(nil, "import subprocess\ndef token(): return subprocess.check_output([%q, 'token', 'helpers', '--for', 'imap'], text=True).strip()\n", binary))
		general := "pythonfile = " + code + "\n"
		return a.offlineimap("remotehost = 127.0.0.1\nremoteport = "+a.port()+"\nremoteuser = "+mailbox+"\nssl = yes\nsslcacertfile = "+a.ca+
			"\nauth_mechanisms = XOAUTH2\noauth2_client_id = unused\noauth2_client_secret = unused\noauth2_request_url = unused\noauth2_access_token_eval = token()\n", general)
	}},
	{"getmail", "imap", "", func(a *attempt) result { a.getmailToken = true; return fetchGetmail(a) }},
	{"python3", "smtp", "", func(a *attempt) result {
		response := strings.TrimSpace(a.o365pw("token", "helpers", "--for", "smtp", "--xoauth2"))
		return a.try(response+"\n", "python3", absolute(a.t, "testdata/xoauth2.py"), a.port(), a.ca, mailbox, a.to, a.mail)
	}},
	{"python3", "imap", "", func(a *attempt) result {
		response := strings.TrimSpace(a.o365pw("token", "helpers", "--for", "imap", "--xoauth2"))
		return a.try(response+"\n", "python3", absolute(a.t, "testdata/xoauth2.py"), a.port(), a.ca, a.folder)
	}},
}

// tunnelled and refreshed are mutt's settings.
func (a *attempt) tunnelled() {
	a.way = "clear"
	a.muttrc = fmt.Sprintf("set tunnel=\"%s\"\nunset imap_pass\n", a.tunnelCommand())
}

func (a *attempt) refreshed() {
	a.muttrc = fmt.Sprintf("set imap_authenticators=xoauth2 imap_oauth_refresh_command=\"%s\"\nunset imap_pass\nset folder=\"imaps://127.0.0.1:%[2]s/\" spoolfile=\"imaps://127.0.0.1:%[2]s/INBOX\"\n",
		a.tokenCommand(), a.port())
}

// bearer has curl sign in with a token. It goes into curl's configuration on
// stdin, since everybody sees a command line.
func (a *attempt) bearer() {
	a.curlrc = "oauth2-bearer = \"" + strings.TrimSpace(a.o365pw("token", "helpers", "--for", a.protocol)) + "\"\nlogin-options = \"AUTH=XOAUTH2\"\n"
}

func (a *attempt) offlineimap(far string, general ...string) result {
	a.t.Helper()
	maildir := filepath.Join(a.dir, "Maildir")
	rc := a.file("offlineimaprc", fmt.Appendf(nil, `[general]
accounts = mail
metadata = %s/metadata
%s[Account mail]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = %s
[Repository far]
type = IMAP
folderfilter = lambda name: name == "INBOX"
%s`, a.dir, strings.Join(general, ""), maildir, far))
	r := a.try("", "offlineimap", "-c", rc, "-o", "-u", "basic")
	a.unix, a.undo = true, withoutEpilogue
	a.collect(filepath.Join(maildir, "INBOX"))
	return r
}

func (a *attempt) fetchmailPlugin(auth string) result {
	a.t.Helper()
	rc := a.file("fetchmailrc", fmt.Appendf(nil, `set invisible
poll localhost protocol %s plugin "%s" %s
user "%s" %s sslproto ""
fetchall keep no rewrite no mimedecode stripcr mda "cat >%s/$$"
`, a.protocol, a.tunnelCommand(), map[bool]string{true: auth}[a.protocol == "imap"], mailbox, map[bool]string{true: auth}[a.protocol == "pop3"], a.folder))
	a.unix, a.made = true, ended
	return a.try("", "fetchmail", "--fetchmailrc", rc, "--pidfile", filepath.Join(a.dir, "pid"), "--nosyslog", "--verbose")
}

// TestTunnels has mail programs use connect in the place of a connection.
func TestTunnels(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: smallMessages()})
	l.create("helpers")
	l.help(tunnels)
	l.o365pw("create", "readonly", "--read-only", "--allow", "imap")
	r := l.try("a SELECT INBOX\r\nb STORE 1 +FLAGS (\\Deleted)\r\nc LOGOUT\r\n", binary, "connect", "imap", "readonly")
	if r.code != 0 || !strings.Contains(r.stdout, "\r\nb NO ") {
		t.Errorf("a read-only tunnel: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// TestTokens has mail programs that speak XOAUTH2 sign in at Dovecot itself.
func TestTokens(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: smallMessages()})
	l.create("helpers")
	d := l.dovecot
	l.gateway = map[string]string{"imap": d.imaps, "pop3": d.pop3s, "smtp": d.submission}
	l.ca = l.file("dovecot-ca.pem", d.caPEM)
	l.help(tokenClients)
}

// help runs each program once and compares what has passed.
func (l *lab) help(with []helper) {
	for _, h := range with {
		l.t.Run(h.name+" "+h.protocol, func(t *testing.T) {
			a := &attempt{lab: l.in(t), use: use{protocol: h.protocol, skip: h.skip}, way: "tls", want: smallMessages()}
			run := func() {
				if r := h.run(a); r.code != 0 {
					t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
				}
			}
			if h.protocol != "smtp" {
				a.folder = t.TempDir()
				run()
				a.checkFolder(a.want)
				return
			}
			for _, m := range outgoing(false) {
				a.send(m)
				run()
				a.checkSent(m)
			}
		})
	}
}

// TestTunnelEndsWithRevoke ends a tunnel that waits for news.
func TestTunnelEndsWithRevoke(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: smallMessages()})
	l.create("helpers")
	p := l.start(binary, "connect", "imap", "helpers")
	p.await("* PREAUTH ")
	_, err := p.stdin.Write([]byte("a SELECT INBOX\r\nb IDLE\r\n"))
	must(t, err)
	p.await("\r\n+ ")
	l.o365pw("revoke", "helpers", "--yes")
	if code := p.wait(endLimit + 5*time.Second); code != 4 || !strings.Contains(p.out.String(), "* BYE o365pw: this app password was revoked") {
		t.Errorf("exit code %d", code)
	}
}
