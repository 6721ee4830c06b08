package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// execute runs a hook's command, with the event on its standard input. It fails
// for nobody but the log.
func (h *hooks) execute(ctx context.Context, k hook, r hookRun) {
	line := h.command(k)
	if line == "" {
		return // a reload has taken it away
	}
	log := h.log.With("hook", string(k))
	event, err := json.Marshal(r.event)
	if err != nil {
		log.Error("a hook's event cannot be written as JSON", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.limit, hookLimit))
	defer cancel()
	var out limitedOutput
	cmd := shellCommand(ctx, line)
	cmd.Env = h.environ
	cmd.Stdin = bytes.NewReader(append(event, '\n'))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // what it has left behind does not hold up the next
	began := time.Now()
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		_ = cmd.Cancel() // what it has left in the background
	}
	log = log.With("app_password", r.event.AppPassword, "took", time.Since(began).Round(time.Millisecond), "output", out.String())
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		log.Info("a hook was run")
		if r.done != nil {
			r.done()
		}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		log.Warn("a hook's command was killed", "cause", "it took longer than "+cmp.Or(h.limit, hookLimit).String())
	case ctx.Err() != nil:
		log.Warn("a hook's command was killed", "cause", "the gateway has ended")
	default:
		log.Warn("a hook's command has failed", "cause", err)
	}
}

// maxHookOutput is how much of a command's output goes to the log.
const maxHookOutput = 2048

// limitedOutput keeps the beginning of what a command prints.
type limitedOutput struct {
	kept []byte
	more bool
}

func (o *limitedOutput) Write(p []byte) (int, error) {
	n := min(len(p), maxHookOutput-len(o.kept))
	o.kept = append(o.kept, p[:n]...)
	o.more = o.more || n < len(p)
	return len(p), nil
}

func (o *limitedOutput) String() string {
	s := printable(strings.ToValidUTF8(strings.TrimSpace(string(o.kept)), "?"))
	if o.more {
		s += " …"
	}
	return s
}

// childEnviron is an environment without what is secret or none of a child's
// business: this program's own variables, those by which it signs in, those
// that systemd gave it, whatever calls itself a secret, and URLs with a
// password in them.
func childEnviron(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		name = strings.ToUpper(name)
		for _, prefix := range []string{"O365PW_", "AZURE_", "ACTIONS_"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		for _, word := range []string{"SECRET", "TOKEN", "PASSPHRASE", "PASSWORD"} {
			if strings.Contains(name, word) {
				return true
			}
		}
		if slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "IDENTITY_HEADER"}, name) {
			return true
		}
		if strings.HasSuffix(name, "_PROXY") && strings.Contains(value, "@") {
			return true // with and without a scheme
		}
		u, err := url.Parse(value)
		if err != nil {
			return strings.Contains(value, "://") && strings.Contains(value, "@")
		}
		_, password := u.User.Password()
		return password
	})
}
