package cli

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
)

type auditOptions struct {
	since  string
	events []string
}

func newAudit(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what was done to app passwords and with them",
		Long: `Shows the audit log of this machine: who made, looked at and revoked app
passwords, and how they were used. It holds no secret. Works without
configuration, keychain and network.

Events: ` + strings.Join(eventNames()[:6], ", ") + `,
` + strings.Join(eventNames()[6:12], ", ") + `,
` + strings.Join(eventNames()[12:], ", ") + `.

On a terminal a table; in a pipe one line each, tab-separated, with a header.
-o name prints the name of each app password that occurs, once.`,
		Example: `  o365pw audit
  o365pw audit --since 24h
  o365pw audit --since 2026-11-01 --event refused --event decoy-used
  o365pw audit --event sign-in -o json | jq -r '.entries[].address' | sort | uniq -c
  o365pw audit verify`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runAudit(o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.since, "since", "", "only what happened in this time (24h, 7d), or since then (2026-11-01, or RFC 3339)")
	f.StringSliceVar(&o.events, "event", nil, "only these events; repeat for more")
	cmd.AddCommand(newAuditVerify(a))
	return cmd
}

func eventNames() []string {
	var names []string
	for _, e := range audit.Events() {
		names = append(names, string(e))
	}
	return names
}

func (a *app) runAudit(o auditOptions) error {
	for _, e := range o.events {
		if !audit.Event(e).Known() {
			return &usageError{problem: "--event " + quote(e) + " is none of " + strings.Join(eventNames(), ", "), hint: "o365pw audit --event sign-in"}
		}
	}
	var since time.Time
	if o.since != "" {
		var err error
		if since, err = config.ParseSince(o.since, a.Now()); err != nil {
			return &usageError{problem: "--since: " + err.Error(), hint: "as in --since 24h, 7d, 2026-11-01 or 2026-11-01T12:00:00Z"}
		}
	}
	log, err := a.auditLog()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(printer{a})
	add, end := a.entryFormat(out)
	printed, unreadable := 0, 0
	var first error // of the lines that cannot be read
	for e, err := range log.Read(since) {
		if le, ok := errors.AsType[*audit.LineError](err); ok {
			if unreadable++; first == nil {
				first = le
			}
			continue
		}
		if err != nil {
			return err
		}
		if len(o.events) > 0 && !slices.Contains(o.events, string(e.Event)) {
			continue
		}
		printed++
		if err := add(e); err != nil {
			return err
		}
	}
	if err := end(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	switch {
	case unreadable == 1:
		a.warn("%v; check with: o365pw audit verify", first)
	case unreadable > 1:
		a.warn("%d lines of the audit log cannot be read; check with: o365pw audit verify; the first: %v", unreadable, first)
	case printed == 0:
		a.noteEmpty(log)
	}
	return nil
}

func (a *app) auditLog() (*audit.Log, error) {
	dir, err := config.StateDir(a.Getenv)
	if err != nil {
		return nil, err
	}
	return auditLogIn(dir), nil
}

// noteEmpty tells why nothing was printed.
func (a *app) noteEmpty(log *audit.Log) {
	if _, err := os.Stat(log.Path); err != nil {
		a.note("there is no audit log yet; it would be %s", log.Path)
		return
	}
	a.note("the audit log has no such entries")
}

// printer is stdout for what is printed as it comes.
type printer struct{ a *app }

// Write implements [io.Writer].
func (p printer) Write(b []byte) (int, error) {
	if err := p.a.print(b); err != nil {
		return 0, err
	}
	return len(b), nil
}
