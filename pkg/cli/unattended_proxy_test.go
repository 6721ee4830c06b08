//go:build unix

package cli_test

import (
	"strings"
	"testing"
)

// TestGitHubGoesByTheProxy: where HTTPS_PROXY is no address of a proxy, GitHub is
// not asked past it, as Entra is not, and its password is told nobody.
func TestGitHubGoesByTheProxy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = append(m.env, "AZURE_CLIENT_SECRET=", "HTTPS_PROXY=http://user:hunter2%zz@proxy.example:3128",
		"ACTIONS_ID_TOKEN_REQUEST_URL=https://github.invalid/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=abc")
	cmd, out := m.command("list", "--verbose")
	if err := cmd.Run(); err == nil {
		t.Fatal("it went through")
	}
	if s := out.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "github.invalid: its value is no address of a proxy") {
		t.Errorf("GitHub is asked without the proxy, or its password is told:\n%s", s)
	}
}
