package graph

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// betaURL is the service root of Graph's beta, beside that of v1.0.
func (c *Client) betaURL() (string, error) {
	root, ok := strings.CutSuffix(c.base(), "/v1.0")
	if !ok {
		return "", errors.New("the address of Microsoft Graph does not end with /v1.0: it is not known where its beta is")
	}
	return root + "/beta", nil
}

// CredentialUse gives when each credential of the application with client id
// appID was last used to sign in, by its key id in lower case, as far as Graph's
// report knows. It is a report of the beta, which Microsoft has for its global
// cloud alone, hours behind, and only for tenants with a licence for it. It
// takes AuditLog.Read.All, of a person with a role such as Reports Reader.
//
// An *Error whose IsForbidden says true: the permission, the role or the licence
// is missing. One whose IsAbsent says true: this Graph has no such report.
// https://learn.microsoft.com/graph/api/reportroot-list-appcredentialsigninactivities?view=graph-rest-beta
func (c *Client) CredentialUse(ctx context.Context, appID string) (map[string]time.Time, error) {
	if _, err := c.applicationURL(appID); err != nil {
		return nil, err
	}
	base, err := c.betaURL()
	if err != nil {
		return nil, err
	}
	list, err := all(ctx, c, c.budget(), base+"/reports/appCredentialSignInActivities?"+filter("appId eq "+quoted(strings.ToLower(appID))), decodeUse)
	if err != nil {
		return nil, err
	}
	used := map[string]time.Time{}
	for _, u := range list {
		// One credential may be there for several resources.
		if strings.EqualFold(u.appID, appID) && u.at.After(used[u.keyID]) {
			used[u.keyID] = u.at
		}
	}
	return used, nil
}

// IsAbsent is the answer of a Graph that does not have what was asked for: a
// path it does not know.
func (e *Error) IsAbsent() bool {
	return e.IsNotFound() || e.Status == 400 && e.says("resource not found for the segment")
}

// NeedsLicence says that the tenant lacks the Entra ID P1 or P2 that the report
// takes.
func (e *Error) NeedsLicence() bool {
	return e.HasCode("Authentication_RequestFromNonPremiumTenantOrB2CTenant")
}

// credentialUse is one appCredentialSignInActivity.
type credentialUse struct {
	appID, keyID string
	at           time.Time // zero: it does not say
}

// decodeUse reads an entry of the report. A time that cannot be understood is no
// time: the documentation's own examples have some, and a beta may change.
// https://learn.microsoft.com/graph/api/resources/appcredentialsigninactivity?view=graph-rest-beta
func decodeUse(data []byte) (credentialUse, error) {
	var w struct {
		AppID    *string `json:"appId"`
		KeyID    *string `json:"keyId"`
		Activity *struct {
			Last *string `json:"lastSignInDateTime"`
		} `json:"signInActivity"`
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return credentialUse{}, err
	}
	u := credentialUse{appID: deref(w.AppID), keyID: strings.ToLower(deref(w.KeyID))}
	if w.Activity != nil {
		if t, err := time.Parse(time.RFC3339, deref(w.Activity.Last)); err == nil {
			u.at = t.UTC()
		}
	}
	return u, nil
}
