package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
)

// serviceOptions are the flags of the service commands.
type serviceOptions struct {
	user, system   bool
	dryRun         bool
	program        string
	passphraseFile string
	follow         bool
	lines          int
}

// supervisor is what starts programs on a system and keeps them running:
// systemd, launchd, or Windows.
type supervisor interface {
	// install tells what has to be there for the gateway to be started.
	install(ctx context.Context, o serviceOptions) (servicePlan, error)
	// uninstall tells what has to go again.
	uninstall(ctx context.Context) (servicePlan, error)
	start(ctx context.Context) error
	stop(ctx context.Context) error
	restart(ctx context.Context) error
	state(ctx context.Context) (serviceState, error)
	logs(ctx context.Context, o serviceOptions) error
	// identity is what the machine's service runs as.
	identity(ctx context.Context) (serviceIdentity, error)
}

func newService(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Run the gateway as a service of systemd, launchd or Windows",
		Long: `Makes "o365pw serve" a service, which runs without anybody signed in at a
terminal, and starts again after a fault and with the system.

A person's service (--user) runs as that person, with that person's
configuration and keychain. The machine's (--system, what root gets) runs as the
user o365pw, with files of its own and the keychain in a file. systemd and
launchd have both, Windows the machine's alone.`,
		Example: `  o365pw service install
  o365pw service start
  o365pw service status`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.AddCommand(newServiceInstall(a), newServiceUninstall(a),
		newServiceDo(a, "start", "Start the service", "Starts the service and waits until the gateway is ready, or has failed to start.", supervisor.start, "the service runs"),
		newServiceDo(a, "stop", "Stop the service", `Stops the service, after a message that is under way has arrived. It starts
again with the system; "o365pw service uninstall" ends that.`, supervisor.stop, "the service has ended"),
		newServiceDo(a, "restart", "Stop the service and start it again", `Stops the service and starts it again, such as after an update of the program.
With systemd, mail programs that connect meanwhile wait for the new gateway.`, supervisor.restart, "the service runs again"),
		newServiceStatus(a), newServiceLogs(a), newServiceRun(a))
	return cmd
}

// scopeFlags binds --user and --system.
func scopeFlags(cmd *cobra.Command, o *serviceOptions) {
	cmd.Flags().BoolVar(&o.user, "user", false, "the service of the person who calls (default, unless it is root)")
	cmd.Flags().BoolVar(&o.system, "system", false, "the service of the machine (default for root, and on Windows)")
}

func newServiceInstall(a *app) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Make the gateway a service",
		Long: `Writes what the system needs to run the gateway as a service, and has it started
with the system (--user: when the person signs in). "o365pw service start"
starts it now.

Run again, it brings what it has written up to date, such as when the addresses
in [gateway] have changed, on which systemd listens for the gateway. A file that
was not written by it is left alone, and refused.

With --system it also makes the user o365pw, its folders, and where there is
none a random passphrase for the keychain, which only the service and root can
read: with systemd by "systemd-creds encrypt", elsewhere in a file.

With --user the service gets those of this shell's variables that say where
things are, such as O365PW_CONFIG and HTTPS_PROXY; never a secret.`,
		Example: `  o365pw service install
  o365pw service install --dry-run
  o365pw service install --user --passphrase-file ~/.config/o365pw/passphrase
  sudo o365pw service install --system
  sudo o365pw service install --system --program /usr/local/bin/o365pw`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runServiceInstall(cmd.Context(), o) },
	}
	scopeFlags(cmd, &o)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be written and run, and do nothing")
	f.StringVar(&o.program, "program", "", "path of the program that the service runs (default: this one)")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file with the passphrase of the file keychain, which nobody else may read")
	return cmd
}

func newServiceUninstall(a *app) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove what install has written",
		Long: `Stops the service and removes the files that install has written. The
configuration, the state folder with its app passwords, the keychain, its
passphrase and the user o365pw stay.`,
		Example: `  o365pw service uninstall
  o365pw service uninstall --user --dry-run
  sudo o365pw service uninstall --system`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runServiceUninstall(cmd.Context(), o) },
	}
	scopeFlags(cmd, &o)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would be run and removed, and do nothing")
	return cmd
}

// newServiceDo is start, stop or restart.
func newServiceDo(a *app, name, short, long string, do func(supervisor, context.Context) error, said string) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:               name,
		Short:             short,
		Long:              long,
		Example:           "  o365pw service " + name + "\n  o365pw service " + name + " --user\n  sudo o365pw service " + name + " --system --verbose",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.supervisor(o, true)
			if err != nil {
				return err
			}
			a.progress.set("waiting for the service to %s", name)
			if err := do(s, cmd.Context()); err != nil {
				return err
			}
			a.note("%s; look with: o365pw service status", said)
			return nil
		},
	}
	scopeFlags(cmd, &o)
	return cmd
}

func newServiceLogs(a *app) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the service's log",
		Long: `Prints the last lines of the service's log: with systemd from the journal, with
launchd from the file the service writes, on Windows from the application event
log. Lines of the gateway are JSON, as "o365pw serve --log json" has them.`,
		Example: `  o365pw service logs
  o365pw service logs --user --lines 500 | grep refused
  sudo o365pw service logs --system --follow`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.lines < 1 {
				return &usageError{problem: "--lines takes a number from 1", hint: "o365pw service logs --lines 100"}
			}
			s, err := a.supervisor(o, false)
			if err != nil {
				return err
			}
			return s.logs(cmd.Context(), o)
		},
	}
	scopeFlags(cmd, &o)
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	cmd.Flags().IntVarP(&o.lines, "lines", "n", 100, "how many lines")
	return cmd
}

// supervisor is this system's. With change, it has to be there but for a dry
// run, and the caller allowed to change the machine's service.
func (a *app) supervisor(o serviceOptions, change bool) (supervisor, error) {
	if o.user && o.system {
		return nil, &usageError{problem: "--user and --system exclude each other", hint: "o365pw service install --user"}
	}
	system := o.system || !o.user && os.Geteuid() == 0
	if system && change && a.Root == "" && runtime.GOOS != "windows" && os.Geteuid() != 0 {
		return nil, &noServiceError{problem: "only root can change the services of this machine", hint: "the same with sudo; or a service of your own: --user"}
	}
	switch goos := cmp.Or(a.GOOS, runtime.GOOS); goos {
	case "linux":
		if change && !o.dryRun {
			if err := a.systemdRuns(); err != nil {
				return nil, err
			}
		}
		return a.systemd(system)
	case "darwin":
		return a.launchd(system)
	case "windows":
		if o.user {
			return nil, &usageError{problem: "Windows has no services of a person", hint: `o365pw service install in a terminal of an administrator; or have Task Scheduler run "o365pw serve" when you sign in`}
		}
		return a.windowsService(change)
	default:
		return nil, &noServiceError{problem: "o365pw does not know the services of " + goos, hint: `have what starts your services run "o365pw serve"; docs/service.md has a script for FreeBSD`}
	}
}

// noServiceError tells why there is no service to speak of here.
type noServiceError struct {
	problem, hint string
}

func (e *noServiceError) Error() string { return e.problem }

// systemdRuns is an error on Linux without systemd (sd_booted(3)).
func (a *app) systemdRuns() error {
	if _, err := os.Stat(a.systemPath("/run/systemd/system")); err == nil {
		return nil
	}
	e := &noServiceError{problem: "systemd does not run here", hint: `have what starts your services run "o365pw serve" (it stays in the foreground, and ends on SIGTERM); in a container it is the command`}
	if a.Getenv("WSL_DISTRO_NAME") != "" {
		e.hint = `put "systemd=true" under [boot] in /etc/wsl.conf, then in Windows: wsl --shutdown; or run: o365pw serve`
	}
	return e
}

// systemPath is a file of the system.
func (a *app) systemPath(path string) string {
	if a.Root == "" {
		return path
	}
	return filepath.Join(a.Root, path)
}
