package explain

import "slices"

// Exchange explains a reply of Exchange Online over IMAP, POP3 or SMTP by what
// it says. The gateway's own replies are not Exchange's.
//
// Where Exchange documents no reply, it is what others have seen.
func Exchange(reply string) (Explanation, bool) {
	for _, x := range Find(reply) {
		if x.Kind == OfExchange {
			return x, true
		}
	}
	return lookup(OfExchange, reply)
}

const (
	oauthMail  = "https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"
	smtpAuth   = "https://learn.microsoft.com/exchange/clients-and-mobile-in-exchange-online/authenticated-client-smtp-submission"
	basicAuth  = "https://learn.microsoft.com/exchange/clients-and-mobile-in-exchange-online/deprecation-of-basic-authentication-exchange-online"
	casMailbox = "https://learn.microsoft.com/powershell/module/exchange/set-casmailbox"
	sendAs     = "https://learn.microsoft.com/powershell/module/exchange/add-recipientpermission"
	limits     = "https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits"
)

// The causes that several replies share.
var (
	wrongObjectID = Remedy{
		"the application's service principal is not registered in Exchange, or by the wrong object id: it must be that of the enterprise application, not that of the app registration",
		"compare Get-ServicePrincipal with: az ad sp show --id CLIENT_ID --query id -o tsv; then: New-ServicePrincipal -AppId CLIENT_ID -ObjectId OBJECT_ID -DisplayName \"o365pw mail\"", Administrator}
	noFullAccess = Remedy{
		"the service principal has no FullAccess on the mailbox",
		"Add-MailboxPermission -Identity ADDRESS -User OBJECT_ID -AccessRights FullAccess", Administrator}
	imapOff = Remedy{
		"IMAP is switched off for the mailbox",
		"Set-CASMailbox -Identity ADDRESS -ImapEnabled $true", Administrator}
	popOff = Remedy{
		"POP3 is switched off for the mailbox",
		"Set-CASMailbox -Identity ADDRESS -PopEnabled $true", Administrator}
	otherAddress = Remedy{
		"the address is not the one that the mailbox is known by: where the user principal name differs from the mail address, try that one",
		"compare: Get-Mailbox -Identity ADDRESS | Format-List PrimarySmtpAddress,UserPrincipalName", Administrator}
	notOnline = Remedy{
		"the mailbox is not in Exchange Online, but on a server of your own, or has no licence",
		"look: Get-Mailbox -Identity ADDRESS", Administrator}
	otherService = Remedy{
		"the token is for another service or another cloud",
		"check cloud and exchange_resource in the configuration", You}
	tooNew = Remedy{
		"the permission is new: it can take from minutes to some hours, as seen",
		"wait, and let the mail program try again", Nobody}
	noScopedRole = Remedy{
		"the application is to send alone, without FullAccess, and has no scoped role for it",
		"New-ManagementRoleAssignment -Role \"Application SMTP.SendAsApp\" -App CLIENT_ID -CustomResourceScope SCOPE", Administrator}
	ownRights = Remedy{
		"with the backing user: the person who signed in may not open this mailbox",
		"Add-MailboxPermission -Identity ADDRESS -User ACCOUNT -AccessRights FullAccess", Administrator}
)

// noRole is a token without the role for a protocol.
func noRole(role string) Remedy {
	return Remedy{
		"the token lacks the role " + role + ": it is not among the application's permissions, or nobody has consented",
		"add the application permission in Entra: App registrations, the application, API permissions, Office 365 Exchange Online, " + role + "; then: az ad app permission admin-consent --id CLIENT_ID", Administrator}
}

// noScope is a person's token without the permission for a protocol.
func noScope(scope string) Remedy {
	return Remedy{
		"with the backing user: the token lacks the permission " + scope + ": it is not among the application's, or was not consented to",
		"add the delegated permission in Entra: App registrations, the application, API permissions, Microsoft Graph, " + scope + "; then sign in again: o365pw login", Administrator}
}

// Those that only one kind of token can have.
var (
	ofApplications = []Remedy{wrongObjectID, noFullAccess, noScopedRole, noRole("IMAP.AccessAsApp"), noRole("POP.AccessAsApp"), noRole("SMTP.SendAsApp"),
		noMailRole, noMailPermission, accessPolicy, noLookUp}
	ofPeople = []Remedy{ownRights, noScope("IMAP.AccessAsUser.All"), noScope("POP.AccessAsUser.All"), noScope("SMTP.Send"),
		noScope("Mail.Send"), noScope("Mail.ReadBasic")}
)

// For leaves out what cannot be the cause: with a token of a person's, what
// only applications need, and the other way round.
func (x Explanation) For(person bool) Explanation {
	not := ofPeople
	if person {
		not = ofApplications
	}
	list := slices.DeleteFunc(x.Remedies(), func(r Remedy) bool { return slices.Contains(not, r) })
	if len(list) > 0 {
		x.Remedy, x.More = list[0], list[1:]
	}
	return x
}

var exchange = []entry{
	{kind: OfExchange, codes: []string{"AUTHENTICATE failed"}, source: oauthMail, seen: true,
		says: []string{"authenticate failed", "[contactadmin] the app password is right, but the mail server does not let it open"}, weakly: []string{"the mail server does not let it open"},
		title:    "Exchange does not take the token over IMAP, and gives no reason; the app password is right",
		remedies: []Remedy{wrongObjectID, noRole("IMAP.AccessAsApp"), noFullAccess, imapOff, otherAddress, otherService, ownRights, noScope("IMAP.AccessAsUser.All"), tooNew}},
	{kind: OfExchange, codes: []string{"unknown user name or bad password"}, source: oauthMail,
		says:     []string{"unknown user name or bad password", "[sys/perm] the app password is right, but the mail server does not let it open"},
		title:    "Exchange does not take the token over POP3; the app password is right",
		remedies: []Remedy{wrongObjectID, noRole("POP.AccessAsApp"), noFullAccess, popOff, otherAddress, otherService, ownRights, noScope("POP.AccessAsUser.All"), tooNew}},
	{kind: OfExchange, codes: []string{"authenticated but not connected"}, source: oauthMail, seen: true,
		says:  []string{"authenticated but not connected", "the mail server does not open the mailbox"},
		title: "Exchange takes the token, but does not open the mailbox",
		remedies: []Remedy{noFullAccess, ownRights, imapOff, popOff, notOnline, otherAddress,
			{"too many connections to the mailbox are open, as seen",
				"close mail programs that you do not need, and try again: o365pw sessions", You},
			{"the service itself is at fault, as seen with personal accounts since December 2024",
				"try again later; see https://status.cloud.microsoft", Microsoft}}},

	// The end of a session.
	{kind: OfExchange, codes: []string{"AccessTokenExpired"}, says: []string{"accesstokenexpired", "session invalidated"}, seen: true,
		title: "Exchange ends a session when its access token ends, about once an hour",
		remedies: []Remedy{{"the access token of this session has ended; nothing is wrong",
			"connect again, which mail programs do by themselves; a message that was being stored then may be missing, or there twice", Nobody}}},
	{kind: OfExchange, codes: []string{"Command received in Invalid state"}, seen: true, remedies: []Remedy{
		{"the session was ended by Exchange before, for instance when its access token ended, and the mail program went on in it",
			"connect again", Nobody}}},
	{kind: OfExchange, codes: []string{"throttled"}, says: []string{"request is throttled", "suggested backoff time", "4.7.500 server busy"}, weakly: []string{"throttled"}, seen: true, remedies: []Remedy{
		{"Exchange asks for a pause: too many requests for this mailbox",
			"wait; the gateway stays away as long as Exchange asked, ten minutes at most", Nobody},
		{"it comes again and again: a mail program looks for new mail too often",
			"let it look less often, or let fewer programs use the mailbox: o365pw sessions", You}}},

	// Sign-in to send.
	{kind: OfExchange, codes: []string{"SmtpClientAuthentication"}, says: []string{"smtpclientauthentication", "smtp_auth_disabled"}, source: smtpAuth,
		title: "SMTP AUTH is switched off, which closes OAuth 2.0 too",
		remedies: []Remedy{
			{"it is switched off for the mailbox, or for the organisation, before which the mailbox's own setting goes",
				"Set-CASMailbox -Identity ADDRESS -SmtpClientAuthenticationDisabled $false", Administrator},
			{"it is switched off for the organisation, and is to be on for all",
				"Set-TransportConfig -SmtpClientAuthenticationDisabled $false", Administrator},
			{"the tenant has security defaults, which switch it off",
				"use Conditional Access in their place, in Entra: Overview, Properties, Manage security defaults", Administrator}}},
	{kind: OfExchange, codes: []string{"5.7.139"}, says: []string{"5.7.139", "basic authentication is disabled", "no login failed"}, weakly: []string{"login failed"}, source: basicAuth, general: true,
		title: "Exchange takes no password",
		remedies: []Remedy{
			{"the mail program speaks to Exchange itself, not to the gateway",
				"put the gateway's server and port into it: o365pw show NAME", You},
			{"a policy of the tenant refuses this sign-in, if it was the gateway's",
				"look at the sign-in log in Entra", Administrator}}},
	{kind: OfExchange, codes: []string{"5.7.3"}, says: []string{"5.7.3", "535 authentication unsuccessful", "the mail server does not let it send for"}, source: oauthMail, general: true,
		title:    "Exchange does not take the token over SMTP, and gives no reason; the app password is right",
		remedies: []Remedy{wrongObjectID, noRole("SMTP.SendAsApp"), noFullAccess, noScopedRole, otherAddress, otherService, ownRights, noScope("SMTP.Send"), tooNew}},

	{kind: OfExchange, codes: []string{"5.7.57"}, says: []string{"5.7.57", "client not authenticated to send"}, source: smtpAuth, seen: true, remedies: []Remedy{
		{"the mail program sends without having signed in, and speaks to Exchange itself",
			"put the gateway's server and port into it, and let it sign in to send: o365pw show NAME", You}}},

	// Sending.
	{kind: OfExchange, codes: []string{"SendAsDenied", "5.2.252"}, says: []string{"sendasdenied", "5.2.252", "not allowed to send as"}, source: sendAs, seen: true, remedies: notThisSender},
	{kind: OfExchange, codes: []string{"5.7.60"}, says: []string{"does not have permissions to send as this sender", "5.7.60 smtp"}, source: sendAs, seen: true, remedies: notThisSender},
	{kind: OfExchange, codes: []string{"4.3.2"}, says: []string{"concurrent connections limit exceeded", "concurrent_sending", "432 4.3.2"}, source: smtpAuth, remedies: []Remedy{
		{"more than three messages of the mailbox were being sent at once",
			"wait, and let the mail program try again; let fewer programs send at the same time", You}}},
	{kind: OfExchange, codes: []string{"SubmissionQuotaExceededException"}, says: []string{"submissionquotaexceeded"}, source: limits, seen: true, remedies: []Remedy{
		{"the mailbox has sent to 10,000 recipients within a day",
			"wait until tomorrow; send bulk mail by another way", You}}},
	{kind: OfExchange, codes: []string{"5.2.2"}, says: []string{"5.2.2", "mailbox full"}, source: limits, seen: true, remedies: []Remedy{fullMailbox}},
}

var fullMailbox = Remedy{
	"the mailbox is full",
	"delete something and empty the folder Deleted Items, or get more room: Set-Mailbox -Identity ADDRESS -ProhibitSendReceiveQuota 50GB", You}

var notThisSender = []Remedy{
	{"Exchange does not let this mailbox send with another address in From",
		"set the sender in the mail program to the mailbox's own address", You},
	{"the other address is meant",
		"Add-RecipientPermission -Identity OTHER_ADDRESS -Trustee OBJECT_ID -AccessRights SendAs", Administrator},
}
