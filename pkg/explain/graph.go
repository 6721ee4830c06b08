package explain

// Graph explains an error code of Microsoft Graph's, wherever in the answer it
// stands, or an HTTP status ("404") where the answer has no code that is known.
func Graph(code string) (Explanation, bool) { return lookup(OfGraph, code) }

const (
	graphErrors     = "https://learn.microsoft.com/graph/errors"
	graphThrottling = "https://learn.microsoft.com/graph/throttling"
	appPolicies     = "https://learn.microsoft.com/entra/identity/enterprise-apps/configure-app-management-policies"
	addPassword     = "https://learn.microsoft.com/graph/api/application-addpassword"
	audiences       = "https://learn.microsoft.com/entra/identity-platform/supported-accounts-validation"
	cae             = "https://learn.microsoft.com/entra/identity/conditional-access/concept-continuous-access-evaluation"
)

var graph = []entry{
	// App management policies. Codes and texts are as seen; the policies are
	// documented.
	{kind: OfGraph, codes: []string{"CredentialTypeNotAllowedAsPerAppPolicy"}, source: appPolicies, seen: true,
		says: []string{"credentialtypenotallowedasperapppolicy", "credential type not allowed as per assigned policy"},
		remedies: []Remedy{
			{"an app management policy of the tenant forbids client secrets",
				"exempt the application in Entra: Enterprise apps, Application policies", Administrator},
			{"the policy is to stay: certificates are usually still allowed",
				"use the backing that needs no client secret: o365pw create --backing certificate", You},
		}},
	{kind: OfGraph, codes: []string{"CredentialInvalidLifetimeAsPerAppPolicy", "InvalidKeyEndDate"}, source: appPolicies, seen: true,
		says: []string{"credentialinvalidlifetimeasperapppolicy", "invalidkeyenddate", "credential lifetime exceeds the max value allowed"},
		remedies: []Remedy{
			{"an app management policy of the tenant does not allow a client secret to live that long",
				"leave --expires out to get the longest that is allowed, or ask for less: o365pw create --expires 90d", You},
			{"the limit is too short for you",
				"exempt the application in Entra: Enterprise apps, Application policies", Administrator},
		}},
	{kind: OfGraph, codes: []string{"SignInAudienceNotAllowedAsPerAppPolicy"}, source: appPolicies, seen: true, remedies: []Remedy{
		{"an app management policy of the tenant does not allow applications for accounts outside of it",
			"register the application for this tenant alone: az ad app update --id CLIENT_ID --sign-in-audience AzureADMyOrg", Administrator}}},
	{kind: OfGraph, codes: []string{"InvalidUniqueTenantIdentifierAsPerAppPolicy"}, source: appPolicies, seen: true, remedies: []Remedy{
		{"an app management policy of the tenant wants identifier addresses of an application to hold the tenant's id or domain",
			"take the identifier address away, which o365pw does not need, in Entra: App registrations, the application, Expose an API", Administrator}}},

	// Rights.
	{kind: OfGraph, codes: []string{"PermissionScopeNotGranted"}, source: addPassword, seen: true, remedies: []Remedy{
		{"the token does not hold the permission: it was not asked for, or nobody has consented",
			"grant the application that you sign in with Application.ReadWrite.All (delegated), in CI Application.ReadWrite.OwnedBy (application), with admin consent, then sign in again: o365pw login", Administrator}}},
	{kind: OfGraph, codes: []string{"Authorization_RequestDenied", "403"}, source: addPassword,
		says: []string{"authorization_requestdenied", "insufficient privileges to complete the operation"}, weakly: []string{"403 forbidden", "http 403", "status 403"},
		remedies: []Remedy{
			{"the sign-in may not manage this application: the person is neither its owner nor Application Administrator, or lacks Application.ReadWrite.All",
				"the sign-in needs Application.ReadWrite.All and an owner or Application Administrator: az ad app owner add --id CLIENT_ID --owner-object-id OWNER_ID", Administrator},
			{"in CI: the application that signs in is not an owner of this one, or lacks Application.ReadWrite.OwnedBy",
				"grant Application.ReadWrite.OwnedBy (application) with admin consent, and make its service principal an owner: az ad app owner add --id CLIENT_ID --owner-object-id OWNER_ID", Administrator},
			{"the consent or the role was given after the sign-in, and the token does not know of it yet",
				"run: o365pw login", You},
		}},

	// The token.
	{kind: OfGraph, codes: []string{"InvalidAuthenticationToken", "401"}, source: graphErrors,
		says: []string{"invalidauthenticationtoken", "access token has expired or is not yet valid"}, weakly: []string{"401 unauthorized", "http 401", "status 401"},
		remedies: []Remedy{
			{"the token is missing, over, or meant for something else than Graph, or for another cloud",
				"o365pw login (or renew the token in O365PW_ACCESS_TOKEN)", You},
			{"graph in the configuration belongs to another cloud than the sign-in",
				"check cloud, authority and graph in the configuration", You},
		}},
	{kind: OfGraph, codes: []string{"insufficient_claims"}, source: cae, says: []string{"insufficient_claims", "tokencreatedwithoutdatedpolicies"}, remedies: []Remedy{
		{"the tenant wants a new look at this sign-in (Continuous Access Evaluation): the person's rights, password or network have changed",
			"run: o365pw login", You}}},

	// What is not there.
	{kind: OfGraph, codes: []string{"Request_ResourceNotFound", "404"}, source: graphErrors,
		says: []string{"request_resourcenotfound", "does not exist or one of its queried reference-property objects are not present"}, weakly: []string{"404 not found", "http 404", "status 404"},
		remedies: []Remedy{
			{"the tenant has no such application: the object id stands in place of the client id, or the tenant is wrong",
				"check client_id (the application's client id, not its object id) and tenant of the profile", You},
			{"it was made a moment ago and is not known everywhere yet",
				"try again in a minute", You},
			{"it was deleted",
				"look in Entra: App registrations, Deleted applications", Administrator},
		}},
	{kind: OfGraph, codes: []string{"no password credential found"}, source: "https://learn.microsoft.com/graph/api/application-removepassword", seen: true, remedies: []Remedy{
		{"the application has no client secret with this key id: it is gone already",
			"look with: o365pw list", You},
		{"it was made a moment ago and is not known everywhere yet",
			"try again in a few minutes", You},
	}},

	// Limits.
	{kind: OfGraph, codes: []string{"Directory_ResourceSizeExceeded"}, source: graphErrors, seen: true,
		says: []string{"directory_resourcesizeexceeded", "size of the object has exceeded its limit"},
		remedies: []Remedy{
			{"the application holds too many credentials",
				"revoke old ones: o365pw list --sort expires, o365pw revoke NAME", You}}},
	{kind: OfGraph, codes: []string{"credential limit has been reached"}, source: audiences, seen: true,
		says: []string{"credential limit has been reached", "maximum of 2 encrypted credentials"},
		remedies: []Remedy{
			{"the application is open to personal accounts, and such a one can have two client secrets only",
				"use an application of this tenant alone: az ad app update --id CLIENT_ID --sign-in-audience AzureADMyOrg", Administrator}}},
	{kind: OfGraph, codes: []string{"TooManyRequests", "429"}, source: graphThrottling,
		says: []string{"toomanyrequests"}, weakly: []string{"429 too many requests", "http 429", "status 429"},
		remedies: []Remedy{
			{"Graph asks for a pause: too many requests of this application or tenant",
				"try again later; nothing was changed by this call", Nobody}}},

	// The rest, which say little.
	{kind: OfGraph, codes: []string{"Request_BadRequest", "400"}, source: graphErrors, general: true,
		says: []string{"request_badrequest"},
		remedies: []Remedy{
			{"Graph does not take the request as it is",
				"check client_id and tenant of the profile; if they are right, report it with the request-id", Ourselves}}},
	{kind: OfGraph, codes: []string{"UnknownError"}, source: graphErrors, general: true, seen: true, remedies: []Remedy{
		{"Graph gives no code of its own; the message has what there is",
			"explain the message: o365pw explain takes all of it; if it names no fault, try again later", Microsoft}}},
	{kind: OfGraph, codes: []string{"409", "412"}, source: graphErrors,
		says: []string{}, weakly: []string{"409 conflict", "412 precondition failed"},
		remedies: []Remedy{
			{"somebody else changed the application at the same time",
				"run the command again", You}}},
	{kind: OfGraph, codes: []string{"503", "504", "500", "502"}, source: graphErrors,
		says: []string{}, weakly: []string{"503 service unavailable", "504 gateway timeout", "500 internal server error", "502 bad gateway", "http 503", "http 504", "status 503", "status 504"},
		remedies: []Remedy{
			{"the service has a passing fault",
				"try again later; see https://status.cloud.microsoft", Microsoft}}},
}
