package explain

import (
	"slices"
	"strings"
	"testing"
)

var pasted = []struct {
	name, text string
	want       []string
}{
	{"a number", "7000215", []string{"AADSTS7000215"}},
	{"a number with its name", "aadsts 050011", []string{"AADSTS50011"}},
	{"an exit code", "5", []string{"exit 5"}},
	{"an exit code with words", "the job failed: process exited with exit code 7", []string{"exit 7"}},
	{"an HTTP status", "404", []string{"404"}},
	{"nothing", "", nil},
	{"a text without an error", "everything is fine, 250 2.0.0 OK <7000215@contoso.com>", nil},
	{"Entra's JSON", `{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'x' are expired.\r\nTrace ID: a\r\nTimestamp: 2026-01-09 02:02:12Z","error_codes":[7000222],"error_uri":"https://login.microsoftonline.com/error?code=7000222"}`,
		[]string{"AADSTS7000222"}},
	{"numbers without a text", `{"error":"invalid_grant", "error_codes": [50196, 53003]}`, []string{"AADSTS50196", "AADSTS53003"}},
	{"JSON in JSON", `{"body":"{\"error\":\"invalid_grant\",\"error_codes\":[70043]}"}`, []string{"AADSTS70043"}},
	{"the address of a redirect", "http://localhost:49152/?error=access_denied&error_description=AADSTS65004%3a+User+declined+to+consent+to+access+the+app.%0d%0aTrace+ID%3a+1&state=x", []string{"AADSTS65004"}},
	{"a redirect without a number", "http://localhost:49152/?error=access_denied&state=x", []string{"access_denied"}},
	{"a redirect, escaped twice", "continue=http%3A%2F%2Flocalhost%2F%3Ferror_description%3DAADSTS90094%253a%2Bconsent", []string{"AADSTS90094"}},
	{"Graph's JSON", `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges to complete the operation.","innerError":{"date":"2025-02-13T10:17:06"}}}`, []string{"Authorization_RequestDenied"}},
	{"Graph's JSON in a message", `403 {"error":{"code":"UnknownError","message":"{\"errorCode\":\"PermissionScopeNotGranted\",\"message\":\"Authorization failed due to missing permission scope\"}"}}`, []string{"PermissionScopeNotGranted"}},
	{"a policy", `{"error":{"code":"CredentialInvalidLifetimeAsPerAppPolicy","message":"Credential lifetime exceeds the max value allowed as per assigned policy 'x'.","details":[{"code":"InvalidKeyEndDate"}]}}`, []string{"CredentialInvalidLifetimeAsPerAppPolicy"}},
	{"a policy by its text", "Credential type not allowed as per\n assigned policy 'x'.", []string{"CredentialTypeNotAllowedAsPerAppPolicy"}},
	{"Graph, not into this mailbox", `{"error":{"code":"ErrorAccessDenied","message":"Access is denied. Check credentials and try again."}}`, []string{"ErrorAccessDenied"}},
	{"Graph, a policy", "403 Forbidden: Access to OData is disabled: Blocked by tenant configured AppOnly AccessPolicy settings.", []string{"ErrorAccessDenied"}},
	{"Graph, another sender", "POST https://graph.microsoft.com/v1.0/users/a@x.com/sendMail: 403 Forbidden: ErrorSendAsDenied: The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account", []string{"ErrorSendAsDenied"}},
	{"Graph, nobody", "404 Not Found: ErrorInvalidUser: The requested user 'a@x.com' is invalid", []string{"ErrorInvalidUser"}},
	{"Graph, no mailbox", "The mailbox is either inactive, soft-deleted, or is hosted on-premise.", []string{"MailboxNotEnabledForRESTAPI"}},
	{"Graph, too large", "413 Request Entity Too Large: not sent: the message has 3000000 bytes", []string{"413"}},
	{"Graph, the day's recipients", "429 Too Many Requests: ErrorSubmissionQuotaExceeded: The sender's submission quota was exceeded", []string{"ErrorSubmissionQuotaExceeded"}},
	{"Graph, too many at once", `{"code":"ApplicationThrottled","message":"Application is over its MailboxConcurrency limit."}`, []string{"ApplicationThrottled"}},
	{"Graph, not base64", "400 Bad Request: ErrorMimeContentInvalidBase64String: Invalid base64 string for MIME content", []string{"ErrorMimeContentInvalidBase64String"}},
	{"IMAP", "b NO AUTHENTICATE failed.", []string{"AUTHENTICATE failed"}},
	{"a dialog that breaks lines", "The server said:\r\n  User is authenticated\r\n  but not connected.", []string{"authenticated but not connected"}},
	{"the end of a session", "* BYE Session invalidated - AccessTokenExpired", []string{"AccessTokenExpired"}},
	{"throttled", "BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds", []string{"throttled"}},
	{"SMTP AUTH off", "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [SN2PR00CA0018]", []string{"SmtpClientAuthentication"}},
	{"a password at Exchange", "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [x]", []string{"5.7.139"}},
	{"a password at Exchange, in a dialog", "Login to server outlook.office365.com failed. The mail server responded:\r\nLOGIN failed.\r\n", []string{"5.7.139"}},
	{"no sign-in at Exchange", "530 5.7.57 Client not authenticated to send mail. [x.eurprd04.prod.outlook.com]", []string{"5.7.57"}},
	{"the token over SMTP, in two lines", "535-5.7.3 Authentication\r\n535 5.7.3 unsuccessful\r\n", []string{"5.7.3"}},
	{"the page of a sign-in", "Sorry, but we\u2019re having trouble signing you in.\r\n\r\nAADSTS500113: No reply address is registered for the application.\r\n", []string{"AADSTS500113"}},
	{"the token over SMTP", "535 5.7.3 Authentication unsuccessful [SN2PR00CA0018.namprd00.prod.outlook.com]", []string{"5.7.3"}},
	{"too many at once", "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", []string{"4.3.2"}},
	{"another sender", "554 5.2.252 SendAsDenied; a@x.com not allowed to send as b@x.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", []string{"SendAsDenied"}},
	{"another sender, at MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", []string{"5.7.60"}},
	{"the day's recipients", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", []string{"SubmissionQuotaExceededException"}},
	{"mailbox full", "554 5.2.2 mailbox full; STOREDRV.Deliver", []string{"5.2.2"}},
	{"an address that looks like a code", "from 10.5.7.3 and 15.7.3, 5.2.25, 5.7.33", nil},
	{"the gateway, IMAP", "a NO [AUTHENTICATIONFAILED] user name or app password not accepted", []string{"bad-credentials"}},
	{"the gateway, code alone", "AUTHENTICATIONFAILED", []string{"AUTHENTICATIONFAILED"}},
	{"the gateway, revoked", "-ERR [AUTH] this app password was revoked", []string{"revoked"}},
	{"the gateway, SMTP", "535 5.7.8 this app password may not be used for this protocol", []string{"protocol-not-allowed"}},
	{"the gateway, Exchange's refusal", "Sign-in failed. [CONTACTADMIN] the app password is right, but the mail server does not open the mailbox alice@contoso.com for it; ask your administrator", []string{"authenticated but not connected"}},
	{"the gateway, POP3", "-ERR [SYS/PERM] the app password is right, but the mail server does not let it open alice@contoso.com; ask your administrator", []string{"unknown user name or bad password"}},
	{"the gateway, sending", "535 5.7.0 the app password is right, but the mail server does not let it send for alice@contoso.com", []string{"5.7.3"}},
	{"the gateway, no cause", "a NO [CONTACTADMIN] the app password is right, but the organisation does not let it in; ask its administrator", []string{"CONTACTADMIN"}},
	{"the gateway, away", "a NO [UNAVAILABLE] the mail server cannot be reached for now; try again later", []string{"UNAVAILABLE"}},
	{"the gateway, a pause", "a NO [UNAVAILABLE] the mail server asks for a pause; try again later", []string{"asks for a pause"}},
	{"the gateway, its sender", "550 5.7.60 this app password may not send as bob@contoso.com; it sends as alice@contoso.com", []string{"may not send as"}},
	{"the gateway, its good-bye", "421 4.3.2 o365pw: idle for too long", []string{"idle for too long"}},
	{"the gateway's log", `level=WARN msg="sign-in refused" reason=policy cause="app password \"mutt\": get token by client secret: login.microsoftonline.com: HTTP 401: unauthorized_client: AADSTS7000112: Application is disabled"`, []string{"AADSTS7000112"}},
	{"a command under -o json", `{"code":5,"message":"POST https://graph.microsoft.com/v1.0/x: 403 Forbidden: Authorization_RequestDenied: Insufficient privileges","hint":"x","requestId":"y"}`, []string{"Authorization_RequestDenied", "exit 5"}},
	{"several", "AADSTS53003 for one, SendAsDenied for the other", []string{"AADSTS53003", "SendAsDenied"}},
	{"a certificate", "curl: (60) SSL certificate problem: unable to get local issuer certificate", []string{"certificate not trusted"}},
	{"no gateway", "dial tcp 127.0.0.1:1993: connect: connection refused", []string{"connection refused"}},
}

func TestFind(t *testing.T) {
	for _, tt := range pasted {
		t.Run(tt.name, func(t *testing.T) {
			if got := codes(Find(tt.text)); !slices.Equal(got, tt.want) {
				t.Errorf("%q\n got %q\nwant %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	got := Unknown("AADSTS1234567 and AADSTS50011, error_codes: [1234567, 50999] aadsts1")
	if !slices.Equal(got, []int{1234567, 50999}) {
		t.Errorf("got %v", got)
	}
}

// FuzzFind: whatever is pasted, each row is told once, nothing of the text is
// told again, and what a text holds is found whatever stands around it.
func FuzzFind(f *testing.F) {
	for _, tt := range pasted {
		f.Add(tt.text)
	}
	f.Add("%%%2\\u00\\\\\" &#x110000; \xff\xfe [{\"code\":")
	known := map[string]bool{}
	for _, x := range All() {
		known[string(x.Kind)+x.Line()+x.Code+x.Title+x.Source] = true
	}
	f.Fuzz(func(t *testing.T, text string) {
		told := map[string]bool{}
		for _, x := range Find(text) {
			if !known[string(x.Kind)+x.Line()+x.Code+x.Title+x.Source] {
				t.Errorf("not of the table: %+v", x)
			}
			if key := string(x.Kind) + x.Code; told[key] {
				t.Errorf("%s is told twice", x.Code)
			} else {
				told[key] = true
			}
		}
		if len(text) < MaxText/2 {
			with := strings.ToValidUTF8(text, "?") + "\n AADSTS7000222: expired \n" + text
			if !slices.Contains(codes(Find(with)), "AADSTS7000222") {
				t.Errorf("the number is lost in %q", with)
			}
		}
		_ = Unknown(text)
	})
}
