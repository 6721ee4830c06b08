package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// TestNextSteps: each state has its steps, which are commands that there are, and
// what is said fits a small terminal, however much is the matter.
func TestNextSteps(t *testing.T) {
	a := newApp(Env{Getenv: func(string) string { return "" }, Now: time.Now})
	root := newRoot(a)
	exists := func(line string) {
		t.Helper()
		words := strings.Fields(line)
		cmd, rest, err := root.Find(words[1:])
		if err != nil || words[0] != "o365pw" || cmd == root && !slices.Equal(rest, []string{"--help"}) {
			t.Errorf("there is no command %q", line)
			return
		}
		for _, word := range rest {
			if flag, ok := strings.CutPrefix(word, "--"); ok && flag != "help" && cmd.Flag(flag) == nil {
				t.Errorf("%q: there is no --%s", line, flag)
			}
		}
	}
	if len(nextSteps) != int(stateRunning)+1 {
		t.Errorf("steps for %d states, not %d", len(nextSteps), stateRunning+1)
	}
	for state := range stateRunning + 1 {
		next := nextSteps[state]
		if len(next.steps) == 0 || next.says == "" {
			t.Errorf("state %d has no step", state)
		}
		for _, s := range next.steps {
			exists(s.command)
		}
		f := machineFacts{state: state, profile: "a-profile-with-a-name", active: 1000, sessions: 1000}
		if state == stateFaulty {
			f.fault = errors.New("config.toml, line 3: unknown key")
		}
		for range mostAttention + 2 {
			f.need("something is the matter", "o365pw doctor")
		}
		text := a.nextStepText(f)
		if n := strings.Count(text, "\n"); n > 12 || strings.Contains(text, "PROFILE") || strings.Contains(text, "PASSWORDS") {
			t.Errorf("state %d, %d lines:\n%s", state, n, text)
		}
		for line := range strings.Lines(text) {
			if len(line) > 90 {
				t.Errorf("state %d: the line %q is too long", state, line)
			}
		}
	}
}

func TestNextStepAttention(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	entry := func(name string, status apppassword.Status, left time.Duration) apppassword.Entry {
		return apppassword.Entry{Record: apppassword.Record{Name: name, Expires: now.Add(left)}, Status: status}
	}
	const day = 24 * time.Hour
	rotated := entry("rotated", apppassword.Active, 90*day)
	rotated.Previous = &apppassword.Previous{Until: now.Add(day)}
	over := entry("over", apppassword.Active, 90*day)
	over.Previous = &apppassword.Previous{Until: now.Add(-day)}
	decoy := entry("decoy", apppassword.Active, day)
	decoy.Decoy = true
	for name, tc := range map[string]struct {
		entries []apppassword.Entry
		active  int
		want    string
	}{
		"all is well":   {[]apppassword.Entry{entry("a", apppassword.Active, 90*day), entry("b", apppassword.Active, 31*day)}, 2, ""},
		"soon":          {[]apppassword.Entry{entry("Outlook on Mac", apppassword.Active, 29*day)}, 1, `"Outlook on Mac" expires within 30 days: o365pw rotate 'Outlook on Mac'`},
		"two soon":      {[]apppassword.Entry{entry("b", apppassword.Active, day), entry("a", apppassword.Active, day)}, 2, `"a" and 1 more: expires within 30 days: o365pw rotate a`},
		"expired":       {[]apppassword.Entry{entry("a", apppassword.Expired, -day)}, 0, `"a" has expired: o365pw rotate a`},
		"a decoy":       {[]apppassword.Entry{decoy}, 0, ""},
		"being rotated": {[]apppassword.Entry{rotated}, 1, `"rotated" waits for its new password in the mail program: o365pw show rotated`},
		"not finished":  {[]apppassword.Entry{over}, 1, `"over" has an old password that is over and not removed: o365pw rotate over --finish`},
	} {
		var f machineFacts
		f.count(tc.entries, now)
		var got []string
		for _, s := range f.attention {
			got = append(got, s.what+": "+s.command)
		}
		if f.active != tc.active || strings.Join(got, "\n") != tc.want {
			t.Errorf("%s: %d active, %q", name, f.active, got)
		}
	}
}
