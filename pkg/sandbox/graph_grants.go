package sandbox

import (
	"regexp"
	"slices"
	"strings"
)

// The permissions for delegated grants.
var (
	readGrants  = []string{"DelegatedPermissionGrant.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	writeGrants = []string{"DelegatedPermissionGrant.ReadWrite.All", "Directory.ReadWrite.All"}
)

func (c *call) mayGrant() bool {
	return c.may(writeGrants, writeGrants) && (c.token.person == nil || c.token.person.admin)
}

func grantEntity(g *permissionGrant) map[string]any {
	e := map[string]any{
		"id": g.id, "clientId": g.app.principalID, "consentType": "AllPrincipals", "principalId": nil,
		"resourceId": g.service.principalID, "scope": strings.Join(g.scopes, " "),
	}
	if g.person != nil {
		e["consentType"], e["principalId"] = "Principal", g.person.objectID
	}
	return e
}

var clientFilter = regexp.MustCompile(`^clientId eq '([^']*)'$`)

func (c *call) listGrants([]string) (*answer, *graphError) {
	if !c.may(readGrants, readGrants) {
		return nil, denied
	}
	match := func(*permissionGrant) bool { return true }
	if filter, ok := c.query.filter(); ok {
		m := clientFilter.FindStringSubmatch(filter)
		if m == nil || !isGUID(m[1]) {
			return nil, invalidFilter(filter)
		}
		match = func(g *permissionGrant) bool { return strings.EqualFold(g.app.principalID, m[1]) }
	}
	var list []entry
	for _, g := range c.s.dir.grants {
		if c.s.principalLocked(g.app) && match(g) {
			list = append(list, func() map[string]any { return grantEntity(g) })
		}
	}
	sample := grantEntity(&permissionGrant{app: c.s.dir.mail, service: c.s.dir.exchange})
	return c.collection("oauth2PermissionGrants", "oAuth2PermissionGrant", list, sample)
}

// createGrant consents to scopes. There is one grant for each client, resource
// and person; more scopes are added to it by PATCH.
func (c *call) createGrant([]string) (*answer, *graphError) {
	if !c.mayGrant() {
		return nil, denied
	}
	p := readProperties("oAuth2PermissionGrant", c.body, "clientId", "consentType", "principalId", "resourceId", "scope")
	p.require("clientId", "consentType", "resourceId", "scope")
	var clientID, kind, principalID, resourceID, scope string
	p.guid("clientId", &clientID)
	p.guid("resourceId", &resourceID)
	p.guid("principalId", &principalID)
	p.text("consentType", &kind)
	p.text("scope", &scope)
	switch {
	case kind != "AllPrincipals" && kind != "Principal":
		p.refuse("consentType", "it is neither AllPrincipals nor Principal")
	case (kind == "Principal") != (principalID != ""):
		p.refuse("principalId", "it belongs to the consentType Principal alone")
	}
	if p.refusal != nil {
		return nil, p.refusal
	}
	a, _, refusal := c.principal([]string{clientID})
	if refusal != nil {
		return nil, refusal
	}
	_, v, refusal := c.principal([]string{resourceID})
	switch {
	case refusal != nil:
		return nil, refusal
	case a == nil || v == nil:
		return nil, badRequest("clientId is not an application of this tenant, or resourceId has no permissions.")
	}
	g := &permissionGrant{id: randomText(43, tokenAlphabet), app: a, service: v, created: c.s.nowLocked()}
	if principalID != "" {
		if g.person = c.s.dir.member(principalID); g.person == nil {
			return nil, notFound(principalID)
		}
	}
	if g.scopes = p.scopes(v, scope); p.refusal != nil {
		return nil, p.refusal
	}
	if slices.ContainsFunc(c.s.dir.grants, func(o *permissionGrant) bool {
		return o.app == a && o.service == v && o.person == g.person
	}) {
		return nil, conflict("Permission entry already exists.")
	}
	c.s.dir.grants = append(c.s.dir.grants, g)
	return created("oauth2PermissionGrants/$entity", grantEntity(g)), nil
}

// scopes reads the scopes of a grant, of which each must exist.
func (p *properties) scopes(v *service, text string) []string {
	names := strings.Fields(text)
	for _, name := range names {
		if _, ok := named(v.scopes, name); !ok && !slices.Contains(openIDScopes, name) {
			p.refuse("scope", "the resource has no such permission")
		}
	}
	if len(names) == 0 {
		p.refuse("scope", "it is empty")
	}
	return names
}

func (c *call) grant(id string) (*permissionGrant, *graphError) {
	i := slices.IndexFunc(c.s.dir.grants, func(g *permissionGrant) bool { return g.id == id && c.s.principalLocked(g.app) })
	if i < 0 {
		return nil, notFound(id)
	}
	return c.s.dir.grants[i], nil
}

// updateGrant replaces the scopes of a grant.
func (c *call) updateGrant(args []string) (*answer, *graphError) {
	if !c.mayGrant() {
		return nil, denied
	}
	g, refusal := c.grant(args[0])
	if refusal != nil {
		return nil, refusal
	}
	p := readProperties("oAuth2PermissionGrant", c.body, "scope")
	p.require("scope")
	var scope string
	p.text("scope", &scope)
	scopes := p.scopes(g.service, scope)
	if p.refusal != nil {
		return nil, p.refusal
	}
	g.scopes = scopes
	return noContent(), nil
}

func (c *call) deleteGrant(args []string) (*answer, *graphError) {
	if !c.mayGrant() {
		return nil, denied
	}
	g, refusal := c.grant(args[0])
	if refusal != nil {
		return nil, refusal
	}
	c.s.dir.grants = slices.DeleteFunc(c.s.dir.grants, func(o *permissionGrant) bool { return o == g })
	return noContent(), nil
}
