package sandbox

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (c *call) me([]string) (*answer, *graphError) {
	p := c.token.person
	if p == nil {
		return nil, &graphError{status: http.StatusBadRequest, code: "BadRequest",
			message: "/me request is only valid with delegated authentication flow."}
	}
	if !c.may([]string{"User.Read", "User.Read.All", "Directory.Read.All"}, nil) {
		return nil, denied
	}
	return c.user(p)
}

// readUsers are the permissions to read other people.
var readUsers = []string{"User.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"}

// getUser finds people as Graph does: by object id or user principal name, and
// not by another address.
func (c *call) getUser(args []string) (*answer, *graphError) {
	if !c.may(readUsers, readUsers) || c.token.person != nil && c.token.person.personal {
		return nil, denied
	}
	p := c.s.dir.member(args[0])
	if p == nil {
		return nil, notFound(args[0])
	}
	return c.user(p)
}

// userTerm is one comparison of a filter on people: by an address or the
// principal name, or by any of the addresses.
var userTerm = regexp.MustCompile(
	`^(?:(mail|userPrincipalName) eq '((?:[^']|'')*)'|proxyAddresses/any\(([a-z]+): ?([a-z]+) eq '(?i:smtp):((?:[^']|'')*)'\))(?: or |$)`)

// parseUserFilter understands such comparisons with "or" between them; nil for
// any other filter.
func parseUserFilter(filter string) func(*person) bool {
	var terms []func(*person) bool
	text := func(s string) string { return strings.ReplaceAll(s, "''", "'") }
	for rest := filter; ; {
		m := userTerm.FindStringSubmatch(rest)
		if m == nil || m[3] != m[4] {
			return nil
		}
		switch m[1] {
		case "mail":
			terms = append(terms, func(p *person) bool { return sameFold(p.address, text(m[2])) })
		case "userPrincipalName":
			terms = append(terms, func(p *person) bool { return sameFold(p.upn, text(m[2])) })
		default:
			terms = append(terms, func(p *person) bool {
				return sameFold(p.address, text(m[5])) ||
					slices.ContainsFunc(p.sendAs, func(a string) bool { return sameFold(a, text(m[5])) })
			})
		}
		if !strings.HasSuffix(m[0], " or ") { // a quoted string ends in a quotation mark
			return func(p *person) bool {
				return slices.ContainsFunc(terms, func(term func(*person) bool) bool { return term(p) })
			}
		}
		rest = rest[len(m[0]):]
	}
}

// listUsers finds people by an address that is not their principal name, too.
func (c *call) listUsers([]string) (*answer, *graphError) {
	if !c.may(readUsers, readUsers) || c.token.person != nil && c.token.person.personal {
		return nil, denied
	}
	match := func(*person) bool { return true }
	if filter, ok := c.query.filter(); ok {
		if match = parseUserFilter(filter); match == nil {
			return nil, invalidFilter(filter)
		}
	}
	var list []entry
	for _, p := range c.s.dir.people {
		if !p.personal && match(p) {
			list = append(list, func() map[string]any { return c.userEntity(p) })
		}
	}
	return c.collection("users", "user", list, c.userEntity(&person{}))
}

// userDefaults are the properties of a person that come without $select.
var userDefaults = []string{
	"businessPhones", "displayName", "givenName", "id", "jobTitle", "mail", "mobilePhone", "officeLocation",
	"preferredLanguage", "surname", "userPrincipalName",
}

func (c *call) user(p *person) (*answer, *graphError) {
	return c.entity("users", "user", c.userEntity(p))
}

// userEntity is a person in JSON.
func (c *call) userEntity(p *person) map[string]any {
	addresses, plans := []any{"SMTP:" + p.address}, []any{}
	for _, a := range p.sendAs {
		addresses = append(addresses, "smtp:"+a)
	}
	if !c.s.Faults.NoLicence && !p.personal && !p.unlicensed {
		plans = append(plans, map[string]any{
			"assignedDateTime": graphTime(c.s.dir.mail.created), "capabilityStatus": "Enabled", "service": "exchange",
			"servicePlanId": "efb87545-963c-4e0d-99df-69c6916d9eb0", // Exchange Online (Plan 2)
		})
	}
	entity := map[string]any{
		"id": p.objectID, "displayName": p.name, "givenName": p.name, "surname": nil,
		"userPrincipalName": p.upn, "mail": p.address, "preferredLanguage": nil,
		"jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "businessPhones": []any{},
		"proxyAddresses": addresses, "accountEnabled": true, "assignedPlans": plans,
	}
	if c.query.selected == nil {
		maps.DeleteFunc(entity, func(name string, _ any) bool { return !slices.Contains(userDefaults, name) })
	}
	return entity
}

func (c *call) organization([]string) (*answer, *graphError) {
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
	value := []any{entity}
	if p := c.token.person; p != nil && p.personal {
		value = []any{} // who belongs to no organisation
	}
	return found(c.query.context("organization"), map[string]any{"value": value}), nil
}

// domains are the domains of the tenant's people, and the tenant's own.
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
		for _, name := range []string{p.address, p.upn} {
			if _, domain, ok := strings.Cut(name, "@"); ok && !p.personal {
				add(domain)
			}
		}
	}
	add(s.Domain)
	return list
}

// readPolicies are the permissions to read app management policies.
var readPolicies = []string{"Policy.Read.All", "Policy.Read.ApplicationConfiguration", "Policy.ReadWrite.ApplicationConfiguration"}

func (c *call) defaultPolicy([]string) (*answer, *graphError) {
	f := &c.s.Faults
	if f.PolicyUnreadable || !c.may(readPolicies, readPolicies) {
		return nil, denied
	}
	restriction := func(kind string, life any) any {
		return map[string]any{
			"restrictionType": kind, "state": "enabled", "maxLifetime": life,
			"restrictForAppsCreatedAfterDateTime": "2019-01-01T00:00:00Z",
		}
	}
	passwords, keys := []any{}, []any{}
	if f.PolicyForbidsSecrets {
		passwords = append(passwords, restriction("passwordAddition", nil))
	}
	if f.PolicyMaxLifetime > 0 {
		passwords = append(passwords, restriction("passwordLifetime", isoDuration(f.PolicyMaxLifetime)))
	}
	if f.PolicyMaxCertificateLifetime > 0 {
		keys = append(keys, restriction("asymmetricKeyLifetime", isoDuration(f.PolicyMaxCertificateLifetime)))
	}
	return found("policies/defaultAppManagementPolicy/$entity", map[string]any{
		"id": defaultPolicyID, "displayName": "Default app management tenant policy",
		"description":             "Default tenant policy that enforces app management restrictions on applications and service principals.",
		"isEnabled":               len(passwords)+len(keys) > 0,
		"applicationRestrictions": map[string]any{"passwordCredentials": passwords, "keyCredentials": keys},
		"servicePrincipalRestrictions": map[string]any{
			"passwordCredentials": []any{}, "keyCredentials": []any{},
		},
	}), nil
}

// applicationPolicies are the policies of one application, which are none:
// all have the tenant's default.
func (c *call) applicationPolicies(args []string) (*answer, *graphError) {
	if c.s.Faults.PolicyUnreadable || !c.may(readPolicies, readPolicies) {
		return nil, denied
	}
	if _, refusal := c.application(args); refusal != nil {
		return nil, refusal
	}
	sample := map[string]any{"id": nil, "displayName": nil, "description": nil, "isEnabled": nil, "restrictions": nil}
	return c.collection("policies/appManagementPolicies", "appManagementPolicy", nil, sample)
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
