package explain

const (
	sendMail     = "https://learn.microsoft.com/graph/api/user-sendmail"
	sendMIME     = "https://learn.microsoft.com/graph/outlook-send-mime-message"
	mailErrors   = "https://learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode"
	outlookLimit = "https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits"
)

// The causes that only one kind of token can have.
var (
	noMailRole = Remedy{
		"the application may not send for this mailbox by Graph: it has not got the role Application Mail.Send in Exchange for it",
		"New-ManagementRoleAssignment -Role \"Application Mail.Send\" -App CLIENT_ID -CustomResourceScope SCOPE", Administrator}
	noMailPermission = Remedy{
		"nor has it the application permission Mail.Send, which lets it send for every mailbox of the tenant",
		"if it is to: az ad app permission add --id CLIENT_ID --api 00000003-0000-0000-c000-000000000000 --api-permissions b633e1c5-b582-4048-a93e-9f11b44c7e96=Role; then: az ad app permission admin-consent --id CLIENT_ID", Administrator}
	accessPolicy = Remedy{
		"an application access policy keeps the application away from this mailbox",
		"look: Test-ApplicationAccessPolicy -Identity ADDRESS -AppId CLIENT_ID, and Get-ApplicationAccessPolicy", Administrator}
	noLookUp = Remedy{
		"it may send, but not look in Sent Items whether a message went out whose answer was lost",
		"New-ManagementRoleAssignment -Role \"Application Mail.ReadBasic\" -App CLIENT_ID -CustomResourceScope SCOPE", Administrator}
)

// graphMail is what Graph answers about mail. The codes are those of Exchange,
// which stands behind it.
var graphMail = []entry{
	{kind: OfGraph, codes: []string{"ErrorAccessDenied"}, source: sendMail, seen: true,
		says:     []string{"erroraccessdenied", "access is denied. check credentials and try again", "blocked by tenant configured apponly accesspolicy settings"},
		title:    "Graph does not let the token into this mailbox",
		remedies: []Remedy{noMailRole, noMailPermission, noScope("Mail.Send"), accessPolicy, noLookUp, noScope("Mail.ReadBasic"), tooNew}},
	{kind: OfGraph, codes: []string{"ErrorSendAsDenied"}, source: sendAs, seen: true,
		says:     []string{"errorsendasdenied", "does not have the right to send mail on behalf of the specified sending account"},
		remedies: notThisSender},
	{kind: OfGraph, codes: []string{"ErrorInvalidUser", "ResourceNotFound"}, source: sendMail, seen: true,
		title: "Graph has no mailbox of this name",
		remedies: []Remedy{
			{"Graph knows a mailbox by its user principal name, which is not always the mail address",
				"compare: Get-Mailbox -Identity ADDRESS | Format-List PrimarySmtpAddress,UserPrincipalName", Administrator},
			{"the mailbox is in another tenant, or does not exist",
				"look: Get-Mailbox -Identity ADDRESS", Administrator}}},
	{kind: OfGraph, codes: []string{"MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI"}, source: sendMail, seen: true,
		says:     []string{"mailboxnotenabledforrestapi", "mailboxnotsupportedforrestapi", "the mailbox is either inactive, soft-deleted, or is hosted on-premise"},
		remedies: []Remedy{notOnline}},

	// The message.
	{kind: OfGraph, codes: []string{"ErrorMimeContentInvalidBase64String"}, source: sendMIME, remedies: []Remedy{
		{"the message was damaged on its way to Graph, by o365pw or by a proxy between",
			"send it again; if that does not help, report it with the request-id", Ourselves}}},
	{kind: OfGraph, codes: []string{"ErrorMimeContentInvalid", "ErrorMimeContentConversionFailed"}, source: sendMIME, seen: true,
		says: []string{"errormimecontentinvalid:", `errormimecontentinvalid"`, "errormimecontentconversionfailed"}, remedies: []Remedy{
			{"the message is not in the form of RFC 5322, or its parts are not in that of RFC 2045",
				"send it in another way, as plain text say; if the mail program sends it well elsewhere, report it with the request-id", You}}},
	{kind: OfGraph, codes: []string{"ErrorInvalidRecipients"}, source: mailErrors, remedies: []Remedy{
		{"the message has no recipient, or an address that is none",
			"correct the addresses in the mail program", You}}},
	{kind: OfGraph, codes: []string{"ErrorMessageSizeExceeded", "413"}, source: sendMIME, seen: true,
		says: []string{"errormessagesizeexceeded", "the message exceeds the maximum supported size"}, weakly: []string{"413 request entity too large", "http 413", "status 413"},
		remedies: []Remedy{
			{"Graph takes messages of about 3 MB, attachments with their base64 included",
				"send less at a time, or a link in place of the attachment", You},
			{"larger ones are needed: SMTP takes 150 MB, where SMTP AUTH is on",
				"Set-CASMailbox -Identity ADDRESS -SmtpClientAuthenticationDisabled $false", Administrator}}},

	// Limits.
	{kind: OfGraph, codes: []string{"ErrorSubmissionQuotaExceeded", "ErrorExceededMessageLimit"}, source: limits, seen: true, remedies: []Remedy{
		{"the mailbox has sent to 10,000 recipients within a day",
			"wait until tomorrow; send bulk mail by another way", You}}},
	{kind: OfGraph, codes: []string{"ErrorQuotaExceeded"}, source: mailErrors, remedies: []Remedy{fullMailbox}},
	{kind: OfGraph, codes: []string{"ApplicationThrottled"}, source: outlookLimit, seen: true,
		says: []string{"applicationthrottled", "application is over its mailboxconcurrency limit"},
		remedies: []Remedy{
			{"the application has more than four requests for the mailbox under way, or too many within ten minutes",
				"wait, and let the mail program try again", Nobody}}},
	{kind: OfGraph, codes: []string{"ErrorServerBusy", "ErrorInternalServerTransientError", "ErrorInternalServerError", "ErrorMailboxStoreUnavailable"}, source: mailErrors, remedies: []Remedy{
		{"Exchange has a passing fault",
			"try again later; see https://status.cloud.microsoft", Microsoft}}},
}
