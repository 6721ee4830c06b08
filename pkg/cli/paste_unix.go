//go:build unix

package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pasteLook is how often the end of ctx is looked for.
const pasteLook = 100 * time.Millisecond

// readPasted gives what comes next from a terminal in raw mode, or nothing where
// nothing comes within limit (0: waits for it). It reads only what is there: a
// read that was left waiting would take what the person types at the next
// question.
func readPasted(ctx context.Context, tty *os.File, limit time.Duration) ([]byte, error) {
	begin := time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wait := pasteLook
		if limit > 0 {
			if wait = min(wait, limit-time.Since(begin)); wait <= 0 {
				return nil, nil
			}
		}
		fd := int(tty.Fd())
		var set unix.FdSet
		set.Set(fd)
		timeout := unix.NsecToTimeval(wait.Nanoseconds())
		// Not poll(2), which knows no terminals on macOS.
		n, err := unix.Select(fd+1, &set, nil, nil, &timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if err == nil && n > 0 {
			b := make([]byte, 4096)
			n, err := tty.Read(b)
			return b[:n], err
		}
	}
}
