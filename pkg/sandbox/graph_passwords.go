package sandbox

import (
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// credentialEntity is a passwordCredential in JSON. The secret is nil but in
// the answer to addPassword.
func credentialEntity(c *credential, secret any) map[string]any {
	return map[string]any{
		"customKeyIdentifier": nil, "displayName": nullable(c.displayName), "endDateTime": graphTime(c.end),
		"hint": c.hint(), "keyId": c.keyID, "secretText": secret, "startDateTime": graphTime(c.start),
	}
}

func (c *call) addPassword(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args)
	if refusal != nil {
		return nil, refusal
	}
	now := c.s.nowLocked()
	cred, refusal := parsePasswordCredential(c.body, now)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := c.s.secretPolicyLocked(cred); refusal != nil {
		return nil, refusal
	}
	if a.public {
		return nil, badRequest("Public client applications cannot have password credentials.")
	}
	if takeOne(&c.s.Faults.DropAddPassword) {
		cut()
	}
	cred.keyID, cred.secret, cred.added = uuid.NewString(), newSecret(), now
	a.credentials = append(a.credentials, cred)
	if takeOne(&c.s.Faults.LoseAddPassword) {
		cut()
	}
	return found("microsoft.graph.passwordCredential", credentialEntity(cred, cred.secret)), nil
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
	outer := readProperties("addPassword", body, "passwordCredential")
	if outer.refusal != nil || outer.null("passwordCredential") {
		return cred, outer.refusal
	}
	p := readProperties("passwordCredential", outer.raw["passwordCredential"], "displayName", "startDateTime", "endDateTime")
	p.text("displayName", &cred.displayName)
	if utf8.RuneCountInString(cred.displayName) > maxDisplayName {
		p.refuse("displayName", fmt.Sprintf("it is longer than %d characters", maxDisplayName))
	}
	p.moment("startDateTime", &cred.start)
	cred.end = cred.start.AddDate(2, 0, 0)
	p.moment("endDateTime", &cred.end)
	if !cred.end.After(cred.start) || !cred.end.After(now) {
		p.refuse("endDateTime", "it is not after the start, or past")
	}
	return cred, p.refusal
}

// removePassword also answers 400 for a credential that it has not heard of
// yet, as Graph does while addPassword replicates.
func (c *call) removePassword(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args)
	if refusal != nil {
		return nil, refusal
	}
	keyID, refusal := parseKeyID(c.body)
	if refusal != nil {
		return nil, refusal
	}
	if takeOne(&c.s.Faults.DropRemovePassword) {
		cut()
	}
	c.s.graph.removals[keyID]++
	if !c.s.removeKnownLocked(a, keyID) {
		return nil, badRequest("No password credential found with keyId.")
	}
	if takeOne(&c.s.Faults.LoseRemovePassword) {
		cut()
	}
	return noContent(), nil
}

func (s *Server) removeKnownLocked(a *application, keyID string) bool {
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
func parseKeyID(body []byte) (keyID string, refusal *graphError) {
	if len(body) == 0 {
		return "", badRequest("The request body is missing: 'keyId' is required.")
	}
	p := readProperties("removePassword", body, "keyId")
	p.require("keyId")
	p.guid("keyId", &keyID)
	return keyID, p.refusal
}

// defaultPolicyID is the id of the tenant's default app management policy.
const defaultPolicyID = "00000000-0000-0000-0000-000000000000"

// secretPolicyLocked is what the app management policy has against a
// credential.
func (s *Server) secretPolicyLocked(c *credential) *graphError {
	if s.Faults.PolicyForbidsSecrets {
		return &graphError{status: http.StatusBadRequest, code: "CredentialTypeNotAllowedAsPerAppPolicy",
			message: fmt.Sprintf("Credential type not allowed as per assigned policy '%s'.", defaultPolicyID)}
	}
	return lifetimePolicy(c.end.Sub(c.start), s.Faults.PolicyMaxLifetime)
}

// lifetimePolicy is what the policy has against a life, where limit is not 0.
func lifetimePolicy(life, limit time.Duration) *graphError {
	if limit == 0 || life <= limit {
		return nil
	}
	return &graphError{status: http.StatusBadRequest, code: "CredentialInvalidLifetimeAsPerAppPolicy",
		message: fmt.Sprintf("Credential lifetime exceeds the max value allowed as per assigned policy '%s'.", defaultPolicyID),
		detail:  [2]string{"InvalidKeyEndDate", "EndDate"}}
}
