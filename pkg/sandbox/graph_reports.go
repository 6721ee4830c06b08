package sandbox

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"regexp"
	"sort"
	"strings"
)

// reportPermissions are needed to read reports on sign-ins.
var reportPermissions = []string{"AuditLog.Read.All", "Directory.Read.All"}

var useFilter = regexp.MustCompile(`^(appId|keyId) eq '([0-9a-f-]{36})'$`)

// listCredentialUse is the report on the last sign-in of each credential. Those
// that have never signed in are not in it, the latest come first.
func (c *call) listCredentialUse([]string) (*answer, *graphError) {
	f := &c.s.Faults
	switch p := c.token.person; {
	case f.NoReport:
		return nil, badRequest("Resource not found for the segment 'appCredentialSignInActivities'.")
	case !c.may(reportPermissions, reportPermissions), p != nil && !p.admin: // people also need a role
		return nil, denied
	case f.NoReportLicence:
		return nil, &graphError{status: http.StatusForbidden, code: "Authentication_RequestFromNonPremiumTenantOrB2CTenant",
			message: "Neither tenant is B2C or tenant doesn't have premium license"}
	}
	var property, value string
	if filter, ok := c.query.filter(); ok {
		m := useFilter.FindStringSubmatch(filter)
		if m == nil {
			return nil, invalidFilter(filter)
		}
		property, value = m[1], m[2]
	}
	type use struct {
		app  *application
		cred *credential
	}
	var uses []use
	for _, a := range c.s.dir.apps {
		for _, cred := range a.credentials {
			if !cred.used.IsZero() && cred.removed.IsZero() && (property == "" || property == "appId" && a.clientID == value || property == "keyId" && cred.keyID == value) {
				uses = append(uses, use{a, cred})
			}
		}
	}
	sort.SliceStable(uses, func(i, j int) bool {
		x, y := uses[i].cred, uses[j].cred
		return cmp.Or(y.used.Compare(x.used), strings.Compare(x.keyID, y.keyID)) < 0
	})
	var list []entry
	for _, u := range uses {
		list = append(list, func() map[string]any { return useEntity(u.app, u.cred) })
	}
	return c.collection("reports/appCredentialSignInActivities", "appCredentialSignInActivity", list, map[string]any{})
}

// useEntity is an appCredentialSignInActivity in JSON, with milliseconds as the
// real one has them.
func useEntity(a *application, c *credential) map[string]any {
	const layout = "2006-01-02T15:04:05.999Z"
	return map[string]any{
		"id": base64.StdEncoding.EncodeToString([]byte(c.keyID)), "appId": a.clientID, "appObjectId": a.objectID,
		"keyId": c.keyID, "keyType": "password", "keyUsage": "verify", "credentialOrigin": "application",
		"createdDateTime": c.start.UTC().Format(layout), "expirationDateTime": c.end.UTC().Format(layout),
		"resourceId": c.usedFor.appID, "servicePrincipalObjectId": nil,
		"signInActivity": map[string]any{"lastSignInDateTime": c.used.UTC().Format(layout), "lastSignInRequestId": c.keyID},
	}
}
