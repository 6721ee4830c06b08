package graph

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Throttle is what Clients of one tenant share that work at the same time:
// Graph counts the requests of a program together, so that all of them wait
// when one is asked to. The zero value is ready.
// https://learn.microsoft.com/graph/throttling
type Throttle struct {
	mu    sync.Mutex
	until time.Time
	last  *Error // the answer that asked for it
}

// note keeps what an answer asks for; the longer wait counts.
func (t *Throttle) note(e *Error, wait time.Duration) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := time.Now().Add(wait); until.After(t.until) {
		t.until, t.last = until, e
	}
}

func (t *Throttle) left() (time.Duration, *Error) {
	if t == nil {
		return 0, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Until(t.until), t.last
}

// pass waits until Graph takes requests again, which another call may have been
// told to wait for. Where the budget has no room for that, the answer to the
// other call is that of this one, and nothing is sent.
func (c *Client) pass(ctx context.Context, b *budget, r request) error {
	for {
		wait, last := c.Throttle.left()
		if wait <= 0 {
			return nil
		}
		if !b.wait(ctx, wait) {
			e := &Error{Method: r.method, URL: withoutQuery(r.url), Status: http.StatusTooManyRequests, Code: last.Code, Message: last.Message,
				RequestID: last.RequestID, ClientRequestID: last.ClientRequestID, RetryAfter: wait, Waited: b.waited,
				Err: errors.New("not sent: another request was told to wait")}
			if ctx.Err() != nil {
				e.Status, e.Err = 0, ended(ctx)
			}
			return e
		}
	}
}
