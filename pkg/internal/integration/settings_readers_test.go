//go:build integration

package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// awkwardName is of an app password, with what means something in the files
// of one program or another.
const awkwardName = "it's \"a\" \\ $(touch pwned) `touch pwned` %(h)s ${z} %{z} %h #;) ü 邮 \\"

// settled is a mail program set up by o365pw settings, and nothing else.
type settled struct {
	client   string
	protocol string // that the app password may use, beside smtp
	run      func(*attempt, string)
	own      bool // it fetches what is unread, so it has a mailbox of its own
}

// settledReaders are the programs that read, each with what it does.
var settledReaders = []settled{
	{client: "mutt", protocol: "imap", run: settledMutt},
	{client: "mutt", protocol: "pop3", run: settledMutt},
	{client: "neomutt", protocol: "imap", run: settledMutt},
	{client: "neomutt", protocol: "pop3", run: settledMutt},
	{client: "alpine", protocol: "imap", run: settledAlpine},
	{client: "alpine", protocol: "pop3", run: settledAlpine},
	{client: "aerc", protocol: "imap", run: settledAerc},
	{client: "mbsync", protocol: "imap", run: settledMbsync},
	{client: "offlineimap", protocol: "imap", run: settledOfflineimap},
	{client: "getmail", protocol: "imap", run: settledGetmail},
	{client: "getmail", protocol: "pop3", run: settledGetmail},
	{client: "fetchmail", protocol: "imap", run: settledFetchmail, own: true},
	{client: "fetchmail", protocol: "pop3", run: settledFetchmail},
	{client: "fdm", protocol: "imap", run: settledFdm, own: true},
	{client: "fdm", protocol: "pop3", run: settledFdm},
	{client: "mpop", protocol: "pop3", run: settledMpop},
}

// TestSettingsReaders has the programs that read work with what o365pw settings
// prints for them, put where it says and not changed. The password is in no file:
// a command gets it, from the encrypted keychain.
func TestSettingsReaders(t *testing.T) {
	t.Parallel()
	shared := newLab(t, options{messages: smallMessages()})
	passwords := shared.createSettled()
	shared.serve()
	for _, s := range settledReaders {
		t.Run(s.client+" "+s.protocol, func(t *testing.T) {
			t.Parallel()
			l, passwords := shared, passwords
			if s.own {
				l = newLab(t, options{messages: smallMessages()})
				passwords = l.createSettled()
				l.serve()
			}
			start := time.Now()
			a := &attempt{lab: l.in(t), use: use{protocol: s.protocol}, way: "tls", password: passwords[s.protocol], want: smallMessages(), unix: true}
			a.folder = t.TempDir()
			a.to = strings.ReplaceAll(s.client+"."+s.protocol+"@example.org", " ", "")
			before := len(l.server.out.String())
			s.run(a, s.client)
			a.checkSecured(before)
			a.checkNoPassword()
			t.Log(time.Since(start))
		})
	}
}

// createSettled makes the app passwords of the test: for IMAP and for POP3, each
// with SMTP.
func (l *lab) createSettled() (passwords map[string]string) {
	l.t.Helper()
	passwords = map[string]string{}
	for _, p := range []string{"imap", "pop3"} {
		out := l.o365pw("create", awkwardName+p, "--allow", p+",smtp")
		passwords[p] = strings.TrimSuffix(out, "\n")
		l.secrets = append(l.secrets, passwords[p])
	}
	return passwords
}

// settings puts the configuration of a client where it says that it goes, and
// returns what is to be done besides.
func (a *attempt) settings(client string) (steps string) {
	a.t.Helper()
	name := awkwardName + a.protocol
	path := strings.TrimSpace(a.o365pw("settings", name, "--for", client, "-o", "name"))
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		a.t.Fatalf("%s: it goes to %q", client, path)
	}
	r := a.try("", binary, "settings", name, "--for", client)
	if r.code != 0 || !strings.Contains(r.stderr, "it goes to "+path) {
		a.t.Fatalf("settings for %s: exit code %d\n%s", client, r.code, r.stderr)
	}
	a.file(rest, []byte(r.stdout))
	return r.stderr
}

// checkNoPassword wants the password in no file of the home, and nothing to have
// been run that is in the name of the app password.
func (a *attempt) checkNoPassword() {
	a.t.Helper()
	must(a.t, filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), a.password) || strings.Contains(string(data), spaced(a.password)) {
			a.t.Errorf("the password is in %s", path)
		}
		if e.Name() == "pwned" {
			a.t.Errorf("the name of the app password was run as a command: there is %s", path)
		}
		return err
	}))
}

// fetched runs a program that fetches into a Maildir, and compares what is there.
func (a *attempt) fetched(maildir, program string, args ...string) {
	a.t.Helper()
	r := a.try("", program, args...)
	if r.code != 0 {
		a.t.Fatalf("%s: exit code %d\n%s%s", program, r.code, r.stdout, r.stderr)
	}
	a.collect(filepath.Join(a.dir, maildir))
	a.checkFolder(a.want)
	if a.t.Failed() {
		a.t.Logf("%s said:\n%s%s", program, r.stdout, r.stderr)
	}
}

// arrived waits for a message with a text.
func (a *attempt) arrived(text string) {
	a.t.Helper()
	eventually(a.t, "the message to arrive", func() bool { return len(a.dovecot.sink.to(a.to)) > 0 })
	got := a.dovecot.sink.to(a.to)
	if len(got) != 1 || got[0].from != mailbox || !strings.Contains(string(got[0].data), text) {
		a.t.Errorf("%d messages have arrived, the first from %q:\n%.2000s", len(got), got[0].from, got[0].data)
	}
	if !strings.Contains(string(got[0].data), "<"+mailbox+">") && !strings.Contains(string(got[0].data), "From: "+mailbox) {
		a.t.Errorf("it does not say that it is from %s:\n%.2000s", mailbox, got[0].data)
	}
}

// mailFolder makes the folder that the steps name.
func (a *attempt) mailFolder(steps string) {
	a.t.Helper()
	const mark = "the folder must be there: "
	_, command, ok := strings.Cut(steps, mark)
	command, _, _ = strings.Cut(command, "\n")
	if r := a.try("", "sh", "-c", command); !ok || r.code != 0 {
		a.t.Fatalf("no such step, or it fails: %q: %s", command, r.stderr)
	}
}

// trusted takes SSL_CERT_FILE from the steps, as a person does.
func (a *attempt) trusted(steps string) {
	a.t.Helper()
	_, value, ok := strings.Cut(steps, "SSL_CERT_FILE=")
	value, _, _ = strings.Cut(value, " ")
	if !ok {
		a.t.Fatalf("the steps do not say how the authority is trusted: %s", steps)
	}
	a.env = append(slices.Clone(a.env), "SSL_CERT_FILE="+value)
}

// traced takes off the lines that a program that fetches puts before a message.
func traced(data []byte) []byte {
	return withoutEpilogue(byGetmail.ReplaceAll(trace.ReplaceAll(data, nil), nil))
}

var (
	trace     = regexp.MustCompile(`\A(?:(?:Return-Path|Delivered-To|Received): .*\n(?:[ \t].*\n)*)+`)
	byGetmail = regexp.MustCompile(`(?m)^X-getmail-retrieved-from-mailbox: INBOX\n`)
)

func settledMutt(a *attempt, program string) {
	a.settings(program)
	must(a.t, os.Mkdir(filepath.Join(a.dir, "Mail"), 0o700)) // NeoMutt asks whether to make it
	rc := a.file("keys", fmt.Appendf(nil, `set pipe_split=yes pipe_decode=no pipe_sep="" wait_key=no quit=yes sleep_time=0
macro index X "<tag-pattern>~A<enter><tag-prefix><pipe-message>cat >%s/$$<enter><exit>"
`, a.folder))
	tool(a.t, program)
	p := a.onTerminal(program + " -n -e 'source " + rc + "'")
	p.dialog("latin1", "X")
	if code := p.wait(20 * time.Second); code != 0 {
		a.t.Fatalf("%s: exit code %d", program, code)
	}
	a.checkFolder(a.want)
	r := a.try("by "+program+"\n", program, "-n", "-s", "text", "--", a.to)
	if r.code != 0 {
		a.t.Fatalf("%s: exit code %d\n%s%s", program, r.code, r.stdout, r.stderr)
	}
	a.arrived("by " + program)
}

// onTerminal runs a program of a person's.
func (a *attempt) onTerminal(command string) *process {
	a.t.Helper()
	return a.start("script", "--quiet", "--return", "--flush", "--command", "stty rows 24 cols 80; TERM=vt100 exec "+command, "/dev/null")
}

func settledAlpine(a *attempt, program string) {
	a.trusted(a.settings(program))
	tool(a.t, program)
	p := a.onTerminal(program + " -i")
	p.dialog("appear only once", "e", "PASSWORD:", a.password+"\r", "latin1", "qy")
	p.wait(20 * time.Second)
	p = a.onTerminal(program + " " + a.to)
	p.dialog("NxtPg/End", "\x0e\x0e\x0etext\x0eby alpine\x18", "Send message", "y", "PASSWORD:", a.password+"\r")
	a.arrived("by alpine")
	p.wait(20 * time.Second) // it ends by itself
}

func settledAerc(a *attempt, program string) {
	a.trusted(a.settings(program))
	a.env = append(a.env, "EDITOR=true", "XDG_RUNTIME_DIR="+a.dir)
	p := a.onTerminal(program)
	p.dialog("latin1", ":quit\r")
	p.wait(20 * time.Second)
	p = a.onTerminal(program + " 'mailto:" + a.to + "?subject=text&body=by%20aerc'")
	p.dialog("Send this", "y")
	a.arrived("by aerc")
	p.dialog("sent", ":quit\r")
	p.wait(20 * time.Second)
}

func settledMbsync(a *attempt, program string) {
	a.mailFolder(a.settings(program))
	a.undo = func(data []byte) []byte { return withoutTUID(a.t, data) }
	a.fetched("Mail/Inbox", program, "o365pw")
}

func settledOfflineimap(a *attempt, program string) {
	a.settings(program)
	a.undo = withoutEpilogue
	a.fetched("Mail/INBOX", program, "-a", "o365pw", "-o", "-u", "basic")
}

func settledGetmail(a *attempt, program string) {
	a.mailFolder(a.settings(program))
	// It refuses to deliver as root, which the tests may be.
	dir := filepath.Dir(a.file("python/sitecustomize.py", []byte("import os\nos.geteuid = os.getegid = lambda: 1\n")))
	a.env = append(slices.Clone(a.env), "PYTHONPATH="+dir)
	a.undo = traced
	a.fetched("Mail/Inbox", program)
}

func settledFetchmail(a *attempt, program string) {
	steps := a.settings(program)
	_, command, ok := strings.Cut(steps, "as from cron: ")
	command, _, _ = strings.Cut(command, "\n")
	if !ok {
		a.t.Fatalf("no command for cron: %s", steps)
	}
	a.undo, a.made, a.skip = traced, ended, "long lines"
	a.fetched("Mail/Inbox", "sh", "-c", command+" --nosyslog --mda 'cat >"+a.folder+"/$$'")
}

// settledFdm names the file to fdm, which looks for it in the home that
// /etc/passwd has. Started by root it fetches as another user, who has to be
// able to read the certificate and to write what has been fetched.
func settledFdm(a *attempt, program string) {
	a.trusted(a.settings(program))
	if os.Geteuid() == 0 {
		must(a.t, os.Chmod(filepath.Dir(a.dir), 0o755))
		must(a.t, os.Chmod(a.dir, 0o777))
		ca, err := os.ReadFile(a.ca)
		must(a.t, err)
		copied := a.file("ca.pem", ca)
		must(a.t, os.Chmod(copied, 0o644))
		a.env = append(a.env, "SSL_CERT_FILE="+copied)
	}
	a.undo = traced
	a.fetched("Mail/Inbox", program, "-f", filepath.Join(a.dir, ".fdm.conf"), "fetch")
}

func settledMpop(a *attempt, program string) {
	a.mailFolder(a.settings(program))
	a.undo = traced
	a.fetched("Mail/Inbox", program)
}
