package gateway

import (
	"cmp"
	"fmt"
	"sync"
	"time"
)

// quota counts the messages that each app password has sent within an hour,
// in all its sessions. The zero value is ready.
type quota struct {
	mu sync.Mutex
	of map[string]*sending // by Grant.quota
}

func (g Grant) quota() string { return cmp.Or(g.Quota, g.ID) }

// sending is one app password's.
type sending struct {
	sent     []time.Time // the oldest first; none older than an hour
	underWay int         // messages that have begun
}

// reserve counts a message that begins. wait is how long until one may, where
// none may now.
func (q *quota) reserve(g Grant) (wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of = map[string]*sending{}
	}
	now := time.Now()
	for id, s := range q.of {
		for len(s.sent) > 0 && now.Sub(s.sent[0]) >= time.Hour {
			s.sent = s.sent[1:]
		}
		if len(s.sent) == 0 && s.underWay == 0 {
			delete(q.of, id)
		}
	}
	s := q.of[g.quota()]
	if s == nil {
		s = &sending{}
		q.of[g.quota()] = s
	}
	if over := len(s.sent) + s.underWay - g.MaxPerHour; over >= 0 {
		if over < len(s.sent) {
			return time.Hour - now.Sub(s.sent[over]), false
		}
		return time.Minute, false // others are just being sent
	}
	s.underWay++
	return 0, true
}

// release gives back what was reserved for a message that was not sent.
func (q *quota) release(g Grant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.of[g.quota()]; s != nil {
		s.underWay--
	}
}

// count makes a reserved message one that was sent.
func (q *quota) count(g Grant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.of[g.quota()]; s != nil {
		s.underWay--
		s.sent = append(s.sent, time.Now())
	}
}

// minutes writes a wait for a person.
func minutes(d time.Duration) string {
	if n := int((d + time.Minute - 1) / time.Minute); n != 1 {
		return fmt.Sprintf("%d minutes", n)
	}
	return "a minute"
}
