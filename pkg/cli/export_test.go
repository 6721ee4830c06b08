package cli

import (
	"io"
	"strings"
)

// Asked tells which command arguments call ("list", "audit verify"), the value
// of --output, and whether it is plain: not help, --jq or --template.
func Asked(args []string) (command, format string, plain bool) {
	a := newApp(Env{Args: args, Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }})
	root := newRoot(a)
	cmd, rest, err := root.Find(args)
	if err != nil {
		return "", "", false
	}
	cmd.InitDefaultHelpFlag()
	err = cmd.ParseFlags(rest)
	help, _ := cmd.Flags().GetBool("help")
	return commandName(cmd), string(a.output), err == nil && !help && a.jq == "" && a.template == "" && !strings.HasPrefix(cmd.Name(), "__")
}
