package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// purpose is what a person signs in for.
type purpose string

const (
	forDefault purpose = ""      // what the profile's backing needs
	forGraph   purpose = "graph" // managing the application and its client secrets
	forMail    purpose = "mail"  // opening mailboxes as that person (backing user)
)

type loginOptions struct {
	flow
	purpose string
	ensure  bool
}

func newLogin(a *app) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in as a person",
		Long: `Signs a person in. With backing secret or certificate that is to Microsoft
Graph, which create, list and revoke need for client secrets. With backing user
it is for mail: app passwords then open what this person may open. --for says
which, where both are needed.

The browser opens by default. On a machine without one, --paste shows an
address to open elsewhere and takes back the one that the browser ends at.
--device-code shows a code to type in on any device; many tenants block that.
--azure-cli takes tokens for Graph from an Azure CLI that is signed in.

The sign-in is kept in the keychain and renews itself. --ensure does nothing
where it is still good.

Unattended, no login is needed. Set AZURE_TENANT_ID and AZURE_CLIENT_ID with
AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE
or AZURE_FEDERATED_TOKEN. GitHub Actions with id-token: write needs nothing
beside the two; Azure Pipelines needs SYSTEM_ACCESSTOKEN in a task with a
service connection. On Azure a managed identity serves where IDENTITY_ENDPOINT
is set, or with AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential. A token of
your own goes into O365PW_ACCESS_TOKEN.`,
		Example: `  o365pw login
  o365pw login --paste
  o365pw login --device-code
  o365pw login --azure-cli
  o365pw login --ensure --for mail
  BROWSER=firefox o365pw login --profile work`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runLogin(cmd.Context(), o) },
	}
	o.bind(cmd.Flags())
	cmd.Flags().StringVar(&o.purpose, "for", "", "what to sign in for: graph, mail (default: what the profile's backing needs)")
	cmd.Flags().BoolVar(&o.ensure, "ensure", false, "do nothing where the sign-in is still good")
	return cmd
}

// signInPurpose reads --for.
func (s *session) signInPurpose(flag string) (purpose, error) {
	switch p := purpose(flag); p {
	case forGraph, forMail:
		return p, nil
	case forDefault:
		if s.profile.Backing == apppassword.BackingUser {
			return forMail, nil
		}
		return forGraph, nil
	}
	return "", &usageError{problem: "--for " + quote(flag) + " is neither graph nor mail", hint: "--for graph, or --for mail"}
}

func (a *app) runLogin(ctx context.Context, o loginOptions) error {
	if err := o.check("o365pw login"); err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	p, err := s.signInPurpose(o.purpose)
	if err != nil {
		return err
	}
	if p == forMail {
		return a.loginMail(ctx, s, o)
	}
	return a.loginGraph(ctx, s, o)
}

// loginGraph signs in to Microsoft Graph.
func (a *app) loginGraph(ctx context.Context, s *session, o loginOptions) error {
	if kind := s.source.kind(); kind != bySignIn {
		a.warn("%s is set and comes before this sign-in; unset it to use the sign-in", kind)
	}
	store := s.signIns()
	claims := ""
	if o.ensure {
		_, err := s.source.signedIn(ctx)
		if err == nil {
			held, err := store.read(ctx)
			if err != nil {
				return err
			}
			a.note("still signed in as %s (profile %s)", nobodyAs(held.Username), s.profile.Name)
			return a.printSignIn(s.profile.Name, held.Username, true)
		}
		if err != nil && advise(err).code != signInRequired {
			return fmt.Errorf("see whether the sign-in is still good: %w", err)
		}
		claims = claimsOf(err)
	}
	if err := s.probeKeychain(ctx, store.key); err != nil {
		return fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	held, err := a.signInGraph(ctx, s, o.flow, s.graphScope(), claims)
	if err != nil {
		return err
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// The person has done their part: Ctrl-C must not lose it any more.
	if err := store.write(context.WithoutCancel(ctx), held); err != nil {
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	a.note("signed in as %s (profile %s); kept in %s", nobodyAs(held.Username), s.profile.Name, s.keychain)
	return a.printSignIn(s.profile.Name, held.Username, true)
}

// signInGraph lets a person sign in to Graph for scope, and gives what is to be
// kept of it.
func (a *app) signInGraph(ctx context.Context, s *session, fl flow, scope, claims string) (heldSignIn, error) {
	if fl.azureCLI {
		if _, err := a.azureCLIToken(ctx, s); err != nil {
			return heldSignIn{}, err
		}
		return heldSignIn{Username: a.azureCLIUser(ctx, s), Since: a.Now().UTC(), AzureCLI: true}, nil
	}
	clientID := s.loginClientID()
	tok, err := a.signInPerson(ctx, s.entra, fl, person{clientID: clientID, scope: scope, claims: claims})
	if err != nil {
		return heldSignIn{}, err
	}
	if tok.Refresh.IsZero() {
		return heldSignIn{}, &failedError{code: failed, msg: "entra gave no refresh token, so the sign-in would end within the hour; nothing was kept",
			hint: "see that the application asks for offline_access, and that no policy of the tenant forbids it"}
	}
	return heldSignIn{ClientID: clientID, Authority: s.profile.Cloud.Authority, Tenant: s.profile.Tenant, TenantID: tok.Identity.TenantID, Username: tok.Identity.Username, Name: tok.Identity.Name, Since: a.Now().UTC(), refresh: tok.Refresh}, nil
}

// loginMail signs a person in for mail.
func (a *app) loginMail(ctx context.Context, s *session, o loginOptions) error {
	if o.azureCLI {
		return &usageError{problem: "the Azure CLI has no tokens for mail", hint: "o365pw login --for mail"}
	}
	claims := ""
	if o.ensure {
		_, err := s.manager.MailToken(ctx)
		si, _, serr := s.manager.SignInOf()
		if err == nil {
			err = serr
		}
		if err == nil && (s.profile.Send != "graph" || si.GrantsGraph(s.profile.Cloud)) {
			a.note("still signed in for mail as %s (profile %s)", nobodyAs(si.Username), s.profile.Name)
			return a.printSignIn(s.profile.Name, si.Username, true)
		}
		if err != nil && advise(err).code != signInRequired {
			return fmt.Errorf("see whether the sign-in is still good: %w", err)
		}
		claims = claimsOf(err)
	}
	if err := s.probeKeychain(ctx, "mail-sign-in/"+s.profile.Name); err != nil {
		return fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	si, err := a.signInMail(ctx, s, o.flow, s.profile.Mailbox, claims)
	if err != nil {
		return err
	}
	a.note("signed in for mail as %s (profile %s); kept in %s", nobodyAs(si.Username), s.profile.Name, s.keychain)
	if s.profile.Mailbox != "" && si.Username != "" && !strings.EqualFold(s.profile.Mailbox, si.Username) {
		a.warn("the profile's mailbox is %s: %s opens it only where it is shared with them", s.profile.Mailbox, si.Username)
	}
	return a.printSignIn(s.profile.Name, si.Username, true)
}

// signInMail lets a person sign in for mail, and keeps it.
func (a *app) signInMail(ctx context.Context, s *session, fl flow, hint, claims string) (apppassword.SignIn, error) {
	tok, err := a.signInPerson(ctx, s.entra, fl, person{clientID: s.profile.ClientID, scope: apppassword.MailScopes(s.profile.Cloud), hint: hint, claims: claims})
	if err != nil {
		return apppassword.SignIn{}, err
	}
	if s.profile.Send == "graph" {
		if tok, err = a.alsoForGraph(ctx, s, fl, tok, hint); err != nil {
			return apppassword.SignIn{}, err
		}
	}
	return s.manager.KeepSignIn(ctx, tok)
}

// alsoForGraph adds consent to sending by Graph to a sign-in for mail. A token is
// for one resource, so that it takes a second one, and where nobody has consented
// yet a second look of the person's. Either refresh token brings both.
func (a *app) alsoForGraph(ctx context.Context, s *session, fl flow, mail entra.Token, hint string) (entra.Token, error) {
	scope := apppassword.GraphScopes(s.profile.Cloud)
	tok, err := s.entra.RefreshToken(ctx, s.profile.ClientID, mail.Refresh, scope)
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() != entra.Unavailable {
		a.note("sending by Graph takes a consent of its own: sign in once more")
		if tok, err = a.signInPerson(ctx, s.entra, fl, person{clientID: s.profile.ClientID, scope: scope, hint: cmp.Or(mail.Identity.Username, hint)}); err == nil &&
			tok.Identity.ObjectID != mail.Identity.ObjectID {
			return entra.Token{}, &failedError{code: failed, msg: "the second sign-in was by " + nobodyAs(tok.Identity.Username) + ", and the first by " + nobodyAs(mail.Identity.Username) + "; nothing was kept",
				hint: "o365pw login --for mail, and choose the same person twice"}
		}
	}
	if err != nil {
		return entra.Token{}, fmt.Errorf("ask for consent to sending by Graph: %w", err)
	}
	mail.Scope = cmp.Or(mail.Scope, apppassword.MailScopes(s.profile.Cloud)) + " " + cmp.Or(tok.Scope, scope)
	if !tok.Refresh.IsZero() {
		mail.Refresh = tok.Refresh
	}
	return mail, nil
}

// claimsOf is what Entra wants to see again at the next sign-in (OpenID Connect
// Core section 5.5), where it said so.
func claimsOf(err error) string {
	if ee, ok := errors.AsType[*entra.Error](err); ok {
		return ee.Claims
	}
	return ""
}

func nobodyAs(username string) string {
	if username == "" {
		return "somebody whom Entra does not name"
	}
	return username
}

// probeKeychain proves that the profile's keychain keeps secrets, before a person
// is asked for one, or anything is made that would have to be kept. Two probes at
// once would take away each other's item, so that they wait for each other; a
// keychain that asks a person to open it does so before.
func (s *session) probeKeychain(ctx context.Context, user string) error {
	if s.stateDir != "" {
		if _, err := s.keychain.Get(ctx, "probe/"+user); err != nil && !errors.Is(err, secret.ErrNotFound) {
			return err
		}
		unlock, err := durable.Lock(ctx, filepath.Join(s.stateDir, "probe.lock"))
		if err != nil {
			return err
		}
		defer unlock()
	}
	return apppassword.ProbeKeychain(ctx, s.keychain, user)
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
