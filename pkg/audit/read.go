package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// LineError tells of a line that is no entry.
type LineError struct {
	Line int // from 1
	Err  error
}

// Error names the line.
func (e *LineError) Error() string {
	return fmt.Sprintf("line %d of the audit log cannot be read: %v", e.Line, e.Err)
}

// Unwrap gives what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// BrokenError tells where the chain is broken first.
type BrokenError struct {
	Line    int    // from 1; 0 where there is no line
	Problem string // what is wrong, in words
}

// Error names the line and what is wrong.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("the audit log is broken at line %d: %s", e.Line, e.Problem)
}

// Report is what Verify found in an unbroken log.
type Report struct {
	Entries     int
	First, Last time.Time // of the first and the last entry
	Head        string    // hash of the last line; empty where there is none
	Torn        int       // lines that were torn by a crash, and repaired; not those that lack their line end alone
}

// Read gives the entries from since on, in their order; all of them where
// since is zero. It reads as it goes, what was there when it began; a log that
// is not there has no entries. It waits 5 s for somebody who is writing, and
// leaves out a line that is not whole then. A line that is no entry comes as a [*LineError],
// and reading goes on; any other error is the last item.
func (l *Log) Read(since time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r, err := l.snapshot(lockLimit)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer r.Close()
		c := newChain(r)
		for {
			it, err := c.next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(Entry{}, fmt.Errorf("read the audit log: %w", err))
				return
			case it.err != nil:
				if !yield(Entry{}, &LineError{Line: it.line, Err: it.err}) {
					return
				}
			case !it.entry.Time.Before(since):
				if !yield(it.entry, nil) {
					return
				}
			}
		}
	}
}

// Verify reads the whole log and checks that every line follows from the one
// before. Where something was changed, put in or taken out it returns a
// [*BrokenError]; torn lines are none if their Repaired entry follows.
//
// The chain alone cannot tell that lines are missing at its end, nor that it
// was written anew as a whole. A head noted earlier can: where head is not
// empty, it must be the hash of some line.
func (l *Log) Verify(head string) (Report, error) {
	r, err := l.snapshot(lockLimit)
	if err != nil {
		return Report{}, err
	}
	defer r.Close()
	return verify(r, head)
}

func verify(r io.Reader, head string) (Report, error) {
	var rep Report
	c := newChain(r)
	found := head == ""
	var torn *BrokenError // the first torn line that is not repaired yet
	for {
		it, err := c.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return rep, fmt.Errorf("read the audit log: %w", err)
		}
		if it.err == nil {
			if problem := c.misfit(it.entry); problem != "" {
				if torn != nil {
					return rep, torn
				}
				return rep, &BrokenError{Line: it.line, Problem: problem}
			}
			if rep.Entries == 0 {
				rep.First = it.entry.Time
			}
			rep.Entries++
			rep.Last, rep.Torn, torn = it.entry.Time, rep.Torn+c.torn, nil
		} else if torn == nil {
			torn = &BrokenError{Line: it.line, Problem: it.err.Error()}
		}
		if c.take(it); it.err == nil {
			rep.Head = c.prev()
			found = found || rep.Head == head
		}
	}
	switch {
	case torn != nil:
		return rep, torn
	case c.open:
		return rep, &BrokenError{Line: c.line, Problem: "its line end is missing: it was cut off, or a crash came in between"}
	case !found:
		return rep, &BrokenError{Line: c.line, Problem: "no line has the hash " + head + ": the line that had it was changed or cut off"}
	}
	return rep, nil
}

// misfit tells why e cannot be the next entry; empty if it can.
func (c *chain) misfit(e Entry) string {
	switch {
	case e.Seq != c.seq+1:
		return fmt.Sprintf("its seq is %d, where %d belongs: lines were taken out or put in", e.Seq, c.seq+1)
	case e.Prev != c.prev():
		return "its prev is not the hash of the line before: that line was changed, or this one put in"
	case c.torn > 0 && e.Event != Repaired:
		return "what stands before it cannot be read and was not repaired"
	}
	return ""
}

// lockLimit is how long a reader waits for a writer.
const lockLimit = 5 * time.Second

// snapshot opens the log as it is between two Appends, so that nobody takes a
// write that is under way for a torn line. Where there can be no lock, as on a
// read-only copy, it goes without; while a writer hangs, the line that it has
// begun is left out.
func (l *Log) snapshot(wait time.Duration) (io.ReadCloser, error) {
	f, err := os.Open(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(eof{}), nil
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	unlock, lockErr := durable.Lock(ctx, l.lockPath())
	if lockErr == nil {
		defer unlock()
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	size := fi.Size()
	if errors.Is(lockErr, context.DeadlineExceeded) {
		size = wholeLines(f, size)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, size), f}, nil
}

// wholeLines is the size without a last line that has no end yet, where that is
// no longer than a line may be.
func wholeLines(f io.ReaderAt, size int64) int64 {
	start := max(0, size-maxLine-1)
	b := make([]byte, size-start)
	if _, err := f.ReadAt(b, start); err != nil {
		return size
	}
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 || start == 0 {
		return start + int64(i) + 1
	}
	return size
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// chain follows a log line by line, with bounded memory.
type chain struct {
	r    *bufio.Reader
	line int    // lines read
	seq  uint64 // of the last entry
	torn int    // lines since then that are no entries
	open bool   // the line read last has no line end
	// span hashes everything from the last entry's line on, without the last
	// line end: what the next entry has to carry.
	span hash.Hash
	any  bool // span has begun
}

// item is one line.
type item struct {
	line  int
	raw   []byte // good until the next one; nil where it was too long, and is in span already
	entry Entry
	err   error // why it is no entry
}

func newChain(r io.Reader) *chain {
	return &chain{r: bufio.NewReaderSize(r, maxLine+1), span: sha256.New()}
}

// next reads a line; io.EOF after the last one.
func (c *chain) next() (item, error) {
	raw, err := c.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(raw) == 0 {
		return item{}, io.EOF
	}
	c.line++
	it := item{line: c.line}
	if errors.Is(err, bufio.ErrBufferFull) {
		c.begin()
		for errors.Is(err, bufio.ErrBufferFull) {
			c.span.Write(raw)
			raw, err = c.r.ReadSlice('\n')
		}
		it.err = fmt.Errorf("it is longer than %d bytes", maxLine)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return item{}, err
	}
	if c.open = err != nil; !c.open {
		raw = raw[:len(raw)-1]
	}
	if it.err != nil {
		c.span.Write(raw)
		return it, nil
	}
	it.raw = raw
	it.entry, it.err = parse(raw)
	return it, nil
}

// take makes the line that next gave part of the chain.
func (c *chain) take(it item) {
	switch {
	case it.err == nil:
		c.span.Reset()
		c.any, c.seq, c.torn = true, it.entry.Seq, 0
	case it.raw == nil: // too long
		c.torn++
		return
	default:
		c.torn++
		c.begin()
	}
	c.span.Write(it.raw)
}

// begin puts the line end between two lines of a span.
func (c *chain) begin() {
	if c.any {
		c.span.Write([]byte("\n"))
	}
	c.any = true
}

// prev is what the next entry has to carry.
func (c *chain) prev() string {
	if !c.any {
		return noPrev
	}
	return hex.EncodeToString(c.span.Sum(nil))
}
