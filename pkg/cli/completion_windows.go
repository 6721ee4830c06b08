package cli

import "os/exec"

// ownSession has nothing to do on Windows, where a shell does not take over the
// terminal.
func ownSession(*exec.Cmd) {}
