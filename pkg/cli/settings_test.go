package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// settingsApp is an app with a state folder, a configuration and nothing else.
func settingsApp(t *testing.T, gateway string) (a *app, stderr *strings.Builder) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	text := "[profiles.work]\ntenant = \"contoso.com\"\nclient_id = \"00000000-0000-4000-8000-000000000001\"\nkeychain = \"file\"\n[gateway]\n" + gateway
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"O365PW_CONFIG": path, "O365PW_STATE": filepath.Join(dir, "state")}
	stderr = &strings.Builder{}
	return newApp(Env{Stdout: &strings.Builder{}, Stderr: stderr, Now: time.Now, Getenv: func(name string) string { return env[name] }}), stderr
}

func settingsAccount(t *testing.T, gateway string, client clientconfig.Client) (clientconfig.Account, string) {
	t.Helper()
	a, stderr := settingsApp(t, gateway)
	s, err := a.open()
	if err != nil {
		t.Fatal(err)
	}
	rec := apppassword.Record{Name: "laptop", Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap", "smtp"}}
	account, err := a.account(t.Context(), s, rec, client, "")
	if err != nil {
		t.Fatal(err)
	}
	return account, stderr.String()
}

// TestSettingsOfDevices wants a warning, with the line to change, where a device
// cannot reach the gateway, and none where it can or where the program is here.
func TestSettingsOfDevices(t *testing.T) {
	const loopback, outside = "imap = \"127.0.0.1:1993\"\nsmtp = \"127.0.0.1:1587\"\n", "imap = \"192.0.2.1:1993\"\nsmtp = \"192.0.2.1:1587\"\n"
	printer := clientconfig.Client{Name: "printer", Title: "the printer", Device: true}
	_, said := settingsAccount(t, loopback, printer)
	for _, want := range []string{`: imap = "`, `:1993"`, `: smtp = "`, `:1587"`} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	for name, c := range map[string]struct {
		gateway string
		client  clientconfig.Client
	}{
		"a device, and a gateway for others": {outside, printer},
		"a program here":                     {loopback, clientconfig.Client{Name: "mutt", Title: "Mutt"}},
	} {
		if _, said := settingsAccount(t, c.gateway, c.client); strings.Contains(said, "alone") {
			t.Errorf("%s: %q", name, said)
		}
	}
}

func TestSettingsTrust(t *testing.T) {
	account, said := settingsAccount(t, "", clientconfig.Client{})
	if filepath.Base(account.CAFile) != "ca.pem" || !strings.Contains(said, "the first o365pw serve makes it") || account.Servers["imap"].Host != "localhost" {
		t.Errorf("with its own authority: %+v, %q", account, said)
	}
	account, said = settingsAccount(t, "tls_cert = \"a.pem\"\ntls_key = \"b.pem\"\n", clientconfig.Client{})
	if account.CAFile != "" || said != "" || account.Servers["imap"].Host != "127.0.0.1" {
		t.Errorf("with a certificate of one's own: %+v, %q", account, said)
	}
}

// TestSettingsMissing tells a protocol that is allowed but not offered from one
// that is not allowed.
func TestSettingsMissing(t *testing.T) {
	a, _ := settingsApp(t, "imap = \"\"\n")
	s, err := a.open()
	if err != nil {
		t.Fatal(err)
	}
	mbsync, _ := clientconfig.Find("mbsync")
	for _, c := range []struct {
		allow []string
		hint  string
	}{
		{[]string{"imap"}, "nothing listens for imap: set imap = … in [gateway]"},
		{[]string{"smtp"}, "o365pw create NAME --for mbsync"},
	} {
		_, err := a.settingsFor(t.Context(), s, apppassword.Record{Name: "x", Mailboxes: []string{"alice@contoso.com"}, Allow: c.allow}, mbsync, "")
		if adv := a.advise(err); err == nil || adv.code != wrongUsage || !strings.Contains(adv.hint, c.hint) {
			t.Errorf("%v: %v, %+v", c.allow, err, adv)
		}
	}
}

func TestSenderOf(t *testing.T) {
	for _, c := range []struct {
		from []string
		want string
	}{
		{nil, "alice@contoso.com"},
		{[]string{"@contoso.com"}, "alice@contoso.com"},
		{[]string{"scan@contoso.com", "ALICE@contoso.com"}, "alice@contoso.com"},
		{[]string{"@example.org", "scan@contoso.com"}, "scan@contoso.com"},
		{[]string{"@example.org"}, "alice@contoso.com"},
	} {
		if got := senderOf(apppassword.Record{From: c.from}, "alice@contoso.com"); got != c.want {
			t.Errorf("%q: %s, want %s", c.from, got, c.want)
		}
	}
}

func TestFindClient(t *testing.T) {
	for typed, near := range map[string]string{"mtt": "mutt", "neomut": "neomutt", "isync": "o365pw settings --list", "aercc": "aerc"} {
		_, err := findClient(typed)
		if adv := advise(err); adv.code != wrongUsage || !strings.Contains(adv.hint, near) {
			t.Errorf("%s: %+v", typed, adv)
		}
	}
	if d := []int{distance("", "abc"), distance("abc", ""), distance("kitten", "sitting"), distance("same", "same")}; !slices.Equal(d, []int{3, 3, 3, 0}) {
		t.Errorf("distances %v", d)
	}
}

// TestPrintForProgram shows what is printed of several files, and of binary ones.
func TestPrintForProgram(t *testing.T) {
	text := settingsFile{Path: "~/a", Content: "x\n", data: []byte("x\n")}
	picture := toSettingsFile(clientconfig.File{Path: "~/b.png", Content: []byte{0, 1}, Binary: true})
	if picture.Encoding != "base64" || picture.Content != "AAE=" {
		t.Errorf("%+v", picture)
	}
	for name, c := range map[string]struct {
		output output
		s      clientSettings
		want   string
		err    bool
	}{
		"one, in a pipe":           {outputAuto, clientSettings{Files: []settingsFile{text}}, "x\n", false},
		"a binary one, in a pipe":  {outputAuto, clientSettings{Files: []settingsFile{picture}}, "\x00\x01", false},
		"a binary one, for people": {outputTable, clientSettings{Files: []settingsFile{picture}}, "", false},
		"two, in a pipe":           {outputAuto, clientSettings{Files: []settingsFile{text, text}}, "", true},
		"two, for people":          {outputTable, clientSettings{Files: []settingsFile{text, text}}, "# ~/a\nx\n\n# ~/a\nx\n", false},
		"none":                     {outputAuto, clientSettings{Steps: []string{"type", "this"}}, "type\nthis\n", false},
	} {
		a, _ := settingsApp(t, "")
		a.output = c.output
		err := a.printForProgram(c.s)
		if got := a.Stdout.(*strings.Builder).String(); got != c.want || (err != nil) != c.err {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
