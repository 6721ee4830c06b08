package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
)

type createOptions struct {
	name      string
	mailboxes []string
	allow     []string
	expires   string
	networks  []string
	backing   string
	noWait    bool

	readOnly   bool
	from       []string
	maxPerHour int
	loginName  string
	send       string
	decoy      bool

	client string
	preset preset
}

func newCreate(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make an app password",
		Long: `Makes an app password for one mail program and prints it once.

Behind it stands a client secret of its own, named alike, on the application
registration of the profile; with --backing user the sign-in of a person, and
with --backing certificate the application's certificate, which others share.
The mail program never sees that: it sees 16 letters that are good at the
gateway only, for the mailboxes, protocols and networks given here.

--read-only lets it change nothing in the mailbox; --from and --max-per-hour
limit what it sends; --login-name is a short user name for devices that cannot
hold an address. --send says how: by SMTP, or by Microsoft Graph where SMTP AUTH
is switched off.

--decoy makes one that is to be found by those who should not look: it never
signs in, and its use raises an alert. It has no client secret behind it, needs
no sign-in to make, and no end unless --expires gives it one.

--for says which mail program or device it is for, as settings --list has them.
It gets what that needs and no more, where the flags say nothing else, and its
settings are printed too.

On a terminal a name that is missing is asked for, and a card with the settings
is printed; in a pipe the password alone.`,
		Example: `  o365pw create --name "Outlook on Mac"
  o365pw create Scanner --mailbox scan@contoso.com --allow imap --expires 90d
  o365pw create backup --network 192.168.1.0/24 --network 10.8.0.7 --no-wait
  o365pw create ci --expires 2027-05-01 -o json | jq -r .password
  o365pw create mutt --backing user --profile private
  o365pw create archive --read-only
  o365pw create printer --login-name printer --allow smtp --from scan@contoso.com --max-per-hour 50
  o365pw create reports --allow smtp --send graph
  o365pw create laptop --for mutt
  o365pw create old-backup --decoy`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if cmd.Flags().Changed("name") {
					return &usageError{problem: "the name is given twice, by --name and by itself", hint: "o365pw create --name NAME"}
				}
				o.name = args[0]
			} else if !cmd.Flags().Changed("name") {
				name, err := a.askName(cmd.Context())
				if err != nil {
					return err
				}
				o.name = name
			}
			for _, f := range []string{"expires", "backing", "mailbox", "network", "from", "login-name", "send"} {
				// An unset variable in a script must not mean the default.
				if flag := cmd.Flags().Lookup(f); flag.Changed && strings.Trim(flag.Value.String(), "[]") == "" {
					return &usageError{problem: "--" + f + " is empty", hint: "leave --" + f + " out to get the default"}
				}
			}
			if cmd.Flags().Changed("max-per-hour") {
				if err := apppassword.CheckMaxPerHour(o.maxPerHour); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("for") {
				c, err := findClient(o.client)
				if err != nil {
					return err
				}
				o.preset = preset{client: &c, readOnly: !cmd.Flags().Changed("read-only")}
			}
			return a.runCreate(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name, unique within the profile; name it after the mail program and its machine")
	f.StringArrayVar(&o.mailboxes, "mailbox", nil, "mailbox it opens; repeat for more (default: the profile's)")
	f.StringSliceVar(&o.allow, "allow", nil, "protocols it may use: imap, pop3, smtp (default: the profile's, else imap,smtp)")
	f.StringVar(&o.expires, "expires", "", "life (180d, 12h) or last day (2027-05-01) (default: the profile's, else 180d)")
	f.StringArrayVar(&o.networks, "network", nil, "network it may be used from, in CIDR form; repeat for more (default: any)")
	f.StringVar(&o.backing, "backing", "", "what stands behind it: secret, user, certificate (default: the profile's, else secret)")
	f.BoolVar(&o.noWait, "no-wait", false, "do not wait until Entra accepts what stands behind it")
	f.BoolVar(&o.readOnly, "read-only", false, "let it read only; without --allow it may not send either")
	f.StringArrayVar(&o.from, "from", nil, "address, or @domain, it may send as; repeat for more (default: what Exchange lets pass)")
	f.IntVar(&o.maxPerHour, "max-per-hour", 0, "most messages it may send an hour, 1 to 10000 (default: no limit)")
	f.StringVar(&o.loginName, "login-name", "", "short user name that stands for its one mailbox")
	f.StringVar(&o.send, "send", "", "how it sends: auto, smtp, graph (default: as the profile says, also later)")
	f.StringVar(&o.client, "for", "", "mail program or device it is for; its settings are printed too")
	f.BoolVar(&o.decoy, "decoy", false, "make a decoy: it never signs in, and its use raises an alert")
	return cmd
}

func (a *app) runCreate(ctx context.Context, o createOptions) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	req, err := a.createRequest(o, s.profile)
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	created, err := s.manager.Create(ctx, req)
	if err != nil {
		return fmt.Errorf("create %q: %w", req.Name, err)
	}
	a.audited(ctx, s.stateDir, auditEntry(audit.Created, created.Record))
	if err := a.printNew(ctx, s, created, "Undo with: o365pw revoke "+asArgument(created.Record.Name), o.preset.client); err != nil {
		return &unprintedError{name: created.Record.Name, err: err}
	}
	return nil
}

// unprintedError tells that an app password was made, or got a new password, that
// nobody has seen.
type unprintedError struct {
	name    string
	rotated bool
	err     error
}

func (e *unprintedError) Error() string {
	if e.rotated {
		return fmt.Sprintf("the app password %q has a new password, but it could not be printed: %v", e.name, e.err)
	}
	return fmt.Sprintf("the app password %q was made, but could not be printed: %v", e.name, e.err)
}

func (e *unprintedError) Unwrap() error { return e.err }

// createRequest reads the flags, with the profile's defaults. All of it is
// refused before anybody is asked anything.
func (a *app) createRequest(o createOptions, p config.Profile) (apppassword.Request, error) {
	var req apppassword.Request
	if o.decoy && o.backing != "" {
		return req, &usageError{problem: "nothing stands behind a decoy, so --backing has no meaning for it", hint: "leave --backing out"}
	}
	if o.decoy && (o.readOnly || len(o.from) > 0 || o.maxPerHour != 0) {
		return req, &usageError{problem: "a decoy never signs in, so --read-only, --from and --max-per-hour have no meaning for it", hint: "o365pw create NAME --decoy"}
	}
	if o.send != "" {
		if err := apppassword.CheckSend(o.send); err != nil {
			return req, err
		}
	}
	if o.backing != "" {
		if problem, hint := config.CheckTenant(p.Tenant, o.backing, p.Cloud); problem != "" {
			return req, &usageError{problem: "--backing " + o.backing + ": the profile's tenant: " + problem, hint: hint}
		}
	}
	req = apppassword.Request{Name: strings.TrimSpace(o.name), Mailboxes: o.mailboxes, Allow: o.allow, Backing: cmp.Or(o.backing, p.Backing), NoWait: o.noWait,
		ReadOnly: o.readOnly, From: o.from, MaxPerHour: o.maxPerHour, LoginName: o.loginName, Decoy: o.decoy, Send: o.send}
	if err := apppassword.CheckName(req.Name); err != nil {
		return req, err
	}
	if len(req.Mailboxes) == 0 && p.Mailbox != "" {
		req.Mailboxes = []string{p.Mailbox}
	}
	for _, m := range req.Mailboxes {
		if err := apppassword.CheckMailbox(m); err != nil {
			return req, err
		}
	}
	o.preset.apply(&req)
	var err error
	if req.Allow == nil {
		req.Allow, err = a.defaultAllow(p.Allow, req.ReadOnly)
	} else {
		req.Allow, err = apppassword.ParseAllow(req.Allow)
	}
	if err != nil {
		return req, err
	}
	if err := o.preset.finish(&req); err != nil {
		return req, err
	}
	if req.Networks, err = apppassword.ParseNetworks(o.networks); err != nil {
		return req, err
	}
	if o.decoy && o.expires == "" {
		return req, nil // it may be found years from now
	}
	expires := p.Expires
	if o.expires != "" {
		expires, req.ExpiresAsked = o.expires, true
	}
	if req.Expires, err = config.ParseExpiry(expires, a.Now()); err != nil {
		return req, &apppassword.InvalidError{Field: "expiry", Value: expires, Problem: "cannot be used: " + err.Error()}
	}
	return req, nil
}

// defaultAllow is what may be used without --allow. Sending is not what
// read-only makes one think of: it has to be asked for.
func (a *app) defaultAllow(protocols []string, readOnly bool) ([]string, error) {
	allow, err := apppassword.ParseAllow(protocols)
	if err != nil || !readOnly || !slices.Contains(allow, "smtp") {
		return allow, err
	}
	allow = slices.DeleteFunc(allow, func(p string) bool { return p == "smtp" })
	if len(allow) == 0 {
		return nil, &usageError{problem: "the profile allows smtp alone, and --read-only takes that away", hint: "add --allow imap"}
	}
	a.note("read only, so smtp is left out; to let it send as well: --allow %s,smtp", strings.Join(allow, ","))
	return allow, nil
}
