package cli

import (
	"context"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// announce tells a person what runs and what to do next.
func (a *app) announce(g *gatewayRun) {
	if a.quiet {
		return
	}
	for _, p := range gateway.Protocols() { // in a fixed order, which scripts wait for
		if ln := g.listeners[p]; ln != nil {
			a.tell("%s on %s", p, ln.Addr())
		}
	}
	if g.metricsLn != nil {
		a.tell("metrics on %s", g.metricsLn.Addr())
	}
	if g.autoconfigLn != nil {
		a.tell("settings for mail programs on %s", g.autoconfigLn.Addr())
	}
	if g.caFile != "" {
		a.tell("the certificate is signed by %s: tell mail programs that use TLS to trust this file", g.caFile)
	}
	if entries, err := g.verifier.Registry.Load(); err == nil && len(entries.AppPasswords) == 0 {
		a.tell("there is no app password yet; make one with: o365pw create --name \"Outlook on Mac\"")
	} else {
		a.tell("settings for a mail program: o365pw show NAME; sessions: o365pw sessions; stop with Ctrl-C")
	}
}

// run serves until ctx ends, or somebody asks for the end at the control
// socket, and the sessions have ended. The socket answers until all else is
// done: when it falls silent, the gateway has ended.
func (g *gatewayRun) run(ctx context.Context, hup <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		g.draining.Store(true)
		g.notify.stopping()
	})()
	var asking sync.WaitGroup
	answering, silence := context.WithCancel(context.WithoutCancel(ctx))
	defer asking.Wait()
	defer silence()
	asking.Go(func() {
		h := gateway.ControlHandler{Status: g.status, Stop: stop, CloseSession: g.server.End}
		if err := g.control.Serve(answering, g.controlLn, h); err != nil {
			g.log.Error("the control socket has failed; status will say that the gateway does not run", "error", err)
		}
	})

	// These are needed as long as there are sessions.
	var wg sync.WaitGroup
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	wg.Go(func() {
		g.verifier.Watch(serving, func() {
			g.observer.metrics.rotated()
			g.server.Recheck()
			g.overlaps.changed()
			g.nameDomains(serving)
		})
	})
	wg.Go(func() { g.overlaps.run(serving) })
	wg.Go(func() { g.observer.hooks.run(serving) })
	wg.Go(func() { g.notify.run(serving) })
	wg.Go(func() { g.watchCertificate(serving) })
	// What a hook has told is noted when it ends, which is later.
	var writing sync.WaitGroup
	noting, noted := context.WithCancel(context.WithoutCancel(ctx))
	defer noted()
	writing.Go(func() { g.observer.usage.Run(noting) })
	if g.metricsLn != nil {
		wg.Go(func() { g.serveMetrics(serving) })
	}
	if g.autoconfigLn != nil {
		wg.Go(func() { g.serveAutoconfig(serving) })
	}
	wg.Go(func() {
		for {
			select {
			case <-serving.Done():
				return
			case <-hup:
				g.reload(serving)
			}
		}
	})
	err := g.server.Serve(ctx, g.listeners)
	cancel()
	wg.Wait()
	noted()
	writing.Wait()
	g.endTrail()
	return err
}

// endTrail writes what the audit log still lacks, as far as that can be done
// in a moment.
func (g *gatewayRun) endTrail() {
	g.observer.trail.flush()
	ctx, cancel := context.WithTimeout(context.Background(), auditLimit)
	defer cancel()
	if err := g.audit.Close(ctx); err != nil {
		g.log.Error("the audit log lacks entries", "error", err)
	}
}

func (g *gatewayRun) status() gateway.Status {
	st := g.server.Status()
	st.Version, st.Stopping, st.Counts = version(), g.draining.Load(), g.observer.metrics.soFar()
	if !st.Started.IsZero() {
		st.Uptime = int64(time.Since(st.Started).Seconds())
	}
	if g.metricsLn != nil {
		st.Metrics = g.metricsLn.Addr().String()
	}
	if g.autoconfigLn != nil {
		st.Autoconfig = g.autoconfigLn.Addr().String()
	}
	return st
}

// oneLine is the status for systemd.
func (g *gatewayRun) oneLine() string {
	line := plural(len(g.server.Sessions()), "open session")
	if g.draining.Load() {
		return "stopping, " + line
	}
	return line
}

// stopLimit is how long --stop waits. The gateway itself gives up on its
// sessions after 30 s, and on the commands of hooks 5 s later.
const stopLimit = time.Minute

// runStop ends the running gateway.
func (a *app) runStop(ctx context.Context) error {
	c, err := a.running()
	if err != nil {
		return err
	}
	a.progress.set("waiting for the gateway to end its sessions")
	pid, err := c.Stop(ctx, stopLimit)
	if err != nil {
		return err
	}
	a.note("the gateway (process %d) has ended", pid)
	return nil
}

// reload reads configuration and certificate again. Sessions go on; a
// configuration that is wrong is logged and leaves the former one in force.
func (g *gatewayRun) reload(ctx context.Context) {
	defer g.notify.reloading()()
	g.reloading.Lock()
	defer g.reloading.Unlock()
	cfg, err := g.a.loadConfig()
	if err != nil {
		g.log.Error("reload: the configuration is wrong; the former one stays in force", "error", err, "hint", advise(err).hint)
		return
	}
	old := g.cfg.Swap(cfg)
	keychain, err := g.ownKeychain()
	if err == nil {
		err = g.certificate(ctx, g.settings(), keychain)
	}
	if err != nil {
		g.cfg.Store(old)
		g.log.Error("reload: the former configuration stays in force", "error", err, "hint", advise(err).hint)
		return
	}
	g.backend.forget()
	g.server.ForgetSending()
	g.mu.Lock()
	g.http = nil
	g.mu.Unlock()
	if keys := needRestart(g.inForce, g.settings()); len(keys) > 0 {
		g.log.Warn("reload: what has changed takes effect at the next start", "keys", strings.Join(keys, ", "))
	}
	if err := g.verifier.Load(ctx); err != nil {
		g.log.Error("reload: the registry cannot be read; the app passwords read before stay in force", "error", err)
		return
	}
	g.server.Recheck()
	g.log.Info("reloaded")
}

// needRestart names the keys of [gateway] that are not changed by a reload.
func needRestart(was, now config.Gateway) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"imap", now.IMAP != was.IMAP}, {"pop3", now.POP3 != was.POP3}, {"smtp", now.SMTP != was.SMTP},
		{"metrics", now.Metrics != was.Metrics}, {"autoconfig", now.Autoconfig != was.Autoconfig}, {"revalidate", now.Revalidate != was.Revalidate},
		{"legacy", !maps.Equal(now.Legacy, was.Legacy)},
	} {
		if k.changed {
			keys = append(keys, k.key)
		}
	}
	return keys
}
