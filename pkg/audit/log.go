package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// FileName is the log's name in the state folder.
const FileName = "audit.jsonl"

// Log is the log at Path. Any number of processes may append to it, and read
// it, at the same time.
type Log struct{ Path string }

// Append writes entries at the end of the log, making it (0600) and its folder
// (0700) where they are missing. It sets Seq and Prev, and Time where that is
// zero. The entries are on the disk, all of them, when it returns nil. When it
// fails, the log is as it was, except for what a system that failed to take
// the bytes would not take away again either: the next Append repairs that. It
// waits for other writers until ctx ends.
func (l *Log) Append(ctx context.Context, entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	unlock, err := durable.Lock(ctx, l.lockPath())
	if err != nil {
		return err
	}
	defer unlock()
	f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	end, err := findEnd(f, fi.Size())
	if err != nil {
		return fmt.Errorf("read the end of %s: %w", l.Path, err)
	}
	data, err := end.encode(entries)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// By path: on Windows a file open for appending cannot be cut.
		return errors.Join(err, os.Truncate(l.Path, fi.Size()))
	}
	if fi.Size() == 0 {
		durable.SyncDir(filepath.Dir(l.Path))
	}
	return nil
}

func (l *Log) lockPath() string { return l.Path + ".lock" }

// end is what a new entry is put after.
type end struct {
	seq  uint64 // of the last whole line; 0 where there is none
	prev string // what the next entry has to carry
	open bool   // the last line has no line end
	torn bool   // what follows the last whole line cannot be read
}

// encode writes entries as lines. What was torn is closed first.
func (n end) encode(entries []Entry) ([]byte, error) {
	var out []byte
	add := func(e Entry) error {
		n.seq++
		e.Seq, e.Prev = n.seq, n.prev
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		line, err := e.line()
		if err != nil {
			return err
		}
		n.prev = hexSum(line)
		out = append(append(out, line...), '\n')
		return nil
	}
	if n.open {
		out = append(out, '\n')
	}
	if n.open || n.torn {
		if err := add(Entry{Event: Repaired}); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// findEnd looks at the end of a log of that size. It reads little: the whole
// file only where its last 128 KiB hold no entry.
func findEnd(f io.ReaderAt, size int64) (end, error) {
	if size == 0 {
		return end{prev: noPrev}, nil
	}
	for _, window := range []int64{4 << 10, 2 * maxLine} {
		start := max(0, size-window)
		b := make([]byte, size-start)
		if _, err := f.ReadAt(b, start); err != nil {
			return end{}, err
		}
		var n end
		b, closed := bytes.CutSuffix(b, []byte("\n"))
		n.open = !closed
		for stop := len(b); stop >= 0; {
			before := bytes.LastIndexByte(b[:stop], '\n')
			if before < 0 && start > 0 {
				break // the line may have begun earlier
			}
			if line := b[before+1 : stop]; len(line) <= maxLine {
				if e, err := parse(line); err == nil {
					n.seq, n.prev, n.torn = e.Seq, hexSum(b[before+1:]), stop < len(b)
					return n, nil
				}
			}
			stop = before
		}
		if start == 0 {
			n.prev, n.torn = hexSum(b), true
			return n, nil
		}
	}
	return scanEnd(io.NewSectionReader(f, 0, size))
}

// scanEnd is findEnd from the beginning.
func scanEnd(r io.Reader) (end, error) {
	c := newChain(r)
	for {
		it, err := c.next()
		if errors.Is(err, io.EOF) {
			return end{seq: c.seq, prev: c.prev(), open: c.open, torn: c.torn > 0}, nil
		}
		if err != nil {
			return end{}, err
		}
		c.take(it)
	}
}
