package apppassword

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	// tokenLife is how much life a cached token has left when it is given away:
	// Exchange ends a session with the token that it was opened with. Of one that
	// lives for less than twice as long, half its life.
	tokenLife = 30 * time.Minute
	// spareLife is the same in an outage.
	spareLife = time.Minute
	// oneFetch is how long a process waits for another one that gets a token.
	// Two that get one at the same time do no harm.
	oneFetch = 10 * time.Second
)

// TokenCache remembers between processes the access tokens that other programs are
// given, since those ask for one each time they sign in. A token is found as long as
// the record, and the sign-in behind it, are what they were when it was got: not
// for one that was revoked, rotated or has expired. That the credential was removed
// in Entra alone shows when the next token is got, within the hour.
type TokenCache struct {
	Registry Registry
	Caches   func(kind string) (secret.Cache, error) // by Record.Keychain
	Now      func() time.Time
}

// cachedTokens is the wire form of what is cached for one app password, by
// audience.
type cachedTokens map[audience]cachedToken

type cachedToken struct {
	Access  string    `json:"token"`
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
	Bound   string    `json:"bound"` // to what
}

func cachedKey(id string) string { return "access-token/" + id }

// Token gives the access token of the app password with that id, for Exchange or
// for Graph: a cached one, else what fetch gets. In an outage one that is about
// to end is better than none. Errors are those of fetch, of the registry, and
// [*RefusedError] for an app password that is not there or not good any more.
func (c TokenCache) Token(ctx context.Context, id string, graph bool, fetch func(context.Context) (entra.Token, error)) (_ entra.Token, cached bool, err error) {
	rec, bound, err := c.bound(id)
	if err != nil {
		return entra.Token{}, false, err
	}
	cache, err := c.Caches(rec.Keychain)
	if err != nil {
		return entra.Token{}, false, err
	}
	to := forExchange
	if graph {
		to = forGraph
	}
	find := func() (t cachedToken, fresh bool) {
		if t = load(ctx, cache, id)[to]; bound == "" || t.Bound != bound {
			return cachedToken{}, false
		}
		left := min(tokenLife, t.Expires.Sub(t.Fetched)/2)
		return t, t.Access != "" && t.Expires.Sub(c.Now()) > left && !c.Now().Before(t.Fetched.Add(-clockSlack))
	}
	if t, fresh := find(); fresh {
		return t.token(), true, nil
	}
	waiting, cancel := context.WithTimeout(ctx, oneFetch)
	unlock, err := durable.Lock(waiting, filepath.Join(c.Registry.Dir, "token.lock"))
	cancel()
	if err == nil {
		defer unlock()
	}
	spare, fresh := find()
	if fresh {
		return spare.token(), true, nil
	}
	t, err := fetch(ctx)
	if re, ok := errors.AsType[*RefusedError](err); ok && re.Reason == NotAvailable && spare.Access != "" && spare.Expires.Sub(c.Now()) > spareLife {
		return spare.token(), true, nil
	}
	if err != nil {
		return entra.Token{}, false, err
	}
	all := load(ctx, cache, id)
	if all == nil {
		all = cachedTokens{}
	}
	all[to] = cachedToken{Access: t.Access.Reveal(), Fetched: c.Now().UTC(), Expires: t.Expires.UTC(), Bound: bound}
	var life time.Duration
	for a, t := range all {
		if left := t.Expires.Sub(c.Now()); left > 0 {
			life = max(life, left)
		} else {
			delete(all, a)
		}
	}
	if b, err := json.Marshal(all); err == nil && life > 0 {
		cache.Set(ctx, cachedKey(id), secret.New(string(b)), life)
	}
	return t, false, nil
}

// load is nil where nothing is cached that can be understood.
func load(ctx context.Context, cache secret.Cache, id string) cachedTokens {
	text, ok := cache.Get(ctx, cachedKey(id))
	if !ok {
		return nil
	}
	var all cachedTokens
	if json.Unmarshal([]byte(text.Reveal()), &all) != nil {
		return nil
	}
	return all
}

func (t cachedToken) token() entra.Token {
	return entra.Token{Access: secret.New(t.Access), Expires: t.Expires}
}

// bound is the record as it is now, and what its tokens are bound to: empty where
// the sign-in behind it has ended.
func (c TokenCache) bound(id string) (Record, string, error) {
	s, err := c.Registry.Load()
	if err != nil {
		return Record{}, "", err
	}
	for _, rec := range s.AppPasswords {
		if rec.ID != id {
			continue
		}
		switch rec.LocalStatus(c.Now()) {
		case Revoked:
			return rec, "", &RefusedError{Reason: PasswordRevoked, Record: rec}
		case Expired:
			return rec, "", &RefusedError{Reason: PasswordExpired, Record: rec}
		}
		bound := rec.Revision()
		if rec.Backing != BackingUser {
			return rec, bound, nil
		}
		si := s.signIn(rec.SignIn)
		if si == nil || !si.Ended.IsZero() || si.Since.IsZero() {
			return rec, "", nil
		}
		return rec, bound + " " + signInKey(*si), nil
	}
	return Record{}, "", &RefusedError{Reason: PasswordRevoked}
}
