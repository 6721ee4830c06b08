package explain

import (
	"slices"
	"strconv"
)

// AADSTS explains an error number of Entra's, which error_codes and the text
// of error_description give.
//
// Causes are from
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
// and, where a number is missing there, from what Entra answers.
func AADSTS(number int) (Explanation, bool) {
	for _, x := range aadsts {
		if slices.Contains(x.numbers, number) {
			return Explanation{Code: "AADSTS" + strconv.Itoa(number), Kind: Entra, Cause: x.cause, Fix: x.fix, Mover: x.mover}, true
		}
	}
	return Explanation{}, false
}

var aadsts = []struct {
	numbers           []int
	cause, fix, mover string
}{
	// The client's credential.
	{[]int{7000215}, "the client secret is wrong: its id was taken for its value, it was cut short or removed, or it is too new to be known everywhere",
		"wait a minute if it was made just now; else revoke it and make a new one: o365pw revoke NAME, o365pw create NAME", you},
	{[]int{7000222}, "the client secret has expired",
		"revoke it and make a new one: o365pw revoke NAME, o365pw create NAME", you},
	{[]int{7000218}, "the application is a confidential client, and no client secret was sent",
		"set \"Allow public client flows\" to yes: az ad app update --id CLIENT_ID --is-fallback-public-client true", administrator},
	{[]int{700025}, "the application is a public client, and a client secret was sent",
		"name the mail application in client_id and the public client in login_client_id", you},
	{[]int{700027}, "the certificate is not one of the application's, or the signature does not match it",
		"add the certificate to the application: az ad app credential reset --id CLIENT_ID --append --cert @CERT.pem", administrator},
	{[]int{700024}, "the signed assertion is not valid at this time: the clock is wrong, or the assertion is older than some minutes",
		"set the clock (timedatectl set-ntp true), or get a new assertion for each run", you},
	{[]int{70021, 700211, 700212, 700213}, "no federated credential of the application matches the assertion's issuer, subject and audience",
		"register all three exactly as the message quotes them: az ad app federated-credential create --id CLIENT_ID", administrator},

	// The application in the tenant.
	{[]int{700016}, "the tenant does not know the application: the client id or the tenant is wrong, or nobody has consented yet",
		"compare client_id and tenant with the application's page in Entra", you},
	{[]int{7000229}, "the application has no service principal in the tenant",
		"run: az ad sp create --id CLIENT_ID", administrator},
	{[]int{7000112}, "the application is disabled in the tenant",
		"run: az ad sp update --id CLIENT_ID --set accountEnabled=true", administrator},
	{[]int{50105}, "the application is open to assigned users only, and this one is not",
		"assign the user in Entra: Enterprise applications, the application, Users and groups", administrator},
	{[]int{65001, 90094}, "nobody has consented to what the application asks for",
		"run: az ad app permission admin-consent --id CLIENT_ID", administrator},
	{[]int{65002}, "a client of Microsoft's own may not ask for this permission",
		"sign in with an application of your own: set login_client_id", you},
	{[]int{65004}, "consent was refused on the sign-in page",
		"run o365pw login again, and accept", you},
	{[]int{500011}, "the tenant does not have the service that the token is for, such as Exchange Online",
		"check cloud and exchange_resource, and that the tenant has a licence for Exchange Online", administrator},
	{[]int{650052}, "the tenant has not subscribed to the service that the token is for",
		"get a licence that holds Exchange Online", administrator},
	{[]int{650057}, "the service that the token is for is not among the application's permissions",
		"add it in Entra: App registrations, the application, API permissions, Office 365 Exchange Online", administrator},
	{[]int{50011}, "the redirect address is not registered for the application",
		"run: az ad app update --id CLIENT_ID --public-client-redirect-uris http://localhost", administrator},

	// Tenant and cloud.
	{[]int{90002}, "there is no such tenant in this cloud",
		"check tenant and cloud in the profile", you},
	{[]int{900023}, "the tenant is neither a GUID nor a domain",
		"write the tenant as contoso.onmicrosoft.com or as its GUID", you},
	{[]int{9001023, 50194}, "the application has to be addressed in its own tenant",
		"replace common or organizations by the tenant's GUID", you},
	{[]int{50034}, "there is no such account in the tenant",
		"check the address and the tenant in the profile", you},

	// The request.
	{[]int{900144}, "the request lacks a parameter",
		"report it with the text of the message", ourselves},
	{[]int{70011, 28002, 28003, 700022}, "the scope is not valid, or belongs to another cloud or to two services at once",
		"check cloud, graph and exchange_resource in the configuration; if they are right, report it", ourselves},

	// The person's account.
	{[]int{50126}, "the user name or the password of the account is wrong",
		"run: o365pw login", you},
	{[]int{50055}, "the password of the account has expired",
		"sign in at https://www.office.com, set a new password, then run: o365pw login", you},
	{[]int{50057}, "the account is disabled",
		"enable it: az ad user update --id ADDRESS --account-enabled true", administrator},
	{[]int{50053}, "the account is locked after many failed sign-ins, or the network address is on a block list",
		"wait some minutes, and look at the account's sign-in log in Entra if it lasts", administrator},
	{[]int{50074, 50076, 50078, 50079, 50072}, "a second factor is due: it was not asked for yet, is not set up, or has run out",
		"run: o365pw login", you},
	{[]int{50173}, "the sign-in was ended by a change of password or by an administrator",
		"run: o365pw login", you},
	{[]int{700082, 70008}, "the sign-in has ended because it was not used for 90 days",
		"run: o365pw login", you},
	{[]int{700084}, "the sign-in ended after 24 hours, since the redirect address is registered for a single-page application",
		"register http://localhost as mobile and desktop application, then run: o365pw login", administrator},
	{[]int{70043}, "the tenant asks for a new sign-in from time to time (sign-in frequency)",
		"run: o365pw login", you},
	{[]int{70000}, "the sign-in is not valid any more, or the account is suspended for abuse",
		"run: o365pw login; if that fails too, sign in at https://www.office.com to see why", you},

	// Conditional Access.
	{[]int{53003}, "a Conditional Access policy does not allow it",
		"look up the correlation id in Entra's sign-in log (tab Conditional Access) and exclude the application or this machine's address; for an application alone see the policies for workload identities", administrator},
	{[]int{53000, 53001, 530003}, "a Conditional Access policy asks for a managed device",
		"sign in from a device that is registered and compliant, or have the application excluded from the policy", administrator},
	{[]int{53002}, "a Conditional Access policy allows approved applications only",
		"have the application excluded from the policy", administrator},
	{[]int{530032, 530034}, "a security policy of the tenant blocks this sign-in",
		"look up the correlation id in Entra's sign-in log and allow the application there", administrator},

	// Device code.
	{[]int{70016}, "the code has not been used yet",
		"finish the sign-in in the browser", you},
	{[]int{70018}, "the code for the sign-in is not known",
		"run o365pw login --device-code again", you},
	{[]int{70019, 70020}, "the code for the sign-in was not used in time",
		"run o365pw login --device-code again", you},

	// Passing.
	{[]int{50196}, "the same request came so often that Entra takes it for a loop",
		"wait some minutes; if a client keeps signing in with a wrong password, stop it", you},
	{[]int{90006, 90012, 90024, 90033, 90055}, "the sign-in service has a passing fault",
		"try again in a minute; see https://status.cloud.microsoft", microsoft},
}
