package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/secret"
	"github.com/o365pw/o365pw/pkg/sendmail"
)

// sendmailName is the name by which this program is sendmail(1), and that of
// the app password which is taken where several would do.
const sendmailName = "sendmail"

func newSendmail(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   sendmailName + " [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT]...",
		Short: "Send a message, as sendmail(1) does: for cron, git, mailx",
		Long: `Reads a message on standard input and sends it through the gateway where it
runs, else directly. It returns when the server has taken the message. There is
no queue: what is not sent is the caller's to keep, and to send again.

  -t          send to those in To, Cc and Bcc, and to the arguments
  -i, -oi     a line with a lone dot is text; without it, it ends the message
  -f ADDRESS  sender (also -r): of the envelope, and of a From that is missing
  -F NAME     the name in a From that is missing
  -v          tell what the server has answered
  -q          do nothing: nothing is ever queued
  --          what follows are recipients

Other options of sendmail are taken and have no effect, but for -b: it is no
server. What a message lacks is added: From, Date, Message-ID, To. Bcc is left
out of what is sent. A sender without a domain becomes the mailbox; a recipient
without one must be the user who calls, and stands for the mailbox.

The app password is the one that may send as the sender: that of -f, else of the
message, else the profile's mailbox. Where several may, it is the one named
sendmail, or that of -a. The message is sent to all recipients or to none. If
the connection is lost after the last line, it may have been sent: that is told,
with exit code 1, and nothing is repeated.

Called by the name sendmail (a link), the program is this command. root calls it
so, too, from cron for one: link to a program that only root can change.`,
		Example: `  echo "The disk is full" | o365pw sendmail alice@contoso.com
  o365pw sendmail -t -oi < message.eml
  o365pw sendmail --app-password cron -f alice@contoso.com bob@contoso.com < report.eml
  git config sendemail.sendmailCmd "o365pw sendmail -a patches"
  sudo ln -s "$(command -v o365pw)" /usr/sbin/sendmail`,
		DisableFlagParsing: true, // they are sendmail's
		ValidArgsFunction:  a.completeSendmail,
	}
	cmd.Flags().StringP("app-password", "a", "", "app password to send with, by name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := sendmail.ParseArgs(args, func(args []string) (int, error) { return longFlag(cmd, args) })
		switch {
		case errors.Is(err, sendmail.ErrNothing):
			return nil
		case errors.As(err, new(*usageError)):
			return err
		case err != nil:
			return &usageError{problem: err.Error(), hint: "o365pw sendmail --help"}
		}
		if help, err := cmd.Flags().GetBool("help"); err == nil && help {
			return cmd.Help()
		}
		if err := a.prepareOutput(cmd); err != nil {
			return err
		}
		if name, err := cmd.Flags().GetString("app-password"); err == nil && name != "" {
			o.AppPassword = name
		}
		return a.runSendmail(cmd.Context(), o)
	}
	return cmd
}

// longFlag reads one of this program's own flags from the beginning of args, and
// returns how many it took.
func longFlag(cmd *cobra.Command, args []string) (int, error) {
	cmd.InheritedFlags() // has them merged
	name, _, whole := strings.Cut(strings.TrimPrefix(args[0], "--"), "=")
	n := 1
	if f := cmd.Flags().Lookup(name); f != nil && f.NoOptDefVal == "" && !whole {
		n = 2
	}
	err := cmd.Flags().Parse(args[:min(n, len(args))])
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return 0, &usageError{problem: flagProblem(err), hint: "o365pw sendmail --help"}
	}
	return n, nil
}

func (a *app) completeSendmail(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && (args[len(args)-1] == "-a" || args[len(args)-1] == "--app-password") {
		return a.completeNames(cmd, nil, typed)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) runSendmail(ctx context.Context, o sendmail.Options) error {
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
	m, err := sendmail.Read(a.Stdin, o)
	if err != nil {
		return err
	}
	e, mailbox, err := senderFor(entries, o.AppPassword, m.From(), s.profile.Mailbox)
	if err != nil {
		return err
	}
	err = m.Complete(sendmail.Completion{Mailbox: senderOf(e.Record, mailbox), User: a.actor(), Name: o.Name, Now: a.Now()})
	if err != nil {
		return err
	}
	way, err := a.wayOut(ctx, s, e, mailbox)
	if err != nil {
		return err
	}
	reply, err := m.Submit(ctx, way.conn, way.host, way.auth)
	cause := way.close()
	if se, ok := errors.AsType[*sendmail.RefusedError](err); ok {
		return &notSentError{name: e.Name, RefusedError: se, cause: cause}
	}
	if be, ok := errors.AsType[*sendmail.BrokenError](err); ok && cause != nil {
		be.Err = cause
	}
	if err != nil {
		return err
	}
	if o.Verbose || a.verbose {
		a.note("sent with %q: the server says %s", e.Name, reply)
	}
	return nil
}

// notSentError is a refusal of a message that was to be sent with an app
// password.
type notSentError struct {
	name string // of the app password
	*sendmail.RefusedError
	cause error // behind the refusal; nil: it is not known
}

func (e *notSentError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%v: %v", e.RefusedError, e.cause)
	}
	return e.RefusedError.Error()
}

func (e *notSentError) Unwrap() []error {
	return slices.DeleteFunc([]error{e.RefusedError, e.cause}, func(err error) bool { return err == nil })
}

// advice is by the reply's code: of a refused sign-in, of a sender or content
// that policy forbids (RFC 3463, X.7.X), of anything else.
func (e *notSentError) advice() advice {
	a := advice{failed, "o365pw doctor " + asArgument(e.name)}
	switch {
	case e.Temporary():
		a.code = unavailable
	case e.Command == "sign in":
		a.code = signInRequired
	case strings.Contains(e.Text, "5.7.") || strings.Contains(e.Text, "5.2.252"):
		a = advice{refused, "o365pw explain " + shellQuote(firstLine(e.Text))}
	}
	if e.cause != nil {
		if of := advise(e.cause); of.hint != "" {
			return of
		}
	}
	return a
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// passwordOf is the password of an app password of this machine.
func (s *session) passwordOf(ctx context.Context, e apppassword.Entry) (secret.Text, error) {
	password, err := s.manager.Reveal(ctx, e.Record)
	if errors.Is(err, secret.ErrNotFound) {
		return password, &failedError{code: failed, msg: fmt.Sprintf("%s does not hold the password of %q any more; revoke it and make a new one", s.keychain, e.Name)}
	}
	return password, err
}

// senderFor is the app password to send with, and which of its mailboxes signs
// in: the named one; else the one that may send as from, or as fallback where
// the message names no sender.
func senderFor(entries []apppassword.Entry, named, from, fallback string) (apppassword.Entry, string, error) {
	if named != "" {
		e, err := apppassword.Match(entries, named)
		if err == nil {
			err = sends(e)
		}
		if err != nil {
			return e, "", err
		}
		return e, signsInAs(e, from, fallback), nil
	}
	able := slices.DeleteFunc(slices.Clone(entries), func(e apppassword.Entry) bool { return sends(e) != nil })
	sender := from
	if sender == "" {
		sender = fallback
	}
	if sender != "" {
		able = slices.DeleteFunc(able, func(e apppassword.Entry) bool { return !maySendAs(e, sender) })
	}
	if len(able) > 1 {
		if i := slices.IndexFunc(able, func(e apppassword.Entry) bool { return strings.EqualFold(e.Name, sendmailName) }); i >= 0 {
			able = able[i : i+1]
		}
	}
	whom := "send"
	if sender != "" {
		whom = "send as " + sender
	}
	switch len(able) {
	case 1:
		return able[0], signsInAs(able[0], from, fallback), nil
	case 0:
		return apppassword.Entry{}, "", &failedError{code: notFound, msg: "no app password of this machine may " + whom,
			hint: "make one: o365pw create sendmail --for sendmail; or name one: -a NAME; or another sender: -f ADDRESS"}
	}
	var names []string
	for _, e := range able {
		names = append(names, quote(e.Name))
	}
	return apppassword.Entry{}, "", &usageError{problem: "several app passwords may " + whom + ": " + strings.Join(names, ", "),
		hint: "name one: -a NAME; or make one that is taken then: o365pw create sendmail --for sendmail"}
}

// sends tells why an app password sends nothing.
func sends(e apppassword.Entry) error {
	why := ""
	switch {
	case e.Decoy:
		why = "is a decoy, which never signs in"
	case e.Status != apppassword.Active:
		why = "is " + string(e.Status)
	case !slices.Contains(e.Allow, "smtp") || len(e.Mailboxes) == 0:
		why = "may not send (smtp)"
	default:
		return nil
	}
	return &failedError{code: failed, msg: fmt.Sprintf("the app password %q %s", e.Name, why), hint: "o365pw list; one that may: o365pw create sendmail --for sendmail"}
}

// maySendAs tells whether the app password is one for this sender: that of its
// own mailbox, or among those that it is held to.
func maySendAs(e apppassword.Entry, sender string) bool {
	_, domain, _ := strings.Cut(sender, "@")
	allowed := slices.ContainsFunc(e.From, func(f string) bool { return strings.EqualFold(f, sender) || strings.EqualFold(f, "@"+domain) })
	return allowed || len(e.From) == 0 && slices.ContainsFunc(e.Mailboxes, func(m string) bool { return strings.EqualFold(m, sender) })
}

// signsInAs is the mailbox to sign in to.
func signsInAs(e apppassword.Entry, from, fallback string) string {
	for _, address := range []string{from, fallback} {
		if i := slices.IndexFunc(e.Mailboxes, func(m string) bool { return strings.EqualFold(m, address) }); i >= 0 {
			return e.Mailboxes[i]
		}
	}
	return e.Mailboxes[0]
}

// adviseSendmail is the part of the table for messages that were not sent.
func adviseSendmail(err error) (advice, bool) {
	if e, ok := errors.AsType[*notSentError](err); ok {
		return e.advice(), true
	}
	if _, ok := errors.AsType[*sendmail.UnknownError](err); ok {
		return advice{failed, "look in Sent Items for it before it is sent again"}, true
	}
	if e, ok := errors.AsType[*sendmail.BrokenError](err); ok && !errors.Is(e, context.Canceled) {
		a := advise(e.Err)
		if a.hint == "" {
			a = advice{unavailable, "send it again; if that fails as well: o365pw doctor"}
		}
		return a, true
	}
	if e, ok := errors.AsType[*sendmail.LocalError](err); ok {
		return advice{wrongUsage, "name a mail address in the place of " + e.Name + "; for cron: MAILTO=alice@contoso.com in the crontab"}, true
	}
	if errors.As(err, new(*sendmail.AddressError)) || errors.Is(err, sendmail.ErrNoRecipient) {
		return advice{wrongUsage, "o365pw sendmail --help"}, true
	}
	if errors.As(err, new(*sendmail.SizeError)) {
		return advice{failed, "send it in parts, or as a link"}, true
	}
	return advice{}, false
}
