//go:build unix

package cli

import (
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart makes a command the leader of a session of its own.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

func ignoreHangup() { signal.Ignore(syscall.SIGHUP) }

// terminalSession is the id of this process's session: that of the shell's process.
func terminalSession() int {
	id, err := unix.Getsid(0)
	if err != nil {
		return 0
	}
	return id
}

// sessionOver tells that the process that a session began with has ended.
func sessionOver(id int) bool { return id == 0 || unix.Kill(id, 0) == unix.ESRCH }
