//go:build linux || darwin

package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the other process of a test.
func TestMain(m *testing.M) {
	if path := os.Getenv("AUDIT_TEST_APPEND"); path != "" {
		os.Exit(appendAsChild(&Log{Path: path}))
	}
	os.Exit(m.Run())
}

// appendAsChild appends as many batches as it is told, for ever without, and
// prints how many entries are written.
func appendAsChild(l *Log) int {
	batches, _ := strconv.Atoi(os.Getenv("AUDIT_TEST_BATCHES"))
	if limit, err := strconv.ParseUint(os.Getenv("AUDIT_TEST_FILE_LIMIT"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Println(err)
			return 2
		}
	}
	written := 0
	for i := 0; batches == 0 || i < batches; i++ {
		batch := some(1 + i%5)
		if err := l.Append(context.Background(), batch...); err != nil {
			fmt.Println(err)
			return 1
		}
		written += len(batch)
		fmt.Println(written)
	}
	return 0
}

func child(t *testing.T, l *Log, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0", "AUDIT_TEST_APPEND="+l.Path), env...)
	return cmd
}

// Processes and goroutines append at the same time, while somebody reads: no
// entry is missing, and the chain always holds.
func TestManyProcesses(t *testing.T) {
	l := newLog(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if out, err := child(t, l, "AUDIT_TEST_BATCHES=20").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	w := NewWriter(l, func(err error) { t.Error(err) })
	for range 2 {
		wg.Go(func() {
			for range 20 {
				if err := l.Append(t.Context(), some(3)...); err != nil {
					t.Error(err)
				}
				w.Add(Entry{Event: SessionClosed})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for looking := true; looking; {
		select {
		case <-done:
			looking = false
		case <-time.After(5 * time.Millisecond):
		}
		if _, err := l.Verify(""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.mustVerify(t, "", 3*20*3+2*20*3+2*20, 0)
}

// TestKilled kills a writer in the middle of its work, again and again. What
// it was told is written is there, and the log goes on.
func TestKilled(t *testing.T) {
	l := newLog(t)
	told := 0
	for i := range 15 {
		cmd := child(t, l)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for range 1 + i {
			sc.Scan()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		last := sc.Text()
		for sc.Scan() {
			last = sc.Text()
		}
		_ = cmd.Wait()
		n, err := strconv.Atoi(last)
		if err != nil {
			t.Fatalf("the child said %q", last)
		}
		l.mustAppend(t, Entry{Event: Shown})
		told += n + 1
		rep, err := l.Verify("")
		if err != nil || rep.Entries < told {
			t.Fatalf("%+v, %v, want at least %d entries", rep, err, told)
		}
		told = rep.Entries
	}
}

// TestDiskFull gives a writer a file that takes part of a batch and no more.
// The file stays whole, and goes on when there is room again.
func TestDiskFull(t *testing.T) {
	l := newLog(t)
	for _, room := range []int{100, 1000, 1001, 10_000} {
		l.mustAppend(t, some(1)...)
		limit := len(l.content(t)) + room
		cmd := child(t, l, "AUDIT_TEST_FILE_LIMIT="+strconv.Itoa(limit))
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), syscall.EFBIG.Error()) {
			t.Fatalf("%v: %s", err, out)
		}
		if b := l.content(t); len(b) > limit || !bytes.HasSuffix(b, []byte("\n")) {
			t.Fatalf("the file has %d bytes, and ends in %q", len(b), b[len(b)-10:])
		}
		if _, err := l.Verify(""); err != nil {
			t.Fatal(err)
		}
	}
	l.mustAppend(t, some(1)...)
	for _, e := range l.mustRead(t) {
		if e.Event == Repaired {
			t.Errorf("had to be repaired: %+v", e)
		}
	}
}

// A device without room and without an end is an error, never a hang.
func TestDevFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/full")
	}
	l := newLog(t)
	l.set(t, nil)
	if err := os.Remove(l.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", l.Path); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), some(1)...); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
}
