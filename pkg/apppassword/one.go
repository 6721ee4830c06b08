package apppassword

import (
	"context"
	"net/netip"

	"github.com/o365pw/o365pw/pkg/entra"
)

// LoadOne is Load for a program that is about a single app password, by its id:
// of the keychain no other item is read, by later loads either. Unlike Load it
// fails where that item cannot be read, with errors of package secret.
func (v *Verifier) LoadOne(ctx context.Context, id string) error {
	v.mu.Lock()
	v.only = id
	v.mu.Unlock()
	if err := v.Load(ctx); err != nil {
		return err
	}
	v.mu.RLock()
	h, missing := v.byID[id], v.missing[id]
	v.mu.RUnlock()
	if h == nil || !missing && !h.Password.IsZero() {
		return nil
	}
	if !h.rec.Revoked.IsZero() {
		return nil // which Admit says
	}
	_, err := v.load(ctx, h.rec)
	return err
}

// Admit is Verify for a program that was granted its sign-in by this machine's
// user, and has no password to show: the same mailboxes, protocols, networks and
// expiry hold. Its error is a [*RefusedError].
func (v *Verifier) Admit(id, mailbox, protocol string, remote netip.Addr) (Record, string, error) {
	v.mu.RLock()
	h := v.byID[id]
	v.mu.RUnlock()
	if h == nil {
		return Record{}, "", &RefusedError{Reason: PasswordRevoked}
	}
	mailbox, err := v.judge(h, mailbox, protocol, remote)
	if err != nil {
		return Record{}, "", err
	}
	return h.rec, mailbox, nil
}

// Issue is Token for who hands it on, and hence has to know when it ends; with
// graph it is GraphToken.
func (v *Verifier) Issue(ctx context.Context, id string, graph bool) (entra.Token, error) {
	if graph {
		return v.token(ctx, id, forGraph, false)
	}
	return v.token(ctx, id, forExchange, false)
}
