package cli

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often systemd is told how many sessions are open, where
// that has changed.
const statusEvery = 10 * time.Second

// notifier tells systemd how the gateway is (sd_notify(3)). Where systemd has
// not started it, or does not want to know, it does nothing.
type notifier struct {
	status func() string // for "systemctl status"
	log    *slog.Logger
}

func (n *notifier) send(lines ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		n.log.Warn("systemd cannot be told", "error", err)
	}
}

// run says that the gateway is ready and then, until ctx ends, that it lives.
// To ask for the status takes the server's lock: a gateway that is stuck falls
// silent, and the watchdog starts it anew.
func (n *notifier) run(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("systemd's watchdog cannot be served", "error", err)
	}
	told := n.statusLine()
	n.send(daemon.SdNotifyReady, told)
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var alive <-chan time.Time
	if interval > 0 {
		t := time.NewTicker(interval / 2)
		defer t.Stop()
		alive = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-alive:
			_ = n.status()
			n.send(daemon.SdNotifyWatchdog)
		case <-status.C:
			if now := n.statusLine(); now != told {
				told = now
				n.send(now)
			}
		}
	}
}

func (n *notifier) statusLine() string { return "STATUS=" + n.status() }

// reloading tells that a reload has begun; the function that it returns, that
// it is over.
func (n *notifier) reloading() (done func()) {
	n.send(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func() { n.send(daemon.SdNotifyReady, n.statusLine()) }
}

func (n *notifier) stopping() { n.send(daemon.SdNotifyStopping, n.statusLine()) }
