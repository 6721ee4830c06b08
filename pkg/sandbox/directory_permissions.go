package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The audiences that tokens are issued for.
const (
	exchangeResource  = "https://outlook.office365.com" // app-only
	exchangeDelegated = "https://outlook.office.com"    // for people
	graphResource     = "https://graph.microsoft.com"
)

// The client ids of Office 365 Exchange Online and Microsoft Graph, which are
// the same in every tenant.
const (
	exchangeAppID = "00000002-0000-0ff1-ce00-000000000000"
	graphAppID    = "00000003-0000-0000-c000-000000000000"
)

// service is an application of Microsoft's that others get permissions on, and
// its service principal in this tenant.
type service struct {
	appID, principalID, displayName string
	appOnly, delegated              string // the audiences of its tokens
	roles, scopes                   []permission
}

// permission is an app role or a delegated scope.
type permission struct{ id, value string }

func (v *service) has(audience string) bool { return audience == v.appOnly || audience == v.delegated }

// named finds a permission by its value.
func named(list []permission, value string) (permission, bool) {
	i := slices.IndexFunc(list, func(p permission) bool { return p.value == value })
	if i < 0 {
		return permission{}, false
	}
	return list[i], true
}

// byID finds a permission by its id.
func byID(list []permission, id string) (permission, bool) {
	i := slices.IndexFunc(list, func(p permission) bool { return p.id == id })
	if i < 0 {
		return permission{}, false
	}
	return list[i], true
}

// roleAssignment is an app role that was granted to an application's service
// principal.
type roleAssignment struct {
	id      string
	service *service
	role    permission
	created time.Time
}

// permissionGrant is an oauth2PermissionGrant: delegated scopes that are
// consented to, for everybody or for one person.
type permissionGrant struct {
	id      string
	app     *application
	service *service
	person  *person // nil: AllPrincipals
	scopes  []string
	created time.Time
}

// assign grants app roles by name, as they were granted long ago.
func (d *directory) assign(a *application, v *service, created time.Time, roles ...string) error {
	for _, name := range roles {
		role, ok := named(v.roles, name)
		if !ok {
			return fmt.Errorf("%s has no application permission %s", v.displayName, name)
		}
		a.assignments = append(a.assignments, &roleAssignment{randomText(43, tokenAlphabet), v, role, created})
	}
	return nil
}

// consent grants delegated scopes by name to everybody.
func (d *directory) consent(a *application, v *service, created time.Time, scopes ...string) {
	d.grants = append(d.grants, &permissionGrant{
		id: randomText(43, tokenAlphabet), app: a, service: v, scopes: scopes, created: created,
	})
}

// serviceOf finds the service that tokens with the audience are for.
func (d *directory) serviceOf(audience string) *service {
	i := slices.IndexFunc(d.services, func(v *service) bool { return v.has(audience) })
	if i < 0 {
		return nil
	}
	return d.services[i]
}

// rolesLocked are the app roles of an application in a token for audience.
func (s *Server) rolesLocked(a *application, audience string) []string {
	var roles []string
	for _, g := range a.assignments {
		if g.service.has(audience) && s.grantedLocked(g.created) {
			roles = append(roles, g.role.value)
		}
	}
	return roles
}

// scopesLocked are the scopes of audience that are consented to for a person;
// for whoever it may be, where p is nil.
func (s *Server) scopesLocked(a *application, audience string, p *person) []string {
	var scopes []string
	if a == s.dir.mail && s.Faults.NoConsent {
		return nil
	}
	for _, g := range s.dir.grants {
		if g.app == a && g.service.delegated == audience && s.grantedLocked(g.created) &&
			(g.person == nil || p == nil || g.person == p) {
			scopes = append(scopes, g.scopes...)
		}
	}
	return scopes
}

func (s *Server) grantedLocked(created time.Time) bool {
	return !s.nowLocked().Before(created.Add(s.Faults.GrantDelay))
}

// newServices are the services of a tenant.
func newServices() (exchange, graph *service) {
	return &service{
			appID: exchangeAppID, principalID: uuid.NewString(), displayName: "Office 365 Exchange Online",
			appOnly: exchangeResource, delegated: exchangeDelegated,
			roles: permissionTable(exchangeRoles), scopes: permissionTable(exchangeScopes),
		}, &service{
			appID: graphAppID, principalID: uuid.NewString(), displayName: "Microsoft Graph",
			appOnly: graphResource, delegated: graphResource,
			roles: permissionTable(graphRoles), scopes: permissionTable(graphScopes),
		}
}

// permissionTable reads lines of an id and a value.
func permissionTable(lines string) []permission {
	var list []permission
	fields := strings.Fields(lines)
	for pair := range slices.Chunk(fields, 2) {
		list = append(list, permission{pair[0], pair[1]})
	}
	return list
}

// The permissions of the services, which have the same ids in every tenant.
const (
	exchangeRoles = `
5e5addcd-3e8d-4e90-baf5-964efab2b20a IMAP.AccessAsApp
cb842b43-da6e-4506-86fe-bb12199c656d POP.AccessAsApp
7146a1f0-8703-45b3-9eae-527a64c00995 SMTP.SendAsApp
b633e1c5-b582-4048-a93e-9f11b44c7e96 Mail.Send
dc50a0fb-09a3-484d-be87-e023b12c6440 Exchange.ManageAsApp
dc890d15-9560-4a4c-9b7f-a736ec74ec40 full_access_as_app`

	exchangeScopes = `
195adc35-e27b-454b-a7ed-1ecdffa1c09f IMAP.AccessAsUser.All
fb698133-92fa-453e-a9ed-688e10f2e5ac POP.AccessAsUser.All
76faac2a-0f20-42f1-928a-50de5b9dbe52 SMTP.Send`

	graphRoles = `
9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30 Application.Read.All
1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9 Application.ReadWrite.All
18a4783c-866b-4cc7-a460-3d5e5662c884 Application.ReadWrite.OwnedBy
06b708a9-e830-4db3-a914-8e69da51d44f AppRoleAssignment.ReadWrite.All
b0afded3-3588-46d8-8b3d-9842eff778da AuditLog.Read.All
8e8e4742-1d95-4f68-9d56-6ee75648c72a DelegatedPermissionGrant.ReadWrite.All
7ab1d382-f21e-4acd-a863-ba3e13f7da61 Directory.Read.All
19dbc75e-c2e2-444c-a770-ec69d8559fc7 Directory.ReadWrite.All
810c84a8-4a9e-49e6-bf7d-12d183f40d01 Mail.Read
6be147d2-ea4f-4b5a-a3fa-3eab6f3c140a Mail.ReadBasic
693c5e45-0940-467d-9b8a-1022fb9d42ef Mail.ReadBasic.All
b633e1c5-b582-4048-a93e-9f11b44c7e96 Mail.Send
498476ce-e0fe-48b0-b801-37ba7e2685c6 Organization.Read.All
246dd0d5-5bd0-4def-940b-0421030a5b68 Policy.Read.All
be74164b-cff1-491c-8741-e671cb536e13 Policy.ReadWrite.ApplicationConfiguration
df021288-bdef-4463-88db-98f22de89214 User.Read.All`

	graphScopes = `
652390e4-393a-48de-9484-05f9b1212954 IMAP.AccessAsUser.All
d7b7f2d9-0f45-4ea1-9d42-e50810c06991 POP.AccessAsUser.All
258f6531-6087-4cc4-bb90-092c5fb3ed3f SMTP.Send
570282fd-fa5c-430d-a7fd-fc8dc98a9dca Mail.Read
7b9103a5-4610-446b-9670-80643382c1fa Mail.Read.Shared
a4b8392a-d8d1-4954-a029-8e668a39a170 Mail.ReadBasic
e383f46e-2787-4529-855e-0e479a3ffac0 Mail.Send
a367ab51-6b49-43bf-a716-a1fb06d2a174 Mail.Send.Shared
7427e0e9-2fba-42fe-b0c0-848c9e6a8182 offline_access
37f7f235-527c-4136-accd-4a02d197296e openid
14dad69e-099b-42c9-810b-d002981feec1 profile
64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0 email
e1fe6dd8-ba31-4d61-89e7-88639da4683d User.Read
a154be20-db9c-4678-8ab7-66f6cc099a59 User.Read.All
c79f8feb-a9db-4090-85f9-90d820caa0eb Application.Read.All
bdfbf15f-ee85-4955-8675-146e8e5296b5 Application.ReadWrite.All
84bccea3-f856-4a8a-967b-dbe0a3d53a64 AppRoleAssignment.ReadWrite.All
e4c9e354-4dc5-45b8-9e7c-e1393b0b1a20 AuditLog.Read.All
41ce6ca6-6826-4807-84f1-1c82854f7ee5 DelegatedPermissionGrant.ReadWrite.All
06da0dbc-49e2-44d2-8312-53f166ab848a Directory.Read.All
c5366453-9fb0-48a5-a156-24f0c49a4b84 Directory.ReadWrite.All
4908d5b9-3fb2-4b1e-9336-1888b7937185 Organization.Read.All
572fea84-0151-49b2-9301-11cb16974376 Policy.Read.All
b27add92-efb2-4f16-84f5-8108ba77985c Policy.ReadWrite.ApplicationConfiguration`
)
