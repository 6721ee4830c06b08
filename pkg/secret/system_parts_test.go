package secret

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

var errKilled = errors.New("killed")

// A writer that is killed at any call leaves the old value or the new one,
// and the next write leaves nothing behind that it did not put there.
func TestSystemKilledAtEachCall(t *testing.T) {
	values := []string{"", "short", strings.Repeat("0123456789é", 40), strings.Repeat("other ", 150)}
	for _, old := range values {
		for _, new := range values {
			for _, next := range values {
				t.Run(fmt.Sprintf("%d to %d then %d", len(old), len(new), len(next)), func(t *testing.T) {
					for at := 1; killAt(t, at, old, new, next); at++ {
					}
				})
			}
		}
	}
}

// killAt goes from old to new, with "" for no value, but is killed at one of
// the calls, and then to next. It reports whether it came to that call.
func killAt(t *testing.T, at int, old, new, next string) (killed bool) {
	ctx := t.Context()
	m := &memory{}
	s := newSystem(t, m)
	set := func(value string) error {
		if value != "" {
			return s.Set(ctx, "key", New(value))
		}
		if err := s.Delete(ctx, "key"); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	}
	get := func() string {
		value, err := s.Get(ctx, "key")
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("killed at %d: Get: %v", at, err)
		}
		return value.Reveal()
	}
	if err := set(old); err != nil {
		t.Fatal(err)
	}
	m.calls = 0
	m.before = func(n int, _, _ string) error {
		if killed = killed || n >= at; killed {
			return errKilled
		}
		return nil
	}
	err := set(new)
	m.before = nil
	switch got := get(); {
	case got != old && got != new:
		t.Errorf("killed at %d: neither old nor new: %.40q", at, got)
	case err == nil && got != new:
		t.Errorf("killed at %d: no error, but the old value", at)
	}
	if err := set(next); err != nil {
		t.Errorf("killed at %d: next: %v", at, err)
	}
	if got := get(); got != next {
		t.Errorf("killed at %d: after the next one: %.40q", at, got)
	}
	want := 0
	if next != "" {
		want = 1
		if h := (head{value: next}); len(h.String()) > s.limit {
			want += len(split(next, s.limit))
		}
	}
	if got := m.keys(); len(got) != want {
		t.Errorf("killed at %d: %d items after the next one, want %d: %q", at, len(got), want, got)
	}
	return killed
}

// An error that is no kill, in the midst of the parts, leaves nothing behind.
func TestSystemUndoesParts(t *testing.T) {
	m := &memory{}
	s := newSystem(t, m)
	if err := s.Set(t.Context(), "key", New("old")); err != nil {
		t.Fatal(err)
	}
	m.before = func(_ int, op, key string) error {
		if op == "set" && key == "key#a3" {
			return errKilled
		}
		return nil
	}
	if err := s.Set(t.Context(), "key", New(strings.Repeat("x", 1000))); !errors.Is(err, errKilled) {
		t.Errorf("Set: %v", err)
	}
	if got := m.keys(); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
	// The same by a context that ends on the way.
	ctx, cancel := context.WithCancel(t.Context())
	m.before = func(_ int, op, key string) error {
		if op == "set" && key == "key#a3" {
			cancel()
		}
		return nil
	}
	if err := s.Set(ctx, "key", New(strings.Repeat("x", 1000))); !errors.Is(err, context.Canceled) {
		t.Errorf("Set: %v", err)
	}
	if got := m.keys(); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
}

// Who reads while another process writes sees one value or the other.
func TestSystemReadWhileWritten(t *testing.T) {
	m := &memory{}
	writer := newSystem(t, m)
	reader := &System{store: m, limit: m.limit, lockPath: writer.lockPath}
	values := map[string]bool{strings.Repeat("aaaa ", 100): true, strings.Repeat("bbbb ", 80): true, "c": true}
	var done sync.WaitGroup
	for value := range values {
		if err := writer.Set(t.Context(), "key", New(value)); err != nil {
			t.Fatal(err)
		}
		done.Go(func() {
			// Another process: it shares the keychain and the lock only.
			s := &System{store: m, limit: m.limit, lockPath: writer.lockPath}
			for range 3 {
				if err := s.Set(t.Context(), "key", New(value)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { done.Wait(); close(over) }()
	for {
		got, err := reader.Get(t.Context(), "key")
		if err != nil || !values[got.Reveal()] {
			t.Errorf("read %.40q, %v", got.Reveal(), err)
		}
		select {
		case <-over:
			if got, err := reader.Get(t.Context(), "key"); err != nil || !values[got.Reveal()] {
				t.Errorf("at the end: %.40q, %v", got.Reveal(), err)
			}
			return
		default:
		}
	}
}

// A reader that a writer overtakes begins again.
func TestSystemReadOvertaken(t *testing.T) {
	m := &memory{}
	s := newSystem(t, m)
	long, other := strings.Repeat("long ", 100), strings.Repeat("other ", 100)
	if err := s.Set(t.Context(), "key", New(long)); err != nil {
		t.Fatal(err)
	}
	writer := &System{store: m, limit: m.limit, lockPath: s.lockPath}
	var once sync.Once
	m.before = func(_ int, op, key string) error {
		if key == "key#a2" && op == "get" {
			once.Do(func() {
				if err := writer.Set(t.Context(), "key", New(other)); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	}
	if got, err := s.Get(t.Context(), "key"); err != nil || got.Reveal() != other {
		t.Errorf("read %.40q, %v", got.Reveal(), err)
	}
}

func TestSystemDamaged(t *testing.T) {
	long := strings.Repeat("long ", 100)
	for name, damage := range map[string]func(map[string]string){
		"part missing":    func(m map[string]string) { delete(m, "key#a1") },
		"part changed":    func(m map[string]string) { m["key#a1"] = "x" },
		"parts swapped":   func(m map[string]string) { m["key#a1"], m["key#a2"] = m["key#a2"], m["key#a1"]+"x" },
		"part grown":      func(m map[string]string) { m["key#a0"] = strings.Repeat("x", maxValue+1) },
		"head of garbage": func(m map[string]string) { m["key"] = "o365pw:parts" },
		"count huge":      func(m map[string]string) { m["key"] = "o365pw:parts a 999999999 " + strings.Repeat("0", 64) },
		"count zero":      func(m map[string]string) { m["key"] = "o365pw:parts a 0 " + strings.Repeat("0", 64) },
		"newer head":      func(m map[string]string) { m["key"] = "o365pw:v2 x" },
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			s := newSystem(t, m)
			if err := s.Set(t.Context(), "key", New(long)); err != nil {
				t.Fatal(err)
			}
			damage(m.items)
			got, err := s.Get(t.Context(), "key")
			if reason(err) != Damaged || !got.IsZero() {
				t.Errorf("Get = %.20q, %v", got.Reveal(), err)
			}
			if strings.Contains(fmt.Sprint(err), "long long") {
				t.Errorf("the error holds a part of the value: %v", err)
			}
			// A new value mends it.
			if err := s.Set(t.Context(), "key", New(long+long)); err != nil {
				t.Error(err)
			}
			if got, err := s.Get(t.Context(), "key"); err != nil || got.Reveal() != long+long {
				t.Errorf("Get = %.20q, %v", got.Reveal(), err)
			}
		})
	}
}

// A value is cut into valid pieces within the limit, and comes back through a
// keychain that holds no longer ones.
func FuzzSplit(f *testing.F) {
	f.Add("", 1)
	f.Add("short", 120)
	f.Add(strings.Repeat("é🔑x", 100), 7)
	f.Add("o365pw:parts a 1 x", 4)
	f.Add("o365pw:value x", 200)
	f.Fuzz(func(t *testing.T, value string, limit int) {
		limit = 4 + (limit%3000+3000)%3000
		if !utf8.ValidString(value) || value == "" || len(value) > maxValue {
			return
		}
		parts := split(value, limit)
		if strings.Join(parts, "") != value {
			t.Errorf("%q split at %d: %q", value, limit, parts)
		}
		for _, p := range parts {
			if p == "" || len(p) > limit || !utf8.ValidString(p) {
				t.Errorf("%q split at %d: %q", value, limit, p)
			}
		}
		m := &memory{}
		s := newSystem(t, m)
		s.limit, m.limit = max(limit, 120), max(limit, 120) // the head must fit
		if err := s.Set(t.Context(), "key", New(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), "key"); err != nil || got.Reveal() != value {
			t.Errorf("%q came back as %q, %v", value, got.Reveal(), err)
		}
	})
}

// What parseHead takes, String gives back.
func FuzzParseHead(f *testing.F) {
	f.Add("value")
	f.Add("o365pw:value o365pw:x")
	f.Add("o365pw:value x")
	f.Add("o365pw:parts a 12 " + strings.Repeat("0", 64))
	f.Add("o365pw:parts c 012 x")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHead(s)
		if err == nil && h.String() != s {
			t.Errorf("%q became %q", s, h.String())
		}
		if again, err := parseHead(head{value: s}.String()); err != nil || again.value != s || again.generation != "" {
			t.Errorf("the value %q became %+v, %v", s, again, err)
		}
	})
}
