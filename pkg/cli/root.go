package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot is the whole command tree; every command is a line here.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "o365pw",
		Short: "App passwords that open Microsoft 365 mailboxes",
		Long: `o365pw makes app passwords for Microsoft 365 mailboxes and runs the gateway on
which old mail programs sign in with them over IMAP, POP3 and SMTP, although
Exchange Online takes only OAuth 2.0.

` + exitCodeHelp,
		Example: `  o365pw demo                              see it work, without a tenant
  o365pw setup                             set a tenant or your own mailbox up
  o365pw create --name "Outlook on Mac"    make an app password
  o365pw serve                             run the gateway
  o365pw revoke "Outlook on Mac"           shut that one mail program out

  o365pw list --jq '.appPasswords[] | select(.lastUsed == null) | .name'
  o365pw list --template '{{range .appPasswords}}{{.name}}{{"\n"}}{{end}}'
  o365pw list --config ./lab/config.toml --no-color
  o365pw revoke old --yes --quiet
  o365pw create new --verbose              log each request, never a secret`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("no-color") || a.Getenv("NO_COLOR") != "" || a.Getenv("TERM") == "dumb" {
				a.noColor = true
			}
			return a.prepareOutput(cmd)
		},
		PersistentPostRun: func(cmd *cobra.Command, args []string) { a.progress.stop(); a.flushWarnings() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// The flags after the wrong one have not been read.
		if slices.ContainsFunc(a.Args, func(s string) bool { return s == "-ojson" || s == "--output=json" || s == "-o=json" }) ||
			strings.Contains(strings.Join(a.Args, "\x00")+"\x00", "-o\x00json\x00") || strings.Contains(strings.Join(a.Args, "\x00")+"\x00", "--output\x00json\x00") {
			a.output = outputJSON
		}
		return &usageError{problem: flagProblem(err), hint: cmd.CommandPath() + " --help"}
	})
	f := root.PersistentFlags()
	f.StringVar(&a.profile, "profile", "", "profile of the configuration to use")
	f.StringVar(&a.configPath, "config", "", "configuration file (default: $O365PW_CONFIG, else o365pw/config.toml in your configuration folder)")
	f.VarP(&a.output, "output", "o", "output format: table, json, yaml, csv, name")
	f.StringVar(&a.jq, "jq", "", "print what this jq expression makes of the JSON output; strings without quotes")
	f.StringVar(&a.template, "template", "", "print the JSON output by this Go template")
	f.BoolVar(&a.quiet, "quiet", false, "print data and errors only")
	f.BoolVar(&a.verbose, "verbose", false, "log each request to stderr (never a secret)")
	f.BoolVar(&a.noColor, "no-color", false, "no colours (also: NO_COLOR)")

	root.AddGroup(
		&cobra.Group{ID: "life", Title: "App passwords:"},
		&cobra.Group{ID: "set-up", Title: "Set-up, sign-in and faults:"},
		&cobra.Group{ID: "gateway", Title: "Gateway:"},
		&cobra.Group{ID: "try", Title: "Try it out:"},
		&cobra.Group{ID: "rest", Title: "Besides:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("life", newCreate(a), newList(a), newShow(a), newSettings(a), newRotate(a), newRevoke(a), newPrune(a), newExport(a), newImport(a), newAudit(a))
	add("set-up", newSetup(a), newLogin(a), newLogout(a), newStatus(a), newDoctor(a), newExplain(a), newConfig(a))
	add("gateway", newServe(a), newSessions(a), newService(a), newCert(a))
	add("try", newDemo(a), newSandbox(a))
	add("rest", newVersion(a), newCompletion(a))
	root.SetHelpCommand(newHelp())
	root.SetHelpCommandGroupID("rest")
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		tidyHelp(c)
	}
	root.AddCommand(helpTopics()...)
	completeFlags(root, a.flagValues())
	return root
}

// Tree is the command tree, for those who document it. It is not to be run.
func Tree() *cobra.Command {
	return newRoot(newApp(Env{Getenv: func(string) string { return "" }}))
}

// newHelp takes the place of cobra's command, which succeeds on what it does not
// know.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND|TOPIC]",
		Short: "Help about a command or a topic",
		Example: `  o365pw help create
  o365pw help environment`,
		ValidArgsFunction: completeHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil || len(rest) > 0 && topic == cmd.Root():
				e := unknownCommand(cmd.Root(), args[0])
				e.problem = "there is no command or topic " + quote(args[0])
				return e
			case len(rest) > 0:
				return &usageError{problem: "there is no command " + quote(strings.Join(args, " ")), hint: topic.CommandPath() + " --help"}
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

func completeHelp(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	at, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, c := range at.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			out = append(out, choice(c.Name(), c.Short))
		}
	}
	return begin(out, typed), noFiles
}

// tidyHelp gives every command the exit codes in its help, and usage errors of
// its arguments their type.
func tidyHelp(c *cobra.Command) {
	if c.Long == "" {
		c.Long = c.Short
	}
	c.Long = strings.TrimRight(c.Long, "\n") + "\n\n" + exitCodeHelp
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if _, ok := errors.AsType[*usageError](err); ok {
				return err
			}
			if err != nil {
				problem := err.Error()
				if strings.HasPrefix(problem, "unknown command ") { // cobra's words for any argument where none belongs
					problem = cmd.CommandPath() + " takes no arguments; it was given " + quote(args[0])
				}
				return &usageError{problem: problem, hint: cmd.CommandPath() + " --help"}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		tidyHelp(sub)
	}
}

// flagProblem says what is wrong with a flag, as the commands themselves do.
func flagProblem(err error) string {
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err.Error()
	}
	name, value, cause := "--"+e.GetFlag().Name, quote(e.GetValue()), e.Unwrap().Error()
	switch {
	case strings.HasPrefix(cause, "strconv.ParseBool"):
		return name + " " + value + ": it takes true or false"
	case strings.HasPrefix(cause, "strconv."): // how Go reads numbers is nobody's concern
		return name + " " + value + ": it takes a whole number"
	case strings.Contains(cause, value):
		return name + ": " + cause
	}
	return name + " " + value + ": " + cause
}

func unknownCommand(root *cobra.Command, name string) *usageError {
	e := &usageError{problem: "there is no command " + quote(name), hint: "o365pw --help"}
	if near := root.SuggestionsFor(name); len(near) > 0 {
		e.hint = "o365pw " + near[0]
	}
	return e
}
