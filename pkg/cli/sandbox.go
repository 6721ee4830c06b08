package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

// sandboxRoles are the permissions of the sandbox's unattended client: those
// that the documentation asks an administrator for, setup's among them.
var sandboxRoles = []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All", "AppRoleAssignment.ReadWrite.All", "Application.Read.All"}

type sandboxOptions struct {
	dir        string
	authority  string
	graph      string
	imap       string
	pop3       string
	smtp       string
	autoSignIn bool
	faults     []string
}

func newSandbox(a *app) *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a small Microsoft 365 to build and test against",
		Long: `Runs Entra, Graph and an Exchange Online (IMAP, POP3, SMTP submission) with
two mailboxes on this machine until it is stopped, all in memory. Prints a
configuration that points o365pw at it, and how to use it. It is stricter than
the real service.

Faults make it misbehave. While it runs, AUTHORITY/sandbox/faults lists them
(GET) and replaces them all (PUT, JSON); AUTHORITY is in the configuration.
AUTHORITY/sandbox/powershell runs lines for Exchange such as setup prints (POST,
text):

  curl -X PUT -H 'Content-Type: application/json' -d '{"graphDown": true}' AUTHORITY/sandbox/faults
  curl -H 'Content-Type: text/plain' --data-binary @exchange.ps1 AUTHORITY/sandbox/powershell`,
		Example: `  o365pw sandbox
  o365pw sandbox --dir ./lab --authority 127.0.0.1:8400 \
                 --graph 127.0.0.1:8401 --imap 127.0.0.1:9993 \
                 --pop3 127.0.0.1:9995 --smtp 127.0.0.1:9587
  o365pw sandbox --auto-sign-in --fault throttleNext=2 --fault retryAfter=1
  o365pw sandbox --fault smtpAuthDisabled=true`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runSandbox(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "folder for configuration and certificate (default: a temporary one, removed at the end)")
	f.StringVar(&o.authority, "authority", "127.0.0.1:0", "address for Entra")
	f.StringVar(&o.graph, "graph", "127.0.0.1:0", "address for Graph")
	f.StringVar(&o.imap, "imap", "127.0.0.1:0", "address for IMAP (TLS)")
	f.StringVar(&o.pop3, "pop3", "127.0.0.1:0", "address for POP3 (TLS)")
	f.StringVar(&o.smtp, "smtp", "127.0.0.1:0", "address for SMTP submission (STARTTLS)")
	f.BoolVar(&o.autoSignIn, "auto-sign-in", false, "sign the first person in at once, without a page")
	f.StringArrayVar(&o.faults, "fault", nil, "fault to begin with, NAME=VALUE; repeat for more")
	return cmd
}

func (a *app) runSandbox(ctx context.Context, o sandboxOptions) error {
	srv := &sandbox.Server{
		AuthorityAddr: o.authority, GraphAddr: o.graph, IMAPAddr: o.imap, POP3Addr: o.pop3, SMTPAddr: o.smtp,
		AutoSignIn: o.autoSignIn, AdminRoles: sandboxRoles, Log: a.logger(),
	}
	for _, f := range []struct{ flag, addr string }{{"authority", o.authority}, {"graph", o.graph}, {"imap", o.imap}, {"pop3", o.pop3}, {"smtp", o.smtp}} {
		problem, _ := config.CheckListen(f.addr)
		host, _, _ := net.SplitHostPort(f.addr)
		if ip := net.ParseIP(host); problem == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			problem = fmt.Sprintf("%q is not on this machine alone, and the sandbox is for nobody else", f.addr)
		}
		if problem != "" {
			return &usageError{problem: "--" + f.flag + ": " + problem, hint: "o365pw sandbox --" + f.flag + " 127.0.0.1:0 takes any free port"}
		}
	}
	if err := parseFaults(o.faults, &srv.Faults); err != nil {
		return err
	}
	dir, remove, err := a.workFolder(o.dir)
	if err != nil {
		return err
	}
	defer remove()
	if err := srv.Start(); err != nil {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	defer srv.Close()
	cfg, err := writeSandboxConfig(srv, dir, "")
	if err != nil {
		return err
	}
	id, secret := srv.AdminClient()
	if !a.quiet {
		a.tell("the sandbox runs; stop it with Ctrl-C. In another terminal:")
		fmt.Fprintf(a.Stderr, "  export O365PW_CONFIG=%s O365PW_STATE=%s\n", shellQuote(filepath.Join(dir, "config.toml")), shellQuote(filepath.Join(dir, "state")))
		fmt.Fprintf(a.Stderr, "  export O365PW_KEYCHAIN=file O365PW_KEYCHAIN_PASSPHRASE=sandbox\n")
		fmt.Fprintf(a.Stderr, "  o365pw login        # or, unattended:\n")
		fmt.Fprintf(a.Stderr, "  export AZURE_CLIENT_ID=%s AZURE_CLIENT_SECRET=%s\n", id, shellQuote(secret))
	}
	if err := a.print([]byte(cfg)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// workFolder is dir, or a temporary folder that remove takes away again.
func (a *app) workFolder(dir string) (path string, remove func(), err error) {
	if dir != "" {
		if path, err = filepath.Abs(dir); err == nil {
			err = os.MkdirAll(path, 0o700)
		}
		return path, func() {}, err
	}
	path, err = os.MkdirTemp("", "o365pw-")
	if err != nil {
		return "", nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	return path, func() { _ = os.RemoveAll(path) }, nil
}

// writeSandboxConfig puts config.toml and ca.pem into dir and returns the
// configuration.
func writeSandboxConfig(srv *sandbox.Server, dir, more string) (string, error) {
	ca := filepath.Join(dir, "sandbox-ca.pem")
	if err := durable.WriteFile(ca, srv.CAPEM()); err != nil {
		return "", err
	}
	cfg := srv.Config(ca) + more
	return cfg, durable.WriteFile(filepath.Join(dir, "config.toml"), []byte(cfg))
}

// parseFaults reads NAME=VALUE pairs by the faults' JSON names. A value that is
// no JSON is text.
func parseFaults(pairs []string, into *sandbox.Faults) error {
	if len(pairs) == 0 {
		return nil
	}
	m := map[string]json.RawMessage{}
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return &usageError{problem: "--fault " + quote(p) + " is not NAME=VALUE", hint: "o365pw sandbox --fault throttleNext=2"}
		}
		if !json.Valid([]byte(value)) {
			b, err := json.Marshal(value)
			if err != nil {
				return err
			}
			value = string(b)
		}
		m[name] = json.RawMessage(value)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &usageError{problem: "--fault: " + err.Error(), hint: "o365pw sandbox --help"}
	}
	return nil
}
