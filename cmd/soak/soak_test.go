package main

import (
	"strings"
	"testing"
	"time"
)

// TestSoak is the short form: what grows with every session shows in it too.
func TestSoak(t *testing.T) {
	var out strings.Builder
	s := soak{sessions: 40, length: 15 * time.Second, out: &out}
	if err := s.run(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
}

// TestJudge: a soak that cannot fail would prove nothing.
func TestJudge(t *testing.T) {
	first := count{goroutines: 20, descriptors: 30, heap: 10 << 20}
	for want, last := range map[string]count{
		"":                                first,
		"goroutines grew from 20 to 40":   {40, 30, 10 << 20},
		"descriptors grew from 30 to 50":  {20, 50, 10 << 20},
		"the heap grew from 10485760 to ": {20, 30, 20 << 20},
	} {
		var s soak
		s.done.Store(1)
		if err := s.judge(first, last); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", last, err, want)
		}
	}
	var s soak
	if err := s.judge(first, first); err == nil {
		t.Error("a soak without a session is a good one")
	}
	s.faults = map[string]int{"lost": 2}
	s.done.Store(1)
	if err := s.judge(first, first); err == nil || !strings.Contains(err.Error(), "2 times: lost") {
		t.Errorf("a session that failed: %v", err)
	}
}
