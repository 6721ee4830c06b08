package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

type completionOptions struct {
	editRC bool
	dryRun bool
}

func newCompletionInstall(a *app) *cobra.Command {
	var o completionOptions
	cmd := &cobra.Command{
		Use:   "install [bash|zsh|fish|powershell]",
		Short: "Put the completion where your shell finds it",
		Long: `Writes the completion script to the place where the shell looks for it:

  bash         ~/.local/share/bash-completion/completions
  zsh          ~/.local/share/zsh/site-functions; as root
               /usr/local/share/zsh/site-functions
  fish         ~/.config/fish/completions
  powershell   the folder of $PROFILE

XDG_DATA_HOME and XDG_CONFIG_HOME take the place of ~/.local/share and
~/.config. Without a name it is for the shell in $SHELL; on Windows for
PowerShell. What is there of an older o365pw is replaced; a file of anybody
else's stays, and the command fails.

For fish that is all. For bash it is, where the bash-completion package is
loaded; zsh needs the folder in fpath, PowerShell a line in its profile. The
shell is asked whether that is so, by starting it. Where lines are missing in
its start-up file, they are printed on standard output. --edit-rc adds them,
between two marks; nothing else ever changes that file.`,
		Example: `  o365pw completion install
  o365pw completion install fish --dry-run
  o365pw completion install zsh --edit-rc`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeShell,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runCompletionInstall(cmd.Context(), cmd.Root(), args, o)
		},
	}
	cmd.Flags().BoolVar(&o.editRC, "edit-rc", false, "add the lines that are missing to the shell's start-up file")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and change nothing")
	return cmd
}

func newCompletionUninstall(a *app) *cobra.Command {
	var o completionOptions
	cmd := &cobra.Command{
		Use:   "uninstall [bash|zsh|fish|powershell]",
		Short: "Take away what completion install has put there",
		Long: `Removes the completion script that "completion install" has written, and the
lines between its marks in the shell's start-up file.`,
		Example: `  o365pw completion uninstall
  o365pw completion uninstall zsh --dry-run`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeShell,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCompletionUninstall(cmd.Context(), args, o) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and change nothing")
	return cmd
}

func completeShell(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return begin(shellNames, typed), noFiles
}

// completionPlace is where a shell looks for its completions.
type completionPlace struct {
	shell   string
	script  string   // absolute path of the script
	startUp string   // absolute path of the start-up file
	lines   []string // that the start-up file needs; none: the shell finds the script by itself
}

// shellLimit is how long a shell may take to start.
const shellLimit = 10 * time.Second

// completionPlace finds the place for a shell; without args that of $SHELL.
// Where withLines is not set, it does not matter what the start-up file needs.
func (a *app) completionPlace(ctx context.Context, args []string, withLines bool) (completionPlace, error) {
	p := completionPlace{}
	if len(args) > 0 {
		p.shell = args[0]
	} else if p.shell = strings.TrimSuffix(filepath.Base(a.Getenv("SHELL")), ".exe"); runtime.GOOS == "windows" && a.Getenv("SHELL") == "" {
		p.shell = "powershell"
	}
	if p.shell == "pwsh" {
		p.shell = "powershell"
	}
	if !slices.Contains(shellNames, p.shell) {
		problem := "there is no completion for " + quote(p.shell)
		if len(args) == 0 {
			problem = fmt.Sprintf("which shell? SHELL is %q", a.Getenv("SHELL"))
		}
		return p, &usageError{problem: problem, hint: "o365pw completion install " + strings.Join(shellNames, "|")}
	}
	if p.shell == "powershell" {
		return a.powerShellPlace(ctx)
	}
	home := a.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return p, &usageError{problem: "HOME is not an absolute path", hint: "set HOME, or keep the script yourself: o365pw completion " + p.shell}
	}
	folder := func(variable, fallback string) string {
		if dir := a.Getenv(variable); filepath.IsAbs(dir) {
			return dir
		}
		return filepath.Join(home, filepath.FromSlash(fallback))
	}
	switch p.shell {
	case "fish":
		p.script = filepath.Join(folder("XDG_CONFIG_HOME", ".config"), "fish", "completions", "o365pw.fish")
	case "bash":
		dir := folder("BASH_COMPLETION_USER_DIR", "")
		if dir == home {
			dir = filepath.Join(folder("XDG_DATA_HOME", ".local/share"), "bash-completion")
		}
		p.script = filepath.Join(dir, "completions", "o365pw")
		flags := "-ic"
		p.startUp = filepath.Join(home, ".bashrc")
		if runtime.GOOS == "darwin" { // its terminals start login shells
			flags, p.startUp = "-lic", filepath.Join(home, ".bash_profile")
		}
		// bash-completion loads by the completion for commands without one.
		if withLines && !strings.Contains(a.askShell(ctx, "bash", flags, `complete -p -D`), "_comp") {
			p.lines = []string{". " + shellQuote(p.script)}
		}
	case "zsh":
		dir := filepath.Join(folder("XDG_DATA_HOME", ".local/share"), "zsh", "site-functions")
		if os.Geteuid() == 0 && a.Getenv("XDG_DATA_HOME") == "" {
			dir = "/usr/local/share/zsh/site-functions"
		}
		p.script = filepath.Join(dir, "_o365pw")
		p.startUp = filepath.Join(folder("ZDOTDIR", ""), ".zshrc")
		if !withLines {
			break
		}
		said := strings.Split(a.askShell(ctx, "zsh", "-ic", `print -rl -- $fpath; (( $+functions[compdef] )) && print compdef`), "\n")
		if !slices.Contains(said, dir) || !slices.Contains(said, "compdef") {
			// They are good wherever in the file they stand.
			p.lines = []string{
				"fpath=(" + shellQuote(dir) + " $fpath)",
				"(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }",
				"autoload -Uz _o365pw && compdef _o365pw o365pw",
			}
		}
	}
	return p, nil
}

// powerShellPlace asks PowerShell for its profile: on Windows its folder may be
// anywhere.
func (a *app) powerShellPlace(ctx context.Context) (completionPlace, error) {
	p := completionPlace{shell: "powershell"}
	for _, name := range []string{"pwsh", "powershell"} {
		if _, err := exec.LookPath(name); err != nil {
			continue
		}
		p.startUp = strings.TrimSpace(a.askShell(ctx, name, "-NoProfile", "-NonInteractive", "-Command", "$PROFILE"))
		if filepath.IsAbs(p.startUp) {
			p.script = filepath.Join(filepath.Dir(p.startUp), "o365pw.completion.ps1")
			p.lines = []string{". '" + strings.ReplaceAll(p.script, "'", "''") + "'"}
			return p, nil
		}
		return p, &failedError{code: failed, msg: name + " does not say where its profile is", hint: "keep the script yourself: o365pw completion powershell"}
	}
	return p, &failedError{code: failed, msg: "neither pwsh nor powershell is on the PATH", hint: "o365pw completion powershell prints the script"}
}

// askShell starts a shell as a terminal would, and gives what it prints. A shell
// that cannot be asked says nothing.
func (a *app) askShell(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, shellLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = childEnviron(os.Environ())
	cmd.WaitDelay = time.Second
	ownSession(cmd)
	out, _ := cmd.Output()
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

func (a *app) runCompletionInstall(ctx context.Context, root *cobra.Command, args []string, o completionOptions) error {
	p, err := a.completionPlace(ctx, args, true)
	if err != nil {
		return err
	}
	script, err := CompletionScript(root, p.shell)
	if err != nil {
		return err
	}
	was, err := os.ReadFile(p.script)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && !isCompletionScript(was):
		return &failedError{code: failed, msg: p.script + " is there, and was not written by o365pw", hint: "move it away, then o365pw completion install " + p.shell}
	case string(was) == string(script):
		a.note("%s is as it should be", p.script)
	case o.dryRun:
		a.note("would write %s", p.script)
	default:
		if err := writeShared(p.script, script, 0o644); err != nil {
			return err
		}
		a.note("wrote %s", p.script)
	}
	return a.startUpLines(p, o)
}

// startUpLines sees to what the shell's start-up file needs, and says what is
// next.
func (a *app) startUpLines(p completionPlace, o completionOptions) error {
	const next = "open a new shell, then type o365pw and press Tab"
	if len(p.lines) > 0 {
		was, err := os.ReadFile(p.startUp)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		text := withBlock(string(was), p.lines)
		switch {
		case text == string(was) || containsLines(string(was), p.lines):
			// They are there, and the shell was not to be asked.
		case !o.editRC:
			a.note("%s needs these lines in %s; --edit-rc adds them:", p.shell, p.startUp)
			return a.printf("%s\n", strings.Join(p.lines, "\n"))
		case o.dryRun:
			a.note("would add to %s:", p.startUp)
			return a.printf("%s\n", strings.Join(p.lines, "\n"))
		default:
			if err := rewriteStartUp(p.startUp, text); err != nil {
				return err
			}
			a.note("added lines to %s", p.startUp)
		}
	}
	if !o.dryRun {
		a.note(next)
	}
	return nil
}

// containsLines tells whether a file has all of lines.
func containsLines(file string, lines []string) bool {
	have := strings.Split(strings.ReplaceAll(file, "\r\n", "\n"), "\n")
	return !slices.ContainsFunc(lines, func(l string) bool { return !slices.Contains(have, l) })
}

func (a *app) runCompletionUninstall(ctx context.Context, args []string, o completionOptions) error {
	p, err := a.completionPlace(ctx, args, false)
	if err != nil {
		return err
	}
	found := false
	switch was, err := os.ReadFile(p.script); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !isCompletionScript(was):
		a.note("%s was not written by o365pw, and stays", p.script)
	case o.dryRun:
		found = true
		a.note("would remove %s", p.script)
	default:
		found = true
		if err := os.Remove(p.script); err != nil {
			return err
		}
		a.note("removed %s", p.script)
	}
	if p.startUp != "" {
		was, err := os.ReadFile(p.startUp)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if text := withoutBlock(string(was)); text != string(was) {
			found = true
			if o.dryRun {
				a.note("would take the lines of o365pw out of %s", p.startUp)
			} else if err := rewriteStartUp(p.startUp, text); err != nil {
				return err
			} else {
				a.note("took the lines of o365pw out of %s", p.startUp)
			}
		}
	}
	if !found {
		a.note("there is no completion of o365pw for %s", p.shell)
	}
	return nil
}

// rewriteStartUp changes a start-up file, which keeps its mode.
func rewriteStartUp(path, text string) error {
	mode := fs.FileMode(0o644)
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
	}
	return writeShared(path, []byte(text), mode)
}

// writeShared writes a file whole, which others may read.
func writeShared(path string, data []byte, mode fs.FileMode) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = durable.WriteFile(path, data)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return &failedError{code: failed, msg: err.Error(), hint: "see that you can write to " + filepath.Dir(path) + ", or keep the script yourself: o365pw completion --help", errs: []error{err}}
	}
	return nil
}
