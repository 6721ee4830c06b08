package explain

// AADSTS explains an error number of Entra's, which error_codes and the text
// of error_description give.
//
// Causes are from
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
// and, where a number is missing there, from what Entra answers.
func AADSTS(n int) (Explanation, bool) { return lookup(OfEntra, number(n)) }

// OAuth explains the error member of an answer of Entra's, "invalid_client". It
// says less than the number, and is for answers that have none.
func OAuth(code string) (Explanation, bool) { return lookup(OfEntra, code) }

// entra is by number. Those marked seen are not on Microsoft's page.
var entra = []entry{
	// The client's credential.
	{kind: OfEntra, numbers: []int{7000215}, remedies: []Remedy{
		{"the client secret is wrong: its id was taken for its value, it was cut short or removed, or it is too new to be known everywhere",
			"wait a minute if it was made just now; else revoke it and make a new one: o365pw revoke NAME, o365pw create NAME", You},
		{"an unattended sign-in has the wrong AZURE_CLIENT_SECRET: the secret's id stands in place of its value, or the secret is another application's",
			"put the value there, which Entra shows once, when the secret is made", You},
	}},
	{kind: OfEntra, numbers: []int{7000222}, remedies: []Remedy{
		{"the client secret has expired",
			"revoke it and make a new one: o365pw revoke NAME, o365pw create NAME", You},
		{"an unattended sign-in has an AZURE_CLIENT_SECRET that has expired",
			"add a new one and put its value there: az ad app credential reset --id CLIENT_ID --append", Administrator},
	}},
	{kind: OfEntra, numbers: []int{7000218}, remedies: []Remedy{
		{"the application is a confidential client, and no client secret was sent",
			"set \"Allow public client flows\" to yes: az ad app update --id CLIENT_ID --is-fallback-public-client true", Administrator},
		{"http://localhost is registered for the platform Web, which takes a secret",
			"register it for Mobile and desktop applications: az ad app update --id CLIENT_ID --public-client-redirect-uris http://localhost", Administrator},
	}},
	{kind: OfEntra, numbers: []int{700025}, remedies: []Remedy{
		{"the application is a public client, and a client secret was sent",
			"name the mail application in client_id and the public client in login_client_id", You},
	}},
	{kind: OfEntra, numbers: []int{700027, 50012}, remedies: []Remedy{
		{"the certificate is not one of the application's, or the signature does not match it",
			"add the certificate to the application: az ad app credential reset --id CLIENT_ID --append --cert @CERT.pem", Administrator},
	}},
	{kind: OfEntra, numbers: []int{700024}, seen: true, remedies: []Remedy{
		{"the signed assertion is not valid at this time: the clock is wrong, or the assertion is older than some minutes",
			"set the clock (timedatectl set-ntp true), or get a new assertion for each run", You},
	}},
	{kind: OfEntra, numbers: []int{70021, 700211, 700212, 700213}, seen: true, remedies: []Remedy{
		{"no federated credential of the application matches the assertion's issuer, subject and audience",
			"register all three exactly as the message quotes them: az ad app federated-credential create --id CLIENT_ID", Administrator},
	}},
	{kind: OfEntra, numbers: []int{50166, 501661, 90061}, seen: true, remedies: []Remedy{
		{"Entra could not read the keys of the assertion's issuer",
			"let the internet read ISSUER/.well-known/openid-configuration and the keys it names, with a public certificate; where it can, try again", Administrator},
	}},
	{kind: OfEntra, numbers: []int{7000272}, seen: true, remedies: []Remedy{
		{"the assertion was signed with a key that its issuer does not publish",
			"publish the key in the issuer's key set, or wait until Entra has read a new one", Administrator},
	}},

	// The application in the tenant.
	{kind: OfEntra, numbers: []int{700016, 700011}, remedies: []Remedy{
		{"the tenant does not know the application: the client id or the tenant is wrong, or nobody has consented yet",
			"compare client_id and tenant with the application's page in Entra", You},
		{"the client id is right, but the application has not been brought into this tenant",
			"open https://login.microsoftonline.com/TENANT/adminconsent?client_id=CLIENT_ID and accept", Administrator},
	}},
	{kind: OfEntra, numbers: []int{7000229}, seen: true, remedies: []Remedy{
		{"the application has no service principal in the tenant",
			"run: az ad sp create --id CLIENT_ID", Administrator},
	}},
	{kind: OfEntra, numbers: []int{7000112, 70001}, remedies: []Remedy{
		{"the application is disabled in the tenant",
			"run: az ad sp update --id CLIENT_ID --set accountEnabled=true", Administrator},
		{"the app registration itself was deactivated",
			"activate it in Entra: App registrations, the application, Overview", Administrator},
	}},
	{kind: OfEntra, numbers: []int{50105}, remedies: []Remedy{
		{"the application is open to assigned users only, and this one is not",
			"assign the user in Entra: Enterprise applications, the application, Users and groups", Administrator},
	}},
	{kind: OfEntra, numbers: []int{65001, 90094, 90095, 90008}, remedies: []Remedy{
		{"nobody has consented to what the application asks for",
			"run: az ad app permission admin-consent --id CLIENT_ID", Administrator},
		{"there is no az at hand",
			"open https://login.microsoftonline.com/TENANT/adminconsent?client_id=CLIENT_ID and accept", Administrator},
	}},
	{kind: OfEntra, numbers: []int{65002}, remedies: []Remedy{
		{"a client of Microsoft's own may not ask for this permission",
			"sign in with an application of your own: set login_client_id", You},
	}},
	{kind: OfEntra, numbers: []int{65004}, remedies: []Remedy{
		{"consent was refused on the sign-in page",
			"run o365pw login again, and accept", You},
	}},
	{kind: OfEntra, numbers: []int{500011}, remedies: []Remedy{
		{"the tenant does not have the service that the token is for, such as Exchange Online",
			"check cloud and exchange_resource, and that the tenant has a licence for Exchange Online", Administrator},
	}},
	{kind: OfEntra, numbers: []int{650052}, remedies: []Remedy{
		{"the tenant has not subscribed to the service that the token is for",
			"get a licence that holds Exchange Online", Administrator},
	}},
	{kind: OfEntra, numbers: []int{650056, 650057, 65005}, remedies: []Remedy{
		{"the service that the token is for is not among the application's permissions",
			"add it in Entra: App registrations, the application, API permissions, Office 365 Exchange Online", Administrator},
	}},
	{kind: OfEntra, numbers: []int{500014}, remedies: []Remedy{
		{"the service that the token is for is switched off in the tenant",
			"switch it on in Entra: Enterprise applications, Office 365 Exchange Online, Properties, Enabled for users to sign-in", Administrator},
	}},
	{kind: OfEntra, numbers: []int{50011, 900971}, remedies: noRedirect},
	{kind: OfEntra, numbers: []int{500113}, seen: true, remedies: noRedirect},

	// Tenant and cloud.
	{kind: OfEntra, numbers: []int{90002, 90038}, remedies: []Remedy{
		{"there is no such tenant in this cloud",
			"check tenant and cloud in the profile", You},
	}},
	{kind: OfEntra, numbers: []int{50059}, remedies: []Remedy{
		{"the request does not tell the tenant",
			"set tenant in the profile, as contoso.onmicrosoft.com or as its GUID", You},
	}},
	{kind: OfEntra, numbers: []int{900023}, seen: true, remedies: []Remedy{
		{"the tenant is neither a GUID nor a domain",
			"write the tenant as contoso.onmicrosoft.com or as its GUID", You},
	}},
	{kind: OfEntra, numbers: []int{9001023, 50194, 9002332}, remedies: []Remedy{
		{"the application has to be addressed in its own tenant",
			"replace common, organizations or consumers by the tenant's GUID", You},
	}},
	{kind: OfEntra, numbers: []int{50034, 50020, 90072}, remedies: []Remedy{
		{"there is no such account in the tenant",
			"check the address and the tenant in the profile", You},
		{"the browser had another account signed in, of another tenant or a personal one",
			"run o365pw login again, and choose the right account, or use a private window", You},
	}},

	// The request.
	{kind: OfEntra, numbers: []int{900144, 90014, 9002313}, remedies: []Remedy{
		{"the request lacks a parameter, or has a wrong one",
			"report it with the text of the message", Ourselves},
	}},
	{kind: OfEntra, numbers: []int{70011, 28002, 28003, 700022}, remedies: []Remedy{
		{"the scope is not valid, or belongs to another cloud or to two services at once",
			"check cloud, graph and exchange_resource in the configuration; if they are right, report it", Ourselves},
	}},

	// The person's account.
	{kind: OfEntra, numbers: []int{50126}, remedies: []Remedy{
		{"the user name or the password of the account is wrong",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{50055}, remedies: []Remedy{
		{"the password of the account has expired",
			"sign in at https://www.office.com, set a new password, then run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{50057}, remedies: []Remedy{
		{"the account is disabled",
			"enable it: az ad user update --id ACCOUNT --account-enabled true", Administrator},
	}},
	{kind: OfEntra, numbers: []int{50053}, remedies: []Remedy{
		{"the account is locked after many failed sign-ins, or the network address is on a block list",
			"wait some minutes, and look at the account's sign-in log in Entra if it lasts", Administrator},
	}},
	{kind: OfEntra, numbers: []int{50074, 50076, 50078, 50079, 50072, 50158, 500121}, remedies: []Remedy{
		{"a second factor is due: it was not asked for yet, is not set up, or has run out",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{50173, 50132, 50133}, remedies: []Remedy{
		{"the sign-in was ended by a change of password or by an administrator",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{700082, 70008}, remedies: []Remedy{
		{"the sign-in has ended because it was not used for 90 days",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{50058}, remedies: []Remedy{
		{"nobody is signed in in the browser, or it keeps no cookies for the sign-in page",
			"run o365pw login again, and sign in on the page", You},
	}},
	{kind: OfEntra, numbers: []int{54005}, remedies: []Remedy{
		{"the code that the browser came back with was used already",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{9002327}, seen: true, remedies: []Remedy{
		{"the redirect address is registered for a single-page application, whose tokens are for browsers alone",
			"register http://localhost as mobile and desktop application, then run: o365pw login", Administrator},
	}},
	{kind: OfEntra, numbers: []int{700084}, remedies: []Remedy{
		{"the sign-in ended after 24 hours, since the redirect address is registered for a single-page application",
			"register http://localhost as mobile and desktop application, then run: o365pw login", Administrator},
	}},
	{kind: OfEntra, numbers: []int{70043}, remedies: []Remedy{
		{"the tenant asks for a new sign-in from time to time (sign-in frequency)",
			"run: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{70000}, remedies: []Remedy{
		{"the sign-in is not valid any more",
			"run: o365pw login", You},
		{"the account is suspended for abuse, as seen with personal accounts",
			"sign in at https://www.office.com to see why", You},
	}},

	// Conditional Access.
	{kind: OfEntra, numbers: []int{53003}, remedies: []Remedy{
		{"a Conditional Access policy does not allow it",
			"look up the correlation id in Entra's sign-in log (tab Conditional Access) and exclude the application or this machine's address; for an application alone see the policies for workload identities", Administrator},
		{"the policy blocks the device code flow",
			"sign in by the browser on this machine: o365pw login", You},
	}},
	{kind: OfEntra, numbers: []int{53000, 53001}, remedies: managedDevice},
	{kind: OfEntra, numbers: []int{530003}, seen: true, remedies: managedDevice},
	{kind: OfEntra, numbers: []int{53002}, remedies: []Remedy{
		{"a Conditional Access policy allows approved applications only",
			"have the application excluded from the policy", Administrator},
	}},
	{kind: OfEntra, numbers: []int{53004}, remedies: []Remedy{
		{"a second factor has to be set up first, and the sign-in looks too risky to Entra for that here",
			"set it up from a place and device that you use often: https://aka.ms/mysecurityinfo; else ask the administrator to dismiss the risk", You},
	}},
	{kind: OfEntra, numbers: []int{530032, 530034, 530035}, remedies: []Remedy{
		{"a security policy of the tenant blocks this sign-in",
			"look up the correlation id in Entra's sign-in log and allow the application there", Administrator},
	}},

	// Device code.
	{kind: OfEntra, numbers: []int{70016}, remedies: []Remedy{
		{"the code has not been used yet",
			"finish the sign-in in the browser", You},
	}},
	{kind: OfEntra, numbers: []int{70018}, remedies: []Remedy{
		{"the code for the sign-in is not known",
			"run o365pw login --device-code again", You},
	}},
	{kind: OfEntra, numbers: []int{70019}, remedies: codeOver},
	{kind: OfEntra, numbers: []int{70020}, seen: true, remedies: codeOver},

	// Passing.
	{kind: OfEntra, numbers: []int{50196}, remedies: []Remedy{
		{"the same request came so often that Entra takes it for a loop",
			"wait some minutes; if a client keeps signing in with a wrong password, stop it", You},
	}},
	{kind: OfEntra, numbers: []int{90006, 90012, 90024, 90033, 90055}, remedies: []Remedy{
		{"the sign-in service has a passing fault",
			"try again in a minute; see https://status.cloud.microsoft", Microsoft},
	}},
}

var noRedirect = []Remedy{
	{"the redirect address is not registered for the application",
		"run: az ad app update --id CLIENT_ID --public-client-redirect-uris http://localhost", Administrator},
}

var managedDevice = []Remedy{
	{"a Conditional Access policy asks for a managed device",
		"sign in from a device that is registered and compliant, or have the application excluded from the policy", Administrator},
}

var codeOver = []Remedy{
	{"the code for the sign-in was not used in time",
		"run o365pw login --device-code again", You},
}

const (
	oauthPage  = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes#handling-error-codes-in-your-application"
	devicePage = "https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code#expected-errors"
)

// oauth is by error member, for answers without a number.
var oauth = []entry{
	{kind: OfEntra, codes: []string{"invalid_client"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the application's own credential (client secret, certificate or assertion) is not accepted",
			"make a new app password: o365pw revoke NAME, o365pw create NAME; with AZURE_CLIENT_SECRET check that", You}}},
	{kind: OfEntra, codes: []string{"invalid_grant", "interaction_required", "login_required", "account_selection_required"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the sign-in is no longer good, or the person has to do something in the browser",
			"run: o365pw login", You}}},
	{kind: OfEntra, codes: []string{"consent_required"}, general: true, source: oauthPage, remedies: []Remedy{
		{"nobody has consented to what the application asks for",
			"run: az ad app permission admin-consent --id CLIENT_ID", Administrator}}},
	{kind: OfEntra, codes: []string{"unauthorized_client"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the tenant does not know the application, or it may not sign in this way",
			"compare client_id and tenant with the application's page in Entra", You}}},
	{kind: OfEntra, codes: []string{"invalid_resource", "invalid_target"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the service that the token is for is not in the tenant, or not set up",
			"check cloud and exchange_resource, and that the tenant has a licence for Exchange Online", Administrator}}},
	{kind: OfEntra, codes: []string{"invalid_request", "invalid_scope", "unsupported_grant_type", "unsupported_response_type"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the request cannot work as it is",
			"check tenant, cloud, graph and exchange_resource in the configuration; if they are right, report it", Ourselves}}},
	{kind: OfEntra, codes: []string{"access_denied", "authorization_declined"}, general: true, source: devicePage, remedies: []Remedy{
		{"the sign-in was refused in the browser",
			"run o365pw login again, and accept", You},
		{"the page said that an administrator has to approve the application",
			"run: az ad app permission admin-consent --id CLIENT_ID", Administrator}}},
	{kind: OfEntra, codes: []string{"expired_token", "bad_verification_code"}, general: true, source: devicePage, remedies: codeOver},
	{kind: OfEntra, codes: []string{"authorization_pending", "slow_down"}, general: true, source: devicePage, remedies: []Remedy{
		{"the code has not been used yet",
			"finish the sign-in in the browser", You}}},
	{kind: OfEntra, codes: []string{"temporarily_unavailable", "server_error"}, general: true, source: oauthPage, remedies: []Remedy{
		{"the sign-in service has a passing fault",
			"try again in a minute; see https://status.cloud.microsoft", Microsoft}}},
}
