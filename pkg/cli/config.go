package cli

import (
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
)

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Find, check and show the configuration",
		Long: `Tells where the configuration file is, what is wrong with it, and what it comes
to with defaults and environment. It changes nothing; setup does, or an editor.`,
		Example: `  o365pw config path
  o365pw config check
  o365pw config show --profile work
  o365pw config schema > config.schema.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			e := &usageError{problem: "there is no command " + quote("config "+args[0]), hint: cmd.CommandPath() + " --help"}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				e.hint = cmd.CommandPath() + " " + near[0]
			}
			return e
		},
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(newConfigPath(a), newConfigCheck(a), newConfigShow(a), newConfigSchema(a))
	return cmd
}

func newConfigPath(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "path",
		Short: "Print where the configuration file is",
		Long: `Prints where the configuration file is, or would be: --config, else
$O365PW_CONFIG, else o365pw/config.toml in your configuration folder. A file
that is not there is no error, and said on standard error.`,
		Example: `  o365pw config path
  "${EDITOR:-vi}" "$(o365pw config path)"
  o365pw config path -o json | jq .exists`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runConfigPath() },
	}
}

// configPathJSON is what config path prints with --output.
type configPathJSON struct {
	SchemaVersion int    `json:"schemaVersion"`
	Path          string `json:"path"`
	Exists        bool   `json:"exists"`
}

func (a *app) runConfigPath() error {
	path, err := config.ConfigPath(a.configPath, a.Getenv)
	if err != nil {
		return err
	}
	_, err = os.Stat(path)
	v := configPathJSON{SchemaVersion: schemaVersion, Path: path, Exists: err == nil}
	if !v.Exists {
		a.note("there is no such file yet; setup makes it: o365pw setup")
	}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"path", "exists"}, [][]string{{v.Path, strconv.FormatBool(v.Exists)}})
	}
	return a.printf("%s\n", v.Path)
}

func newConfigSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file",
		Long: `Prints the JSON schema (draft 2020-12) of the configuration file, by which
editors complete and check what is written. Where the editor's TOML support is
taplo's, the first line of the file names it:

  #:schema ./config.schema.json`,
		Example: `  o365pw config schema > ~/.config/o365pw/config.schema.json
  o365pw config schema | jq '.properties.gateway.properties | keys'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.print(config.Schema()) },
	}
}
