package cli

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The scripts are this project's own but for PowerShell's: those of cobra need
// the bash-completion package, lose an open quote in bash and zsh, and split
// names at blanks in fish.
var (
	//go:embed completion/o365pw.bash
	bashScript string
	//go:embed completion/o365pw.zsh
	zshScript string
	//go:embed completion/o365pw.fish
	fishScript string
)

// shellNames are the shells that there is a completion for.
var shellNames = []string{"bash", "zsh", "fish", "powershell"}

// CompletionScript is the completion of root, which is called o365pw, for bash,
// zsh, fish or powershell.
func CompletionScript(root *cobra.Command, shell string) ([]byte, error) {
	switch shell {
	case "bash":
		return []byte(bashScript), nil
	case "zsh":
		return []byte(zshScript), nil
	case "fish":
		return []byte(fishScript), nil
	case "powershell":
		var b bytes.Buffer
		err := root.GenPowerShellCompletionWithDesc(&b)
		return b.Bytes(), err
	}
	return nil, &usageError{problem: "there is no completion for " + quote(shell), hint: "o365pw completion --help"}
}

func newCompletion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion",
		Short: "Complete commands, names and values in your shell",
		Long: `Makes the Tab key complete commands, flags, and their values in bash, zsh, fish
and PowerShell: names of app passwords, profiles, mailboxes, clouds and more, as
they are in the configuration and the registry of this machine. Neither the
network nor the keychain is asked.

"completion install" puts it where your shell finds it. With the name of a shell
the script is printed, for those who keep such files themselves.`,
		Example: `  o365pw completion install
  o365pw completion install zsh --edit-rc
  o365pw completion uninstall
  source <(o365pw completion bash)
  o365pw completion powershell | Out-String | Invoke-Expression`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{problem: "there is no completion for " + quote(args[0]), hint: "o365pw completion --help"}
			}
			return nil
		},
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCompletionInstall(a), newCompletionUninstall(a))
	for _, shell := range []struct{ name, title, try string }{
		{"bash", "bash", "source <(o365pw completion bash)"},
		{"zsh", "zsh", "source <(o365pw completion zsh)"},
		{"fish", "fish", "o365pw completion fish | source"},
		{"powershell", "PowerShell", "o365pw completion powershell | Out-String | Invoke-Expression"},
	} {
		var bare bool
		sub := &cobra.Command{
			Use:   shell.name,
			Short: "Print the completion script for " + shell.title,
			Long: fmt.Sprintf(`Prints the completion script for %[1]s. To have it in every new shell,
"o365pw completion install %[2]s" is simpler. --no-descriptions leaves out
what each word means.`, shell.title, shell.name),
			Example:           "  " + shell.try + "\n  o365pw completion " + shell.name + " --no-descriptions",
			Args:              cobra.NoArgs,
			ValidArgsFunction: completeNothing,
			RunE: func(cmd *cobra.Command, args []string) error {
				script, err := CompletionScript(cmd.Root(), shell.name)
				if err != nil {
					return err
				}
				if bare {
					script = bytes.ReplaceAll(script, []byte(cobra.ShellCompRequestCmd+" "), []byte(cobra.ShellCompNoDescRequestCmd+" "))
				}
				return a.print(script)
			},
		}
		sub.Flags().BoolVar(&bare, "no-descriptions", false, "offer words without what they mean")
		cmd.AddCommand(sub)
	}
	return cmd
}

// isCompletionScript tells whether a file is a completion script of o365pw, of any version.
func isCompletionScript(script []byte) bool {
	return bytes.Contains(script, []byte("o365pw")) && bytes.Contains(script, []byte(cobra.ShellCompRequestCmd))
}

// The lines of a start-up file that are o365pw's stand between these.
const (
	rcBegin = "# >>> o365pw completion >>>\n"
	rcEnd   = "# <<< o365pw completion <<<\n"
)

// withBlock is a start-up file with lines between the marks: in the place of
// those that are there, else at the end.
func withBlock(file string, lines []string) string {
	block := rcBegin + strings.Join(lines, "\n") + "\n" + rcEnd
	before, after, found := cutBlock(file)
	if found {
		return before + block + after
	}
	if file != "" && !strings.HasSuffix(file, "\n") {
		file += "\n"
	}
	return file + block
}

// withoutBlock is a start-up file without the marks and what is between them.
func withoutBlock(file string) string {
	before, after, found := cutBlock(file)
	if !found {
		return file
	}
	return before + after
}

func cutBlock(file string) (before, after string, found bool) {
	begin := strings.Index(file, rcBegin)
	if begin < 0 || begin > 0 && file[begin-1] != '\n' {
		return file, "", false
	}
	length := strings.Index(file[begin:], rcEnd)
	if length < 0 {
		return file, "", false // half of it is somebody's own
	}
	return file[:begin], file[begin+length+len(rcEnd):], true
}
