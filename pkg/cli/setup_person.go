package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// planPerson plans what a person can do for themselves. Nobody is asked
// anything yet but for tokens of a sign-in that is kept.
func (w *setup) planPerson(ctx context.Context) error {
	w.useProfile()
	si, kept, err := w.s.manager.SignInOf()
	if err != nil {
		return err
	}
	if kept && !w.o.dryRun {
		if _, err := w.s.manager.MailToken(ctx); err != nil {
			if advise(err).code != signInRequired {
				return err
			}
			kept = false
		}
		kept = kept && (w.profile.Send != viaGraph || si.GrantsGraph(w.profile.Cloud))
	}
	st := setupStep{Name: "signIn", Change: changeNone, Text: fmt.Sprintf("sign-in for mail of %s in %s", nobodyAs(si.Username), w.s.keychain), do: w.signInForMail}
	if kept {
		w.person = si.Username
	} else {
		st.Change, st.Text = changeCreate, fmt.Sprintf("sign in for mail with the application %s, and keep that in %s", w.profile.ClientID, w.s.keychain)
	}
	w.step(st)
	return w.planProfile()
}

// signInForMail signs the person in, finds out whose mailbox it is, and keeps
// the sign-in.
func (w *setup) signInForMail(ctx context.Context) (string, error) {
	tok, err := w.signInPerson(ctx, w.s.entra, w.o.flow, person{clientID: w.profile.ClientID, scope: apppassword.MailScopes(w.profile.Cloud), hint: w.profile.Mailbox})
	if err != nil {
		return "", err
	}
	me, rotated := w.whoAmI(ctx, tok)
	if !rotated.IsZero() {
		tok.Refresh = rotated
	}
	w.takeIdentity(ctx, tok, me)
	if w.profile.Mailbox == "" {
		return "", &usageError{problem: "neither Graph nor Entra says which mailbox is yours", hint: "add --mailbox alice@contoso.com"}
	}
	if w.profile.Send == viaGraph {
		if tok, err = w.alsoForGraph(ctx, w.s, w.o.flow, tok, w.profile.Mailbox); err != nil {
			return "", err
		}
	}
	si, err := w.s.manager.KeepSignIn(ctx, tok)
	if err != nil {
		return "", err
	}
	w.person = si.Username
	w.begun = true
	for _, st := range w.steps {
		if st.Name == "profile" && st.Change == changeNone {
			st.Change = changeUpdate // the sign-in may have told more; what is the same is not written
		}
	}
	return fmt.Sprintf("sign-in for mail of %s in %s", nobodyAs(si.Username), w.s.keychain), nil
}

// whoAmI asks Graph, which the same refresh token may be good for
// (https://learn.microsoft.com/entra/identity-platform/refresh-tokens). Many
// applications have no consent for that, and it is no fault: the ID token says
// as much, as a rule.
func (w *setup) whoAmI(ctx context.Context, tok entra.Token) (me graph.User, rotated secret.Text) {
	if tok.Refresh.IsZero() {
		return me, rotated
	}
	w.progress.set("asking Graph whose mailbox it is")
	gt, err := w.s.entra.RefreshToken(ctx, w.profile.ClientID, tok.Refresh, w.profile.Cloud.GraphResource+"/User.Read")
	if err != nil {
		w.logger().Debug("Graph is not asked who signed in", "error", err)
		return me, rotated
	}
	c := &graph.Client{BaseURL: w.profile.Cloud.Graph, HTTP: w.s.http, UserAgent: userAgent(), Log: w.logger(),
		Token: func(context.Context) (secret.Text, error) { return gt.Access, nil }}
	if me, err = c.Me(ctx); err != nil {
		w.logger().Debug("Graph does not say who signed in", "error", err)
	}
	return me, gt.Refresh
}

// takeIdentity finds the mailbox's address, tells what is odd about it, and
// tries it at once: where the user principal name is another, Exchange may take
// that alone.
func (w *setup) takeIdentity(ctx context.Context, tok entra.Token, me graph.User) {
	upn := cmp.Or(me.UserPrincipalName, tok.Identity.Username)
	wanted := w.profile.Mailbox
	w.profile.Mailbox = cmp.Or(wanted, me.Mail, tok.Identity.Email, upn)
	if apppassword.CheckMailbox(w.profile.Mailbox) != nil {
		w.profile.Mailbox = wanted
	}
	own := []string{upn, me.Mail, tok.Identity.Email}
	is := func(a string) bool { return a != "" && strings.EqualFold(a, w.profile.Mailbox) }
	if wanted != "" && upn != "" && !slices.ContainsFunc(own, is) {
		w.warn("%s signed in: they open %s only where it is shared with them", upn, wanted)
	} else if upn != "" && me.Mail != "" && !strings.EqualFold(upn, me.Mail) {
		w.note("the user principal name is %s, the address %s", upn, me.Mail)
	}
	if w.tenantNew && guidOrEmpty.MatchString(tok.Identity.TenantID) && tok.Identity.TenantID != "" && w.profile.Tenant != "consumers" {
		w.profile.Tenant = tok.Identity.TenantID
	}
	defer w.useProfile()
	if w.profile.Mailbox == "" {
		return
	}
	w.mailboxes = []string{w.profile.Mailbox}
	t := &mailTry{mailbox: w.profile.Mailbox, protocol: gateway.Protocol(w.profile.Allow[0])}
	w.progress.set("trying %s", t)
	err := w.tryMailbox(ctx, t, tok.Access)
	if err == nil {
		w.tick(t.String() + ": Exchange opens it")
		w.ready = new(true)
		return
	}
	if e, ok := errors.AsType[*gateway.ServerError](err); ok && e.Fault == gateway.FaultNotConnected && upn != "" && !strings.EqualFold(upn, t.mailbox) && slices.ContainsFunc(own, is) {
		byUPN := &mailTry{mailbox: upn, protocol: t.protocol}
		if w.tryMailbox(ctx, byUPN, tok.Access) == nil {
			w.note("Exchange opens the mailbox by the user principal name alone, so that %s is the user name, and not %s", upn, t.mailbox)
			w.profile.Mailbox, w.mailboxes, w.ready = upn, []string{upn}, new(true)
			return
		}
	}
	if ctx.Err() == nil {
		w.ready = new(false)
		w.warn("%s is not opened: %s", t, w.whyRefused(err))
	}
}
