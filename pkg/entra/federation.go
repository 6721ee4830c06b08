package entra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// federationAudience is whom an assertion of another issuer is for. A federated
// credential has exactly one, and this is what they are made with as a rule
// (https://learn.microsoft.com/graph/api/resources/federatedidentitycredential).
const federationAudience = "api://AzureADTokenExchange"

// maxAssertion bounds an assertion of another issuer. Real ones have about 2 kB.
const maxAssertion = 64 << 10

// FederatedFile gives the assertion in a file that somebody else keeps fresh,
// as Kubernetes does with AZURE_FEDERATED_TOKEN_FILE
// (https://azure.github.io/azure-workload-identity/docs/). The file is read
// for each token request, since it is replaced about once an hour.
func FederatedFile(path string) Assertion {
	return func(context.Context, string, string) (secret.Text, error) {
		text, err := readAssertion(path)
		if err != nil {
			return secret.Text{}, fmt.Errorf("federated token file %s: %w", path, err)
		}
		return text, nil
	}
}

func readAssertion(path string) (secret.Text, error) {
	// Looked at before it is opened, which a named pipe would make wait.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(path)
	}
	if err != nil {
		// The path is in the message already.
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return secret.Text{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxAssertion+1))
	text := strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff"))
	switch {
	case err != nil:
		return secret.Text{}, err
	case len(data) > maxAssertion:
		return secret.Text{}, fmt.Errorf("larger than %d kB", maxAssertion>>10)
	case text == "":
		return secret.Text{}, errors.New("the file is empty")
	case !isJWT(text):
		return secret.Text{}, errors.New("the file does not hold one JWT and nothing else")
	}
	return secret.New(text), nil
}

// isJWT reports whether s has the form of a signed JWT (RFC 7515 section 7.1).
func isJWT(s string) bool {
	parts := strings.Split(s, ".")
	for _, part := range parts {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return len(parts) == 3
}

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
	return func(ctx context.Context, _, _ string) (secret.Text, error) {
		return askGitHub(ctx, h, requestURL, requestToken)
	}
}

const gitHubHint = "the job needs `permissions: id-token: write`"

func askGitHub(ctx context.Context, h *http.Client, requestURL string, requestToken secret.Text) (secret.Text, error) {
	e := &Error{Op: "get identity token from GitHub Actions"}
	fail := func(kind Kind, err error) (secret.Text, error) {
		e.Err, e.kind = err, kind
		return secret.Text{}, e
	}
	if requestURL == "" || requestToken.IsZero() {
		return fail(Misconfigured, fmt.Errorf("GitHub offers none here: %s", gitHubHint))
	}
	u, err := url.Parse(requestURL)
	if err != nil || u.Host == "" || u.User != nil || !confidential(u, loopback) || !tokenText(requestToken.Reveal()) {
		return fail(Misconfigured, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN are not an https address and a token"))
	}
	query := u.Query()
	query.Set("audience", federationAudience)
	u.RawQuery = query.Encode()
	e.URL = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()

	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return fail(Misconfigured, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not an address"))
	}
	req.Header.Set("Authorization", "bearer "+requestToken.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", defaultUserAgent)
	resp, body, err := send(ctx, h, defaultTimeout, req)
	if resp != nil {
		e.answered(resp)
	}
	hide := strings.NewReplacer(requestToken.Reveal(), "[secret]")
	switch {
	case err != nil:
		return fail("", err)
	case e.Status >= 300 && e.Status < 400:
		return fail("", redirected(resp))
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return fail(Misconfigured, fmt.Errorf("%s; the answer was %q", gitHubHint, hide.Replace(line(string(body)))))
	case e.Status == http.StatusTooManyRequests, e.Status >= 500:
		return fail("", fmt.Errorf("the answer was %q", hide.Replace(line(string(body)))))
	case e.Status != http.StatusOK:
		return fail(Misconfigured, fmt.Errorf("the answer was %q", hide.Replace(line(string(body)))))
	}
	m, err := decodeObject(body)
	if err != nil {
		return fail("", err)
	}
	value := m.str("value")
	if len(value) > maxAssertion || !isJWT(value) {
		return fail("", errors.New("the answer holds no identity token"))
	}
	return secret.New(value), nil
}
