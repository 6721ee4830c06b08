package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 5_000_000, time.UTC)

func newLog(t *testing.T) *Log {
	t.Helper()
	return &Log{Path: filepath.Join(t.TempDir(), "state", FileName)}
}

func (l *Log) mustAppend(t *testing.T, entries ...Entry) {
	t.Helper()
	if err := l.Append(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
}

func (l *Log) content(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// set makes the log's file hold that.
func (l *Log) set(t *testing.T, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *Log) mustVerify(t *testing.T, head string, entries, torn int) Report {
	t.Helper()
	rep, err := l.Verify(head)
	if err != nil {
		t.Fatalf("%v\n%s", err, l.content(t))
	}
	if rep.Entries != entries || rep.Torn != torn {
		t.Fatalf("%d entries, %d torn, want %d and %d\n%s", rep.Entries, rep.Torn, entries, torn, l.content(t))
	}
	return rep
}

func (l *Log) mustRead(t *testing.T) []Entry {
	t.Helper()
	var out []Entry
	for e, err := range l.Read(time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func some(n int) []Entry {
	var out []Entry
	for i := range n {
		out = append(out, Entry{Time: noon.Add(time.Duration(i) * time.Hour), Event: SignIn, AppPassword: fmt.Sprint("client ", i), ID: "8d4e2c1a", Profile: "work", Mailbox: "alice@contoso.com", Protocol: "imap", Address: "192.0.2.7:40000"})
	}
	return out
}

// TestFormat is the file as other programs see it.
func TestFormat(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, Entry{Time: noon.In(time.FixedZone("", 3600)), Event: Created, AppPassword: "Outlook <on> Mac", ID: "1", Profile: "work", Mailbox: "alice@contoso.com", Actor: "alice"})
	l.mustAppend(t, Entry{Time: noon.Truncate(time.Second), Event: Lost, Count: 3, Reason: "disk full"})
	lines := strings.Split(string(l.content(t)), "\n")
	want := []string{
		`{"seq":1,"time":"2026-11-22T12:00:00.005Z","event":"created","appPassword":"Outlook <on> Mac","id":"1","profile":"work","mailbox":"alice@contoso.com","actor":"alice","prev":"` + strings.Repeat("0", 64) + `"}`,
		`{"seq":2,"time":"2026-11-22T12:00:00.000Z","event":"lost","reason":"disk full","count":3,"prev":"` + hexSum([]byte(lines[0])) + `"}`,
		"",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("file:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if runtime.GOOS == "windows" {
		return
	}
	for p, want := range map[string]os.FileMode{l.Path: 0o600, filepath.Dir(l.Path): 0o700} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, mode %v, want %v", p, err, fi.Mode(), want)
		}
	}
}

// What others have given the file is taken away again.
func TestAppendTightensMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	l := newLog(t)
	l.mustAppend(t, some(1)...)
	if err := os.Chmod(l.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	l.mustAppend(t, some(1)...)
	if fi, err := os.Stat(l.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, fi.Mode())
	}
}

// TestHostileText holds what a stranger typed to one line of bounded length
// that moves no cursor, and to what it was.
func TestHostileText(t *testing.T) {
	l := newLog(t)
	for _, s := range []string{"two\nlines", "\x1b[31mred\x00", "\u009b31m \x7f", "right\u202eleft", "\U000e0001tag", `{"seq":9}"\`, "邮件 ümlaut"} {
		l.mustAppend(t, Entry{Event: Refused, User: s})
		all := l.mustRead(t)
		if got := all[len(all)-1].User; got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	}
	l.mustAppend(t, Entry{Event: Refused, User: "not UTF-8: \xff"})
	n := len(l.content(t))
	long := strings.Repeat("\x01", 1<<20)
	l.mustAppend(t, Entry{Event: Event(long), AppPassword: long, ID: long, Profile: long, Mailbox: long, Protocol: long, Address: long, User: long, Reason: long, Actor: long})
	if got := len(l.content(t)) - n; got > maxLine {
		t.Errorf("a line of %d bytes", got)
	}
	l.mustAppend(t, Entry{Event: Refused, User: strings.Repeat("邮", 1000)})
	all := l.mustRead(t)
	if got := all[len(all)-1].User; len(got) > maxField || !strings.HasSuffix(got, "邮…") {
		t.Errorf("cut to %q", got)
	}
	b := l.content(t)
	if lines := bytes.Count(b, []byte("\n")); lines != 10 {
		t.Errorf("%d lines, want 10", lines)
	}
	for _, r := range string(b) {
		if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e) {
			t.Errorf("the file holds %U", r)
		}
	}
	l.mustVerify(t, "", 10, 0)
}

// The chain goes on from one Append to the next, also over the size of what is
// read to find the end.
func TestAppendContinues(t *testing.T) {
	l := newLog(t)
	total := 0
	for _, n := range []int{1, 2, 100, 1, 1000, 1} {
		l.mustAppend(t, some(n)...)
		total += n
		l.mustVerify(t, "", total, 0)
	}
	long := strings.Repeat("\x01", maxField) // longer than the first look
	for range 3 {
		l.mustAppend(t, Entry{Event: Refused, User: long, Reason: long, Mailbox: long})
		total++
	}
	l.mustVerify(t, "", total, 0)
	l.mustAppend(t)
	for i, e := range l.mustRead(t) {
		if e.Seq != uint64(i+1) {
			t.Fatalf("entry %d has seq %d", i+1, e.Seq)
		}
	}
}

// TestTorn cuts the last line at many places, and leaves there what a file system
// may leave, and worse. The next Append mends it.
func TestTorn(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, some(2)...)
	two := l.content(t)
	head := l.mustVerify(t, "", 2, 0).Head
	first := bytes.IndexByte(two, '\n') + 1

	for cut := first + 1; cut < len(two)-1; cut += 3 {
		l.set(t, two[:cut])
		if be, ok := errors.AsType[*BrokenError](verifyErr(l, "")); !ok || be.Line != 2 {
			t.Fatalf("cut at %d: %v", cut, be)
		}
		l.mustAppend(t, some(1)...)
		l.mustVerify(t, "", 3, 1)
		if verifyErr(l, head) == nil {
			t.Fatalf("cut at %d: the head that was cut is still there", cut)
		}
	}
	for name, test := range map[string]struct {
		tail string
		torn int
	}{
		"zeros":               {strings.Repeat("\x00", 4096), 1},
		"an empty line":       {"\n", 1},
		"several":             {"{\n\n{\"seq\":3}\n\x00", 4},
		"several, closed":     {"{\n\n{\"seq\":3}\n\x00\n", 4},
		"longer than a line":  {strings.Repeat("x", maxLine+1), 1},
		"and closed":          {strings.Repeat("x", maxLine+1) + "\n", 1},
		"as long as a line":   {strings.Repeat("x", maxLine) + "\n", 1},
		"longer than a look":  {strings.Repeat("x", 3*maxLine) + "\ny\n" + strings.Repeat("z", 5*maxLine), 3},
		"many lines":          {strings.Repeat(strings.Repeat("x", 999)+"\n", 200), 200},
		"many lines, no end":  {strings.Repeat(strings.Repeat("x", 999)+"\n", 200) + "x", 201},
		"a seq out of reason": {`{"seq":18446744073709551615,"time":"2026-11-22T12:00:00Z","event":"sign-in","prev":"` + noPrev + "\"}\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.set(t, slices.Concat(two, []byte(test.tail)))
			if _, ok := errors.AsType[*BrokenError](verifyErr(l, "")); !ok {
				t.Errorf("not repaired yet: %v", verifyErr(l, ""))
			}
			l.mustAppend(t, some(1)...)
			rep, err := l.Verify(head)
			if err != nil || rep.Entries != 4 || rep.Torn != test.torn {
				t.Errorf("%+v, %v", rep, err)
			}
			l.mustAppend(t, some(1)...)
			if rep, err := l.Verify(head); err != nil || rep.Entries != 5 {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
	t.Run("only the line end", func(t *testing.T) {
		l := newLog(t)
		l.set(t, two[:len(two)-1])
		if be, ok := errors.AsType[*BrokenError](verifyErr(l, head)); !ok || be.Line != 2 {
			t.Errorf("not repaired yet: %v", be)
		}
		l.mustAppend(t, some(1)...)
		l.mustVerify(t, head, 4, 0)
		if e := l.mustRead(t)[2]; e.Event != Repaired {
			t.Errorf("%+v", e)
		}
	})
	t.Run("from the first line on", func(t *testing.T) {
		for _, tail := range []string{"{", "\n", "{\n{", strings.Repeat("x", 3*maxLine)} {
			l := newLog(t)
			l.set(t, []byte(tail))
			l.mustAppend(t, some(1)...)
			if rep, err := l.Verify(""); err != nil || rep.Entries != 2 {
				t.Errorf("%.10q: %+v, %v", tail, rep, err)
			}
		}
	})
}

func verifyErr(l *Log, head string) error {
	_, err := l.Verify(head)
	return err
}

// A log that cannot be opened says so.
func TestAppendFails(t *testing.T) {
	l := newLog(t)
	if err := os.MkdirAll(l.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), some(1)...); err == nil || !strings.Contains(err.Error(), l.Path) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l = newLog(t)
	if err := l.Append(ctx, some(1)...); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestEntryJSON(t *testing.T) {
	in := Entry{Seq: 7, Time: noon, Event: SignIn, AppPassword: "a", ID: "b", Profile: "c", Mailbox: "d", Protocol: "e", Address: "f", User: "g", Reason: "h", Actor: "i", Count: 8, Prev: noPrev}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"seq":7,"time":"2026-11-22T12:00:00.005Z","event":"sign-in","appPassword":"a","id":"b","profile":"c","mailbox":"d","protocol":"e","address":"f","user":"g","reason":"h","actor":"i","count":8,"prev":"` + noPrev + `"}`
	if string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	if out, err := parse(b); err != nil || out != in {
		t.Errorf("%+v, %v", out, err)
	}
	if !SignIn.Known() || Event("signin").Known() {
		t.Error("Known")
	}
}
