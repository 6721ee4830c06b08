package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	defaultMargin   = 5 * time.Minute
	defaultNegative = time.Minute
	defaultLimit    = 2 * time.Minute

	// shortHold is how long an outage is remembered, and how long a token is
	// kept at least: enough to spare Entra a stampede of waiting callers.
	shortHold = time.Second
	// lifeSlack is by how much a token's life may fall short of twice the
	// margin before half of it is all that is kept.
	lifeSlack = time.Minute
	// clockSlack is how far the clock may be set back before a token is taken
	// for older than it looks.
	clockSlack = time.Minute
)

// Cache keeps access tokens by key, which names all that a token depends on
// (tenant, client, credential, scope). For each key one request is under way at
// a time, whatever the number of callers, and Entra is left alone for a while
// after it has refused: it answers loops with AADSTS50196.
//
// The zero value is ready for use, from several goroutines. It holds no
// goroutine but those of the requests under way; see [Cache.Wait].
type Cache struct {
	// Margin is how long before its end a token is replaced; 0 is 5 minutes.
	// A token that lives less than twice as long, by more than a minute, is
	// replaced at half its life: with half an hour, what Token gives is good
	// for half an hour, also where Entra's hour is 3599 seconds and the answer
	// took its time. An outage is the exception, see Token.
	Margin time.Duration
	// Negative is how long a refusal is remembered (every Kind but
	// Unavailable); 0 is 60 s. Other failures are remembered for a second, or
	// for Retry-After where that is longer, Negative at most.
	Negative time.Duration
	// Limit bounds one fetch; 0 is 2 minutes.
	Limit time.Duration

	mu      sync.Mutex
	entries map[string]*entry
	flights map[*flight]struct{}
}

// entry is what is known of one key.
type entry struct {
	token   Token     // zero: none
	fetched time.Time // wall clock, like token.Expires
	due     time.Time // when to replace token

	err     error     // last failure
	errEnds time.Time // until when it is given as the answer; monotonic clock

	flight *flight // the request under way, or nil
}

// flight is one request with its outcome, which is set before done is closed.
type flight struct {
	done  chan struct{}
	token Token
	err   error
	spare Token // with err: an earlier token that is still good
}

// Token returns the cached token for key, or the one that fetch gets. Callers
// of one key share a fetch; it goes on when the caller that started it leaves,
// under a context with that caller's values and the cache's Limit. Each caller
// leaves when its own ctx ends, with an error that wraps ctx.Err(). In an
// outage a token past its margin is returned as long as it is good. Errors are
// those of fetch, and may be from a call up to Negative ago.
func (c *Cache) Token(ctx context.Context, key string, fetch func(context.Context) (Token, error)) (Token, error) {
	c.mu.Lock()
	now := time.Now()
	e := c.entries[key]
	switch {
	case e.fresh(now):
		defer c.mu.Unlock()
		return e.token, nil
	case e != nil && e.flight == nil && now.Before(e.errEnds):
		defer c.mu.Unlock()
		if e.good(now) {
			return e.token, nil
		}
		return Token{}, e.err
	}
	f, err := c.join(ctx, key, fetch)
	c.mu.Unlock()
	if err == nil {
		err = f.wait(ctx)
	}
	switch {
	case err != nil:
		return Token{}, err
	case f.err != nil && !f.spare.Access.IsZero():
		return f.spare, nil
	}
	return f.token, f.err
}

// Renew asks again whatever is cached, or joins the request under way. A new
// token replaces the cached one. A refusal drops it, and is remembered as in
// Token. After an outage the cached token stays for Token to use, and the
// error is returned.
func (c *Cache) Renew(ctx context.Context, key string, fetch func(context.Context) (Token, error)) (Token, error) {
	c.mu.Lock()
	f, err := c.join(ctx, key, fetch)
	c.mu.Unlock()
	if err == nil {
		err = f.wait(ctx)
	}
	if err != nil {
		return Token{}, err
	}
	return f.token, f.err
}

// Forget drops what is known of key, also what a request under way will bring
// (its callers still get it). It is due when a credential has changed, for
// instance after a new sign-in.
func (c *Cache) Forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}

// Age tells how long ago the cached token of key was fetched; ok is false where
// there is none that may still be used.
func (c *Cache) Age(key string) (age time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	e := c.entries[key]
	if !e.good(now) {
		return 0, false
	}
	return max(now.Round(0).Sub(e.fetched), 0), true
}

// Wait returns when no request is under way. A program calls it before it
// ends, so that a refresh token that is being rotated gets saved.
func (c *Cache) Wait() {
	for {
		c.mu.Lock()
		var f *flight
		for f = range c.flights {
			break
		}
		c.mu.Unlock()
		if f == nil {
			return
		}
		<-f.done
	}
}

// join gives the request under way for key, starting one if there is none.
// c.mu is held.
func (c *Cache) join(ctx context.Context, key string, fetch func(context.Context) (Token, error)) (*flight, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for access token: %w", err)
	}
	if e := c.entries[key]; e != nil && e.flight != nil {
		return e.flight, nil
	}
	c.sweep(time.Now())
	if c.entries == nil {
		c.entries = map[string]*entry{}
		c.flights = map[*flight]struct{}{}
	}
	e := c.entries[key]
	if e == nil {
		e = &entry{}
		c.entries[key] = e
	}
	f := &flight{done: make(chan struct{})}
	e.flight = f
	c.flights[f] = struct{}{}
	fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(c.Limit, defaultLimit))
	go func() {
		defer cancel()
		// Also after a panic or runtime.Goexit in fetch: those who wait, and
		// those who come later, must not wait for ever.
		f.err = errors.New("get access token: the request was abandoned")
		defer func() {
			if r := recover(); r != nil {
				f.err = fmt.Errorf("get access token: panic: %v", r)
			}
			c.land(e, f)
		}()
		f.token, f.err = fetch(fctx)
	}()
	return f, nil
}

// land notes the outcome of f in e and wakes those who wait.
func (c *Cache) land(e *entry, f *flight) {
	if f.err == nil && f.token.Access.IsZero() {
		f.err = errors.New("get access token: the answer was empty")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if f.err == nil {
		*e = entry{token: f.token, fetched: now.Round(0), due: c.due(f.token, now.Round(0))}
	} else {
		f.token = Token{}
		hold, refused := c.hold(f.err)
		e.flight, e.err, e.errEnds = nil, f.err, now.Add(hold)
		if refused {
			e.token = Token{}
		}
		if e.good(now) {
			f.spare = e.token
		}
	}
	delete(c.flights, f)
	close(f.done)
}

// due is when t is to be replaced.
func (c *Cache) due(t Token, now time.Time) time.Time {
	margin := cmp.Or(c.Margin, defaultMargin)
	if life := t.Expires.Sub(now); life < 2*margin-lifeSlack {
		margin = life / 2
	}
	due := t.Expires.Add(-margin)
	if soonest := now.Add(shortHold); due.Before(soonest) {
		return soonest
	}
	return due
}

// hold is how long err is given as the answer, and whether Entra has decided
// (as opposed to an outage, which leaves the token alone).
func (c *Cache) hold(err error) (d time.Duration, refused bool) {
	negative := cmp.Or(c.Negative, defaultNegative)
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return min(shortHold, negative), false
	case e.Kind() != Unavailable:
		return negative, true
	case e.Number() == 50196: // loop detected: no refusal, but no more requests
		return negative, false
	}
	return min(max(shortHold, e.RetryAfter), negative), false
}

// sweep drops the entries that say nothing any more. c.mu is held.
func (c *Cache) sweep(now time.Time) {
	for key, e := range c.entries {
		if e.flight == nil && !now.Before(e.errEnds) && !e.fresh(now) && !e.good(now) {
			delete(c.entries, key)
		}
	}
}

// fresh reports whether the token needs no replacement yet.
func (e *entry) fresh(now time.Time) bool {
	return e.has(now) && now.Before(e.due)
}

// good reports whether the token may still be used.
func (e *entry) good(now time.Time) bool {
	return e.has(now) && now.Before(e.token.Expires)
}

func (e *entry) has(now time.Time) bool {
	return e != nil && !e.token.Access.IsZero() && !now.Round(0).Before(e.fetched.Add(-clockSlack))
}

// wait returns nil when the outcome is there, else the end of ctx.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for access token: %w", ctx.Err())
	}
}
