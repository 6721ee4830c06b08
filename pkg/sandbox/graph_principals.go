package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// principal finds the service principal that args name, by object id or by
// client id: of an application here, or of a service. One of both is nil.
func (c *call) principal(args []string) (*application, *service, *graphError) {
	id := args[0]
	if id == "" && len(args) > 1 {
		id = args[1]
	}
	if !isGUID(id) {
		return nil, nil, badRequest("Invalid object identifier '%s'.", printable(id))
	}
	d, key := &c.s.dir, strings.ToLower(id)
	a, of := d.byPrincipalID(key), func(v *service) string { return v.principalID }
	if args[0] == "" {
		a, of = d.byClientID(key), func(v *service) string { return v.appID }
	}
	if i := slices.IndexFunc(d.services, func(v *service) bool { return of(v) == key }); i >= 0 {
		if v := d.services[i]; v != d.exchange || !c.s.Faults.NoExchange {
			return nil, v, nil
		}
	}
	if a == nil || !c.s.principalLocked(a) {
		return nil, nil, notFound(id)
	}
	return a, nil, nil
}

// principalLocked says whether an application has a service principal that is
// known everywhere.
func (s *Server) principalLocked(a *application) bool {
	return a.principalID != "" && s.replicatedLocked(a.principalCreated) && !(a == s.dir.mail && s.Faults.NoServicePrincipal)
}

// disabledLocked says whether nobody gets tokens for an application.
func (s *Server) disabledLocked(a *application) bool {
	return a.disabled || a == s.dir.mail && s.Faults.AppDisabled
}

func (s *Server) principalEntityLocked(a *application, v *service) map[string]any {
	if v != nil {
		return map[string]any{
			"id": v.principalID, "appId": v.appID, "displayName": v.displayName, "appDisplayName": v.displayName,
			"accountEnabled": true, "servicePrincipalType": "Application", "signInAudience": multiTenant,
			"deletedDateTime": nil, "tags": []string{},
			// Microsoft's own tenant.
			"appOwnerOrganizationId": "f8cdef31-a31e-4b4a-93e4-5f571e91255a",
			"appRoles":               permissions(v.roles, "Application"), "oauth2PermissionScopes": permissions(v.scopes, ""),
		}
	}
	return map[string]any{
		"id": a.principalID, "appId": a.clientID, "displayName": a.displayName, "appDisplayName": a.displayName,
		"accountEnabled": !s.disabledLocked(a), "servicePrincipalType": "Application", "signInAudience": a.audience,
		"deletedDateTime": nil, "tags": texts(a.tags), "appOwnerOrganizationId": s.Tenant,
		"appRoles": []any{}, "oauth2PermissionScopes": []any{},
	}
}

func permissions(list []permission, member string) []any {
	out := []any{}
	for _, p := range list {
		entity := map[string]any{"id": p.id, "value": p.value, "isEnabled": true}
		if member != "" {
			entity["allowedMemberTypes"] = []any{member}
			entity["displayName"], entity["description"], entity["origin"] = p.value, nil, "Application"
		} else {
			entity["type"] = "User"
		}
		out = append(out, entity)
	}
	return out
}

func (c *call) getPrincipal(args []string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	a, v, refusal := c.principal(args)
	if refusal != nil {
		return nil, refusal
	}
	return c.entity("servicePrincipals", "servicePrincipal", c.s.principalEntityLocked(a, v))
}

// createPrincipal makes the service principal of an application of this
// tenant.
func (c *call) createPrincipal([]string) (*answer, *graphError) {
	if !c.may(writeScopes, writeRoles) {
		return nil, denied
	}
	p := readProperties("servicePrincipal", c.body, "appId", "accountEnabled")
	p.require("appId")
	var appID string
	enabled := true
	p.guid("appId", &appID)
	p.flag("accountEnabled", &enabled)
	if p.refusal != nil {
		return nil, p.refusal
	}
	a := c.s.dir.byClientID(appID)
	switch {
	case a == nil:
		return nil, &graphError{status: http.StatusBadRequest, code: "Request_BadRequest", message: fmt.Sprintf(
			"The appId '%s' of the service principal does not reference a valid application object.", appID)}
	case !c.s.replicatedLocked(a.created), !c.mayWrite(a):
		return nil, denied
	case a == c.s.dir.mail && c.s.Faults.NoServicePrincipal:
		c.s.Faults.NoServicePrincipal = false
	case a.principalID != "":
		return nil, conflict(fmt.Sprintf(
			"The service principal cannot be created, updated, or restored because the service principal name %s is already in use.", appID))
	}
	c.s.newPrincipalLocked(a)
	a.disabled = !enabled
	return created("servicePrincipals/$entity", c.s.principalEntityLocked(a, nil)), nil
}

// updatePrincipal enables or disables sign-in.
func (c *call) updatePrincipal(args []string) (*answer, *graphError) {
	if !c.may(writeScopes, writeRoles) {
		return nil, denied
	}
	a, _, refusal := c.principal(args)
	switch {
	case refusal != nil:
		return nil, refusal
	case a == nil || !c.mayWrite(a):
		return nil, denied
	}
	p := readProperties("servicePrincipal", c.body, "accountEnabled")
	p.require("accountEnabled")
	enabled := true
	p.flag("accountEnabled", &enabled)
	if p.refusal != nil {
		return nil, p.refusal
	}
	a.disabled = !enabled
	return noContent(), nil
}

// mayAssign says whether the caller may grant app roles, which needs two
// permissions (the page "Grant an appRoleAssignment for a service principal").
func (c *call) mayAssign() bool {
	grant := []string{"AppRoleAssignment.ReadWrite.All"}
	return c.may(grant, grant) && c.may(readScopes, readScopes) && (c.token.person == nil || c.token.person.admin)
}

func assignmentEntity(a *application, g *roleAssignment) map[string]any {
	return map[string]any{
		"id": g.id, "createdDateTime": graphTime(g.created), "deletedDateTime": nil, "appRoleId": g.role.id,
		"principalDisplayName": a.displayName, "principalId": a.principalID, "principalType": "ServicePrincipal",
		"resourceDisplayName": g.service.displayName, "resourceId": g.service.principalID,
	}
}

func (c *call) listAssignments(args []string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	a, _, refusal := c.principal(args)
	if refusal != nil {
		return nil, refusal
	}
	var list []entry
	if a != nil {
		for _, g := range a.assignments {
			list = append(list, func() map[string]any { return assignmentEntity(a, g) })
		}
	}
	sample := assignmentEntity(c.s.dir.mail, &roleAssignment{service: c.s.dir.exchange})
	return c.collection(fmt.Sprintf("servicePrincipals('%s')/appRoleAssignments", args[0]), "appRoleAssignment", list, sample)
}

func (c *call) createAssignment(args []string) (*answer, *graphError) {
	if !c.mayAssign() {
		return nil, denied
	}
	a, _, refusal := c.principal(args)
	if refusal != nil {
		return nil, refusal
	}
	p := readProperties("appRoleAssignment", c.body, "principalId", "resourceId", "appRoleId")
	p.require("principalId", "resourceId", "appRoleId")
	var principalID, resourceID, roleID string
	p.guid("principalId", &principalID)
	p.guid("resourceId", &resourceID)
	p.guid("appRoleId", &roleID)
	switch {
	case p.refusal != nil:
		return nil, p.refusal
	case a == nil, a.principalID != principalID:
		return nil, badRequest("The principalId '%s' is not the service principal of the request.", principalID)
	}
	_, v, refusal := c.principal([]string{resourceID})
	if refusal != nil {
		return nil, refusal
	}
	var role permission
	ok := false
	if v != nil {
		role, ok = byID(v.roles, roleID)
	}
	if !ok {
		return nil, badRequest("Permission being assigned was not found on application '%s'.", resourceID)
	}
	if slices.ContainsFunc(a.assignments, func(g *roleAssignment) bool { return g.service == v && g.role.id == roleID }) {
		return nil, badRequest("Permission being assigned already exists on the object")
	}
	g := &roleAssignment{randomText(43, tokenAlphabet), v, role, c.s.nowLocked()}
	a.assignments = append(a.assignments, g)
	return created(fmt.Sprintf("servicePrincipals('%s')/appRoleAssignments/$entity", args[0]), assignmentEntity(a, g)), nil
}

func (c *call) deleteAssignment(args []string) (*answer, *graphError) {
	if !c.mayAssign() {
		return nil, denied
	}
	a, _, refusal := c.principal(args[:1])
	if refusal != nil {
		return nil, refusal
	}
	if a == nil || !slices.ContainsFunc(a.assignments, func(g *roleAssignment) bool { return g.id == args[1] }) {
		return nil, notFound(args[1])
	}
	a.assignments = slices.DeleteFunc(a.assignments, func(g *roleAssignment) bool { return g.id == args[1] })
	return noContent(), nil
}
