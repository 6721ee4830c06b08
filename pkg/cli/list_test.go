package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// What never ends comes last where the end is what counts.
func TestSortByExpiry(t *testing.T) {
	entry := func(name string, days int) apppassword.Entry {
		e := apppassword.Entry{}
		if e.Name = name; days > 0 {
			e.Expires = time.Date(2026, 11, days, 0, 0, 0, 0, time.UTC)
		}
		return e
	}
	entries := []apppassword.Entry{entry("never", 0), entry("late", 20), entry("always", 0), entry("early", 3)}
	sortEntries(entries, "expires")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "early late always never" {
		t.Error(got)
	}
}
