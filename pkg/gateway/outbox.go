package gateway

import (
	"context"
	"strings"
	"sync"
	"time"
)

const (
	// perMinute is how many messages a minute Exchange takes of a mailbox
	// (https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits).
	perMinute = 30
	// queueTime is how long a session waits for its turn: RFC 5321 section
	// 4.5.3.2.6 has ten minutes for all that comes after the message, and many
	// programs give up after one.
	queueTime = 30 * time.Second
	// maxTaking is how many messages of one app password are taken in at the same
	// time: they are in memory whole, and no upstream bounds their number.
	maxTaking = 20
)

// outbox lets one message of a mailbox through at a time, and not more a minute
// than Exchange takes. Nothing is kept in it but those who wait. The zero value is
// ready.
type outbox struct {
	mu     sync.Mutex
	boxes  map[string]*box
	taking map[string]int // by app password
}

// box is one mailbox's.
type box struct {
	turn  chan struct{} // holds a value while somebody sends
	users int
	sent  []time.Time // within the last minute, the oldest first
	until time.Time   // when Graph wants to be asked again
}

// take says whether one more message of the app password may be taken in; taken
// ends that.
func (o *outbox) take(g Grant) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taking[g.ID] >= maxTaking {
		return false
	}
	if o.taking == nil {
		o.taking = map[string]int{}
	}
	o.taking[g.ID]++
	return true
}

func (o *outbox) taken(g Grant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taking[g.ID]--; o.taking[g.ID] == 0 {
		delete(o.taking, g.ID)
	}
}

// enter waits for the turn of a message. Where it does not come in time, ok is
// false and wait says when to come again. leave ends the turn.
func (o *outbox) enter(ctx context.Context, mailbox string) (leave func(), wait time.Duration, ok bool) {
	key := strings.ToLower(mailbox)
	o.mu.Lock()
	if o.boxes == nil {
		o.boxes = map[string]*box{}
	}
	b := o.boxes[key]
	if b == nil {
		b = &box{turn: make(chan struct{}, 1)}
		o.boxes[key] = b
	}
	b.users++
	o.mu.Unlock()
	left := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		now := time.Now()
		if b.users--; b.users == 0 && !now.Before(b.until) && b.free(now) == perMinute {
			delete(o.boxes, key)
		}
	}

	limit := time.NewTimer(queueTime)
	defer limit.Stop()
	ends := time.Now().Add(queueTime)
	select {
	case b.turn <- struct{}{}:
	case <-limit.C:
		left()
		return nil, time.Minute, false
	case <-ctx.Done():
		left()
		return nil, 0, false
	}
	leave = func() { <-b.turn; left() }
	if wait = o.pause(b); wait == 0 {
		return leave, 0, true
	}
	if time.Now().Add(wait).After(ends) {
		leave()
		return nil, wait, false
	}
	select {
	case <-time.After(wait):
		return leave, 0, true
	case <-ctx.Done():
		leave()
		return nil, 0, false
	}
}

// free is how many messages may be sent now. outbox.mu is held.
func (b *box) free(now time.Time) int {
	for len(b.sent) > 0 && now.Sub(b.sent[0]) >= time.Minute {
		b.sent = b.sent[1:]
	}
	return perMinute - len(b.sent)
}

// pause is how long until the next message may be sent.
func (o *outbox) pause(b *box) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	wait := max(b.until.Sub(now), 0)
	if b.free(now) <= 0 {
		wait = max(wait, time.Minute-now.Sub(b.sent[0]))
	}
	return wait
}

// count notes that a message goes out.
func (o *outbox) count(mailbox string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.boxes[strings.ToLower(mailbox)]; b != nil {
		b.sent = append(b.sent, time.Now())
	}
}

// hold keeps the mailbox's messages back for a while.
func (o *outbox) hold(mailbox string, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.boxes[strings.ToLower(mailbox)]; b != nil {
		b.until = time.Now().Add(min(wait, maxBackoff))
	}
}
