package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

// expiresSoon is from when on list marks an app password.
const expiresSoon = 30 * 24 * time.Hour

type listOptions struct {
	local    bool
	expiring string
	sort     string
}

var sortKeys = []string{"name", "created", "expires", "last-used", "status", "mailbox"}

func newList(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List app passwords",
		Long: `Lists every password credential of the application, joined with what this
machine knows of it.

  active        opens its mailboxes
  expired       its end date is past
  revoked       known here, but gone from the application: removed in Entra or
                from another machine; revoke it here to take it off the list
  remote-only   on the application, unknown to this machine: made on another
                machine or by hand in Entra

The last use is what the gateway of this machine has written down, at most a
minute ago. Sorted by it, those never used come first.

On a terminal a table; in a pipe one line each, tab-separated, with a header.`,
		Example: `  o365pw list
  o365pw list --local
  o365pw list --expiring 30d --sort expires
  o365pw list --sort last-used
  o365pw list -o json | jq '.appPasswords[] | select(.status == "remote-only")'
  o365pw list -o name`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runList(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.local, "local", false, "only what this machine knows, without asking Graph")
	f.StringVar(&o.expiring, "expiring", "", "only those that expire within this time (30d, 12h) or have expired")
	f.StringVar(&o.sort, "sort", "name", "order: "+strings.Join(sortKeys, ", "))
	return cmd
}

func (a *app) runList(ctx context.Context, o listOptions) error {
	if !slices.Contains(sortKeys, o.sort) {
		return &usageError{problem: "--sort " + quote(o.sort) + " is none of " + strings.Join(sortKeys, ", "), hint: "o365pw list --sort expires"}
	}
	var before time.Time
	if o.expiring != "" {
		var err error
		if before, err = config.ParseExpiry(o.expiring, a.Now()); err != nil {
			return &usageError{problem: "--expiring: " + err.Error(), hint: "o365pw list --expiring 30d"}
		}
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	var entries []apppassword.Entry
	if o.local {
		entries, err = s.manager.Local()
	} else {
		entries, err = s.manager.List(ctx)
	}
	if err != nil {
		return err
	}
	if notes, nerr := s.manager.Interrupted(); nerr == nil {
		for _, n := range notes {
			a.warn("the create or rotate of %q was interrupted; what it may have left is removed by the next create, rotate or revoke", n.Name)
		}
	}
	a.warnUnfinished(entries)
	if !before.IsZero() {
		entries = slices.DeleteFunc(entries, func(e apppassword.Entry) bool { return e.Expires.IsZero() || e.Expires.After(before) })
	}
	sortEntries(entries, o.sort)
	return a.printEntries(entries)
}

func sortEntries(entries []apppassword.Entry, key string) {
	slices.SortStableFunc(entries, func(x, y apppassword.Entry) int {
		byName := cmp.Or(strings.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)), strings.Compare(x.ID, y.ID))
		switch key {
		case "created":
			return cmp.Or(x.Created.Compare(y.Created), byName)
		case "expires":
			if x.Expires.IsZero() != y.Expires.IsZero() { // what never ends comes last
				return -x.Expires.Compare(y.Expires)
			}
			return cmp.Or(x.Expires.Compare(y.Expires), byName)
		case "last-used":
			return cmp.Or(x.LastUse.Time.Compare(y.LastUse.Time), byName)
		case "status":
			return cmp.Or(strings.Compare(string(x.Status), string(y.Status)), byName)
		case "mailbox":
			return cmp.Or(slices.Compare(x.Mailboxes, y.Mailboxes), byName)
		}
		return byName
	})
}

func (a *app) printEntries(entries []apppassword.Entry) error {
	switch a.output {
	case outputJSON, outputYAML:
		v := struct {
			SchemaVersion int               `json:"schemaVersion"`
			AppPasswords  []appPasswordJSON `json:"appPasswords"`
		}{SchemaVersion: schemaVersion, AppPasswords: []appPasswordJSON{}}
		for _, e := range entries {
			v.AppPasswords = append(v.AppPasswords, toJSON(e))
		}
		if a.output == outputYAML {
			return a.printYAML(v)
		}
		return a.printJSON(v)
	case outputCSV:
		var rows [][]string
		for _, e := range entries {
			rows = append(rows, csvRow(withPassword{AppPassword: toJSON(e)}, false))
		}
		return a.printCSV(csvHeader(false), rows)
	case outputName:
		for _, e := range entries {
			if err := a.printf("%s\n", printable(e.Name)); err != nil {
				return err
			}
		}
		return nil
	case outputAuto:
		if !a.stdoutTTY() {
			return a.printTabbed(entries)
		}
	}
	return a.printTable(entries)
}

// printTabbed is for scripts: full values, times in RFC 3339.
func (a *app) printTabbed(entries []apppassword.Entry) error {
	var b strings.Builder
	b.WriteString("NAME\tMAILBOXES\tALLOW\tCREATED\tEXPIRES\tLAST USED\tSTATUS\tID\tREAD ONLY\tFROM\tMAX PER HOUR\tLOGIN NAME\tDECOY\tLAST PROTOCOL\tLAST ADDRESS\n")
	for _, e := range entries {
		row := csvRow(withPassword{AppPassword: toJSON(e)}, false)
		for i, col := range []int{1, 3, 4, 8, 9, 10, 11, 0, 12, 13, 14, 15, 16, 17, 18} {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(printable(row[col]))
		}
		b.WriteByte('\n')
	}
	return a.print([]byte(b.String()))
}

func (a *app) printTable(entries []apppassword.Entry) error {
	if len(entries) == 0 {
		a.note("no app passwords; make one with: o365pw create --name \"Outlook on Mac\"")
		return nil
	}
	now, width := a.Now(), a.width()
	var rows [][]string
	for _, e := range entries {
		name, expires, status := printable(e.Name), relative(e.Expires, now), string(e.Status)
		if name == "" {
			name = "-"
		}
		if e.Status == apppassword.Active && !e.Expires.IsZero() && e.Expires.Sub(now) < expiresSoon {
			expires = a.paint(yellow, "⚠ "+expires)
		}
		if e.Decoy {
			status += " decoy"
		}
		switch e.Status {
		case apppassword.Active:
			status = a.paint(green, status)
		case apppassword.RemoteOnly:
			status = a.paint(faint, status)
		default:
			status = a.paint(red, status)
		}
		if e.InOverlap(now) {
			status += ", old one ends " + relative(e.Previous.Until, now)
		}
		used := lastUsed(e.LastUse, now, "")
		if e.Status == apppassword.RemoteOnly {
			used = "-" // nobody here knows
		}
		rows = append(rows, []string{name, dash(strings.Join(e.Mailboxes, ", ")), dash(allowed(e.Record)), relative(e.Created, now), expires,
			used, status, e.ID})
	}
	return a.table(fit([]string{"NAME", "MAILBOX", "ALLOW", "CREATED", "EXPIRES", "LAST USED", "STATUS", "ID"}, rows, width))
}

// allowed writes protocols with their limits, as short as a table wants it:
// "imap ro,smtp 20/h from". From whom is for show to say.
func allowed(r apppassword.Record) string {
	var out []string
	for _, p := range r.Allow {
		switch {
		case p != "smtp" && r.ReadOnly:
			p += " ro"
		case p == "smtp" && r.MaxPerHour > 0:
			p += fmt.Sprintf(" %d/h", r.MaxPerHour)
		}
		if strings.HasPrefix(p, "smtp") && len(r.From) > 0 {
			p += " from"
		}
		out = append(out, p)
	}
	return strings.Join(out, ",")
}

// lastUsed writes a last use for people. The address follows the word before
// it, where there is one.
func lastUsed(u apppassword.LastUse, now time.Time, from string) string {
	if u.Time.IsZero() {
		return "never"
	}
	s := relative(u.Time, now) + ", " + u.Protocol
	if from != "" && u.Address != "" {
		s += from + u.Address
	}
	return printable(s)
}

// fit makes a table narrow enough for a terminal: the id goes first, which
// other formats show, then the time it was made, and so on; then long names and
// mailboxes are cut.
func fit(header []string, rows [][]string, width int) ([]string, [][]string) {
	return narrow(header, rows, width, []string{"ID", "CREATED", "ALLOW", "LAST USED"}, []string{"MAILBOX", "NAME"})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}
