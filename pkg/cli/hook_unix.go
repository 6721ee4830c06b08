//go:build unix

package cli

import (
	"context"
	"os/exec"
	"syscall"
)

// shellCommand runs a line in the shell. When ctx ends, the shell and all that
// it has started are killed: it leads a process group of its own.
func shellCommand(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}
