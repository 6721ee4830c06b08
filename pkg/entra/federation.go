package entra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// FederatedToken gives an assertion that is at hand as text, as GitLab puts the
// ID token of a job into a variable of the job's choice
// (https://docs.gitlab.com/ci/secrets/id_token_authentication/). It cannot be
// renewed, and is good until it expires.
func FederatedToken(token secret.Text) Assertion {
	return func(context.Context, string, string) (secret.Text, error) {
		text := strings.TrimSpace(token.Reveal())
		switch {
		case text == "":
			return secret.Text{}, errors.New("the federated token is empty")
		case len(text) > maxAssertion || !isJWT(text):
			return secret.Text{}, errors.New("the federated token is not one JWT and nothing else")
		}
		return secret.New(text), nil
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
