package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	// maxDelayed is how many wrong passwords of one address, or for one user
	// name, may be under their delay at once. Further sign-ins are put off
	// unseen, since a delay alone does not slow down who opens many connections.
	maxDelayed = 10
	// maxSources bounds what is remembered.
	maxSources = 10_000
)

// errPutOff is why a sign-in was refused without a look at its password.
var errPutOff = errors.New("put off unseen")

// limits slows down who guesses passwords: each wrong one costs its address,
// and the user name it was tried for, a delay that grows. A right password is
// never delayed, so that a program with an old password, trying for ever, does
// not shut out others on its machine. The zero value is ready.
type limits struct {
	mu      sync.Mutex
	sources map[string]*source
	good    map[string]time.Time // address and user name of those who signed in
}

// source is an address or a user name that wrong passwords came from.
type source struct {
	failures int
	last     time.Time
	delayed  []time.Time // when each delay under way ends
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

// check refuses a sign-in while too many wrong passwords from its address, or
// for its user name, are still under their delay. Who has signed in from there
// before is let through.
func (l *limits) check(addr netip.Addr, user string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	keys := sourceKeys(addr, user)
	if last, ok := l.good[keys[0]+" "+keys[1]]; ok && now.Sub(last) < 24*time.Hour {
		return nil
	}
	for _, key := range keys {
		s := l.sources[key]
		if s == nil {
			continue
		}
		if s.settle(now); len(s.delayed) >= maxDelayed {
			wait := slices.MinFunc(s.delayed, time.Time.Compare).Sub(now).Round(time.Second)
			return &Refusal{Reason: Unavailable, Public: fmt.Sprintf("too many wrong passwords; try again in %s", cmp.Or(wait, time.Second)),
				Err: fmt.Errorf("%w: too many wrong passwords from this %s", errPutOff, strings.Fields(key)[0])}
		}
	}
	return nil
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
	keys := sourceKeys(addr, user)
	for _, key := range keys {
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
	if wait > 0 {
		for _, key := range keys {
			s := l.sources[key]
			s.settle(now)
			s.delayed = append(s.delayed, now.Add(wait))
		}
	}
	return wait
}

// succeeded notes who has signed in, from where. What went wrong before was a
// slip.
func (l *limits) succeeded(addr netip.Addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.good == nil {
		l.good = map[string]time.Time{}
	}
	if len(l.good) >= maxSources {
		clear(l.good) // costs nobody more than a delay
	}
	keys := sourceKeys(addr, user)
	l.good[keys[0]+" "+keys[1]] = time.Now()
	delete(l.sources, keys[0])
	delete(l.sources, keys[1])
}

// settle drops the delays that are over.
func (s *source) settle(now time.Time) {
	left := s.delayed[:0]
	for _, end := range s.delayed {
		if end.After(now) {
			left = append(left, end)
		}
	}
	s.delayed = left
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
