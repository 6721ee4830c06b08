package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	// startTolerance is how far the start of a credential in the list may be
	// from the one asked for: Graph may round it.
	startTolerance = 2 * time.Second
	// lookUps is how many reads in a row must lack a credential before it is
	// taken for never made. With the growing pauses that is 15 seconds.
	lookUps = 5
	// addTries is how often a credential is asked for at most.
	addTries = 2
)

// AddPassword makes a client secret on the application with client id appID
// and returns it with its text, which Graph never shows again.
//
// No credential is left behind that nobody knows, as far as that can be: when
// it is unclear whether a request worked (no answer, a fault of the server, an
// answer without keyId or secretText), the credential is looked up by name and
// start time in several reads, removed where it is found, and asked for once
// more. The clean-up runs to its end also when ctx ends.
//
// Errors: an *AmbiguousError when a credential may be left behind all the same;
// otherwise none is: an *Error when Graph refused (see PolicyForbidsSecrets,
// PolicyLifetime, IsForbidden, IsNotFound), when it stayed throttled, or when
// nothing answered; errors of Token and of BeforeSend.
// https://learn.microsoft.com/graph/api/application-addpassword
func (c *Client) AddPassword(ctx context.Context, appID string, want NewPassword) (PasswordCredential, secret.Text, error) {
	if strings.TrimSpace(want.DisplayName) == "" {
		return PasswordCredential{}, secret.Text{}, errors.New("a credential needs a name")
	}
	b := c.budget()
	before, ahead, err := c.application(ctx, b, appID)
	if err != nil {
		return PasswordCredential{}, secret.Text{}, fmt.Errorf("read the application before adding a credential: %w", err)
	}
	lost := search{appID: appID, name: want.DisplayName, known: map[string]bool{}}
	for _, cred := range before.PasswordCredentials {
		lost.known[cred.KeyID] = true
	}
	fail := func(err error) (PasswordCredential, secret.Text, error) {
		if len(lost.starts) > 0 {
			err = lost.ambiguous(err, nil, nil)
		}
		return PasswordCredential{}, secret.Text{}, err
	}

	for try := 1; ; try++ {
		start := want.start(ahead)
		if !want.End.IsZero() && !want.End.After(start) {
			return fail(fmt.Errorf("the expiry %s is not after the start %s (by the clock of Microsoft Graph)",
				want.End.UTC().Format(time.RFC3339), start.Format(time.RFC3339)))
		}
		if want.BeforeSend != nil {
			if err := want.BeforeSend(start); err != nil {
				return fail(err)
			}
		}
		cred, text, err := c.postPassword(ctx, b, appID, want, start, lost.known)
		if err == nil {
			lost.known[cred.KeyID] = true
			c.remember(ahead, cred)
			c.sweep(ctx, lost)
			return cred, text, nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Ambiguous() {
			return fail(err)
		}

		lost.starts = append(lost.starts, start)
		c.progress("the answer of Microsoft Graph was lost; making sure that no credential is left behind")
		begin := time.Now()
		left, cleanErr := c.cleanUp(ctx, &lost)
		switch {
		case len(left) > 0 || cleanErr != nil:
			return PasswordCredential{}, secret.Text{}, lost.ambiguous(err, left, cleanErr)
		case try < addTries && b.wait(ctx, e.RetryAfter-time.Since(begin)):
			continue // with a new start time, to be told from the first
		case len(lost.starts) == 0:
			err = fmt.Errorf("%w; the credential that it made was removed again", err)
		}
		return fail(err)
	}
}

// start is the start time to ask for, in UTC, with microseconds: nobody else's
// credential of the same name will have the same.
func (want NewPassword) start(ahead time.Duration) time.Time {
	t := want.Start
	if t.IsZero() {
		t = time.Now().Add(ahead)
	}
	return t.UTC().Truncate(time.Microsecond)
}

// wireTime has fractions always, so that a start is found again as it was sent.
const wireTime = "2006-01-02T15:04:05.000000Z"

func (c *Client) postPassword(ctx context.Context, b *budget, appID string, want NewPassword, start time.Time, known map[string]bool) (PasswordCredential, secret.Text, error) {
	base, err := c.applicationURL(appID)
	if err != nil {
		return PasswordCredential{}, secret.Text{}, err
	}
	type passwordCredential struct {
		DisplayName   string `json:"displayName"`
		StartDateTime string `json:"startDateTime"`
		EndDateTime   string `json:"endDateTime,omitempty"`
	}
	var body struct {
		PasswordCredential passwordCredential `json:"passwordCredential"`
	}
	body.PasswordCredential = passwordCredential{DisplayName: want.DisplayName, StartDateTime: start.Format(wireTime)}
	if !want.End.IsZero() {
		body.PasswordCredential.EndDateTime = want.End.UTC().Format(wireTime)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return PasswordCredential{}, secret.Text{}, fmt.Errorf("encode credential: %w", err)
	}
	r := request{method: http.MethodPost, url: base + "/addPassword", body: data, once: true}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return PasswordCredential{}, secret.Text{}, err
	}
	cred, text, err := decodeAdded(resp.body)
	if err == nil && known[cred.KeyID] {
		err = errors.New("the key id of a credential that was there before")
	}
	if err != nil {
		return PasswordCredential{}, secret.Text{}, r.malformed(resp, err)
	}
	cred.DisplayName = cmp.Or(cred.DisplayName, want.DisplayName)
	if cred.Start.IsZero() {
		cred.Start = start
	}
	if cred.End.IsZero() && !want.End.IsZero() {
		cred.End = want.End.UTC()
	}
	return cred, text, nil
}

// search is what tells credentials of lost requests from all others.
type search struct {
	appID, name string
	starts      []time.Time     // of the lost requests that are not settled
	known       map[string]bool // key ids that are not theirs
}

// in gives the credentials that the lost requests may have made. One with the
// very start that was sent is theirs; where there is none, the start may have
// been rounded.
func (s *search) in(creds []PasswordCredential) []PasswordCredential {
	var found []PasswordCredential
	for _, start := range s.starts {
		var exact, near []PasswordCredential
		for _, cred := range creds {
			if s.known[cred.KeyID] || cred.DisplayName != s.name || cred.Start.Sub(start).Abs() > startTolerance {
				continue
			}
			near = append(near, cred)
			if cred.Start.Equal(start) {
				exact = append(exact, cred)
			}
		}
		if len(exact) > 0 {
			near = exact
		}
		for _, cred := range near {
			if !slices.ContainsFunc(found, func(f PasswordCredential) bool { return f.KeyID == cred.KeyID }) {
				found = append(found, cred)
			}
		}
	}
	return found
}

// settle notes that cred is removed, and with it what the lost request made
// whose start is nearest.
func (s *search) settle(cred PasswordCredential) {
	s.known[cred.KeyID] = true
	if len(s.starts) == 0 {
		return
	}
	distance := func(a, b time.Time) int { return cmp.Compare(a.Sub(cred.Start).Abs(), b.Sub(cred.Start).Abs()) }
	nearest := slices.MinFunc(s.starts, distance)
	s.starts = slices.DeleteFunc(s.starts, nearest.Equal)
}

func (s *search) ambiguous(err error, left []string, cleanUp error) *AmbiguousError {
	return &AmbiguousError{AppID: s.appID, Name: s.name, Starts: s.starts, KeyIDs: left, Err: err, CleanUp: cleanUp}
}

// cleanUp looks for the credentials of lost requests, removes and settles them;
// left names those that could not be removed. It has time of its own, since
// leaving a secret behind because somebody pressed Ctrl-C would be worse than
// the wait.
func (c *Client) cleanUp(ctx context.Context, s *search) (left []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.confirmWait())
	defer cancel()
	creds, err := c.lookUp(ctx, s)
	for _, cred := range creds {
		if e := c.RemovePassword(ctx, s.appID, cred.KeyID, nil); e != nil {
			left = append(left, cred.KeyID)
			err = errors.Join(err, e)
			continue
		}
		s.settle(cred)
	}
	return left, err
}

// lookUp reads the application until a credential of a lost request shows up,
// at most lookUps times. A read that fails for now does not end it: what lost
// the answer may be over in a moment.
func (c *Client) lookUp(ctx context.Context, s *search) ([]PasswordCredential, error) {
	b := c.budget()
	var failed error
	for n := range lookUps {
		if n > 0 && !sleep(ctx, c.pause(n-1)) {
			return nil, fmt.Errorf("look for the credential: %w", cmp.Or(failed, ended(ctx)))
		}
		var app Application
		if app, _, failed = c.application(ctx, b, s.appID); failed != nil {
			if e, ok := errors.AsType[*Error](failed); !ok || !e.Temporary() {
				break
			}
			continue
		}
		if creds := s.in(app.PasswordCredentials); len(creds) > 0 {
			return creds, nil
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("look for the credential: %w", failed)
	}
	return nil, nil
}

// sweep looks once more for what an earlier lost request made, when a later one
// has worked: it may have become visible only now.
func (c *Client) sweep(ctx context.Context, s search) {
	if len(s.starts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.confirmWait())
	defer cancel()
	app, _, err := c.application(ctx, c.budget(), s.appID)
	for _, cred := range s.in(app.PasswordCredentials) {
		err = errors.Join(err, c.RemovePassword(ctx, s.appID, cred.KeyID, nil))
	}
	if err != nil && c.Log != nil {
		c.Log.WarnContext(ctx, "a credential without owner may be left", "application", s.appID, "name", s.name, "error", err)
	}
}

// Orphans reads which credentials of the application have that name and a start
// within two seconds of start, or that very start where one has it. It is for a
// caller that crashed between NewPassword.BeforeSend and the answer. The read
// may lag the write: no orphan within the first minutes proves nothing.
func (c *Client) Orphans(ctx context.Context, appID, name string, start time.Time) ([]PasswordCredential, error) {
	app, _, err := c.application(ctx, c.budget(), appID)
	if err != nil {
		return nil, err
	}
	s := search{appID: appID, name: name, starts: []time.Time{start}}
	return s.in(app.PasswordCredentials), nil
}

func (c *Client) confirmWait() time.Duration { return cmp.Or(c.ConfirmWait, 90*time.Second) }
