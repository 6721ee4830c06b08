package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
)

type revokeOptions struct {
	name     string
	all      bool
	yes      bool
	ifExists bool
	dryRun   bool
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
id, with nothing of o365pw on the machine but the program.`,
		Example: `  o365pw revoke "Outlook on Mac"
  o365pw revoke --name "Outlook on Mac" --yes --if-exists
  o365pw revoke 8d4e2c1a-5b1f-4d6e-9a53-0c7b6d1f2e3a --yes
  o365pw revoke Scanner --all --dry-run`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("name") {
				args = append(args, o.name)
			}
			if len(args) == 0 || slices.ContainsFunc(args, func(s string) bool { return strings.TrimSpace(s) == "" }) {
				return &usageError{problem: "which app password? give its name or id", hint: "o365pw list"}
			}
			return a.runRevoke(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the app password (the same as an argument)")
	f.BoolVar(&o.all, "all", false, "where several credentials have the name: all of them")
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

func (a *app) runRevoke(ctx context.Context, args []string, o revokeOptions) error {
	if !o.yes && !o.dryRun && !a.interactive() {
		return &usageError{problem: "there is no terminal to ask on", hint: "add --yes to revoke without being asked"}
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	entries, local, err := s.revocable(ctx, args, o)
	if err != nil {
		return err
	}
	chosen, results, errs := chooseEntries(entries, args, o)
	if len(chosen) > 0 && !o.yes && !o.dryRun {
		ok, err := a.confirm(ctx, revokeQuestion(chosen))
		if err != nil {
			return err
		}
		if !ok {
			return a.failures(append(errs, errors.New("nothing was revoked")), 0, "revoked")
		}
	}
	for i, e := range chosen {
		if err := ctx.Err(); err != nil {
			for _, left := range chosen[i:] {
				results = append(results, revokeResult{Name: left.Name, ID: left.ID, Result: "failed", Error: "not tried: interrupted"})
			}
			errs = append(errs, fmt.Errorf("not tried, since interrupted: %d of %d: %w", len(chosen)-i, len(chosen), err))
			break
		}
		r := revokeResult{Name: e.Name, ID: e.ID, Result: "would-revoke"}
		if !o.dryRun {
			r.Result = "revoked"
			err := s.manager.Revoke(ctx, e)
			if _, half := errors.AsType[*apppassword.HalfRevokedError](err); err == nil || half {
				a.audited(ctx, s.stateDir, auditEntry(audit.Revoked, e.Record))
			}
			if err != nil {
				r.Result, r.Error, r.Hint = "failed", err.Error(), a.advise(err).hint
				errs = append(errs, fmt.Errorf("revoke %s: %w", nameOrID(e), err))
			}
		}
		results = append(results, r)
	}
	// What an interrupted create left is the same kind of rubbish. Its failure
	// is no failure of this revoke.
	if !o.dryRun && ctx.Err() == nil {
		recovers := s.manager.Recover
		if local {
			recovers = s.manager.RecoverLocal
		}
		if err := recovers(ctx); err != nil {
			a.warn("%v", err)
		}
	}
	return errors.Join(a.printRevoked(results), a.failures(errs, len(results), "revoked"))
}

// revocable lists what may be meant. Where every argument names what is on this
// machine alone, nobody else has to be asked: local tells that Graph was not.
func (s *session) revocable(ctx context.Context, args []string, o revokeOptions) (entries []apppassword.Entry, local bool, err error) {
	here, err := s.manager.Local()
	local = err == nil && !o.all && !slices.ContainsFunc(args, func(arg string) bool {
		e, err := apppassword.Match(here, arg)
		return err != nil || !e.Local()
	})
	if local {
		return here, true, nil
	}
	entries, err = s.manager.List(ctx)
	return entries, false, err
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

func revokeQuestion(chosen []apppassword.Entry) string {
	var b strings.Builder
	for _, e := range chosen {
		fmt.Fprintf(&b, "  %s  %s", printable(nameOrID(e)), e.ID)
		if len(e.Mailboxes) > 0 {
			fmt.Fprintf(&b, "  %s", printable(strings.Join(e.Mailboxes, ", ")))
		}
		if e.Status == apppassword.RemoteOnly {
			b.WriteString("  (not made on this machine)")
		}
		b.WriteByte('\n')
	}
	if len(chosen) == 1 {
		return b.String() + "Revoke this app password?"
	}
	return b.String() + fmt.Sprintf("Revoke these %d app passwords?", len(chosen))
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
// agree. done is what could not be done: revoked, closed.
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
	for _, err := range errs {
		adv := a.advise(err)
		if adv.code != all.code {
			all.code = failed
		}
		msgs = append(msgs, err.Error())
		if !a.structured() {
			a.warn("%v", err)
			if adv.hint != "" {
				fmt.Fprintf(a.Stderr, "hint: %s\n", printable(adv.hint))
			}
		}
	}
	all.msg = strings.Join(msgs, "; ")
	if !a.structured() {
		all.hint, all.msg = "", fmt.Sprintf("%d of %d could not be %s", len(errs), max(tried, len(errs)), done)
	}
	return all
}
