package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/secret"
)

func newLogout(a *app) *cobra.Command {
	var purpose string
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget a person's sign-in",
		Long: `Removes the profile's sign-in from the keychain: the one that login of this
profile leaves there, or the one that --for names. App passwords of backing
secret or certificate go on working, since they do not depend on it. Those of
backing user open nothing until the same person signs in again.

Entra itself is not told; a person ends all sign-ins of theirs at
https://mysignins.microsoft.com.`,
		Example: `  o365pw logout
  o365pw logout --profile work --for mail`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runLogout(cmd.Context(), purpose) },
	}
	cmd.Flags().StringVar(&purpose, "for", "", "which sign-in: graph, mail (default: what the profile's backing needs)")
	return cmd
}

func (a *app) runLogout(ctx context.Context, flag string) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	p, err := s.signInPurpose(flag)
	if err != nil {
		return err
	}
	if p == forMail {
		return a.logoutMail(ctx, s)
	}
	store := s.signIns()
	unlock, err := store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	switch err := s.keychain.Delete(ctx, store.key); {
	case errors.Is(err, secret.ErrNotFound):
		a.note("profile %s was not signed in", s.profile.Name)
	case err != nil:
		return fmt.Errorf("remove the sign-in: %w", err)
	default:
		a.note("signed out of profile %s", s.profile.Name)
	}
	if kind := s.source.kind(); kind != bySignIn {
		a.warn("%s is still set and signs in without it", kind)
	}
	return a.printSignIn(s.profile.Name, "", false)
}

func (a *app) logoutMail(ctx context.Context, s *session) error {
	si, ok, err := s.manager.SignInOf()
	if err != nil {
		return err
	}
	if !ok {
		a.note("nobody was signed in for mail under profile %s", s.profile.Name)
		return a.printSignIn(s.profile.Name, "", false)
	}
	lost, err := s.manager.ForgetSignIn(ctx)
	if err != nil {
		return fmt.Errorf("remove the sign-in for mail: %w", err)
	}
	a.note("signed %s out of mail (profile %s)", nobodyAs(si.Username), s.profile.Name)
	if len(lost) > 0 {
		var names []string
		for _, r := range lost {
			names = append(names, quote(r.Name))
		}
		a.warn("%s until the same person signs in again: %s", map[bool]string{true: "this app password opens nothing", false: "these app passwords open nothing"}[len(lost) == 1], strings.Join(names, ", "))
	}
	return a.printSignIn(s.profile.Name, "", false)
}
