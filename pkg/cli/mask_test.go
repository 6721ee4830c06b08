package cli

import (
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/secret"
)

// TestRevealedIsMasked: what a platform is asked to mask is each form of the
// password, one line each, whatever is in it; and nothing where no platform
// listens, since the line itself holds the password.
func TestRevealedIsMasked(t *testing.T) {
	const password = "abcdefghijklmnop"
	github, azure := "::add-mask::", "##vso[task.setsecret]"
	for _, tt := range []struct {
		name, variable, text string
		want                 []string
	}{
		{"bare", "GITHUB_ACTIONS=true", password, []string{github + password, github + "abcd efgh ijkl mnop"}},
		{"in groups", "GITHUB_ACTIONS=true", "abcd efgh ijkl mnop", []string{github + "abcd efgh ijkl mnop", github + password}},
		{"escaped", "GITHUB_ACTIONS=true", "a%0A\r\nb", []string{github + "a%250A%0D%0Ab", github + "a%250a%0D%0Ab", github + "a%250a %0D%0Ab"}},
		{"Azure Pipelines", "TF_BUILD=True", password, []string{azure + password, azure + "abcd efgh ijkl mnop"}},
		{"Azure Pipelines, escaped", "TF_BUILD=True", "%\n", []string{azure + "%AZP25%0A"}},
		{"no password", "GITHUB_ACTIONS=true", "", nil},
		{"GitHub, but no job", "GITHUB_ACTIONS=", password, nil},
		{"GitLab", "GITLAB_CI=true", password, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name, value, _ := strings.Cut(tt.variable, "=")
			var stdout, stderr strings.Builder
			a := newApp(Env{Stdout: &stdout, Stderr: &stderr, Getenv: func(v string) string {
				if v == name {
					return value
				}
				return ""
			}})
			a.quiet = true // it is not a note
			if got := a.revealed(secret.New(tt.text)); got != tt.text || stdout.Len() > 0 {
				t.Errorf("got %q, and stdout %q", got, stdout.String())
			}
			want := ""
			for _, line := range tt.want {
				want += line + "\n"
			}
			if stderr.String() != want {
				t.Errorf("stderr:\n%swant\n%s", stderr.String(), want)
			}
		})
	}
}
