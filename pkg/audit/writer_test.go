package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// disk is a log in memory that can be full, slow or hang.
type disk struct {
	mu      sync.Mutex
	full    error
	entries []Entry
	batches int
	hang    chan struct{} // nil: it does not
}

func (d *disk) append(ctx context.Context, entries ...Entry) error {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang // as a system call does: it knows no ctx
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full != nil {
		return d.full
	}
	d.batches++
	d.entries = append(d.entries, entries...)
	return nil
}

func (d *disk) set(full error, hang chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.hang = full, hang
}

func (d *disk) count(event Event) (entries, counted int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries {
		if e.Event == event {
			entries, counted = entries+1, counted+e.Count
		}
	}
	return entries, counted
}

func (d *disk) check(t *testing.T, signIns, lost, count int) {
	t.Helper()
	s, _ := d.count(SignIn)
	l, c := d.count(Lost)
	if s != signIns || l != lost || c != count {
		t.Errorf("%d sign-ins, %d lost entries that count %d, want %d, %d, %d", s, l, c, signIns, lost, count)
	}
}

type errorsSeen struct {
	mu   sync.Mutex
	errs []error
}

func (s *errorsSeen) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

func (s *errorsSeen) check(t *testing.T, want ...error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) != len(want) {
		t.Fatalf("reported %v, want %v", s.errs, want)
	}
	for i := range want {
		if !errors.Is(s.errs[i], want[i]) {
			t.Errorf("reported %v, want %v", s.errs, want)
		}
	}
}

var errFull = errors.New("no space left on device")

// Against a real file: all arrives, in order, with the times of Add.
func TestWriter(t *testing.T) {
	l := newLog(t)
	w := NewWriter(l, func(err error) { t.Error(err) })
	for i := range 2500 {
		w.Add(Entry{Event: SignIn, AppPassword: fmt.Sprint(i)})
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.mustVerify(t, "", 2500, 0)
	for i, e := range l.mustRead(t) {
		if e.AppPassword != fmt.Sprint(i) || time.Since(e.Time) > time.Minute {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
	w.Add(Entry{Event: SignIn})
	if err := w.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "1 entries") {
		t.Errorf("after the end: %v", err)
	}
}

// A disk that is full for a while loses nothing that fits the queue.
func TestWriterFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, seen := &disk{full: errFull}, &errorsSeen{}
		w := newWriter(d.append, seen.add)
		for range 30 {
			w.Add(Entry{Event: SignIn})
			time.Sleep(time.Second)
		}
		d.check(t, 0, 0, 0)
		seen.check(t, errFull) // once, not thirty times
		d.set(nil, nil)
		time.Sleep(2 * retryPause)
		d.check(t, 30, 0, 0)
		d.set(errFull, nil)
		w.Add(Entry{Event: SignIn})
		time.Sleep(time.Minute)
		seen.check(t, errFull, errFull)
		d.set(nil, nil)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		d.check(t, 31, 0, 0)
	})
}

// What does not fit the queue is counted, and told once.
func TestWriterOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, seen := &disk{full: errFull}, &errorsSeen{}
		w := newWriter(d.append, seen.add)
		w.Add(Entry{Event: SignIn})
		synctest.Wait()
		for range queueLimit + 500 {
			w.Add(Entry{Event: SignIn})
		}
		synctest.Wait()
		seen.check(t, errFull, ErrQueueFull)
		d.set(nil, nil)
		time.Sleep(2 * retryPause)
		d.check(t, queueLimit, 1, 501)
		d.mu.Lock()
		for _, e := range d.entries {
			if e.Event == Lost && (e.Reason != errFull.Error() || e.Time.IsZero()) {
				t.Errorf("%+v", e)
			}
		}
		d.mu.Unlock()
		w.Add(Entry{Event: SignIn})
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		d.check(t, queueLimit+1, 1, 501)
	})
}

// A disk that hangs stops neither Add nor, beyond its limit, Close.
func TestWriterHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		d, seen := &disk{hang: hang}, &errorsSeen{}
		w := newWriter(d.append, seen.add)
		for range queueLimit + 7 {
			w.Add(Entry{Event: SignIn})
		}
		synctest.Wait()
		seen.check(t, ErrQueueFull)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint(queueLimit+7)) {
			t.Errorf("Close: %v", err)
		}
		// It comes back after all.
		d.set(nil, nil)
		close(hang)
		if err := w.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		d.check(t, queueLimit, 1, 7)
	})
}

// Close at a full disk tries once more, and says what is lost.
func TestWriterCloseFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, seen := &disk{full: errFull}, &errorsSeen{}
		w := newWriter(d.append, seen.add)
		w.Add(Entry{Event: SignIn})
		w.Add(Entry{Event: SignIn})
		synctest.Wait()
		if err := w.Close(t.Context()); !errors.Is(err, errFull) || !strings.HasPrefix(err.Error(), "2 entries") {
			t.Errorf("Close: %v", err)
		}
		seen.check(t, errFull)
	})
	synctest.Test(t, func(t *testing.T) {
		if err := newWriter((&disk{}).append, nil).Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What comes at once is written at once.
func TestWriterBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		d := &disk{hang: hang}
		w := newWriter(d.append, nil)
		w.Add(Entry{Event: SignIn})
		synctest.Wait()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 200 {
					w.Add(Entry{Event: SignIn})
				}
			})
		}
		wg.Wait()
		d.set(nil, nil)
		close(hang)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		d.check(t, 2001, 0, 0)
		if d.batches != 3 {
			t.Errorf("%d batches, want 3", d.batches)
		}
	})
}
