package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// scope is the permissions that a request asks for, of one resource.
type scope struct {
	asked           string
	resource        string
	names           []string // without the resource
	openid, offline bool
}

// String is the scope as the token answer says it: what was granted, in full.
func (sc scope) String() string {
	var full []string
	for _, n := range sc.names {
		full = append(full, sc.resource+"/"+n)
	}
	if sc.openid {
		full = append(full, "openid", "profile")
	}
	return strings.Join(full, " ")
}

func badScope(asked string) *oauthError {
	return &oauthError{code: "invalid_scope", number: 70011,
		text: fmt.Sprintf("The provided value for the input parameter 'scope' is not valid. The scope %s is not valid.", printable(asked))}
}

var resources = []string{exchangeResource, exchangeDelegated, graphResource}

// splitScope takes a scope such as https://graph.microsoft.com/User.Read
// apart. Without a resource it is Graph's.
func splitScope(s string) (resource, name string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return graphResource, s, s != ""
	}
	return s[:i], s[i+1:], s[i+1:] != ""
}

// appScope checks the scope of a client credentials request: the .default of
// one resource.
func appScope(_ *application, asked string) (scope, *oauthError) {
	resource, ok := strings.CutSuffix(asked, "/.default")
	if !ok || strings.ContainsAny(asked, " \t\r\n") {
		return scope{}, badScope(asked)
	}
	if !slices.Contains(resources, resource) {
		return scope{}, unknownResource(resource)
	}
	return scope{asked: asked, resource: resource}, nil
}

func unknownResource(resource string) *oauthError {
	return &oauthError{code: "invalid_resource", number: 500011,
		text: fmt.Sprintf("The resource principal named %s was not found in the tenant named Contoso. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", printable(resource))}
}

// delegatedScope checks the scope of a request on behalf of a person: names of
// one resource, all consented to.
func delegatedScope(app *application, asked string) (scope, *oauthError) {
	sc := scope{asked: asked}
	for one := range strings.FieldsSeq(asked) {
		switch one {
		case "openid":
			sc.openid = true
			continue
		case "profile", "email":
			continue
		case "offline_access":
			sc.offline = true
			continue
		}
		resource, name, ok := splitScope(one)
		switch {
		case !ok:
			return sc, badScope(one)
		case !slices.Contains(resources, resource):
			return sc, unknownResource(resource)
		case sc.resource != "" && sc.resource != resource:
			return sc, &oauthError{code: "invalid_request", number: 28000,
				text: "Provided value for the input parameter scope is not valid because it contains more than one resource."}
		}
		sc.resource = resource
		if name == ".default" {
			sc.names = append(sc.names, app.scopes[resource]...)
			continue
		}
		if !slices.Contains(app.scopes[resource], name) {
			return sc, &oauthError{code: "invalid_grant", suberror: "consent_required", number: 65001,
				text: fmt.Sprintf("The user or administrator has not consented to use the application with ID '%s' named '%s'. Send an interactive authorization request for this user and resource.", app.clientID, app.displayName)}
		}
		sc.names = append(sc.names, name)
	}
	switch {
	case sc.resource == "" && !sc.openid:
		return sc, badScope(asked)
	case sc.resource == "":
		sc.resource, sc.names = graphResource, []string{"User.Read"}
	case len(sc.names) == 0: // .default of a resource without consent
		return sc, &oauthError{code: "invalid_grant", suberror: "consent_required", number: 65001,
			text: fmt.Sprintf("The user or administrator has not consented to use the application with ID '%s' named '%s'.", app.clientID, app.displayName)}
	}
	return sc, nil
}
