package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

type exportOptions struct {
	to     []string
	toFile []string
	file   string
	forget bool
	yes    bool
}

func newExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export NAME|ID...",
		Short: "Seal app passwords for another machine",
		Long: `Writes app passwords with all that stands behind them (the client secret, the
person's sign-in, the certificate with its key) into a file that is encrypted to
a recipient of age. On the other machine, import takes them. A certificate that
a profile names as a PEM file does not travel: copy it yourself.

The recipient is what "o365pw import --recipient" prints there, or any of
age-keygen's (age1…). SSH keys and plug-ins of age are not taken. Who holds the
key to the recipient has the app passwords: check it before you use it.

The file goes to standard output, or with --file to a new file. It is text, and
safe to show, mail and keep. It stays so as long as the other machine's key
does: delete it when it was imported.

The app passwords go on working here. With --forget they are taken off this
machine once the file is on the disk; nothing in Entra changes.`,
		Example: `  o365pw export "Outlook on Mac" --to age1qyqszqgpqyqszqgpqyqszqgp… > moving.age
  o365pw export Scanner Printer --to-file gateway.pub --file moving.age
  o365pw export Scanner --to-file gateway.pub --file moving.age --forget --yes
  o365pw export mutt --to "$(ssh gw o365pw import --recipient)" | ssh gw o365pw import`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || slices.ContainsFunc(args, func(s string) bool { return strings.TrimSpace(s) == "" }) {
				return &usageError{problem: "which app password? give its name or id", hint: "o365pw list --local"}
			}
			return a.runExport(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.to, "to", nil, "recipient of age that can open the file (age1…); repeat for more")
	f.StringArrayVar(&o.toFile, "to-file", nil, "file of recipients, one a line, as age -R takes it")
	f.StringVar(&o.file, "file", "", "write to this new file rather than to standard output")
	f.BoolVar(&o.forget, "forget", false, "then take the app passwords off this machine, without revoking them")
	f.BoolVar(&o.yes, "yes", false, "do not ask before --forget")
	return cmd
}

// exportJSON is what export --file prints with --output.
type exportJSON struct {
	SchemaVersion int            `json:"schemaVersion"`
	File          string         `json:"file"`
	Recipients    []string       `json:"recipients"`
	AppPasswords  []exportResult `json:"appPasswords"`
}

type exportResult struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Result string `json:"result"` // exported, forgotten (exported, too), failed (exported, not forgotten)
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// check refuses what cannot be meant, before anything is read.
func (o *exportOptions) check(a *app) ([]secret.Recipient, error) {
	to, err := o.recipients()
	switch {
	case err != nil:
		return nil, err
	case len(to) == 0:
		return nil, &usageError{problem: "for whom? there is no --to", hint: "on the other machine: o365pw import --recipient; here: --to with what it prints"}
	case o.file == "-":
		return nil, &usageError{problem: "--file - is no file", hint: "leave --file out to write to standard output"}
	case o.file == "" && o.forget:
		return nil, &usageError{problem: "--forget needs --file: what goes to standard output may get lost", hint: "add --file moving.age"}
	case o.file == "" && a.output != outputAuto:
		return nil, &usageError{problem: "standard output takes the sealed file, which has one form", hint: "leave --output, --jq and --template out, or add --file moving.age"}
	case o.forget && !o.yes && !a.interactive():
		return nil, &usageError{problem: "there is no terminal to ask on", hint: "add --yes to forget without being asked"}
	}
	if o.file != "" {
		if o.file, err = filepath.Abs(o.file); err != nil {
			return nil, fmt.Errorf("find %s: %w", o.file, err)
		}
	}
	return to, nil
}

// recipients are all of --to and --to-file, each once.
func (o *exportOptions) recipients() ([]secret.Recipient, error) {
	const look = "on the other machine: o365pw import --recipient; here: --to with what it prints"
	var all []secret.Recipient
	add := func(where, text string) error {
		r, err := secret.ParseRecipient(text)
		e, wrong := errors.AsType[*secret.RecipientError](err)
		switch {
		case wrong && e.Fault == secret.FaultSecretKey && where == "--to":
			return &usageError{problem: "--to was given a secret key of age, not a recipient; it is in the shell's history and in the list of processes now, so take it for stolen",
				hint: "make a new key (age-keygen, or o365pw import --recipient on the other machine), and use the public one: age1…"}
		case err != nil:
			return &usageError{problem: where + ": " + err.Error(), hint: look}
		case !slices.ContainsFunc(all, func(have secret.Recipient) bool { return have.String() == r.String() }):
			all = append(all, r)
		}
		return nil
	}
	for _, text := range o.to {
		if err := add("--to", text); err != nil {
			return nil, err
		}
	}
	for _, name := range o.toFile {
		b, err := readSmall(name)
		if err != nil {
			return nil, &usageError{problem: "--to-file: " + err.Error(), hint: "name a file with recipients of age, one a line"}
		}
		n, before := 0, len(all)
		for line := range strings.Lines(strings.TrimPrefix(string(b), "\uFEFF")) {
			n++
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if err := add(fmt.Sprintf("%s:%d", name, n), line); err != nil {
				return nil, err
			}
		}
		if len(all) == before && len(o.to) == 0 {
			return nil, &usageError{problem: "--to-file: there is no recipient in " + name, hint: look}
		}
	}
	return all, nil
}

func (a *app) runExport(ctx context.Context, args []string, o exportOptions) error {
	to, err := o.check(a)
	if err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	entries, err := s.manager.Local()
	if err != nil {
		return err
	}
	var chosen []apppassword.Entry
	var recs []apppassword.Record
	for _, arg := range args {
		e, err := apppassword.Match(entries, arg)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(chosen, func(have apppassword.Entry) bool { return have.ID == e.ID }) {
			chosen, recs = append(chosen, e), append(recs, e.Record)
		}
	}
	if o.forget && !o.yes {
		ok, err := a.confirm(ctx, forgetQuestion(chosen, o.file))
		if err != nil {
			return err
		}
		if !ok {
			return &failedError{code: failed, msg: "nothing was exported"}
		}
	}
	parcel, err := s.manager.Pack(ctx, recs)
	if err != nil {
		return err
	}
	text, err := parcel.Text()
	if err != nil {
		return err
	}
	sealed, err := secret.Seal(text, to...)
	if err != nil {
		if _, mixed := errors.AsType[*secret.RecipientError](err); mixed {
			err = &usageError{problem: err.Error(), hint: "export twice, once for each kind"}
		}
		return err
	}
	// Before it is seen: nothing leaves without a trace.
	for _, r := range recs {
		e := auditEntry(audit.Exported, r)
		e.Reason = "to " + strings.Join(shortRecipients(to), ", ")
		a.audited(ctx, s.stateDir, e)
	}
	if o.file == "" {
		if err := a.print(sealed); err != nil {
			return err
		}
		a.noteShared(recs)
		return nil
	}
	if err := a.writeNew(ctx, s.stateDir, o.file, sealed); err != nil {
		return err
	}
	v := exportJSON{SchemaVersion: schemaVersion, File: o.file}
	for _, r := range to {
		v.Recipients = append(v.Recipients, r.String())
	}
	var errs []error
	for _, r := range recs {
		res := exportResult{Name: r.Name, ID: r.ID, Result: "exported"}
		if o.forget {
			res.Result = "forgotten"
			err := s.manager.Forget(ctx, r)
			if _, half := errors.AsType[*apppassword.HalfForgottenError](err); err == nil || half {
				a.audited(ctx, s.stateDir, auditEntry(audit.Forgotten, r))
			}
			if err != nil {
				res.Result, res.Error, res.Hint = "failed", err.Error(), a.advise(err).hint
				errs = append(errs, fmt.Errorf("forget %q: %w", r.Name, err))
			}
		}
		v.AppPasswords = append(v.AppPasswords, res)
	}
	if err := a.printExported(v); err != nil {
		return err
	}
	if !o.forget {
		a.noteShared(recs)
	}
	return a.failures(errs, len(recs), "forgotten")
}

// noteShared tells of app passwords that are revoked on each machine for itself.
func (a *app) noteShared(recs []apppassword.Record) {
	for _, r := range recs {
		if r.Local() {
			a.note("%q is on both machines now, and Entra knows of neither: revoke it on each", r.Name)
		}
	}
}

// writeNew writes a file that is not there yet: an earlier export may be all that
// is left of what it holds.
func (a *app) writeNew(ctx context.Context, stateDir, path string, data []byte) error {
	unlock, err := durable.Lock(ctx, filepath.Join(stateDir, "export.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		return &usageError{problem: path + " is there already, and may hold app passwords that are nowhere else", hint: "name another file, or delete it when it was imported"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fi, err := os.Stat(filepath.Dir(path))
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s is no folder", filepath.Dir(path))
	}
	if err == nil {
		err = durable.WriteFile(path, data)
	}
	if err != nil {
		return &failedError{code: failed, msg: err.Error(), hint: "nothing was exported; name a file in a folder that you can write to: --file", errs: []error{err}}
	}
	return nil
}

// shortRecipients are enough of each to recognise it by.
func shortRecipients(to []secret.Recipient) []string {
	var out []string
	for _, r := range to {
		text := r.String()
		if len(text) > 64 {
			text = text[:60] + "…"
		}
		out = append(out, text)
	}
	return out
}

func forgetQuestion(chosen []apppassword.Entry, file string) string {
	what, it := "this app password", "it"
	if len(chosen) > 1 {
		what, it = fmt.Sprintf("these %d app passwords", len(chosen)), "them"
	}
	return askedAbout(chosen) + "Write " + printable(what+" to "+file) + ", and take " + it + " off this machine?"
}

func (a *app) printExported(v exportJSON) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		var rows [][]string
		for _, r := range v.AppPasswords {
			rows = append(rows, []string{r.Name, r.ID, r.Result, r.Error})
		}
		return a.printCSV([]string{"name", "id", "result", "error"}, rows)
	case outputName:
		for _, r := range v.AppPasswords {
			if err := a.printf("%s\n", printable(cmp.Or(r.Name, r.ID))); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range v.AppPasswords {
		a.note("exported %q (%s)", r.Name, r.ID)
		if r.Result == "forgotten" {
			a.note("forgot %q here; it is in the file alone, until it is imported", r.Name)
		}
	}
	a.note("wrote %s; on the other machine: o365pw import %s", v.File, shellQuote(filepath.Base(v.File)))
	return nil
}
