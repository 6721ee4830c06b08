package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

type showOptions struct {
	password   bool
	copy       bool
	clearAfter time.Duration
}

func newShow(a *app) *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use:   "show NAME|ID",
		Short: "Show an app password's settings for the mail program",
		Long: `Shows what to type into the mail program. The password itself only with
--password (in a pipe then the password alone) or --copy. Works without network.

--copy takes it off the clipboard again after 45 seconds, if it is still there.
Over SSH, and where there is no clipboard program, the terminal has the
clipboard (OSC 52), if it knows how: it cannot be read, so it is emptied
whatever is on it by then, and when the session ends.`,
		Example: `  o365pw show "Outlook on Mac"
  o365pw show "Outlook on Mac" --copy
  o365pw show "Outlook on Mac" --copy --clear-after 2m
  o365pw show mutt --password | head -1
  o365pw show mutt --password -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("clear-after") && (!o.copy || o.clearAfter < 0) {
				return &usageError{problem: "--clear-after needs --copy, and a time that is not negative", hint: "o365pw show NAME --copy --clear-after 45s"}
			}
			return a.runShow(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().BoolVar(&o.password, "password", false, "show the password too")
	cmd.Flags().BoolVar(&o.copy, "copy", false, "put the password on the clipboard")
	cmd.Flags().DurationVar(&o.clearAfter, "clear-after", 45*time.Second, "with --copy: how long it stays there; 0: until something else is copied")
	return cmd
}

func (a *app) runShow(ctx context.Context, arg string, o showOptions) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	e, err := s.findLocal(arg)
	if err != nil {
		return err
	}
	v := withPassword{SchemaVersion: schemaVersion, AppPassword: toJSON(e), Servers: s.servers(ctx, e.Record)}
	var password secret.Text
	if o.password || o.copy {
		if password, err = s.manager.Reveal(ctx, e.Record); errors.Is(err, secret.ErrNotFound) {
			return &failedError{code: failed, msg: fmt.Sprintf("%s does not hold the password of %q any more; revoke it and make a new one", s.keychain, e.Name)}
		} else if err != nil {
			return err
		}
		// Before it is shown: no password is seen without a trace.
		a.audited(ctx, s.stateDir, auditEntry(audit.Shown, e.Record))
	}
	if o.copy {
		byTerminal, err := a.copyToClipboard(ctx, password, o.clearAfter)
		if err != nil {
			return err
		}
		until := ""
		if o.clearAfter > 0 {
			until = ", for " + plural(int(o.clearAfter.Round(time.Second)/time.Second), "second")
		}
		a.note("the password of %q is on the clipboard%s", e.Name, until)
		if byTerminal { // which answers nothing
			a.note("the terminal was asked to put it there, and some do not; then: o365pw show %s --password", asArgument(e.Name))
		}
	}
	if !o.password {
		password = secret.Text{}
	}
	v.Password = a.revealed(password)
	return a.printAppPassword(v, o.password, func() error { return a.printCard(e, v.Servers, apppassword.Grouped(password), "") })
}

// findLocal finds an app password of this machine.
func (s *session) findLocal(arg string) (apppassword.Entry, error) {
	entries, err := s.manager.Local()
	if err != nil {
		return apppassword.Entry{}, err
	}
	return apppassword.Match(entries, arg)
}

// printAppPassword prints one app password as create, rotate and show do. With
// password, a pipe gets that alone. people prints it for them.
func (a *app) printAppPassword(v withPassword, password bool, people func() error) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV(csvHeader(password), [][]string{csvRow(v, password)})
	case outputName:
		return a.printf("%s\n", printable(v.AppPassword.Name))
	case outputAuto:
		if password && !a.stdoutTTY() {
			return a.printf("%s\n", v.Password)
		}
	}
	return people()
}

// servers are the gateway's addresses for the protocols the app password may
// use and this gateway speaks: those of the running gateway, else those that
// the configuration gives it.
func (s *session) servers(ctx context.Context, rec apppassword.Record) map[string]serverJSON {
	listen := map[gateway.Protocol]string{gateway.IMAP: s.gateway.IMAP, gateway.POP3: s.gateway.POP3, gateway.SMTP: s.gateway.SMTP}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if st, err := controlOf(s.stateDir).Status(ctx); err == nil {
		listen = st.Listeners
	}
	out := map[string]serverJSON{}
	for _, p := range gateway.Protocols() {
		host, port, err := net.SplitHostPort(listen[p])
		if err != nil || !slices.Contains(rec.Allow, string(p)) {
			continue
		}
		n, _ := strconv.Atoi(port)
		out[string(p)] = serverJSON{Host: clientHost(host), Port: n, Security: "tls"}
	}
	return out
}

// notListening says what to do about a protocol that is allowed, but that the
// gateway does not offer.
func notListening(protocol string) string {
	return fmt.Sprintf("nothing listens for %[1]s: set %[1]s = … in [gateway]", protocol)
}

// clientHost is how a mail program reaches a gateway that listens on host.
func clientHost(host string) string {
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			return name
		}
		return "localhost"
	}
	return host
}

// printCard is an app password for a person: what to type where. after ends the
// card of a new password, and says what to do about it; empty: it is no new one.
func (a *app) printCard(e apppassword.Entry, servers map[string]serverJSON, password secret.Text, after string) error {
	var b strings.Builder
	line := func(label, value string) { fmt.Fprintf(&b, "  %-10s %s\n", label, value) }
	fmt.Fprintf(&b, "%s\n\n", a.paint(bold, printable(e.Name)))
	if !password.IsZero() {
		line("Password", a.paint(bold, a.revealed(password)))
	}
	users := e.Mailboxes
	if e.LoginName != "" {
		users = append([]string{e.LoginName}, users...)
	}
	line("User name", printable(strings.Join(users, " or ")))
	for _, p := range e.Allow {
		srv, ok := servers[p]
		if !ok {
			line(strings.ToUpper(p), a.paint(faint, notListening(p)))
			continue
		}
		line(strings.ToUpper(p), fmt.Sprintf("server %s, port %d, SSL/TLS", srv.Host, srv.Port))
	}
	if e.ReadOnly {
		line("May", map[bool]string{false: "read only", true: "read only, and send"}[slices.Contains(e.Allow, "smtp")])
	}
	if len(e.From) > 0 {
		line("Sends as", printable(strings.Join(e.From, ", ")))
	}
	if e.MaxPerHour > 0 {
		line("Sends", fmt.Sprintf("at most %s an hour", plural(e.MaxPerHour, "message")))
	}
	switch e.Send {
	case "graph":
		line("Sends by", "Microsoft Graph")
	case "smtp":
		line("Sends by", "SMTP alone")
	}
	if e.Decoy {
		line("Decoy", a.paint(yellow, "never signs in; its use raises an alert"))
	}
	for i, n := range e.Networks {
		line([]string{"Networks", ""}[min(i, 1)], n.String())
	}
	if !e.Expires.IsZero() {
		line("Expires", e.Expires.Local().Format("2 January 2006")+" ("+relative(e.Expires, a.Now())+")")
	}
	if e.InOverlap(a.Now()) {
		line("Old one", "good until "+e.Previous.Until.Local().Format("2 January 2006 15:04")+" ("+relative(e.Previous.Until, a.Now())+"),")
		line("", "or until this one is used in its place")
	}
	if after == "" { // a new one cannot have been used
		line("Last used", lastUsed(e.LastUse, a.Now(), " from "))
	}
	if e.Status != apppassword.Active {
		line("Status", a.paint(red, string(e.Status)))
	}
	line("Id", e.ID)
	switch {
	case password.IsZero():
	case e.Decoy:
		fmt.Fprintf(&b, "\nLeave it where somebody who should not look will find it.\n")
	default:
		fmt.Fprintf(&b, "\nSpaces in the password do not matter. Test it in the mail program now;\nthe gateway must be running: o365pw serve\n")
	}
	if after != "" {
		fmt.Fprintf(&b, "%s\n", after)
	}
	return a.print([]byte(b.String()))
}
