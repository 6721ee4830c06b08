//go:build !windows

package cli

import "context"

// windowsService is there on Windows.
func (a *app) windowsService(bool) (supervisor, error) {
	return nil, &noServiceError{problem: "this is not Windows", hint: "o365pw service --help"}
}

// asService runs the gateway for Windows, where Windows has started it.
func (a *app) asService(context.Context, serveOptions) (bool, error) { return false, nil }
