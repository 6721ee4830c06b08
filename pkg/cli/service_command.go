package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

// commandError tells that a program of the system has failed.
type commandError struct {
	line string // as a person would type it
	said string // what it wrote to stderr
	err  error
}

func (e *commandError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("%s: %v", e.line, e.err)
	}
	return fmt.Sprintf("%s: %s (%v)", e.line, e.said, e.err)
}

func (e *commandError) Unwrap() error { return e.err }

// adviseCommand knows what systemd and launchd say.
func adviseCommand(e *commandError) advice {
	if errors.Is(e.err, exec.ErrNotFound) && strings.HasPrefix(e.line, "systemd-creds ") {
		return advice{failed, "systemd has it from version 250 on; before, put a passphrase into a file that only root can read: --passphrase-file FILE"}
	}
	if errors.Is(e.err, exec.ErrNotFound) {
		return advice{failed, "install the program, or see that it is on the PATH"}
	}
	for _, row := range []struct{ said, hint string }{
		{"Failed to connect to bus", "sign in as that person, not by su or sudo; or set XDG_RUNTIME_DIR=/run/user/$(id -u) and, once: sudo loginctl enable-linger $USER"},
		{"Failed to connect to user scope bus", "sign in as that person, not by su or sudo; or set XDG_RUNTIME_DIR=/run/user/$(id -u) and, once: sudo loginctl enable-linger $USER"},
		{"Access denied", "the same with sudo"},
		{"authentication required", "the same with sudo"},
		{"Operation not permitted", "the same with sudo"},
		{"not found", "o365pw service install"},
		{"not loaded", "o365pw service install"},
		{"Could not find service", "o365pw service install"},
		{"Job for ", "o365pw service logs"},
	} {
		if strings.Contains(e.said, row.said) {
			return advice{failed, row.hint}
		}
	}
	return advice{failed, "o365pw service logs"}
}

// commandLine is a command as a person would type it.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = shellQuote(arg)
		if strings.HasPrefix(arg, "-") && shellQuote("x"+arg) == "x"+arg || arg == "-" {
			quoted[i] = arg
		}
		if name, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(name, "-") {
			quoted[i] = name + "=" + shellQuote(value)
		}
	}
	return strings.Join(quoted, " ")
}

// command is a program of the system, which learns no secret of this one.
func (a *app) command(ctx context.Context, args []string) *exec.Cmd {
	a.logger().Debug("run", "command", commandLine(args))
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(childEnviron(os.Environ()), "TZ=UTC", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	return cmd
}

// ask runs a program and returns what it prints.
func (a *app) ask(ctx context.Context, args ...string) ([]byte, error) {
	return a.askWith(ctx, secret.Text{}, args...)
}

// askWith gives the program a secret on its standard input.
func (a *app) askWith(ctx context.Context, input secret.Text, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := a.command(ctx, args)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input.Reveal()), &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &commandError{line: commandLine(args), said: strings.TrimSpace(said.String()), err: err}
	}
	return out.Bytes(), nil
}

// show runs a program whose output is the command's own.
func (a *app) show(ctx context.Context, args ...string) error {
	var said bytes.Buffer
	cmd := a.command(ctx, args)
	cmd.Stdout, cmd.Stderr = a.Stdout, &said
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &commandError{line: commandLine(args), said: strings.TrimSpace(said.String()), err: err}
	}
	return nil
}

// step is a command of a plan.
func (a *app) step(args ...string) serviceStep {
	return serviceStep{show: commandLine(args), run: func(ctx context.Context) error {
		_, err := a.ask(ctx, args...)
		return err
	}}
}
