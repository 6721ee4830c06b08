//go:build unix

package clientconfig

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// difficult is a name with what some syntax takes for its own.
const difficult = `it's "so" $(touch hurt) ` + "`touch hurt`" + ` ${HOME} 50% \n \ ; # ñ 邮`

// sender is an account whose program prints its last argument in place of a
// password.
func sender(t *testing.T) Account {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `it's a "folder" %s`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "o365pw")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$last\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Account{
		AppPassword: difficult, Address: "alice@contoso.com", User: "alice$x@contoso.com", From: "o'hara$x@contoso.com", CAFile: "/a folder/ca.pem", Program: []string{program, "--profile", "it's"},
		Servers: map[string]Server{"imap": {"localhost", 1993, "tls"}, "pop3": {"localhost", 1995, "tls"}, "smtp": {"localhost", 1587, "tls"}},
	}
}

// settingsOf are those of one client.
func settingsOf(t *testing.T, name string, a Account) Config {
	t.Helper()
	c, ok := Find(name)
	if !ok {
		t.Fatalf("there is no client %q", name)
	}
	cfg, err := c.Settings(a)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// run is what a shell prints for a script. Programs that are given stand in for
// the real ones.
func run(t *testing.T, script []byte, programs map[string]string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{file}, args...)...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, errOut.String(), script)
	}
	if _, err := os.Stat(filepath.Join(dir, "hurt")); err == nil {
		t.Fatalf("the name was run:\n%s", script)
	}
	return string(out)
}

// TestScriptsOfSenders runs the scripts: each gives the password to the program
// as it was printed, and on no command line.
func TestScriptsOfSenders(t *testing.T) {
	a := sender(t)
	show := "printf '<%s>' \"$@\"; echo; cat"
	out := run(t, settingsOf(t, "curl", a).Files[0].Content, map[string]string{"curl": show}, "message.eml", "bob@contoso.com", "it's@contoso.com")
	if want := "<--crlf><--mail-from><o'hara$x@contoso.com><--mail-rcpt><bob@contoso.com><--mail-rcpt><it's@contoso.com><--upload-file><message.eml><--cacert></a folder/ca.pem><smtps://localhost:1587/>\nuser = \"alice$x@contoso.com:" + difficult + "\"\n"; !strings.HasSuffix(out, want) {
		t.Errorf("curl sends: %s\nwant %s", out, want)
	}
	out = run(t, settingsOf(t, "curl", a).Files[0].Content, map[string]string{"curl": show})
	if !strings.Contains(out, "<imaps://localhost:1993/>\nuser = ") {
		t.Errorf("curl reads: %s", out)
	}
	out = run(t, settingsOf(t, "swaks", a).Files[0].Content, map[string]string{"swaks": `printf '<%s>' "$@"; echo; cat "$2"`}, "--to", "bob@contoso.com")
	if !strings.HasPrefix(out, "<--config></dev/stdin><--to><bob@contoso.com>\nserver localhost\n") || !strings.HasSuffix(out, "\nauth-password "+difficult+"\n") || !strings.Contains(out, "\nfrom o'hara$x@contoso.com\n") {
		t.Errorf("swaks: %s", out)
	}
	out = run(t, settingsOf(t, "mailx", Account{AppPassword: a.AppPassword, Address: a.Address, Servers: a.Servers, Program: []string{"printf", "<%s>"}}).Files[0].Content, nil, "-i", "it's")
	if want := "<sendmail><--app-password><" + difficult + "><-i><it's>"; out != want {
		t.Errorf("mailx: %s\nwant %s", out, want)
	}
	// What S-nail and msmtp run, by /bin/sh as well.
	out = run(t, []byte(a.PasswordCommand()), nil)
	if out != difficult+"\n" {
		t.Errorf("the password's command: %s", out)
	}
}

// TestPostfixScript runs the script with a postconf that notes what it is told.
func TestPostfixScript(t *testing.T) {
	a := sender(t)
	dir := t.TempDir()
	programs := map[string]string{
		"id":      "echo 0",
		"postfix": "exit 0",
		"postconf": `case $1 in
-h) echo '` + dir + `' ;;
-n) echo 'myhostname = here'; echo 'relayhost = [old]:25' ;;
*) shift; printf '<%s>\n' "$@" ;;
esac
`,
	}
	script := settingsOf(t, "postfix", a).Files[0].Content
	out := run(t, script, programs)
	for _, want := range []string{"<relayhost = [localhost]:1587>\n", "<sender_canonical_maps = static:o'hara$$x@contoso.com>\n", "<smtp_tls_CAfile = /a folder/ca.pem>\n", "<smtp_tls_secure_cert_match = localhost>\n", "<smtp_sasl_password_maps = texthash:" + dir + "/o365pw_password>\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("postconf was not told %s:\n%s", want, out)
		}
	}
	files := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi, _ := os.Stat(filepath.Join(dir, name)); fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
		return string(b)
	}
	if got := files("o365pw_password"); got != "[localhost]:1587 alice$x@contoso.com:"+difficult+"\n" {
		t.Errorf("the map: %s", got)
	}
	if got := files("o365pw_before"); got != "relayhost = [old]:25\n" {
		t.Errorf("what was set before: %s", got)
	}
	if out = run(t, script, programs, "undo"); !strings.Contains(out, "<smtp_sasl_password_maps>\n<relayhost = [old]:25>\n") {
		t.Errorf("taken back: %s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
	a.Servers["smtp"] = Server{"192.168.1.10", 1587, "tls"}
	if out := run(t, settingsOf(t, "postfix", a).Files[0].Content, programs); !strings.Contains(out, "<smtp_tls_secure_cert_match = localhost>") {
		t.Errorf("an address: %s", out)
	}
	a.CAFile = ""
	if _, err := postfix(a); err == nil {
		t.Error("a certificate of others is not compared with an address, and settings were printed")
	}
}

// TestSyntaxes holds the others to their syntax, and to the kinds of TLS.
func TestSyntaxes(t *testing.T) {
	a := sender(t)
	a.Program = []string{"o365pw"}
	for _, c := range []struct{ client, security, want string }{
		{"msmtp", "tls", "\npasswordeval o365pw show --password " + Shell(difficult) + "\ntls on\ntls_starttls off\ntls_trust_file /a folder/ca.pem\n"},
		{"msmtp", "starttls", "\ntls_starttls on\n"},
		{"msmtp", "none", "\ntls off\naccount default"},
		{"git-send-email", "tls", "\thelper = \"!o365pw git-credential --app-password 'it'\\\\''s \\\"so\\\" $(touch hurt) `touch hurt` ${HOME} 50% \\\\n \\\\ ; # ñ 邮'\"\n"},
		{"git-send-email", "tls", "[credential \"smtp://localhost:1587\"]\n"},
		{"git-send-email", "tls", "\tsmtpEncryption = \"ssl\"\n"},
		{"git-send-email", "starttls", "\tsmtpEncryption = \"tls\"\n"},
		{"git-send-email", "none", "\tsmtpServerPort = \"1587\"\n\tsmtpUser"},
		{"s-nail", "tls", "\nset mta='smtps://alice%24x%40contoso.com@localhost:1587' "},
		{"s-nail", "starttls", "\nset mta='smtp://alice%24x%40contoso.com@localhost:1587' smtp-auth=plain\nset smtp-use-starttls\n"},
		{"s-nail", "none", "smtp-auth=plain\nset netrc-lookup"},
		{"s-nail", "tls", "\nset from='o'\\''hara$x@contoso.com'\n"},
		{"python", "tls", `    command = ["o365pw", "show", "--password", "it's \"so\" $(touch hurt) ` + "`touch hurt`" + ` ${HOME} 50% \\n \\ ; # ñ 邮"]` + "\n"},
		{"python", "tls", "smtplib.SMTP_SSL(\"localhost\", 1587, context=TLS) as server:\n        server.login"},
		{"python", "starttls", "smtplib.SMTP(\"localhost\", 1587) as server:\n        server.starttls(context=TLS)\n        server.login"},
		{"curl", "starttls", " --ssl-reqd --cacert '/a folder/ca.pem' smtp://localhost:1587/\n"},
		{"swaks", "starttls", "\t'tls' \\\n\t'tls-verify'"},
		{"postfix", "starttls", "'smtp_tls_wrappermode = no'"},
		{"postfix", "none", "'smtp_tls_security_level = none'"},
	} {
		a.Servers["smtp"] = Server{"localhost", 1587, c.security}
		if got := string(settingsOf(t, c.client, a).Files[0].Content); !strings.Contains(got, c.want) {
			t.Errorf("%s with %s:\n%s\nlacks %s", c.client, c.security, got, c.want)
		}
	}
	a.CAFile = "/a\nb"
	for _, c := range senders() {
		if _, err := c.Settings(a); err == nil {
			t.Errorf("%s takes a path with a line break", c.Name)
		}
	}
	a.CAFile, a.AppPassword = "", strings.Repeat("邮", 120)+strings.Repeat("'", 40)
	if _, err := msmtp(a); err == nil {
		t.Error("msmtp is given a line that it does not take")
	}
}

// TestSendmailLink: the link leads to the program, whatever it is called by.
func TestSendmailLink(t *testing.T) {
	a := sender(t)
	for _, program := range []string{a.Program[0], "o365pw"} {
		a.Program[0] = program
		steps := strings.Join(settingsOf(t, "sendmail", a).Steps, "\n")
		_, command, ok := strings.Cut(steps, "sudo ln -s ")
		command, _, _ = strings.Cut(command, " /usr/sbin/sendmail\n")
		if !ok {
			t.Fatalf("no link:\n%s", steps)
		}
		out := run(t, []byte("ln -s "+command+" sendmail; exec ./sendmail"), map[string]string{"o365pw": "echo it is here"}, "x")
		if program == "o365pw" && out != "it is here\n" || program != "o365pw" && out == "" {
			t.Errorf("%s: %q", command, out)
		}
		if !strings.Contains(steps, "that only root can change") {
			t.Errorf("that root runs it, too, is not told:\n%s", steps)
		}
	}
}

// TestDevices holds the steps to what a person has to type, in its order.
func TestDevices(t *testing.T) {
	a := sender(t)
	a.Servers["smtp"] = Server{"192.168.1.10", 1587, "tls"}
	for name, security := range map[string]string{"printer-tls": "SSL/TLS", "printer-starttls": "STARTTLS"} {
		c, _ := Find(name)
		if !c.Device || !c.Scope.OwnSender || strings.Join(c.Scope.Allow, " ") != "smtp" {
			t.Errorf("%s has the scope %+v", name, c.Scope)
		}
		steps := strings.Join(settingsOf(t, name, a).Steps, "\n")
		at := 0
		for _, want := range []string{"SMTP server: 192.168.1.10\n", "Port: 1587\n", "Security: " + security, "Authentication: on", "User name: alice$x@contoso.com\n", "Password: ", "Sender, From or reply address: o'hara$x@contoso.com;", "cert export", "[gateway.legacy]"} {
			i := strings.Index(steps[at:], want)
			if i < 0 {
				t.Fatalf("%s lacks %q behind what comes before it:\n%s", name, want, steps)
			}
			at += i
		}
	}
	if steps := strings.Join(settingsOf(t, "printer-plain", a).Steps, "\n"); strings.Contains(steps, "User name") || !strings.Contains(steps, "settings --for postfix") {
		t.Errorf("a device without TLS is told to sign in:\n%s", steps)
	}
	a.Servers["smtp"] = Server{"192.168.1.10", 1587, "none"}
	if _, err := printer(a, "STARTTLS", "STARTTLS"); err == nil {
		t.Error("a listener without TLS is printed for a device that has to have it")
	}
}
