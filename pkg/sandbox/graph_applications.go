package sandbox

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// What is needed to read and to change applications: as scopes of a person, or
// as roles of an application, of which Application.ReadWrite.OwnedBy is good
// for those that it owns, and to create some.
var (
	readScopes  = []string{"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readRoles   = append([]string{"Application.ReadWrite.OwnedBy"}, readScopes...)
	writeScopes = []string{"Application.ReadWrite.All", "Directory.ReadWrite.All"}
	writeRoles  = append([]string{"Application.ReadWrite.OwnedBy"}, writeScopes...)
)

// graphTime is a time as Graph writes it: UTC, to 100 ns.
func graphTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }

// application finds the application that args name: by object id or by client
// id, each in its place.
func (c *call) application(args []string) (*application, *graphError) {
	find, id := c.s.dir.byObjectID, args[0]
	if id == "" && len(args) > 1 {
		find, id = c.s.dir.byClientID, args[1]
	}
	if !isGUID(id) {
		return nil, badRequest("Invalid object identifier '%s'.", printable(id))
	}
	a := find(strings.ToLower(id))
	if a == nil || !c.s.replicatedLocked(a.created) {
		return nil, notFound(id)
	}
	return a, nil
}

// replicatedLocked says whether an application or service principal is known
// everywhere.
func (s *Server) replicatedLocked(created time.Time) bool {
	return !s.nowLocked().Before(created.Add(s.Faults.AppReplicationDelay))
}

// listLag is how far reads are behind writes. The caller holds s.mu.
func (s *Server) listLagLocked() time.Duration {
	return max(s.Faults.ReplicationDelay, s.Faults.ListLag)
}

// applicationEntityLocked is an application in JSON, with the certificates
// themselves where withKeys is set.
func (s *Server) applicationEntityLocked(a *application, withKeys bool) map[string]any {
	now := s.nowLocked()
	credentials, keys := []any{}, []any{}
	for _, c := range a.credentials {
		if c.replicated(now, s.listLagLocked()) {
			credentials = append(credentials, credentialEntity(c, nil))
		}
	}
	for _, k := range a.keys {
		if k.replicated(now, s.listLagLocked()) {
			keys = append(keys, keyEntity(k, withKeys))
		}
	}
	return map[string]any{
		"id": a.objectID, "appId": a.clientID, "uniqueName": nullable(a.uniqueName), "displayName": a.displayName,
		"createdDateTime": graphTime(a.created), "deletedDateTime": nil, "signInAudience": a.audience,
		"tags": texts(a.tags), "notes": nullable(a.notes), "description": nullable(a.description),
		"isFallbackPublicClient": a.fallbackPublic,
		"publicClient":           map[string]any{"redirectUris": texts(a.redirectURIs)},
		"requiredResourceAccess": append([]any{}, a.resourceAccess...),
		"passwordCredentials":    credentials, "keyCredentials": keys,
	}
}

// texts is a list that is never null in JSON.
func texts(list []string) []string { return append([]string{}, list...) }

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (c *call) listApplications([]string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	match := func(*application) bool { return true }
	if filter, ok := c.query.filter(); ok {
		if match = parseFilter(filter); match == nil {
			return nil, invalidFilter(filter)
		}
	}
	var list []entry
	for _, a := range c.s.dir.apps {
		if c.s.replicatedLocked(a.created) && match(a) {
			list = append(list, func() map[string]any { return c.s.applicationEntityLocked(a, false) })
		}
	}
	return c.collection("applications", "application", list, c.s.applicationEntityLocked(c.s.dir.mail, false))
}

func (c *call) getApplication(args []string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	a, refusal := c.application(args)
	if refusal != nil {
		return nil, refusal
	}
	return c.oneApplication(a)
}

// getUniqueName reads an application by the name its maker gave it.
func (c *call) getUniqueName(args []string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	name := strings.ReplaceAll(args[0], "''", "'")
	a := c.s.dir.byUniqueName(name)
	if a == nil || !c.s.replicatedLocked(a.created) {
		return nil, notFound(name)
	}
	return c.oneApplication(a)
}

// oneApplication shows certificates themselves only where $select names
// keyCredentials (the page on the resource type keyCredential).
func (c *call) oneApplication(a *application) (*answer, *graphError) {
	entity := c.s.applicationEntityLocked(a, slices.Contains(c.query.selected, "keyCredentials"))
	return c.entity("applications", "application", entity)
}

// writable finds the application of a path for somebody who may change it.
func (c *call) writable(args []string) (*application, *graphError) {
	if !c.may(writeScopes, writeRoles) {
		return nil, denied
	}
	a, refusal := c.application(args)
	if refusal != nil {
		return nil, refusal
	}
	if !c.mayWrite(a) {
		return nil, denied
	}
	return a, nil
}

// mayWrite says whether the caller may change an application: an
// administrator, an owner, or an application whose permission is for all.
func (c *call) mayWrite(a *application) bool {
	switch p := c.token.person; {
	case !c.may(writeScopes, writeRoles):
		return false
	case p != nil:
		return p.admin || a.ownedBy(p.objectID)
	default:
		return c.may(nil, writeScopes) || a.ownedBy(c.token.principalID)
	}
}

// mayCreate says whether the caller may register applications.
func (c *call) mayCreate() bool {
	return c.may(writeScopes, writeRoles) && (c.token.person == nil || c.token.person.admin)
}

// deleteApplication also deletes the service principal with its permissions.
func (c *call) deleteApplication(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args)
	if refusal != nil {
		return nil, refusal
	}
	d := &c.s.dir
	d.apps = slices.DeleteFunc(d.apps, func(one *application) bool { return one == a })
	d.grants = slices.DeleteFunc(d.grants, func(g *permissionGrant) bool { return g.app == a })
	a.principalID, a.assignments = "", nil
	return noContent(), nil
}

func conflict(message string) *graphError {
	return &graphError{status: http.StatusConflict, code: "Request_MultipleObjectsWithSameKeyValue", message: message}
}
