package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/secret"
)

// revealed is the only way of a secret into output. In a job of GitHub Actions
// or Azure Pipelines, the platform is asked first to keep it out of the log.
//
// That goes to stderr: stdout is data, which a script keeps to itself, so that
// the platform would not see the request. Both read stderr as they read stdout,
// which for Azure Pipelines is not documented.
func (a *app) revealed(t secret.Text) string {
	text := t.Reveal()
	if command, escape := a.maskCommand(); command != "" && text != "" {
		a.progress.stop()
		for _, form := range forms(text) {
			fmt.Fprintf(a.Stderr, "%s%s\n", command, escape.Replace(form))
		}
	}
	return text
}

// maskCommand begins a line that asks the platform to mask the rest of it.
// GitLab has nothing like it.
func (a *app) maskCommand() (command string, escape *strings.Replacer) {
	switch {
	case a.Getenv("GITHUB_ACTIONS") == "true":
		// https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#masking-a-value-in-a-log
		return "::add-mask::", strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	case strings.EqualFold(a.Getenv("TF_BUILD"), "true"):
		// https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands#setsecret-register-a-value-as-a-secret
		return "##vso[task.setsecret]", strings.NewReplacer("%", "%AZP25", "\r", "%0D", "\n", "%0A")
	}
	return "", nil
}

// forms are those in which a password may turn up in a log: as it is here, bare,
// and in groups.
func forms(text string) []string {
	bare := apppassword.Normalise(secret.New(text))
	out := []string{text}
	for _, form := range []string{bare.Reveal(), apppassword.Grouped(bare).Reveal()} {
		if form != "" && !slices.Contains(out, form) {
			out = append(out, form)
		}
	}
	return out
}
