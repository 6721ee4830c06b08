package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show who is signed in, where secrets are, and whether the gateway runs",
		Long: `Shows the profile, the sign-in to Graph, the application, the keychain and the
gateway with its open sessions. Each fault comes with the command that mends
it. The exit code is that of the first fault; a gateway that does not run is
none.`,
		Example: `  o365pw status
  o365pw status --profile work -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runStatus(cmd.Context()) },
	}
}

type statusJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	Profile       string          `json:"profile"`
	Tenant        string          `json:"tenant"`
	Cloud         string          `json:"cloud"`
	SignIn        statusSignIn    `json:"signIn"`
	MailSignIn    *statusSignIn   `json:"mailSignIn"`  // of backing user; null: none, and none needed
	Certificate   *statusCert     `json:"certificate"` // of backing certificate; null: none, and none needed
	Application   statusApp       `json:"application"`
	Keychain      statusKeychain  `json:"keychain"`
	AppPasswords  statusPasswords `json:"appPasswords"`
	Gateway       statusGateway   `json:"gateway"`
	Faults        []statusFault   `json:"faults"`

	advise func(error) advice
}

type statusSignIn struct {
	By       string     `json:"by"` // login, O365PW_ACCESS_TOKEN, or the variable of an unattended sign-in
	Username string     `json:"username"`
	Since    *time.Time `json:"since"`
	OK       bool       `json:"ok"`
	Ended    bool       `json:"ended"`         // it was refused: sign in again
	Why      string     `json:"why,omitempty"` // what Entra said then
}

type statusCert struct {
	Thumbprint string     `json:"thumbprint"` // SHA-256, in hexadecimal
	File       string     `json:"file"`       // empty: in the keychain
	Expires    *time.Time `json:"expires"`
	OK         bool       `json:"ok"`
}

// doubt says why a sign-in that is there may not serve.
func (s statusSignIn) doubt(ended string) string {
	switch {
	case s.OK:
		return ""
	case s.Ended:
		return ", " + ended
	}
	return ", not checked"
}

type statusApp struct {
	ClientID    string `json:"clientId"`
	ID          string `json:"id"`
	DisplayName string `json:"displayName"`
	OK          bool   `json:"ok"`
}

type statusKeychain struct {
	Kind        string `json:"kind"`
	Description string `json:"description"`
	OK          bool   `json:"ok"`
}

type statusPasswords struct {
	Active  int `json:"active"`
	Expired int `json:"expired"`
	Soon    int `json:"expiringWithin30Days"`
	// Rotating have an old password that is good beside the new one; of Unfinished,
	// it is over and not removed.
	Rotating   int `json:"rotating"`
	Unfinished int `json:"unfinished"`
}

type statusGateway struct {
	Running     bool                `json:"running"`
	Status      *gateway.Status     `json:"status"`
	Certificate *gatewayCertificate `json:"certificate"` // null: there is none yet, or it cannot be read
}

type statusFault struct {
	Message string `json:"message"`
	Hint    string `json:"hint"`
	Code    int    `json:"code"` // as the exit code
}

func (a *app) runStatus(ctx context.Context) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	st := a.collectStatus(ctx, s)
	switch a.output {
	case outputJSON:
		err = a.printJSON(st)
	case outputYAML:
		err = a.printYAML(st)
	case outputCSV:
		err = a.printCSV([]string{"profile", "tenant", "signedIn", "username", "application", "keychain", "gateway", "sessions"},
			[][]string{{st.Profile, st.Tenant, fmt.Sprint(st.SignIn.OK), st.SignIn.Username, st.Application.DisplayName, st.Keychain.Description, fmt.Sprint(st.Gateway.Running), fmt.Sprint(len(st.sessions()))}})
	case outputName:
		err = a.printf("%s\n", st.Profile)
	default:
		err = a.printStatus(st)
	}
	if err != nil || len(st.Faults) == 0 {
		return err
	}
	if a.structured() {
		return &failedError{code: exitCode(st.Faults[0].Code), msg: st.Faults[0].Message, hint: st.Faults[0].Hint}
	}
	return &failedError{code: exitCode(st.Faults[0].Code)}
}

func (st *statusJSON) sessions() []gateway.Session {
	if st.Gateway.Status == nil {
		return nil
	}
	return st.Gateway.Status.Sessions
}

func (st *statusJSON) fault(err error) {
	adv := st.advise(err)
	for _, f := range st.Faults {
		if strings.Contains(err.Error(), f.Message) || strings.Contains(f.Message, err.Error()) {
			return // told already
		}
	}
	st.Faults = append(st.Faults, statusFault{Message: printable(err.Error()), Hint: adv.hint, Code: int(adv.code)})
}

// collectStatus looks at everything; a fault of one does not hide the others.
func (a *app) collectStatus(ctx context.Context, s *session) statusJSON {
	st := statusJSON{
		SchemaVersion: schemaVersion, Profile: s.profile.Name, Tenant: s.profile.Tenant, Cloud: s.profile.Cloud.Name,
		SignIn:      statusSignIn{By: string(s.source.kind())},
		Application: statusApp{ClientID: s.profile.ClientID},
		Keychain:    statusKeychain{Kind: s.profile.Keychain, Description: s.keychain.String()},
		Faults:      []statusFault{},
		advise:      a.advise,
	}
	a.keychainStatus(ctx, s, &st)
	a.signInStatus(ctx, s, &st)
	a.mailSignInStatus(ctx, s, &st)
	a.certificateStatus(ctx, s, &st)
	entries, err := s.manager.Local()
	if err != nil {
		st.fault(err)
	}
	for _, e := range entries {
		if e.InOverlap(a.Now()) {
			st.AppPasswords.Rotating++
		}
		if e.Unfinished(a.Now()) {
			st.AppPasswords.Unfinished++
		}
		switch {
		case e.Decoy: // opens nothing
		case e.Status == apppassword.Expired:
			st.AppPasswords.Expired++
		case e.Status == apppassword.Active:
			st.AppPasswords.Active++
			if !e.Expires.IsZero() && e.Expires.Sub(a.Now()) < expiresSoon {
				st.AppPasswords.Soon++
			}
		}
	}
	gst, err := controlOf(s.stateDir).Status(ctx)
	switch {
	case errors.Is(err, gateway.ErrNotRunning):
	case err != nil:
		st.fault(err)
	default:
		st.Gateway = statusGateway{Running: true, Status: &gst}
	}
	if st.Gateway.Certificate, err = certificateOf(s.gateway, s.stateDir); err != nil {
		st.fault(err)
	}
	return st
}

func (a *app) keychainStatus(ctx context.Context, s *session, st *statusJSON) {
	a.progress.set("asking the keychain")
	_, err := s.keychain.Get(ctx, "probe")
	if err == nil || errors.Is(err, secret.ErrNotFound) {
		st.Keychain.OK = true
		return
	}
	// Where nothing is kept and the sign-in is the environment's, nothing is
	// missing.
	if entries, lerr := s.manager.Local(); s.source.kind() != bySignIn && lerr == nil && len(entries) == 0 {
		return
	}
	st.fault(err)
}

func (a *app) printStatus(st statusJSON) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", label, printable(fmt.Sprintf(format, args...)))
	}
	line("Profile", "%s (tenant %s, cloud %s)", st.Profile, st.Tenant, st.Cloud)
	switch {
	case st.SignIn.By == "":
		line("Sign-in", "none for Graph, and none needed")
	case st.SignIn.By != string(bySignIn):
		line("Sign-in", "by %s%s", st.SignIn.By, st.SignIn.doubt("refused"))
	case st.SignIn.Username != "":
		line("Sign-in", "%s, since %s%s", st.SignIn.Username, relativeOr(st.SignIn.Since, a.Now()), st.SignIn.doubt("no longer good"))
	default:
		line("Sign-in", "none")
	}
	if m := st.MailSignIn; m != nil {
		switch {
		case m.Since == nil:
			line("Mail sign-in", "none")
		default:
			line("Mail sign-in", "%s, since %s%s", nobodyAs(m.Username), relative(*m.Since, a.Now()), m.doubt("no longer good"))
		}
	}
	if c := st.Certificate; c != nil && c.Expires != nil {
		where := "in the keychain"
		if c.File != "" {
			where = c.File
		}
		line("Certificate", "%.16s…, %s, expires %s%s", c.Thumbprint, where, relative(*c.Expires, a.Now()), map[bool]string{false: ", not usable"}[c.OK])
	}
	switch {
	case st.Application.OK:
		line("Application", "%s (client id %s)", st.Application.DisplayName, st.Application.ClientID)
	case st.Application.ClientID != "":
		line("Application", "client id %s, not read", st.Application.ClientID)
	default:
		line("Application", "none")
	}
	line("Keychain", "%s%s", st.Keychain.Description, map[bool]string{false: ", not usable"}[st.Keychain.OK])
	line("App passwords", "%d active here, %d of them expire within 30 days, %d expired", st.AppPasswords.Active, st.AppPasswords.Soon, st.AppPasswords.Expired)
	if n := st.AppPasswords.Rotating; n > 0 {
		line("", "%d with an old password that is still good", n)
	}
	if n := st.AppPasswords.Unfinished; n > 0 {
		line("", "%d with an old password that is over and not removed: o365pw list; o365pw rotate NAME --finish", n)
	}
	if gs := st.Gateway.Status; gs != nil {
		state := "running"
		if gs.Stopping {
			state = "stopping"
		}
		line("Gateway", "%s (process %d), %s", state, gs.PID, plural(len(gs.Sessions), "open session"))
		if gs.Version != version() {
			line("", "it is of version %s, this command of %s: restart it (o365pw serve --stop, o365pw serve)", gs.Version, version())
		}
		for _, p := range gateway.Protocols() {
			if addr := gs.Listeners[p]; addr != "" {
				line("", "%s on %s", p, addr)
			}
		}
		if list := oldTLS(gs); list != "" {
			line("", "%s", a.paint(yellow, "old TLS: "+list))
		}
		if gs.Metrics != "" {
			line("", "metrics on %s", gs.Metrics)
		}
		if gs.Autoconfig != "" {
			line("", "settings for mail programs on %s", gs.Autoconfig)
		}
		for _, m := range gs.ByGraph {
			line("", "%s sends by Graph, since SMTP is closed to it", m)
		}
		line("", "started %s: %s, %d refused, %s", relative(gs.Started, a.Now()), plural(int(gs.Counts.SignIns), "sign-in"), gs.Counts.Refused, plural(int(gs.Counts.MessagesSent), "sent message"))
		for _, se := range gs.Sessions {
			line("", "%s: %s as %s from %s, since %s", se.Protocol, se.Name, se.Mailbox, se.Remote, relative(se.Since, a.Now()))
		}
	} else {
		line("Gateway", "not running; start it with: o365pw serve")
	}
	if c := st.Gateway.Certificate; c != nil {
		if problem, fix := c.endsSoon(a.Now()); problem != "" {
			line("", "%s: %s", problem, strings.Join(fix, "; "))
		}
	}
	for _, f := range st.Faults {
		fmt.Fprintf(&b, "%s %s\n", a.paint(red, "fault:"), f.Message)
		if f.Hint != "" {
			fmt.Fprintf(&b, "  to mend it: %s\n", printable(f.Hint))
		}
	}
	return a.print([]byte(b.String()))
}

func relativeOr(t *time.Time, now time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return relative(*t, now)
}
