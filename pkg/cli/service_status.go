package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/gateway"
)

// serviceState is what service status prints.
type serviceState struct {
	SchemaVersion int        `json:"schemaVersion"`
	Supervisor    string     `json:"supervisor"` // systemd, launchd or windows
	Scope         string     `json:"scope"`      // user or system
	Installed     bool       `json:"installed"`
	Enabled       bool       `json:"enabled"` // starts with the system, or when the person signs in
	Running       bool       `json:"running"`
	State         string     `json:"state"` // in the supervisor's words
	Since         *time.Time `json:"since"` // null: it does not run
	PID           int        `json:"pid"`   // 0: it does not run
	Path          string     `json:"path"`  // of the unit, the property list or the program; empty: not installed
	Sockets       []string   `json:"sockets"`

	// Listens are the addresses by protocol; null where the gateway does not
	// run, or only its own user may ask it.
	Listens  map[gateway.Protocol]string `json:"listens"`
	Version  string                      `json:"version"`
	Sessions int                         `json:"sessions"` // how many are open

	stateDir string
}

func newServiceStatus(a *app) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the service is installed, and how it runs",
		Long: `Shows whether the service is installed, starts by itself, and runs, since when,
and where it listens. The exit code is 0 where it runs, else 1. "o365pw status"
says more of the gateway.`,
		Example: `  o365pw service status
  o365pw service status --user -o json
  sudo o365pw service status --system`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runServiceStatus(cmd.Context(), o) },
	}
	scopeFlags(cmd, &o)
	return cmd
}

func (a *app) runServiceStatus(ctx context.Context, o serviceOptions) error {
	s, err := a.supervisor(o, false)
	if err != nil {
		return err
	}
	st, err := s.state(ctx)
	if err != nil {
		return err
	}
	st.SchemaVersion, st.Sockets = schemaVersion, orEmpty(st.Sockets)
	if st.stateDir != "" {
		// The gateway's own word; that it cannot be asked is no fault of the
		// service.
		if g, err := controlOf(st.stateDir).Status(ctx); err == nil {
			st.Listens, st.Version, st.Sessions = g.Listeners, g.Version, len(g.Sessions)
		}
	}
	switch a.output {
	case outputJSON:
		err = a.printJSON(st)
	case outputYAML:
		err = a.printYAML(st)
	case outputCSV:
		since := ""
		if st.Since != nil {
			since = st.Since.Format(time.RFC3339)
		}
		err = a.printCSV([]string{"supervisor", "scope", "installed", "enabled", "running", "state", "since", "pid", "path", "listens"},
			[][]string{{st.Supervisor, st.Scope, fmt.Sprint(st.Installed), fmt.Sprint(st.Enabled), fmt.Sprint(st.Running), st.State, since, fmt.Sprint(st.PID), st.Path, strings.Join(st.listens(), " ")}})
	case outputName:
		err = a.printf("%s\n", st.State)
	default:
		err = a.printServiceState(st)
	}
	if err != nil || st.Running {
		return err
	}
	flag := map[string]string{"user": " --user", "system": " --system"}[st.Scope]
	if !st.Installed {
		return &noServiceError{problem: "the service is not installed", hint: "o365pw service install" + flag}
	}
	return &noServiceError{problem: "the service does not run", hint: "o365pw service start" + flag + "; why it ended: o365pw service logs" + flag}
}

func (st serviceState) listens() (list []string) {
	for _, p := range gateway.Protocols() {
		if addr := st.Listens[p]; addr != "" {
			list = append(list, string(p)+"="+addr)
		}
	}
	return list
}

func (a *app) printServiceState(st serviceState) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, printable(fmt.Sprintf(format, args...)))
	}
	kind := st.Supervisor + ", " + map[string]string{"user": "of this person", "system": "of this machine"}[st.Scope]
	switch {
	case !st.Installed:
		line("Service", "%s: not installed", kind)
	case st.Running:
		line("Service", "%s: running (process %d), since %s", kind, st.PID, relativeOr(st.Since, a.Now()))
	default:
		line("Service", "%s: %s", kind, st.State)
	}
	if st.Installed {
		line("Starts", "%s", map[bool]string{true: "by itself", false: "only when it is told to"}[st.Enabled])
		line("File", "%s", st.Path)
	}
	for _, addr := range st.Sockets {
		line("Socket", "%s, which %s holds open", addr, st.Supervisor)
	}
	for _, p := range gateway.Protocols() {
		if addr := st.Listens[p]; addr != "" && !slices.Contains(st.Sockets, addr) {
			line("Listens", "%s on %s", p, addr)
		}
	}
	if st.Version != "" {
		line("Gateway", "version %s, %s", st.Version, plural(st.Sessions, "open session"))
	}
	return a.print([]byte(b.String()))
}
