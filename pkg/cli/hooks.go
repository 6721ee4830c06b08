package cli

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
)

const (
	// hookQueue is how many events may wait for one hook.
	hookQueue = 64
	// hookLimit is how long one command may take.
	hookLimit = 30 * time.Second
	// hookFarewell is how long the commands get once the gateway has ended.
	hookFarewell = 5 * time.Second

	// refusedPerMinute is how many refusals on_refused is run for; one more
	// tells how many were left out.
	refusedPerMinute = 10
	// signInEvery is how often on_sign_in_required is run for one app password.
	signInEvery = time.Hour
	// expiryEvery is how often the expiries are looked at.
	expiryEvery = time.Hour
)

// expiryDays are how many days before an app password ends it is told.
var expiryDays = []int{1, 7, 30}

// A hook is an event that a command can be configured for, by its key in
// [hooks].
type hook string

const (
	onExpiring       hook = "on_expiring"
	onSignInRequired hook = "on_sign_in_required"
	onRefused        hook = "on_refused"
	onDecoy          hook = "on_decoy"
)

// hooks runs the configured commands, at most one at a time of each. What it
// is told never waits: a command that takes long lets events queue up, and then
// fall away.
type hooks struct {
	configured func() config.Hooks // as they are now
	environ    []string            // of the commands
	records    func() []apppassword.Record
	told       *apppassword.UsageRecorder // which warnings of an end were given
	now        func() time.Time
	limit      time.Duration // of one command; 0: hookLimit
	log        *slog.Logger

	certificates     func() []certificateEnd
	toldCertificates map[string]int // days by fingerprint, since the gateway was started

	queues map[hook]chan hookRun

	mu     sync.Mutex
	asked  map[string]time.Time // when on_sign_in_required was run last, by id
	window time.Time            // when the minute of on_refused began
	ran    int                  // refusals told in it
	held   int                  // and those that were not
}

// hookRun is one event for a command. done, where there is one, is called when
// the command has succeeded.
type hookRun struct {
	event hookEvent
	done  func()
}

// ready makes the queues. It must be called before anything else.
func (h *hooks) ready() *hooks {
	h.queues = map[hook]chan hookRun{}
	for _, k := range []hook{onExpiring, onSignInRequired, onRefused, onDecoy} {
		h.queues[k] = make(chan hookRun, hookQueue)
	}
	return h
}

// command is what is configured for a hook; empty: nothing.
func (h *hooks) command(k hook) string {
	c := h.configured()
	return map[hook]string{onExpiring: c.OnExpiring, onSignInRequired: c.OnSignInRequired, onRefused: c.OnRefused, onDecoy: c.OnDecoy}[k]
}

// observe queues what the event of the gateway calls for.
func (h *hooks) observe(e gateway.Event) {
	if cause, ok := needsSignIn(e); ok {
		h.signInRequired(e, cause)
	}
	switch {
	case e.Kind != gateway.Refused:
	case e.Reason == gateway.DecoyUsed:
		h.queue(onDecoy, hookRun{event: decoyEvent(e)})
	default:
		h.refused(e)
	}
}

// needsSignIn tells whether the event means that Entra no longer accepts
// what stands behind an app password.
func needsSignIn(e gateway.Event) (cause error, ok bool) {
	switch {
	case e.Grant.ID == "":
		return nil, false
	case e.Reason == gateway.SignInRequired:
		return e.Cause, true
	case e.Reason != gateway.Revoked && e.Reason != gateway.Policy:
		return nil, false
	}
	if ee, ok := findEntra(e.Cause); ok {
		return ee, ee.Kind() != entra.Unavailable
	}
	// Known without asking: a certificate that has ended.
	ce, ok := errors.AsType[*apppassword.CertificateError](e.Cause)
	return ce, ok
}

func (h *hooks) signInRequired(e gateway.Event, cause error) {
	if h.command(onSignInRequired) == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for id, at := range h.asked {
		if now.Sub(at) >= signInEvery {
			delete(h.asked, id)
		}
	}
	if _, ok := h.asked[e.Grant.ID]; ok {
		return
	}
	if h.asked == nil {
		h.asked = map[string]time.Time{}
	}
	h.asked[e.Grant.ID] = now
	h.queue(onSignInRequired, hookRun{event: signInEvent(e, cause)})
}

// refused keeps a flood of refusals from becoming one of commands.
func (h *hooks) refused(e gateway.Event) {
	if h.command(onRefused) == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.window) >= time.Minute {
		h.window, h.ran = now, 0
	}
	if h.ran < refusedPerMinute {
		h.ran++
		h.queue(onRefused, hookRun{event: refusedEvent(e)})
		return
	}
	if h.held++; h.held == 1 {
		time.AfterFunc(h.window.Add(time.Minute).Sub(now), h.tellHeld)
	}
}

// tellHeld tells how many refusals were not told one by one.
func (h *hooks) tellHeld() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held > 0 {
		h.queue(onRefused, hookRun{event: manyRefusedEvent(h.now(), h.held)})
		h.held = 0
	}
}

// queue hands an event over, or drops it: it does not wait.
func (h *hooks) queue(k hook, r hookRun) {
	if h.command(k) == "" {
		return
	}
	select {
	case h.queues[k] <- r:
	default:
		h.log.Warn("a hook does not keep up; an event is dropped", "hook", string(k), "waiting", hookQueue, "app_password", r.event.AppPassword)
	}
}

// run runs the commands until ctx ends. What is queued by then is still run, as
// far as hookFarewell allows.
func (h *hooks) run(ctx context.Context) {
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(hookFarewell, kill) })()
	var wg sync.WaitGroup
	for k, queue := range h.queues {
		wg.Go(func() { h.work(ctx, running, k, queue) })
	}
	wg.Go(func() { h.watchExpiries(ctx) })
	wg.Wait()
}

func (h *hooks) work(ctx, running context.Context, k hook, queue <-chan hookRun) {
	for {
		select {
		case r := <-queue:
			h.execute(running, k, r)
		case <-ctx.Done():
			if k == onRefused {
				h.tellHeld()
			}
			for running.Err() == nil {
				select {
				case r := <-queue:
					h.execute(running, k, r)
				default:
					return
				}
			}
			return
		}
	}
}

// watchExpiries looks now and then which app passwords are about to end.
func (h *hooks) watchExpiries(ctx context.Context) {
	tick := time.NewTicker(expiryEvery)
	defer tick.Stop()
	for {
		h.checkExpiries()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hooks) checkExpiries() {
	now := h.now()
	h.checkCertificates(now)
	for _, rec := range h.records() {
		days := expiryStep(rec, now)
		if told, any := h.told.Told(rec.ID); days == 0 || any && told <= days {
			continue
		}
		h.queue(onExpiring, hookRun{event: expiringEvent(rec, now), done: func() { h.told.NoteTold(rec.ID, days) }})
	}
}

// expiryStep gives which of expiryDays the app password has come to; 0: none.
// One that was made for no longer than that has never been further away.
func expiryStep(rec apppassword.Record, now time.Time) int {
	if rec.Expires.IsZero() || rec.Decoy || rec.LocalStatus(now) != apppassword.Active {
		return 0
	}
	for _, days := range expiryDays {
		step := time.Duration(days) * 24 * time.Hour
		if rec.Expires.Sub(now) <= step {
			if rec.Expires.Sub(rec.Created) <= step {
				return 0
			}
			return days
		}
	}
	return 0
}

// daysLeft rounds up: within the last day it is 1.
func daysLeft(rec apppassword.Record, now time.Time) int {
	return int(math.Ceil(rec.Expires.Sub(now).Hours() / 24))
}
