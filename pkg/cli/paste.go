package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

const (
	// maxPaste bounds what a person may paste: an address with a code in it.
	maxPaste = 64 << 10
	// pasteRest is how long the lines of one paste may be apart.
	pasteRest = 200 * time.Millisecond
)

// readPaste reads what a person pastes. A terminal is read as it comes, since
// line by line it would cut long lines off (at 1,024 bytes on macOS, 4,096 on
// Linux); nothing is shown of it but its length, since a code is in it. A
// paste may have several lines: it ends when none follows at once. A pipe is
// read to its end.
func (a *app) readPaste(ctx context.Context) (string, error) {
	tty, ok := a.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return readAllPasted(ctx, a.Stdin)
	}
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	defer func() {
		_ = term.Restore(int(tty.Fd()), state)
		fmt.Fprintln(a.Stderr)
	}()
	chunks := make(chan []byte)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with the next key after stop: a terminal's read cannot be called off
		defer close(chunks)
		for {
			b := make([]byte, 4096)
			n, err := tty.Read(b)
			if n > 0 {
				select {
				case chunks <- b[:n]:
				case <-stop:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var p pasted
	for {
		var rest <-chan time.Time
		if p.ended {
			rest = time.After(pasteRest)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-rest:
			fmt.Fprintf(a.Stderr, "(%s)", plural(len(p.text), "character"))
			return string(p.text), nil
		case chunk, ok := <-chunks:
			if !ok {
				return "", io.ErrUnexpectedEOF
			}
			if err := p.take(chunk); err != nil {
				return "", err
			}
		}
	}
}

// pasted is what has been typed or pasted so far, in raw mode.
type pasted struct {
	text  []byte
	ended bool // the last key was Enter
}

// Keys that raw mode leaves to the program.
const (
	keyInterrupt = 0x03 // Ctrl-C
	keyEnd       = 0x04 // Ctrl-D
	keyKill      = 0x15 // Ctrl-U
	keyDelete    = 0x7f
)

func (p *pasted) take(chunk []byte) error {
	for _, c := range chunk {
		p.ended = false
		switch c {
		case keyInterrupt:
			return errInterrupted
		case keyEnd:
			if len(p.text) == 0 {
				return io.ErrUnexpectedEOF
			}
			p.ended = true
		case keyKill:
			p.text = nil
		case keyDelete, '\b':
			p.text = p.text[:max(len(p.text)-1, 0)]
		case '\r', '\n':
			p.ended = true
		default:
			p.text = append(p.text, c)
		}
		if len(p.text) > maxPaste {
			return errors.New("what was pasted is too long")
		}
	}
	return nil
}

func readAllPasted(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		b   []byte
		err error
	}
	c := make(chan answer, 1)
	go func() {
		b, err := io.ReadAll(io.LimitReader(r, maxPaste))
		c <- answer{b, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-c:
		if len(got.b) == 0 && got.err == nil {
			return "", io.ErrUnexpectedEOF
		}
		return string(got.b), got.err
	}
}
