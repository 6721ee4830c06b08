package sandbox

import (
	"fmt"
	"net/http"
	"strings"
)

// realm is whose accounts an endpoint of Entra is for.
type realm int

const (
	home          realm = iota // this tenant's
	organizations              // any tenant's
	common                     // any tenant's, and personal ones
	consumers                  // personal ones
)

// realm reads the tenant in the request's path: this one by GUID or verified
// domain, or one of the names for more than one tenant.
func (s *Server) realm(r *http.Request) (realm, *oauthError) {
	switch tenant := r.PathValue("tenant"); {
	case sameFold(tenant, s.Tenant), sameFold(tenant, s.Domain):
		return home, nil
	case tenant == "organizations":
		return organizations, nil
	case tenant == "common":
		return common, nil
	case tenant == "consumers", sameFold(tenant, consumerTenant):
		return consumers, nil
	case isGUID(tenant) || isDomain(tenant):
		return home, &oauthError{code: "invalid_request", number: 90002,
			text: fmt.Sprintf("Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.", tenant)}
	default:
		return home, &oauthError{code: "invalid_request", number: 900023,
			text: fmt.Sprintf("Specified tenant identifier '%s' is neither a valid DNS name, nor a valid external domain.", printable(tenant))}
	}
}

func isDomain(s string) bool {
	if !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// segment is the realm as a part of a path.
func (s *Server) segment(in realm) string {
	return [...]string{home: s.Tenant, organizations: "organizations", common: "common", consumers: "consumers"}[in]
}

// admits says whether somebody can sign in there.
func (in realm) admits(p *person) bool {
	switch in {
	case common:
		return true
	case consumers:
		return p.personal
	default:
		return !p.personal
	}
}

// takes refuses an application whose audience is not that of the realm.
func (in realm) takes(app *application) *oauthError {
	personal := app.audience == everybody || app.audience == personalOnly
	switch {
	case in == consumers && !personal:
		return unknownApp(app.clientID, consumerTenant)
	case in != consumers && app.audience == personalOnly:
		return &oauthError{code: "invalid_request", number: 9002331, text: fmt.Sprintf(
			"Application '%s' is configured for use by Microsoft Account users only. Please use the /consumers endpoint to serve this request.", app.clientID)}
	case (in == common || in == organizations) && app.audience == singleTenant:
		return &oauthError{code: "invalid_request", number: 50194, text: fmt.Sprintf(
			"Application '%s' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps. Use a tenant-specific endpoint or configure the application to be multi-tenant.", app.clientID)}
	}
	return nil
}

// signIn finds who signs in, by user principal name.
func (s *Server) signIn(in realm, upn string) (*person, *oauthError) {
	p := s.dir.personByUPN(upn)
	switch {
	case p == nil || !p.personal && in == consumers:
		return nil, &oauthError{number: 50034, text: fmt.Sprintf(
			"The user account %s does not exist in the %s directory.", printable(upn), s.segment(in))}
	case !in.admits(p):
		return nil, &oauthError{number: 50020, text: fmt.Sprintf(
			"User account '%s' from identity provider 'live.com' does not exist in tenant '%s' and cannot access the application in that tenant. The account needs to be added as an external user in the tenant first.",
			printable(upn), s.dir.organizationName)}
	}
	return p, nil
}

// first is the person that AutoSignIn signs in; nil if there is none.
func (s *Server) first(in realm) *person {
	for _, p := range s.dir.people {
		if in.admits(p) {
			return p
		}
	}
	return nil
}
