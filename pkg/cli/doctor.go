package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

func newDoctor(a *app) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [NAME|ID]",
		Short: "Look at everything between here and the mailbox, and say what mends it",
		Long: `Looks at the configuration, the keychain, the network, the tenant, the
application and its permissions, signs in at Exchange over IMAP, POP3 and SMTP
as far as the mailbox, and looks at the gateway. Each check is ok, a warning,
failed, or skipped with the reason. A failure says what is wrong, whose move it
is, and what to run. Where that is an administrator's, a message for them
follows at the end.

With NAME it tries what stands behind that app password, on its mailboxes, and
signs in with it at the gateway. Without, it takes one of the profile's.

Nothing is changed but an item in the keychain that is written, read and deleted
again; no message is sent, and no credential made. The exit code is that of the
first failure; 0 with warnings alone. With -o name the ids of the checks that
failed are printed.

--report writes the same to a file that can be shown to others, or with - to
stdout. Addresses, names, host names of your own, network addresses and ids of
your tenant are replaced, each by the same word wherever it stands. Ids of
requests stay, since Microsoft's support asks for them, and so do times and the
names of certificate authorities.`,
		Example: `  o365pw doctor
  o365pw doctor "Outlook on Mac"
  o365pw doctor "Outlook on Mac" --report o365pw-report.txt
  o365pw doctor -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDoctor(cmd.Context(), strings.Join(args, ""), len(args) > 0, o)
		},
	}
	cmd.Flags().StringVar(&o.report, "report", "", "write a report without names, addresses and ids to this file; - is stdout")
	return cmd
}

// completeOneName is completeNames for the first argument alone.
func (a *app) completeOneName(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, args, toComplete)
}

type doctorOptions struct {
	report string
}

// doctor is one run of the command: what it looks at, and what the checks have
// found out. A check writes what is said to be its own, and reads what belongs
// to checks that come before it.
type doctor struct {
	a       *app
	cfg     *config.Config // nil: there is no file
	session *session
	openErr error // why there is no session

	named      bool // app password was asked for by name
	subject    *apppassword.Entry
	subjectErr error // of the registry
	mailSignIn apppassword.SignIn
	mailboxes  []string
	allow      []string

	people *graph.Client // with a token that may read people

	discovery  *answer // of check "entra"
	graphReply *answer // of check "graph"
	tenantID   string  // of check "tenant"
	app        graph.Application
	token      secret.Text // of check "token"
	claims     entra.Claims
	readable   bool // the token can be looked into
	gateway    *gateway.Status

	mu        sync.Mutex
	principal graph.ServicePrincipal // of check "service-principal"
	ofToken   string                 // the principal's object id, by the token
	users     map[string]graph.User  // by address
}

func (a *app) runDoctor(ctx context.Context, arg string, named bool, o doctorOptions) error {
	if o.report == "-" && a.filter != nil {
		return &usageError{problem: "--report - prints text, so " + a.filter.flag + " has no meaning beside it", hint: "o365pw doctor --report FILE " + a.filter.flag + " …"}
	}
	if o.report == "-" && a.output != outputAuto && a.output != outputTable {
		return &usageError{problem: "--report - prints text, so --output " + string(a.output) + " has no meaning beside it", hint: "o365pw doctor --report FILE -o " + string(a.output)}
	}
	if err := mayReport(o.report); err != nil {
		return err
	}
	d := &doctor{a: a, named: named, users: map[string]graph.User{}}
	if err := d.open(arg); err != nil {
		return err
	}
	checks := d.checks()
	results := runChecks(ctx, checks, func(c check) { a.progress.set("looking at: %s", c.title) })
	a.progress.stop()
	f := d.findings(checks, results)
	if ctx.Err() != nil {
		// What the checks have written may be under way.
		return errors.Join(a.printFindings(f), ctx.Err())
	}
	f.Message = d.administratorMessage(checks, results)
	if o.report == "-" {
		if err := a.print(d.report(f)); err != nil {
			return err
		}
		return a.doctorEnd(f)
	}
	if err := a.printFindings(f); err != nil {
		return err
	}
	if o.report != "" {
		if err := writeReport(o.report, d.report(f)); err != nil {
			return err
		}
		a.note("the report is in %s; look at it before you pass it on", o.report)
	}
	return a.doctorEnd(f)
}

// doctorEnd is the error that stands for what has failed.
func (a *app) doctorEnd(f findings) error {
	for _, c := range f.Checks {
		if c.Status != checkFailed {
			continue
		}
		if a.structured() {
			return &failedError{code: exitCode(c.Code), msg: c.Title + ": " + c.Detail, hint: strings.Join(c.Fix, "; ")}
		}
		return &failedError{code: exitCode(c.Code)}
	}
	return nil
}

// open finds out what there is to look at, from this machine alone. Its error
// is one of the argument.
func (d *doctor) open(arg string) error {
	d.cfg, d.openErr = d.a.loadConfig()
	if d.openErr != nil {
		return nil
	}
	if d.session, d.openErr = d.a.open(); d.openErr != nil {
		return nil
	}
	d.impatient()
	s := d.session
	d.people = &graph.Client{BaseURL: s.profile.Cloud.Graph, HTTP: s.http, UserAgent: userAgent(), Log: d.a.logger(), MaxWait: 1,
		Token: func(ctx context.Context) (secret.Text, error) {
			return s.source.scoped(ctx, "people", s.profile.Cloud.GraphResource+"/User.Read.All")
		}}
	entries, err := s.manager.Local()
	if err != nil {
		if d.named {
			return err
		}
		d.subjectErr = err
		return nil
	}
	if d.named {
		e, err := apppassword.Match(entries, arg)
		if err != nil {
			return err
		}
		d.subject = &e
	} else {
		d.subject = d.anySubject(entries)
	}
	if d.mailSignIn, _, err = s.manager.SignInOf(); err != nil {
		d.subjectErr = err
	}
	d.scope()
	return nil
}

// anySubject chooses an app password to look at: one that is good, of the
// profile's own backing where there is one.
func (d *doctor) anySubject(entries []apppassword.Entry) *apppassword.Entry {
	good := slices.DeleteFunc(slices.Clone(entries), func(e apppassword.Entry) bool { return e.Decoy || e.Status != apppassword.Active })
	if len(good) == 0 {
		return nil
	}
	if i := slices.IndexFunc(good, func(e apppassword.Entry) bool { return e.Backing == d.session.profile.Backing }); i > 0 {
		return &good[i]
	}
	return &good[0]
}

// scope chooses mailboxes and protocols to try.
func (d *doctor) scope() {
	p := d.session.profile
	switch {
	case d.subject != nil && !d.subject.Decoy:
		d.mailboxes, d.allow = d.subject.Mailboxes, d.subject.Allow
	case d.subject != nil: // a decoy
	default:
		d.allow = p.Allow
		if mailbox := cmp.Or(p.Mailbox, d.mailSignIn.Username); mailbox != "" {
			d.mailboxes = []string{mailbox}
		}
	}
}

// backing is what stands behind the token to try.
func (d *doctor) backing() string {
	if d.subject != nil {
		return d.subject.Backing
	}
	return d.session.profile.Backing
}

func (d *doctor) delegated() bool { return d.backing() == apppassword.BackingUser }

// connectLimit is how long a connection may take to come about. A network that
// is up takes a fraction of it.
const connectLimit = 5 * time.Second

// impatient has nothing repeated and no connection waited for long: doctor is
// asked how it is now.
func (d *doctor) impatient() {
	s := d.session
	if t, ok := s.http.Transport.(*http.Transport); ok {
		t.DialContext = dialQuickly
		t.TLSHandshakeTimeout = 2 * connectLimit
	}
	d.a.entraWait = -1
	s.entra = d.a.entraClient(s.http, s.profile.Cloud, s.profile.Tenant)
	s.manager.Entra = s.entra
	for _, g := range []*graph.Client{s.graph, s.manager.Policies} {
		g.MaxWait = 1
		g.Progress = nil
	}
	s.manager.Progress = nil
}

func dialQuickly(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: connectLimit}).DialContext(ctx, network, address)
}

// checks are all that there is to look at, in the order in which they are
// told.
func (d *doctor) checks() []check {
	return slices.Concat(d.localChecks(), d.networkChecks(), d.tenantChecks(), d.mailChecks(), d.gatewayChecks())
}

// fail is a failure by the tables: what err means, and its exit code.
func (d *doctor) fail(err error, more ...remedy) result {
	return d.failFor(err, d.a.valuesFor(err), more...)
}

// failMail is fail for what was asked with what stands behind app passwords.
func (d *doctor) failMail(err error) result { return d.failFor(err, d.values("")) }

func (d *doctor) failFor(err error, values map[string]string, more ...remedy) result {
	return result{status: checkFailed, detail: err.Error(), code: advise(err).code, ids: requestIDs(err),
		remedies: d.filled(append(more, remediesFor(err)...), values)}
}

// warning is fail for what does not keep mail from coming.
func (d *doctor) warning(err error) result {
	r := d.fail(err)
	r.status, r.code = checkWarning, done
	return r
}

// remediesFor are what the tables say of err.
func remediesFor(err error) []remedy {
	adv := advise(err)
	if x, ok := explanationOf(err); ok {
		if adv.hint == x.Hint() {
			return remediesOf(x.Remedies())
		}
		// What was being done has a way of its own; where that fails, the next
		// move may be somebody else's.
		theirs := slices.DeleteFunc(x.Remedies(), func(r explain.Remedy) bool { return r.Mover != explain.Administrator })
		return append([]remedy{yours(x.Cause, adv.hint)}, remediesOf(theirs)...)
	}
	if adv.hint == "" {
		return nil
	}
	return []remedy{yours("", adv.hint)}
}

// explanationOf finds what the table of explanations has on err.
func explanationOf(err error) (explain.Explanation, bool) {
	if e, ok := errors.AsType[*entra.Error](err); ok {
		return explainEntra(e)
	}
	if e, ok := errors.AsType[*graph.Error](err); ok {
		return explainGraph(e)
	}
	return explain.Explanation{}, false
}

// requestIDs are those by which Microsoft finds a request.
func requestIDs(err error) []string {
	var ids []string
	if e, ok := errors.AsType[*graph.Error](err); ok {
		ids = append(ids, e.RequestID, e.ClientRequestID)
	}
	if e, ok := errors.AsType[*entra.Error](err); ok {
		ids = append(ids, e.TraceID, e.CorrelationID)
	}
	return ids
}

// explained is a failure for which no error of a service stands: its code and
// what the table says of it.
func (d *doctor) explained(code exitCode, x explain.Explanation, detail string, args ...any) result {
	return result{status: checkFailed, code: code, detail: fmt.Sprintf(detail, args...), remedies: d.filled(remediesOf(x.Remedies()), d.values(""))}
}

// values are the placeholders' values, for a mailbox where it is about one.
func (d *doctor) values(mailbox string) map[string]string {
	v := map[string]string{}
	if d.session != nil {
		p := d.session.profile
		v["CLIENT_ID"], v["TENANT"] = inAnyShell(p.ClientID), inAnyShell(p.Tenant)
	}
	if d.subject != nil {
		v["CLIENT_ID"], v["TENANT"] = inAnyShell(d.subject.ClientID), inAnyShell(d.subject.Tenant)
		v["NAME"] = asArgument(d.subject.Name)
	}
	v["OBJECT_ID"], v["ADDRESS"], v["ACCOUNT"] = inAnyShell(d.principalID()), inAnyShell(mailbox), inAnyShell(d.mailSignIn.Username)
	return v
}

// filled puts values in place of placeholders.
func (d *doctor) filled(list []remedy, values map[string]string) []remedy {
	for i := range list {
		list[i].fix = slices.Clone(list[i].fix)
		for j, line := range list[i].fix {
			list[i].fix[j] = d.here(explain.FillText(line, values))
		}
	}
	return list
}

// here has addresses of Entra's global cloud be those of the profile's.
func (d *doctor) here(text string) string {
	if d.session == nil {
		return text
	}
	return strings.ReplaceAll(text, "https://login.microsoftonline.com/", d.session.profile.Cloud.Authority+"/")
}
