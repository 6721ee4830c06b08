package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newCertInstall(a *app) *cobra.Command {
	var o certInstallOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have the programs of this machine trust the gateway's authority",
		Long: `Puts the certificate of the gateway's authority where programs of this machine
look up whom they trust, and says for each place what was done:

  system  for everybody: Debian, Fedora, openSUSE, Arch and relatives of them; the
          system's keychain on macOS, the machine's store on Windows
  user    for you alone: your login keychain on macOS, your own store on Windows
  nss     the databases of Firefox, Thunderbird and Chromium on Linux, also of snap
          and flatpak, by certutil of NSS. Programs that run see it after a restart

Without --store it takes all of them, but where there is one for you alone, not
that for everybody. What needs an administrator is named with its command. It
can be run again. On a terminal it asks first; elsewhere it needs --yes.

Where the new authority of "cert renew" waits to take over, both are put there.`,
		Example: `  o365pw cert install
  o365pw cert install --store nss --yes
  sudo o365pw cert install --store system`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCertInstall(cmd.Context(), o) },
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

func newCertUninstall(a *app) *cobra.Command {
	var o certInstallOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Have the programs of this machine trust the gateway's authority no longer",
		Long: `Takes the certificates of the gateway's authority out of the places that "cert
install" has put them, those of former authorities too, and no others.`,
		Example: `  o365pw cert uninstall
  o365pw cert uninstall --store nss`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCertUninstall(cmd.Context(), o) },
	}
	o.flags(cmd)
	return cmd
}

type certInstallOptions struct {
	stores []string
	yes    bool
}

func (o *certInstallOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&o.stores, "store", nil, "only these places: "+strings.Join(storeKinds, ", "))
}

// chosen are the stores asked for, at least one.
func (o *certInstallOptions) chosen(a *app) ([]trustStore, error) {
	for _, kind := range o.stores {
		if !slices.Contains(storeKinds, kind) {
			return nil, &usageError{problem: "--store " + quote(kind) + " is none of " + strings.Join(storeKinds, ", "), hint: "o365pw cert install --store " + storeSystem}
		}
	}
	stores := a.trustStores(o.stores)
	if len(stores) == 0 {
		return nil, &failedError{code: failed, msg: "no place was found on this machine that can be changed", hint: "import the file in the mail program itself: o365pw cert export --file o365pw-ca.pem"}
	}
	return stores, nil
}

func (a *app) runCertInstall(ctx context.Context, o certInstallOptions) error {
	au, err := a.ownAuthority()
	if err != nil {
		return err
	}
	if !o.yes && !a.interactive() {
		return &usageError{problem: "there is no terminal to ask on, and trusting an authority is no small thing", hint: "add --yes to trust it without being asked"}
	}
	stores, err := o.chosen(a)
	if err != nil {
		return err
	}
	certs, err := au.made(ctx)
	if err != nil {
		return err
	}
	if !o.yes {
		a.tell("%s, SHA-256 %s", certs[0].Subject.CommonName, fingerprint(certs[0]))
		for _, s := range stores {
			a.tell("  to be trusted in %s", s.name)
		}
		ok, err := a.confirm(ctx, "Whoever has its key can pose as any server there. Trust it?")
		if err != nil {
			return err
		}
		if !ok {
			a.note("nothing was changed")
			return nil
		}
	}
	var errs []error
	for _, s := range stores {
		if err := a.installIn(ctx, s, certs); err != nil {
			errs = append(errs, err)
		}
	}
	return a.failures(errs, len(stores), "changed")
}

func (a *app) installIn(ctx context.Context, s trustStore, certs []*x509.Certificate) error {
	a.progress.set("changing %s", s.name)
	for _, c := range certs {
		has, err := s.has(ctx, c)
		if err != nil {
			return err
		}
		// The system's store is also brought up to date: the last time may have
		// been broken off in between.
		if !has || s.kind == storeSystem {
			if err := s.add(ctx, c); err != nil {
				return err
			}
		}
		a.note("%s: %s %s", s.name, map[bool]string{true: "trusts already", false: "trusts now"}[has], nickname(c))
	}
	return nil
}

func (a *app) runCertUninstall(ctx context.Context, o certInstallOptions) error {
	stores, err := o.chosen(a)
	if err != nil {
		return err
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	au := &authority{dir: dir}
	certs, err := au.certificates()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	certs = append(certs, au.former()...)
	var errs []error
	taken := 0
	for _, s := range stores {
		a.progress.set("changing %s", s.name)
		for _, c := range certs {
			has, err := s.has(ctx, c)
			if err == nil && has {
				err = s.remove(ctx, c)
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
			if has {
				taken++
				a.note("%s: trusts no longer %s", s.name, nickname(c))
			}
		}
	}
	if taken == 0 && len(errs) == 0 {
		a.note("there was nothing to take out of %s", plural(len(stores), "place"))
	}
	return a.failures(errs, len(stores), "changed")
}
