package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// clearOrder is what the process that empties the clipboard is told, on its
// standard input. The password is not in it.
type clearOrder struct {
	After   time.Duration `json:"after"`
	Sum     string        `json:"sum"` // of what is to be taken off, and nothing else
	Paste   []string      `json:"paste"`
	Clear   []string      `json:"clear"`   // empty: by the terminal, which is its standard output
	Session int           `json:"session"` // the terminal's session; with its end the time is up
}

// clearClipboardWord is the one argument of that process. It is no command: nobody
// types it.
const clearClipboardWord = "__clear-clipboard"

// clearLater leaves a process behind that empties the clipboard. It stands apart
// from the terminal, whose Ctrl-C and end are not meant for it.
func (a *app) clearLater(order clearOrder, tty *os.File) error {
	if order.After == 0 {
		return nil
	}
	if err := startClearing(order, tty); err != nil {
		return &failedError{code: failed, msg: fmt.Sprintf("the password is on the clipboard, and stays there: %v", err), hint: "copy something else over it"}
	}
	return nil
}

func startClearing(order clearOrder, tty *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	order.Session = terminalSession()
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, clearClipboardWord)
	cmd.Args[0] = os.Args[0] // as people know it in a list of processes
	cmd.Env = childEnviron(os.Environ())
	if tty != nil {
		cmd.Stdout = tty
	}
	apart(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ready, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = in.Write(text)
	err = errors.Join(err, in.Close())
	// It closes this once it has its order: told to end from now on, it clears.
	_, _ = io.Copy(io.Discard, ready)
	return errors.Join(err, ready.Close(), cmd.Process.Release())
}

// clearClipboard is the process that [app.clearLater] leaves behind. It says
// nothing to anybody: its terminal may be another program's by now.
func clearClipboard(ctx context.Context, env Env) int {
	var order clearOrder
	if err := json.NewDecoder(io.LimitReader(env.Stdin, 64<<10)).Decode(&order); err != nil {
		return int(wrongUsage)
	}
	ignoreHangup()
	if f, ok := env.Stderr.(io.Closer); ok {
		_ = f.Close() // who has started this waits for it
	}
	order.wait(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clipboardTimeout)
	defer cancel()
	if len(order.Clear) == 0 {
		_, _ = io.WriteString(env.Stdout, clipboardSequence("!"))
		return int(done)
	}
	if order.stillThere(ctx) {
		_ = clipboardCommand(ctx, order.Clear, "").Run()
	}
	return int(done)
}

// wait returns when the time is up, the terminal's session is over, or this process
// is told to end.
func (o clearOrder) wait(ctx context.Context) {
	timer := time.NewTimer(o.After)
	defer timer.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-look.C:
			if len(o.Clear) == 0 && sessionOver(o.Session) {
				return
			}
		}
	}
}

// stillThere compares. Where there is no program that can read the clipboard, what
// is on it counts as the password; one that fails has found nothing that it can read.
func (o clearOrder) stillThere(ctx context.Context) bool {
	out, err := clipboardCommand(ctx, o.Paste, "").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return true
	}
	return err == nil && clipboardSum(out) == o.Sum
}
