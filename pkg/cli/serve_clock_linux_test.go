package cli_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/cli"
)

// TestClockJumps: the clock is set while the gateway runs, as when a small
// computer learns the time. Sessions go on; what a year ahead is expired is
// refused then, and nothing of it stays.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	m.configure("\n[gateway]\nimap = \"127.0.0.1:0\"\npop3 = \"\"\nsmtp = \"\"\nrevalidate = \"1s\"\n")
	var ahead atomic.Int64
	l, end := m.serveAhead(&ahead)
	addr := l.await(t, `imap on (127\.0\.0\.1:\d+)`)[1]
	open, err := openPlain(addr, password)
	if err != nil {
		t.Fatal(err)
	}
	defer open.conn.Close()
	for _, jump := range []struct {
		to   time.Duration
		want string // of a new sign-in; empty: OK
	}{{time.Hour, ""}, {-24 * time.Hour, ""}, {0, ""}, {365 * 24 * time.Hour, "[EXPIRED]"}, {0, ""}} {
		ahead.Store(int64(jump.to))
		s, err := openPlain(addr, password)
		if (err == nil) != (jump.want == "") || err != nil && !strings.Contains(err.Error(), jump.want) {
			t.Errorf("the clock set by %s: %v, want %q", jump.to, err, jump.want)
		}
		if s != nil {
			_ = s.conn.Close()
		}
		time.Sleep(1200 * time.Millisecond) // a revalidation
		if jump.want != "" {
			break
		}
		if err := open.do("a NOOP"); err != nil {
			t.Errorf("the open session, the clock set by %s: %v", jump.to, err)
		}
	}
	ahead.Store(0)
	again, err := openPlain(addr, password)
	if err != nil {
		t.Fatalf("the clock is right again: %v", err)
	}
	_ = again.conn.Close()
	end()
	log := audit.Log{Path: filepath.Join(m.dir, "state", audit.FileName)}
	if r, err := log.Verify(""); err != nil || r.Entries < 5 {
		t.Errorf("the audit log: %+v, %v", r, err)
	}
	if out := m.run("list", "-o", "json"); !strings.Contains(out, `"lastUsedProtocol": "imap"`) {
		t.Errorf("the last use is lost: %s", out)
	}
}

// serveAhead runs the gateway in this process, its clock set ahead. end ends it,
// and is called at the end of the test where the test has not.
func (m *machine) serveAhead(ahead *atomic.Int64) (l *log, end func()) {
	env := map[string]string{}
	for _, pair := range m.env {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	ctx, stop := context.WithCancel(context.Background())
	l = &log{}
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Main(ctx, cli.Env{Args: []string{"serve"}, Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: l,
			Getenv: func(name string) string { return env[name] },
			Now:    func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, ScryptWorkFactor: 10})
	}()
	end = sync.OnceFunc(func() {
		stop()
		if code := <-ended; code != 0 {
			m.t.Errorf("the gateway ended with exit code %d\n%s", code, l)
		}
	})
	m.t.Cleanup(end)
	return l, end
}
