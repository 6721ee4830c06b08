package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// agree is how many reads in a row must lack a credential before it is
	// taken for gone: one read may come from a replica that lags or is ahead.
	agree = 3
	// young is the age up to which Graph's "no password credential found" may
	// mean that the credential has not reached every replica yet.
	young = 10 * time.Minute
	// Removals asked for before "no password credential found" is believed: for
	// one that nothing has shown, and for a young one (with the growing pauses
	// about half a minute).
	roundsUnknown, roundsYoung = 3, 6
)

// RemovePassword takes the credential off the application with client id appID
// and confirms that it is gone, as ConfirmRemoved does. It takes a few quick
// requests where Graph's replicas agree, and ConfirmWait after the first answer
// at most.
//
// A removal is safe to repeat, and is: after a lost answer, and after "no
// password credential found" for a credential that a read or AddPassword has
// shown, since Graph says so as well while a new one is still spreading.
//
// Errors: an *Error whose IsNoSuchCredential says true when there was none (no
// read showed it, and Graph does not know it); any other *Error when Graph
// refused or could not be reached; an *UnconfirmedError when the reads
// afterwards failed or still show it.
//
// taken, where not nil, is called once, as soon as Graph has taken the removal
// (or may have: its answer was lost) and before it is confirmed: from then on
// the credential ends.
// https://learn.microsoft.com/graph/api/application-removepassword
func (c *Client) RemovePassword(ctx context.Context, appID, keyID string, taken func()) error {
	base, err := c.applicationURL(appID)
	if err != nil {
		return err
	}
	if !isGUID(keyID) {
		return fmt.Errorf("key id %q is not a GUID", keyID)
	}
	keyID = strings.ToLower(keyID)
	body, err := json.Marshal(struct {
		KeyID string `json:"keyId"`
	}{keyID})
	if err != nil {
		return fmt.Errorf("encode key id: %w", err)
	}
	r := request{method: http.MethodPost, url: base + "/removePassword", body: body}

	b := c.budget()
	resp, err := c.send(ctx, b, r)
	// The first request may be throttled for as long as MaxWait; what follows
	// has a limit of its own.
	inner, cancel := context.WithTimeout(ctx, c.confirmWait())
	defer cancel()
	removed := false // Graph took it, or may have
	for round := 1; ; round++ {
		removed = removed || err == nil || resp.lost
		if removed && taken != nil {
			taken()
			taken = nil
		}
		unconfirmed := &UnconfirmedError{AppID: appID, KeyID: keyID, Removed: removed}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || !e.IsNoSuchCredential() {
				if round == 1 {
					return err
				}
				unconfirmed.Err = err
				return unconfirmed
			}
		}
		var gone bool
		if gone, unconfirmed.Err = c.gone(inner, b, appID, keyID); unconfirmed.Err != nil {
			return unconfirmed
		}
		start, shown := c.shown(keyID)
		fresh := shown && time.Since(start) < young
		switch {
		case gone && (removed || shown && !fresh):
			return nil
		case gone && fresh && round >= roundsYoung:
			return nil // it was there, and everything agrees that it is not now
		case gone && !shown && round >= roundsUnknown:
			return err
		}
		if round == 2 {
			c.progress("waiting until the removal has reached all of Microsoft Graph")
		}
		if !sleep(inner, c.pause(min(round-1, 3))) {
			unconfirmed.Err = interrupted(ctx)
			return unconfirmed
		}
		resp, err = c.send(inner, b, r)
	}
}

// interrupted is why ctx ended, or nil where it has not: then a limit within it
// has.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return ended(ctx)
}

// ConfirmRemoved returns nil once several reads in a row do not have the
// credential any more. While reads still show it, it reads again with growing
// pauses, for ConfirmWait at most; then, and when the reads fail, it returns an
// *UnconfirmedError. It removes nothing.
func (c *Client) ConfirmRemoved(ctx context.Context, appID, keyID string) error {
	inner, cancel := context.WithTimeout(ctx, c.confirmWait())
	defer cancel()
	b := c.budget()
	for round := 1; ; round++ {
		gone, err := c.gone(inner, b, appID, keyID)
		if err != nil {
			return &UnconfirmedError{AppID: appID, KeyID: keyID, Err: err}
		}
		if gone {
			return nil
		}
		if !sleep(inner, c.pause(min(round-1, 3))) {
			return &UnconfirmedError{AppID: appID, KeyID: keyID, Err: interrupted(ctx)}
		}
	}
}

// gone reads until one read shows the credential, or several in a row do not.
func (c *Client) gone(ctx context.Context, b *budget, appID, keyID string) (bool, error) {
	for n := range agree {
		// A short pause: reads at the same moment tend to meet the same replica.
		if n > 0 && !sleep(ctx, c.pause(0)/10) {
			return false, ended(ctx)
		}
		app, _, err := c.application(ctx, b, appID)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(app.PasswordCredentials, func(cred PasswordCredential) bool { return strings.EqualFold(cred.KeyID, keyID) }) {
			return false, nil
		}
	}
	return true, nil
}
