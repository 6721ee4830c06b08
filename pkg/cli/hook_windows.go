package cli

import (
	"context"
	"os/exec"
	"syscall"
)

// shellCommand runs a line in the command interpreter, which wants it as it is
// written, without the quoting that arguments get. When ctx ends, the
// interpreter is killed.
func shellCommand(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "cmd")
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /S /C "` + line + `"`}
	return cmd
}
