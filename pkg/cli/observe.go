package cli

import (
	"os"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// observer hands each event of the gateway to those who want to know. It is
// called in the goroutine of the session that the event is of, so nobody here
// may make it wait.
type observer struct {
	metrics  *metrics
	hooks    *hooks
	usage    *apppassword.UsageRecorder
	overlaps *overlaps
	trail    *trail
}

func (o *observer) observe(e gateway.Event) {
	o.metrics.observe(e)
	o.hooks.observe(e)
	if e.Kind == gateway.SignedIn {
		use := apppassword.LastUse{Time: e.Time, Protocol: string(e.Protocol), Address: e.Remote.Addr().String()}
		if o.usage.Note(e.Grant.ID, use) {
			o.overlaps.used(e.Grant.ID)
		}
	}
	o.trail.observe(e)
}

// trailPerMinute is how many refusals the audit log gets one by one. A flood
// of them is counted: who guesses passwords must not fill the disk.
const trailPerMinute = 60

// trail writes the gateway's part of the audit log.
type trail struct {
	add func(audit.Entry)
	now func() time.Time

	mu     sync.Mutex
	window time.Time // when the minute began
	wrote  int       // refusals in it
	held   int       // and those that were not written
}

func (t *trail) observe(e gateway.Event) {
	entry := audit.Entry{
		Time: e.Time, AppPassword: e.Grant.Name, ID: e.Grant.ID, Profile: e.Grant.Profile, Mailbox: e.Grant.Mailbox,
		Protocol: string(e.Protocol), Address: e.Remote.String(), Reason: string(e.Reason),
	}
	switch {
	case e.Kind == gateway.SignedIn:
		entry.Event = audit.SignIn
	case e.Kind == gateway.Refused && e.Reason == gateway.DecoyUsed:
		entry.Event, entry.User = audit.DecoyUsed, e.User
	case e.Kind == gateway.Refused:
		entry.Event, entry.User = audit.Refused, e.User
		if !t.room() {
			return
		}
	case e.Kind == gateway.SessionEnded && e.Reason != "":
		entry.Event = audit.SessionClosed
	default:
		return
	}
	t.add(entry)
}

// room says whether a refusal is written, or only counted.
func (t *trail) room() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.window).Abs() >= time.Minute {
		t.window, t.wrote = now, 0
	}
	if t.wrote < trailPerMinute {
		t.wrote++
		return true
	}
	if t.held++; t.held == 1 {
		time.AfterFunc(time.Minute, t.flush)
	}
	return false
}

// flush writes how many refusals were only counted.
func (t *trail) flush() {
	t.mu.Lock()
	held := t.held
	t.held = 0
	t.mu.Unlock()
	if held > 0 {
		t.add(audit.Entry{Time: t.now(), Event: audit.Refused, Reason: "more of them within a minute", Count: held})
	}
}

// newObserver makes those who are told of the gateway's events.
func (g *gatewayRun) newObserver() *observer {
	usage := &apppassword.UsageRecorder{Usage: apppassword.Usage{Dir: g.stateDir}, Registry: g.verifier.Registry, Log: g.log}
	m := &metrics{
		records:  g.verifier.Records,
		sessions: func() []gateway.Session { return g.server.Sessions() },
		tokenAge: func(rec apppassword.Record) (time.Duration, bool) {
			return g.verifier.Tokens.Age(g.verifier.CredentialKey(rec))
		},
		now: g.a.Now, certificates: g.certificateEnds,
	}
	h := &hooks{configured: g.hookCommands, environ: childEnviron(os.Environ()), records: g.verifier.Records, told: usage, now: g.a.Now, log: g.log, certificates: g.certificateEnds}
	g.audit = audit.NewWriter(auditLogIn(g.stateDir), func(err error) {
		g.log.Error("the audit log cannot be written; entries are kept, and written when it can", "error", err)
	})
	m.rotated()
	g.overlaps = g.newOverlaps(usage)
	return &observer{metrics: m, hooks: h.ready(), usage: usage, overlaps: g.overlaps, trail: &trail{add: g.audit.Add, now: g.a.Now}}
}

func (g *gatewayRun) hookCommands() config.Hooks {
	if cfg := g.cfg.Load(); cfg != nil {
		return cfg.Hooks
	}
	return config.Hooks{}
}
