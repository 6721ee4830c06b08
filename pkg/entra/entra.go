// Package entra gets access tokens from Microsoft Entra ID (v2 endpoints) by
// client secret, certificate, federation, managed identity, refresh token,
// authorization code with PKCE on a loopback redirect, and device code.
//
// What it guarantees:
//   - secrets and tokens travel in the body of a POST, or in a header where that
//     is the protocol of GitHub and Azure's machines, are never sent on after a
//     redirect, and never appear in an error;
//   - every failure of a request is an [*Error], whose Kind says what to do
//     about it. An outage (no network, throttling, garbage in the answer) is
//     never taken for a refusal;
//   - a request is repeated only where that is harmless (see [Client.MaxWait]);
//   - [Client.RefreshStored] keeps a rotated refresh token before anybody gets
//     to see the access token that came with it.
//
// Limits: tokens are opaque here, but for [Peek], which is for diagnosis. The
// signature of an ID token is not checked, so an [Identity] is for display and
// never a reason to let somebody in.
//
// Sources: RFC 6749 (OAuth 2.0), RFC 7636 (PKCE), RFC 8252 (native apps),
// RFC 8628 (device code), RFC 7523 (client assertions) and
// https://learn.microsoft.com/entra/identity-platform/v2-protocols.
package entra

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Client talks to one tenant of one cloud. Its methods may be called from
// several goroutines; the fields must not change meanwhile.
type Client struct {
	// HTTP sends the requests; nil is a client of its own with the default
	// transport. Its CheckRedirect and Jar are not used: a redirect is an error.
	HTTP *http.Client

	// Authority is the address of the cloud's sign-in service, such as
	// https://login.microsoftonline.com. Clear http is taken for loopback
	// addresses only, since secrets go there.
	Authority string

	// Tenant is a GUID or a verified domain. The sign-in flows also take
	// "organizations", "common", and "consumers" for personal accounts; a client
	// secret or assertion does not (AADSTS9001023).
	Tenant string

	// UserAgent is sent with every request; empty is "o365pw".
	UserAgent string

	// Timeout bounds each single request with its answer; 0 is 30 s.
	Timeout time.Duration

	// MaxWait bounds the pauses before a request is repeated, all together,
	// when Entra is throttling (429) or out of order (5xx); 0 is 10 s, and a
	// negative value means no repeats. Repeated are the requests that change
	// nothing, by client secret, assertion and refresh token (Entra does not end
	// a refresh token by its use), three times at most; others only after a 429,
	// which says that nothing was done. When Retry-After asks for more than is
	// left of MaxWait, the error returns at once.
	MaxWait time.Duration
}

// Token is an access token with what came along with it.
type Token struct {
	// Access is the bearer token. It is never empty where no error was returned.
	Access secret.Text

	// Refresh is a refresh token that replaces the one used before, if any. It
	// is empty where none was sent, and then the one used stays good
	// (RFC 6749 section 6). A client secret never brings one.
	Refresh secret.Text

	// Expires is when Access ends, by the clock of this machine. Where Entra
	// did not say, five minutes after the answer are assumed.
	Expires time.Time

	// Scope is what was granted, separated by spaces (RFC 6749 section 3.3).
	// Empty means what was asked for.
	Scope string

	// Identity is who signed in, where an ID token came along.
	Identity Identity
}

// Identity says who signed in. It is read from the ID token without a check of
// its signature and is for display only.
type Identity struct {
	Name     string // "Alice Example"
	Username string // preferred_username; the address as a rule, and not a key
	Email    string // email; empty as a rule, and no proof that it is theirs
	ObjectID string // oid
	TenantID string // tid
}

// What a Client and a Cache use where a field is zero.
const (
	defaultUserAgent = "o365pw"
	defaultTimeout   = 30 * time.Second
	defaultMaxWait   = 10 * time.Second
)

// Paths below {authority}/{tenant}.
const (
	tokenPath     = "/oauth2/v2.0/token"
	devicePath    = "/oauth2/v2.0/devicecode"
	authorizePath = "/oauth2/v2.0/authorize"
)

// endpoint is the address of path in the tenant.
func (c *Client) endpoint(path string) (string, error) {
	u, err := url.Parse(c.Authority)
	if err != nil {
		// The message of url.Parse quotes its input, which may hold a password.
		return "", fmt.Errorf("the authority is not an address")
	}
	switch {
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", fmt.Errorf("authority %q is not of the form https://HOST", u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("authority %q is not of the form https://HOST", u.Redacted())
	case !confidential(u, loopback):
		return "", fmt.Errorf("authority %q would get secrets in clear: use https", u.Redacted())
	}
	if !validTenant(c.Tenant) {
		return "", fmt.Errorf("tenant %q is neither a GUID nor a domain", c.Tenant)
	}
	return strings.TrimRight(u.String(), "/") + "/" + c.Tenant + path, nil
}

// validTenant holds back whatever would change the path of the address.
func validTenant(tenant string) bool {
	return strings.Trim(tenant, ".") != "" && !strings.ContainsFunc(tenant, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return false
		}
		return r != '.' && r != '-' && r != '_'
	})
}

// confidential reports whether secrets may go to u: by https, or in clear to
// hosts that are near.
func confidential(u *url.URL, near func(host string) bool) bool {
	return u.Scheme == "https" || u.Scheme == "http" && near(u.Hostname())
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// hostOf is the host of an address for messages.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	if host, port, err := net.SplitHostPort(u.Host); err == nil && port == "443" {
		return host
	}
	return u.Host
}

// withSignInScopes adds to scope what every sign-in of a person asks for: a
// refresh token (offline_access) and an ID token with a name (openid profile).
// Refreshing asks again, or the next refresh token may not come. email is not
// among them: it would be one more permission to consent to, which sign-ins
// and administrators' grants from before do not have.
func withSignInScopes(scope string) []string {
	scopes := strings.Fields(scope)
	for _, s := range []string{"openid", "profile", "offline_access"} {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}
