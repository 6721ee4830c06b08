package cli

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// apart makes a command one that the console's Ctrl-C is not meant for.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}

func ignoreHangup() {}

// terminalSession has no meaning on Windows, which ends what belongs to a console
// with it.
func terminalSession() int { return 0 }

func sessionOver(int) bool { return false }
