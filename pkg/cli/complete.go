package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

// completeNames offers the names in the registry. It asks neither the network
// nor the keychain, and stays silent where something is missing: a completion
// has nowhere to complain.
func (a *app) completeNames(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if cmd.Name() == "show" && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	dir, err := config.StateDir(a.Getenv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := (apppassword.Registry{Dir: dir}).Load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	profile := ""
	all, _ := cmd.Flags().GetBool("all-profiles") // false where there is no such flag
	if cfg, err := a.loadConfig(); err == nil && !all {
		if p, err := config.Resolve(cfg, a.profile, a.Getenv); err == nil {
			profile = p.Name
		}
	}
	var out []string
	for _, r := range s.AppPasswords {
		if (profile == "" || r.Profile == profile) && !slices.Contains(args, r.Name) &&
			strings.HasPrefix(strings.ToLower(r.Name), strings.ToLower(toComplete)) {
			out = append(out, cobra.CompletionWithDesc(r.Name, strings.Join(r.Mailboxes, ", ")))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeProfiles(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	cfg, err := a.loadConfig()
	if err != nil || cfg == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(cfg.Profiles)), cobra.ShellCompDirectiveNoFileComp
}
