package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// selectApplication is all that is asked of an application. Asking for
// keyCredentials would cost a quota of its own.
const selectApplication = "$select=id,appId,displayName,passwordCredentials"

// maxPages bounds how far paging is followed.
const maxPages = 1000

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

// Applications gives the app registrations that carry the tag, or all for an
// empty one, page by page. An error is the last item. Paging links are followed
// to the host of BaseURL alone.
// https://learn.microsoft.com/graph/api/application-list
func (c *Client) Applications(ctx context.Context, tag string) iter.Seq2[Application, error] {
	return func(yield func(Application, error) bool) {
		b := c.budget()
		next := c.base() + "/applications?" + selectApplication
		if tag != "" {
			// OData doubles a quote within a literal.
			filter := "tags/any(t:t eq '" + strings.ReplaceAll(tag, "'", "''") + "')"
			next += "&$filter=" + strings.ReplaceAll(url.QueryEscape(filter), "+", "%20")
		}
		followed := map[string]bool{}
		for len(followed) < maxPages {
			followed[next] = true
			r := request{method: http.MethodGet, url: next}
			resp, err := c.send(ctx, b, r)
			if err != nil {
				yield(Application{}, err)
				return
			}
			apps, link, err := decodePage(resp.body)
			if err == nil && link != "" {
				err = sameService(c.BaseURL, link)
			}
			if err == nil && followed[link] {
				err = errors.New("the paging links run in a circle")
			}
			if err != nil {
				yield(Application{}, r.malformed(resp, err))
				return
			}
			for _, app := range apps {
				c.remember(clockAhead(resp.header), app.PasswordCredentials...)
				if !yield(app, nil) {
					return
				}
			}
			if link == "" {
				return
			}
			next = link
		}
		yield(Application{}, &Error{Method: http.MethodGet, URL: withoutQuery(next), Err: fmt.Errorf("more than %d pages", maxPages)})
	}
}

func decodePage(body []byte) (apps []Application, next string, err error) {
	var w struct {
		Value    *[]wireApplication `json:"value"`
		NextLink string             `json:"@odata.nextLink"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, "", err
	}
	if w.Value == nil {
		return nil, "", errors.New("a list without value")
	}
	for _, wa := range *w.Value {
		app, err := wa.application()
		if err != nil {
			return nil, "", err
		}
		apps = append(apps, app)
	}
	return apps, w.NextLink, nil
}

// sameService says whether the token may go to link: it must have scheme, host
// and port of base, and no credentials of its own.
func sameService(base, link string) error {
	b, err := url.Parse(base)
	if err != nil {
		return errors.New("the base URL is malformed")
	}
	l, err := url.Parse(link)
	if err != nil || l.Opaque != "" || l.User != nil {
		return errors.New("the paging link is malformed")
	}
	if !strings.EqualFold(l.Scheme, b.Scheme) || !strings.EqualFold(l.Hostname(), b.Hostname()) || port(l) != port(b) {
		return fmt.Errorf("the paging link leads away from %s", b.Host)
	}
	return nil
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	}
	return "80"
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

// User is the person that the token stands for.
type User struct {
	ID                string // object id, a GUID
	DisplayName       string
	UserPrincipalName string // alice@contoso.com
}

// Me reads who the token stands for. One of an application gets a 400 or 403.
// https://learn.microsoft.com/graph/api/user-get
func (c *Client) Me(ctx context.Context) (User, error) {
	var u User
	err := c.get(ctx, "/me?$select=id,displayName,userPrincipalName", &u)
	return u, err
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
