package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	// trialLimit is how long one temporary client secret is used, which lives
	// for an hour.
	trialLimit = 50 * time.Minute
	// tokenRenew is the age at which a token is replaced although it is good: a
	// change in Entra shows in new ones only.
	tokenRenew = time.Minute
	// First and longest pause between two tries. Exchange may take an hour.
	firstTry, lastTry = 2 * time.Second, 30 * time.Second
)

// mailTry is one mailbox by one protocol.
type mailTry struct {
	mailbox  string
	protocol gateway.Protocol
	err      error // nil: it opens
}

func (t mailTry) String() string { return fmt.Sprintf("%s by %s", t.mailbox, t.protocol) }

// waitForExchange tries the mailboxes until they open, with a credential of the
// kind that will stand behind the app passwords.
func (w *setup) waitForExchange(ctx context.Context) error {
	if w.waitLimit == 0 {
		return nil
	}
	var tries []*mailTry
	for _, m := range w.mailboxes {
		for _, p := range w.profile.Allow {
			tries = append(tries, &mailTry{mailbox: m, protocol: gateway.Protocol(p), err: errors.New("not tried yet")})
		}
	}
	w.note("trying %s until Exchange opens it, for %s at most; Ctrl-C stops that, and loses nothing", strings.Join(w.mailboxes, ", "), w.waitLimit)
	opened := false
	w.ready = &opened
	limited, cancel := context.WithTimeout(ctx, w.waitLimit)
	defer cancel()
	err := w.tryMailboxes(limited, tries)
	switch {
	case err == nil:
		opened = true
		return nil
	case ctx.Err() != nil:
		w.warn("all is set up but what Exchange does; to go on waiting: %s", w.again("--wait"))
		return err
	case limited.Err() == nil:
		return fmt.Errorf("try the mailboxes: %w", err)
	}
	if _, ok := errors.AsType[*apppassword.LeftBehindError](err); ok {
		return err // a secret that is left comes first
	}
	var still []string
	for _, t := range tries {
		if t.err != nil {
			why := w.said(t.err) // what it can be was told when it was tried
			if w.quiet || w.structured() {
				why = w.whyRefused(t.err)
			}
			still = append(still, t.String()+": "+why)
		}
	}
	hint := "see that the lines for PowerShell were run as printed; Exchange may take an hour to follow"
	if w.justMe {
		hint = "look closer with: o365pw doctor --profile " + w.profile.Name
	}
	answered := func(t *mailTry) bool {
		e, ok := errors.AsType[*gateway.ServerError](t.err)
		return t.err != nil && (!ok || e.Fault != gateway.FaultUnreachable)
	}
	if !slices.ContainsFunc(tries, answered) {
		later, _ := explain.Exit(int(unavailable))
		hint = later.Hint()
	}
	return &failedError{code: unavailable, msg: "exchange does not open yet: " + strings.Join(still, "; "), errs: []error{err},
		hint: hint + "; then: " + w.again("--wait")}
}

// tryMailboxes tries until all tries succeed or ctx ends.
func (w *setup) tryMailboxes(ctx context.Context, tries []*mailTry) error {
	switch w.profile.Backing {
	case apppassword.BackingUser:
		return w.tryWith(ctx, tries, w.s.manager.MailToken)
	case apppassword.BackingCertificate:
		return w.tryWith(ctx, tries, w.s.manager.CertificateToken)
	}
	for {
		err := w.s.manager.Trial(ctx, func(token func(context.Context) (entra.Token, error)) error {
			trial, cancel := context.WithTimeout(ctx, trialLimit)
			defer cancel()
			return w.tryWith(trial, tries, token)
		})
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

func (w *setup) tryWith(ctx context.Context, tries []*mailTry, token func(context.Context) (entra.Token, error)) error {
	var tok entra.Token
	var issued time.Time
	told := map[string]string{}
	for pause := firstTry; ; pause = min(pause*3/2, lastTry) {
		if tok.Access.IsZero() || time.Since(issued) > tokenRenew || w.lacks(tok, tries) != "" {
			fresh, err := token(ctx)
			if err != nil {
				if ee, ok := errors.AsType[*entra.Error](err); !ok || ee.Kind() != entra.Unavailable {
					return err
				}
				w.progress.set("Entra gives no token for now: %v", err)
			} else {
				tok, issued = fresh, time.Now()
			}
		}
		left, asked := 0, time.Duration(0)
		for _, t := range tries {
			if t.err == nil || tok.Access.IsZero() {
				continue
			}
			w.progress.set("trying %s", t)
			err := w.tryMailbox(ctx, t, tok.Access)
			if err == nil {
				t.err = nil
				w.tick(t.String() + ": Exchange opens it")
				continue
			}
			left++
			if ctx.Err() != nil {
				break // and why it was refused before stays known
			}
			t.err = err
			if e, ok := errors.AsType[*gateway.ServerError](err); ok {
				asked = max(asked, e.Wait)
			}
			why := w.whyRefused(t.err)
			if role := w.lacks(tok, []*mailTry{t}); role != "" {
				why = "the permission " + role + " does not show in Entra's tokens yet"
			}
			if told[t.String()] != why {
				told[t.String()] = why
				w.note("%s: not yet: %s", t, why)
			}
		}
		if left == 0 && !tok.Access.IsZero() {
			return nil
		}
		w.progress.set("waiting for Exchange: %s of %d still refused", plural(left, "sign-in"), len(tries))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(pause, asked)):
		}
	}
}

// lacks gives a permission that a try needs, and that the token says it does not
// have: Entra has granted it too recently.
func (w *setup) lacks(tok entra.Token, tries []*mailTry) string {
	claims, ok := entra.Peek(tok.Access)
	if !ok || w.justMe {
		return ""
	}
	for _, t := range tries {
		if role := appRoles[string(t.protocol)]; t.err != nil && !slices.Contains(claims.Roles, role) {
			return role
		}
	}
	return ""
}

// tryMailbox signs in as the gateway would, as far as the mailbox.
func (w *setup) tryMailbox(ctx context.Context, t *mailTry, access secret.Text) error {
	up, err := (&backend{}).upstream(w.profile.Cloud, t.protocol)
	if err != nil {
		return err
	}
	_, err = gateway.Probe(ctx, gateway.ProbeRequest{Protocol: t.protocol, Upstream: up, Mailbox: t.mailbox, Token: access,
		Delegated: w.justMe, Proxy: gateway.ProxyFromEnvironment(w.Getenv)})
	return err
}

// said is what Exchange replied.
func (w *setup) said(err error) string {
	e, ok := errors.AsType[*gateway.ServerError](err)
	if !ok {
		return err.Error()
	}
	reply := e.Reply
	if e.Err != nil {
		reply = e.Err.Error()
	}
	return e.Command + ": " + reply
}

// whyRefused is what Exchange said, and what may be the cause. It gives no
// reason of its own for most of its refusals.
func (w *setup) whyRefused(err error) string {
	e, ok := errors.AsType[*gateway.ServerError](err)
	why := w.said(err)
	if !ok {
		return why
	}
	if w.justMe {
		if e.Fix != "" {
			why += "; " + e.Fix
		}
		return why
	}
	switch e.Fault {
	case gateway.FaultRefused:
		why += "; New-ServicePrincipal was not run yet, or with another -ObjectId than " + w.principal.ID + ", or FullAccess is missing, or it is too new"
	case gateway.FaultNotConnected:
		why += "; Add-MailboxPermission was not run yet for the service principal " + w.principal.ID + ", the protocol is switched off, or it is too new"
	default:
		if e.Fix != "" {
			why += "; " + e.Fix
		}
	}
	return why
}
