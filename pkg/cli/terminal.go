package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/o365pw/o365pw/pkg/secret"
)

// progressDelay is how long a step may take before the person is told what is
// going on.
const progressDelay = time.Second

// progress is one line on the terminal that says what a long step waits for.
// Off a terminal it is silent.
type progress struct {
	w  io.Writer
	on func() bool

	mu    sync.Mutex
	text  string
	shown bool
	timer *time.Timer
}

func newProgress(w io.Writer, on func() bool) *progress { return &progress{w: w, on: on} }

// set says what is being done now.
func (p *progress) set(format string, args ...any) {
	if !p.on() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = printable(fmt.Sprintf(format, args...))
	switch {
	case p.shown:
		p.draw()
	case p.timer == nil:
		p.timer = time.AfterFunc(progressDelay, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.timer != nil {
				p.shown = true
				p.draw()
			}
		})
	}
}

func (p *progress) draw() { fmt.Fprintf(p.w, "\r\x1b[K%s…", p.text) }

// stop takes the line away.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// confirm asks a question whose default is no.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	a.progress.stop()
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	line, err := readLine(ctx, a.Stdin)
	if err != nil {
		fmt.Fprintln(a.Stderr)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readLine reads a line and gives up when ctx ends. The reading goroutine then
// outlives it, until the process ends: a terminal's read cannot be called off.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	c := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
		if line != "" {
			err = nil
		}
		c <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-c:
		return a.line, a.err
	}
}

// askPassphrase asks for the file keychain's passphrase on the terminal, not
// on a stream: stdin may be data.
func (a *app) askPassphrase(ctx context.Context, create bool) (secret.Text, error) {
	tty, err := openTerminal()
	if err != nil {
		return secret.Text{}, errors.New("there is no terminal to ask for it")
	}
	defer tty.Close()
	out, err := terminalOutput(tty)
	if err != nil {
		return secret.Text{}, fmt.Errorf("ask for it on the terminal: %w", err)
	}
	if out != tty {
		defer out.Close()
	}
	a.progress.stop()
	// Raw from before the prompt to behind the answer: people type as soon as
	// they see it, and what they type must not show.
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return secret.Text{}, fmt.Errorf("ask for it on the terminal: %w", err)
	}
	defer func() { _ = term.Restore(int(tty.Fd()), state) }()
	screen := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{tty, out}, "")
	ask := func(prompt string) (string, error) {
		type answer struct {
			text string
			err  error
		}
		c := make(chan answer, 1)
		go func() {
			text, err := screen.ReadPassword(prompt)
			c <- answer{text, err}
		}()
		select {
		case <-ctx.Done():
			fmt.Fprint(out, "\r\n")
			return "", ctx.Err()
		case got := <-c:
			if errors.Is(got.err, io.EOF) { // Ctrl-C, which is no signal in raw mode
				fmt.Fprint(out, "\r\n")
				got.err = errInterrupted
			}
			return got.text, got.err
		}
	}
	first, err := ask("Passphrase of the o365pw keychain: ")
	if err != nil {
		return secret.Text{}, err
	}
	if create {
		again, err := ask("The same again (nobody can recover it): ")
		if err != nil {
			return secret.Text{}, err
		}
		if first != again {
			return secret.Text{}, &usageError{problem: "the two passphrases differ", hint: "run the command again"}
		}
	}
	return secret.New(first), nil
}

func openTerminal() (*os.File, error) {
	if runtime.GOOS == "windows" {
		return os.OpenFile("CONIN$", os.O_RDWR, 0)
	}
	return os.OpenFile("/dev/tty", os.O_RDWR, 0)
}

// terminalOutput is where to write for the person at tty: a console of Windows
// has a name of its own for that.
func terminalOutput(tty *os.File) (*os.File, error) {
	if runtime.GOOS == "windows" {
		return os.OpenFile("CONOUT$", os.O_RDWR, 0)
	}
	return tty, nil
}

// paint gives text an ANSI colour where stdout is a terminal that may have
// some.
func (a *app) paint(sgr, text string) string {
	if a.noColor || !a.stdoutTTY() {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// ANSI "select graphic rendition" parameters.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	yellow = "33"
	green  = "32"
)
