// Command soak runs the gateway under many mail sessions that open, work and
// close, and looks for what does not come back: goroutines, descriptors,
// memory.
//
//	go run -race ./cmd/soak                            1,000 sessions, ten minutes
//	go run -race ./cmd/soak -sessions 100 -for 1m
//
// Everything is in this process: a fake tenant, the gateway as "serve" runs it,
// and the mail programs, on loopback. The load comes in rounds; between two of
// them all sessions are closed and what is left is counted. It ends with exit
// code 1 where something grows, or where a session did not do what it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	var s soak
	flag.IntVar(&s.sessions, "sessions", 1000, "sessions at the same time")
	flag.DurationVar(&s.length, "for", 10*time.Minute, "how long")
	flag.Parse()
	s.out = os.Stdout
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := s.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(1)
	}
}

// soak is one run.
type soak struct {
	sessions int
	length   time.Duration
	out      io.Writer

	lab  *lab
	done atomic.Int64 // sessions that have ended as they should

	mu     sync.Mutex
	faults map[string]int // what went wrong, and how often
}

// rounds are how often everything is closed and counted. The first is for
// pools and caches to fill.
const rounds = 6

// stagger is the time between the first visits of two mail programs.
const stagger = 20 * time.Millisecond

// count is what a process holds.
type count struct {
	goroutines, descriptors int
	heap                    uint64
}

func (c count) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %.1f MiB of heap", c.goroutines, c.descriptors, float64(c.heap)/(1<<20))
}

func (s *soak) run(ctx context.Context) (err error) {
	s.faults = map[string]int{}
	if s.lab, err = newLab(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.close()) }()
	var first, last count
	for round := range rounds {
		if err := s.round(ctx, s.length/rounds); err != nil {
			return err
		}
		if last, err = s.settle(ctx); err != nil {
			return err
		}
		if round == 1 {
			first = last
		}
		fmt.Fprintf(s.out, "round %d of %d: %d sessions so far; left: %s\n", round+1, rounds, s.done.Load(), last)
	}
	return s.judge(first, last)
}

// round keeps the sessions busy for a while.
func (s *soak) round(ctx context.Context, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	end, _ := ctx.Deadline()
	// What is cut off by the end of the round fails a little before it.
	over := func() bool { return ctx.Err() != nil || time.Until(end) < 200*time.Millisecond }
	var wg sync.WaitGroup
	for i := range s.sessions {
		wg.Go(func() {
			// They come one after the other, since what is looked for is growth,
			// not what a storm of 1,000 handshakes does under the race detector.
			select {
			case <-time.After(time.Duration(i) * stagger):
			case <-ctx.Done():
			}
			for n := 0; ctx.Err() == nil; n++ {
				if err := s.lab.session(ctx, i+n); err != nil && !over() {
					s.fault(err)
					time.Sleep(100 * time.Millisecond)
				} else if err == nil {
					s.done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if context.Cause(ctx) == context.Canceled {
		return context.Canceled
	}
	return nil
}

func (s *soak) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[err.Error()]++
}

// settle waits until what is left no longer shrinks: good-byes, timers and
// idle connections take a while.
func (s *soak) settle(ctx context.Context) (count, error) {
	var last count
	for same, tries := 0, 0; same < 4 && tries < 120; tries++ {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
		runtime.GC()
		runtime.GC() // what pools held until now
		now := s.lab.count()
		if same++; now.goroutines != last.goroutines || now.descriptors != last.descriptors {
			same = 0
		}
		last = now
	}
	return last, nil
}

// judge compares what was left after the second round with what is left now.
func (s *soak) judge(first, last count) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for text, n := range s.faults {
		errs = append(errs, fmt.Errorf("%d times: %s", n, text))
	}
	if s.done.Load() == 0 {
		errs = append(errs, errors.New("no session has ended as it should"))
	}
	if last.goroutines > first.goroutines+5 {
		errs = append(errs, fmt.Errorf("goroutines grew from %d to %d", first.goroutines, last.goroutines))
	}
	if last.descriptors > first.descriptors+5 {
		errs = append(errs, fmt.Errorf("descriptors grew from %d to %d", first.descriptors, last.descriptors))
	}
	if limit := first.heap + first.heap/10 + 2<<20; last.heap > limit {
		errs = append(errs, fmt.Errorf("the heap grew from %d to %d bytes", first.heap, last.heap))
	}
	return errors.Join(errs...)
}
