//go:build integration

package integration

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// printed is what "o365pw settings" has for one program.
type printed struct {
	Files []struct{ Path, Content string }
	Steps []string
}

// awkward is a name that each syntax has to quote.
const awkward = `it's "so" $(touch hurt) ` + "`touch hurt`" + ` 50% \n; ñ #`

// printSettings prints the settings and puts the files where they say.
func (l *lab) printSettings(name, client string) printed {
	l.t.Helper()
	var p printed
	out := l.o365pw("settings", name, "--for", client, "-o", "json")
	must(l.t, json.Unmarshal([]byte(out), &p))
	for _, s := range l.secrets {
		if strings.Contains(out, s) {
			l.t.Errorf("the settings for %s hold a secret", client)
		}
	}
	for _, f := range p.Files {
		rest, ok := strings.CutPrefix(f.Path, "~/")
		if !ok {
			l.t.Fatalf("the settings for %s go to %s, which is not in the home folder", client, f.Path)
		}
		l.file(rest, []byte(f.Content))
	}
	return p
}

// do runs the command that a step ends in.
func (l *lab) do(p printed, step string, input ...string) result {
	l.t.Helper()
	i := slices.IndexFunc(p.Steps, func(s string) bool { return strings.HasPrefix(s, step) })
	if i < 0 {
		l.t.Fatalf("there is no step %q in:\n%s", step, strings.Join(p.Steps, "\n"))
	}
	_, command, _ := strings.Cut(p.Steps[i], ": ")
	r := l.try(strings.Join(input, ""), "sh", "-c", command)
	if r.code != 0 {
		l.t.Errorf("%s: exit code %d\n%s%s", command, r.code, r.stdout, r.stderr)
	}
	return r
}

// oneMore runs what sends one message to the mailbox itself, and returns it as it
// arrived.
func (l *lab) oneMore(send func()) string {
	l.t.Helper()
	before := len(l.dovecot.sink.to(mailbox))
	send()
	if l.t.Failed() {
		l.t.FailNow()
	}
	eventually(l.t, "the message", func() bool { return len(l.dovecot.sink.to(mailbox)) > before })
	all := l.dovecot.sink.to(mailbox)
	if len(all) != before+1 {
		l.t.Fatalf("%d messages have arrived in place of one", len(all)-before)
	}
	if m := all[before]; m.from != mailbox {
		l.t.Errorf("the message is from %q", m.from)
	}
	return string(all[before].data)
}

// TestSettingsOfSenders uses the settings of each program that sends as they are
// printed, by the program itself.
func TestSettingsOfSenders(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	l.create(awkward)
	l.serve()
	defer func() {
		hurt, _ := filepath.Glob(filepath.Join(filepath.Dir(l.dir), "*", "hurt"))
		if len(hurt) > 0 {
			t.Errorf("the app password's name was run: %v", hurt)
		}
	}()
	try := func(name string, use func(l *lab, p printed)) {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			use(l, l.printSettings(awkward, name))
		})
	}
	for _, name := range []string{"msmtp", "s-nail", "swaks"} {
		try(name, func(l *lab, p printed) {
			l.env = append(l.env, "MAILRC="+filepath.Join(l.dir, ".mailrc")) // root's home is what the system says, for s-nail
			if m := l.oneMore(func() { l.do(p, "Try it: ") }); !regexp.MustCompile(`(?i)test`).MatchString(m) {
				l.t.Errorf("another message has arrived:\n%s", m)
			}
		})
	}
	try("mailx", func(l *lab, p printed) {
		l.do(p, "Make it a program: ")
		i := slices.IndexFunc(p.Steps, func(s string) bool { return strings.HasPrefix(s, "Put this line into ~/.mailrc: ") })
		_, line, _ := strings.Cut(p.Steps[i], ": ")
		l.file(".mailrc", []byte(line+"\n"))
		m := l.oneMore(func() { l.do(p, "Try it: ") })
		if !strings.Contains(m, "Subject: test\r\n") || !strings.HasSuffix(m, "\r\ntest\r\n") || !strings.Contains(m, "From: "+mailbox+"\r\n") {
			l.t.Errorf("another message has arrived:\n%s", m)
		}
	})
	try("sendmail", func(l *lab, p printed) {
		m := l.oneMore(func() { l.do(p, "Try it: ") })
		if !strings.HasSuffix(m, "\r\n\r\ntest\r\n") {
			l.t.Errorf("another message has arrived:\n%s", m)
		}
	})
	try("python", func(l *lab, p printed) {
		m := l.oneMore(func() { l.do(p, "Send: ") })
		if !strings.Contains(m, "Subject: subject\r\n") || !strings.HasSuffix(m, "\r\n\r\ntext\r\n") {
			l.t.Errorf("another message has arrived:\n%s", m)
		}
		l.do(p, "Read the last message: ")
	})
	try("curl", func(l *lab, p printed) {
		l.file("message.eml", []byte("From: alice@contoso.com\nSubject: curl\n\n.\nend\n"))
		m := l.oneMore(func() { l.do(p, "Send: ") })
		if !strings.HasSuffix(m, "Subject: curl\r\n\r\n.\r\nend\r\n") {
			l.t.Errorf("another message has arrived:\n%s", m)
		}
		if r := l.do(p, "Read: "); !strings.Contains(r.stdout, "INBOX") {
			l.t.Errorf("the folders: %s", r.stdout)
		}
	})
	try("git-send-email", func(l *lab, p printed) {
		l.repository()
		l.do(p, "Have git read it")
		m := l.oneMore(func() { l.do(p, "Try it: ") })
		if !strings.Contains(m, "Subject: [PATCH] a change\r\n") {
			l.t.Errorf("another message has arrived:\n%s", m)
		}
		if shown := l.o365pw("audit", "--event", "shown", "-o", "name"); !strings.Contains(shown, "it's") {
			l.t.Errorf("git was given the password, and the audit log says: %s", shown)
		}
	})
	for _, name := range []string{"printer-tls", "printer-starttls"} {
		try(name, func(l *lab, p printed) { l.scan(p, name == "printer-tls") })
	}
}

// repository is one in the home folder, with a commit.
func (l *lab) repository() {
	l.t.Helper()
	l.env = append(l.env, "GIT_CONFIG_NOSYSTEM=1")
	script := `git init -q . && git config user.name Alice && git config user.email alice@contoso.com &&
		git config sendemail.confirm never && git commit -q --allow-empty -m first && echo x >file && git add file && git commit -q -m 'a change'`
	if r := l.try("", "sh", "-c", script); r.code != 0 {
		l.t.Fatalf("make a repository: %s%s", r.stdout, r.stderr)
	}
}

// scan sends as a device does: by one kind of TLS, of a version that is old,
// with AUTH LOGIN and nothing else.
func (l *lab) scan(p printed, implicit bool) {
	l.t.Helper()
	field := func(name string) string {
		for _, s := range p.Steps {
			if v, ok := strings.CutPrefix(s, name+": "); ok {
				return v
			}
		}
		l.t.Fatalf("there is no %q in:\n%s", name, strings.Join(p.Steps, "\n"))
		return ""
	}
	_, command, _ := strings.Cut(field("Password"), ": ")
	password := l.try("", "sh", "-c", command)
	pem, err := os.ReadFile(l.ca)
	must(l.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	host := field("SMTP server")
	settings := &tls.Config{RootCAs: roots, ServerName: host, MaxVersion: tls.VersionTLS12}

	conn, err := net.Dial("tcp", net.JoinHostPort(host, field("Port")))
	must(l.t, err)
	defer func() { conn.Close() }()
	must(l.t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if implicit {
		conn = tls.Client(conn, settings)
	}
	in := bufio.NewReader(conn)
	say := func(code, line string) {
		l.t.Helper()
		if line != "" {
			_, err := io.WriteString(conn, line+"\r\n")
			must(l.t, err)
		}
		for {
			reply, err := in.ReadString('\n')
			must(l.t, err)
			if len(reply) < 4 || reply[:3] != code {
				l.t.Fatalf("%s: %s", line, reply)
			}
			if reply[3] == ' ' {
				return
			}
		}
	}
	secret := base64.StdEncoding.EncodeToString([]byte(strings.TrimSpace(password.stdout)))
	l.oneMore(func() {
		say("220", "")
		say("250", "EHLO scanner")
		if !implicit {
			say("220", "STARTTLS")
			conn = tls.Client(conn, settings)
			in = bufio.NewReader(conn)
			say("250", "EHLO scanner")
		}
		say("334", "AUTH LOGIN")
		say("334", base64.StdEncoding.EncodeToString([]byte(field("User name"))))
		say("235", secret)
		from, _, _ := strings.Cut(field("Sender, From or reply address"), ";")
		say("250", "MAIL FROM:<"+from+">")
		say("250", "RCPT TO:<"+mailbox+">")
		say("354", "DATA")
		say("250", fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: scan\r\n\r\n%s\r\n.", from, mailbox, strings.Repeat("JVBERi0xLjQ", 6)))
		say("221", "QUIT")
	})
}

// TestSettingsOfPostfix has Postfix relay by the script that is printed, and
// takes it back: a whole Postfix with folders and ports of its own.
func TestSettingsOfPostfix(t *testing.T) {
	t.Parallel()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("Postfix starts as root only")
	default:
		t.Skip("Postfix starts as root only")
	}
	l := newLab(t, options{})
	l.create(awkward)
	l.serve()
	dir, port := l.postfix()
	conf := func(names ...string) string {
		r := l.try("", "postconf", append([]string{"-n"}, names...)...)
		return r.stdout
	}
	before := conf()
	p := l.printSettings(awkward, "postfix")
	for range 2 { // which changes nothing
		l.do(p, "Run it: ")
	}
	if fi, err := os.Stat(filepath.Join(dir, "o365pw_password")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the map with the password: %v, %v", fi, err)
	}
	for name, content := range map[string]string{"postconf": conf(), "main.cf": l.try("", "cat", filepath.Join(dir, "main.cf")).stdout} {
		for _, s := range l.secrets {
			if strings.Contains(content, s) {
				t.Errorf("%s holds the password", name)
			}
		}
	}
	m := l.oneMore(func() { l.do(p, "Try it: ") })
	if !strings.Contains(m, "From: "+mailbox) && !strings.Contains(m, "<"+mailbox+">") || !strings.HasSuffix(m, "\r\ntest\r\n") {
		t.Errorf("another message has arrived:\n%s", m)
	}

	// A device that can do no TLS, as printer-plain has it.
	plain := l.printSettings(awkward, "printer-plain")
	if !slices.ContainsFunc(plain.Steps, func(s string) bool { return strings.Contains(s, "settings --for postfix") }) {
		t.Errorf("printer-plain does not lead to Postfix:\n%s", strings.Join(plain.Steps, "\n"))
	}
	l.oneMore(func() {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		in := bufio.NewReader(conn)
		for _, line := range []string{"", "HELO scanner", "MAIL FROM:<scanner@localhost>", "RCPT TO:<" + mailbox + ">", "DATA", "Subject: scan\r\n\r\nscan\r\n.", "QUIT"} {
			if line != "" {
				_, err := io.WriteString(conn, line+"\r\n")
				must(t, err)
			}
			if reply, err := in.ReadString('\n'); err != nil || reply[0] > '3' {
				t.Fatalf("%s: %s %v", line, reply, err)
			}
		}
	})

	l.do(p, "To take it back: ")
	if after := conf(); after != before {
		t.Errorf("before:\n%safter it was taken back:\n%s", before, after)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "o365pw*"))
	if len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
}

// postfix runs a Postfix that has nothing to do with one of the system's. The
// programs of the lab talk to it.
func (l *lab) postfix() (dir, port string) {
	l.t.Helper()
	tool(l.t, "postfix")
	top, err := os.MkdirTemp("", "o365pw-postfix-")
	must(l.t, err)
	l.t.Cleanup(func() { os.RemoveAll(top) })
	must(l.t, os.Chmod(top, 0o755))
	dir, port = filepath.Join(top, "etc"), freePorts(l.t, 1)[0]
	must(l.t, os.Mkdir(dir, 0o755))
	_, port, err = net.SplitHostPort(port)
	must(l.t, err)
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/lib
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = relay.test
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
local_recipient_maps =
relayhost = [nowhere.invalid]
smtp_tls_security_level = may
`, top)
	master := "127.0.0.1:" + port + " inet n - n - - smtpd\n"
	for _, line := range []string{
		"pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
		"rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
		"proxymap unix - - n - - proxymap", "smtp unix - - n - - smtp", "relay unix - - n - - smtp", "showq unix n - n - - showq",
		"error unix - - n - - error", "retry unix - - n - - error", "discard unix - - n - - discard", "anvil unix - - n - 1 anvil",
		"scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd", "flush unix n - n 1000? 0 flush", "verify unix - - n - 1 verify",
	} {
		master += line + "\n"
	}
	must(l.t, os.WriteFile(filepath.Join(dir, "main.cf"), []byte(main), 0o644))
	must(l.t, os.WriteFile(filepath.Join(dir, "master.cf"), []byte(master), 0o644))
	must(l.t, os.Mkdir(filepath.Join(top, "lib"), 0o700))
	must(l.t, os.Mkdir(filepath.Join(top, "spool"), 0o755))
	if r := l.try("", "chown", "postfix", filepath.Join(top, "lib")); r.code != 0 {
		l.t.Fatal(r.stderr)
	}
	l.env = append(l.env, "MAIL_CONFIG="+dir)
	if r := l.try("", "postfix", "start"); r.code != 0 {
		l.t.Fatalf("postfix start: %s%s", r.stdout, r.stderr)
	}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(top, "log"))
			l.t.Logf("Postfix said:\n%s", log)
		}
		// The context of the test has ended.
		stop := exec.Command("postfix", "stop")
		stop.Env = l.env
		if out, err := stop.CombinedOutput(); err != nil {
			l.t.Errorf("postfix stop: %v\n%s", err, out)
		}
	})
	return dir, port
}

// TestSendmail calls the program as others call sendmail(1).
func TestSendmail(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	l.create("laptop")
	caller := strings.TrimSpace(l.try("", "id", "-un").stdout)
	link := filepath.Join(l.dir, "sbin", "sendmail")
	must(t, os.Mkdir(filepath.Dir(link), 0o700))
	must(t, os.Symlink(binary, link))

	// As cron does: nearly no environment, no terminal, a message for a user of
	// this machine. What the crontab sets is there.
	cron := func(t *testing.T) {
		message := l.oneMore(func() {
			cmd := exec.Command("setsid", "--wait", "sh", "-c", link+" -FCronDaemon -i -B8BITMIME -oem "+caller)
			cmd.Stdin = strings.NewReader("From: " + caller + " (Cron Daemon)\nTo: " + caller + "\nSubject: Cron <" + caller + "@host> df\nMIME-Version: 1.0\n" +
				"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\n.\nvoll: 100 % für /\n")
			cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
			for _, v := range l.env {
				if strings.HasPrefix(v, "O365PW_") || strings.HasPrefix(v, "HOME=") {
					cmd.Env = append(cmd.Env, v)
				}
			}
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v\n%s", err, out)
			}
		})
		if !strings.Contains(message, "From: \"Cron Daemon\" <"+mailbox+">\r\n") || !strings.HasSuffix(message, "\r\n\r\n.\r\nvoll: 100 % für /\r\n") {
			t.Errorf("another message has arrived:\n%s", message)
		}
	}
	t.Run("cron without a gateway", cron)
	l.serve()
	t.Run("cron", cron)

	t.Run("git", func(t *testing.T) {
		l := l.in(t)
		l.repository()
		message := l.oneMore(func() {
			r := l.try("", "git", "-c", "sendemail.sendmailCmd='"+binary+"' sendmail -a laptop", "send-email", "--from", mailbox, "--to", mailbox, "--bcc", "bob@contoso.com", "-1")
			if r.code != 0 {
				t.Errorf("git send-email: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
		if !strings.Contains(message, "Subject: [PATCH] a change\r\n") || strings.Contains(message, "bob@contoso.com") {
			t.Errorf("another message has arrived:\n%s", message)
		}
		if n := len(l.dovecot.sink.to("bob@contoso.com")); n != 1 {
			t.Errorf("%d messages for the recipient in Bcc", n)
		}
	})
	t.Run("s-nail", func(t *testing.T) {
		l := l.in(t)
		rc := l.file("mailrc", []byte("set v15-compat mta="+link+" from="+mailbox+"\n"))
		l.env = append(l.env, "MAILRC="+rc)
		message := l.oneMore(func() {
			if r := l.try("Grüße\n", "s-nail", "-:u", "-s", "Grüße", mailbox); r.code != 0 {
				t.Errorf("s-nail: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
		if !strings.Contains(message, "From: "+mailbox+"\r\n") {
			t.Errorf("another message has arrived:\n%s", message)
		}
	})
	t.Run("mutt", func(t *testing.T) {
		l := l.in(t)
		rc := l.file("muttrc", []byte("set sendmail=\""+link+" -oem -oi\"\nset from="+mailbox+"\nset copy=no\n"))
		l.oneMore(func() {
			if r := l.try("text\n", "mutt", "-F", rc, "-s", "from mutt", mailbox); r.code != 0 {
				t.Errorf("mutt: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
	})
}
