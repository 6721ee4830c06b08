package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/audit"
)

func newAuditVerify(a *app) *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nobody has changed the audit log",
		Long: `Checks that each line of the audit log follows from the one before. A line that
was changed, put in or taken out breaks the chain from there on.

That lines were cut off at the end, or the whole log written anew, shows only
against a head that was noted before, on another machine or on paper: give it
with --head.`,
		Example: `  o365pw audit verify
  o365pw audit verify -o name > head.txt          # note the head
  o365pw audit verify --head "$(cat head.txt)"    # later`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runAuditVerify(head, cmd.Flags().Changed("head"))
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "head that an earlier verify printed: the log must still have that line")
	return cmd
}

func (a *app) runAuditVerify(head string, given bool) error {
	head = strings.ToLower(strings.TrimSpace(head))
	if given && !audit.IsHash(head) { // an unset variable in a script must not mean "none"
		return &usageError{problem: "--head " + quote(head) + " is no hash of 64 hex digits", hint: "take the one that an earlier o365pw audit verify printed"}
	}
	log, err := a.auditLog()
	if err != nil {
		return err
	}
	r, err := log.Verify(head)
	if err != nil {
		return err
	}
	if r.Entries == 0 {
		if _, err := os.Stat(log.Path); err == nil {
			a.warn("the audit log %s is empty: what it held has been taken away", log.Path)
		} else {
			a.noteEmpty(log)
		}
	}
	return a.printReport(r)
}

func (a *app) printReport(r audit.Report) error {
	stamp := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	v := struct {
		SchemaVersion int        `json:"schemaVersion"`
		Entries       int        `json:"entries"`
		First         *time.Time `json:"first"`
		Last          *time.Time `json:"last"`
		Head          string     `json:"head"`
		Torn          int        `json:"torn"`
	}{schemaVersion, r.Entries, stamp(r.First), stamp(r.Last), r.Head, r.Torn}
	date := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"entries", "first", "last", "head", "torn"},
			[][]string{{strconv.Itoa(r.Entries), date(r.First), date(r.Last), r.Head, strconv.Itoa(r.Torn)}})
	}
	if r.Entries == 0 {
		return nil
	}
	if a.output == outputName {
		return a.printf("%s\n", r.Head)
	}
	entries := "1 entry"
	if r.Entries != 1 {
		entries = fmt.Sprintf("%d entries", r.Entries)
	}
	torn := ""
	if r.Torn > 0 {
		torn = "; " + plural(r.Torn, "line") + " torn by a crash and repaired"
	}
	return a.printf("%s from %s to %s, unbroken%s; head %s\n", entries, date(r.First), date(r.Last), torn, r.Head)
}
