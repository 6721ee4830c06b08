package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

var (
	readScopes  = []string{"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readRoles   = append([]string{"Application.ReadWrite.OwnedBy"}, readScopes...)
	writeScopes = []string{"Application.ReadWrite.All", "Directory.ReadWrite.All"}
	writeRoles  = append([]string{"Application.ReadWrite.OwnedBy"}, writeScopes...)
)

// graphTime is a time as Graph writes it: UTC, to 100 ns.
func graphTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }

// application finds the application that a path names: by object id or by
// client id, each in its place.
func (c *call) application(path string) (*application, *graphError) {
	m := applicationPath.FindStringSubmatch(path)
	find, id := c.s.dir.byObjectID, m[1]
	if id == "" {
		find, id = c.s.dir.byClientID, m[2]
	}
	if !isGUID(id) {
		return nil, badRequest("Invalid object identifier '%s'.", printable(id))
	}
	a := find(strings.ToLower(id))
	if a == nil {
		return nil, notFound(id)
	}
	return a, nil
}

// listLag is how far reads are behind writes. The caller holds s.mu.
func (s *Server) listLagLocked() time.Duration {
	return max(s.Faults.ReplicationDelay, s.Faults.ListLag)
}

// applicationEntity is an application in JSON.
func (s *Server) applicationEntity(a *application) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	credentials := []any{}
	for _, c := range a.credentials {
		if c.replicated(now, s.listLagLocked()) {
			credentials = append(credentials, credentialEntity(c, nil))
		}
	}
	texts := func(list []string) []string { return append([]string{}, list...) }
	return map[string]any{
		"id": a.objectID, "appId": a.clientID, "displayName": a.displayName,
		"createdDateTime": graphTime(a.created), "signInAudience": "AzureADMyOrg",
		"tags": texts(a.tags), "notes": nil, "description": nil,
		"isFallbackPublicClient": a.fallbackPublic,
		"publicClient":           map[string]any{"redirectUris": texts(a.redirectURIs)},
		"passwordCredentials":    credentials, "keyCredentials": []any{},
	}
}

// credentialEntity is a passwordCredential in JSON. The secret is nil but in
// the answer to addPassword.
func credentialEntity(c *credential, secret any) map[string]any {
	return map[string]any{
		"customKeyIdentifier": nil, "displayName": nullable(c.displayName), "endDateTime": graphTime(c.end),
		"hint": c.hint(), "keyId": c.keyID, "secretText": secret, "startDateTime": graphTime(c.start),
	}
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (c *call) listApplications(string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	var found []*application
	for _, a := range c.s.dir.apps {
		if c.query.match(a) {
			found = append(found, a)
		}
	}
	now, next, refusal := c.paginate(found)
	if refusal != nil {
		return nil, refusal
	}
	if len(found) == 0 { // $select is checked all the same
		if _, refusal := c.query.project("application", c.s.applicationEntity(c.s.dir.mail)); refusal != nil {
			return nil, refusal
		}
	}
	value := []any{}
	for _, a := range now {
		entity, refusal := c.query.project("application", c.s.applicationEntity(a))
		if refusal != nil {
			return nil, refusal
		}
		value = append(value, entity)
	}
	body := map[string]any{"value": value}
	if next != "" {
		body["@odata.nextLink"] = next
	}
	return &answer{c.query.context("applications"), body}, nil
}

func (c *call) getApplication(path string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	a, refusal := c.application(path)
	if refusal != nil {
		return nil, refusal
	}
	entity, refusal := c.query.project("application", c.s.applicationEntity(a))
	if refusal != nil {
		return nil, refusal
	}
	return &answer{c.query.context("applications") + "/$entity", entity}, nil
}

// writable finds the application of a path for somebody who may change it.
func (c *call) writable(path string) (*application, *graphError) {
	if !c.may(writeScopes, writeRoles) {
		return nil, denied
	}
	a, refusal := c.application(path)
	if refusal != nil {
		return nil, refusal
	}
	switch p := c.token.person; {
	case p != nil && (p.admin || a.ownedBy(p.objectID)):
	case p == nil && c.may(nil, writeScopes):
	case p == nil && a.ownedBy(c.token.app.principalID):
	default:
		return nil, denied
	}
	return a, nil
}

func (c *call) addPassword(path string) (*answer, *graphError) {
	a, refusal := c.writable(path)
	if refusal != nil {
		return nil, refusal
	}
	now := c.s.now()
	cred, refusal := parsePasswordCredential(c.body, now)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := c.s.policyRefusal(cred); refusal != nil {
		return nil, refusal
	}
	if a.public {
		return nil, badRequest("Public client applications cannot have password credentials.")
	}
	if c.s.take(func(f *Faults) *int { return &f.DropAddPassword }) {
		cut()
	}
	cred.keyID, cred.secret, cred.added = uuid.NewString(), newSecret(), now
	c.s.mu.Lock()
	a.credentials = append(a.credentials, cred)
	c.s.mu.Unlock()
	if c.s.take(func(f *Faults) *int { return &f.LoseAddPassword }) {
		cut()
	}
	return &answer{"microsoft.graph.passwordCredential", credentialEntity(cred, cred.secret)}, nil
}

// maxDisplayName is a limit of the sandbox; Graph's own is not documented.
const maxDisplayName = 256

// parsePasswordCredential reads the body of addPassword, which may be empty.
func parsePasswordCredential(body []byte, now time.Time) (*credential, *graphError) {
	cred := &credential{start: now.UTC().Truncate(100 * time.Nanosecond)}
	cred.end = cred.start.AddDate(2, 0, 0)
	if len(body) == 0 {
		return cred, nil
	}
	outer, err := strictObject(body, "passwordCredential")
	if err != nil {
		return nil, badRequest("Invalid request body: %s.", printable(err.Error()))
	}
	raw, ok := outer["passwordCredential"]
	if !ok || string(raw) == "null" {
		return cred, nil
	}
	inner, err := strictObject(raw, "displayName", "startDateTime", "endDateTime")
	if err != nil {
		return nil, badRequest("Invalid value specified for 'passwordCredential': %s.", printable(err.Error()))
	}
	text := func(name string) (string, *graphError) {
		var s *string
		if raw, ok := inner[name]; !ok {
			return "", nil
		} else if json.Unmarshal(raw, &s) != nil {
			return "", badRequest("Invalid value specified for property '%s' of resource 'PasswordCredential'.", name)
		} else if s == nil {
			return "", nil
		}
		return *s, nil
	}
	moment := func(name string, into *time.Time) *graphError {
		s, refusal := text(name)
		if refusal != nil || s == "" && string(inner[name]) != `""` {
			return refusal
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || !strings.HasSuffix(s, "Z") {
			return badRequest("Invalid value specified for property '%s' of resource 'PasswordCredential': not an ISO 8601 time in UTC.", name)
		}
		*into = t.Truncate(100 * time.Nanosecond)
		return nil
	}
	name, refusal := text("displayName")
	if refusal != nil {
		return nil, refusal
	}
	if utf8.RuneCountInString(name) > maxDisplayName {
		return nil, badRequest("Invalid value specified for property 'displayName' of resource 'PasswordCredential': longer than %d characters.", maxDisplayName)
	}
	cred.displayName = name
	if refusal := moment("startDateTime", &cred.start); refusal != nil {
		return nil, refusal
	}
	cred.end = cred.start.AddDate(2, 0, 0)
	if refusal := moment("endDateTime", &cred.end); refusal != nil {
		return nil, refusal
	}
	if !cred.end.After(cred.start) || !cred.end.After(now) {
		return nil, badRequest("Invalid value specified for property 'endDateTime' of resource 'PasswordCredential': it is not after the start, or past.")
	}
	return cred, nil
}

// removePassword also answers 400 for a credential that it has not heard of
// yet, as Graph does while addPassword replicates.
func (c *call) removePassword(path string) (*answer, *graphError) {
	a, refusal := c.writable(path)
	if refusal != nil {
		return nil, refusal
	}
	keyID, refusal := parseKeyID(c.body)
	if refusal != nil {
		return nil, refusal
	}
	if c.s.take(func(f *Faults) *int { return &f.DropRemovePassword }) {
		cut()
	}
	if !c.s.removeKnown(a, keyID) {
		return nil, badRequest("No password credential found with keyId.")
	}
	if c.s.take(func(f *Faults) *int { return &f.LoseRemovePassword }) {
		cut()
	}
	return &answer{}, nil
}

func (s *Server) removeKnown(a *application, keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	for _, c := range a.credentials {
		if c.keyID == keyID && c.removed.IsZero() && c.replicated(now, s.Faults.ReplicationDelay) {
			c.removed = now
			return true
		}
	}
	return false
}

// parseKeyID reads the body of removePassword.
func parseKeyID(body []byte) (string, *graphError) {
	if len(body) == 0 {
		return "", badRequest("The request body is missing: 'keyId' is required.")
	}
	members, err := strictObject(body, "keyId")
	if err != nil {
		return "", badRequest("Invalid request body: %s.", printable(err.Error()))
	}
	var keyID string
	if json.Unmarshal(members["keyId"], &keyID) != nil || !isGUID(keyID) {
		return "", badRequest("Invalid value specified for 'keyId': not a GUID.")
	}
	return strings.ToLower(keyID), nil
}

// defaultPolicyID is the id of the tenant's default app management policy.
const defaultPolicyID = "00000000-0000-0000-0000-000000000000"

// policyRefusal is what the app management policy has against a credential.
func (s *Server) policyRefusal(c *credential) *graphError {
	f := s.CurrentFaults()
	switch {
	case f.PolicyForbidsSecrets:
		return &graphError{status: http.StatusBadRequest, code: "CredentialTypeNotAllowedAsPerAppPolicy",
			message: fmt.Sprintf("Credential type not allowed as per assigned policy '%s'.", defaultPolicyID)}
	case f.PolicyMaxLifetime > 0 && c.end.Sub(c.start) > f.PolicyMaxLifetime:
		return &graphError{status: http.StatusBadRequest, code: "CredentialInvalidLifetimeAsPerAppPolicy",
			message: fmt.Sprintf("Credential lifetime exceeds the max value allowed as per assigned policy '%s'.", defaultPolicyID),
			detail:  [2]string{"InvalidKeyEndDate", "EndDate"}}
	}
	return nil
}
