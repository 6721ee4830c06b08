package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// runHook runs on_decoy with a command, for one event, as a gateway does that
// ends at once.
func runHook(t *testing.T, command string, limit time.Duration) string {
	t.Helper()
	var out logtest.Buffer
	h := hooksOf(config.Hooks{OnDecoy: command}, slog.New(slog.NewTextHandler(&out, nil)))
	h.limit, h.environ = limit, childEnviron(append(os.Environ(), "O365PW_KEYCHAIN_PASSPHRASE=hunter2"))
	h.observe(refusedBy(gateway.DecoyUsed, nil))
	ctx, end := context.WithCancel(t.Context())
	end()
	h.run(ctx)
	return out.String()
}

func TestHookCommand(t *testing.T) {
	dir := t.TempDir()
	log := runHook(t, fmt.Sprintf("cat > %s/stdin; env > %s/env; echo 'went\tout'; echo and out of turn >&2", dir, dir), 0)
	if !strings.Contains(log, `msg="a hook was run" hook=on_decoy`) || !strings.Contains(log, "went out and out of turn") {
		t.Errorf("the log:\n%s", log)
	}
	b, err := os.ReadFile(filepath.Join(dir, "stdin"))
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil || strings.Count(string(b), "\n") != 1 {
		t.Fatalf("%v: %q", err, b)
	}
	for key, want := range map[string]any{
		"schemaVersion": 1.0, "event": "decoy", "time": "2026-11-24T12:00:00Z", "appPassword": "Outlook on Mac", "id": "1", "profile": "work",
		"protocol": "imap", "address": "192.0.2.7", "user": "", "reason": "decoy-used",
	} {
		if e[key] != want {
			t.Errorf("%s: %v, want %v", key, e[key], want)
		}
	}
	if env, err := os.ReadFile(filepath.Join(dir, "env")); err != nil || strings.Contains(string(env), "hunter2") || !strings.Contains(string(env), "PATH=") {
		t.Errorf("the environment: %v\n%s", err, env)
	}
}

func TestHookCommandFails(t *testing.T) {
	log := runHook(t, "head -c 100000 /dev/zero | tr '\\0' x; exit 3", 0)
	if !strings.Contains(log, "a hook's command has failed") || !strings.Contains(log, "exit status 3") || len(log) > maxHookOutput+500 || !strings.Contains(log, "x …") {
		t.Errorf("%d bytes:\n%.3000s", len(log), log)
	}
	if log := runHook(t, "exit 0", 0); !strings.Contains(log, "a hook was run") { // does not read
		t.Errorf("%s", log)
	}
	if log := runHook(t, "/does/not/exist", 0); !strings.Contains(log, "has failed") {
		t.Errorf("%s", log)
	}
}

// TestHookIsKilled: with all that it has started.
func TestHookIsKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	log := runHook(t, "sleep 600 & echo $! > "+file+"; wait", 300*time.Millisecond)
	if !strings.Contains(log, "was killed") || !strings.Contains(log, "took longer than 300ms") {
		t.Errorf("%s", log)
	}
	endsSoon(t, file)
}

// TestHookLeavesNothing: what it has put into the background ends with it.
func TestHookLeavesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	log := runHook(t, "sleep 600 & echo $! > "+file, 0)
	if !strings.Contains(log, "a hook was run") {
		t.Errorf("%s", log)
	}
	endsSoon(t, file)
}

// endsSoon awaits the end of the process whose id is in a file.
func endsSoon(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		// Killed, it may wait for whoever inherited it.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Error("what the command had started still runs")
}

// TestHookRunsOneAtATime, and what it left behind in the background does not
// keep the next waiting.
func TestHookRunsOneAtATime(t *testing.T) {
	dir := t.TempDir()
	var out logtest.Buffer
	h := hooksOf(config.Hooks{OnDecoy: "mkdir " + dir + "/lock || echo two at once; cat >> " + dir + "/all; sleep 0.05; rmdir " + dir + "/lock; sleep 3 &"}, slog.New(slog.NewTextHandler(&out, nil)))
	h.environ = os.Environ()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.run(ctx) }()
	for range 3 {
		h.observe(refusedBy(gateway.DecoyUsed, nil))
	}
	end()
	<-done
	b, err := os.ReadFile(filepath.Join(dir, "all"))
	if err != nil || strings.Count(string(b), "\n") != 3 || strings.Contains(out.String(), "two at once") {
		t.Errorf("%v: %s\n%s", err, b, out.String())
	}
}
