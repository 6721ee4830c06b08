package cli

import (
	"slices"
	"strings"
)

// script is what an administrator of Exchange runs: Graph has no call for it.
// https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth
func (w *setup) script() []byte {
	if w.justMe {
		return nil
	}
	return []byte(strings.Join(w.powershell(), "\n") + "\n")
}

// powershell gives the lines for Exchange Online PowerShell. All objects are
// named by ids, never by names that another could have as well.
func (w *setup) powershell() []string {
	if w.justMe || w.principal.ID == "" {
		return nil
	}
	id, appID := psQuote(w.principal.ID), psQuote(w.application.AppID)
	smtp := slices.Contains(w.profile.Allow, "smtp")
	connect := "Connect-ExchangeOnline -ShowBanner:$false"
	if env := w.profile.Cloud.ExchangeEnvironment; env != "" && env != "O365Default" {
		connect += " -ExchangeEnvironmentName " + env
	}
	lines := []string{
		"# For an administrator of Exchange, in PowerShell. Once on each machine: Install-Module ExchangeOnlineManagement",
		connect,
		"",
		"# Tells Exchange of the application. The object id is that of the enterprise application (service principal);",
		"# with that of the app registration every line here works, and every sign-in fails. Where this line was run",
		"# before, it says that the service principal exists, which is as it should be.",
		"New-ServicePrincipal -AppId " + appID + " -ObjectId " + id + " -DisplayName " + psQuote(w.application.DisplayName),
	}
	for _, m := range w.mailboxes {
		if w.switches() == "" {
			break // it sends alone, and by Graph: it need not open the mailbox
		}
		lines = append(lines, "", "# Lets the application open this mailbox, and switches on what it opens it by.",
			"Add-MailboxPermission -Identity "+psQuote(m)+" -User "+id+" -AccessRights FullAccess -AutoMapping $false",
			"Set-CASMailbox -Identity "+psQuote(m)+w.switches())
	}
	if smtp {
		lines = append(lines, w.sendingLines()...)
	}
	return lines
}

// switches are the parameters of Set-CASMailbox. What --allow leaves out, others
// may need: it stays as it is.
func (w *setup) switches() string {
	var b strings.Builder
	for _, s := range []struct{ protocol, parameter string }{
		{"imap", " -ImapEnabled $true"}, {"pop3", " -PopEnabled $true"}, {"smtp", " -SmtpClientAuthenticationDisabled $false"},
	} {
		if slices.Contains(w.profile.Allow, s.protocol) && (s.protocol != "smtp" || w.profile.Send != "graph") {
			b.WriteString(s.parameter)
		}
	}
	return b.String()
}

// sendingLines are what sending by Graph needs, and comments: what sending may need
// besides, and the way without FullAccess. Mail.Send that is granted in Entra lets an
// application send as everybody in the tenant, so it is a role of Exchange's, for
// these mailboxes alone. https://learn.microsoft.com/exchange/permissions-exo/application-rbac
func (w *setup) sendingLines() []string {
	id := psQuote(w.principal.ID)
	lines := []string{"", "# Only where the application is to send as another address than the mailbox's own, for each such address:"}
	for _, m := range w.mailboxes {
		lines = append(lines, "# Add-RecipientPermission -Identity "+psQuote(m)+" -Trustee "+id+" -AccessRights SendAs -Confirm:$false")
	}
	var filter []string
	for _, m := range w.mailboxes {
		filter = append(filter, "PrimarySmtpAddress -eq '"+strings.ReplaceAll(m, "'", "''")+"'")
	}
	scope := psQuote(w.uniqueScope())
	newScope := "New-ManagementScope -Name " + scope + " -RecipientRestrictionFilter " + psDouble(strings.Join(filter, " -or "))
	if w.profile.Send == "graph" {
		return append(lines, "",
			"# Lets the application send by Microsoft Graph for these mailboxes, and look into their Sent Items whether a message",
			"# was sent whose answer was lost. In Entra it must not have Mail.Send besides: that would be for every mailbox.",
			newScope,
			"New-ManagementRoleAssignment -Role 'Application Mail.Send' -App "+id+" -CustomResourceScope "+scope,
			"New-ManagementRoleAssignment -Role 'Application Mail.ReadBasic' -App "+id+" -CustomResourceScope "+scope)
	}
	return append(lines, "",
		"# Only where the application is to send and must not read: in place of Add-MailboxPermission above, these two lines.",
		"# They work only without the permission SMTP.SendAsApp in Entra (remove it: Enterprise applications, the application,",
		"# Permissions), since a token that holds it makes Exchange ask for FullAccess. IMAP and POP have no such way.",
		"# "+newScope,
		"# New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App "+id+" -CustomResourceScope "+scope)
}

// uniqueScope names the management scope.
func (w *setup) uniqueScope() string {
	if w.uniqueName != "" {
		return w.uniqueName
	}
	return "o365pw-" + w.application.AppID
}

// psQuote writes text that PowerShell takes as it is. It takes the quotation
// marks of word processors for quotes as well
// (https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_quoting_rules).
func psQuote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range printable(s) {
		if strings.ContainsRune("'‘’‚‛", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// psDouble writes text between double quotes, in which variables and backticks
// mean nothing.
func psDouble(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range printable(s) {
		if strings.ContainsRune("\"“”„`$", r) {
			b.WriteByte('`')
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}
