package audit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// small is a log with all there is in one: entries, a torn line, its repair.
func small(t *testing.T) *Log {
	t.Helper()
	l := newLog(t)
	l.mustAppend(t, some(2)...)
	b := l.content(t)
	l.set(t, b[:len(b)-100])
	l.mustAppend(t, some(1)...)
	return l
}

// TestVerifyEveryByte changes each byte of a log, takes it out, and puts one in
// before it. No change is called unbroken by somebody who noted the head; nobody
// else is shown the same head.
func TestVerifyEveryByte(t *testing.T) {
	l := small(t)
	whole := l.content(t)
	head := l.mustVerify(t, "", 3, 1).Head
	check := func(what string, at int, changed []byte) {
		t.Helper()
		if rep, err := verify(bytes.NewReader(changed), ""); err == nil && rep.Head == head {
			t.Errorf("%s at byte %d: unbroken, with the same head", what, at)
		}
		if _, err := verify(bytes.NewReader(changed), head); err == nil {
			t.Errorf("%s at byte %d: unbroken", what, at)
		} else if _, ok := errors.AsType[*BrokenError](err); !ok {
			t.Errorf("%s at byte %d: %v", what, at, err)
		}
	}
	for i := range whole {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			changed := bytes.Clone(whole)
			changed[i] ^= bit
			check("a bit", i, changed)
		}
		check("a byte less", i, slices.Delete(bytes.Clone(whole), i, i+1))
		check("a line end more", i, slices.Insert(bytes.Clone(whole), i, '\n'))
		if i > 0 {
			check("cut", i, whole[:i])
		}
	}
	check("nothing left", 0, nil)
}

// TestVerifyFindsPlace changes lines as a person would who hides something.
func TestVerifyFindsPlace(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, some(5)...)
	lines := strings.SplitAfter(strings.TrimSuffix(string(l.content(t)), "\n"), "\n")
	lines[4] += "\n"
	head := l.mustVerify(t, "", 5, 0).Head
	second := hexSum([]byte(strings.TrimSuffix(lines[1], "\n")))
	join := func(l ...string) string { return strings.Join(l, "") }
	edited := strings.Replace(lines[1], "alice", "mallo", 1)
	for name, test := range map[string]struct {
		content, head string
		line          int
		problem       string
	}{
		"changed":                 {join(lines[0], edited, lines[2], lines[3], lines[4]), "", 3, "prev is not the hash"},
		"taken out":               {join(lines[0], lines[2], lines[3], lines[4]), "", 2, "seq is 3, where 2 belongs"},
		"the first taken out":     {join(lines[1:]...), "", 1, "seq is 2, where 1 belongs"},
		"put in twice":            {join(lines[0], lines[1], lines[1], lines[2]), "", 3, "seq is 2, where 3 belongs"},
		"swapped":                 {join(lines[0], lines[2], lines[1], lines[3]), "", 2, "seq is 3"},
		"made unreadable":         {join(lines[0], "x"+lines[1], lines[2]), "", 2, "no JSON object"},
		"blanked":                 {join(lines[0], "\n", lines[2]), "", 2, "no JSON object"},
		"the end cut off":         {join(lines[:4]...), head, 4, "no line has the hash " + head},
		"the noted line changed":  {join(lines[0], edited), second, 2, "no line has the hash"},
		"emptied":                 {"", head, 0, "no line has the hash"},
		"the end cut off, unseen": {join(lines[:4]...), "", 0, ""},
		"noted in the middle":     {join(lines...), second, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l.set(t, []byte(test.content))
			_, err := l.Verify(test.head)
			if test.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			be, ok := errors.AsType[*BrokenError](err)
			if !ok || be.Line != test.line || !strings.Contains(be.Problem, test.problem) {
				t.Errorf("%v, want line %d, %q", err, test.line, test.problem)
			}
		})
	}
}

// A torn line that no Repaired entry follows is a broken log, whatever its hash.
func TestVerifyUnrepaired(t *testing.T) {
	l := small(t)
	b := bytes.Replace(l.content(t), []byte(`"repaired"`), []byte(`"sign-in"`), 1)
	l.set(t, b)
	if be, ok := errors.AsType[*BrokenError](verifyErr(l, "")); !ok || be.Line != 2 {
		t.Errorf("%v", be)
	}
}

func TestVerifyReport(t *testing.T) {
	l := newLog(t)
	if rep, err := l.Verify(""); err != nil || rep != (Report{}) {
		t.Errorf("no log: %+v, %v", rep, err)
	}
	if _, ok := errors.AsType[*BrokenError](verifyErr(l, noPrev)); !ok {
		t.Error("a log that is gone has the head that was noted")
	}
	if _, err := os.Stat(filepath.Dir(l.Path)); err == nil {
		t.Error("Verify made the folder")
	}
	l.mustAppend(t, some(3)...)
	rep := l.mustVerify(t, "", 3, 0)
	lines := bytes.Split(l.content(t), []byte("\n"))
	if want := (Report{Entries: 3, First: noon, Last: noon.Add(2 * time.Hour), Head: hexSum(lines[2])}); rep != want {
		t.Errorf("%+v, want %+v", rep, want)
	}
}

func TestRead(t *testing.T) {
	l := newLog(t)
	if got := l.mustRead(t); len(got) != 0 {
		t.Errorf("no log: %v", got)
	}
	l.mustAppend(t, some(2)...)
	l.set(t, slices.Concat(l.content(t), []byte("{\n"+strings.Repeat("y", 3*maxLine)+"\n")))
	l.mustAppend(t, some(3)...) // the clock went back
	var seqs, bad []int
	for e, err := range l.Read(noon.Add(time.Hour)) {
		if le, ok := errors.AsType[*LineError](err); ok {
			bad = append(bad, le.Line)
		} else if err != nil {
			t.Error(err)
		} else {
			seqs = append(seqs, int(e.Seq))
		}
	}
	if want := []int{2, 3, 5, 6}; !slices.Equal(seqs, want) { // 3 is the repair, of now
		t.Errorf("since noon: %v, want %v", seqs, want)
	}
	if want := []int{3, 4}; !slices.Equal(bad, want) {
		t.Errorf("unreadable: %v, want %v", bad, want)
	}
	for range l.Read(time.Time{}) {
		break // reading may end early
	}
	l = newLog(t)
	if err := os.MkdirAll(l.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range l.Read(time.Time{}) {
		if n++; err == nil {
			t.Error("a folder was read")
		}
	}
	if n != 1 {
		t.Errorf("%d items", n)
	}
}

// TestNoLock reads a copy where there can be no lock.
func TestNoLock(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, some(2)...)
	copied := &Log{Path: filepath.Join(t.TempDir(), FileName)}
	copied.set(t, l.content(t))
	if err := os.Mkdir(copied.lockPath(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := copied.Append(t.Context(), some(1)...); err == nil {
		t.Fatal("there was a lock")
	}
	copied.mustVerify(t, "", 2, 0)
}

// While a writer hangs, what it has begun to write is no damage.
func TestReadWhileWriterHangs(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, some(2)...)
	whole := l.content(t)
	l.set(t, slices.Concat(whole, []byte(`{"seq":3,"ti`)))
	unlock, err := durable.Lock(t.Context(), l.lockPath())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	r, err := l.snapshot(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("read %q, %v", b, err)
	}
	if got := wholeLines(strings.NewReader("{"), 1); got != 0 {
		t.Errorf("%d bytes of whole lines, want none", got)
	}
}

// TestReadMemory reads 24 MB, two thirds of it one line, in little memory.
func TestReadMemory(t *testing.T) {
	l := newLog(t)
	l.mustAppend(t, some(1)...)
	l.set(t, slices.Concat(l.content(t), bytes.Repeat([]byte("z"), 16<<20), []byte("\n"), bytes.Repeat(append(bytes.Repeat([]byte("y"), 1023), '\n'), 8<<10)))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f, err := os.Open(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := newChain(f)
	lines, largest := 0, 0
	for {
		it, err := c.next()
		if err != nil {
			break
		}
		c.take(it)
		lines, largest = lines+1, max(largest, cap(it.raw))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if lines != 2+(8<<10) || largest > maxLine+1 {
		t.Errorf("%d lines, the largest held %d bytes", lines, largest)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes are held", grown)
	}
}

// FuzzLog gives Read, Verify and Append any file there may be.
func FuzzLog(f *testing.F) {
	l := &Log{Path: filepath.Join(f.TempDir(), FileName)}
	if err := l.Append(f.Context(), some(2)...); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(l.Path)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, whole, whole[:len(whole)-1], whole[:len(whole)-50], whole[50:], []byte("\n"), []byte("{}\n{")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		l := newLog(t)
		l.set(t, content)
		before, berr := l.Verify("")
		n := 0
		for _, err := range l.Read(time.Time{}) {
			if err == nil {
				n++
			}
		}
		if berr == nil && n != before.Entries {
			t.Errorf("%d entries read, %d verified", n, before.Entries)
		}
		l.mustAppend(t, Entry{Event: SignIn, AppPassword: "the last"})
		if !bytes.HasPrefix(l.content(t), content) {
			t.Fatal("what was written has changed")
		}
		var last Entry
		for e, err := range l.Read(time.Time{}) {
			if err == nil {
				last = e
			}
		}
		if last.AppPassword != "the last" {
			t.Errorf("the last entry is %+v", last)
		}
		after, err := l.Verify(before.Head)
		if berr == nil && (err != nil || after.Entries != n+1) {
			t.Errorf("unbroken before, now %+v, %v", after, err)
		}
	})
}
