package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

type revokeOptions struct {
	name        string
	all         bool
	allProfiles bool
	yes         bool
	ifExists    bool
	dryRun      bool
}

func newRevoke(a *app) *cobra.Command {
	var o revokeOptions
	cmd := &cobra.Command{
		Use:     "revoke NAME|ID...",
		Aliases: []string{"rm"},
		Short:   "Revoke app passwords",
		Long: `Removes the client secret behind each app password from the application, sees
that it is gone, and forgets the app password on this machine. One that stands
on a person's sign-in or on a certificate, and a decoy, has none: it is
forgotten, and nobody is asked. A running gateway closes the mail program's
sessions at once; a gateway elsewhere at its next check, within a minute.

On a terminal it asks first. Elsewhere it needs --yes. Works in CI, by name or
id, with nothing of o365pw on the machine but the program.

Many at once: as arguments, or with - from standard input, one name or id a line
(with --yes). --all-profiles looks for them in every profile. Several
applications are worked on at the same time, each by one request after the
other, and what Graph asks to wait all of them wait. A failure does not end the
rest: one that is alone sets the exit code, several make it 1, and each is
named. After Ctrl-C or a kill the same command goes on where that one ended.`,
		Example: `  o365pw revoke "Outlook on Mac"
  o365pw revoke --name "Outlook on Mac" --yes --if-exists
  o365pw revoke 8d4e2c1a-5b1f-4d6e-9a53-0c7b6d1f2e3a --yes
  o365pw revoke Scanner --all --dry-run
  o365pw revoke "Alice's phone" "Alice's laptop" --all-profiles --yes
  o365pw list --expiring 7d -o json | jq -r '.appPasswords[].id' | o365pw revoke - --yes`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("name") {
				args = append(args, o.name)
			}
			if len(args) == 0 || slices.ContainsFunc(args, func(s string) bool { return strings.TrimSpace(s) == "" }) {
				return &usageError{problem: "which app password? give its name or id", hint: "o365pw list"}
			}
			args, err := a.namesFrom(args, o)
			if err != nil {
				return err
			}
			return a.runRevoke(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the app password (the same as an argument)")
	f.BoolVar(&o.all, "all", false, "where several credentials have the name: all of them")
	f.BoolVar(&o.allProfiles, "all-profiles", false, "look in all profiles of the configuration")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.ifExists, "if-exists", false, "a name that is not there is no error")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be revoked, and change nothing")
	return cmd
}

// revokeResult is what became of one argument or one credential.
type revokeResult struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Result string `json:"result"` // revoked, would-revoke, absent, failed
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// namesFrom puts what standard input names in the place of "-".
func (a *app) namesFrom(args []string, o revokeOptions) ([]string, error) {
	i := slices.Index(args, "-")
	if i < 0 {
		return args, nil
	}
	if !o.yes && !o.dryRun {
		return nil, &usageError{problem: "with - standard input is the names, and cannot be asked", hint: "add --yes to revoke without being asked, or --dry-run to see what would be"}
	}
	names := slices.Clone(args[:i])
	lines := bufio.NewScanner(a.Stdin)
	for lines.Scan() {
		name := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\uFEFF")) // a byte order mark, as Windows writes it
		if !utf8.ValidString(name) || strings.Contains(name, "\x00") {
			// No name is like that, and with --if-exists it would be called absent.
			return nil, &usageError{problem: "standard input is not text in UTF-8", hint: "write the names in UTF-8, one a line; in PowerShell: $OutputEncoding = [Text.UTF8Encoding]::new()"}
		}
		if name != "" {
			names = append(names, name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read names from standard input: %w", err)
	}
	return append(names, slices.DeleteFunc(slices.Clone(args[i:]), func(s string) bool { return s == "-" })...), nil
}

func (a *app) runRevoke(ctx context.Context, args []string, o revokeOptions) error {
	if !o.yes && !o.dryRun && !a.interactive() {
		return &usageError{problem: "there is no terminal to ask on", hint: "add --yes to revoke without being asked"}
	}
	if len(args) == 0 {
		a.note("standard input names no app password")
		return a.printRevoked(nil)
	}
	f, err := a.openFleet(o.allProfiles)
	if err != nil {
		return err
	}
	entries, local, failures, err := a.revocable(ctx, f, args, o)
	if err != nil {
		return err
	}
	if _, err := f.Local(); err != nil {
		o.ifExists = false // what is on this machine alone cannot be called absent
	}
	chosen, results, errs := chooseEntries(entries, args, o)
	failures = append(failures, errs...)
	if len(chosen) > 0 && !o.yes && !o.dryRun {
		ok, err := a.confirm(ctx, revokeQuestion(chosen))
		if err != nil {
			return err
		}
		if !ok {
			return a.failures(append(failures, errors.New("nothing was revoked")), 0, "revoked")
		}
	}
	var outcome []error
	if !o.dryRun {
		outcome = a.remove(ctx, f, chosen, "revoked")
	}
	for i, e := range chosen {
		r := revokeResult{Name: e.Name, ID: e.ID, Result: "would-revoke"}
		if !o.dryRun {
			r.Result, r.Error, r.Hint = a.outcome(outcome[i], "revoked")
		}
		results = append(results, r)
	}
	// What an interrupted create left is the same kind of rubbish.
	if !o.dryRun {
		a.clearAway(ctx, f, local)
	}
	return errors.Join(a.printRevoked(results), a.removeFailures(ctx, chosen, outcome, failures, "revoked"))
}

// revocable lists what may be meant. Where every argument names what is on this
// machine alone, nobody else has to be asked: local tells that Graph was not.
// failed are profiles that could not be read.
func (a *app) revocable(ctx context.Context, f *fleet, args []string, o revokeOptions) (entries []apppassword.Entry, local bool, failed []error, err error) {
	here, err := f.Local()
	local = err == nil && !o.all && len(f.failed) == 0 && !slices.ContainsFunc(args, func(arg string) bool {
		e, err := apppassword.Match(here, arg)
		return err != nil || !e.Local()
	})
	if local {
		return here, true, nil, nil
	}
	entries, failed, err = a.listFleet(ctx, f)
	return entries, false, failed, err
}

// chooseEntries finds what the arguments name. An argument that fails does not
// keep the others from being tried.
func chooseEntries(entries []apppassword.Entry, args []string, o revokeOptions) (chosen []apppassword.Entry, results []revokeResult, errs []error) {
	seen := map[string]bool{}
	for _, arg := range args {
		found, err := apppassword.MatchAll(entries, arg)
		if err == nil && len(found) > 1 && !o.all {
			err = &apppassword.SeveralError{Name: arg, Entries: found}
		}
		if _, absent := errors.AsType[*apppassword.NotFoundError](err); absent && o.ifExists {
			results = append(results, revokeResult{Name: arg, Result: "absent"})
			continue
		}
		if err != nil {
			results = append(results, revokeResult{Name: arg, Result: "failed", Error: err.Error(), Hint: advise(err).hint})
			errs = append(errs, err)
			continue
		}
		for _, e := range found {
			if !seen[e.ID] {
				seen[e.ID] = true
				chosen = append(chosen, e)
			}
		}
	}
	return chosen, results, errs
}

func nameOrID(e apppassword.Entry) string {
	if e.Name == "" {
		return e.ID
	}
	return quote(e.Name)
}

// listedToAsk is how many a question names.
const listedToAsk = 50

// askedAbout are the lines above a question, one for each app password.
func askedAbout(chosen []apppassword.Entry) string {
	listed := chosen[:min(len(chosen), listedToAsk)]
	widest := 0
	for _, e := range listed {
		widest = max(widest, tablewriter.DisplayWidth(printable(nameOrID(e))))
	}
	var b strings.Builder
	for _, e := range listed {
		name := printable(nameOrID(e))
		fmt.Fprintf(&b, "  %s%s  %s", name, strings.Repeat(" ", widest-tablewriter.DisplayWidth(name)), e.ID)
		if len(e.Mailboxes) > 0 {
			fmt.Fprintf(&b, "  %s", printable(strings.Join(e.Mailboxes, ", ")))
		}
		if e.Status == apppassword.RemoteOnly {
			b.WriteString("  (not made on this machine)")
		}
		b.WriteByte('\n')
	}
	if more := len(chosen) - len(listed); more > 0 {
		fmt.Fprintf(&b, "  and %s more\n", thousands(more))
	}
	return b.String()
}

func revokeQuestion(chosen []apppassword.Entry) string {
	if len(chosen) == 1 {
		return askedAbout(chosen) + "Revoke this app password?"
	}
	return askedAbout(chosen) + fmt.Sprintf("Revoke these %s app passwords?", thousands(len(chosen)))
}

func (a *app) printRevoked(results []revokeResult) error {
	switch a.output {
	case outputJSON, outputYAML:
		v := struct {
			SchemaVersion int            `json:"schemaVersion"`
			Results       []revokeResult `json:"results"`
		}{schemaVersion, orEmpty(results)}
		if a.output == outputYAML {
			return a.printYAML(v)
		}
		return a.printJSON(v)
	case outputCSV:
		var rows [][]string
		for _, r := range results {
			rows = append(rows, []string{r.Name, r.ID, r.Result, r.Error})
		}
		return a.printCSV([]string{"name", "id", "result", "error"}, rows)
	case outputName:
		for _, r := range results {
			if r.Result == "revoked" || r.Result == "would-revoke" {
				if err := a.printf("%s\n", printable(r.Name)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, r := range results {
		label := r.ID
		if r.Name != "" {
			label = quote(r.Name)
		}
		switch r.Result {
		case "revoked":
			a.note("revoked %s (%s)", label, r.ID)
		case "would-revoke":
			a.note("would revoke %s (%s)", label, r.ID)
		case "absent":
			a.note("there is no app password %s", label)
		}
	}
	return nil
}

// failures names each failure of tried. Its exit code is theirs where they
// agree. done is what could not be done: revoked, closed, read.
func (a *app) failures(errs []error, tried int, done string) error {
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) == 1:
		return errs[0]
	}
	first := a.advise(errs[0])
	all := &failedError{code: first.code, hint: first.hint, errs: errs}
	var msgs []string
	for i, err := range errs {
		adv := a.advise(err)
		if adv.code != all.code {
			all.code = failed
		}
		msgs = append(msgs, err.Error())
		if !a.structured() {
			a.warn("%v", err)
			// Many that have failed alike need their hint once.
			if adv.hint != "" && (i+1 == len(errs) || a.advise(errs[i+1]).hint != adv.hint) {
				fmt.Fprintf(a.Stderr, "hint: %s\n", printable(adv.hint))
			}
		}
	}
	all.msg = strings.Join(msgs, "; ")
	if !a.structured() {
		all.hint, all.msg = "", fmt.Sprintf("%s of %s could not be %s", thousands(len(errs)), thousands(max(tried, len(errs))), done)
	}
	return all
}
