package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/graph"
)

// TestUniqueNames holds that each mailbox has an application of its own.
func TestUniqueNames(t *testing.T) {
	seen := map[string]string{}
	good := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$`) // as package graph has it
	for _, mailbox := range []string{
		"alice@contoso.com", "a-b@c.com", "a@b-c.com", "a+b@c.com", "a.b@c.com", "a_b@c.com", "o'brien@contoso.com", "obrien@contoso.com",
		"ünï@contoso.com", "n@contoso.com", strings.Repeat("a", 64) + "@" + strings.Repeat("b", 60) + ".com", strings.Repeat("a", 64) + "@" + strings.Repeat("b", 60) + ".org",
	} {
		name := uniqueNameFor(mailbox)
		if other, taken := seen[name]; taken || !good.MatchString(name) {
			t.Errorf("%s: %s, as %q", mailbox, name, other)
		}
		seen[name] = mailbox
		if uniqueNameFor(strings.ToUpper(mailbox)) != name {
			t.Errorf("%s: another name in capitals", mailbox)
		}
	}
	if got := uniqueNameFor("alice@contoso.com"); got != "o365pw-alice-contoso.com" {
		t.Error(got)
	}
}

// TestLoginClient holds which client people sign in with: Microsoft's own only
// where it exists, and where nothing else is known.
func TestLoginClient(t *testing.T) {
	const own = "00001111-aaaa-2222-bbbb-3333cccc4444"
	for _, tt := range []struct {
		cloud, flag, was string
		azureCLI         bool
		env              map[string]string
		want             string
		fails            bool
	}{
		{cloud: "global", want: graphTools},
		{cloud: "usgov", want: graphTools},
		{cloud: "global", was: own, want: own},
		{cloud: "lab", flag: own, was: graphTools, want: own},
		{cloud: "lab", fails: true},
		{cloud: "lab", azureCLI: true},
		{cloud: "lab", env: map[string]string{"O365PW_ACCESS_TOKEN": "x"}},
		{cloud: "global", env: map[string]string{"AZURE_CLIENT_ID": own, "AZURE_CLIENT_SECRET": "x"}},
	} {
		w := &setup{app: &app{Env: Env{Getenv: func(k string) string { return tt.env[k] }}}, o: setupOptions{loginClientID: tt.flag, flow: flow{azureCLI: tt.azureCLI}}}
		w.was.LoginClientID, w.profile.CloudName = tt.was, tt.cloud
		if err := w.takeLoginClient(); (err != nil) != tt.fails || !tt.fails && w.profile.LoginClientID != tt.want {
			t.Errorf("%+v: %s, %v", tt, w.profile.LoginClientID, err)
		}
	}
	w := &setup{signer: &setupSignIn{held: heldSignIn{ClientID: graphTools}}, person: "alice@contoso.com"}
	if plan := strings.Join(w.planLines(), "\n"); !strings.Contains(plan, `with "Microsoft Graph Command Line Tools", Microsoft's own client, since`) {
		t.Errorf("the plan does not name it:\n%s", plan)
	}
}

// TestPowerShellClouds holds the lines to the cloud's environment, and to what
// the protocols need.
func TestPowerShellClouds(t *testing.T) {
	for name, want := range map[string]string{
		"global": "Connect-ExchangeOnline -ShowBanner:$false",
		"usgov":  "Connect-ExchangeOnline -ShowBanner:$false -ExchangeEnvironmentName O365USGovGCCHigh",
		"dod":    "Connect-ExchangeOnline -ShowBanner:$false -ExchangeEnvironmentName O365USGovDoD",
		"china":  "Connect-ExchangeOnline -ShowBanner:$false -ExchangeEnvironmentName O365China",
	} {
		w := &setup{mailboxes: []string{"o'brien@contoso.com"}, uniqueName: "o365pw-x"}
		w.profile.Cloud, _ = config.BuiltinCloud(name)
		w.profile.Allow = []string{"imap"}
		w.application.AppID, w.principal = "00001111-aaaa-2222-bbbb-3333cccc4444", graph.ServicePrincipal{ID: "55556666-dddd-7777-eeee-8888ffff9999"}
		lines := w.powershell()
		for _, line := range []string{want, "Set-CASMailbox -Identity 'o''brien@contoso.com' -ImapEnabled $true"} {
			if !slices.Contains(lines, line) {
				t.Errorf("%s: no %s in\n%s", name, line, strings.Join(lines, "\n"))
			}
		}
		if strings.Contains(strings.Join(lines, "\n"), "SMTP") {
			t.Errorf("SMTP without being asked for:\n%s", strings.Join(lines, "\n"))
		}
	}
}

func TestPowerShellQuoting(t *testing.T) {
	for in, want := range map[string]string{
		"alice": "'alice'", "o'brien": "'o''brien'", "a’b": "'a’’b'", "$x `y": "'$x `y'", "two\nlines": "'two lines'", "": "''",
	} {
		if got := psQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := psDouble("a $b `c \"d\" 'e'"); got != "\"a `$b ``c `\"d`\" 'e'\"" {
		t.Error(got)
	}
}
