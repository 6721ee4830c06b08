package sandbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// What a sign-in comes to, as its client sees it.
const (
	works        = "works"
	refused      = "refused"
	notConnected = "not connected"
	offTenant    = "off for the tenant"
	offMailbox   = "off for the mailbox"
)

// outcome signs in by a protocol and does the first thing there is to do. By
// SMTP it sends a message of from's.
func outcome(t *testing.T, s *Server, protocol, user, from, token string) string {
	t.Helper()
	var got string
	switch protocol {
	case "imap":
		r := dialIMAP(t, s)
		r.say("a AUTHENTICATE XOAUTH2 " + xoauth2(user, token) + "\r\n")
		if got = r.line(); got == "a OK AUTHENTICATE completed.\r\n" {
			r.say("b SELECT INBOX\r\n")
			for got = r.line(); strings.HasPrefix(got, "* "); {
				got = r.line()
			}
		}
	case "pop3":
		r := dialPOP3(t, s)
		if got = r.auth("+ ", xoauth2(user, token)); got == "+OK User successfully authenticated." {
			r.say("STAT\r\n")
			got = r.line()
		}
	case "smtp":
		r := dialSecured(t, s)
		if got = r.auth("334 ", xoauth2(user, token)); got == "235 2.7.0 Authentication successful" {
			got = r.send(from, "From: "+from+"\r\n\r\n")
		}
	}
	for prefix, what := range map[string]string{
		"b OK ": works, "+OK ": works, "250 2.0.0 OK ": works,
		"a NO AUTHENTICATE failed.\r\n": refused, smtp535: refused,
		"-ERR Authentication failure: unknown user name or bad password.": refused,
		"b BAD User is authenticated but not connected.\r\n":              notConnected,
		"-ERR User is authenticated but not connected.\r\n":               notConnected,
		"430 4.2.0 STOREDRV; mailbox logon failure":                       notConnected,
		"554 5.2.252 SendAsDenied; ":                                      "may not send as " + from,
		"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled":  offTenant,
		"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled": offMailbox,
	} {
		if strings.HasPrefix(got, prefix) {
			return what
		}
	}
	return got
}

// wantOutcomes signs in by IMAP, POP3 and SMTP.
func wantOutcomes(t *testing.T, s *Server, user, from, token string, imap, pop3, smtp string) {
	t.Helper()
	for protocol, want := range map[string]string{"imap": imap, "pop3": pop3, "smtp": smtp} {
		if got := outcome(t, s, protocol, user, from, token); got != want {
			t.Errorf("%s as %s from %s: %s, want %s", protocol, user, from, got, want)
		}
	}
}

// shell runs lines that must work.
func shell(t *testing.T, s *Server, lines ...string) string {
	t.Helper()
	out, err := s.PowerShell(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var allRoles = []string{"IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"}

// unregisteredApp is an application that Exchange has not heard of.
func unregisteredApp() *application {
	return &application{
		objectID: uuid.NewString(), clientID: uuid.NewString(), principalID: uuid.NewString(), displayName: "new",
	}
}

// appOnly is a token of an application's for Exchange, with these roles.
func (s *Server) appOnly(app *application, roles ...string) string {
	text := s.issue(&grant{kind: "client_credentials", app: app, scope: scope{resource: exchangeResource}}).AccessToken
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entra.tokens[text].roles = roles
	return text
}

// delegated is a person's token for Exchange, with every scope.
func (s *Server) delegated(address string) string {
	i := slices.IndexFunc(s.dir.people, func(p *person) bool { return p.address == address })
	return s.issue(&grant{
		kind: "refresh_token", app: s.dir.mail, person: s.dir.people[i],
		scope: scope{resource: exchangeDelegated, names: []string{"IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"}},
	}).AccessToken
}

const alice, bob = "alice@contoso.com", "bob@contoso.com"

// An administrator registers a service principal, step by step.
func TestServicePrincipalAccess(t *testing.T) {
	s := start(t, &Server{})
	app := unregisteredApp()
	token := s.appOnly(app, allRoles...)
	register := func(objectID string) {
		shell(t, s, "New-ServicePrincipal -AppId "+app.clientID+" -ObjectId "+objectID+" -DisplayName 'new'")
	}
	wantOutcomes(t, s, alice, alice, token, refused, refused, refused)

	// With the object id of the application, all seems well.
	register(app.objectID)
	shell(t, s, "Add-MailboxPermission -Identity "+alice+" -User "+app.objectID+" -AccessRights FullAccess")
	wantOutcomes(t, s, alice, alice, token, refused, refused, refused)
	shell(t, s, "Remove-ServicePrincipal -Identity "+app.clientID+" -Confirm:$false")

	register(app.principalID)
	// What the one before was given is not this one's.
	wantOutcomes(t, s, alice, alice, token, notConnected, refused, refused)
	shell(t, s, "Add-MailboxPermission -Identity "+alice+" -User "+app.principalID+" -AccessRights FullAccess -AutoMapping $false")
	wantOutcomes(t, s, alice, alice, token, works, works, works)
	wantOutcomes(t, s, bob, bob, token, notConnected, refused, refused)

	// Sending as somebody else is SendAs, on that mailbox.
	if got := outcome(t, s, "smtp", alice, bob, token); got != "may not send as "+bob {
		t.Error(got)
	}
	shell(t, s, "Add-RecipientPermission -Identity "+bob+" -Trustee new -AccessRights SendAs -Confirm:$false")
	if got := outcome(t, s, "smtp", alice, bob, token); got != works {
		t.Error(got)
	}

	shell(t, s, "Remove-ServicePrincipal -Identity new -Confirm:$false")
	wantOutcomes(t, s, alice, alice, token, refused, refused, refused)
}

func TestNoAccess(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "locked@contoso.com", NoAccess: true})})
	token := mailToken(t, s)
	wantOutcomes(t, s, "locked@contoso.com", "locked@contoso.com", token, notConnected, refused, refused)
	shell(t, s, "Add-MailboxPermission -Identity locked@contoso.com -User "+s.dir.mail.principalID+" -AccessRights FullAccess")
	wantOutcomes(t, s, "locked@contoso.com", "locked@contoso.com", token, works, works, works)
}

// Each protocol has a permission of its own.
func TestRoles(t *testing.T) {
	s := start(t, &Server{})
	for i, role := range allRoles {
		want := []string{refused, refused, refused}
		want[i] = works
		wantOutcomes(t, s, alice, alice, s.appOnly(s.dir.mail, role), want[0], want[1], want[2])
	}
}

// RBAC lets an application send without a permission and without FullAccess.
// With the permission, it does nothing.
func TestScopedSMTP(t *testing.T) {
	s := start(t, &Server{})
	app := unregisteredApp()
	shell(t, s,
		"New-ServicePrincipal -AppId "+app.clientID+" -ObjectId "+app.principalID+" -DisplayName new",
		`New-ManagementScope -Name 'Scanner' -RecipientRestrictionFilter "PrimarySmtpAddress -eq 'ALICE@contoso.com'"`,
		"New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App "+app.principalID+" -CustomResourceScope 'scanner'")
	token := s.appOnly(app)
	wantOutcomes(t, s, alice, alice, token, refused, refused, works)
	wantOutcomes(t, s, bob, bob, token, refused, refused, refused)
	if got := outcome(t, s, "smtp", alice, bob, token); got != "may not send as "+bob {
		t.Error(got)
	}
	wantOutcomes(t, s, alice, alice, s.appOnly(app, allRoles...), notConnected, refused, refused)

	test := func(user string) string {
		return shell(t, s, "Test-ServicePrincipalAuthorization -Identity "+app.clientID+" -Resource "+user)
	}
	if in, out := test(alice), test(bob); !strings.Contains(in, "True") || !strings.Contains(out, "False") || strings.Contains(out, "True") {
		t.Errorf("%s\n%s", in, out)
	}
}

func TestSwitches(t *testing.T) {
	s := start(t, &Server{})
	token, person := mailToken(t, s), s.delegated(alice)
	for _, step := range []struct{ line, imap, pop3, smtp string }{
		{"Set-CASMailbox -Identity " + alice + " -ImapEnabled $false", notConnected, works, works},
		{"Set-CASMailbox -Identity " + alice + " -ImapEnabled $true -PopEnabled $false", works, notConnected, works},
		{"Set-CASMailbox -Identity " + alice + " -PopEnabled:$true -SmtpClientAuthenticationDisabled $true", works, works, offMailbox},
		{"Set-TransportConfig -SmtpClientAuthenticationDisabled $true", works, works, offMailbox},
		{"Set-CASMailbox -Identity " + alice + " -SmtpClientAuthenticationDisabled $null", works, works, offTenant},
		{"Set-CASMailbox -Identity " + alice + " -SmtpClientAuthenticationDisabled $false", works, works, works},
	} {
		shell(t, s, step.line)
		wantOutcomes(t, s, alice, alice, token, step.imap, step.pop3, step.smtp)
		wantOutcomes(t, s, alice, alice, person, step.imap, step.pop3, step.smtp)
	}
	wantOutcomes(t, s, bob, bob, token, works, works, offTenant)
	wantOutcomes(t, s, bob, bob, "x", refused, refused, refused)
	shell(t, s, "Set-TransportConfig -SmtpClientAuthenticationDisabled $false")
	wantOutcomes(t, s, bob, bob, token, works, works, works)
}

func TestUPN(t *testing.T) {
	boxes := []Mailbox{
		{Address: alice, UPN: "a.smith@contoso.onmicrosoft.com", OnlyByUPN: true},
		{Address: bob, UPN: "b.jones@contoso.onmicrosoft.com"},
		{Address: "carol@contoso.com", OnlyByUPN: true},
	}
	s := start(t, &Server{Mailboxes: boxes})
	token := mailToken(t, s)
	wantOutcomes(t, s, alice, alice, token, notConnected, notConnected, notConnected)
	wantOutcomes(t, s, "A.Smith@contoso.onmicrosoft.com", alice, token, works, works, works)
	wantOutcomes(t, s, bob, bob, token, works, works, works)
	wantOutcomes(t, s, "b.jones@contoso.onmicrosoft.com", bob, token, works, works, works)
	wantOutcomes(t, s, "carol@contoso.com", "carol@contoso.com", token, works, works, works)
}

func TestNoLicence(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "carol@contoso.com", NoLicence: true})})
	wantOutcomes(t, s, "carol@contoso.com", "carol@contoso.com", mailToken(t, s), refused, refused, refused)
	wantOutcomes(t, s, "carol@contoso.com", "carol@contoso.com", s.delegated("carol@contoso.com"), refused, refused, refused)
	wantOutcomes(t, s, alice, alice, s.delegated("carol@contoso.com"), refused, refused, refused)
	if err := s.Deliver("carol@contoso.com", []byte("a: b\r\n\r\n")); err == nil {
		t.Error("delivered")
	}
	if out, err := s.PowerShell("Get-Mailbox -Identity carol@contoso.com"); err == nil {
		t.Error(out)
	}
}

// A person opens the own mailbox, and shared ones by FullAccess; sending as a
// shared one is SendAs.
func TestDelegates(t *testing.T) {
	const shared = "office@contoso.com"
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: shared, SendAs: []string{"info@contoso.com"}})})
	token := s.delegated(bob)
	wantOutcomes(t, s, bob, bob, token, works, works, works)
	wantOutcomes(t, s, shared, shared, token, refused, refused, refused)
	shell(t, s, "Add-MailboxPermission -Identity "+shared+" -User "+bob+" -AccessRights FullAccess")
	wantOutcomes(t, s, shared, shared, token, works, works, "may not send as "+shared)
	shell(t, s, "Add-RecipientPermission -Identity "+shared+" -Trustee "+bob+" -AccessRights SendAs -Confirm:$false")
	wantOutcomes(t, s, shared, shared, token, works, works, works)
	wantOutcomes(t, s, shared, "info@contoso.com", token, works, works, works)
	wantOutcomes(t, s, bob, shared, token, works, works, works)
	wantOutcomes(t, s, shared, shared, s.delegated(alice), refused, refused, refused)
}

// A personal mailbox is in no tenant: it is its person's alone.
func TestPersonalMailbox(t *testing.T) {
	const personal = "zoe@outlook.example"
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: personal, Personal: true})})
	shell(t, s, "Set-TransportConfig -SmtpClientAuthenticationDisabled $true")
	wantOutcomes(t, s, personal, personal, s.delegated(personal), works, works, works)
	wantOutcomes(t, s, personal, personal, s.delegated(alice), refused, refused, refused)
	wantOutcomes(t, s, personal, personal, mailToken(t, s), refused, refused, refused)
	if out, err := s.PowerShell("Add-MailboxPermission -Identity " + personal + " -User " + bob + " -AccessRights FullAccess"); err == nil {
		t.Error(out)
	}
	if out := shell(t, s, "Get-Mailbox"); strings.Contains(out, personal) {
		t.Error(out)
	}
}

func TestPropagation(t *testing.T) {
	s := start(t, &Server{})
	app := unregisteredApp()
	s.TokenLife = 24 * time.Hour
	token := s.appOnly(app, allRoles...)
	s.SetFaults(func(f *Faults) { f.ExchangePropagation = time.Hour })
	shell(t, s, "New-ServicePrincipal -AppId "+app.clientID+" -ObjectId "+app.principalID)
	s.FastForward(30 * time.Minute)
	shell(t, s, "Get-ServicePrincipal -Identity "+app.clientID, // administrators see it at once
		"Add-MailboxPermission -Identity "+alice+" -User "+app.principalID+" -AccessRights FullAccess",
		"Set-CASMailbox -Identity "+bob+" -ImapEnabled $false")
	wantOutcomes(t, s, alice, alice, token, refused, refused, refused)
	s.FastForward(30 * time.Minute)
	wantOutcomes(t, s, alice, alice, token, notConnected, refused, refused)
	wantOutcomes(t, s, bob, bob, mailToken(t, s), works, works, works)
	s.FastForward(30 * time.Minute)
	wantOutcomes(t, s, alice, alice, token, works, works, works)
	wantOutcomes(t, s, bob, bob, mailToken(t, s), notConnected, works, works)

	shell(t, s, "Remove-ServicePrincipal -Identity "+app.clientID+" -Confirm:$false")
	wantOutcomes(t, s, alice, alice, token, works, works, works)
	s.SetFaults(func(f *Faults) { f.ExchangePropagation = 0 })
	wantOutcomes(t, s, alice, alice, token, refused, refused, refused)
}
