package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// queueLimit is how many entries wait at most.
	queueLimit = 10_000
	// batchLimit is how many are written at once.
	batchLimit = 1_000
	// retryPause is how long a Writer waits after a failure.
	retryPause = time.Second
	// appendLimit is how long it waits for other writers.
	appendLimit = 30 * time.Second
)

// ErrQueueFull is reported when entries begin to get lost because the disk is
// slower than they come, or hangs.
var ErrQueueFull = errors.New("the queue is full; entries are being lost")

// Writer writes to a log beside the program's own work: a disk that is full,
// slow or hangs stops nobody. An entry is kept until it could be written,
// while there are no more than 10,000; what does not fit is counted, and told
// by one Lost entry as soon as writing works again.
type Writer struct {
	append  func(ctx context.Context, entries ...Entry) error
	onError func(error)

	mu     sync.Mutex
	queue  []Entry
	lost   int
	failed error // of the last try; nil after one that went well
	closed bool

	wake chan struct{} // there is something to do
	quit chan struct{} // closed by Close
	done chan struct{} // closed when the goroutine has ended
}

// NewWriter starts a Writer. onError, which may be nil, is told when writing
// begins to fail and when entries begin to get lost, never from within Add. Its
// goroutine runs until Close.
func NewWriter(log *Log, onError func(error)) *Writer { return newWriter(log.Append, onError) }

func newWriter(append func(context.Context, ...Entry) error, onError func(error)) *Writer {
	if onError == nil {
		onError = func(error) {}
	}
	w := &Writer{append: append, onError: onError, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// Add queues an entry and returns at once. Its Time, where zero, is now.
// After Close nothing is taken any more.
func (w *Writer) Add(e Entry) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.queue) >= queueLimit {
		if w.lost++; w.lost == 1 && !w.closed {
			go w.onError(ErrQueueFull)
		}
		return
	}
	w.queue = append(w.queue, e)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close writes what is queued and ends the Writer. It waits until ctx ends;
// the error tells how many entries were not written.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.quit)
	}
	w.mu.Unlock()
	var ended error
	select {
	case <-w.done:
	case <-ctx.Done():
		ended = ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.queue) + w.lost; n > 0 {
		return fmt.Errorf("%d entries of the audit log could not be written: %w", n, errors.Join(w.failed, ended))
	}
	return nil
}

// run writes until Close, and then what is left, as long as that works.
func (w *Writer) run() {
	defer close(w.done)
	for closing := false; !closing; {
		select {
		case <-w.wake:
		case <-w.quit:
			closing = true
		}
		for {
			more, err := w.writeBatch()
			if err == nil && !more || err != nil && closing {
				break
			}
			if err == nil {
				continue
			}
			select {
			case <-time.After(retryPause):
			case <-w.quit:
				closing = true // one more try
			}
		}
	}
}

// writeBatch writes the front of the queue, with the count of what was lost,
// and tells whether there is more.
func (w *Writer) writeBatch() (more bool, err error) {
	w.mu.Lock()
	n, lost := min(len(w.queue), batchLimit), w.lost
	batch := make([]Entry, n, n+1)
	copy(batch, w.queue)
	if lost > 0 {
		reason := "the queue was full"
		if w.failed != nil {
			reason = w.failed.Error()
		}
		batch = append(batch, Entry{Time: time.Now(), Event: Lost, Reason: reason, Count: lost})
	}
	w.mu.Unlock()
	if len(batch) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), appendLimit)
	defer cancel()
	err = w.append(ctx, batch...)

	w.mu.Lock()
	began := err != nil && w.failed == nil
	w.failed = err
	if err == nil {
		w.queue = append(w.queue[:0], w.queue[n:]...)
		w.lost -= lost
		more = len(w.queue) > 0 || w.lost > 0
	}
	w.mu.Unlock()
	if began {
		w.onError(err)
	}
	return more, err
}
