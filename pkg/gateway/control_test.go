package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveControl runs the socket until the test ends, or stop is called.
func serveControl(t *testing.T, c Control, status func() Status) (stop func()) {
	t.Helper()
	ln, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, ln, ControlHandler{Status: status}) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestControl(t *testing.T) {
	want := Status{Version: "1.2.3", PID: 42, Started: time.Now().UTC().Truncate(time.Second),
		Listeners: map[Protocol]string{IMAP: "127.0.0.1:1993"},
		Sessions: []Session{{ID: 7, Protocol: IMAP, Remote: netip.MustParseAddrPort("[2001:db8::1]:50123"), TLS: true, AppID: "6f1c", Name: "Outlook",
			Profile: "work", Mailbox: goodUser, Since: time.Now().UTC().Truncate(time.Second), BytesUp: 1, BytesDown: 2}}}
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("long/", 30))} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			c := Control{Path: filepath.Join(dir, "gateway.sock")}
			if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
				t.Errorf("before: %v", err)
			}
			stop := serveControl(t, c, func() Status { return want })
			got, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a, b := asJSON(t, got), asJSON(t, want); a != b {
				t.Errorf("got %s, want %s", a, b)
			}
			path, err := c.socket(false)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("socket: %v, %v", info.Mode(), err)
			}
			if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 && name == "long" {
				t.Errorf("folder: %v, %v", info.Mode(), err)
			}

			_, err = c.Listen()
			running, ok := errors.AsType[*AlreadyRunningError](err)
			if !ok || running.PID != 42 || !strings.Contains(err.Error(), "process 42") {
				t.Errorf("a second gateway: %v", err)
			}
			if _, err := c.Status(t.Context()); err != nil {
				t.Errorf("after a second gateway: %v", err)
			}
			stop()
			if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
				t.Errorf("after: %v", err)
			}
			serveControl(t, c, func() Status { return want })()
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestControlStop: the gateway hears of it, and Stop returns when it has ended;
// the folder can be had at once.
func TestControlStop(t *testing.T) {
	c := Control{Path: filepath.Join(t.TempDir(), "gateway.sock")}
	if _, err := c.Stop(t.Context(), time.Minute); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a gateway: %v", err)
	}
	ln, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan struct{}, 10)
	done := make(chan error, 1)
	go func() {
		done <- c.Serve(ctx, ln, ControlHandler{
			Status: func() Status { return Status{PID: 42, Sessions: []Session{{ID: 1}, {ID: 2}}} },
			Stop:   func() { asked <- struct{}{} },
		})
	}()
	_, err = c.Stop(t.Context(), 10*time.Millisecond)
	if e, ok := errors.AsType[*StillRunningError](err); !ok || e.PID != 42 || e.Waiting != 2 {
		t.Errorf("one that does not end: %v", err)
	}
	<-asked
	leaving, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Stop(leaving, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller leaves: %v", err)
	}
	go func() { <-asked; stop() }()
	if pid, err := c.Stop(t.Context(), time.Minute); err != nil || pid != 42 {
		t.Errorf("got %d, %v", pid, err)
	}
	serveControl(t, c, func() Status { return Status{} })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestControlCloseSession(t *testing.T) {
	c := Control{Path: filepath.Join(t.TempDir(), "gateway.sock")}
	if err := c.CloseSession(t.Context(), 7); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a gateway: %v", err)
	}
	ln, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Serve(ctx, ln, ControlHandler{CloseSession: func(id uint64) bool { return id == math.MaxUint64 }})
	}()
	if err := c.CloseSession(t.Context(), math.MaxUint64); err != nil {
		t.Error(err)
	}
	err = c.CloseSession(t.Context(), 7)
	if e, ok := errors.AsType[*NoSessionError](err); !ok || e.ID != 7 {
		t.Errorf("got %v", err)
	}
	path, err := c.socket(false)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for request, want := range map[string]int{
		"GET /stop": http.StatusMethodNotAllowed, "GET /sessions/7/close": http.StatusMethodNotAllowed, "POST /status": http.StatusMethodNotAllowed,
		"POST /sessions/-1/close": http.StatusNotFound, "POST /sessions/x/close": http.StatusNotFound, "POST /sessions/18446744073709551616/close": http.StatusNotFound,
		"GET /": http.StatusNotFound,
	} {
		method, url, _ := strings.Cut(request, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://gateway"+url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", request, resp.Status)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestControlAfterKill: the socket of a killed gateway is there, and nobody
// behind it.
func TestControlAfterKill(t *testing.T) {
	c := Control{Path: filepath.Join(t.TempDir(), "gateway.sock")}
	ln, err := net.Listen("unix", c.Path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	serveControl(t, c, func() Status { return Status{PID: 1} })
	if got, err := c.Status(t.Context()); err != nil || got.PID != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestControlStrangers: what answers on the socket is not always a gateway.
func TestControlStrangers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"404":     http.NotFound,
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"hang up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		c := Control{Path: filepath.Join(t.TempDir(), "gateway.sock")}
		ln, err := net.Listen("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: handler}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		if _, err := c.Status(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
		_ = srv.Close()
		<-done
	}
}

// TestControlSilent: a gateway that does not answer is not waited for beyond
// the caller's context.
func TestControlSilent(t *testing.T) {
	c := Control{Path: filepath.Join(t.TempDir(), "gateway.sock")}
	ln, err := net.Listen("unix", c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestControlSquatters: a folder in the place of ours is not used.
func TestControlSquatters(t *testing.T) {
	c := Control{Path: filepath.Join(t.TempDir(), strings.Repeat("long/", 30), "gateway.sock")}
	for name, squat := range map[string]func(dir string) error{
		"open to others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a link":         func(dir string) error { return os.Symlink(t.TempDir(), dir) },
		"a file":         func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		before, err := c.socket(true)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(before)
		if err := errors.Join(os.Remove(dir), squat(dir)); err != nil {
			t.Fatal(err)
		}
		if ln, err := c.Listen(); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: listens on %v, %v", name, ln, err)
		}
		if _, err := c.Status(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: status %v", name, err)
		}
	}
}
