package sandbox

import (
	"errors"
	"strings"
	"testing"
)

// Lines as documentation prints them for administrators, run as they are.
func TestPowerShellScript(t *testing.T) {
	s := start(t, &Server{})
	app := unregisteredApp()
	script := strings.NewReplacer("CLIENT", app.clientID, "OBJECT", app.principalID).Replace(`
# In Exchange Online PowerShell, as an Exchange administrator.
Connect-ExchangeOnline -Organization contoso.onmicrosoft.com -ShowBanner:$false

New-ServicePrincipal -AppId CLIENT ` + "`" + `
    -ObjectId OBJECT ` + "`" + `
    -DisplayName "Alice's printer"   # the enterprise application's object id
add-mailboxpermission -identity 'alice@contoso.com' -user OBJECT -accessrights fullaccess -automapping $False; Get-ServicePrincipal

New-ManagementScope -Name 'o365pw: Alice''s printer' -RecipientRestrictionFilter "PrimarySmtpAddress -eq 'alice@contoso.com' -or EmailAddresses -eq 'smtp:bob@contoso.com'"
New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App CLIENT -CustomResourceScope "o365pw: Alice's printer"
Test-ServicePrincipalAuthorization -Identity OBJECT -Resource bob@contoso.com
Add-RecipientPermission -Identity bob@contoso.com -Trustee "Alice's printer" -AccessRights SendAs -Confirm:$false
Set-CASMailbox -Identity alice@contoso.com -ImapEnabled $true -PopEnabled $true -SmtpClientAuthenticationDisabled $false
`)
	for _, end := range []string{"\n", "\r\n"} {
		out, err := s.PowerShell(strings.ReplaceAll(script, "\n", end))
		if end == "\r\n" {
			if err == nil || !strings.Contains(err.Error(), "already exists") || !strings.HasSuffix(err.Error(), "At line:5 char:1") {
				t.Errorf("again: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Alice's printer", app.clientID, app.principalID, "{FullAccess}", "{SendAs}", "True"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in:\n%s", want, out)
			}
		}
	}
	for _, user := range []string{alice, bob} {
		if got := outcome(t, s, "smtp", user, user, s.appOnly(app)); got != works {
			t.Errorf("%s: %s", user, got)
		}
	}
}

func TestPowerShellVariables(t *testing.T) {
	s := start(t, &Server{})
	app := unregisteredApp()
	out := shell(t, s,
		"$name = 'the scanner'", `$Mailbox="`+alice+`"`,
		"$sp = New-ServicePrincipal -AppId "+app.clientID+" -ObjectId "+app.principalID+` -DisplayName "$name`+"`$1"+` ""x"""`,
		"Add-MailboxPermission -Identity $mailbox -User $SP.identity -AccessRights FullAccess",
		"$null_ = Add-MailboxPermission -Identity "+bob+" -User $sp -AccessRights FullAccess",
		"$sp.DisplayName", "$sp", `"<$name>"`)
	if !strings.Contains(out, "\nthe scanner$1 \"x\"\n") || !strings.HasSuffix(out, "\n<the scanner>\n") || !strings.Contains(out, app.clientID) || strings.Contains(out, bob) {
		t.Error(out)
	}
	token := s.appOnly(app, allRoles...)
	wantOutcomes(t, s, alice, alice, token, works, works, works)
	wantOutcomes(t, s, bob, bob, token, works, works, works)
}

func TestPowerShellRefuses(t *testing.T) {
	s := start(t, &Server{})
	const id, other = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
	shell(t, s, "New-ServicePrincipal -AppId "+id+" -ObjectId "+id+" -DisplayName twin",
		"New-ServicePrincipal -AppId "+other+" -ObjectId "+other+" -DisplayName twin",
		`New-ManagementScope -Name one -RecipientRestrictionFilter "PrimarySmtpAddress -eq 'a@b'"`,
		"New-ManagementRoleAssignment -Name one -Role 'Application SMTP.SendAsApp' -App "+id)
	before := shell(t, s, "Get-ServicePrincipal; Get-CASMailbox; Get-Mailbox; Get-TransportConfig")
	for script, want := range map[string]string{
		// The language.
		"Get-Nothing":                        "The term 'Get-Nothing' is not recognized",
		"Get-Mailbox | Format-List":          "Unexpected token '|'",
		"Get-Mailbox -Identity a,b":          "Unexpected token ','",
		"Get-Mailbox -Identity @args":        "Unexpected token '@'",
		"Get-Mailbox -Identity (1)":          "Unexpected token '('",
		"Get-Mailbox -Identity “a@b”":        "Unexpected token '“'",
		"Get-Mailbox –Identity a@b":          "Unexpected token '–'",
		"Get-Mailbox -Identity 'a@b":         "missing the terminator: '",
		"Get-Mailbox -Identity \"a\nb\"":     "missing the terminator: \"",
		"Get-Mailbox -Identity 'a'b":         "Unexpected token 'b'",
		"Get-Mailbox -Identity a'b'":         "Unexpected token '''",
		"Get-Mailbox -Identity \"$(1)\"":     "Only simple variables",
		"Get-Mailbox -Identity \"`x\"":       "Only `` `$",
		"Get-Mailbox ` -Identity a":          "Unexpected token '`'",
		"Get-Mailbox -Identity $nobody":      "'$nobody' cannot be retrieved",
		"$a = Get-Mailbox; $a.Identity":      "is not one object",
		"$a = 'x'; $a.Length":                "is not one object",
		"$a = Get-TransportConfig; $a.Nope":  "The property 'Nope' cannot be found",
		"$a = Get-TransportConfig; \"$a.X\"": "in a string is $a and then",
		"$a = Get-TransportConfig; \"<$a>\"": "'$a' is not text",
		"$true = 'x'":                        "Cannot overwrite variable true",
		"$x =":                               "You must provide a value expression",
		"'x' 'y'":                            "Unexpected token '''",
		"$a.b = 'x'":                         "Unexpected token '='",
		"Get-Mailbox\x00":                    "not plain text",
		"Get-Mailbox\r":                      "not plain text",
		"\xff":                               "not plain text",
		"<# x #>":                            "Unexpected token '<'",
		"Get-Mailbox -Identity":              "Missing an argument for parameter 'Identity'",
		// Parameters.
		"Get-Mailbox " + alice:                                                               "A positional parameter cannot be found that accepts argument '" + alice + "'",
		"Get-Mailbox -Ident " + alice:                                                        "matches parameter name 'Ident'",
		"Get-Mailbox -Identity a@b -identity a@b":                                            "'Identity' is specified more than once",
		"Get-Mailbox -Identity:":                                                             "Parameter 'Identity' requires an argument",
		"Get-Mailbox -Identity ''":                                                           "argument transformation on parameter 'Identity'",
		"Get-Mailbox -Identity $null":                                                        "argument transformation on parameter 'Identity': '$null'",
		"Connect-ExchangeOnline -ShowBanner $false":                                          "the value of a switch needs a colon",
		"Connect-ExchangeOnline -ExchangeEnvironmentName O365Moon":                           "'O365Moon' is not of its type",
		"New-ServicePrincipal -AppId " + id:                                                  "missing mandatory parameters: ObjectId",
		"New-ServicePrincipal -AppId x -ObjectId " + id:                                      "parameter 'AppId': 'x'",
		"New-ServicePrincipal -AppId " + id + " -ServiceId " + id:                            "parameter name 'ServiceId'",
		"Set-CASMailbox -Identity " + alice + " -ImapEnabled false":                          "parameter 'ImapEnabled': 'false'",
		"Set-CASMailbox -Identity " + alice + " -ImapEnabled $null":                          "parameter 'ImapEnabled': '$null'",
		"Set-CASMailbox -Identity " + alice:                                                  "no settings have been modified",
		"Add-MailboxPermission -Identity " + alice + " -User x -AccessRights ReadPermission": "'ReadPermission' is not of its type",
		// Exchange's state.
		"New-ServicePrincipal -AppId " + id + " -ObjectId 00000000-0000-0000-0000-000000000003":                    "already exists",
		"New-ServicePrincipal -AppId 00000000-0000-0000-0000-000000000003 -ObjectId " + id:                         "already exists",
		"Get-ServicePrincipal -Identity nobody":                                                                    "object 'nobody' couldn't be found",
		"Get-ServicePrincipal -Identity twin":                                                                      "matches multiple entries",
		"Remove-ServicePrincipal -Identity " + id:                                                                  "NonInteractive",
		"Remove-ServicePrincipal -Identity nobody -Confirm:$false":                                                 "couldn't be found",
		"Add-MailboxPermission -Identity carol@contoso.com -User " + id + " -AccessRights FullAccess":              "object 'carol@contoso.com' couldn't be found",
		"Add-MailboxPermission -Identity " + alice + " -User " + s.dir.mail.clientID + " -AccessRights FullAccess": "couldn't be found",
		"Add-MailboxPermission -Identity " + alice + " -User " + id + " -AccessRights FullAccess -Confirm":         "NonInteractive",
		"Add-RecipientPermission -Identity " + alice + " -Trustee " + id + " -AccessRights SendAs":                 "NonInteractive",
		"Add-RecipientPermission -Identity " + alice + " -Trustee nobody -AccessRights SendAs -Confirm:$false":     "object 'nobody'",
		`New-ManagementScope -Name ONE -RecipientRestrictionFilter "PrimarySmtpAddress -eq 'a@b'"`:                 "'ONE' already exists",
		`New-ManagementScope -Name two -RecipientRestrictionFilter "PrimarySmtpAddress -like '*'"`:                 "Cannot parse the filter",
		"New-ManagementRoleAssignment -Name One -Role 'Application SMTP.SendAsApp' -App " + id:                     "'One' already exists",
		"New-ManagementRoleAssignment -Role 'Application IMAP.AccessAsApp' -App " + id:                             "'Application IMAP.AccessAsApp' is not of its type",
		"New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App twin":                                "'twin'",
		"New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App " + id + " -CustomResourceScope two": "object 'two' couldn't be found",
		"Test-ServicePrincipalAuthorization -Identity " + id + " -Resource carol@contoso.com":                      "object 'carol@contoso.com'",
		"Set-TransportConfig": "mandatory parameters: SmtpClientAuthenticationDisabled",
		"Set-TransportConfig -SmtpClientAuthenticationDisabled $true\n '":                               "At line:2 char:2", // nothing is run
		"Get-TransportConfig\nGet-Nothing\nSet-TransportConfig -SmtpClientAuthenticationDisabled $true": "At line:2 char:1",
	} {
		out, err := s.PowerShell(script)
		if e, ok := errors.AsType[*psError](err); !ok || !strings.Contains(e.Error(), want) || e.line < 1 || e.char < 1 {
			t.Errorf("%q: %v, %q", script, err, out)
		}
	}
	if after := shell(t, s, "Get-ServicePrincipal; Get-CASMailbox; Get-Mailbox; Get-TransportConfig"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestPowerShellOverHTTP(t *testing.T) {
	s := start(t, &Server{})
	url := s.Authority() + "/sandbox/powershell"
	r := send(t, "POST", url, "text/plain; charset=utf-8", "Get-CASMailbox -Identity "+alice)
	if want := "Identity          ImapEnabled PopEnabled SmtpClientAuthenticationDisabled"; r.status != 200 || !strings.HasPrefix(r.text, want) ||
		!strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %s", r.status, r.text)
	}
	r = send(t, "POST", url, "text/plain", "'first'\nGet-Mailbox -Identity carol@contoso.com\n'last'")
	if want := "first\nGet-Mailbox: The operation couldn't be performed because object 'carol@contoso.com' couldn't be found.\nAt line:2 char:1\n"; r.status != 400 || r.text != want {
		t.Errorf("%d %q", r.status, r.text)
	}
	for name, r := range map[string]response{
		"GET": send(t, "GET", url, "", ""), "JSON": send(t, "POST", url, "application/json", "{}"),
		"too long":     send(t, "POST", url, "text/plain", strings.Repeat("#", maxForm+1)),
		"another site": send(t, "POST", url, "text/plain", "Get-Mailbox", "Sec-Fetch-Site", "cross-site"),
	} {
		if r.status != map[string]int{"GET": 404, "JSON": 415, "too long": 400, "another site": 403}[name] {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
}

func TestRecipientFilter(t *testing.T) {
	boxes := []*mailbox{{Mailbox: Mailbox{Address: "a@b.example"}}, {Mailbox: Mailbox{Address: "o'c@b.example"}}, {Mailbox: Mailbox{Address: "d@b.example"}}}
	for text, want := range map[string]string{
		"PrimarySmtpAddress -eq 'A@b.example'":                                          "100",
		"emailaddresses -EQ 'SMTP:o''c@b.example'":                                      "010",
		"EmailAddresses -eq 'd@b.example'":                                              "001",
		"PrimarySmtpAddress -eq 'smtp:a@b.example'":                                     "000",
		"((PrimarySmtpAddress -eq 'a@b.example') -or EmailAddresses -eq 'd@b.example')": "101",
		"PrimarySmtpAddress -eq 'a@b.example'-or PrimarySmtpAddress -eq 'x'":            "100",
		"": "", "PrimarySmtpAddress": "", "PrimarySmtpAddress -eq": "", "PrimarySmtpAddress -eq a@b.example": "",
		"PrimarySmtpAddress -eq 'a": "", "PrimarySmtpAddress -eq '''": "", "(PrimarySmtpAddress -eq 'a'": "",
		"PrimarySmtpAddress -eq 'a')": "", "PrimarySmtpAddress -eq 'a' -or": "", "PrimarySmtpAddress -eq 'a' -and PrimarySmtpAddress -eq 'a'": "",
		"PrimarySmtpAddress -ne 'a'": "", "Name -eq 'a'": "", "PrimarySmtpAddress -eq \"a\"": "",
	} {
		has, err := parseRecipientFilter(text)
		got := ""
		for _, box := range boxes {
			if err == nil && has(box) {
				got += "1"
			} else if err == nil {
				got += "0"
			}
		}
		if got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// FuzzPowerShell runs anything at all. Every error has its place, and what is
// quoted comes back as it was.
func FuzzPowerShell(f *testing.F) {
	s := startFuzzed(f)
	for _, seed := range []string{
		"Get-Mailbox -Identity alice@contoso.com; Get-CASMailbox", "$a = Get-Mailbox -Identity 'b''c'\n$a.Identity", "\"$a`\"\"\"$\"", "# x\n`\n-a:$true",
		`New-ManagementScope -Name a -RecipientRestrictionFilter "(PrimarySmtpAddress -eq 'a''') -or EmailAddresses -eq 'smtp:b'"`, "Set-TransportConfig -SmtpClientAuthenticationDisabled:$true",
		"Remove-ServicePrincipal -Identity x -Confirm:$false", "$x='a'\r\n$x", "a-b -c d -e:f -g", "“", "'a' ;; 'b' # c", "$true.x", "-", "$", "$.", "'", "=", "$x =$y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		out, err := s.PowerShell(text)
		if e, ok := errors.AsType[*psError](err); err != nil && (!ok || e.line < 1 || e.line > 1+strings.Count(text, "\n") || e.char < 1 || e.text == "") {
			t.Errorf("%q: %v", out, err)
		}
		_, err = parsePowerShell("'" + text + "'")
		if err != nil && strings.Contains(err.Error(), "not plain text") || strings.Contains(text, "\n") {
			return
		}
		for _, quoted := range []string{
			"'" + strings.ReplaceAll(text, "'", "''") + "'",
			`"` + strings.NewReplacer("`", "``", "$", "`$", `"`, `""`).Replace(text) + `"`,
		} {
			if out, err := s.PowerShell("$x = " + quoted + " # x\n$x"); err != nil || out != text+"\n" {
				t.Errorf("%s: %q, %v", quoted, out, err)
			}
		}
	})
}
