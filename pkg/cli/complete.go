package cli

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

// Completion reads the configuration and the registry. It asks neither the
// network nor the keychain, and where something is missing or damaged it offers
// nothing: it has nowhere to complain.

// noFiles is the answer of completions that are no files, in the order given.
const noFiles = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder

// completeNothing is for free text.
func completeNothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func completeFolders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// choice is a value with what it means.
func choice(value, meaning string) string { return cobra.CompletionWithDesc(value, meaning) }

// begin are the choices whose value begins with typed, without regard to case.
func begin(choices []string, typed string) []string {
	return slices.DeleteFunc(slices.Clone(choices), func(c string) bool {
		value, _, _ := strings.Cut(c, "\t")
		return !hasPrefixFold(value, typed)
	})
}

func hasPrefixFold(s, prefix string) bool {
	return strings.HasPrefix(strings.ToLower(s), strings.ToLower(prefix))
}

// oneOf offers fixed choices.
func oneOf(choices ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return begin(choices, typed), noFiles
	}
}

// listOf offers fixed choices for a flag that takes several, with commas. One
// that is typed whole comes with those that may follow it, so that no shell
// takes it for finished.
func listOf(choices ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		there := strings.Split(before, ",")
		free := slices.DeleteFunc(slices.Clone(choices), func(c string) bool {
			value, _, _ := strings.Cut(c, "\t")
			return slices.Contains(there, value)
		})
		var out []string
		for _, c := range begin(free, typed[len(before):]) {
			out = append(out, before+c)
			if value, _, _ := strings.Cut(c, "\t"); before+value == typed {
				for _, next := range free {
					if next != c {
						out = append(out, typed+","+next)
					}
				}
			}
		}
		return out, noFiles
	}
}

// completeTime offers durations, each with the date it leads to; sign is -1
// where they go back. A number alone is completed by units.
func (a *app) completeTime(sign int, durations ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		all := durations
		if typed != "" && strings.Trim(typed, "0123456789") == "" {
			all = slices.Clone(durations)
			for _, unit := range []string{"h", "d", "w", "mo", "y"} {
				if d := typed + unit; !slices.Contains(all, d) {
					all = append(all, d)
				}
			}
		}
		var out []string
		for _, text := range all {
			d, err := config.ParseDuration(text)
			if err != nil || !strings.HasPrefix(text, typed) {
				continue
			}
			layout := "2 January 2006"
			if d < 48*time.Hour {
				layout = "2 January, 15:04"
			}
			word := map[bool]string{false: "until ", true: "since "}[sign < 0]
			out = append(out, choice(text, word+a.Now().Add(time.Duration(sign)*d).Local().Format(layout)))
		}
		return out, noFiles
	}
}

// completionConfig is the configuration as far as it can be read; never nil.
func (a *app) completionConfig() *config.Config {
	cfg, err := a.loadConfig()
	if err != nil || cfg == nil {
		return &config.Config{}
	}
	return cfg
}

// completionProfile is the profile that the command would be about, as --profile
// before the cursor, or the environment, has it.
func (a *app) completionProfile(cfg *config.Config) (config.Profile, bool) {
	p, err := config.Resolve(cfg, a.profile, a.Getenv)
	return p, err == nil
}

// completionEntries are the app passwords of this machine: those of the profile
// where it is known which, else all, as with allProfiles.
func (a *app) completionEntries(allProfiles bool) []apppassword.Entry {
	dir, err := config.StateDir(a.Getenv)
	if err != nil {
		return nil
	}
	registry := apppassword.Registry{Dir: dir}
	p, known := a.completionProfile(a.completionConfig())
	if known && !allProfiles {
		entries, _ := (&apppassword.Manager{Profile: p, Registry: registry, Now: a.Now}).Local()
		return entries
	}
	if !known && cmp.Or(a.profile, a.Getenv("O365PW_PROFILE")) != "" {
		return nil // one that is not there
	}
	s, err := registry.Load()
	if err != nil {
		return nil
	}
	var out []apppassword.Entry
	for _, r := range s.AppPasswords {
		out = append(out, apppassword.Entry{Record: r, Status: r.LocalStatus(a.Now())})
	}
	return out
}

// completeNames offers the names in the registry, and ids to whoever types one.
func (a *app) completeNames(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if slices.Contains([]string{"show", "rotate", "settings"}, cmd.Name()) && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	dashed := slices.Contains(a.Args[:max(len(a.Args)-1, 0)], "--")
	var names, ids []string
	seen := map[string]bool{}
	all, _ := cmd.Flags().GetBool("all-profiles") // false where there is no such flag
	for _, e := range a.completionEntries(all) {
		if slices.Contains(args, e.Name) || slices.Contains(args, e.ID) {
			continue
		}
		about := strings.Join(e.Mailboxes, ", ")
		if e.Status != apppassword.Active {
			about += " (" + string(e.Status) + ")"
		}
		// A name that looks like a flag is one, but behind --.
		asFlag := strings.HasPrefix(e.Name, "-") && !dashed
		if hasPrefixFold(e.Name, typed) && !asFlag && !seen[e.Name] {
			seen[e.Name] = true
			names = append(names, choice(e.Name, about))
		}
		if typed != "" && hasPrefixFold(e.ID, typed) {
			ids = append(ids, choice(e.ID, e.Name+", "+about))
		}
	}
	slices.SortFunc(names, func(x, y string) int { return strings.Compare(strings.ToLower(x), strings.ToLower(y)) })
	return append(names, ids...), noFiles
}

func (a *app) completeProfiles(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	cfg := a.completionConfig()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
		p := cfg.Profiles[name]
		out = append(out, choice(name, cmp.Or(p.Mailbox, p.Tenant)))
	}
	return begin(out, typed), noFiles
}

// mailboxes are those of the profiles and of the app passwords, the profile's
// own first.
func (a *app) mailboxes() []string {
	cfg := a.completionConfig()
	var out []string
	seen := map[string]bool{}
	add := func(mailbox, about string) {
		if mailbox != "" && !seen[strings.ToLower(mailbox)] {
			seen[strings.ToLower(mailbox)] = true
			out = append(out, choice(mailbox, about))
		}
	}
	if p, known := a.completionProfile(cfg); known {
		add(p.Mailbox, "profile "+p.Name)
	}
	for _, e := range a.completionEntries(false) {
		for _, m := range e.Mailboxes {
			add(m, "as "+e.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
		add(cfg.Profiles[name].Mailbox, "profile "+name)
	}
	return out
}

func (a *app) completeMailboxes(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return begin(a.mailboxes(), typed), noFiles
}

// completeSenders offers the mailboxes, and their domains.
func (a *app) completeSenders(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	out := a.mailboxes()
	for _, m := range a.mailboxes() {
		address, _, _ := strings.Cut(m, "\t")
		_, domain, _ := strings.Cut(address, "@")
		if c := choice("@"+domain, "every address there"); domain != "" && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return begin(out, typed), noFiles
}

func (a *app) completeClouds(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, c := range config.BuiltinClouds() {
		out = append(out, choice(c.Name, c.About))
	}
	cfg := a.completionConfig()
	for _, name := range slices.Sorted(maps.Keys(cfg.Clouds)) {
		out = append(out, choice(name, "of the configuration"))
	}
	return begin(out, typed), noFiles
}

// completeOfProfiles offers what profiles have in a field.
func (a *app) completeOfProfiles(field func(config.Profile) string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		cfg := a.completionConfig()
		var out, seen []string
		for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
			if v := field(cfg.Profiles[name]); v != "" && !slices.Contains(seen, v) {
				seen = append(seen, v)
				out = append(out, choice(v, "profile "+name))
			}
		}
		return begin(out, typed), noFiles
	}
}
