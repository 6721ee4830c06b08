package apppassword

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

// consent lets the mail app send by Graph for everybody.
func (f *fixture) consent(t *testing.T) {
	t.Helper()
	id, adminSecret := f.sandbox.AdminClient()
	g := &graph.Client{BaseURL: f.sandbox.Graph(), Token: f.adminToken(id, adminSecret)}
	app, err := g.ServicePrincipal(t.Context(), f.Profile.ClientID)
	if err != nil {
		t.Fatal(err)
	}
	resource, err := g.ServicePrincipal(t.Context(), "00000003-0000-0000-c000-000000000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.EnsurePermissionGrant(t.Context(), app.ID, resource.ID, []string{"Mail.Send"}, false); err != nil {
		t.Fatal(err)
	}
}

func TestGraphTokenOfEachBacking(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		if f.Profile.Backing == BackingUser {
			f.consent(t)
		}
		rec := f.made(t, "x")
		v := f.serving(t)
		issued := func() (n int) {
			for _, k := range f.sandbox.TokensIssued() {
				n += k
			}
			return n
		}
		mail, err := v.Token(t.Context(), rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		before := issued()
		for range 3 {
			tok, err := v.GraphToken(t.Context(), rec.ID)
			if err != nil {
				t.Fatal(err)
			}
			claims, ok := entra.Peek(tok)
			if !ok || claims.Audience != "https://graph.microsoft.com" {
				t.Errorf("a token for %q (%v)", claims.Audience, ok)
			}
			if f.Profile.Backing == BackingUser && !slices.Equal(claims.Scopes, []string{"Mail.Send"}) {
				t.Errorf("scopes %v", claims.Scopes)
			}
		}
		if n := issued() - before; n != 1 {
			t.Errorf("%d requests for three tokens", n)
		}
		if again, err := v.Token(t.Context(), rec.ID); err != nil || !again.Equal(mail) {
			t.Errorf("the token for Exchange was lost: %v", err)
		}
		if f.Profile.Backing == BackingUser {
			if si := f.state(t).SignIns[0]; !si.grants(f.Profile.Cloud, "imap") || !si.Ended.IsZero() {
				t.Errorf("the sign-in has changed: %+v", si)
			}
		}
	})
}

// What Entra refuses of one token ends the other: they have one credential.
func TestGraphTokenEndsWithItsCredential(t *testing.T) {
	f := newFixture(t)
	rec := f.made(t, "x")
	v := f.serving(t)
	for _, get := range []func(context.Context, string) error{
		func(ctx context.Context, id string) error { _, err := v.Token(ctx, id); return err },
		func(ctx context.Context, id string) error { _, err := v.GraphToken(ctx, id); return err },
	} {
		if err := get(t.Context(), rec.ID); err != nil {
			t.Fatal(err)
		}
	}
	// It has been accepted, so that a refusal is no replication.
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.AppPasswords[0].Verified = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !f.sandbox.RemoveCredential(rec.ID) {
		t.Fatal("it is not there")
	}
	if err := v.Revalidate(t.Context(), rec.ID); reason(t, err) != PasswordRevoked {
		t.Fatal(err)
	}
	if _, err := v.GraphToken(t.Context(), rec.ID); reason(t, err) != PasswordRevoked {
		t.Errorf("the token for Graph outlives its secret: %v", err)
	}
}

// A person who has consented to mail alone: it is said so, and mail goes on.
func TestGraphTokenNeedsConsent(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	rec := f.made(t, "x")
	v := f.serving(t)
	before, err := v.Token(t.Context(), rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.GraphToken(t.Context(), rec.ID)
	if _, ok := errors.AsType[*GraphConsentError](err); !ok || reason(t, err) != SignInAgain || !strings.Contains(err.Error(), "o365pw login") {
		t.Errorf("%v", err)
	}
	if si := f.state(t).SignIns[0]; !si.Ended.IsZero() {
		t.Errorf("marked as ended: %s", si.Why)
	}
	if again, err := v.Token(t.Context(), rec.ID); err != nil || !again.Equal(before) {
		t.Errorf("mail: %v", err)
	}
	// An administrator consents for all.
	f.consent(t)
	if _, err := f.serving(t).GraphToken(t.Context(), rec.ID); err != nil {
		t.Errorf("after consent: %v", err)
	}
	// The end of the sign-in is noted whoever meets it.
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.RevokeRefreshTokens = true })
	if _, err := f.serving(t).GraphToken(t.Context(), rec.ID); reason(t, err) != SignInAgain {
		t.Errorf("%v", err)
	}
	if si := f.state(t).SignIns[0]; si.Ended.IsZero() {
		t.Error("status would not know that it has ended")
	}
}
