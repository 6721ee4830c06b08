package cli

import (
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// What is in use is not unused because it was rotated, or has been used on
// another machine until it came here.
func TestUnusedKnowsRotationsAndImports(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	r := pruneRules{now: now, unused: 90 * 24 * time.Hour, used: map[string]apppassword.LastUse{"old": {Time: ago(1)}, "idle": {Time: ago(100)}}}
	entry := func(name string, arrived time.Time, previous string) apppassword.Entry {
		e := apppassword.Entry{Status: apppassword.Active}
		e.Name, e.Created, e.Arrived = name, ago(200), arrived
		if previous != "" {
			e.Previous = &apppassword.Previous{ID: previous}
		}
		return e
	}
	got := r.choose([]apppassword.Entry{
		entry("never", time.Time{}, ""), entry("rotated", time.Time{}, "old"), entry("rotated, idle", time.Time{}, "idle"),
		entry("came yesterday", ago(1), ""), entry("came long ago", ago(91), ""),
	})
	want := []string{"never: never used, made 7 months ago", "rotated, idle: last used 3 months ago", "came long ago: never used here, imported 3 months ago"}
	for i, p := range got {
		if s := p.Name + ": " + p.why; i >= len(want) || s != want[i] || p.reason != isUnused {
			t.Errorf("%s", s)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d, not %d", len(got), len(want))
	}
}
