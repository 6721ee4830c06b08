package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// selectApplication is all that is asked of an application. Asking for
// keyCredentials would cost a quota of its own.
const selectApplication = "$select=id,appId,displayName,passwordCredentials"

// Application reads the app registration with the client id appID. It needs
// Application.Read.All or what includes it. The answer may lag a write by
// seconds. An *Error whose IsNotFound says true: this tenant has none.
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) Application(ctx context.Context, appID string) (Application, error) {
	app, _, err := c.application(ctx, c.budget(), appID)
	return app, err
}

// application also gives how far Graph's clock is ahead of the local one, to
// about a second.
func (c *Client) application(ctx context.Context, b *budget, appID string) (Application, time.Duration, error) {
	base, err := c.applicationURL(appID)
	if err != nil {
		return Application{}, 0, err
	}
	r := request{method: http.MethodGet, url: base + "?" + selectApplication}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return Application{}, 0, err
	}
	ahead := clockAhead(resp.header)
	app, err := decodeApplication(resp.body)
	if err == nil && !strings.EqualFold(app.AppID, appID) {
		err = errors.New("another application than the one asked for")
	}
	if err != nil {
		return Application{}, 0, r.malformed(resp, err)
	}
	c.remember(ahead, app.PasswordCredentials...)
	return app, ahead, nil
}

// applicationURL refuses what is not a GUID: it would change the path.
func (c *Client) applicationURL(appID string) (string, error) {
	if !isGUID(appID) {
		return "", fmt.Errorf("client id %q is not a GUID", appID)
	}
	return c.base() + "/applications(appId='" + appID + "')", nil
}

func (c *Client) base() string { return strings.TrimRight(c.BaseURL, "/") }

// clockAhead is how far the clock that wrote the answer is ahead of the local
// one, to about a second; 0 where the answer does not say.
func clockAhead(header http.Header) time.Duration {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	return time.Until(date)
}

// Expect notes that the credential was made at start, although this Client has
// not seen it: another process wrote it down, say, and died. RemovePassword then
// does not believe "no password credential found" at once while the credential
// is less than ten minutes old.
func (c *Client) Expect(keyID string, start time.Time) {
	c.remember(0, PasswordCredential{KeyID: strings.ToLower(keyID), Start: start})
}

// remember notes credentials that Graph has shown, with their start by the
// local clock: for a young one, a later "no such credential" is not to be
// believed at once.
func (c *Client) remember(ahead time.Duration, creds ...PasswordCredential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]time.Time{}
	}
	for _, cred := range creds {
		c.known[cred.KeyID] = cred.Start.Add(-ahead)
	}
}

func (c *Client) shown(keyID string) (start time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start, ok = c.known[keyID]
	return start, ok
}

// Organization is the tenant of the token.
type Organization struct {
	ID          string // tenant id, a GUID
	DisplayName string
}

// Organization reads the tenant's name. Tokens without User.Read or
// Organization.Read.All get a 403.
// https://learn.microsoft.com/graph/api/organization-list
func (c *Client) Organization(ctx context.Context) (Organization, error) {
	var w struct{ Value []Organization }
	err := c.get(ctx, "/organization?$select=id,displayName", &w)
	if err != nil {
		return Organization{}, err
	}
	if len(w.Value) != 1 {
		return Organization{}, fmt.Errorf("read organization: Graph lists %d, not one", len(w.Value))
	}
	return w.Value[0], nil
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	r := request{method: http.MethodGet, url: c.base() + path}
	resp, err := c.send(ctx, c.budget(), r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.body, into); err != nil {
		return r.malformed(resp, err)
	}
	return nil
}
