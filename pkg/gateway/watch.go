package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"time"
)

// whenDone runs f once ctx is done, in a goroutine of its own. stop takes that
// back, or waits for f to return; it says whether f ran. After ctx is done, f
// has run when stop returns.
func whenDone(ctx context.Context, f func()) (stop func() (ran bool)) {
	finished := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(finished)
		f()
	})
	return func() bool {
		if !cancel() {
			<-finished
			return true
		}
		// ctx may be done for moments before it calls f.
		if ctx.Err() == nil {
			return false
		}
		f()
		return true
	}
}

// watch ends the session when its app password expires or when it is idle for
// too long. The function that it returns ends the watch.
func (s *session) watch() (stop func()) {
	s.touch()
	s.idle = timer(func() time.Duration {
		limit := cmp.Or(s.server.IdleTimeout, s.proto.idle)
		if s.leaving.Load() {
			limit = leaveTime
		}
		return limit - time.Since(time.Unix(0, s.active.Load()))
	}, func() { s.end(&ending{public: "idle for too long", cause: errIdle}) })
	if s.grant.Expires.IsZero() {
		return func() { s.idle.Stop() }
	}
	// The expiry is of the wall clock, the timer of the machine's own: they
	// part when the clock is set or the machine sleeps. The revalidation looks
	// at the clock as well.
	expiry := timer(func() time.Duration { return time.Until(s.grant.Expires) }, s.endExpired)
	return func() { s.idle.Stop(); expiry.Stop() }
}

// timer calls end once left is no longer positive.
func timer(left func() time.Duration, end func()) *time.Timer {
	var t *time.Timer
	t = time.AfterFunc(math.MaxInt64, func() {
		if wait := left(); wait > 0 {
			t.Reset(wait)
			return
		}
		end()
	})
	t.Reset(left())
	return t
}

func (s *session) endExpired() {
	s.end(&ending{public: publicTexts[Expired], reason: Expired, cause: errExpired})
}

// guard makes a panic of f an error that ends this session alone.
func (s *session) guard(f func() error) error {
	err := guarded(s.log, "a session", f)
	if p, ok := errors.AsType[*panicError](err); ok {
		return &ending{public: "internal error", cause: p}
	}
	return err
}

// panicError is a panic that was kept from ending everything.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guarded logs a panic of f and makes it a *panicError.
func guarded(log *slog.Logger, where string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic in "+where, "panic", p, "stack", string(debug.Stack()))
			err = &panicError{p}
		}
	}()
	return f()
}
