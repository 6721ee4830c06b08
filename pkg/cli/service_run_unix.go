//go:build unix

package cli

import (
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// runAs makes a command run as another user, and says which id that is.
func runAs(cmd *exec.Cmd, name string) (uid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return 0, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+name, "LOGNAME="+name)
	return uid, nil
}
