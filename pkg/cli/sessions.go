package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

func newSessions(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the mail programs that are signed in, or close one's session",
		Long: `Lists the open sessions of the running gateway, the oldest first: which app
password, which mailbox, from where, since when, and how many bytes have gone up
to the mail server and down from it.

On a terminal a table; in a pipe one line each, tab-separated, with a header.
"-o name" prints the ids alone.`,
		Example: `  o365pw sessions
  o365pw sessions -o json | jq '.sessions[] | select(.protocol == "imap")'
  o365pw sessions close 17`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runSessions(cmd.Context()) },
	}
	cmd.AddCommand(newSessionsClose(a))
	return cmd
}

func newSessionsClose(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "close ID...",
		Short: "Close sessions by their ids",
		Long: `Closes open sessions. The mail program is told good-bye, and may sign in again,
as most do at once; to keep it out, revoke its app password.`,
		Example: `  o365pw sessions close 17
  o365pw sessions -o name | xargs o365pw sessions close`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeSessions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runSessionsClose(cmd.Context(), args) },
	}
}

// running is the control socket of this state folder's gateway.
func (a *app) running() (gateway.Control, error) {
	dir, err := config.StateDir(a.Getenv)
	return controlOf(dir), err
}

func (a *app) runSessions(ctx context.Context) error {
	c, err := a.running()
	if err != nil {
		return err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	return a.printSessions(st.Sessions)
}

// sessionsJSON is what sessions prints.
type sessionsJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	Sessions      []gateway.Session `json:"sessions"`
}

func (a *app) printSessions(list []gateway.Session) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(sessionsJSON{schemaVersion, orEmpty(list)})
	case outputYAML:
		return a.printYAML(sessionsJSON{schemaVersion, orEmpty(list)})
	case outputCSV:
		var rows [][]string
		for _, s := range list {
			rows = append(rows, sessionRow(s))
		}
		return a.printCSV([]string{"id", "protocol", "remote", "tls", "appPasswordId", "appPassword", "profile", "mailbox", "since", "bytesUp", "bytesDown", "tlsVersion"}, rows)
	case outputName:
		for _, s := range list {
			if err := a.printf("%d\n", s.ID); err != nil {
				return err
			}
		}
		return nil
	case outputAuto:
		if !a.stdoutTTY() {
			return a.printSessionLines(list)
		}
	}
	if len(list) == 0 {
		a.note("no mail program is signed in")
		return nil
	}
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{strconv.FormatUint(s.ID, 10), dash(s.Name), dash(s.Mailbox), string(s.Protocol), s.Remote.Addr().String(),
			relative(s.Since, a.Now()), size(s.BytesUp), size(s.BytesDown)})
	}
	return a.table([]string{"ID", "APP PASSWORD", "MAILBOX", "PROTOCOL", "FROM", "SINCE", "UP", "DOWN"}, rows)
}

func sessionRow(s gateway.Session) []string {
	return []string{strconv.FormatUint(s.ID, 10), string(s.Protocol), s.Remote.String(), strconv.FormatBool(s.TLS), s.AppID, s.Name, s.Profile, s.Mailbox,
		s.Since.UTC().Format(time.RFC3339), strconv.FormatInt(s.BytesUp, 10), strconv.FormatInt(s.BytesDown, 10), s.TLSVersion}
}

// printSessionLines is for scripts: full values, times in RFC 3339, bytes as
// numbers.
func (a *app) printSessionLines(list []gateway.Session) error {
	var b strings.Builder
	b.WriteString("ID\tAPP PASSWORD\tMAILBOX\tPROTOCOL\tFROM\tTLS\tSINCE\tUP\tDOWN\n")
	for _, s := range list {
		row := sessionRow(s)
		for i, col := range []int{0, 5, 7, 1, 2, 3, 8, 9, 10} {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(printable(row[col]))
		}
		b.WriteByte('\n')
	}
	return a.print([]byte(b.String()))
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, "kB"
	for _, next := range []string{"MB", "GB", "TB"} {
		if v < 999.95 {
			break
		}
		v, unit = v/1000, next
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// closingAtOnce is how many sessions are closed at the same time.
const closingAtOnce = 32

func (a *app) runSessionsClose(ctx context.Context, args []string) error {
	var ids []uint64
	for _, arg := range args {
		id, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return &usageError{problem: quote(arg) + " is not the id of a session, which is a number", hint: "o365pw sessions"}
		}
		ids = append(ids, id)
	}
	c, err := a.running()
	if err != nil {
		return err
	}
	// Each takes as long as its mail program takes to leave, a second at most.
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	slots := make(chan struct{}, closingAtOnce)
	for i, id := range ids {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = c.CloseSession(ctx, id)
		})
	}
	wg.Wait()
	for i, id := range ids {
		if errs[i] == nil {
			a.note("session %d is closed", id)
		}
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	return a.failures(errs, len(ids), "closed")
}

// completeSessions offers the ids of the open sessions.
func (a *app) completeSessions(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	c, err := a.running()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	st, err := c.Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, s := range st.Sessions {
		if id := strconv.FormatUint(s.ID, 10); strings.HasPrefix(id, toComplete) {
			out = append(out, cobra.CompletionWithDesc(id, string(s.Protocol)+": "+s.Name))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
