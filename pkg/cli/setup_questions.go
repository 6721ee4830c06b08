package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// question is one that a person is asked until the answer can be used.
type question struct {
	text     string
	standard string // what Enter takes; empty: nothing
	flag     string // that answers it in a script
	// take uses the answer; what is wrong with it is explained, and it is asked
	// again.
	take func(answer string) error
}

// ask asks on the terminal.
func (w *setup) ask(ctx context.Context, q question) error {
	w.progress.stop()
	for {
		shown := ""
		if q.standard != "" {
			shown = " [" + printable(q.standard) + "]"
		}
		fmt.Fprintf(w.Stderr, "%s%s: ", q.text, shown)
		line, err := readLine(ctx, w.Stdin)
		if err != nil {
			fmt.Fprintln(w.Stderr)
			if errors.Is(err, io.EOF) {
				return &usageError{problem: "the input ended before the question was answered", hint: "answer it, or give " + q.flag}
			}
			return err
		}
		answer := strings.TrimSpace(line)
		if answer == "" {
			answer = q.standard
		}
		if answer == "" {
			w.tell("an answer is needed")
			continue
		}
		err = q.take(answer)
		if err == nil {
			return nil
		}
		w.tell("%v", err)
	}
}

// confirmYes asks a question whose default is yes: what was asked for is told
// in full above it.
func (w *setup) confirmYes(ctx context.Context, text string) (bool, error) {
	w.progress.stop()
	for {
		fmt.Fprintf(w.Stderr, "%s [Y/n] ", text)
		line, err := readLine(ctx, w.Stdin)
		if err != nil {
			fmt.Fprintln(w.Stderr)
			if errors.Is(err, io.EOF) {
				return false, nil
			}
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "", "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		w.tell("answer y or n")
	}
}
