package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

type connectOptions struct{ mailbox string }

func newConnect(a *app) *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect imap|pop3|smtp NAME|ID",
		Short: "Open a mailbox on standard input and output",
		Long: `Connects to Exchange, signs in there by what stands behind the app password, and
then speaks IMAP, POP3 or SMTP on standard input and output: for mail programs
that run a command in the place of a connection (mutt's tunnel, mbsync's
Tunnel). No gateway has to run, there is no port, and the program needs no
password.

Over IMAP it greets by PREAUTH. Over SMTP mail may be sent after EHLO. POP3 has
nothing of the kind: any password is accepted, with the mailbox as the user
name.

The app password holds as at the gateway: its protocols, read-only, senders,
expiry; its networks must have this machine. Once it is revoked the session ends
within a second. --max-per-hour is counted for each session by itself: another
one begins at nothing. It ends with the input, by the protocol's own good-bye,
or by SIGTERM.

The log is shown with --verbose. Errors are told on standard error, and where
the protocol has a greeting for them, there too.`,
		Example: `  o365pw connect imap mutt
  o365pw connect imap mutt --mailbox shared@contoso.com
  printf 'a STATUS INBOX (UNSEEN)\r\nb LOGOUT\r\n' | o365pw connect imap mutt

  set tunnel="o365pw connect imap mutt"      in muttrc
  Tunnel "o365pw connect imap mutt"          in mbsyncrc`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeConnect,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runConnect(cmd.Context(), args[0], args[1], o) },
	}
	cmd.Flags().StringVar(&o.mailbox, "mailbox", "", "which of its mailboxes, where it has several")
	return cmd
}

func (a *app) completeConnect(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return oneOf(choice("imap", "read and file mail"), choice("pop3", "fetch mail"), choice("smtp", "send mail"))(cmd, args, typed)
	}
	return a.completeNames(cmd, args[1:], typed)
}

func (a *app) runConnect(ctx context.Context, protocol, arg string, o connectOptions) error {
	p := gateway.Protocol(protocol)
	if !slices.Contains(gateway.Protocols(), p) {
		return &usageError{problem: quote(protocol) + " is none of imap, pop3, smtp", hint: "o365pw connect imap " + asArgument(arg)}
	}
	s, err := a.openLocal()
	if err != nil {
		return err
	}
	e, err := s.findLocal(arg)
	if err != nil {
		return err
	}
	t, err := a.connectTo(ctx, s, e.Record, p, o.mailbox)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(t, a.Stdin)
		_ = t.CloseWrite()
	}()
	_, _ = io.Copy(a.Stdout, t) // whoever reads no more has left
	_ = t.Close()
	return t.Wait()
}

// mailboxOf is the mailbox that is meant: the one that is asked for, the only one,
// or the profile's.
func (s *session) mailboxOf(rec apppassword.Record, asked string) (string, error) {
	for _, m := range rec.Mailboxes {
		if strings.EqualFold(m, asked) || asked == "" && (len(rec.Mailboxes) == 1 || strings.EqualFold(m, s.profile.Mailbox)) {
			return m, nil
		}
	}
	if asked != "" {
		return "", &usageError{problem: fmt.Sprintf("the app password %q is not for %s", rec.Name, asked), hint: "it is for " + strings.Join(rec.Mailboxes, ", ")}
	}
	if rec.Decoy {
		return "", &apppassword.RefusedError{Reason: apppassword.DecoyUsed, Record: rec}
	}
	return "", &usageError{problem: fmt.Sprintf("the app password %q is for several mailboxes", rec.Name), hint: "say which: --mailbox " + strings.Join(rec.Mailboxes, ", or --mailbox ")}
}

// tunnel is the client's end of a session with a mailbox, in this process.
type tunnel struct {
	*pipeEnd
	done chan struct{}
	err  error // once done is closed
}

// Wait returns when the session has ended, with the error of
// [gateway.Server.ServeGranted].
func (t *tunnel) Wait() error {
	<-t.done
	return t.err
}

// connectTo begins a session with a mailbox of the app password, which the client
// need not sign in to. It is recorded, watched and ended as one at the gateway. The
// caller closes it, and then waits for it. An error tells that there is none; that
// the upstream does not let it in is the session's to say, and Wait's.
func (a *app) connectTo(ctx context.Context, s *session, rec apppassword.Record, p gateway.Protocol, mailbox string) (*tunnel, error) {
	mailbox, err := s.mailboxOf(rec, mailbox)
	if err != nil {
		return nil, err
	}
	g, err := a.withoutListeners(ctx, s, rec)
	if err != nil {
		return nil, err
	}
	rec, remote, err := g.admit(rec, mailbox, p)
	if err != nil {
		return nil, err
	}
	g.backend = &backend{verifier: g.verifier, clouds: g.cloud, sending: g.sending}
	grant, err := g.backend.grant(rec, mailbox, p)
	if err != nil {
		return nil, err
	}
	near, far := pipePair(remote)
	t := &tunnel{pipeEnd: near, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = g.serveGranted(ctx, serverEnd{far}, p, grant)
	}()
	return t, nil
}

// admit holds the app password to its scope, for a client on this machine. Which of
// the machine's own addresses it comes from is its networks' choice.
func (g *gatewayRun) admit(rec apppassword.Record, mailbox string, p gateway.Protocol) (_ apppassword.Record, from net.Addr, err error) {
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} {
		addr := &net.TCPAddr{IP: ip}
		admitted, _, aerr := g.verifier.Admit(rec.ID, mailbox, string(p), addr.AddrPort().Addr().Unmap())
		if aerr == nil {
			return admitted, addr, nil
		}
		err = aerr
		if re, ok := errors.AsType[*apppassword.RefusedError](aerr); !ok || re.Reason != apppassword.NetworkNotAllowed {
			break
		}
	}
	if rec.Name != "" {
		err = fmt.Errorf("app password %q: %w", rec.Name, err)
	}
	return rec, nil, err
}
