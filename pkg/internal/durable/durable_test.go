package durable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be the other process of a test.
func TestMain(m *testing.M) {
	if path := os.Getenv("DURABLE_TEST_COUNT"); path != "" {
		for range 20 {
			if err := count(context.Background(), path); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		os.Exit(0)
	}
	if path := os.Getenv("DURABLE_TEST_HOLD"); path != "" {
		if _, err := Lock(context.Background(), path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {} // until killed
	}
	if path := os.Getenv("DURABLE_TEST_WRITE"); path != "" {
		for i := 0; ; i++ {
			if err := WriteFile(path, content(i)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			if i == 0 {
				fmt.Println("written")
			}
		}
	}
	os.Exit(m.Run())
}

// content is a file that shows whether it is whole: one letter, many times,
// the length depending on it.
func content(i int) []byte {
	return bytes.Repeat([]byte{byte('a' + i%26)}, 20_000+1000*(i%26))
}

// count adds one to the number in a file, under a lock.
func count(ctx context.Context, path string) error {
	unlock, err := Lock(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(data))
	if err != nil {
		return err
	}
	return WriteFile(path, []byte(strconv.Itoa(n+1)))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "file")
	for _, want := range []string{"first", "", "second, longer", "3"} {
		if err := WriteFile(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	if got := names(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if runtime.GOOS != "windows" {
		for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %04o, want %04o", p, info.Mode().Perm(), want)
			}
		}
	}
}

func TestWriteFileTightensMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v, want 0600", info.Mode(), err)
	}
}

// A file that cannot be replaced stays as it was, with nothing beside it.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, []byte("new"))
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names %s", err, path)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if err := WriteFile(filepath.Join(dir, "plain"), nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "plain", "below a file"), nil); err == nil {
		t.Error("no error where a file is where a folder should be")
	}
}

func TestWriteFileFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, target, file string }{
		{"to a file", filepath.Join(elsewhere, "there"), filepath.Join(elsewhere, "there")},
		{"relative", filepath.Join("elsewhere", "there"), filepath.Join(elsewhere, "there")},
		{"to nothing yet", filepath.Join("elsewhere", "missing"), filepath.Join(elsewhere, "missing")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(elsewhere, "there"), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(dir, test.name)
			if err := os.Symlink(test.target, link); err != nil {
				t.Fatal(err)
			}
			if err := WriteFile(link, []byte(test.name)); err != nil {
				t.Fatal(err)
			}
			if got := read(t, test.file); got != test.name {
				t.Errorf("the file holds %q", got)
			}
			if got, err := os.Readlink(link); err != nil || got != test.target {
				t.Errorf("the link is now %q, %v", got, err)
			}
		})
	}
}

func TestWriteFileRemovesStale(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * staleAfter)
	for name, modified := range map[string]time.Time{
		".file.123.tmp":       old, // the only one to go
		".file.456.tmp":       time.Now(),
		".file.swp":           old,
		".file.x.tmp":         old,
		".file..tmp":          old,
		".other.123.tmp":      old,
		"file.123.tmp":        old,
		".file.123.tmp.saved": old,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(dir, "file"), nil); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(names(t, dir), " ")
	want := ".file..tmp .file.123.tmp.saved .file.456.tmp .file.swp .file.x.tmp .other.123.tmp file file.123.tmp"
	if got != want {
		t.Errorf("left: %s\nwant: %s", got, want)
	}
}

// Whoever reads while others write sees one whole content or another.
func TestWriteFileWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(path, content(0)); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				if err := WriteFile(path, content(w*7+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		checkWhole(t, path)
		select {
		case <-done:
			if got := names(t, filepath.Dir(path)); len(got) != 1 {
				t.Errorf("left behind: %q", got)
			}
			return
		default:
		}
	}
}

func checkWhole(t *testing.T, path string) {
	t.Helper()
	data := []byte(read(t, path))
	if len(data) == 0 || !bytes.Equal(data, content(int(data[0]-'a'))) {
		t.Fatalf("read a torn file of %d bytes", len(data))
	}
}

// A writer that is killed leaves a whole file.
func TestWriteFileKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for range 10 {
		child := start(t, "DURABLE_TEST_WRITE="+path, "written")
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		checkWhole(t, path)
	}
}

// start runs the test binary with env until it has printed line.
func start(t *testing.T, env, line string) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), env)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	got := make([]byte, len(line))
	if _, err := out.Read(got); err != nil || string(got) != line {
		t.Fatalf("the child printed %q, %v, want %q", got, err, line)
	}
	return child
}

func TestLockBetweenGoroutinesAndProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "count")
	if err := WriteFile(path, []byte("0")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 2 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "DURABLE_TEST_COUNT="+path)
		all.Go(func() {
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for range 10 {
				if err := count(t.Context(), path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := read(t, path); got != "80" {
		t.Errorf("counted to %s, want 80", got)
	}
}

func TestLockEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ctx, path); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want context.Canceled and the path", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	if _, err := Lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
	unlock()
	unlock() // twice is once
	again, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := Lock(t.Context(), path)
		if err == nil {
			unlock()
		}
		got <- err
	}()
	if _, ok, err := TryLock(path); ok || err != nil {
		t.Errorf("TryLock of a held lock: %v, %v", ok, err)
	}
	select {
	case err := <-got:
		t.Fatalf("a second Lock did not wait: %v", err)
	default:
	}
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestTryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	unlock, ok, err := TryLock(path)
	if !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	if second, ok, err := TryLock(path); ok || err != nil || second != nil {
		t.Errorf("a second one: %v, %v", ok, err)
	}
	unlock()
	unlock, ok, err = TryLock(path)
	if !ok || err != nil {
		t.Fatalf("after unlock: %v, %v", ok, err)
	}
	unlock()
}

// A process that dies gives its lock back.
func TestLockOfKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	child := start(t, "DURABLE_TEST_HOLD="+path, "held")
	if _, ok, err := TryLock(path); ok || err != nil {
		t.Fatalf("the other process does not hold the lock: %v, %v", ok, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestLockErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "file", "lock"), filepath.Join(dir, "nul\x00")} {
		if _, err := Lock(t.Context(), path); err == nil {
			t.Errorf("Lock(%q) succeeded", path)
		}
		if _, ok, err := TryLock(path); err == nil || ok {
			t.Errorf("TryLock(%q) = %v, %v", path, ok, err)
		}
	}
}
