package entra

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// maxTexts bounds a list of claims. Graph has some hundreds of permissions.
const maxTexts = 1000

// Claims are what an access token says of itself, each empty where it does not
// (https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
type Claims struct {
	Audience string // aud: an address, or the id of the resource
	TenantID string // tid
	AppID    string // appid or azp: the client
	ObjectID string // oid: the person, or the client's service principal
	Username string // upn and the like; empty in a token of the application itself

	Roles   []string  // roles: application permissions
	Scopes  []string  // scp: delegated permissions
	Expires time.Time // exp; zero where it is missing
}

// Peek reads an access token without checking it, for diagnosis only: whoever
// it is meant for must check it, and its form is no contract. It is false for
// tokens that are no readable JWT, as those of personal accounts.
func Peek(access secret.Text) (Claims, bool) {
	m, ok := jwtPayload(access.Reveal())
	if !ok {
		return Claims{}, false
	}
	c := Claims{
		Audience: m.first("aud"),
		TenantID: m.first("tid"),
		AppID:    m.first("appid", "azp"),
		ObjectID: m.first("oid"),
		Username: m.first("preferred_username", "upn", "unique_name", "email"),
		Roles:    m.list("roles"),
		Scopes:   texts(strings.Fields(m.str("scp"))),
	}
	if audiences := m.list("aud"); c.Audience == "" && len(audiences) > 0 {
		c.Audience = audiences[0] // RFC 7519 section 4.1.3 allows several
	}
	if at, ok := m.time("exp"); ok {
		c.Expires = at
	}
	return c, true
}

// jwtPayload reads the claims of a signed JWT (RFC 7519 section 3), whose
// signature nobody checks. ok is false where it is none.
func jwtPayload(token string) (m members, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, false
	}
	m, err = decodeObject(payload)
	return m, err == nil
}

// first is the first of the members that holds a text, fit for display.
func (m members) first(names ...string) string {
	for _, name := range names {
		if s := line(m.str(name)); s != "" {
			return s
		}
	}
	return ""
}

// list reads an array of texts, fit for display, leaving out what is none.
func (m members) list(name string) []string {
	var raw []json.RawMessage
	if json.Unmarshal(m[name], &raw) != nil {
		return nil
	}
	var all []string
	for _, r := range raw {
		var s string
		if json.Unmarshal(r, &s) == nil {
			all = append(all, s)
		}
	}
	return texts(all)
}

// texts makes texts fit for display, each once.
func texts(all []string) []string {
	var fit []string
	for _, s := range all {
		if s = line(s); s != "" && !slices.Contains(fit, s) && len(fit) < maxTexts {
			fit = append(fit, s)
		}
	}
	return fit
}
