package secret

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"
)

// memory is a keychain in memory that can be made to misbehave.
type memory struct {
	mu    sync.Mutex
	items map[string]string
	limit int
	calls int
	most  int // calls at a time
	now   int

	// before is called ahead of each call with its number, beginning at 1,
	// outside the lock; the call fails with what it returns.
	before func(n int, op, key string) error
	// deaf keychains say yes to these and do nothing.
	deaf string
}

func (m *memory) call(op, service, key string, f func() error) error {
	m.mu.Lock()
	m.calls++
	n := m.calls
	m.now++
	m.most = max(m.most, m.now)
	before := m.before
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.now--
		m.mu.Unlock()
	}()
	if service != defaultService {
		return fmt.Errorf("service %q", service)
	}
	if before != nil {
		if err := before(n, op, key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.items == nil {
		m.items = map[string]string{}
	}
	return f()
}

func (m *memory) Get(service, key string) (value string, err error) {
	err = m.call("get", service, key, func() error {
		v, ok := m.items[key]
		if !ok {
			return keyring.ErrNotFound
		}
		value = v
		return nil
	})
	return value, err
}

func (m *memory) Set(service, key, value string) error {
	return m.call("set", service, key, func() error {
		if m.limit > 0 && len(value) > m.limit {
			return keyring.ErrSetDataTooBig
		}
		if m.deaf != "set" {
			m.items[key] = value
		}
		return nil
	})
}

func (m *memory) Delete(service, key string) error {
	return m.call("delete", service, key, func() error {
		if _, ok := m.items[key]; !ok {
			return keyring.ErrNotFound
		}
		if m.deaf != "delete" {
			delete(m.items, key)
		}
		return nil
	})
}

func (m *memory) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.items))
}

func newSystem(t *testing.T, m *memory) *System {
	m.limit = 120
	return &System{store: m, limit: m.limit, lockPath: filepath.Join(t.TempDir(), "lock")}
}

func reason(err error) Reason {
	if e, ok := errors.AsType[*UnavailableError](err); ok {
		return e.Reason
	}
	return ""
}

// testKeychain is what holds for every keychain.
func testKeychain(t *testing.T, k Keychain) {
	t.Helper()
	ctx := t.Context()
	if _, err := k.Get(ctx, "missing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a missing key: %v", err)
	}
	if err := k.Delete(ctx, "missing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete of a missing key: %v", err)
	}
	long := strings.Repeat("0123456789é\n", 900)
	values := []string{"x", "a b\tc\n", `{"json":"<&>\u2028"}`, "ünïcödé 🔑", "nul\x00inside", long, "short again",
		"o365pw:value x", "o365pw:parts a 1 x", "o365pw:", long + long, " spaces ", "-----BEGIN KEY-----\nx\n"}
	for _, value := range values {
		for _, key := range []string{"key", "another key/with: ünïcödé 'quotes' \"$x\" #1"} {
			if err := k.Set(ctx, key, New(value)); err != nil {
				t.Fatalf("Set(%q, %.40q): %v", key, value, err)
			}
			got, err := k.Get(ctx, key)
			if err != nil || got.Reveal() != value {
				t.Fatalf("Get(%q) = %.40q, %v, want %.40q", key, got.Reveal(), err, value)
			}
		}
	}
	if err := k.Delete(ctx, "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := k.Get(ctx, "key"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a deleted key: %v", err)
	}
	if got, err := k.Get(ctx, "another key/with: ünïcödé 'quotes' \"$x\" #1"); err != nil || got.Reveal() != values[len(values)-1] {
		t.Errorf("the other key: %q, %v", got.Reveal(), err)
	}
	for name, value := range map[string]Text{"empty": {}, "not UTF-8": New("\xff\xfe"), "too big": New(strings.Repeat("x", maxValue+1))} {
		if err := k.Set(ctx, "key", value); err == nil || (name == "too big") != (reason(err) == TooBig) {
			t.Errorf("Set of a value that is %s: %v", name, err)
		}
	}
	for _, key := range []string{"", "a\nb", "a\x00", "\xff", strings.Repeat("k", maxKey+1)} {
		_, err := k.Get(ctx, key)
		for op, err := range map[string]error{"Get": err, "Set": k.Set(ctx, key, New("x")), "Delete": k.Delete(ctx, key)} {
			if err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("%s with key %.10q: %v", op, key, err)
			}
		}
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err := k.Get(over, "key")
	for op, err := range map[string]error{"Get": err, "Set": k.Set(over, "key", New("x")), "Delete": k.Delete(over, "key")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that is over: %v", op, err)
		}
	}
	if err := k.Delete(ctx, "another key/with: ünïcödé 'quotes' \"$x\" #1"); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func TestSystem(t *testing.T) {
	t.Run("whole", func(t *testing.T) {
		m := &memory{}
		testKeychain(t, &System{store: m})
		if runtime.GOOS == "linux" && len(m.keys()) != 0 {
			t.Errorf("left: %q", m.keys())
		}
	})
	t.Run("in parts", func(t *testing.T) {
		m := &memory{}
		testKeychain(t, newSystem(t, m))
		if len(m.keys()) != 0 {
			t.Errorf("left: %q", m.keys())
		}
	})
}

func TestSystemRefusesKeysOfParts(t *testing.T) {
	s := newSystem(t, &memory{})
	for key, want := range map[string]bool{"k#a0": true, "#b12": true, "k#c0": false, "k#a": false, "k#": false, "k#a1x": false} {
		if err := s.Set(t.Context(), key, New("x")); (err != nil) != want {
			t.Errorf("Set(%q): %v", key, err)
		}
	}
	for _, service := range []string{"a\nb", strings.Repeat("s", 65)} {
		if err := (&System{Service: service, store: &memory{}}).Set(t.Context(), "k", New("x")); err == nil {
			t.Errorf("no error for service %q", service)
		}
	}
}

// The limits of the platforms leave room for the longest key and service.
func TestItemLimitOfMacOS(t *testing.T) {
	service, key := strings.Repeat("'", 64), strings.Repeat("'", maxKey)
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }
	line := fmt.Sprintf("add-generic-password -U -s %s -a %s -w %s\n", quote(service), quote(partKey(key, "a", maxParts)),
		quote("go-keyring-base64:"+strings.Repeat("x", (itemLimits["darwin"]+2)/3*4)))
	if len(line) > 4096 {
		t.Errorf("go-keyring would make a line of %d bytes", len(line))
	}
}

func TestSystemTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unlocked := make(chan struct{})
		m := &memory{before: func(int, string, string) error { <-unlocked; return nil }}
		s := &System{store: m, limit: -1, Timeout: 3 * time.Second}
		ctx := t.Context()
		for range 10 {
			start := time.Now()
			_, err := s.Get(ctx, "key")
			if reason(err) != Timeout || time.Since(start) != 3*time.Second {
				t.Errorf("Get: %v after %v", err, time.Since(start))
			}
			start = time.Now()
			if err := s.Set(ctx, "key", New("value")); reason(err) != Timeout || time.Since(start) != 3*time.Second {
				t.Errorf("Set: %v after %v", err, time.Since(start))
			}
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := s.Get(short, "key"); !errors.Is(err, context.DeadlineExceeded) || reason(err) != "" {
			t.Errorf("Get with a shorter deadline: %v", err)
		}
		m.mu.Lock()
		if m.calls != 1 {
			t.Errorf("%d calls hang", m.calls)
		}
		m.mu.Unlock()
		// Unlocked at last; nothing that failed happens now.
		close(unlocked)
		synctest.Wait()
		if _, err := s.Get(ctx, "key"); !errors.Is(err, ErrNotFound) {
			t.Errorf("after unlocking: %v", err)
		}
		if err := s.Set(ctx, "key", New("value")); err != nil {
			t.Error(err)
		}
	})
}

func TestSystemOneCallAtATime(t *testing.T) {
	m := &memory{}
	s := newSystem(t, m)
	var all sync.WaitGroup
	for i := range 8 {
		key := fmt.Sprint("key", i%4)
		all.Go(func() {
			for j := range 10 {
				value := strings.Repeat(fmt.Sprint(i, j, " "), 1+20*(j%3))
				if err := s.Set(t.Context(), key, New(value)); err != nil {
					t.Error(err)
				}
				if _, err := s.Get(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if m.most != 1 {
		t.Errorf("%d calls at a time", m.most)
	}
}

func TestSystemErrors(t *testing.T) {
	cause := errors.New("cause")
	for _, test := range []struct {
		err  error
		want Reason
	}{
		{cause, Failed},
		{keyring.ErrSetDataTooBig, TooBig},
		{keyring.ErrUnsupportedPlatform, Unsupported},
	} {
		s := &System{store: &memory{before: func(int, string, string) error { return test.err }}, limit: -1}
		_, err := s.Get(t.Context(), "key")
		for op, err := range map[string]error{"Get": err, "Set": s.Set(t.Context(), "key", New("x")), "Delete": s.Delete(t.Context(), "key")} {
			if reason(err) != test.want || !errors.Is(err, test.err) || !strings.Contains(err.Error(), "system keychain") {
				t.Errorf("%s: %v, want reason %q", op, err, test.want)
			}
		}
	}
	s := &System{store: &memory{before: func(int, string, string) error { panic("nil signal") }}, limit: -1}
	if _, err := s.Get(t.Context(), "key"); reason(err) != Failed {
		t.Errorf("a panic in go-keyring: %v", err)
	}
}

// go-keyring reports no error when the owner declines.
func TestSystemDeclined(t *testing.T) {
	for _, value := range []string{"short", strings.Repeat("long", 100)} {
		for _, limit := range []int{-1, 120} {
			m := &memory{}
			s := newSystem(t, m)
			s.limit, m.limit = limit, limit
			if err := s.Set(t.Context(), "key", New("old")); err != nil {
				t.Fatal(err)
			}
			m.deaf = "set"
			for _, key := range []string{"key", "new key"} {
				if err := s.Set(t.Context(), key, New(value)); reason(err) != Failed {
					t.Errorf("limit %d: a Set of %q that was declined: %v", limit, key, err)
				}
			}
			m.deaf = "delete"
			if err := s.Delete(t.Context(), "key"); reason(err) != Failed {
				t.Errorf("limit %d: a Delete that was declined: %v", limit, err)
			}
			if got, err := s.Get(t.Context(), "key"); err != nil || got.Reveal() != "old" {
				t.Errorf("limit %d: %q, %v", limit, got.Reveal(), err)
			}
		}
	}
}
