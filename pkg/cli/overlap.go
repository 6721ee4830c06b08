package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
)

const (
	// overlapLook is how often the overlaps are looked at, whatever happens: the
	// clock may be set, and the machine may have slept.
	overlapLook = time.Minute
	// overlapRest keeps a registry that cannot be written from being tried in a
	// loop.
	overlapRest = time.Second
	// leftEvery is how often the gateway tries to remove what is left of an old
	// password, and leftLimit how long one try may take.
	leftEvery = time.Hour
	leftLimit = 5 * time.Minute
)

// overlaps ends the overlaps of rotations while the gateway runs: it shuts an old
// password out once its mail program was seen with the new one, or its time is
// over, and then removes what is left of it, where that needs no person.
type overlaps struct {
	registry apppassword.Registry
	records  func() []apppassword.Record
	usage    *apppassword.UsageRecorder
	finish   func(ctx context.Context, profile string) error // removes what is left
	recheck  func()                                          // closes the sessions of what is shut out
	audit    func(audit.Entry)
	now      func() time.Time
	log      *slog.Logger

	look, left chan struct{} // each holds one value once there is something to look at
	failing    bool          // the registry could not be written, which was logged
	tried      map[string]time.Time
}

// ready makes the channels. It must be called before anything else.
func (o *overlaps) ready() *overlaps {
	o.look, o.left, o.tried = make(chan struct{}, 1), make(chan struct{}, 1), map[string]time.Time{}
	return o
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// used is called when an app password is used over a protocol for the first
// time. Where it is being rotated, what was used is written down at once: a
// rotate that comes next goes by it. It does not wait.
func (o *overlaps) used(id string) {
	for _, rec := range o.records() {
		if p := rec.Previous; p != nil && (rec.ID == id || p.ID == id) {
			o.usage.Hurry()
			nudge(o.look)
		}
	}
}

// changed is called when the registry has changed.
func (o *overlaps) changed() {
	nudge(o.look)
	nudge(o.left)
}

// run ends overlaps until ctx ends. Removing what is left may take minutes, and
// keeps no overlap from ending.
func (o *overlaps) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for o.wait(ctx, o.look, o.end(ctx)) {
		}
	})
	wg.Go(func() {
		for o.removeLeft(ctx); o.wait(ctx, o.left, leftEvery); {
			o.removeLeft(ctx)
		}
	})
	wg.Wait()
}

// wait waits until there is something to look at, at most that long. It tells
// false when ctx has ended.
func (o *overlaps) wait(ctx context.Context, c chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c:
	case <-t.C:
	}
	return ctx.Err() == nil
}

// end shuts out what is over, and tells when to look again.
func (o *overlaps) end(ctx context.Context) (next time.Duration) {
	next = overlapLook
	open := false
	for _, rec := range o.records() {
		if p := rec.Previous; p != nil && p.Ended.IsZero() {
			open, next = true, min(next, max(overlapRest, p.Until.Sub(o.now())))
		}
	}
	if !open {
		return next
	}
	ended, err := apppassword.EndOverlaps(ctx, o.registry, o.usage.Seen, o.now())
	if err != nil {
		if !o.failing && ctx.Err() == nil {
			o.log.Error("the end of an overlap cannot be noted; the old password is refused all the same once its time is over", "error", err)
		}
		o.failing = true
		o.recheck()
		return next
	}
	o.failing = false
	for _, e := range ended {
		o.log.Info("an old password is shut out", "app_password", e.Record.Name, "id", e.Record.Previous.ID, "profile", e.Record.Profile, "reason", e.Why)
		entry := endedEntry(e)
		entry.Time = o.now()
		o.audit(entry)
	}
	return next // the registry has changed, which is noticed
}

// removeLeft tries to remove what is left of old passwords that are shut out.
// What cannot be removed is logged once, with the command that removes it.
func (o *overlaps) removeLeft(ctx context.Context) {
	due := map[string]bool{} // by profile
	now := time.Now()
	for _, rec := range o.shutOut() {
		if at, tried := o.tried[rec.Previous.ID]; !tried || now.Sub(at) >= leftEvery {
			due[rec.Profile] = true
		}
	}
	for profile := range due {
		limited, cancel := context.WithTimeout(ctx, leftLimit)
		err := o.finish(limited, profile)
		cancel()
		if ctx.Err() != nil {
			return
		}
		for _, rec := range o.shutOut() {
			if rec.Profile != profile || err == nil {
				continue
			}
			if _, told := o.tried[rec.Previous.ID]; !told {
				o.log.Warn("an old password is shut out, but what is left of it could not be removed", "app_password", rec.Name,
					"id", rec.Previous.ID, "profile", profile, "error", err, "hint", finishCommand(rec.Name))
			}
			o.tried[rec.Previous.ID] = now
		}
	}
}

// shutOut are the records of which an old password is over and not removed.
func (o *overlaps) shutOut() []apppassword.Record {
	s, err := o.registry.Load()
	if err != nil {
		return nil // logged by those who need it
	}
	var out []apppassword.Record
	for _, rec := range s.AppPasswords {
		if p := rec.Previous; p != nil && rec.Revoked.IsZero() && p.Over(o.now()) {
			out = append(out, rec)
		}
	}
	return out
}

// newOverlaps ends the overlaps of this gateway.
func (g *gatewayRun) newOverlaps(usage *apppassword.UsageRecorder) *overlaps {
	o := &overlaps{
		registry: g.verifier.Registry, records: g.verifier.Records, usage: usage, finish: g.finishRotations,
		recheck: func() { g.server.Recheck() }, audit: g.audit.Add, now: g.a.Now, log: g.log,
	}
	return o.ready()
}

// finishRotations is [apppassword.Manager.FinishRotations] with whatever sign-in
// to Graph is there. Nobody can be asked, or shown what is going on.
func (g *gatewayRun) finishRotations(ctx context.Context, profile string) error {
	p, err := config.Resolve(g.cfg.Load(), profile, g.a.Getenv)
	if err != nil {
		return err
	}
	env := g.a.Env
	env.Stdin, env.Stdout, env.Stderr = nil, io.Discard, io.Discard
	alone := newApp(env)
	alone.configPath, alone.verbose, alone.log = g.a.configPath, g.a.verbose, g.log
	defer alone.settle()
	s, err := alone.openProfile(p, g.settings())
	if err != nil {
		return err
	}
	if s.keychain, err = g.keychains(p.Keychain); err != nil {
		return err
	}
	s.manager.Keychains = g.keychains // which are open
	s.manager.Warn = func(format string, args ...any) { g.log.Warn(fmt.Sprintf(format, args...)) }
	finished, err := s.manager.FinishRotations(ctx)
	for _, rec := range finished {
		g.log.Info("an old password is removed", "app_password", rec.Name, "id", rec.Previous.ID, "profile", rec.Profile)
	}
	return err
}
