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

// errNothingPasted says that there is nobody, or no more, to paste.
var errNothingPasted = errors.New("the input ended before an address was pasted")

// pasteReader reads what a person pastes. A terminal is read as it comes, since
// line by line it would cut long lines off (at 1,024 bytes on macOS, 4,096 on
// Linux); nothing is shown of it but its length, since a code is in it. A
// paste may have several lines: it ends when none follows at once. A pipe is
// read to its end.
type pasteReader struct{ a *app }

// read asks for the next paste. The terminal is made ready before it shows the
// prompt: people paste as soon as they see it.
func (p *pasteReader) read(ctx context.Context, prompt string) (string, error) {
	tty, ok := p.a.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		fmt.Fprintln(p.a.Stderr, prompt)
		return readAllPasted(ctx, p.a.Stdin)
	}
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	defer func() {
		_ = term.Restore(int(tty.Fd()), state)
		fmt.Fprintln(p.a.Stderr)
	}()
	fmt.Fprint(p.a.Stderr, prompt)
	var got pasted
	for {
		limit := time.Duration(0)
		if got.ended {
			limit = pasteRest
		}
		chunk, err := readPasted(ctx, tty, limit)
		switch {
		case errors.Is(err, io.EOF):
			return "", errNothingPasted
		case err != nil:
			return "", err
		case len(chunk) == 0:
			fmt.Fprintf(p.a.Stderr, "(%s)", plural(len(got.text), "character"))
			return string(got.text), nil
		}
		if err := got.take(chunk); err != nil {
			return "", err
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
				return errNothingPasted
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
			return "", errNothingPasted
		}
		return string(got.b), got.err
	}
}
