package apppassword

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// recorder is a UsageRecorder on a registry that knows some ids, and its log.
func recorder(t *testing.T, ids ...string) (*UsageRecorder, *logtest.Buffer) {
	t.Helper()
	dir, log := t.TempDir(), &logtest.Buffer{}
	r := &UsageRecorder{Usage: Usage{Dir: dir}, Registry: Registry{Dir: dir}, Log: slog.New(slog.NewTextHandler(log, nil))}
	err := r.Registry.Update(t.Context(), func(s *State) error {
		for _, id := range ids {
			s.put(Record{ID: id, Name: id})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, log
}

func (r *UsageRecorder) runIn(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func (r *UsageRecorder) written(t *testing.T) UsageState {
	t.Helper()
	s, err := r.Usage.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestUsageIsWrittenOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := recorder(t, "a", "b")
		registry, err := os.Stat(r.Registry.Path())
		if err != nil {
			t.Fatal(err)
		}
		stop := r.runIn(t)
		time.Sleep(time.Second)
		if _, err := os.Stat(r.Usage.Path()); !os.IsNotExist(err) {
			t.Errorf("written although nothing was noted: %v", err)
		}
		first := LastUse{Time: time.Now().UTC().Truncate(time.Second), Protocol: "imap", Address: "192.168.1.5"}
		r.Note("a", first)
		time.Sleep(time.Second)
		if got := r.written(t).LastUse["a"]; got != first {
			t.Errorf("the first: %+v, want %+v", got, first)
		}
		// A busy minute is one write.
		var last LastUse
		for range 50 {
			time.Sleep(time.Second)
			last = LastUse{Time: time.Now(), Protocol: "smtp", Address: "::1"}
			r.Note("a", last)
			r.Note("gone", last)
			if got := r.written(t).LastUse["a"]; got != first {
				t.Fatalf("written again within the minute: %+v", got)
			}
		}
		time.Sleep(10 * time.Second)
		if got := r.written(t).LastUse; got["a"].Protocol != "smtp" || !got["a"].Time.Equal(last.Time.Truncate(time.Second)) || len(got) != 1 {
			t.Errorf("after the minute: %+v", got)
		}
		// An older use counts for nothing, and the end writes what is left.
		r.Note("a", first)
		r.Note("b", last)
		r.NoteTold("b", 7)
		stop()
		s := r.written(t)
		if s.LastUse["a"].Protocol != "smtp" || s.LastUse["b"].Address != "::1" || s.Told["b"] != 7 {
			t.Errorf("after the end: %+v", s)
		}
		now, err := os.Stat(r.Registry.Path())
		if err != nil || !os.SameFile(now, registry) || !now.ModTime().Equal(registry.ModTime()) {
			t.Errorf("the registry was written: %v", err)
		}
		if log.String() != "" {
			t.Error(log)
		}
	})
}

// What was there before stays, but for app passwords that are gone.
func TestUsageOfBefore(t *testing.T) {
	r, _ := recorder(t, "a", "b")
	writeFile(t, r.Usage.Path(), `{"version":1,"appPasswords":{
		"a":{"lastUsed":"2026-11-20T08:30:00Z","protocol":"imap","address":"10.0.0.1"},
		"b":{"lastUsed":"2026-11-21T08:30:00Z","protocol":"imap","address":"10.0.0.1"},
		"gone":{"lastUsed":"2026-11-20T08:30:00Z","protocol":"imap","address":"10.0.0.1"}},"told":{"a":30,"gone":7}}`)
	if days, ok := r.Told("a"); days != 30 || !ok {
		t.Errorf("told %d, %v", days, ok)
	}
	if _, ok := r.Told("b"); ok {
		t.Error("b was told")
	}
	r.NoteTold("a", 0)
	if days, ok := r.Told("a"); days != 0 || !ok {
		t.Errorf("told %d, %v", days, ok)
	}
	r.Note("a", LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "pop3", Address: "10.0.0.2"})
	r.Note("b", LastUse{Time: at("2026-11-20T08:30:00Z"), Protocol: "pop3", Address: "10.0.0.2"}) // the clock was set back
	r.runIn(t)()
	b, err := os.ReadFile(r.Usage.Path())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "version": 1,
  "appPasswords": {
    "a": {
      "lastUsed": "2026-11-22T08:30:00Z",
      "protocol": "pop3",
      "address": "10.0.0.2"
    },
    "b": {
      "lastUsed": "2026-11-21T08:30:00Z",
      "protocol": "imap",
      "address": "10.0.0.1"
    }
  },
  "told": {
    "a": 0
  },
  "protocols": {
    "a": {
      "imap": "2026-11-20T08:30:00Z",
      "pop3": "2026-11-22T08:30:00Z",
      "smtp": "2026-11-20T08:30:00Z"
    },
    "b": {
      "imap": "2026-11-21T08:30:00Z",
      "pop3": "2026-11-21T08:30:00Z",
      "smtp": "2026-11-21T08:30:00Z"
    }
  }
}
`
	if string(b) != want {
		t.Errorf("%s", b)
	}
	if fi, err := os.Stat(r.Usage.Path()); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestDamagedUsageIsReplaced(t *testing.T) {
	for _, content := range []string{"", "{", "[]", `{"version":2}`, `{"appPasswords":{}}`} {
		r, log := recorder(t, "a")
		writeFile(t, r.Usage.Path(), content)
		if s, err := r.Usage.Load(); err == nil || len(s.LastUse) != 0 {
			t.Errorf("%q: %v, %v", content, s, err)
		}
		r.Note("a", LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "imap", Address: "::1"})
		r.runIn(t)()
		if got := r.written(t).LastUse["a"].Protocol; got != "imap" {
			t.Errorf("%q: %q", content, got)
		}
		if strings.Count(log.String(), "level=ERROR") != 1 {
			t.Errorf("%q: the log: %s", content, log)
		}
	}
}

// A registry that cannot be read makes nobody forgotten.
func TestUsageWithDamagedRegistry(t *testing.T) {
	r, _ := recorder(t, "a")
	writeFile(t, r.Registry.Path(), "{")
	r.Note("a", LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "imap", Address: "::1"})
	r.runIn(t)()
	if len(r.written(t).LastUse) != 1 {
		t.Error("it was forgotten")
	}
}

// Where nothing can be written, that is told once, and what was noted is
// written when it can be.
func TestUsageOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := recorder(t, "a")
		// A file where the folder should be stands for every reason.
		full := filepath.Join(t.TempDir(), "full")
		writeFile(t, full, "")
		r.Usage.Dir = full
		stop := r.runIn(t)
		r.Note("a", LastUse{Time: time.Now(), Protocol: "imap", Address: "::1"})
		time.Sleep(time.Hour + time.Second) // between two tries, so that no two things come at once
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("told %d times in an hour:\n%s", n, log)
		}
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := r.written(t).LastUse["a"].Protocol; got != "imap" {
			t.Errorf("with room again: %q", got)
		}
		// The next failure is another one.
		if err := os.RemoveAll(full); err != nil {
			t.Fatal(err)
		}
		writeFile(t, full, "")
		r.Note("a", LastUse{Time: time.Now(), Protocol: "imap", Address: "::1"})
		time.Sleep(2 * time.Minute)
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		stop()
	})
}

func TestLocalTellsLastUse(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	r := &UsageRecorder{Usage: Usage{Dir: f.Registry.Dir}, Registry: f.Registry}
	want := LastUse{Time: at("2026-11-22T08:30:00Z"), Protocol: "imap", Address: "10.0.0.2"}
	r.Note(c.Record.ID, want)
	r.runIn(t)()
	for name, list := range map[string]func() ([]Entry, error){
		"local": f.Local, "list": func() ([]Entry, error) { return f.List(t.Context()) },
	} {
		if entries, err := list(); err != nil || len(entries) != 1 || entries[0].LastUse != want {
			t.Errorf("%s: %+v, %v", name, entries, err)
		}
	}
	if entries, _ := f.Local(); entries[0].Revision() != c.Record.Revision() {
		t.Error("a use changed the revision")
	}
}

// A clock that was wrong for a while does not keep later uses from being noted.
func TestUsageFromTheFuture(t *testing.T) {
	r, _ := recorder(t, "a")
	for i, at := range []time.Time{time.Now().AddDate(20, 0, 0), time.Now()} {
		r.Note("a", LastUse{Time: at, Address: []string{"192.0.2.1", "192.0.2.2"}[i]})
		r.save(t.Context())
	}
	if got := r.written(t).LastUse["a"]; got.Address != "192.0.2.2" {
		t.Errorf("in memory: %+v", got)
	}
	// Nor where the gateway was started anew in between.
	r.Note("a", LastUse{Time: time.Now().AddDate(20, 0, 0)})
	r.save(t.Context())
	later := &UsageRecorder{Usage: r.Usage, Registry: r.Registry}
	later.Note("a", LastUse{Time: time.Now(), Address: "192.0.2.3"})
	later.save(t.Context())
	if got := r.written(t).LastUse["a"]; got.Address != "192.0.2.3" {
		t.Errorf("in the file: %+v", got)
	}
}

// Without a state folder nothing is written anywhere.
func TestUsageWithoutFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	r := &UsageRecorder{}
	r.Note("a", LastUse{Time: time.Now()})
	r.save(t.Context())
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
