package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// GitHubActions gives the identity token of the job that this program runs in
// (https://docs.github.com/actions/reference/security/oidc). requestURL and
// requestToken are ACTIONS_ID_TOKEN_REQUEST_URL and
// ACTIONS_ID_TOKEN_REQUEST_TOKEN, which a job has that is allowed
// `id-token: write`. GitHub is asked for each token request: an identity token
// lives for about five minutes. h may be nil; redirects are never followed.
//
// Errors are [*Error]: Misconfigured where the job is not allowed to ask,
// Unavailable where GitHub gives no answer.
func GitHubActions(h *http.Client, requestURL string, requestToken secret.Text) Assertion {
	e := identityEndpoint{
		platform: "GitHub Actions", hint: "the job needs `permissions: id-token: write`",
		addressName: "ACTIONS_ID_TOKEN_REQUEST_URL", tokenName: "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
		address: requestURL, token: requestToken,
		method: http.MethodGet, query: map[string]string{"audience": federationAudience}, member: "value",
	}
	return e.assertion(h)
}

// AzurePipelines gives the identity token that Azure Pipelines makes for a
// service connection with workload identity federation. requestURI and
// accessToken are SYSTEM_OIDCREQUESTURI, which every step has, and
// SYSTEM_ACCESSTOKEN, which a step has that maps it; connection is the service
// connection's id. The audience is the service connection's own. Azure DevOps is
// asked for each token request: an identity token lives for about ten minutes.
// Asking again makes another token and changes nothing else. h may be nil;
// redirects are never followed.
//
// Source: azure_pipelines_credential.go of azidentity, which asks so with
// api-version 7.1.
//
// Errors are [*Error]: Misconfigured where the step may not ask for it,
// Unavailable where Azure DevOps gives no answer.
func AzurePipelines(h *http.Client, requestURI string, accessToken secret.Text, connection string) Assertion {
	e := identityEndpoint{
		platform: "Azure Pipelines", hint: "the step needs `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`, and the pipeline has to be allowed to use the service connection",
		addressName: "SYSTEM_OIDCREQUESTURI", tokenName: "SYSTEM_ACCESSTOKEN",
		address: requestURI, token: accessToken,
		method: http.MethodPost, query: map[string]string{"api-version": "7.1", "serviceConnectionId": connection}, member: "oidcToken",
		// Without it, a token that is not accepted is answered with a sign-in page.
		header: map[string]string{"X-TFS-FedAuthRedirect": "Suppress"},
	}
	return e.assertion(h)
}

// identityEndpoint is where a platform gives its jobs identity tokens.
type identityEndpoint struct {
	platform, hint         string
	addressName, tokenName string // the variables that the two come from
	address                string
	token                  secret.Text

	method        string
	query, header map[string]string
	member        string // of the answer, which holds the identity token
}

func (i identityEndpoint) assertion(h *http.Client) Assertion {
	return func(ctx context.Context, _, _ string) (secret.Text, error) { return i.ask(ctx, h) }
}

func (i identityEndpoint) ask(ctx context.Context, h *http.Client) (secret.Text, error) {
	e := &Error{Op: "get identity token from " + i.platform}
	fail := func(kind Kind, err error) (secret.Text, error) {
		e.Err, e.kind = err, kind
		return secret.Text{}, e
	}
	if i.address == "" || i.token.IsZero() {
		return fail(Misconfigured, fmt.Errorf("%s offers none here: %s", i.platform, i.hint))
	}
	u, err := url.Parse(i.address)
	if err != nil || u.Host == "" || u.User != nil || !confidential(u, loopback) || !tokenText(i.token.Reveal()) {
		return fail(Misconfigured, fmt.Errorf("%s and %s are not an https address and a token", i.addressName, i.tokenName))
	}
	query := u.Query()
	for name, value := range i.query {
		query.Set(name, value)
	}
	u.RawQuery = query.Encode()
	e.URL = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()

	req, err := http.NewRequest(i.method, u.String(), nil)
	if err != nil {
		return fail(Misconfigured, errors.New(i.addressName+" is not an address"))
	}
	req.Header.Set("Authorization", "Bearer "+i.token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", defaultUserAgent)
	for name, value := range i.header {
		req.Header.Set(name, value)
	}
	resp, body, err := send(ctx, h, defaultTimeout, req)
	if resp != nil {
		e.answered(resp)
	}
	hide := strings.NewReplacer(i.token.Reveal(), "[secret]")
	switch {
	case err != nil:
		return fail("", err)
	case e.Status >= 300 && e.Status < 400:
		return fail("", redirected(resp))
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return fail(Misconfigured, fmt.Errorf("%s; the answer was %q", i.hint, hide.Replace(line(string(body)))))
	case e.Status == http.StatusTooManyRequests, e.Status >= 500:
		return fail("", fmt.Errorf("the answer was %q", hide.Replace(line(string(body)))))
	case e.Status != http.StatusOK:
		return fail(Misconfigured, fmt.Errorf("the answer was %q", hide.Replace(line(string(body)))))
	}
	m, err := decodeObject(body)
	if err != nil {
		return fail("", err)
	}
	value := m.str(i.member)
	if len(value) > maxAssertion || !isJWT(value) {
		return fail("", errors.New("the answer holds no identity token"))
	}
	return secret.New(value), nil
}
