package sandbox

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

func (c *call) createApplication([]string) (*answer, *graphError) {
	if !c.mayCreate() {
		return nil, denied
	}
	return c.register("")
}

// register creates an application. An application that does so owns what it
// has made, a person too.
func (c *call) register(uniqueName string) (*answer, *graphError) {
	a := newApplication(c.s.nowLocked())
	a.uniqueName = uniqueName
	a.owners = []string{c.token.principalID}
	if c.token.person != nil {
		a.owners = []string{c.token.person.objectID}
	}
	if refusal := c.change(a, true); refusal != nil {
		return nil, refusal
	}
	c.s.dir.apps = append(c.s.dir.apps, a)
	return created("applications/$entity", c.s.applicationEntityLocked(a, false)), nil
}

func (c *call) updateApplication(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := c.change(a, false); refusal != nil {
		return nil, refusal
	}
	return noContent(), nil
}

// upsertApplication updates the application with a unique name. With the
// header "Prefer: create-if-missing" it creates one where there is none.
func (c *call) upsertApplication(args []string) (*answer, *graphError) {
	name := strings.ReplaceAll(args[0], "''", "'")
	prefer := c.r.Header.Get("Prefer")
	a := c.s.dir.byUniqueName(name)
	switch {
	case prefer != "" && prefer != "create-if-missing":
		return nil, badRequest("The header Prefer has an unsupported value '%s'.", printable(prefer))
	case name == "" || utf8.RuneCountInString(name) > 128:
		return nil, badRequest("Invalid value specified for 'uniqueName': empty or longer than 128 characters.")
	case a == nil && prefer == "":
		return nil, notFound(name)
	case a == nil && !c.mayCreate(), a != nil && !c.mayWrite(a):
		return nil, denied
	case a == nil:
		return c.register(name)
	}
	if refusal := c.change(a, false); refusal != nil {
		return nil, refusal
	}
	return noContent(), nil
}

// maxAppName is the limit of an application's name, personalAppName that of
// one for personal accounts.
const (
	maxAppName      = 120
	personalAppName = 90
)

// change applies the body of a request to an application, whole or not at all.
func (c *call) change(a *application, create bool) *graphError {
	next := *a
	p := readProperties("application", c.body, "displayName", "description", "notes", "signInAudience", "tags",
		"isFallbackPublicClient", "publicClient", "requiredResourceAccess", "keyCredentials")
	if create {
		p.require("displayName")
	}
	p.text("displayName", &next.displayName)
	p.text("description", &next.description)
	p.text("notes", &next.notes)
	p.text("signInAudience", &next.audience)
	p.texts("tags", &next.tags)
	p.flag("isFallbackPublicClient", &next.fallbackPublic)
	switch limit := maxAppName; {
	case !slices.Contains([]string{singleTenant, multiTenant, everybody, personalOnly}, next.audience):
		p.refuse("signInAudience", "it is not one of its values")
	case !create && next.audience != a.audience:
		p.refuse("signInAudience", "the sandbox does not change it")
	default:
		if next.audience == everybody || next.audience == personalOnly {
			limit = personalAppName
		}
		if n := utf8.RuneCountInString(next.displayName); n == 0 || n > limit {
			p.refuse("displayName", fmt.Sprintf("it is empty or longer than %d characters", limit))
		}
	}
	if utf8.RuneCountInString(next.description) > 1024 {
		p.refuse("description", "it is longer than 1024 characters")
	}
	if utf8.RuneCountInString(next.notes) > 1024 {
		p.refuse("notes", "it is longer than 1024 characters")
	}
	for i, tag := range next.tags {
		n := utf8.RuneCountInString(tag)
		if n < 1 || n > 256 || strings.ContainsFunc(tag, unicode.IsSpace) || slices.Contains(next.tags[:i], tag) {
			p.refuse("tags", "a tag has 1 to 256 characters without white space, and occurs once")
		}
	}
	if p.given("publicClient") && p.refusal == nil {
		p.refusal = parsePublicClient(p.raw["publicClient"], &next)
	}
	if p.given("requiredResourceAccess") {
		next.resourceAccess = nil
		for _, raw := range p.list("requiredResourceAccess") {
			access, refusal := c.parseResourceAccess(raw)
			if refusal != nil {
				return refusal
			}
			next.resourceAccess = append(next.resourceAccess, access)
		}
	}
	if p.given("keyCredentials") && p.refusal == nil {
		next.keys, p.refusal = c.replaceKeys(a, p.list("keyCredentials"))
	}
	if p.refusal == nil {
		*a = next
	}
	return p.refusal
}

// parsePublicClient reads the redirect URIs of the public client platform:
// https anywhere, http on this machine alone, which [::1] is not.
func parsePublicClient(raw []byte, into *application) *graphError {
	p := readProperties("publicClientApplication", raw, "redirectUris")
	p.texts("redirectUris", &into.redirectURIs)
	for i, uri := range into.redirectURIs {
		u, err := url.Parse(uri)
		switch {
		case err != nil, u.Scheme == "", u.Fragment != "", u.User != nil, u.Opaque != "", len(uri) > 256,
			slices.Contains(into.redirectURIs[:i], uri),
			u.Scheme == "http" && u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1",
			u.Scheme == "https" && u.Host == "":
			p.refuse("redirectUris", "a URI is not allowed here, or occurs twice")
		}
	}
	return p.refusal
}

// parseResourceAccess reads a requiredResourceAccess. It grants nothing, but
// what it asks for must exist where the sandbox knows the resource.
func (c *call) parseResourceAccess(raw []byte) (any, *graphError) {
	p := readProperties("requiredResourceAccess", raw, "resourceAppId", "resourceAccess")
	p.require("resourceAppId", "resourceAccess")
	var appID string
	p.guid("resourceAppId", &appID)
	i := slices.IndexFunc(c.s.dir.services, func(v *service) bool { return v.appID == appID })
	access := []any{}
	for _, raw := range p.list("resourceAccess") {
		one := readProperties("resourceAccess", raw, "id", "type")
		one.require("id", "type")
		var id, kind string
		one.guid("id", &id)
		one.text("type", &kind)
		if kind != "Role" && kind != "Scope" {
			one.refuse("type", "it is neither Role nor Scope")
		}
		if i >= 0 && one.refusal == nil {
			known := c.s.dir.services[i].scopes
			if kind == "Role" {
				known = c.s.dir.services[i].roles
			}
			if _, ok := byID(known, id); !ok {
				one.refuse("id", "the resource has no such permission")
			}
		}
		if one.refusal != nil {
			return nil, one.refusal
		}
		access = append(access, map[string]any{"id": id, "type": kind})
	}
	if len(access) == 0 {
		p.refuse("resourceAccess", "it is empty")
	}
	return map[string]any{"resourceAppId": appID, "resourceAccess": access}, p.refusal
}

// newPrincipal gives an application a service principal.
func (s *Server) newPrincipalLocked(a *application) {
	a.principalID, a.principalCreated = uuid.NewString(), s.nowLocked()
	a.disabled, a.assignments = false, nil
	s.dir.grants = slices.DeleteFunc(s.dir.grants, func(g *permissionGrant) bool { return g.app == a })
}
