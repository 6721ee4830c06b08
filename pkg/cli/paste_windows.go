package cli

import (
	"context"
	"os"
	"time"
)

// readPasted gives what comes next from a console in raw mode. With a limit it
// gives nothing at once: a console cannot tell whether something is there to be
// read, and a read that was left waiting would take what the person types at the
// next question.
func readPasted(ctx context.Context, tty *os.File, limit time.Duration) ([]byte, error) {
	if limit > 0 {
		return nil, ctx.Err()
	}
	type answer struct {
		b   []byte
		err error
	}
	c := make(chan answer, 1)
	go func() {
		b := make([]byte, 4096)
		n, err := tty.Read(b)
		c <- answer{b[:n], err}
	}()
	select {
	case <-ctx.Done(): // which ends the process
		return nil, ctx.Err()
	case got := <-c:
		return got.b, got.err
	}
}
