package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
)

type setupOptions struct {
	flow
	mailboxes     []string
	organization  bool
	justMe        bool
	cloud         string
	tenant        string
	clientID      string
	loginClientID string
	app           string
	backing       string
	allow         []string
	send          string
	importFile    string
	wait          string
	yes           bool
	dryRun        bool
}

// defaultWait is how long --wait alone waits.
const defaultWait = "30m"

func newSetup(a *app) *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Set up a tenant, or your own mailbox, and write the profile",
		Long: `Makes what app passwords stand on, and writes a profile for it. On a terminal it
asks three questions at most, shows what it would do, and does it when you say
yes. It can be run again at any time: what is there already stays.

--organization is for an administrator. It registers an application for mail in
Entra, grants it what --allow needs, and prints the lines that an administrator
of Exchange runs in PowerShell, on standard output. --wait then tries the
mailboxes until Exchange lets the application in. Where the tenant's policy
forbids client secrets, it makes a certificate and keeps its key in the
keychain.

Whoever holds a secret of an application opens every mailbox of that
application. So make one for each mailbox, or for a small group that may know
each other's mail, not one for all.

--just-me needs no administrator: you sign in, and app passwords open what you
may open. It takes the client id of an application that your organisation lets
you sign in to; for a personal account (outlook.com) of any that takes those.

--import reads the configuration of email-oauth2-proxy (emailproxy.config) or of
DavMail (davmail.properties) and proposes what it says. Nothing secret is read.

--dry-run reads what is there, prints the plan and changes nothing.`,
		Example: `  o365pw setup
  o365pw setup --mailbox alice@contoso.com --organization --wait
  o365pw setup --mailbox a@contoso.com --mailbox b@contoso.com --organization --app o365pw-sales
  o365pw setup --mailbox scan@contoso.com --organization --allow imap,pop3,smtp --dry-run
  o365pw setup --mailbox scan@contoso.com --organization --allow smtp --send graph
  o365pw setup --mailbox alice@contoso.com --organization --azure-cli --wait 2h
  o365pw setup --mailbox alice@contoso.us --organization --cloud usgov --device-code
  o365pw setup --mailbox a@contoso.com --organization --backing certificate --yes > exchange.ps1
  o365pw setup --mailbox alice@contoso.com --organization --login-client-id GUID --paste
  o365pw setup --mailbox alice@contoso.com --just-me --client-id GUID --tenant contoso.com
  o365pw setup --import ~/emailproxy.config`,
		Args: func(cmd *cobra.Command, args []string) error {
			// Of a flag that may stand alone, pflag leaves the value behind.
			if len(args) == 1 && o.wait == defaultWait {
				if _, err := config.ParseDuration(args[0]); err != nil {
					return &usageError{problem: "--wait: " + err.Error(), hint: "as in --wait 30m"}
				}
				o.wait = args[0]
				return nil
			}
			return cobra.NoArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, f := range []string{"mailbox", "cloud", "tenant", "client-id", "login-client-id", "app", "backing", "allow", "send", "import", "wait"} {
				// An unset variable in a script must not mean the default.
				if flag := cmd.Flags().Lookup(f); flag.Changed && strings.Trim(flag.Value.String(), "[]") == "" {
					return &usageError{problem: "--" + f + " is empty", hint: "leave --" + f + " out to get the default"}
				}
			}
			return a.runSetup(cmd.Context(), o)
		},
	}
	o.bind(cmd.Flags())
	f := cmd.Flags()
	f.StringArrayVar(&o.mailboxes, "mailbox", nil, "mailbox to set up; repeat for more that share one application")
	f.BoolVar(&o.organization, "organization", false, "register an application for the organisation (an administrator)")
	f.BoolVar(&o.justMe, "just-me", false, "sign in for your own mailbox, without an administrator")
	f.StringVar(&o.cloud, "cloud", "", "cloud: global, usgov, dod, china, or one of the configuration (default: the profile's, else global)")
	f.StringVar(&o.tenant, "tenant", "", "tenant, as its GUID or a domain (default: the profile's, else the address's domain)")
	f.StringVar(&o.clientID, "client-id", "", "application to use, in place of a new one; with --just-me the one to sign in to")
	f.StringVar(&o.loginClientID, "login-client-id", "", "public client to sign in to Graph with (default: Microsoft Graph Command Line Tools)")
	f.StringVar(&o.app, "app", "", "unique name of the application (default: one from the first mailbox)")
	f.StringVar(&o.backing, "backing", "", "what stands behind app passwords: secret, certificate, user (default: as the policy allows)")
	f.StringSliceVar(&o.allow, "allow", nil, "protocols: imap, pop3, smtp (default: the profile's, else imap,smtp)")
	f.StringVar(&o.send, "send", "", "how app passwords send: auto, smtp, graph (default: the profile's, else auto)")
	f.StringVar(&o.importFile, "import", "", "configuration of email-oauth2-proxy or DavMail to take values from")
	f.StringVar(&o.wait, "wait", "", "try the mailboxes until Exchange lets them be opened, for so long (alone: "+defaultWait+")")
	f.Lookup("wait").NoOptDefVal = defaultWait
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and change nothing")
	return cmd
}

// setup is one run of the command.
type setup struct {
	*app
	o    setupOptions
	cfg  *config.Config // nil: there is none yet
	path string         // of the configuration

	imported  config.Imported
	mailboxes []string
	justMe    bool
	waitLimit time.Duration  // 0: do not wait
	was       config.Profile // without a name: there is none yet
	profile   config.Profile // as it is to be
	// tenantNamed says that somebody has named the tenant: it is no guess from
	// an address.
	tenantNamed bool
	tenantNew   bool // the profile has it not from before: it may be written as a GUID

	s      *session
	signer *setupSignIn
	steps  []*setupStep
	diff   []string // the lines of the configuration that change

	exchange    graph.ServicePrincipal // Exchange Online's
	roles       []string               // names of the permissions that are wanted
	roleIDs     []string               // the same
	application graph.Application      // without AppID: there is none yet
	byHand      bool                   // it has no unique name, and is left as it is
	uniqueName  string
	principal   graph.ServicePrincipal // without ID: there is none yet
	made        bool                   // the application is this run's
	fresh       bool                   // one of both was made moments ago
	policy      graph.AppManagementPolicy
	certificate entra.Certificate
	person      string // who signed in; empty: nobody, or nobody knows

	begun   bool     // something may have been written
	written bool     // the profile is as it is to be
	done    []string // what is there now, by name and id
	ready   *bool    // whether Exchange opens the mailboxes; nil: not tried
}

// setupStep is one thing to be brought about.
type setupStep struct {
	Name   string      `json:"name"`
	Change setupChange `json:"change"`
	Text   string      `json:"text"` // what is to be done, or what is there; after it was done, what was done

	do func(ctx context.Context) (string, error)
}

type setupChange string

const (
	changeNone   setupChange = "none"
	changeCreate setupChange = "create"
	changeUpdate setupChange = "update"
)

func (a *app) runSetup(ctx context.Context, o setupOptions) error {
	w := &setup{app: a, o: o}
	err := w.run(ctx)
	if err != nil && !w.begun && (errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted)) {
		a.warn("nothing was changed")
	}
	return err
}

func (w *setup) run(ctx context.Context) error {
	if err := w.prepare(ctx); err != nil {
		return err
	}
	plan := w.planOrganization
	if w.justMe {
		plan = w.planPerson
	}
	if err := plan(ctx); err != nil {
		return err
	}
	if w.o.dryRun {
		return w.printDryRun()
	}
	if w.changes() {
		w.showPlan()
		if !w.o.yes {
			ok, err := w.confirmYes(ctx, "Go on?")
			if err != nil {
				return err
			}
			if !ok {
				return errors.New("nothing was changed")
			}
		}
	}
	if err := w.carryOut(ctx); err != nil {
		return err
	}
	return w.finish(ctx)
}

// changes tells whether there is anything to do.
func (w *setup) changes() bool {
	return slices.ContainsFunc(w.steps, func(st *setupStep) bool { return st.Change != changeNone })
}

func (w *setup) step(st setupStep) { w.steps = append(w.steps, &st) }

// carryOut does the steps. What fails names what exists already.
func (w *setup) carryOut(ctx context.Context) error {
	if slices.ContainsFunc(w.steps, func(st *setupStep) bool {
		return st.Change != changeNone && (st.Name == "signIn" || st.Name == "certificate")
	}) {
		if err := w.s.probeKeychain(ctx, "setup/"+w.profile.Name); err != nil {
			return err
		}
	}
	for _, st := range w.steps {
		if st.Change == changeNone {
			w.tick(st.Text + ": nothing to do")
			w.written = w.written || st.Name == "profile"
			continue
		}
		if err := ctx.Err(); err != nil {
			return w.stopped(err)
		}
		w.begun = w.begun || !(w.justMe && st.Name == "signIn") // until the person has signed in, there is nothing to keep
		w.progress.set("%s", st.Text)
		did, err := st.do(ctx)
		if err != nil {
			return w.stopped(fmt.Errorf("%s: %w", st.Text, err))
		}
		st.Text, w.written = did, w.written || st.Name == "profile"
		w.done = append(w.done, did)
		w.tick(did)
	}
	return nil
}

// finish prints the data, and waits for Exchange where that was asked for.
func (w *setup) finish(ctx context.Context) error {
	now := !w.structuredOutput()
	if now {
		if err := w.print(w.script()); err != nil {
			return err
		}
	}
	err := w.waitForExchange(ctx)
	if !now {
		err = errors.Join(w.printResult(), err)
	}
	if err != nil {
		return err
	}
	w.noteRunning(ctx)
	switch {
	case w.structured(): // the object says it
	case w.ready != nil && *w.ready:
		w.note("ready: %s", w.createCommand())
	case w.justMe:
		w.note("next: %s", w.createCommand())
	default:
		w.note("once an administrator of Exchange has run these lines in PowerShell: %s", w.createCommand())
		if w.o.wait == "" {
			w.note("to try until it works: %s", w.again("--wait"))
		}
	}
	return nil
}

// noteRunning tells that a gateway which runs goes by the former configuration.
func (w *setup) noteRunning(ctx context.Context) {
	if w.structured() || !slices.ContainsFunc(w.steps, func(st *setupStep) bool { return st.Name == "profile" && st.Change != changeNone }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	gw, err := controlOf(w.s.stateDir).Status(ctx)
	switch {
	case err != nil: // none runs here
	case runtime.GOOS == "windows":
		w.note("the gateway that runs goes by the configuration as it was: stop it and start it anew")
	default:
		w.note("the gateway that runs goes by the configuration as it was, until: kill -HUP %d", gw.PID)
	}
}

// createCommand is what comes after setup.
func (w *setup) createCommand() string {
	cmd := "o365pw create --name \"Outlook on Mac\""
	if cfg, err := w.loadConfig(); err != nil || cfg == nil || cfg.DefaultProfile != w.profile.Name && len(cfg.Profiles) > 1 {
		cmd += " --profile " + w.profile.Name
	}
	if len(w.mailboxes) > 0 && !slices.ContainsFunc(w.mailboxes, func(m string) bool { return strings.EqualFold(m, w.profile.Mailbox) }) {
		cmd += " --mailbox " + shellQuote(w.mailboxes[0])
	}
	return cmd
}

// again is the command line that goes on where this run has ended, with more
// flags behind it.
func (w *setup) again(more ...string) string {
	args := []string{"o365pw", "setup", "--profile", w.profile.Name}
	for _, m := range w.mailboxes {
		args = append(args, "--mailbox", shellQuote(m))
	}
	mode := "--organization"
	if w.justMe {
		mode = "--just-me"
	}
	args = append(args, mode)
	if w.written {
		return strings.Join(append(args, more...), " ") // the profile has the rest
	}
	args = append(args, "--tenant", w.profile.Tenant, "--allow", strings.Join(w.profile.Allow, ","))
	if w.profile.CloudName != config.DefaultCloud {
		args = append(args, "--cloud", shellQuote(w.profile.CloudName))
	}
	for _, f := range []struct{ flag, value string }{
		{"--app", w.o.app}, {"--client-id", w.o.clientID}, {"--login-client-id", w.o.loginClientID}, {"--backing", w.o.backing},
		{"--send", w.o.send},
	} {
		if f.value != "" {
			args = append(args, f.flag, shellQuote(f.value))
		}
	}
	return strings.Join(append(args, more...), " ")
}
