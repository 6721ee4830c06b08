// Package cli is the command line: the commands, one file each, their flags
// and output, and the table that gives every error its exit code and hint. It
// is the only package that knows all others, and holds the small adapters
// between them.
//
// Data goes to stdout, everything else to stderr with the prefix "o365pw: ".
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/o365pw/o365pw/pkg/entra"
)

// Env is everything a command takes from outside. Tests and the demo give
// their own.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	// ScryptWorkFactor of a file keychain that is made (log2 N); 0 is the
	// default of package secret. Tests lower it.
	ScryptWorkFactor int
	// GOOS is the system whose services are meant, and Root the folder that
	// its files are in. Empty: this one's. Tests give their own.
	GOOS, Root string
}

// OS is the environment of this process. Called by the name of sendmail(1), it
// is that.
func OS() Env {
	args := os.Args[1:]
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == sendmailName {
		args = slices.Concat([]string{sendmailName}, args)
	}
	return Env{Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now}
}

// Main runs one command and returns the process's exit code. It prints the
// error, if there is one, with its hint.
func Main(ctx context.Context, env Env) int {
	if len(env.Args) == 1 && env.Args[0] == clearClipboardWord {
		return clearClipboard(ctx, env)
	}
	a := newApp(env)
	root := newRoot(a)
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	// cobra prints help, and completions by a write for each.
	out := bufio.NewWriter(env.Stdout)
	root.SetOut(out)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	_ = out.Flush() // whoever does not read it has seen enough
	a.progress.stop()
	a.settle()
	if err == nil {
		return int(done)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.Join(errInterrupted, err)
	}
	return a.report(err)
}

// app is one run of the program: its environment and the global flags.
type app struct {
	Env
	profile    string
	configPath string
	output     output
	jq         string
	template   string
	quiet      bool
	verbose    bool
	noColor    bool

	filter      *filter // of --jq or --template; output is JSON then
	plainErrors bool    // JSON was not asked for by name

	log      *slog.Logger // what --verbose shows goes here; nil: to stderr as text
	progress *progress
	tokens   []*entra.Cache

	entraWait time.Duration // MaxWait of the clients of Entra

	warningsMu sync.Mutex // also lets one goroutine at a time warn
	warnings   []string   // held back for the error object under -o json
}

// settleLimit is how long an interrupted command waits for a token request
// that is under way: its answer may hold the next refresh token.
const settleLimit = 5 * time.Second

// settle waits for what must not be lost when the process ends.
func (a *app) settle() {
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		for _, c := range a.tokens {
			c.Wait()
		}
	}()
	select {
	case <-settled:
	case <-time.After(settleLimit):
	}
}

func newApp(env Env) *app {
	a := &app{Env: env}
	a.progress = newProgress(env.Stderr, a.stderrTTY)
	return a
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) stdoutTTY() bool { return isTerminal(a.Stdout) }
func (a *app) stderrTTY() bool { return isTerminal(a.Stderr) && !a.quiet && !a.structured() }

// structured tells that the output is for programs, stderr included. Under --jq
// and --template alone it is not: people use those on terminals.
func (a *app) structured() bool { return a.output == outputJSON && !a.plainErrors }

// interactive tells that a person can be asked.
func (a *app) interactive() bool { return isTerminal(a.Stdin) && isTerminal(a.Stderr) }

// note tells the person something that is neither data nor a fault.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		a.warn(format, args...)
	}
}

// warn tells the person something that needs attention although the command
// goes on.
func (a *app) warn(format string, args ...any) {
	msg := printable(fmt.Sprintf(format, args...))
	a.warningsMu.Lock()
	defer a.warningsMu.Unlock()
	if a.structured() {
		a.warnings = append(a.warnings, msg)
		return
	}
	a.progress.stop()
	fmt.Fprintf(a.Stderr, "o365pw: %s\n", msg)
}

// tell tells the person what to act on now, whatever the output format: it
// cannot wait for the end of the command.
func (a *app) tell(format string, args ...any) {
	a.progress.stop()
	fmt.Fprintf(a.Stderr, "o365pw: %s\n", printable(fmt.Sprintf(format, args...)))
}

// flushWarnings writes warnings held back, once it is known that no error
// object follows.
func (a *app) flushWarnings() {
	for _, w := range a.warnings {
		fmt.Fprintf(a.Stderr, "o365pw: %s\n", w)
	}
	a.warnings = nil
}

// logger is for what --verbose shows: requests and decisions, never a secret.
func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	if a.log != nil {
		return a.log
	}
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// printable keeps what came from outside from moving the cursor or adding
// lines of its own.
func printable(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			out = append(out, ' ')
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
		default:
			out = append(out, r)
		}
	}
	return string(out)
}
