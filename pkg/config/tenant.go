package config

import (
	"fmt"
	"slices"
	"strings"
)

const tenantHint = "give the tenant's GUID or a domain of it, as in contoso.onmicrosoft.com"

// personalTenant is the tenant that personal accounts are in, another word for
// consumers: https://learn.microsoft.com/entra/identity-platform/v2-protocols.
const personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// manyTenants are the words that may stand where a tenant does in an address of
// Entra's, for whatever tenant the person is of.
var manyTenants = []string{"consumers", "organizations", "common"}

func isManyTenants(v string) bool { return slices.Contains(manyTenants, strings.ToLower(v)) }

// isPersonal tells whether personal accounts sign in to the tenant, and only
// they.
func isPersonal(v string) bool {
	return strings.EqualFold(v, "consumers") || strings.EqualFold(v, personalTenant)
}

func checkTenant(v string) (string, string) {
	if isManyTenants(v) || guidForm.MatchString(v) || len(v) <= 253 && hostForm.MatchString(v) && strings.Contains(v, ".") {
		return "", ""
	}
	return fmt.Sprintf("%q is neither a GUID nor a domain", v), tenantHint
}

// CheckTenant tells what keeps tenant from going with backing in the cloud, and
// what to do about it; nothing if it fits. An application signs in as itself to
// one tenant, so that consumers, organizations and common go with backing user
// alone; and personal accounts are in the global cloud alone.
func CheckTenant(tenant, backing string, cloud Cloud) (problem, hint string) {
	many := isManyTenants(tenant)
	switch {
	case backing != "user" && isPersonal(tenant):
		return fmt.Sprintf("%q are personal accounts, which take no application: it goes with backing user only, not with %s", tenant, backing),
			`set backing = "user"; for the mailboxes of an organisation ` + tenantHint
	case backing != "user" && many:
		return fmt.Sprintf("%q stands for many tenants, not for one: it goes with backing user only, not with %s", tenant, backing),
			tenantHint + `, or set backing = "user"`
	case isPersonal(tenant) && slices.Contains([]string{usgov.Graph, dod.Graph, china.Graph}, cloud.Graph):
		return fmt.Sprintf("%q are personal accounts, which cloud %s does not have", tenant, cloud.Name),
			`set cloud = "global" for them, or ` + tenantHint
	}
	return "", ""
}
