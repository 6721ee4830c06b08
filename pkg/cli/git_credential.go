package cli

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
)

func newGitCredential(a *app) *cobra.Command {
	name := ""
	cmd := &cobra.Command{
		Use:   "git-credential get|store|erase",
		Short: "Give git send-email its password",
		Long: `A credential helper of git: tells git send-email user name and password of an
app password, when git asks for those of this machine's gateway. To whatever
else git asks it says nothing, so that other helpers are asked. It keeps
nothing.

git finds it by its configuration, which o365pw settings --for git-send-email
prints. Each password that is given counts as shown in the audit log.`,
		Example: `  o365pw settings patches --for git-send-email
  git config credential.smtp://localhost:1587.helper '!o365pw git-credential'
  git config credential.helper '!o365pw git-credential --app-password patches'
  printf 'protocol=smtp\nhost=localhost:1587\n\n' | o365pw git-credential get | wc -l`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: oneOf(choice("get", "tell git the password"), choice("store", "nothing is kept"), choice("erase", "nothing is removed")),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "get" {
				return nil // git may come to have others, which helpers are to ignore
			}
			return a.runGitCredential(cmd.Context(), name)
		},
	}
	cmd.Flags().StringVar(&name, "app-password", "", "app password to give, by name")
	return cmd
}

// wanted is what git asks for (git-credential(1), Input/Output Format).
type wanted struct{ protocol, host, username string }

// readWanted reads attributes to an empty line. Unknown ones are ignored.
func readWanted(r io.Reader) (wanted, error) {
	var w wanted
	in := bufio.NewScanner(r)
	for in.Scan() && in.Text() != "" {
		key, value, _ := strings.Cut(in.Text(), "=")
		switch key {
		case "protocol":
			w.protocol = value
		case "host":
			w.host = value
		case "username":
			w.username = value
		}
	}
	return w, in.Err()
}

func (a *app) runGitCredential(ctx context.Context, name string) error {
	if a.stdoutTTY() {
		return &usageError{problem: "git-credential answers git, and would show the password on this terminal", hint: "o365pw show NAME --password"}
	}
	w, err := readWanted(a.Stdin)
	if err != nil {
		return err
	}
	if w.protocol != "smtp" {
		return nil
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	entries, err := s.manager.Local()
	if err != nil {
		return err
	}
	if name != "" {
		e, err := apppassword.Match(entries, name)
		if err != nil {
			return err
		}
		entries = []apppassword.Entry{e}
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(e apppassword.Entry) bool {
		return sends(e) != nil || w.username != "" && !signsInBy(e, w.username) || !isGateway(w.host, s.servers(ctx, e.Record)["smtp"])
	})
	switch {
	case len(entries) == 0:
		return nil
	case len(entries) > 1:
		a.warn("several app passwords fit; name one in git's configuration: o365pw git-credential --app-password %s", asArgument(entries[0].Name))
		return nil
	}
	e := entries[0]
	password, err := s.passwordOf(ctx, e)
	if err != nil {
		return err
	}
	user := w.username
	if user == "" {
		user = signsInAs(e, s.profile.Mailbox, "")
	}
	a.audited(ctx, s.stateDir, auditEntry(audit.Shown, e.Record))
	return a.printf("username=%s\npassword=%s\n", user, a.revealed(password))
}

// signsInBy tells whether a user name is one of the app password's.
func signsInBy(e apppassword.Entry, user string) bool {
	return e.LoginName != "" && strings.EqualFold(e.LoginName, user) ||
		slices.ContainsFunc(e.Mailboxes, func(m string) bool { return strings.EqualFold(m, user) })
}

// isGateway tells whether host:port is where the gateway listens.
func isGateway(address string, srv serverJSON) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || srv.Port == 0 || port != strconv.Itoa(srv.Port) {
		return false
	}
	if strings.EqualFold(host, srv.Host) || isLoopback(host) && isLoopback(srv.Host) {
		return true
	}
	// The machine's name stands for a gateway that listens on all addresses.
	own, err := os.Hostname()
	return err == nil && strings.EqualFold(srv.Host, own) && (isLoopback(host) || slices.Contains(listenNames(""), host))
}
