package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// setupSignIn gives setup its tokens for Graph: of what the environment holds,
// of the sign-in that login or an earlier setup has kept, or of a new one, which
// is kept only once the person has agreed to the plan. Until then it is the
// [entra.RefreshStore] of that sign-in.
type setupSignIn struct {
	a     *app
	s     *session
	held  heldSignIn
	isNew bool         // held is in memory alone, or of another profile
	other *signInStore // of the profile that held is of; nil: of none
	env   bool         // the environment has what is needed, and nobody signs in
	cache entra.Cache
}

// setupScope is what a person consents to: to make applications, and to grant
// them application permissions of other services than Graph.
func (s *session) setupScope() string {
	return s.graphScope() + " " + s.profile.Cloud.GraphResource + "/AppRoleAssignment.ReadWrite.All"
}

// Lock implements [entra.RefreshStore].
func (t *setupSignIn) Lock(ctx context.Context) (func(), error) { return func() {}, nil }

// Load implements [entra.RefreshStore].
func (t *setupSignIn) Load(ctx context.Context) (secret.Text, error) { return t.held.refresh, nil }

// Save implements [entra.RefreshStore].
func (t *setupSignIn) Save(ctx context.Context, refresh secret.Text) error {
	t.held.refresh = refresh
	return nil
}

// Token gives a token for Graph.
func (t *setupSignIn) Token(ctx context.Context) (secret.Text, error) {
	if t.env {
		return t.s.source.Token(ctx)
	}
	return t.scoped(ctx, t.s.setupScope())
}

// PolicyToken gives one that may read policies, where that was consented to.
func (t *setupSignIn) PolicyToken(ctx context.Context) (secret.Text, error) {
	if t.env {
		return t.s.source.PolicyToken(ctx)
	}
	return t.scoped(ctx, t.s.profile.Cloud.GraphResource+"/Policy.Read.All")
}

func (t *setupSignIn) scoped(ctx context.Context, scope string) (secret.Text, error) {
	tok, err := t.cache.Token(ctx, scope, func(ctx context.Context) (entra.Token, error) {
		switch {
		case t.held.AzureCLI:
			return t.a.azureCLIToken(ctx, t.s)
		case t.other != nil:
			return t.s.entra.RefreshStored(ctx, t.held.ClientID, scope, t.other)
		case t.isNew:
			return t.s.entra.RefreshStored(ctx, t.held.ClientID, scope, t)
		}
		return t.s.entra.RefreshStored(ctx, t.held.ClientID, scope, t.s.signIns())
	})
	return tok.Access, err
}

// signInForSetup gets what Graph is asked with, and the tenant's GUID.
func (w *setup) signInForSetup(ctx context.Context) error {
	t := &setupSignIn{a: w.app, s: w.s}
	w.signer = t
	w.tokens = append(w.tokens, &t.cache)
	w.s.graph.Token, w.s.manager.Policies.Token = t.Token, t.PolicyToken
	if kind := w.s.source.kind(); kind != bySignIn && !w.o.azureCLI {
		t.env, w.person = true, string(kind)
	} else if err := w.signInAsPerson(ctx, t); err != nil {
		return err
	}
	access, err := t.Token(ctx)
	if err != nil {
		return w.withoutRights(err)
	}
	claims, _ := entra.Peek(access)
	tenant := &w.profile.Tenant
	if err := w.sameTenant(ctx, claims.TenantID); err != nil {
		return err
	}
	switch {
	case claims.TenantID == "" || !guidOrEmpty.MatchString(claims.TenantID):
	case guidOrEmpty.MatchString(*tenant) && *tenant != claims.TenantID:
		return &usageError{problem: fmt.Sprintf("the sign-in is for tenant %s, and the profile for %s", claims.TenantID, *tenant), hint: "give the right one with --tenant, or sign in with an account of that tenant"}
	case w.tenantNew:
		*tenant = claims.TenantID
	}
	w.useProfile()
	return nil
}

// sameTenant refuses a credential of the environment that is of another tenant
// than the profile names by a domain: its application would be made there. A
// person signs in to the profile's tenant and no other.
func (w *setup) sameTenant(ctx context.Context, id string) error {
	name := w.profile.Tenant
	if !w.signer.env || !guidOrEmpty.MatchString(id) || id == "" || guidOrEmpty.MatchString(name) {
		return nil
	}
	got, err := w.s.entra.TenantID(ctx)
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() == entra.Misconfigured && !w.tenantNamed {
		return nil // an address's domain, of which Entra need not know
	}
	if err == nil && got != strings.ToLower(id) {
		err = &usageError{problem: fmt.Sprintf("%s signs in to tenant %s, and %s is tenant %s", w.person, id, name, got),
			hint: "give the right one with --tenant, or credentials of that tenant"}
	}
	return err
}

// useProfile tells the parts of the session what the profile is by now.
func (w *setup) useProfile() {
	w.s.profile, w.s.manager.Profile, w.s.entra.Tenant = w.profile, w.profile, w.profile.Tenant
}

// signInAsPerson takes the sign-in that is kept, where it does, else a new one.
func (w *setup) signInAsPerson(ctx context.Context, t *setupSignIn) error {
	held, err := w.s.signIns().read(ctx)
	if err == nil && w.was.Name == "" {
		err = secret.ErrNotFound // of a profile that is no more
	}
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	if err == nil && held.AzureCLI == w.o.azureCLI && (held.AzureCLI || held.ClientID == w.profile.LoginClientID) && held.isFor(w.profile) == nil {
		t.held, w.person = held, held.Username
		_, err := t.Token(ctx)
		if err == nil {
			return nil
		}
		if code := advise(err).code; code != signInRequired && code != refused {
			return err
		}
		t.cache.Forget(w.s.setupScope())
	}
	if took, err := w.takeOthersSignIn(ctx, t); took || err != nil {
		return err
	}
	if !w.o.azureCLI && !w.structured() {
		then := "what there is to do is shown next, and you are asked before it is done"
		switch {
		case w.o.dryRun:
			then = "nothing is changed"
		case w.o.yes:
			then = "what there is to do is shown next"
		}
		w.note("sign in as an administrator; %s", then)
		if w.profile.LoginClientID == graphTools {
			w.note("the page names Microsoft Graph Command Line Tools, which is Microsoft's own client")
		}
	}
	if t.held, err = w.signInGraph(ctx, w.s, w.o.flow, w.s.setupScope(), ""); err != nil {
		return w.withoutRights(err)
	}
	t.isNew, w.person = true, t.held.Username
	return nil
}

// takeOthersSignIn looks for a sign-in to the same tenant under another profile,
// so that an administrator with an application for each mailbox signs in once.
// Who names a way to sign in wants a new one.
func (w *setup) takeOthersSignIn(ctx context.Context, t *setupSignIn) (took bool, err error) {
	if w.cfg == nil || w.o.flow != (flow{}) {
		return false, nil
	}
	at := w.profile // by its GUID, which is how sign-ins know their tenant
	for _, name := range slices.Sorted(maps.Keys(w.cfg.Profiles)) {
		p := w.cfg.Profiles[name]
		if name == w.profile.Name || p.Cloud.Authority != at.Cloud.Authority || cmp.Or(w.Getenv("O365PW_KEYCHAIN"), p.Keychain) != at.Keychain {
			continue
		}
		store := signInStoreOf(w.s, name)
		held, err := store.read(ctx)
		if err != nil || held.AzureCLI || held.TenantID == "" || w.o.loginClientID != "" && !strings.EqualFold(held.ClientID, w.o.loginClientID) {
			continue
		}
		if !guidOrEmpty.MatchString(at.Tenant) {
			if at.Tenant, err = w.s.entra.TenantID(ctx); err != nil {
				return false, nil // the sign-in that follows tells of it
			}
		}
		if held.isFor(at) != nil {
			continue
		}
		t.held, t.other = held, store
		if _, err := t.Token(ctx); err == nil {
			t.isNew, w.person, w.profile.LoginClientID = true, held.Username, strings.ToLower(held.ClientID)
			return true, nil
		} else if code := advise(err).code; code != signInRequired && code != refused {
			return false, err
		}
		t.held, t.other = heldSignIn{}, nil
		t.cache.Forget(w.s.setupScope())
	}
	return false, nil
}

// planSignIn is the step that keeps a new sign-in: once it has shown that it has
// the rights, so that the next run may be somebody else's.
func (w *setup) planSignIn() {
	if !w.signer.isNew {
		return
	}
	text := fmt.Sprintf("keep the sign-in of %s in %s, for create and revoke", nobodyAs(w.person), w.s.keychain)
	w.step(setupStep{Name: "signIn", Change: changeCreate, Text: text, do: func(ctx context.Context) (string, error) {
		store := w.s.signIns()
		unlock, err := store.Lock(ctx)
		if err != nil {
			return "", err
		}
		defer unlock()
		if w.signer.other != nil { // it may have been replaced since
			if w.signer.held, err = w.signer.other.read(ctx); err != nil {
				return "", err
			}
		}
		w.signer.held.Tenant = w.profile.Tenant // by its GUID, if that is how it is written now
		if err := store.write(context.WithoutCancel(ctx), w.signer.held); err != nil {
			return "", err
		}
		w.signer.isNew, w.signer.other = false, nil
		return fmt.Sprintf("sign-in of %s in %s", nobodyAs(w.person), w.s.keychain), nil
	}})
}
