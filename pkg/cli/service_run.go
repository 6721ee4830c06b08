package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/secret"
)

// serviceIdentity is what the machine's service runs as.
type serviceIdentity struct {
	user       string // empty: whoever calls
	environ    []string
	passphrase func(ctx context.Context) (secret.Text, error) // nil: environ names its file
}

func newServiceRun(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run COMMAND...",
		Short: "Run an o365pw command as the machine's service does",
		Long: `Runs another command of o365pw as the machine's service runs: as the same user,
with the same configuration, state and keychain, whose passphrase is passed on.
So an administrator sets the service up, and makes app passwords for it. What
stands behind "run" belongs to the other command, its flags too.`,
		Example: `  sudo o365pw service run setup
  sudo o365pw service run create --name Printer --mailbox scan@contoso.com --allow smtp
  sudo o365pw service run list`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runServiceRun(cmd.Context(), args) },
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (a *app) runServiceRun(ctx context.Context, args []string) error {
	s, err := a.supervisor(serviceOptions{system: true}, true)
	if err != nil {
		return err
	}
	id, err := s.identity(ctx)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it undoes what it has begun
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, a.Stdout, a.Stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "O365PW_KEYCHAIN") && !strings.HasPrefix(v, "XDG_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, id.environ...)
	uid := -1
	if id.user != "" && a.Root == "" {
		if uid, err = runAs(cmd, id.user); err != nil {
			return &noServiceError{problem: "there is no user " + id.user + " here: " + err.Error(), hint: "sudo o365pw service install --system"}
		}
	}
	if id.passphrase != nil {
		passphrase, err := id.passphrase(ctx)
		if err != nil {
			return err
		}
		if !passphrase.IsZero() {
			r, err := passedOn(passphrase, uid)
			if err != nil {
				return fmt.Errorf("pass the keychain's passphrase on: %w", err)
			}
			defer r.Close()
			cmd.ExtraFiles = []*os.File{r} // the first behind stderr
			cmd.Env = append(cmd.Env, "O365PW_KEYCHAIN_PASSPHRASE_FILE=/dev/fd/3")
		}
	}
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return &failedError{code: exitCode(max(e.ExitCode(), 1))} // it has said why
	}
	return err
}
