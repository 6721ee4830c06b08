package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
)

type loginOptions struct {
	deviceCode bool
}

func newLogin(a *app) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in to Microsoft Graph",
		Long: `Signs a person in to Microsoft Graph, which create, list and revoke need. The
browser opens by default; --device-code shows a code to type in on any device.
The sign-in is kept in the keychain and renews itself.

Unattended, no login is needed: set AZURE_TENANT_ID, AZURE_CLIENT_ID and
AZURE_CLIENT_SECRET, or a token in O365PW_ACCESS_TOKEN.`,
		Example: `  o365pw login
  o365pw login --device-code
  BROWSER=firefox o365pw login --profile work`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runLogin(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.deviceCode, "device-code", false, "show a code to type in on another device, in place of opening a browser")
	return cmd
}

func (a *app) runLogin(ctx context.Context, o loginOptions) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	clientID := s.loginClientID()
	if kind := s.source.kind(); kind != bySignIn {
		a.warn("%s is set and comes before this sign-in; unset it to use the sign-in", kind)
	}
	store := s.signIns()
	if err := a.canKeep(ctx, s, store); err != nil {
		return fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	var tok entra.Token
	if o.deviceCode {
		tok, err = s.entra.SignInDeviceCode(ctx, clientID, s.graphScope(), func(dc entra.DeviceCode) {
			a.tell("open %s and enter the code %s", dc.VerificationURI, dc.UserCode)
			a.progress.set("waiting for the sign-in")
		})
	} else {
		tok, err = s.entra.SignInBrowser(ctx, entra.BrowserSignIn{
			ClientID: clientID, Scope: s.graphScope(),
			Announce: func(url string) {
				a.tell("sign in in the browser; if none opens, visit:")
				fmt.Fprintf(a.Stderr, "%s\n", url)
				a.progress.set("waiting for the sign-in")
			},
			Open: func(url string) error {
				err := a.openBrowser(url)
				if err != nil {
					a.tell("%v", err)
				}
				return err
			},
		})
	}
	if err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	if tok.Refresh.IsZero() {
		return &failedError{code: failed, msg: "entra gave no refresh token, so the sign-in would end within the hour; nothing was kept"}
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	held := heldSignIn{ClientID: clientID, Username: tok.Identity.Username, Name: tok.Identity.Name, Since: a.Now().UTC(), refresh: tok.Refresh}
	// The person has done their part: Ctrl-C must not lose it any more.
	if err := store.write(context.WithoutCancel(ctx), held); err != nil {
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	who := held.Username
	if who == "" {
		who = "somebody whom Entra does not name"
	}
	a.note("signed in as %s (profile %s); kept in %s", who, s.profile.Name, s.keychain)
	return a.printSignIn(s.profile.Name, held.Username, true)
}

// canKeep proves that a sign-in could be kept before a person is asked for
// one.
func (a *app) canKeep(ctx context.Context, s *session, store *signInStore) error {
	unlock, err := store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return apppassword.ProbeKeychain(ctx, s.keychain, store.key)
}

// printSignIn is the data of login and logout, where some was asked for.
func (a *app) printSignIn(profile, username string, signedIn bool) error {
	v := struct {
		SchemaVersion int    `json:"schemaVersion"`
		Profile       string `json:"profile"`
		Username      string `json:"username"`
		SignedIn      bool   `json:"signedIn"`
	}{schemaVersion, profile, username, signedIn}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"profile", "username", "signedIn"}, [][]string{{profile, username, fmt.Sprint(signedIn)}})
	case outputName:
		return a.printf("%s\n", printable(profile))
	}
	return nil
}
