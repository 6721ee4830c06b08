package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const guid = "00001111-aaaa-2222-bbbb-3333cccc4444"

const full = `default_profile = "work"

[profiles.work]
tenant          = "contoso.onmicrosoft.com"    # or its GUID
client_id       = "00001111-aaaa-2222-bbbb-3333cccc4444"
login_client_id = "00001111-aaaa-2222-bbbb-3333cccc5555"
mailbox         = "alice@contoso.com"
backing         = "certificate"
allow           = ["imap", "pop3"]
expires         = "90d"
cloud           = "lab"
keychain        = "file"
certificate     = "keys/mail.pem"

assertion_algorithm = "RS256"

[profiles."a.b"]

[clouds.lab]
authority         = "http://127.0.0.1:8400/"
graph             = "http://127.0.0.1:8401/v1.0"
imap              = "imaps://127.0.0.1:9993"
pop3              = "pop3s://[::1]"
smtp              = "smtp://localhost"
exchange_resource = "https://outlook.office365.com"
ca_file           = "lab-ca.pem"

[gateway]
imap       = "0.0.0.0:143"
smtp       = ""
metrics    = "[::1]:9365"
tls_cert   = "/etc/ssl/mail.pem"
tls_key    = "mail.key"
revalidate = "30s"

[hooks]
on_expiring         = "/usr/local/bin/tell expiring"
on_sign_in_required = "tell sign-in"
on_refused          = "cat >> refused.log"
on_decoy            = """
page
me"""
`

func write(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLoad(t *testing.T) {
	name := write(t, "\uFEFF"+full)
	dir := filepath.Dir(name)
	got, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	lab := Cloud{
		Name: "lab", Authority: "http://127.0.0.1:8400", Graph: "http://127.0.0.1:8401/v1.0",
		GraphResource: "https://graph.microsoft.com", ExchangeResource: "https://outlook.office365.com",
		ExchangeDelegated: "https://outlook.office.com", CAFile: filepath.Join(dir, "lab-ca.pem"),
		IMAP: Endpoint{"127.0.0.1", 9993, "tls"}, POP3: Endpoint{"::1", 995, "tls"}, SMTP: Endpoint{"localhost", 587, "starttls"},
	}
	want := &Config{
		Path: name, DefaultProfile: "work",
		Profiles: map[string]Profile{
			"work": {Name: "work", Tenant: "contoso.onmicrosoft.com", ClientID: guid, LoginClientID: guid[:32] + "5555",
				Mailbox: "alice@contoso.com", Backing: "certificate", Allow: []string{"imap", "pop3"}, Expires: "90d",
				CloudName: "lab", Cloud: lab, Keychain: "file", Certificate: filepath.Join(dir, "keys/mail.pem"),
				Send: "auto", AssertionAlgorithm: "RS256"},
			"a.b": {Name: "a.b", Backing: "secret", Allow: []string{"imap", "smtp"}, Expires: "180d",
				CloudName: "global", Cloud: global, Keychain: "system", Send: "auto", AssertionAlgorithm: "PS256"},
		},
		Clouds: map[string]Cloud{"lab": lab},
		Gateway: Gateway{IMAP: "0.0.0.0:143", POP3: "127.0.0.1:1995", Unnamed: []string{"pop3"}, Metrics: "[::1]:9365", TLSCert: "/etc/ssl/mail.pem",
			TLSKey: filepath.Join(dir, "mail.key"), Revalidate: 30 * time.Second},
		Hooks: Hooks{OnExpiring: "/usr/local/bin/tell expiring", OnSignInRequired: "tell sign-in", OnRefused: "cat >> refused.log", OnDecoy: "page\nme"},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Error(d)
	}
}

func TestLoadEmpty(t *testing.T) {
	got, err := Load(write(t, "# nothing\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(DefaultGateway(), got.Gateway); d != "" || got.Hooks != (Hooks{}) || got.Gateway.Metrics != "" || len(got.Profiles) != 0 {
		t.Errorf("%v %s", got, d)
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.toml"))
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(e.Error(), "none.toml: cannot be read") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: %v", err)
	}
	if _, err := Load(write(t, strings.Repeat("#", maxFile+1))); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("long file: %v", err)
	}
}

// loadFault is a file with a fault, and what is said of it.
type loadFault struct {
	name, content string
	line          int
	key           string
	problem, hint string // what is in them
}

func loadFaults() []loadFault {
	inProfile := func(s string) string { return "[profiles.work]\n" + s }
	inCloud := func(s string) string {
		return "[clouds.lab]\nauthority = \"https://login.example\"\ngraph = \"https://graph.example/v1.0\"\n" + s
	}
	return []loadFault{
		{"syntax", "a = \n", 1, "", "", ""},
		{"syntax late", "[profiles.work]\ntenant = \"a.b\"\nmailbox = \"", 3, "", "", ""},
		{"not text", "\x00\xff\xfe", 1, "", "", ""},
		{"twice", "[profiles.work]\ntenant = \"a.b\"\ntenant = \"a.b\"", 3, "", "", ""},
		{"unknown", inProfile("mailbox = \"a@b\"\nclientid = \"x\""), 3, "profiles.work.clientid", "unknown key", "did you mean client_id?"},
		{"unknown, nothing close", inProfile("shade = \"red\""), 2, "profiles.work.shade", "unknown key", "known here: allow"},
		{"unknown table", "\n[profile.work]\ntenant = \"a.b\"", 2, "profile", "unknown key", "did you mean profiles?"},
		{"other case", inProfile("Tenant = \"a.b\""), 2, "profiles.work.Tenant", "unknown key", "did you mean tenant?"},
		{"outside", "tenant = \"a.b\"", 1, "tenant", "unknown key", "belongs under [profiles.NAME]"},
		{"inline", "profiles.work = { tenant = \"a.b\", tennant = 1 }", 1, "profiles.work.tennant", "unknown key", "did you mean tenant?"},
		{"nested too deep", inProfile("[profiles.work.more]\nx = 1"), 2, "profiles.work.more", "unknown key", ""},
		{"type", inProfile("allow = \"imap\""), 2, "profiles.work.allow", "must be a list of strings", ""},
		{"type in list", inProfile("allow = [1]"), 2, "profiles.work.allow", "must be a list of strings", ""},
		{"type number", inProfile("tenant = 5"), 2, "profiles.work.tenant", "must be a string in quotes", ""},
		{"type date", inProfile("expires = 2027-05-01"), 2, "profiles.work.expires", "must be a string in quotes", ""},
		{"type table", "gateway = 5", 1, "gateway", "must be a table", ""},
		{"tables in a list", "[[profiles]]\ntenant = \"a.b\"", 1, "", "", ""},
		{"name", "[profiles.\"a b\"]\n", 1, "profiles.a b", "not a good name", "letters"},
		{"name with dot first", "\n[profiles.\"..\"]\n", 2, "profiles...", "not a good name", ""},
		{"default", "\ndefault_profile = \"wrk\"\n[profiles.work]", 2, "default_profile", `no profile "wrk"`, "did you mean work?"},
		{"tenant", inProfile("tenant = \"contoso\""), 2, "profiles.work.tenant", "neither a GUID nor a domain", "contoso.onmicrosoft.com"},
		{"tenant common", inProfile("tenant = \"common\""), 2, "profiles.work.tenant", "many tenants", ""},
		{"tenant organizations", inProfile("backing = \"certificate\"\ntenant = \"Organizations\""), 3, "profiles.work.tenant", "goes with backing user only, not with certificate", "backing = \"user\""},
		{"personal accounts", inProfile("tenant = \"consumers\""), 2, "profiles.work.tenant", "personal accounts", "backing = \"user\""},
		{"personal accounts by id", inProfile("tenant = \"9188040d-6c67-4c5b-b112-36a304b66dad\""), 2, "profiles.work.tenant", "personal accounts", "backing = \"user\""},
		{"personal accounts in China", inProfile("tenant = \"consumers\"\nbacking = \"user\"\ncloud = \"china\""), 2, "profiles.work.tenant", "cloud china does not have", "global"},
		{"tenant of a wrong backing", inProfile("tenant = \"common\"\nbacking = \"usr\""), 3, "profiles.work.backing", "not one of", "did you mean user?"},
		{"algorithm", inProfile("assertion_algorithm = \"ps256\""), 2, "profiles.work.assertion_algorithm", "not one of", "did you mean"},
		{"algorithm type", inProfile("assertion_algorithm = 256"), 2, "profiles.work.assertion_algorithm", "must be a string", ""},
		{"client id", inProfile("client_id = \"123\""), 2, "profiles.work.client_id", "not a GUID", ""},
		{"mailbox", inProfile("mailbox = \"alice\""), 2, "profiles.work.mailbox", "not a mail address", ""},
		{"backing", inProfile("backing = \"certficate\""), 2, "profiles.work.backing", "not one of", "did you mean certificate?"},
		{"allow", inProfile("allow = [\"imap\",\n \"pop\"]"), 2, "profiles.work.allow", `"pop" is not one of`, "did you mean pop3?"},
		{"autoconfig", "[gateway]\nautoconfig = \"8443\"", 2, "gateway.autoconfig", "is not host:port", ""},
		{"autoconfig domain", "[gateway]\nautoconfig_domains = [\"contoso.com\", \"a@contoso.com\"]", 2, "gateway.autoconfig_domains", "is not a mail domain", "as in contoso.com"},
		{"autoconfig nothing", "[gateway]\nautoconfig_domains = []", 2, "gateway.autoconfig_domains", "is empty", ""},
		{"autoconfig twice", "[gateway]\nautoconfig_domains = [\"a.example\", \"a.example\"]", 2, "gateway.autoconfig_domains", "twice", ""},
		{"allow nothing", inProfile("allow = []"), 2, "profiles.work.allow", "is empty", ""},
		{"allow twice", inProfile("allow = [\"imap\", \"imap\"]"), 2, "profiles.work.allow", "twice", ""},
		{"expires", inProfile("expires = \"180\""), 2, "profiles.work.expires", "not a duration", "180d"},
		{"keychain", inProfile("keychain = \"plain\""), 2, "profiles.work.keychain", "not one of", "known: system, file"},
		{"cloud", inProfile("cloud = \"us-gov\""), 2, "profiles.work.cloud", "no cloud", "did you mean usgov?"},
		{"dotted name", "[profiles.x]\n[profiles.\"a.b\"]\ntenant = \"x\"", 3, "profiles.a.b.tenant", "neither", ""},
		{"cloud without authority", "\n[clouds.lab]\ngraph = \"https://graph.example\"", 2, "clouds.lab.authority", "is missing", ""},
		{"cloud built in", inCloud("[clouds.global]\nauthority = \"https://a.example\"\ngraph = \"https://b.example\""), 4, "clouds.global", "built-in", ""},
		{"http", "[clouds.lab]\nauthority = \"http://login.example\"\ngraph = \"https://g.example\"", 2, "clouds.lab.authority", "in clear", "https"},
		{"no scheme", "[clouds.lab]\nauthority = \"login.example\"\ngraph = \"https://g.example\"", 2, "clouds.lab.authority", "not a URL", ""},
		{"ftp", "[clouds.lab]\nauthority = \"ftp://login.example\"\ngraph = \"https://g.example\"", 2, "clouds.lab.authority", "https://", ""},
		{"query", "[clouds.lab]\nauthority = \"https://a.example?x\"\ngraph = \"https://g.example\"", 2, "clouds.lab.authority", "more than", ""},
		{"endpoint scheme", inCloud("imap = \"smtp://h.example\""), 4, "clouds.lab.imap", "not a scheme for imap", "imaps://"},
		{"endpoint port", inCloud("imap = \"imaps://h.example:99999\""), 4, "clouds.lab.imap", "not the URL", ""},
		{"endpoint path", inCloud("smtp = \"smtp://h.example/x\""), 4, "clouds.lab.smtp", "more than", ""},
		{"endpoint host", inCloud("smtp = \"smtp://\""), 4, "clouds.lab.smtp", "not the URL", ""},
		{"resource", inCloud("exchange_resource = \"https://o.example/.default\""), 4, "clouds.lab.exchange_resource", "scope", ""},
		{"listen", "[gateway]\nimap = \"1993\"", 2, "gateway.imap", "not host:port", ""},
		{"listen port", "[gateway]\nimap = \"127.0.0.1:imap\"", 2, "gateway.imap", "not a port", ""},
		{"metrics", "[gateway]\n\nmetrics = \"9365\"", 3, "gateway.metrics", "not host:port", "as in"},
		{"metrics host", "[gateway]\nmetrics = \"no host:9365\"", 2, "gateway.metrics", "neither an address", ""},
		{"metrics type", "[gateway]\nmetrics = true", 2, "gateway.metrics", "must be a string", ""},
		{"hook unknown", "[hooks]\non_decoys = \"x\"", 2, "hooks.on_decoys", "unknown key", "did you mean on_decoy?"},
		{"hook type", "[hooks]\non_decoy = [\"x\", \"y\"]", 2, "hooks.on_decoy", "must be a string", ""},
		{"hook blank", "[hooks]\non_expiring = \"x\"\non_refused = \" \"", 3, "hooks.on_refused", "is blank", "leave the key out"},
		{"hook NUL", "[hooks]\non_sign_in_required = \"a\\u0000b\"", 2, "hooks.on_sign_in_required", "NUL", ""},
		{"hooks no table", "hooks = \"x\"", 1, "hooks", "must be a table", ""},
		{"legacy name", "[gateway.legacy]\nsmtp = \"printers.contoso.com:2587\"", 2, "gateway.legacy.smtp", "is a name", "192.168"},
		{"legacy everywhere", "[gateway.legacy]\nimap = \":2993\"", 2, "gateway.legacy.imap", "every address", "192.168"},
		{"legacy every IPv6", "[gateway.legacy]\npop3 = \"[::]:2995\"", 2, "gateway.legacy.pop3", "every address", ""},
		{"legacy public", "[gateway.legacy]\n\nsmtp = \"203.0.113.5:2587\"", 3, "gateway.legacy.smtp", "no address of a private network", ""},
		{"legacy public IPv6", "gateway.legacy.smtp = \"[2001:db8::1]:2587\"", 1, "gateway.legacy.smtp", "no address of a private network", ""},
		{"legacy no port", "[gateway.legacy]\nsmtp = \"192.168.1.10\"", 2, "gateway.legacy.smtp", "not host:port", ""},
		{"legacy key", "[gateway.legacy]\nhttp = \"192.168.1.10:80\"", 2, "gateway.legacy.http", "unknown key", "smtp?"},
		{"certificate alone", "[gateway]\ntls_cert = \"a\"", 2, "gateway.tls_cert", "no tls_key", ""},
		{"key alone", "[gateway]\ntls_key = \"a\"", 2, "gateway.tls_key", "no tls_cert", ""},
		{"revalidate", "[gateway]\nrevalidate = \"10ms\"", 2, "gateway.revalidate", "not a duration", ""},
		{"revalidate never", "[gateway]\nrevalidate = \"0s\"", 2, "gateway.revalidate", "no time at all", ""},
		{"first of several", inProfile("tenant = \"x\"\nmailbox = \"y\""), 2, "profiles.work.tenant", "", ""},
	}
}

func TestLoadFaults(t *testing.T) {
	for _, tt := range loadFaults() {
		t.Run(tt.name, func(t *testing.T) {
			name := write(t, tt.content)
			_, err := Load(name)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("Load gave %v", err)
			}
			if e.Path != name || e.Line != tt.line || !strings.Contains(e.Problem, tt.problem) || !strings.Contains(e.Hint, tt.hint) || e.Problem == "" {
				t.Errorf("got %+v", e)
			}
			if tt.key != "" && e.Key != tt.key {
				t.Errorf("key %q, not %q", e.Key, tt.key)
			}
		})
	}
}

func TestNoPasswordInError(t *testing.T) {
	_, err := Load(write(t, "[clouds.lab]\nauthority = \"https://me:hunter2@ho st\"\ngraph = \"https://g.example\"\n"))
	e, ok := errors.AsType[*Error](err)
	if !ok || strings.Contains(e.Error()+e.Hint, "hunter2") {
		t.Error(err)
	}
}

// What a cloud of one's own does not say comes from the built-in one whose Graph
// it names.
func TestOwnCloud(t *testing.T) {
	const portal = "https://entra.microsoft.us"
	for _, tt := range []struct {
		name, graph, resource string
		want                  Cloud // the parts that are found out
	}{
		{"sandbox", "http://localhost:2/v1.0/", "https://outlook.office365.com", Cloud{GraphResource: "https://graph.microsoft.com",
			ExchangeResource: "https://outlook.office365.com", ExchangeDelegated: "https://outlook.office.com"}},
		{"sandbox that says nothing", "http://localhost:2/v1.0", "", Cloud{GraphResource: "https://graph.microsoft.com",
			ExchangeResource: "https://outlook.office365.com", ExchangeDelegated: "https://outlook.office.com"}},
		{"another resource", "http://localhost:2/v1.0", "https://mail.example/", Cloud{GraphResource: "https://graph.microsoft.com",
			ExchangeResource: "https://mail.example", ExchangeDelegated: "https://mail.example"}},
		{"another mail server of the global one", "https://graph.microsoft.com/v1.0", "", Cloud{GraphResource: "https://graph.microsoft.com",
			ExchangeResource: "https://outlook.office365.com", ExchangeDelegated: "https://outlook.office.com",
			Portal: "https://entra.microsoft.com", ExchangeEnvironment: "O365Default"}},
		{"GCC High", "https://GRAPH.microsoft.us/v1.0", "", Cloud{GraphResource: "https://graph.microsoft.us",
			ExchangeResource: "https://outlook.office365.us", ExchangeDelegated: "https://outlook.office365.us",
			Portal: portal, ExchangeEnvironment: "O365USGovGCCHigh"}},
		{"DoD with the resource of GCC High", "https://dod-graph.microsoft.us/v1.0", "https://outlook.office365.us", Cloud{GraphResource: "https://dod-graph.microsoft.us",
			ExchangeResource: "https://outlook.office365.us", ExchangeDelegated: "https://outlook.office365.us",
			Portal: portal, ExchangeEnvironment: "O365USGovDoD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "[clouds.lab]\nauthority = \"http://[::1]:1\"\ngraph = \"" + tt.graph + "\"\n"
			if tt.resource != "" {
				text += "exchange_resource = \"" + tt.resource + "\"\n"
			}
			cfg, err := Load(write(t, text))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name, tt.want.Authority, tt.want.Graph = "lab", "http://[::1]:1", strings.TrimSuffix(tt.graph, "/")
			if d := cmp.Diff(tt.want, cfg.Clouds["lab"]); d != "" {
				t.Error(d)
			}
		})
	}
}

// Words for many tenants go with a person's sign-in.
func TestManyTenants(t *testing.T) {
	for _, tenant := range []string{"consumers", "organizations", "common", "Common", personalTenant} {
		cfg, err := Load(write(t, "[profiles.me]\nbacking = \"user\"\nclient_id = \""+guid+"\"\ntenant = \""+tenant+"\"\n"))
		if err != nil || cfg.Profiles["me"].Tenant != tenant {
			t.Errorf("%s: %v", tenant, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{full, "", "a", "[profiles.work]\nallow = [\"x\"]", "[[profiles]]", "profiles = []",
		"\"a\\u0000b\" = 1", "[clouds.\"\"]", "profiles.a.b.c = 1", "gateway = { imap = \"\" }", "\xff", "\r\n\r\n[x", "a = \"\"\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := parse("/etc/o365pw.toml", data)
		if err == nil {
			for name, p := range cfg.Profiles {
				if p.Name != name || p.Cloud.Authority == "" || len(p.Allow) == 0 {
					t.Errorf("incomplete profile %+v", p)
				}
			}
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 || e.Problem == "" {
			t.Errorf("%#v", err)
		}
	})
}
