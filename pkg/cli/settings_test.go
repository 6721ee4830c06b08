package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/internal/localca"
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
	printer := clientconfig.Client{Name: "printer", Title: "the printer", Device: true, Protocols: []string{"imap", "smtp"}}
	_, said := settingsAccount(t, loopback, printer)
	for _, want := range []string{`: imap = "`, `:1993"`, `: smtp = "`, `:1587"`} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	printer.Protocols = []string{"smtp"}
	if _, said := settingsAccount(t, loopback, printer); strings.Contains(said, "imap") || !strings.Contains(said, "smtp") {
		t.Errorf("one that only sends: %q", said)
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

// TestSettingsTrust: programs are told to trust what can be trusted, and the
// server by a name that is in its certificate.
func TestSettingsTrust(t *testing.T) {
	account, said := settingsAccount(t, "", clientconfig.Client{})
	if filepath.Base(account.CAFile) != "ca.pem" || account.OwnCertificate || said != "" || account.Servers["imap"].Host != "localhost" {
		t.Errorf("with its own authority: %+v, %q", account, said)
	}
	account, said = settingsAccount(t, "tls_cert = \"a.pem\"\ntls_key = \"b.pem\"\n", clientconfig.Client{})
	if account.CAFile != "" || said != "" || account.Servers["imap"].Host != "127.0.0.1" {
		t.Errorf("with a certificate that is not there: %+v, %q", account, said)
	}
	signed, byAnother := selfSigned(t, "*.contoso.com", "mail.contoso.com"), leafOf(t, "127.0.0.1", "mail.contoso.com")
	for name, c := range map[string]struct {
		file, trust, host, said string
	}{
		"one that has signed itself":          {signed, signed, "mail.contoso.com", "that name has to lead to this gateway"},
		"one that is good for the address":    {byAnother, "", "127.0.0.1", "tell the mail program to trust the authority that has"},
		"one for localhost and not 127.0.0.1": {selfSigned(t, "mail.contoso.com", "localhost"), "*", "localhost", ""},
		"one for whole domains":               {selfSigned(t, "*.contoso.com"), "*", "127.0.0.1", ""},
	} {
		account, said := settingsAccount(t, fmt.Sprintf("tls_cert = %q\ntls_key = \"b.pem\"\n", c.file), clientconfig.Client{})
		if c.trust != "*" && account.CAFile != c.trust || account.Servers["imap"].Host != c.host || !strings.Contains(said, c.said) || c.said == "" && said != "" {
			t.Errorf("%s: trusts %q at %s, %q", name, account.CAFile, account.Servers["imap"].Host, said)
		}
	}
}

// TestSettingsOfIPv6 says what not every program takes.
func TestSettingsOfIPv6(t *testing.T) {
	account, said := settingsAccount(t, "imap = \"[::1]:1993\"\nsmtp = \"127.0.0.1:1587\"\n", clientconfig.Client{})
	if account.Servers["imap"].Host != "::1" || !strings.Contains(said, "for imap the server is an IPv6 address") || strings.Contains(said, "for smtp") {
		t.Errorf("%+v, %q", account, said)
	}
}

// TestSettingsOnAllAddresses: a phone gets an address, since the name of this
// machine means nothing to it.
func TestSettingsOnAllAddresses(t *testing.T) {
	const everywhere = "imap = \"0.0.0.0:1993\"\nsmtp = \":1587\"\n"
	machine := clientHost("")
	want := outsideHost()
	if want == "0.0.0.0" || strings.Contains(machine, ".") {
		want = machine
	}
	account, _ := settingsAccount(t, everywhere, clientconfig.Client{Name: "iphone", Device: true})
	for p, s := range account.Servers {
		if s.Host != want {
			t.Errorf("%s at %s, want %s", p, s.Host, want)
		}
	}
	account, _ = settingsAccount(t, everywhere, clientconfig.Client{Name: "mutt"})
	if got := account.Servers["imap"].Host; got != machine {
		t.Errorf("a program is told %s, want %s", got, machine)
	}
}

// selfSigned is the file of a certificate for names, which nobody else has signed.
func selfSigned(t *testing.T, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, der)
}

// leafOf is the file of a certificate of an authority that nobody knows.
func leafOf(t *testing.T, names ...string) string {
	t.Helper()
	now := time.Now()
	caPEM, keyPEM, err := localca.Create("unknown", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := localca.Load(caPEM, keyPEM, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf(names, now)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, leaf.Certificate[0])
}

func pemFile(t *testing.T, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "own.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
	for typed, near := range map[string]string{"mtt": "mutt", "neomut": "neomutt", "gnus": "o365pw settings --list", "printer": "--for printer-starttls (STARTTLS", "Scanner": "--for printer-plain", "aercc": "aerc"} {
		_, err := findClient(typed)
		if adv := advise(err); adv.code != wrongUsage || !strings.Contains(adv.hint, near) {
			t.Errorf("%s: %+v", typed, adv)
		}
	}
	for typed, want := range map[string]string{
		"Apple Mail": "apple-mail", "MUTT ": "mutt", "isync": "mbsync", "Outlook (classic)": "outlook", "git send-email": "git-send-email", "snail": "s-nail",
		"iOS": "iphone", "Gmail": "android", "K-9 Mail": "android", "Printer TLS": "printer-tls", "scanner-plain": "printer-plain", "bsd-mailx": "mailx", "python3": "python",
	} {
		if c, err := findClient(typed); err != nil || c.Name != want {
			t.Errorf("%s: %q, %v", typed, c.Name, err)
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
