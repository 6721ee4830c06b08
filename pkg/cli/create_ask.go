package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// askName asks on the terminal for the name that create was not given, until it is
// one that can be had. Where nobody can be asked, that is wrong usage.
func (a *app) askName(ctx context.Context) (string, error) {
	if !isTerminal(a.Stdin) || !a.stderrTTY() {
		return "", &usageError{problem: "an app password needs a name", hint: "o365pw create --name \"Outlook on Mac\""}
	}
	s, err := a.open()
	if err != nil {
		return "", err
	}
	entries, err := s.manager.Local()
	if err != nil {
		return "", err
	}
	for {
		fmt.Fprint(a.Stderr, "Name, e.g. Thunderbird on laptop: ")
		line, err := readLine(ctx, a.Stdin)
		if err != nil {
			fmt.Fprintln(a.Stderr)
			if errors.Is(err, io.EOF) { // Ctrl-D
				err = errInterrupted
			}
			return "", err
		}
		name := strings.TrimSpace(line)
		err = apppassword.CheckName(name)
		if err == nil {
			err = apppassword.NameFree(entries, name) // as far as this machine knows
		}
		if err == nil {
			return name, nil
		}
		fmt.Fprintf(a.Stderr, "  %s\n", printable(err.Error()))
	}
}
