package explain

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestTable holds every row to what the commands make of it.
func TestTable(t *testing.T) {
	movers := []string{You, Administrator, Microsoft, Ourselves, Nobody}
	seen := map[string]bool{}
	for _, x := range All() {
		key := string(x.Kind) + " " + strings.ToLower(x.Code)
		if seen[key] {
			t.Errorf("%s is explained twice", key)
		}
		seen[key] = true
		for _, r := range x.Remedies() {
			for _, text := range []string{r.Cause, r.Fix} {
				if text == "" || strings.HasSuffix(text, ".") || strings.ContainsAny(text, "\n\t") {
					t.Errorf("%s: %q is no hint", x.Code, text)
				}
			}
			if !slices.Contains(movers, r.Mover) {
				t.Errorf("%s: mover %q", x.Code, r.Mover)
			}
		}
		if u, err := url.Parse(x.Source); err != nil || x.Source != "" && u.Scheme != "https" {
			t.Errorf("%s: source %q", x.Code, x.Source)
		}
		if x.Confirmed && x.Source == "" {
			t.Errorf("%s is confirmed by nothing", x.Code)
		}
	}
	for e := range table() {
		for _, s := range slices.Concat(e.says, e.weakly) {
			if s != strings.ToLower(s) || s != strings.Join(strings.Fields(s), " ") {
				t.Errorf("%v: no text has %q once it is normal", e.names(), s)
			}
		}
	}
}

// TestEveryCodeIsFound: what completion offers, and what All gives, Find takes.
func TestEveryCodeIsFound(t *testing.T) {
	for _, x := range All() {
		for _, text := range []string{x.Code, strings.ToUpper(x.Code), " " + x.Code + "\n"} {
			got := Find(text)
			if len(got) == 0 || got[0].Code != x.Code {
				t.Errorf("%q: %v, want %s first", text, codes(got), x.Code)
			}
		}
	}
}

func TestLookups(t *testing.T) {
	for _, n := range []int{0, -1, 12345, 70002150} {
		if x, ok := AADSTS(n); ok {
			t.Errorf("%d is explained: %v", n, x)
		}
	}
	for code := range 8 {
		if _, ok := Exit(code); !ok {
			t.Errorf("exit %d is not explained", code)
		}
	}
	if _, ok := Exit(130); !ok {
		t.Error("exit 130 is not explained")
	}
	if _, ok := Exit(8); ok {
		t.Error("exit 8 is explained")
	}
	if x, ok := AADSTS(53003); !ok || x.Source != "https://login.microsoftonline.com/error?code=53003" || !x.Confirmed {
		t.Errorf("53003: %+v", x)
	}
	if x, ok := AADSTS(530003); !ok || x.Confirmed {
		t.Errorf("530003 is not on Microsoft's page: %+v", x)
	}
	if x, ok := Graph("authorization_requestdenied"); !ok || x.Code != "Authorization_RequestDenied" || x.Mover != Administrator {
		t.Errorf("case: %+v", x)
	}
	if x, ok := OAuth("invalid_grant"); !ok || x.Fix != "run: o365pw login" {
		t.Errorf("invalid_grant: %+v", x)
	}
	if _, ok := Graph("AADSTS50011"); ok {
		t.Error("a number of Entra's is a code of Graph's")
	}
	for _, reason := range []string{"bad-credentials", "protocol-not-allowed", "network-not-allowed", "mailbox-not-allowed", "expired", "revoked", "unavailable", "policy", "decoy-used"} {
		if _, ok := Gateway(reason); !ok {
			t.Errorf("the gateway's reason %s is not explained", reason)
		}
	}
}

// TestCausesInOrder: where a reply gives no reason, all that are known follow,
// the likeliest first.
func TestCausesInOrder(t *testing.T) {
	for reply, want := range map[string][]string{
		"a1 NO AUTHENTICATE failed.":                                          {"-ObjectId OBJECT_ID", "IMAP.AccessAsApp", "FullAccess", "-ImapEnabled"},
		"BAD User is authenticated but not connected.":                        {"FullAccess", "-ImapEnabled", "-PopEnabled", "Exchange Online", "UserPrincipalName", "too many connections"},
		"-ERR Authentication failure: unknown user name or bad password.":     {"-ObjectId OBJECT_ID", "POP.AccessAsApp", "FullAccess", "-PopEnabled"},
		"535 5.7.3 Authentication unsuccessful [SN2PR00CA0018.x.outlook.com]": {"-ObjectId OBJECT_ID", "SMTP.SendAsApp", "FullAccess"},
		"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled": {"Set-CASMailbox", "Set-TransportConfig", "security defaults"},
	} {
		x, ok := Exchange(reply)
		if !ok || x.Kind != OfExchange {
			t.Errorf("%s is not explained", reply)
		}
		line, from := x.Line(), 0
		for _, w := range want {
			i := strings.Index(line[from:], w)
			if i < 0 {
				t.Errorf("%s: no %s in order in %s", reply, w, line)
				break
			}
			from += i
		}
	}
	for _, ours := range []string{"", "a OK done", "535 5.7.8 user name or app password not accepted", "AADSTS50011"} {
		if x, ok := Exchange(ours); ok {
			t.Errorf("%q is explained as Exchange's: %v", ours, x)
		}
	}
}

// TestFor: who has a person's token is not told of service principals, nor the
// other way round.
func TestFor(t *testing.T) {
	for _, reply := range []string{"AUTHENTICATE failed", "unknown user name or bad password", "authenticated but not connected", "5.7.3"} {
		x, ok := Exchange(reply)
		person, application := x.For(true).Line(), x.For(false).Line()
		if !ok || strings.Contains(person, "service principal") || strings.Contains(person, "AsApp") || !strings.Contains(person, "-User ACCOUNT") {
			t.Errorf("%s, for a person: %s", reply, person)
		}
		if strings.Contains(application, "backing user") || !strings.Contains(application, "-User OBJECT_ID -AccessRights FullAccess") {
			t.Errorf("%s, for an application: %s", reply, application)
		}
		if again, _ := Exchange(reply); again.Line() != x.Line() {
			t.Errorf("%s: the table was changed", reply)
		}
	}
	x, _ := Graph("ErrorAccessDenied")
	if person := x.For(true).Line(); strings.Contains(person, "Application Mail.") || !strings.Contains(person, "Mail.Send; then sign in again") {
		t.Errorf("ErrorAccessDenied, for a person: %s", person)
	}
	if application := x.For(false).Line(); strings.Contains(application, "backing user") || !strings.Contains(application, `"Application Mail.Send" -App CLIENT_ID -CustomResourceScope SCOPE`) {
		t.Errorf("ErrorAccessDenied, for an application: %s", application)
	}
	if x, _ := AADSTS(50011); x.For(true).Line() != x.Line() {
		t.Error("what is no reply of Exchange's has changed")
	}
}

func TestFill(t *testing.T) {
	x, _ := Exchange("AUTHENTICATE failed")
	got := x.Fill(map[string]string{"CLIENT_ID": "11111111-aaaa-4aaa-8aaa-111111111111", "ADDRESS": "alice@contoso.com", "TENANT": ""})
	if !strings.Contains(got.Fix, "New-ServicePrincipal -AppId 11111111-aaaa-4aaa-8aaa-111111111111 -ObjectId OBJECT_ID") {
		t.Errorf("the first fix: %s", got.Fix)
	}
	if !strings.Contains(got.Line(), "Add-MailboxPermission -Identity alice@contoso.com -User OBJECT_ID") {
		t.Errorf("a further fix: %s", got.Line())
	}
	var names []string
	for _, p := range got.Placeholders() {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"OBJECT_ID", "ACCOUNT"}) {
		t.Errorf("what is left: %v", names)
	}
	if again, _ := Exchange("AUTHENTICATE failed"); again.Line() != x.Line() || !strings.Contains(again.Line(), "CLIENT_ID") {
		t.Error("the table itself was filled in")
	}
	if got := FillText("AZURE_CLIENT_ID O365PW_TENANT OTHER_ADDRESS NAMES CLIENT_ID", map[string]string{"CLIENT_ID": "x", "TENANT": "y", "ADDRESS": "z", "NAME": "n"}); got != "AZURE_CLIENT_ID O365PW_TENANT OTHER_ADDRESS NAMES x" {
		t.Errorf("parts of words: %s", got)
	}
}

func codes(list []Explanation) []string {
	var out []string
	for _, x := range list {
		out = append(out, x.Code)
	}
	return out
}
