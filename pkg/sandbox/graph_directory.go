package sandbox

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

func (c *call) me(string) (*answer, *graphError) {
	p := c.token.person
	if p == nil {
		return nil, &graphError{status: http.StatusBadRequest, code: "BadRequest",
			message: "/me request is only valid with delegated authentication flow."}
	}
	if !c.may([]string{"User.Read", "Directory.Read.All"}, nil) {
		return nil, denied
	}
	entity, refusal := c.query.project("user", map[string]any{
		"id": p.objectID, "displayName": p.name, "givenName": p.name, "surname": nil,
		"userPrincipalName": p.upn, "mail": p.address, "preferredLanguage": nil,
		"jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "businessPhones": []any{},
	})
	if refusal != nil {
		return nil, refusal
	}
	return &answer{c.query.context("users") + "/$entity", entity}, nil
}

func (c *call) organization(string) (*answer, *graphError) {
	if !c.may([]string{"User.Read", "Organization.Read.All", "Directory.Read.All"}, []string{"Organization.Read.All", "Directory.Read.All"}) {
		return nil, denied
	}
	var domains []any
	for i, name := range c.s.domains() {
		domains = append(domains, map[string]any{
			"name": name, "capabilities": "Email, OfficeCommunicationsOnline", "type": "Managed",
			"isDefault": i == 0, "isInitial": name == c.s.Domain,
		})
	}
	entity, refusal := c.query.project("organization", map[string]any{
		"id": c.s.Tenant, "displayName": c.s.dir.organizationName, "tenantType": "AAD", "verifiedDomains": domains,
	})
	if refusal != nil {
		return nil, refusal
	}
	return &answer{c.query.context("organization"), map[string]any{"value": []any{entity}}}, nil
}

// domains are the domains of the mailboxes, and the tenant's own.
func (s *Server) domains() []string {
	var list []string
	seen := map[string]bool{}
	add := func(name string) {
		if name = strings.ToLower(name); name != "" && !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	for _, p := range s.dir.people {
		_, domain, _ := strings.Cut(p.address, "@")
		add(domain)
	}
	add(s.Domain)
	return list
}

func (c *call) servicePrincipal(path string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	id := principalPath.FindStringSubmatch(path)[1]
	if !isGUID(id) {
		return nil, badRequest("Invalid object identifier '%s'.", printable(id))
	}
	f := c.s.CurrentFaults()
	principal := map[string]any{
		"accountEnabled": true, "servicePrincipalType": "Application", "appRoles": []any{}, "oauth2PermissionScopes": []any{},
	}
	switch a := c.s.dir.byClientID(strings.ToLower(id)); {
	case strings.EqualFold(id, exchangeAppID):
		principal["id"] = c.s.dir.exchangePrincipalID
		principal["appId"], principal["displayName"] = exchangeAppID, "Office 365 Exchange Online"
		principal["appRoles"] = permissions(exchangeRoles, "Application")
		principal["oauth2PermissionScopes"] = permissions(exchangeScopes, "")
	case a == nil, a == c.s.dir.mail && f.NoServicePrincipal:
		return nil, notFound(id)
	default:
		principal["id"], principal["appId"], principal["displayName"] = a.principalID, a.clientID, a.displayName
		principal["accountEnabled"] = !(a == c.s.dir.mail && f.AppDisabled)
	}
	entity, refusal := c.query.project("servicePrincipal", principal)
	if refusal != nil {
		return nil, refusal
	}
	return &answer{c.query.context("servicePrincipals") + "/$entity", entity}, nil
}

// The permissions of Exchange Online, which have the same ids in every tenant.
var (
	exchangeRoles = [][2]string{
		{"5e5addcd-3e8d-4e90-baf5-964efab2b20a", "IMAP.AccessAsApp"},
		{"cb842b43-da6e-4506-86fe-bb12199c656d", "POP.AccessAsApp"},
		{"7146a1f0-8703-45b3-9eae-527a64c00995", "SMTP.SendAsApp"},
	}
	exchangeScopes = [][2]string{
		{"195adc35-e27b-454b-a7ed-1ecdffa1c09f", "IMAP.AccessAsUser.All"},
		{"fb698133-92fa-453e-a9ed-688e10f2e5ac", "POP.AccessAsUser.All"},
		{"76faac2a-0f20-42f1-928a-50de5b9dbe52", "SMTP.Send"},
	}
)

func permissions(list [][2]string, member string) []any {
	var out []any
	for _, p := range list {
		entity := map[string]any{"id": p[0], "value": p[1], "isEnabled": true}
		if member != "" {
			entity["allowedMemberTypes"] = []any{member}
		} else {
			entity["type"] = "User"
		}
		out = append(out, entity)
	}
	return out
}

func (c *call) defaultPolicy(string) (*answer, *graphError) {
	f := c.s.CurrentFaults()
	all := []string{"Policy.Read.All", "Policy.Read.ApplicationConfiguration", "Policy.ReadWrite.ApplicationConfiguration"}
	if f.PolicyUnreadable || !c.may(all, all) {
		return nil, denied
	}
	restrictions := []any{}
	restrict := func(kind string, life any) {
		restrictions = append(restrictions, map[string]any{
			"restrictionType": kind, "state": "enabled", "maxLifetime": life,
			"restrictForAppsCreatedAfterDateTime": "2019-01-01T00:00:00Z",
		})
	}
	if f.PolicyForbidsSecrets {
		restrict("passwordAddition", nil)
	}
	if f.PolicyMaxLifetime > 0 {
		restrict("passwordLifetime", isoDuration(f.PolicyMaxLifetime))
	}
	return &answer{"policies/defaultAppManagementPolicy/$entity", map[string]any{
		"id": defaultPolicyID, "displayName": "Default app management tenant policy",
		"description": "Default tenant policy that enforces app management restrictions on applications and service principals.",
		"isEnabled":   len(restrictions) > 0,
		"applicationRestrictions": map[string]any{
			"passwordCredentials": restrictions, "keyCredentials": []any{},
		},
		"servicePrincipalRestrictions": map[string]any{
			"passwordCredentials": []any{}, "keyCredentials": []any{},
		},
	}}, nil
}

// isoDuration writes a duration as ISO 8601 does, in days and parts of one:
// P90D, P1DT12H, PT30M.
func isoDuration(d time.Duration) string {
	var b strings.Builder
	b.WriteByte('P')
	if days := d / (24 * time.Hour); days > 0 {
		fmt.Fprintf(&b, "%dD", days)
		d -= days * 24 * time.Hour
	}
	if d = d.Truncate(time.Second); d == 0 && b.Len() > 1 {
		return b.String()
	}
	b.WriteByte('T')
	hours, minutes, seconds := d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	if hours > 0 {
		fmt.Fprintf(&b, "%dH", hours)
	}
	if minutes > 0 {
		fmt.Fprintf(&b, "%dM", minutes)
	}
	if seconds > 0 || hours == 0 && minutes == 0 {
		fmt.Fprintf(&b, "%dS", seconds)
	}
	return b.String()
}
