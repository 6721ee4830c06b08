package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// scope is the permissions that a request asks for, of one resource.
type scope struct {
	asked    string
	resource string
	names    []string // without the resource

	openid, email, offline bool
}

// String is the scope as the token answer says it: what was granted, in full.
func (sc scope) String() string {
	var full []string
	for _, n := range sc.names {
		full = append(full, sc.resource+"/"+n)
	}
	if sc.openid {
		full = append(full, "openid", "profile")
		if sc.email {
			full = append(full, "email")
		}
	}
	return strings.Join(full, " ")
}

func badScope(asked string) *oauthError {
	return &oauthError{code: "invalid_scope", number: 70011,
		text: fmt.Sprintf("The provided value for the input parameter 'scope' is not valid. The scope %s is not valid.", printable(asked))}
}

// openIDScopes are those of OpenID Connect, which belong to no resource.
var openIDScopes = []string{"openid", "profile", "email", "offline_access"}

// splitScope takes a scope such as https://graph.microsoft.com/User.Read
// apart. Without a resource it is Graph's.
func splitScope(s string) (resource, name string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return graphResource, s, s != ""
	}
	return s[:i], s[i+1:], s[i+1:] != ""
}

// appScopeLocked checks the scope of a client credentials request: the
// .default of one resource.
func (s *Server) appScopeLocked(asked string) (scope, *oauthError) {
	resource, ok := strings.CutSuffix(asked, "/.default")
	if !ok || strings.ContainsAny(asked, " \t\r\n") {
		return scope{}, badScope(asked)
	}
	return scope{asked: asked, resource: resource}, s.resourceLocked(resource)
}

// resourceLocked refuses a resource that this tenant does not have.
func (s *Server) resourceLocked(resource string) *oauthError {
	switch v := s.dir.serviceOf(resource); {
	case v == nil, v == s.dir.exchange && s.Faults.NoExchange:
		return &oauthError{code: "invalid_resource", number: 500011, text: fmt.Sprintf(
			"The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
			printable(resource), s.dir.organizationName)}
	case v == s.dir.exchange && s.Faults.NoLicence:
		return &oauthError{code: "invalid_resource", number: 650052, text: fmt.Sprintf(
			"The app needs access to a service ('%s') that your organization '%s' has not subscribed to or enabled. Contact your IT Admin to review the configuration of your service subscriptions.",
			printable(resource), s.Tenant)}
	}
	return nil
}

func noConsent(app *application) *oauthError {
	return &oauthError{code: "invalid_grant", suberror: "consent_required", number: 65001, text: fmt.Sprintf(
		"The user or administrator has not consented to use the application with ID '%s' named '%s'. Send an interactive authorization request for this user and resource.",
		app.clientID, printable(app.displayName))}
}

// consentLocked is what a person at the sign-in page consents to, with UserConsent.
func (s *Server) consentLocked(app *application, asked string) {
	for _, name := range []string{"Mail.Send", "Mail.ReadBasic"} {
		if s.UserConsent && slices.Contains(strings.Fields(asked), graphResource+"/"+name) && !slices.Contains(s.scopesLocked(app, graphResource, nil), name) {
			s.dir.consent(app, s.dir.graph, s.nowLocked(), name)
		}
	}
}

// delegatedScopeLocked checks the scope of a request on behalf of a person
// (nil: not known yet): names of one resource, all consented to.
func (s *Server) delegatedScopeLocked(app *application, asked string, p *person) (scope, *oauthError) {
	sc := scope{asked: asked}
	for one := range strings.FieldsSeq(asked) {
		switch one {
		case "openid":
			sc.openid = true
			continue
		case "email":
			sc.email = true
			continue
		case "profile":
			continue
		case "offline_access":
			sc.offline = true
			continue
		}
		resource, name, ok := splitScope(one)
		if !ok {
			return sc, badScope(one)
		}
		if refusal := s.resourceLocked(resource); refusal != nil {
			return sc, refusal
		}
		if sc.resource != "" && sc.resource != resource {
			return sc, &oauthError{code: "invalid_request", number: 28000,
				text: "Provided value for the input parameter scope is not valid because it contains more than one resource."}
		}
		sc.resource = resource
		consented := s.scopesLocked(app, resource, p)
		if name == ".default" {
			sc.names = append(sc.names, consented...)
			continue
		}
		if !slices.Contains(consented, name) {
			return sc, noConsent(app)
		}
		sc.names = append(sc.names, name)
	}
	switch {
	case sc.resource == "" && !sc.openid:
		return sc, badScope(asked)
	case sc.resource == "":
		sc.resource, sc.names = graphResource, []string{"User.Read"}
	case len(sc.names) == 0: // .default of a resource without consent
		return sc, noConsent(app)
	}
	return sc, nil
}
