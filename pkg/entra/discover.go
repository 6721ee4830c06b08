package entra

import (
	"cmp"
	"context"
	"net/http"

	"github.com/google/uuid"
)

// FindTenant asks whether the authority knows the tenant, by its metadata
// (OpenID Connect Discovery 1.0, section 4). A browser that is sent to a tenant
// that does not exist, or to an authority that nobody can reach, shows an error
// and never comes back; this tells before. The error is an [*Error]: Unavailable
// where nobody answers, and what Entra says where it refuses the tenant
// (AADSTS90002). Any other answer is nil, since it says nothing of the tenant.
func (c *Client) FindTenant(ctx context.Context) error {
	e := &Error{Op: "look for the tenant " + c.Tenant, CorrelationID: uuid.NewString()}
	target, err := c.endpoint("/v2.0/.well-known/openid-configuration")
	if err != nil {
		e.Err, e.kind = err, Misconfigured
		return e
	}
	e.URL = target
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		e.Err, e.kind = err, Misconfigured
		return e
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, defaultUserAgent))
	req.Header.Set("client-request-id", e.CorrelationID)
	resp, body, err := send(ctx, c.HTTP, cmp.Or(c.Timeout, defaultTimeout), req)
	if resp == nil {
		e.Err = err
		return e
	}
	if ctx.Err() != nil {
		e.Err = ctx.Err()
		return e
	}
	e.answered(resp)
	m, err := decodeObject(body)
	if err != nil {
		return nil
	}
	e.decode(m, mask(nil))
	if len(e.Numbers) == 0 {
		return nil
	}
	return e
}
