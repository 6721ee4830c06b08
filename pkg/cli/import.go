package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

type importOptions struct {
	recipient bool
	identity  string
}

func newImport(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Take app passwords from another machine",
		Long: `Takes the app passwords out of a file that "o365pw export" has made, or of
standard input, into the keychain and the registry of this machine. A running
gateway lets them in at once. It can be run again: what is here already stays.

With --recipient it prints this machine's recipient, for --to of export. Its key
is made at the first time, and never leaves the keychain. --identity takes the
key from a file of age-keygen instead.

No profile is needed for an app password to work: it names tenant, application
and cloud itself. create, list and revoke here need one. A cloud that is not
built in has to be in the configuration.

Take files only from somebody you know: everybody who knows the recipient can
make one.`,
		Example: `  o365pw import --recipient
  o365pw import moving.age
  ssh laptop cat moving.age | o365pw import
  o365pw import moving.age --identity ~/key.txt -o json | jq '.results[].result'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.recipient && (len(args) > 0 || o.identity != "") {
				return &usageError{problem: "--recipient prints this machine's recipient, and takes nothing", hint: "o365pw import --recipient; then: o365pw import FILE"}
			}
			if o.recipient {
				return a.runImportRecipient(cmd.Context())
			}
			return a.runImport(cmd.Context(), append(args, "")[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.recipient, "recipient", false, "print whom to export to for this machine, and make its key at the first time")
	f.StringVar(&o.identity, "identity", "", "file of age-keygen with the key to use in place of this machine's")
	return cmd
}

// landing is where app passwords that come are kept.
type landing struct {
	cfg      *config.Config // nil: there is none
	stateDir string
	kind     string // of the keychain
	keychain secret.Keychain

	keychains func(kind string) (secret.Keychain, error)
}

// land finds state folder and keychain: those that the gateway of this machine
// uses for itself. A profile is not needed.
func (a *app) land() (l landing, err error) {
	if l.cfg, err = a.loadConfig(); err != nil {
		return l, err
	}
	if l.stateDir, err = config.StateDir(a.Getenv); err != nil {
		return l, err
	}
	p, err := config.Resolve(l.cfg, a.profile, a.Getenv)
	if e, ok := errors.AsType[*config.Error](err); ok && (errors.Is(err, config.ErrNoDefault) || e.Key == "") {
		p, err = config.Profile{Keychain: cmp.Or(a.Getenv("O365PW_KEYCHAIN"), config.DefaultKeychain)}, nil
	}
	if err != nil {
		return l, err
	}
	l.kind, l.keychains = p.Keychain, a.keychains(l.stateDir)
	l.keychain, err = l.keychains(l.kind)
	return l, err
}

// readSealed reads what is to be imported, whose name is for errors.
func (a *app) readSealed(ctx context.Context, file string) (data []byte, name string, err error) {
	in, name := a.Stdin, cmp.Or(file, "standard input")
	switch {
	case file == "" && isTerminal(a.Stdin):
		return nil, name, &usageError{problem: "which file? give one that o365pw export has made, or pipe it in", hint: "o365pw import moving.age; for the other machine's --to: o365pw import --recipient"}
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return nil, name, &usageError{problem: err.Error(), hint: "name the file that o365pw export has made"}
		}
		defer f.Close()
		if fi, err := f.Stat(); err == nil && fi.IsDir() {
			return nil, name, &usageError{problem: file + " is a folder", hint: "name the file that o365pw export has made"}
		}
		in = f
	default:
		name = "standard input"
	}
	type read struct {
		data []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		b, err := io.ReadAll(io.LimitReader(in, secret.MaxSealed+1))
		done <- read{b, err}
	}()
	select {
	case <-ctx.Done():
		return nil, name, ctx.Err()
	case r := <-done:
		if r.err != nil {
			return nil, name, fmt.Errorf("read %s: %w", name, r.err)
		}
		return r.data, name, nil
	}
}

// openSealed opens it with the identity of --identity, else with this machine's.
func (a *app) openSealed(ctx context.Context, l landing, data []byte, name string, o importOptions) (apppassword.Parcel, error) {
	fail := func(err error) (apppassword.Parcel, error) {
		return apppassword.Parcel{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := secret.CheckSealed(data); err != nil {
		if len(bytes.TrimSpace(data)) == 0 {
			return apppassword.Parcel{}, &usageError{problem: name + " is empty", hint: "give a file that o365pw export has made"}
		}
		return fail(err)
	}
	var id secret.Identity
	var err error
	if o.identity != "" {
		id, err = a.identityFile(o.identity)
	} else {
		id, err = l.identity(ctx)
	}
	if errors.Is(err, secret.ErrNotFound) { // nobody can have exported to this machine
		return fail(&secret.SealedError{Fault: secret.SealOther})
	}
	if err != nil {
		return apppassword.Parcel{}, err
	}
	text, err := secret.Open(data, id)
	if err != nil {
		return fail(err)
	}
	p, err := apppassword.ParseParcel(text)
	if err != nil {
		return fail(err)
	}
	return p, nil
}

func (a *app) runImport(ctx context.Context, file string, o importOptions) error {
	l, err := a.land()
	if err != nil {
		return err
	}
	data, name, err := a.readSealed(ctx, file)
	if err != nil {
		return err
	}
	parcel, err := a.openSealed(ctx, l, data, name, o)
	if err != nil {
		return err
	}
	im := apppassword.Importer{
		Registry: apppassword.Registry{Dir: l.stateDir}, Keychains: l.keychains, Keychain: l.kind,
		Cloud: l.cloud, CertificateFile: l.certificateFile, Entra: a.importEntra, Now: a.Now, Warn: a.warn,
	}
	arrivals, err := im.Import(ctx, parcel)
	if err != nil {
		return err
	}
	v := importJSON{SchemaVersion: schemaVersion}
	var errs []error
	profiles := map[string]bool{}
	for _, r := range arrivals {
		res := importResult{Name: r.Record.Name, ID: r.Record.ID, Profile: r.Record.Profile, Mailboxes: orEmpty(r.Record.Mailboxes), Result: "imported"}
		switch {
		case r.Err != nil:
			adv := a.advise(r.Err)
			res.Result, res.Error, res.Hint = "refused", r.Err.Error(), adv.hint
			errs = append(errs, r.Err)
		case r.Here:
			res.Result = "already-here"
		default:
			a.audited(ctx, l.stateDir, auditEntry(audit.Imported, r.Record))
		}
		if r.Err == nil && !l.hasProfile(r.Record.Profile) {
			profiles[r.Record.Profile] = true
		}
		v.Results = append(v.Results, res)
	}
	if err := a.printImported(v); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(profiles)) {
		a.note("the profile %q is not in this machine's configuration: its app passwords work without it; to list or revoke them here, add it: o365pw setup --profile %s", p, p)
	}
	err = a.failures(errs, len(arrivals), "imported")
	a.showTables(errs)
	return err
}

// showTables prints what the configuration lacks, so that it can be pasted.
func (a *app) showTables(errs []error) {
	shown := map[string]bool{}
	for _, err := range errs {
		e, ok := errors.AsType[*apppassword.MoveError](err)
		if !ok || e.Table == "" || shown[e.Table] || a.structured() {
			continue
		}
		shown[e.Table] = true
		a.tell("the machine that it comes from has the cloud %q as:", e.Record.Cloud)
		for line := range strings.Lines(e.Table) {
			fmt.Fprintf(a.Stderr, "    %s\n", printable(strings.TrimRight(line, "\n")))
		}
	}
}

// importEntra is asked about sign-ins and certificates that are new here.
func (a *app) importEntra(cloud config.Cloud, tenant string) (*entra.Client, error) {
	h, err := a.cloudHTTP(cloud)
	if err != nil {
		return nil, err
	}
	a.progress.set("asking Entra whether it takes what has come")
	return a.entraClient(h, cloud, tenant), nil
}

func (l landing) cloud(name string) (config.Cloud, error) {
	if l.cfg != nil {
		if c, ok := l.cfg.Clouds[name]; ok {
			return c, nil
		}
	}
	if c, ok := config.BuiltinCloud(name); ok {
		return c, nil
	}
	return config.Cloud{}, fmt.Errorf("there is no cloud %q", name)
}

func (l landing) hasProfile(name string) bool {
	if l.cfg == nil {
		return false
	}
	_, ok := l.cfg.Profiles[name]
	return ok
}

// certificateFile is what a profile of the application names.
func (l landing) certificateFile(clientID string) string {
	if l.cfg == nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Profiles)) {
		if p := l.cfg.Profiles[name]; p.Certificate != "" && strings.EqualFold(p.ClientID, clientID) {
			return p.Certificate
		}
	}
	return ""
}

// importJSON is what import prints with --output.
type importJSON struct {
	SchemaVersion int            `json:"schemaVersion"`
	Results       []importResult `json:"results"`
}

type importResult struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Profile   string   `json:"profile"`
	Mailboxes []string `json:"mailboxes"`
	Result    string   `json:"result"` // imported, already-here, refused
	Error     string   `json:"error,omitempty"`
	Hint      string   `json:"hint,omitempty"`
}

func (a *app) printImported(v importJSON) error {
	v.Results = orEmpty(v.Results)
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		var rows [][]string
		for _, r := range v.Results {
			rows = append(rows, []string{r.Name, r.ID, r.Profile, strings.Join(r.Mailboxes, " "), r.Result, r.Error})
		}
		return a.printCSV([]string{"name", "id", "profile", "mailboxes", "result", "error"}, rows)
	case outputName:
		for _, r := range v.Results {
			if r.Result != "refused" {
				if err := a.printf("%s\n", printable(r.Name)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	header := []string{"NAME", "MAILBOX", "PROFILE", "RESULT", "ID"}
	var rows [][]string
	for _, r := range v.Results {
		rows = append(rows, []string{printable(r.Name), dash(strings.Join(r.Mailboxes, ", ")), r.Profile, strings.ReplaceAll(r.Result, "-", " "), r.ID})
	}
	if a.output == outputAuto && !a.stdoutTTY() {
		var b strings.Builder
		for _, row := range append([][]string{header}, rows...) {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		return a.print([]byte(b.String()))
	}
	header, rows = narrow(header, rows, a.width(), []string{"ID", "PROFILE"}, []string{"MAILBOX", "NAME"})
	return a.table(header, rows)
}
