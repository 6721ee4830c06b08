package graph

import (
	"context"
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
	var tell func([]string)
	if taken != nil {
		tell = func([]string) { taken() }
	}
	return c.RemovePasswords(ctx, appID, []string{keyID}, tell)[0]
}

// RemovePasswords is RemovePassword for several credentials of one application:
// one request after the other, since Graph refuses writes on one application at
// the same time, and the same reads confirm all. The errors are in the order of
// keyIDs. A failure that is about the application or the service, rather than
// about one credential, is that of those after it as well, which are not tried;
// so is the end of ctx, as an error that is no *Error.
//
// taken, where not nil, is called with the credentials whose removal Graph has
// taken, once for each, before any of them is confirmed.
func (c *Client) RemovePasswords(ctx context.Context, appID string, keyIDs []string, taken func(keyIDs []string)) []error {
	errs := make([]error, len(keyIDs))
	base, err := c.applicationURL(appID)
	var open []*removal
	for i, id := range keyIDs {
		switch {
		case err != nil:
			errs[i] = err
		case !isGUID(id):
			errs[i] = fmt.Errorf("key id %q is not a GUID", id)
		default:
			open = append(open, &removal{i: i, keyID: strings.ToLower(id)})
		}
	}
	// The first requests may be throttled for as long as MaxWait each; what
	// follows has a limit of its own.
	open = c.removeFirst(ctx, base, open, errs, taken)
	inner, cancel := context.WithTimeout(ctx, c.confirmWait())
	defer cancel()
	for round := 1; len(open) > 0; round++ {
		b := open[0].budget
		gone, err := c.gone(inner, b, appID, open)
		open = slices.DeleteFunc(open, func(r *removal) bool {
			var done bool
			done, errs[r.i] = c.judge(r, appID, gone[r.keyID], err, round)
			return done
		})
		if len(open) == 0 {
			break
		}
		if round == 2 {
			c.progress("waiting until the removal has reached all of Microsoft Graph")
		}
		waited := sleep(inner, c.pause(min(round-1, 3)))
		var now []string
		open = slices.DeleteFunc(open, func(r *removal) bool {
			if !waited {
				errs[r.i] = &UnconfirmedError{AppID: appID, KeyID: r.keyID, Removed: r.removed, Err: interrupted(ctx)}
				return true
			}
			before := r.removed
			c.removeOnce(inner, base, r)
			if r.removed && !before {
				now = append(now, r.keyID)
			}
			if e, ok := errors.AsType[*Error](r.err); r.err != nil && (!ok || !e.IsNoSuchCredential()) {
				errs[r.i] = &UnconfirmedError{AppID: appID, KeyID: r.keyID, Removed: r.removed, Err: r.err}
				return true
			}
			return false
		})
		if taken != nil && len(now) > 0 {
			taken(now)
		}
	}
	return errs
}

// removal is one credential that RemovePasswords takes off.
type removal struct {
	i       int // in the list of the caller
	keyID   string
	budget  *budget
	removed bool  // Graph took it, or may have
	err     error // of the latest request
}

// removeFirst asks for each removal once, and gives those that are to be
// confirmed.
func (c *Client) removeFirst(ctx context.Context, base string, all []*removal, errs []error, taken func([]string)) (open []*removal) {
	var now []string
	var common error // of all that follow
	for _, r := range all {
		if common == nil && ctx.Err() != nil && r.i > 0 {
			common = ended(ctx)
		}
		if common != nil {
			errs[r.i] = common
			continue
		}
		r.budget = c.budget()
		c.removeOnce(ctx, base, r)
		if r.removed {
			now = append(now, r.keyID)
		}
		if e, ok := errors.AsType[*Error](r.err); r.err != nil && (!ok || !e.IsNoSuchCredential()) {
			errs[r.i] = r.err
			if !ok || e.Status == 0 && ctx.Err() == nil || e.IsUnauthorized() || e.IsForbidden() || e.IsNotFound() || e.IsThrottled() {
				common = r.err
			}
			continue
		}
		open = append(open, r)
	}
	if taken != nil && len(now) > 0 {
		taken(now)
	}
	return open
}

// removeOnce asks for the removal.
func (c *Client) removeOnce(ctx context.Context, base string, r *removal) {
	// A GUID needs no escaping.
	resp, err := c.send(ctx, r.budget, request{method: http.MethodPost, url: base + "/removePassword", body: []byte(`{"keyId":"` + r.keyID + `"}`)})
	r.removed, r.err = r.removed || err == nil || resp.lost, err
}

// judge tells whether a round of reads, or their error, settles the removal, and
// how.
func (c *Client) judge(r *removal, appID string, gone bool, reads error, round int) (done bool, err error) {
	if reads != nil {
		return true, &UnconfirmedError{AppID: appID, KeyID: r.keyID, Removed: r.removed, Err: reads}
	}
	start, shown := c.shown(r.keyID)
	fresh := shown && time.Since(start) < young
	switch {
	case gone && (r.removed || shown && !fresh):
		return true, nil
	case gone && fresh && round >= roundsYoung:
		return true, nil // it was there, and everything agrees that it is not now
	case gone && !shown && round >= roundsUnknown:
		return true, r.err
	}
	return false, nil
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
		gone, err := c.gone(inner, b, appID, []*removal{{keyID: strings.ToLower(keyID)}})
		if err != nil {
			return &UnconfirmedError{AppID: appID, KeyID: keyID, Err: err}
		}
		if len(gone) > 0 {
			return nil
		}
		if !sleep(inner, c.pause(min(round-1, 3))) {
			return &UnconfirmedError{AppID: appID, KeyID: keyID, Err: interrupted(ctx)}
		}
	}
}

// gone reads until each credential was shown by one read, or none of several in
// a row has shown it: these it gives.
func (c *Client) gone(ctx context.Context, b *budget, appID string, open []*removal) (map[string]bool, error) {
	gone := map[string]bool{}
	for _, r := range open {
		gone[r.keyID] = true
	}
	for n := range agree {
		// A short pause: reads at the same moment tend to meet the same replica.
		if n > 0 && !sleep(ctx, c.pause(0)/10) {
			return nil, ended(ctx)
		}
		app, _, err := c.application(ctx, b, appID)
		if err != nil {
			return nil, err
		}
		for _, cred := range app.PasswordCredentials {
			delete(gone, cred.KeyID)
		}
		if len(gone) == 0 {
			break
		}
	}
	return gone, nil
}
