package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// proxyFile has an account of each kind, and secrets that must not be seen
// again: each contains "hunter2".
const proxyFile = `[about]
documentation = lines that go on
	[IMAP-9999]
	client_id = not this one

	# a comment amid them
	and an empty line
[IMAP-1993]
server_address = outlook.office365.com
server_port = 993
local_address = ::1

[POP-1995]
server_address = outlook.office365.com
[SMTP-1587]
Server_Address : smtp-mail.outlook.com
[IMAP-2993]
server_address = imap.gmail.example
[IMAP-3993]
server_address = outlook.office365.us
local_address = 0.0.0.0

[alice@contoso.com]
permission_url = https://login.microsoftonline.com/common/oauth2/v2.0/authorize
token_url = https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token
oauth2_scope = https://outlook.office.com/IMAP.AccessAsUser.All
    https://outlook.office.com/SMTP.Send offline_access
redirect_uri = http://localhost:8080
client_id = 00001111-AAAA-2222-bbbb-3333cccc4444
client_secret = hunter2a%(x)s
  hunter2b
access_token = hunter2c
refresh_token = hunter2d

[alice@fabrikam.com]
token_url = https://login.microsoftonline.com/11112222-bbbb-3333-cccc-4444dddd5555/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/.default
oauth2_flow = client_credentials
client_id = 00001111-aaaa-2222-bbbb-3333cccc4444
client_secret_encrypted = hunter2e

[bob@hotmail.com]
token_url = https://login.microsoftonline.com/common/oauth2/v2.0/token
oauth2_scope = https://outlook.office.com/POP.AccessAsUser.All
oauth2_flow = device
redirect_uri = https://example.com/callback?hunter2f
client_id = 9e5f94bc-e8a4-4e73-b8be-63364c29d753

[me@gmail.example]
token_url = https://oauth2.example/token
client_secret = hunter2g

[scan@agency.us]
token_url = https://login.microsoftonline.us/agency.us/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.us/.default
oauth2_flow = client_credentials
client_id = 00001111-aaaa-2222-bbbb-3333cccc4444
jwt_certificate_path = /keys/mail.pem
jwt_key_path = /keys/mail.pem

[@tailspin.com]
token_url = https://login.microsoftonline.com/common/oauth2/v2.0/token
oauth2_flow = client_credentials
oauth2_scope = https://outlook.office365.com/.default
client_id = *** your client id here ***

[dod@army.example]
token_url = https://login.microsoftonline.us/army.example/oauth2/v2.0/token
oauth2_flow = password
oauth2_scope = https://outlook-dod.office365.us/IMAP.AccessAsUser.All

[nothing@contoso.com]

[emailproxy]
allow_catch_all_accounts = Yes
`

func TestImportEmailProxy(t *testing.T) {
	got, err := ImportEmailProxy(strings.NewReader(proxyFile))
	if err != nil {
		t.Fatal(err)
	}
	want := []Imported{
		{Name: "alice", Mailbox: "alice@contoso.com", Tenant: "contoso.com", ClientID: guid, Backing: "user", Allow: []string{"imap", "smtp"},
			Cloud: "global", IMAP: "[::1]:1993", SMTP: "127.0.0.1:1587"},
		{Name: "alice-fabrikam", Mailbox: "alice@fabrikam.com", Tenant: "11112222-bbbb-3333-cccc-4444dddd5555", ClientID: guid, Backing: "secret",
			Allow: []string{"imap", "pop3", "smtp"}, Cloud: "global", IMAP: "[::1]:1993", POP3: "127.0.0.1:1995", SMTP: "127.0.0.1:1587"},
		{Name: "bob", Mailbox: "bob@hotmail.com", Tenant: "consumers", ClientID: "9e5f94bc-e8a4-4e73-b8be-63364c29d753", Backing: "user",
			Allow: []string{"pop3"}, Cloud: "global", POP3: "127.0.0.1:1995"},
		{Mailbox: "me@gmail.example", Skipped: `its tokens come from "oauth2.example", not from Microsoft`},
		{Name: "scan", Mailbox: "scan@agency.us", Tenant: "agency.us", ClientID: guid, Backing: "certificate", Certificate: "/keys/mail.pem",
			Allow: []string{"imap"}, Cloud: "usgov", IMAP: "0.0.0.0:3993"},
		{Name: "tailspin", Backing: "secret", Allow: []string{"imap", "pop3", "smtp"}, Cloud: "global", IMAP: "[::1]:1993", POP3: "127.0.0.1:1995", SMTP: "127.0.0.1:1587"},
		{Name: "dod", Mailbox: "dod@army.example", Tenant: "army.example", Backing: "user", Allow: []string{"imap"}, Cloud: "dod"},
		{Mailbox: "nothing@contoso.com", Skipped: "it has no token_url, without which nothing tells where it signs in"},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Imported{}, "Notes")); d != "" {
		t.Error(d)
	}
	for n, parts := range [][]string{
		{"client secret was not taken over: allow public client flows", "stored tokens were not taken over: sign in anew", "smtp was offered on every address"},
		{"o365pw create makes one of its own"},
		{"device code", "tenant is consumers", "Mozilla Thunderbird's own", "redirect address was not taken over"},
		nil,
		{"imap is offered on 0.0.0.0"},
		{"every account of tailspin.com", "no tenant was taken over", `"*** your client id here ***" is not a GUID`},
		{"person's password, which o365pw does not do", "no client id was taken over: there is none"},
		nil,
	} {
		notes := strings.Join(got[n].Notes, "\n")
		for _, p := range parts {
			if !strings.Contains(notes, p) {
				t.Errorf("%s: no %q in\n%s", got[n].Mailbox, p, notes)
			}
		}
	}
	if notes := strings.Join(got[0].Notes, "\n"); strings.Contains(notes, "redirect") {
		t.Errorf("a loopback address that fits is told of:\n%s", notes)
	}
	if all := fmt.Sprintf("%+v", got); strings.Contains(all, "hunter2") {
		t.Errorf("a secret is in\n%s", all)
	}
}

// One account each, for what the file above does not have.
func TestImportEmailProxyAccount(t *testing.T) {
	const token = "token_url = https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token\n"
	for _, tt := range []struct{ name, text, backing, part string }{
		{"two files", "[a@b.c]\n" + token + "oauth2_flow = client_credentials\njwt_certificate_path = cert.pem\njwt_key_path = key.pem\nclient_secret = hunter2\n",
			"certificate", `"cert.pem" and "key.pem": put both into one PEM file`},
		{"a secret beside them", "[a@b.c]\n" + token + "oauth2_flow = client_credentials\njwt_certificate_path = cert.pem\nclient_secret = hunter2\n",
			"certificate", "the certificate stands in for it"},
		{"certificate of a person's sign-in", "[a@b.c]\n" + token + "jwt_certificate_path = cert.pem\n", "user", "its certificate was not taken over"},
		{"unknown flow", "[a@b.c]\n" + token + "oauth2_flow = magic\n", "user", `flow "magic" is not known`},
		{"defaults", "[DEFAULT]\n" + token + "oauth2_flow = client_credentials\n[a@b.c]\nclient_id = " + guid + "\n", "secret", "nothing says which protocols"},
		{"many tenants", "[a@b.c]\ntoken_url = https://login.microsoftonline.com/common/x\noauth2_flow = client_credentials\n", "secret", "no tenant was taken over: \"common\" stands for many"},
		{"no catch-all", "[@b.c]\n" + token, "", "which allow_catch_all_accounts does not allow"},
		{"service account", "[a@b.c]\n" + token + "oauth2_flow = service_account\n", "", "service account, which is Google's"},
	} {
		got, err := ImportEmailProxy(strings.NewReader(tt.text))
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %+v, %v", tt.name, got, err)
		}
		all := strings.Join(got[0].Notes, "\n") + got[0].Skipped
		if got[0].Backing != tt.backing || !strings.Contains(all, tt.part) || strings.Contains(all, "hunter2") {
			t.Errorf("%s: %q\n%s", tt.name, got[0].Backing, all)
		}
	}
}

// What is imported makes profiles that can be loaded.
func TestImportedSettings(t *testing.T) {
	all, err := ImportEmailProxy(strings.NewReader(proxyFile))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "config.toml")
	for _, i := range all {
		if i.Skipped != "" {
			continue
		}
		if _, err := SetProfile(t.Context(), name, i.Name, i.Settings()); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		p := cfg.Profiles[i.Name]
		if i.Skipped == "" && (p.Mailbox != i.Mailbox || p.Tenant != i.Tenant || p.ClientID != i.ClientID || p.Backing != i.Backing ||
			p.CloudName != i.Cloud || p.Certificate != i.Certificate || !slices.Equal(p.Allow, i.Allow)) {
			t.Errorf("%+v became %+v", i, p)
		}
	}
}

func TestImportEmailProxyFaults(t *testing.T) {
	for _, tt := range []struct {
		text string
		line int
		want string
	}{
		{"", 0, "no account"},
		{"[IMAP-1993]\n", 0, "no account"},
		{"x = 1\n[a@b.c]\n", 1, "neither a section nor a key"},
		{"[a@b.c]\n\nhunter2\n", 3, "neither a section nor a key"},
		{"[a@b.c]\n= hunter2\n", 2, "neither a section nor a key"},
		{"[a@b.c]\rclient_secret = hunter2\rClient_Secret = hunter2\r", 3, "twice"},
		{"[a@b.c]\n[d]\n[a@b.c]\n", 3, "second section"},
		{strings.Repeat("#", maxFile+1), 0, "longer than"},
	} {
		got, err := ImportEmailProxy(strings.NewReader(tt.text))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Line != tt.line || !strings.Contains(e.Problem, tt.want) || e.Hint == "" || strings.Contains(e.Error()+e.Hint, "hunter2") || got != nil {
			t.Errorf("%.40q: %+v, %v", tt.text, err, got)
		}
	}
}

func TestImportDavMail(t *testing.T) {
	const account = `davmail.oauth.alice\@contoso.com.refreshToken = {AES}hunter2` + "\n"
	for _, tt := range []struct {
		name, text string
		want       []Imported
		notes      []string // in those of the first
		absent     []string
	}{
		{"as it comes", "davmail.mode=O365EWS\ndavmail.url=https\\://outlook.office365.com/EWS/Exchange.asmx\ndavmail.imapPort=1143\ndavmail.popPort=\ndavmail.smtpPort=1025\ndavmail.caldavPort=1080\n" +
			"davmail.oauth.tenantId=\n",
			[]Imported{{Name: "mail", Tenant: "common", ClientID: davmailClientID, Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "global", IMAP: "127.0.0.1:1143", SMTP: "127.0.0.1:1025"}},
			[]string{"names no account", "DavMail's own", "redirect address", "by EWS or Graph", "CalDAV"}, []string{"token", "other machines"}},
		{"accounts of one's own registration", "# comment \\\ndavmail.mode : O365Graph\r\ndavmail.oauth.clientId \\\r\n   00001111-aaaa-2222-bbbb-3333cccc4444\r\ndavmail.oauth.tenantId=contoso\\u002ecom\n" +
			account + "davmail.oauth.bob@contoso.com.refreshToken=\\u00zz hunter2\ndavmail.allowRemote=true\ndavmail.imapPort=1143\ndavmail.bindAddress=10.0.0.1\n",
			[]Imported{{Name: "alice", Mailbox: "alice@contoso.com", Tenant: "contoso.com", ClientID: guid, Backing: "user", Allow: []string{"imap"}, Cloud: "global", IMAP: "10.0.0.1:1143"},
				{Name: "bob", Mailbox: "bob@contoso.com", Tenant: "contoso.com", ClientID: guid, Backing: "user", Allow: []string{"imap"}, Cloud: "global", IMAP: "10.0.0.1:1143"}},
			[]string{"stored token was not taken over", "other machines"}, []string{"DavMail's own", "redirect", "CalDAV"}},
		{"personal account", "davmail.mode=O365Modern\ndavmail.oauth.alice@outlook.com.refreshToken=hunter2\n",
			[]Imported{{Name: "alice", Mailbox: "alice@outlook.com", Tenant: "consumers", ClientID: davmailClientID, Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "global"}},
			[]string{"looks like a personal account", "nothing says which protocols"}, nil},
		{"GCC High by its domain", "davmail.mode=O365EWS\ndavmail.tld=us\ndavmail.url=https://outlook.office365.com/EWS/Exchange.asmx\n" + account,
			[]Imported{{Name: "alice", Mailbox: "alice@contoso.com", Tenant: "common", ClientID: davmailClientID, Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "usgov"}}, nil, nil},
		{"DoD", "davmail.mode=O365EWS\ndavmail.loginUrl=https://login.microsoftonline.us\ndavmail.url=https://outlook-dod.office365.us/EWS/Exchange.asmx\n" + account,
			[]Imported{{Name: "alice", Mailbox: "alice@contoso.com", Tenant: "common", ClientID: davmailClientID, Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "dod"}}, nil, nil},
		{"China", "davmail.mode=O365EWS\ndavmail.loginUrl=https://login.chinacloudapi.cn\ndavmail.outlookUrl=https://partner.outlook.cn\n" + account,
			[]Imported{{Name: "alice", Mailbox: "alice@contoso.com", Tenant: "common", ClientID: davmailClientID, Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "china"}}, nil, nil},
		{"a server of one's own", "davmail.mode=ExchangeEWS\ndavmail.url=https://mail.contoso.com/EWS/Exchange.asmx\ndavmail.proxyPassword=hunter2\n",
			[]Imported{{Skipped: `it is for an Exchange server at "mail.contoso.com" (mode "ExchangeEWS"), and o365pw opens Exchange Online only`}}, nil, nil},
		{"a name that is no address", "davmail.mode=O365EWS\ndavmail.oauth.contoso\\\\alice.refreshToken=hunter2\ndavmail.oauth.clientId=hunter\n",
			[]Imported{{Name: "mail", Tenant: "common", Backing: "user", Allow: []string{"imap", "smtp"}, Cloud: "global"}},
			[]string{`"contoso\\alice" is not a mail address`, "not a GUID"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ImportDavMail(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Imported{}, "Notes")); d != "" {
				t.Error(d)
			}
			notes := strings.Join(got[0].Notes, "\n")
			for _, n := range tt.notes {
				if !strings.Contains(notes, n) {
					t.Errorf("no %q in\n%s", n, notes)
				}
			}
			for _, n := range tt.absent {
				if strings.Contains(notes, n) {
					t.Errorf("%q in\n%s", n, notes)
				}
			}
			if all := fmt.Sprintf("%+v", got); strings.Contains(all, "hunter2") {
				t.Errorf("a secret is in\n%s", all)
			}
		})
	}
	for _, tt := range []struct {
		text string
		line int
		want string
	}{
		{"", 0, "no key of DavMail's"},
		{"a=b", 0, "no key of DavMail's"},
		{"davmail.mode=x\n\ndavmail.url=\\u00zzhunter2\n", 3, "four hexadecimal digits"},
		{"davmail.url=hunter2\\u00\\\n", 1, "four hexadecimal digits"},
		{"davmail\\u12", 1, "four hexadecimal digits"},
	} {
		got, err := ImportDavMail(strings.NewReader(tt.text))
		if e, ok := errors.AsType[*Error](err); !ok || e.Line != tt.line || !strings.Contains(e.Problem, tt.want) || strings.Contains(e.Error(), "hunter2") || got != nil {
			t.Errorf("%q: %+v, %v", tt.text, err, got)
		}
	}
}

func TestReadProperties(t *testing.T) {
	for _, tt := range []struct {
		text string
		want map[string]string
	}{
		{" a = b \n", map[string]string{"a": "b "}},
		{"a:b\rc d\r\ne\tf", map[string]string{"a": "b", "c": "d", "e": "f"}},
		{"a\\:\\=\\ b=c", map[string]string{"a:= b": "c"}},
		{"a=b\\\n  c\\\r\n\td\\\\\ne=", map[string]string{"a": "bcd\\", "e": ""}},
		{"#x\\\na=1\n!y\n  # z\nb = #!", map[string]string{"a": "1", "b": "#!"}},
		{"a=\\t\\n\\q\\u00e4\\ud83d\\udd11\xe4", map[string]string{"a": "\t\nqä🔑ä"}},
		{"a=1\na=2", map[string]string{"a": "2"}},
		{"secret = hunter2\\uzzzz\n", map[string]string{"secret": ""}},
		{"\\\n# not a key\na\\", map[string]string{"a": ""}},
		{"", map[string]string{}},
	} {
		got, err := readProperties([]byte(tt.text), func(key string) bool { return key != "secret" })
		if d := cmp.Diff(tt.want, got); d != "" || err != nil {
			t.Errorf("%q: %v %s", tt.text, err, d)
		}
	}
}

func TestNameProfiles(t *testing.T) {
	all := []Imported{{Mailbox: "Alice.A@contoso.com"}, {Mailbox: "alice.a@fabrikam.com"}, {Mailbox: "alice.a@fabrikam.org"}, {Mailbox: "alice.a@fabrikam.net"},
		{}, {}, {Mailbox: "x@y.z", Skipped: "so"}, {Mailbox: "_ä+tag_@b.c"}, {Mailbox: strings.Repeat("long", 30) + "@b.c"}}
	nameProfiles(all)
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
		if i.Skipped == "" && !nameForm.MatchString(i.Name) {
			t.Errorf("%q is not a good name", i.Name)
		}
	}
	want := []string{"alice.a", "alice.a-fabrikam", "alice.a-fabrikam-2", "alice.a-fabrikam-3", "mail", "mail-2", "", "tag", strings.Repeat("long", 30)[:50]}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		text    string
		mailbox string // of the first
		problem string
	}{
		{proxyFile, "alice@contoso.com", ""},
		{"\uFEFF[a@b.c]\ntoken_url=https://login.microsoftonline.com/b.c/\n", "a@b.c", ""},
		{"# DavMail\n davmail.oauth.a@b.c.refreshToken=hunter2\ndavmail.mode=O365EWS\n", "a@b.c", ""},
		{full, "", "neither a configuration of email-oauth2-proxy nor of DavMail"},
		{"", "", "neither"},
		{"[IMAP-1993]\nhunter2\n", "", "neither a section nor a key"},
		{strings.Repeat("davmail.x=\n", maxFile/10), "", "longer than"},
	} {
		name := filepath.Join(dir, "import")
		if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Import(name)
		if tt.problem == "" {
			if err != nil || got[0].Mailbox != tt.mailbox {
				t.Errorf("%.30q: %+v, %v", tt.text, got, err)
			}
			continue
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Path != name || !strings.Contains(e.Problem, tt.problem) || e.Hint == "" {
			t.Errorf("%.30q: %+v", tt.text, err)
		}
	}
	for _, name := range []string{filepath.Join(dir, "none"), dir} {
		_, err := Import(name)
		if e, ok := errors.AsType[*Error](err); !ok || e.Path != name || !strings.Contains(e.Problem, "cannot be read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// checkImported holds what a parser gave to what setup relies on.
func checkImported(t *testing.T, all []Imported, err error) {
	t.Helper()
	if err != nil {
		if e, ok := errors.AsType[*Error](err); !ok || e.Problem == "" || all != nil {
			t.Fatalf("%#v", err)
		}
		return
	}
	names := map[string]bool{}
	for _, i := range all {
		if i.Skipped != "" {
			continue
		}
		if names[i.Name] {
			t.Fatalf("two are called %q", i.Name)
		}
		names[i.Name] = true
		if _, err := editProfile("/etc/o365pw.toml", nil, i.Name, i.Settings()); err != nil {
			t.Fatalf("%+v: %v", i, err)
		}
		for _, listen := range []string{i.IMAP, i.POP3, i.SMTP} {
			if problem, _ := CheckListen(listen); listen != "" && problem != "" {
				t.Fatalf("%+v: %s", i, problem)
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("neither accounts nor an error")
	}
}

func FuzzImportEmailProxy(f *testing.F) {
	for _, s := range []string{proxyFile, "", "[a@b]", "[@]\n[@x]\n[emailproxy]\nallow_catch_all_accounts=1", "[DEFAULT]\ntoken_url=https://login.microsoftonline.cn/a\n[a@b]",
		"[SMTP-0]\n[a@b]\ntoken_url=https://login.windows.net/common\nclient_id", "[a@b]\n\tx\n=", "[a@b\xff]\ntoken_url:https://login.live.com/%zz"} {
		f.Add([]byte(s))
	}
	f.Add([]byte("[a@b\x99]\noauth2_flow=client_credentials\njwt_certificate_path=/\x99\njwt_key_path=/\x99\ntoken_url=https://login.microsoftonline.com/b.c/\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ImportEmailProxy(strings.NewReader(string(data)))
		checkImported(t, all, err)
	})
}

func FuzzImportDavMail(f *testing.F) {
	for _, s := range []string{"davmail.mode=O365EWS", "davmail.oauth.a@b.refreshToken=x\ndavmail.mode=O365\ndavmail.imapPort=1", "", "davmail.=\\u", "a\\\n", "\\",
		"davmail.mode=O365\ndavmail.allowRemote=true\ndavmail.bindAddress=::1\ndavmail.popPort=99999\ndavmail.smtpPort=7", "davmail.tld=us\ndavmail.url=://\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ImportDavMail(strings.NewReader(string(data)))
		checkImported(t, all, err)
	})
}
