package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// azLimit bounds one run of az, which takes seconds to start.
const azLimit = time.Minute

// azureCLIError tells why the Azure CLI gave no token.
type azureCLIError struct {
	tenant  string
	said    string // its own words, on one line
	missing bool   // it is not installed
	signIn  bool   // nobody is signed in to it
	err     error
}

func (e *azureCLIError) Error() string {
	switch {
	case e.missing:
		return "the Azure CLI (az) is not installed, or not in PATH"
	case e.signIn:
		return "the Azure CLI is not signed in: " + e.said
	case e.said != "":
		return "the Azure CLI gave no token: " + e.said
	}
	return fmt.Sprintf("the Azure CLI gave no token: %v", e.err)
}

func (e *azureCLIError) Unwrap() error { return e.err }

// azureCLIToken takes a token for Graph from an installed Azure CLI, which is a
// client of Microsoft's that may manage applications without further consent
// (https://learn.microsoft.com/cli/azure/account#az-account-get-access-token).
func (a *app) azureCLIToken(ctx context.Context, s *session) (entra.Token, error) {
	var out struct {
		AccessToken string `json:"accessToken"`
		ExpiresOn   int64  `json:"expires_on"` // seconds since 1970; versions before 2.54 lack it
	}
	err := a.runAz(ctx, s.profile.Tenant, &out, "account", "get-access-token", "--resource", s.profile.Cloud.GraphResource, "--tenant", s.profile.Tenant)
	if err != nil {
		return entra.Token{}, err
	}
	if out.AccessToken == "" {
		return entra.Token{}, &azureCLIError{tenant: s.profile.Tenant, said: "its answer holds no access token"}
	}
	t := entra.Token{Access: secret.New(out.AccessToken), Expires: a.Now().Add(5 * time.Minute)}
	if out.ExpiresOn > 0 {
		t.Expires = time.Unix(out.ExpiresOn, 0)
	}
	return t, nil
}

// azureCLIUser is who is signed in to the Azure CLI; empty where it does not
// say.
func (a *app) azureCLIUser(ctx context.Context, s *session) string {
	var out struct {
		User struct {
			Name string `json:"name"`
		} `json:"user"`
	}
	if a.runAz(ctx, s.profile.Tenant, &out, "account", "show") != nil {
		return ""
	}
	return printable(out.User.Name)
}

// runAz runs az and reads its JSON.
func (a *app) runAz(ctx context.Context, tenant string, into any, args ...string) error {
	name, err := exec.LookPath("az")
	if err != nil {
		return &azureCLIError{tenant: tenant, missing: true, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, azLimit)
	defer cancel()
	a.progress.set("asking the Azure CLI")
	cmd := exec.CommandContext(ctx, name, append(args, "--output", "json")...)
	cmd.Env = azEnviron(os.Environ())
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	a.logger().Debug("run", "command", "az "+strings.Join(args[:2], " "))
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := azSaid(stderr.String())
		return &azureCLIError{tenant: tenant, said: said, err: err, signIn: strings.Contains(said, "az login")}
	}
	if err := json.Unmarshal(stdout.Bytes(), into); err != nil {
		// The decoder's own error could quote the token.
		return &azureCLIError{tenant: tenant, said: "its answer is not JSON", err: errors.New("not JSON")}
	}
	return nil
}

// azSaid is the line that tells what went wrong, among what az writes.
func azSaid(stderr string) string {
	var first, fault string
	for l := range strings.SplitSeq(stderr, "\n") {
		l = strings.TrimSpace(printable(l))
		if text, ok := strings.CutPrefix(l, "ERROR: "); ok && fault == "" {
			fault = text
		}
		if first == "" {
			first = l
		}
	}
	said := cmp.Or(fault, first)
	if len(said) > 300 {
		said = said[:300] + "…"
	}
	return said
}

// azEnviron is an environment without what is secret of this program's, and
// with what az goes by: its own settings and proxies.
func azEnviron(environ []string) []string {
	kept := childEnviron(environ)
	for _, v := range environ {
		name, _, _ := strings.Cut(strings.ToUpper(v), "=")
		if (strings.HasSuffix(name, "_PROXY") || name == "AZURE_CONFIG_DIR" || name == "AZURE_EXTENSION_DIR") && !slices.Contains(kept, v) {
			kept = append(kept, v)
		}
	}
	return kept
}
