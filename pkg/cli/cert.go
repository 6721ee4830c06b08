package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

func newCert(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show, hand out, trust and renew the gateway's certificate",
		Long: `The gateway's certificate is made by an authority of its own, unless the
configuration names another one by tls_cert and tls_key. Mail programs that use
TLS must trust that authority. Its key is in the keychain, and is never handed
out; leave nobody but yourself where that key can be got at: whoever has it can
pose as any server to those who trust the authority.`,
		Example: `  o365pw cert show
  o365pw cert export --format mobileconfig --file o365pw.mobileconfig
  o365pw cert install`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCertShow(a), newCertExport(a), newCertInstall(a), newCertUninstall(a), newCertRenew(a))
	return cmd
}

func newCertExport(a *app) *cobra.Command {
	var o certExportOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the authority's certificate, for other machines and devices",
		Long: `Prints the certificate of the gateway's authority, which is made if there is
none yet. It is public; the key is not in it.

  pem           text, for most programs and systems
  der           binary, for Windows, Android and devices that take no text
  mobileconfig  a profile for iPhone, iPad and Mac

While a new authority is ready to take over, pem and mobileconfig hold both, so
that who takes them now need not do so again. der has room for one: that which
signs now; with --next the other.`,
		Example: `  o365pw cert export > o365pw-ca.pem
  o365pw cert export --format der --file o365pw-ca.cer
  o365pw cert export --format mobileconfig --file o365pw.mobileconfig
  o365pw cert export --next --format der --file o365pw-next.cer`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCertExport(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "pem", "form: "+strings.Join(exportFormats, ", "))
	f.StringVar(&o.file, "file", "", "write to this file rather than to standard output")
	f.BoolVar(&o.next, "next", false, "only the authority that is to take over")
	return cmd
}

type certExportOptions struct {
	format, file string
	next         bool
}

var exportFormats = []string{"pem", "der", "mobileconfig"}

// ownAuthority is the authority of this machine's gateway, as commands use it. It
// is refused where the gateway has a certificate of one's own.
func (a *app) ownAuthority() (*authority, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if cfg != nil && cfg.Gateway.TLSCert != "" {
		return nil, &config.Error{Path: cfg.Path, Line: cfg.Line("gateway", "tls_cert"), Key: "gateway.tls_cert", Problem: "the gateway shows a certificate of your own, and its local authority is not used",
			Hint: "give mail programs the authority that has signed " + cfg.Gateway.TLSCert + ", if they do not know it; look with: o365pw cert show"}
	}
	dir, err := config.StateDir(a.Getenv)
	if err != nil {
		return nil, err
	}
	return a.authority(dir, func() (secret.Keychain, error) {
		kind, err := a.authorityKeychain(cfg)
		if err != nil {
			return nil, err
		}
		return a.keychains(dir)(kind)
	}, func(text string) { a.warn("%s", text) }), nil
}

// made gives the certificates of the authority, which is made where there is none.
func (au *authority) made(ctx context.Context) ([]*x509.Certificate, error) {
	certs, err := au.certificates()
	if !errors.Is(err, fs.ErrNotExist) {
		return certs, err
	}
	if _, err := au.open(ctx); err != nil {
		return nil, err
	}
	return au.certificates()
}

func (a *app) runCertExport(ctx context.Context, o certExportOptions) error {
	if !slices.Contains(exportFormats, o.format) {
		return &usageError{problem: "--format " + quote(o.format) + " is none of " + strings.Join(exportFormats, ", "), hint: "o365pw cert export --format pem"}
	}
	if o.format == "der" && o.file == "" && a.stdoutTTY() {
		return &usageError{problem: "der is binary, and standard output is a terminal", hint: "o365pw cert export --format der --file o365pw-ca.cer"}
	}
	au, err := a.ownAuthority()
	if err != nil {
		return err
	}
	certs, err := au.made(ctx)
	if err != nil {
		return err
	}
	if o.next {
		if certs = certs[1:]; len(certs) == 0 {
			return &usageError{problem: "there is no authority that is to take over", hint: "make one ahead of its time: o365pw cert renew"}
		}
	}
	var out []byte
	switch o.format {
	case "pem":
		out = encodeCertificates(certs...)
	case "der":
		out = certs[0].Raw
		if len(certs) > 1 {
			a.note("this is the authority that signs now; export the one that takes over on %s, too: --next", takesOver(certs[0]).Format(time.DateOnly))
		}
	default:
		var roots []clientconfig.Root
		for _, c := range certs {
			roots = append(roots, clientconfig.Root{Name: c.Subject.CommonName, DER: c.Raw})
		}
		out = clientconfig.RootProfile("o365pw: trust "+certs[0].Subject.CommonName, roots...)
	}
	if o.file == "" {
		return a.print(out)
	}
	if err := durable.WriteFile(o.file, out); err != nil {
		return err
	}
	if err := os.Chmod(o.file, 0o644); err != nil { // there is nothing secret in it
		return err
	}
	a.note("wrote %s", o.file)
	return nil
}

// takesOver is when an authority's successor signs in its place.
func takesOver(c *x509.Certificate) time.Time { return c.NotAfter.Add(-caTakesOver) }

func newCertRenew(a *app) *cobra.Command {
	var now, yes bool
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Make a new authority before the old one ends",
		Long: `Makes the authority that is to take over, if there is none yet. Until it does,
the old one signs as before, and ca.pem and "cert export" hold both: have mail
programs trust the new one meanwhile. It takes over a day before the old one
ends, in a running gateway too. The gateway itself makes it 90 days ahead.

With --now it takes over at once: for when the old key may have been seen by
others. Mail programs that do not trust the new authority yet refuse the gateway
from then on.`,
		Example: `  o365pw cert renew
  o365pw cert renew --now
  o365pw cert renew --now --yes`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCertRenew(cmd.Context(), now, yes) },
	}
	cmd.Flags().BoolVar(&now, "now", false, "have the new authority take over at once")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before --now")
	return cmd
}

func (a *app) runCertRenew(ctx context.Context, now, yes bool) error {
	au, err := a.ownAuthority()
	if err != nil {
		return err
	}
	if now && !yes {
		if !a.interactive() {
			return &usageError{problem: "there is no terminal to ask on", hint: "add --yes to have the new authority take over without being asked"}
		}
		ok, err := a.confirm(ctx, "Mail programs that do not trust the new authority yet will refuse the gateway. Let it take over now?")
		if err != nil {
			return err
		}
		if !ok {
			a.note("nothing was changed")
			return nil
		}
	}
	made, err := au.renew(ctx, now)
	if err != nil {
		return err
	}
	certs, err := au.certificates()
	if err != nil {
		return err
	}
	last := certs[len(certs)-1]
	what := map[bool]string{true: "made", false: "there already:"}[made]
	switch {
	case len(certs) == 1 && now:
		a.note("the new authority signs from now on, until %s: %s", last.NotAfter.Format(time.DateOnly), fingerprint(last))
	case len(certs) == 1:
		a.note("there was no authority; one is made, good until %s: %s", last.NotAfter.Format(time.DateOnly), fingerprint(last))
	default:
		a.note("%s the authority that takes over on %s: %s", what, takesOver(certs[0]).Format(time.DateOnly), fingerprint(last))
	}
	a.note("have mail programs trust it: here o365pw cert install, elsewhere o365pw cert export")
	return nil
}
