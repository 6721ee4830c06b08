//go:build unix

package cli

import (
	"os/exec"
	"syscall"
)

// ownSession keeps a shell that is asked something from the terminal: as an
// interactive one it would take it over.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
