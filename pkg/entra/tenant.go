package entra

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/uuid"
)

const discoveryPath = "/v2.0/.well-known/openid-configuration"

// issuerTenant is the tenant in the name that Entra gives itself there.
var issuerTenant = regexp.MustCompile(`/([0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})(?:/|$)`)

// FindTenant asks whether the authority knows the tenant. A browser that is sent
// to a tenant that does not exist, or to an authority that nobody can reach,
// shows an error and never comes back; this tells before. The error is an
// [*Error]: Unavailable where nobody answers, and what Entra says where it
// refuses the tenant (AADSTS90002). Any other answer is nil, since it says
// nothing of the tenant.
func (c *Client) FindTenant(ctx context.Context) error {
	_, err := c.TenantID(ctx)
	e, ok := errors.AsType[*Error](err)
	if ok && e.Status != 0 && len(e.Numbers) == 0 && ctx.Err() == nil {
		return nil
	}
	return err
}

// TenantID gives the GUID, in lower case, of the tenant that Tenant names, which
// may be a domain. It is what Entra tells everybody (OpenID Connect Discovery
// section 4), and nobody signs in for it.
//
// A failure is an [*Error]: Misconfigured for a tenant that is not there.
func (c *Client) TenantID(ctx context.Context) (string, error) {
	e := &Error{Op: "look for the tenant " + line(c.Tenant), CorrelationID: uuid.NewString()}
	target, err := c.endpoint(discoveryPath)
	var req *http.Request
	if err == nil {
		e.URL = target
		req, err = http.NewRequest(http.MethodGet, target, nil)
	}
	if err != nil {
		e.Err, e.kind = err, Misconfigured
		return "", e
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, defaultUserAgent))
	req.Header.Set("client-request-id", e.CorrelationID)
	resp, body, err := send(ctx, c.HTTP, cmp.Or(c.Timeout, defaultTimeout), req)
	if resp != nil {
		e.answered(resp)
	}
	switch {
	case err != nil:
		e.Err = err
		return "", e
	case e.Status >= 300 && e.Status < 400:
		e.Err = redirected(resp)
		return "", e
	}
	m, err := decodeObject(body)
	if err != nil {
		e.Err = err
		return "", e
	}
	if e.decode(m, strings.NewReplacer()); e.Code != "" {
		return "", e
	}
	id := issuerTenant.FindStringSubmatch(m.str("issuer"))
	if e.Status != http.StatusOK || id == nil {
		e.Err = errors.New("the answer names no tenant")
		return "", e
	}
	return strings.ToLower(id[1]), nil
}
