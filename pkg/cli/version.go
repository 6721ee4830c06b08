package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// linkedVersion is set by the linker in releases:
// -X github.com/o365pw/o365pw/pkg/cli.linkedVersion=1.2.3
var linkedVersion string

// version is the release, or what the build knows of itself.
func version() string {
	if linkedVersion != "" {
		return linkedVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           "  o365pw version\n  o365pw version -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := struct {
				SchemaVersion int    `json:"schemaVersion"`
				Version       string `json:"version"`
				Go            string `json:"go"`
				Platform      string `json:"platform"`
			}{schemaVersion, version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			switch a.output {
			case outputJSON:
				return a.printJSON(v)
			case outputYAML:
				return a.printYAML(v)
			case outputCSV:
				return a.printCSV([]string{"version", "go", "platform"}, [][]string{{v.Version, v.Go, v.Platform}})
			case outputName:
				return a.printf("%s\n", v.Version)
			}
			return a.printf("o365pw %s (%s, %s)\n", v.Version, v.Go, v.Platform)
		},
	}
}
