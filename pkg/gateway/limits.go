package gateway

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// freeFailures are mistyped passwords, or the connections that one mail
	// program opens at the same time with an old one.
	freeFailures = 5
	firstDelay   = time.Second
	maxDelay     = 30 * time.Second
	// forgetAfter is how long after the last wrong password it begins anew.
	forgetAfter = 15 * time.Minute
	// maxSources bounds what is remembered.
	maxSources = 10_000
)

// limits slows down who guesses passwords: each wrong one costs its address,
// and the user name it was tried for, a delay that grows. The connection stays
// open for as long, and connections that have not signed in are limited by
// number, for each address and in all: that bounds the guesses of who opens many.
//
// A right password is never delayed. Programs of one machine share an address,
// and one with an old password, trying for ever, must not shut out the others.
// The zero value is ready.
type limits struct {
	mu      sync.Mutex
	sources map[string]*source
}

// source is an address or a user name that wrong passwords came from.
type source struct {
	failures int
	last     time.Time
}

// sourceOf is what counts as one address: IPv6 hosts have a network of 64 bits
// for themselves.
func sourceOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil && !addr.IsLoopback() {
			return p.Addr()
		}
	}
	return addr
}

func sourceKeys(addr netip.Addr, user string) [2]string {
	user = strings.ToLower(user)
	return [2]string{"address " + sourceOf(addr).String(), "user " + user[:min(len(user), 200)]}
}

// failed notes a wrong password, and says how long to wait with the refusal.
func (l *limits) failed(addr netip.Addr, user string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.sources == nil {
		l.sources = map[string]*source{}
	}
	var wait time.Duration
	for _, key := range sourceKeys(addr, user) {
		s := l.sources[key]
		if s == nil {
			l.forget(now)
			s = &source{}
			l.sources[key] = s
		}
		if now.Sub(s.last) > forgetAfter {
			s.failures = 0
		}
		s.failures++
		s.last = now
		if over := s.failures - freeFailures; over > 0 {
			wait = max(wait, min(firstDelay<<min(over-1, 10), maxDelay))
		}
	}
	return wait
}

// succeeded forgets what went wrong before: it was a slip.
func (l *limits) succeeded(addr netip.Addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range sourceKeys(addr, user) {
		delete(l.sources, key)
	}
}

// forget makes room: what has been quiet goes, and in a flood of addresses
// everything. mu is held.
func (l *limits) forget(now time.Time) {
	if len(l.sources) < maxSources {
		return
	}
	for key, s := range l.sources {
		if now.Sub(s.last) > forgetAfter {
			delete(l.sources, key)
		}
	}
	if len(l.sources) >= maxSources {
		clear(l.sources)
	}
}
