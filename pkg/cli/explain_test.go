package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
)

// TestExitCodesAreExplained: help and explain say the same of each.
func TestExitCodesAreExplained(t *testing.T) {
	help := strings.Join(strings.Fields(exitCodeHelp), " ")
	for _, code := range []exitCode{done, failed, wrongUsage, signInRequired, notFound, refused, nameTaken, unavailable, interrupted} {
		x, ok := explain.Exit(int(code))
		if want := fmt.Sprintf("%d %s", code, x.Title); !ok || !strings.Contains(help, want) {
			t.Errorf("%q is not in: %s", want, help)
		}
	}
}

// TestReasonsAreExplained: each reason that the gateway's log may have.
func TestReasonsAreExplained(t *testing.T) {
	for refused, reason := range reasons {
		if _, ok := explain.Gateway(string(reason)); !ok {
			t.Errorf("%v is told as %s, which is not explained", refused, reason)
		}
	}
}

// TestRepliesAreExplained goes through what the gateway says in its recorded
// conversations: each refusal and each good-bye can be pasted.
func TestRepliesAreExplained(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "transcripts", "*", "*.txt"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	reply := regexp.MustCompile(`^S: (\S+ NO \[(AUTH|CONTACT|EXPIRED|UNAVAIL|PRIVACY|NOPERM).*|-ERR \[.*|\* BYE o365pw: .*|421 4\.3\.2 o365pw.*|(535|454|538) .*)$`)
	// Faults of the client's, which speak for themselves.
	plain := regexp.MustCompile(`too long|too many|not an? |nothing may follow|no sign-in in time|sign in first|number of bytes|internal error|not understood|cancel|malformed|invalid|base64`)
	seen := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimRight(line, "\r\n")
			if !reply.MatchString(line) || plain.MatchString(line) {
				continue
			}
			seen++
			if len(explain.Find(line)) == 0 {
				t.Errorf("%s: %s", filepath.Base(f), line)
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d replies were looked at", seen)
	}
}

func TestInAnyShell(t *testing.T) {
	for in, want := range map[string]string{
		"alice@contoso.com": "alice@contoso.com", "o'brien@contoso.com": `"o'brien@contoso.com"`, "": "",
		"-x": "", "@file": "", "$(id)": "", "a b": "", `a"b`: "", "a`b": "", "a;b": "", "müller@contoso.com": "",
	} {
		if got := inAnyShell(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestHintsNameTheRightApplication: what is printed can be pasted, and is about
// the application that the error is about.
func TestHintsNameTheRightApplication(t *testing.T) {
	const mail, login, ci = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("[profiles.work]\ntenant = \"contoso.onmicrosoft.com\"\nclient_id = \""+mail+"\"\nlogin_client_id = \""+login+"\"\nmailbox = \"alice@contoso.com\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"O365PW_CONFIG": path, "AZURE_CLIENT_ID": ci}
	a := newApp(Env{Getenv: func(name string) string { return env[name] }})
	disabled := &entra.Error{Status: 400, Code: "unauthorized_client", Numbers: []int{7000112}}
	account := &entra.Error{Status: 400, Code: "invalid_grant", Numbers: []int{50057}}
	for _, tt := range []struct {
		err  error
		code exitCode
		want string
	}{
		{disabled, refused, "an administrator's move: run: az ad sp update --id " + login + " --set"},
		{&unattendedError{byClientSecret, disabled}, refused, "--id " + ci + " --set"},
		{&apppassword.UnusableError{Err: disabled}, refused, "--id " + mail + " --set"},
		{&graph.Error{Status: 403, Code: "Authorization_RequestDenied"}, refused, "az ad app owner add --id " + mail + " --owner-object-id OWNER_ID"},
		{&graph.Error{Status: 403}, refused, "az ad app owner add --id " + mail},
		{&graph.Error{Status: 429}, unavailable, "try again later"},
		{&graph.Error{Status: 504, Code: "new to us"}, unavailable, "try again later"},
		{&graph.Error{}, unavailable, "check the network"},
		{account, refused, "az ad user update --id ACCOUNT"},
		{&entra.Error{Status: 400, Code: "invalid_grant"}, signInRequired, "o365pw login"},
		{&entra.Error{}, unavailable, "check the network"},
		{&entra.Error{Status: 400, Code: "interaction_required", Numbers: []int{1234567}}, signInRequired, "o365pw login"},
	} {
		if adv := a.advise(tt.err); adv.code != tt.code || !strings.Contains(adv.hint, tt.want) {
			t.Errorf("%v: %d %q, want %d with %q", tt.err, adv.code, adv.hint, tt.code, tt.want)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, "backing = \"user\"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if adv := a.advise(disabled); !strings.Contains(adv.hint, "--id CLIENT_ID") {
		t.Errorf("with two applications to sign in to: %q", adv.hint)
	}
	env["O365PW_CONFIG"] = filepath.Join(t.TempDir(), "none.toml")
	if adv := a.advise(disabled); !strings.Contains(adv.hint, "--id CLIENT_ID") {
		t.Errorf("without a profile: %q", adv.hint)
	}
}

// TestLogSaysWhatMendsIt: the gateway's log has the command whole.
func TestLogSaysWhatMendsIt(t *testing.T) {
	rec := apppassword.Record{Name: "Outlook on Mac", ClientID: "11111111-1111-4111-8111-111111111111", Mailboxes: []string{"alice@contoso.com"}}
	for want, number := range map[string]int{
		"to mend it (administrator): run: az ad sp create --id 11111111-1111-4111-8111-111111111111": 7000229,
		"o365pw revoke 'Outlook on Mac'": 7000215,
	} {
		err := refusal(&apppassword.RefusedError{Reason: apppassword.TenantRefuses, Record: rec, Err: &entra.Error{Status: 401, Code: "invalid_client", Numbers: []int{number}}})
		if r, ok := err.(*gateway.Refusal); !ok || r.Reason != gateway.Policy || !strings.Contains(r.Error(), want) || strings.Contains(r.Public, "az ad") {
			t.Errorf("%d: %v, want %q", number, err, want)
		}
	}
}

// TestCompletion: codes with what they mean, of all kinds, whatever the case.
func TestCompletion(t *testing.T) {
	for prefix, want := range map[string]string{"aadsts70002": "AADSTS7000222\tthe client secret has expired", "exit 13": "exit 130\tinterrupted", "author": "Authorization_RequestDenied\t"} {
		got, _ := completeExplained(nil, nil, prefix)
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%s: %q", prefix, got)
		}
	}
}
