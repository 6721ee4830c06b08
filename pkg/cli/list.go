package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
)

// expiresSoon is from when on list marks an app password.
const expiresSoon = 30 * 24 * time.Hour

type listOptions struct {
	local       bool
	allProfiles bool
	expiring    string
	exitCode    bool
	remoteUse   bool
	sort        string
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

With --all-profiles each application is read once, also where profiles share
it. A profile that cannot be read is told on stderr and sets the exit code; what
the others have is printed.

With --exit-code, 0 means that nothing is listed and 1 that something is, for
cron and CI; with --expiring, that something expires. Errors keep their codes,
and are told instead.

With --remote-use, also when what stands behind each last signed in at Entra,
from wherever that was, by Graph's report on credentials (beta, hours behind,
global cloud only). That takes the Graph permission AuditLog.Read.All, and a
tenant with Entra ID P1 or P2. In JSON it is remoteLastUsed, absent where the
report has nothing.

On a terminal a table; in a pipe one line each, tab-separated, with a header.`,
		Example: `  o365pw list
  o365pw list --local
  o365pw list --expiring 30d --sort expires
  o365pw list --all-profiles
  o365pw list --all-profiles --expiring 30d --exit-code
  o365pw list --remote-use -o csv
  o365pw list --sort last-used
  o365pw list -o json | jq '.appPasswords[] | select(.status == "remote-only")'
  o365pw list -o name`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runList(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.local, "local", false, "only what this machine knows, without asking Graph")
	f.BoolVar(&o.allProfiles, "all-profiles", false, "those of all profiles of the configuration")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 when something is listed, with 0 when nothing is")
	f.BoolVar(&o.remoteUse, "remote-use", false, "also the last sign-in at Entra, where Graph's report can be read")
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
	if o.local && o.remoteUse {
		return &usageError{problem: "--local asks nobody, and --remote-use asks Graph", hint: "leave one of them out"}
	}
	f, err := a.openFleet(o.allProfiles)
	if err != nil {
		return err
	}
	var entries []apppassword.Entry
	unread := f.failed
	if o.local {
		entries, err = f.Local()
	} else {
		entries, unread, err = a.listFleet(ctx, f)
	}
	if err != nil {
		return err
	}
	if notes, nerr := f.Interrupted(); nerr == nil {
		for _, n := range notes {
			a.warn("the create or rotate of %q was interrupted; what it may have left is removed by the next create, rotate or revoke", n.Name)
		}
	}
	a.warnUnfinished(entries)
	if !before.IsZero() {
		entries = slices.DeleteFunc(entries, func(e apppassword.Entry) bool { return e.Expires.IsZero() || e.Expires.After(before) })
	}
	if o.remoteUse {
		a.addRemoteUse(ctx, f, entries)
	}
	sortEntries(entries, o.sort)
	if err := a.printEntries(entries, listColumns{profile: f.all, remoteUse: o.remoteUse}); err != nil {
		return err
	}
	if err := a.failures(unread, len(f.Managers)+len(f.failed), "read"); err != nil {
		return err
	}
	if o.exitCode && len(entries) > 0 {
		what := "listed"
		if !before.IsZero() {
			what = "expired, or expiring by " + before.In(a.Now().Location()).Format("2 January 2006 15:04")
		}
		return &failedError{code: failed, msg: fmt.Sprintf("%s: %s", what, plural(len(entries), "app password"))}
	}
	return nil
}

// addRemoteUse adds what Graph's report tells. Where it cannot be read, the list
// does without.
func (a *app) addRemoteUse(ctx context.Context, f *fleet, entries []apppassword.Entry) {
	used, errs := f.RemoteUse(ctx)
	for i, e := range entries {
		entries[i].RemoteUse = used[e.ID]
	}
	var told []string
	for _, err := range errs {
		if why := noRemoteUse(err); !slices.Contains(told, why) {
			told = append(told, why)
			a.warn("the last sign-ins at Entra are not known: %s", why)
		}
	}
}

// noRemoteUse says why the report cannot be read, and whose move it is.
func noRemoteUse(err error) string {
	ge, ofGraph := errors.AsType[*graph.Error](err)
	ee, ofEntra := errors.AsType[*entra.Error](err)
	switch {
	case ofGraph && ge.NeedsLicence():
		return "the report takes a licence of Entra ID P1 or P2, which the tenant does not have"
	case ofGraph && ge.IsAbsent():
		return "the cloud's Microsoft Graph has no such report"
	case ofGraph && ge.IsForbidden(), ofEntra && ee.Number() == consentMissing:
		return "Graph's report takes the permission AuditLog.Read.All; an administrator (Privileged Role Administrator) grants it to the application that signs in, and a person also needs the role Reports Reader"
	}
	return err.Error()
}

// consentMissing is AADSTS65001: nobody has consented to the permission.
const consentMissing = 65001

func sortEntries(entries []apppassword.Entry, key string) {
	sort.SliceStable(entries, func(i, j int) bool { return compareEntries(&entries[i], &entries[j], key) < 0 })
}

func compareEntries(x, y *apppassword.Entry, key string) int {
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
}

// listColumns are those that are there only where they are asked for.
type listColumns struct{ profile, remoteUse bool }

func (a *app) printEntries(entries []apppassword.Entry, with listColumns) error {
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
		header := csvHeader(false)
		if with.remoteUse {
			header = append(header, "remoteLastUsed")
		}
		var rows [][]string
		for _, e := range entries {
			v := toJSON(e)
			row := csvRow(withPassword{AppPassword: v}, false)
			if with.remoteUse {
				row = append(row, date(v.RemoteLastUsed))
			}
			rows = append(rows, row)
		}
		return a.printCSV(header, rows)
	case outputName:
		for _, e := range entries {
			if err := a.printf("%s\n", printable(e.Name)); err != nil {
				return err
			}
		}
		return nil
	case outputAuto:
		if !a.stdoutTTY() {
			return a.printTabbed(entries, with)
		}
	}
	return a.printTable(entries, with)
}

// printTabbed is for scripts: full values, times in RFC 3339. Columns are only
// ever added at the end.
func (a *app) printTabbed(entries []apppassword.Entry, with listColumns) error {
	var b strings.Builder
	b.WriteString("NAME\tMAILBOXES\tALLOW\tCREATED\tEXPIRES\tLAST USED\tSTATUS\tID\tREAD ONLY\tFROM\tMAX PER HOUR\tLOGIN NAME\tDECOY\tLAST PROTOCOL\tLAST ADDRESS")
	if with.profile {
		b.WriteString("\tPROFILE")
	}
	if with.remoteUse {
		b.WriteString("\tREMOTE LAST USED")
	}
	b.WriteByte('\n')
	for _, e := range entries {
		v := toJSON(e)
		row := csvRow(withPassword{AppPassword: v}, false)
		for i, col := range []int{1, 3, 4, 8, 9, 10, 11, 0, 12, 13, 14, 15, 16, 17, 18} {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(printable(row[col]))
		}
		if with.profile {
			b.WriteString("\t" + printable(e.Profile))
		}
		if with.remoteUse {
			b.WriteString("\t" + date(v.RemoteLastUsed))
		}
		b.WriteByte('\n')
	}
	return a.print([]byte(b.String()))
}

func (a *app) printTable(entries []apppassword.Entry, with listColumns) error {
	if len(entries) == 0 {
		a.note("no app passwords; make one with: o365pw create --name \"Outlook on Mac\"")
		return nil
	}
	header := []string{"NAME", "MAILBOX", "ALLOW", "CREATED", "EXPIRES", "LAST USED", "STATUS", "ID"}
	insert := func(row []string, before, cell string) []string {
		return slices.Insert(slices.Clone(row), slices.Index(header, before), cell)
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
		row := []string{name, dash(strings.Join(e.Mailboxes, ", ")), dash(allowed(e.Record)), relative(e.Created, now), expires,
			used, status, e.ID}
		if with.remoteUse {
			row = insert(row, "STATUS", relative(e.RemoteUse, now))
		}
		if with.profile {
			row = insert(row, "MAILBOX", printable(e.Profile))
		}
		rows = append(rows, row)
	}
	if with.remoteUse {
		header = insert(header, "STATUS", "REMOTE USE")
	}
	if with.profile {
		header = insert(header, "MAILBOX", "PROFILE")
	}
	return a.table(fit(header, rows, width))
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
		if strings.HasPrefix(p, "smtp") && r.Send == "graph" {
			p += " graph"
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
// other formats show, then the time it was made, and so on; then long
// mailboxes, what a status says besides, and long names are cut.
func fit(header []string, rows [][]string, width int) ([]string, [][]string) {
	return narrow(header, rows, width, []string{"ID", "CREATED", "ALLOW", "LAST USED"}, []string{"MAILBOX", "STATUS", "NAME"})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}
