package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/secret"
)

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget the sign-in to Microsoft Graph",
		Long: `Removes the profile's sign-in from the keychain. App passwords go on working:
they do not depend on it. Entra itself is not told; a person ends all sign-ins
of theirs at https://mysignins.microsoft.com.`,
		Example: `  o365pw logout
  o365pw logout --profile work`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runLogout(cmd.Context()) },
	}
}

func (a *app) runLogout(ctx context.Context) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
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
