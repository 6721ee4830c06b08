//go:build unix

package gateway

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// listenPrivately opens a socket that was never open to others: bind makes it
// with the mode that the umask leaves.
func listenPrivately(path string) (net.Listener, error) {
	// 0077 leaves folders usable that other goroutines make meanwhile.
	old := syscall.Umask(0o077)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// checkPrivate refuses a folder that another user has made, or could write to.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder of this user's alone (mode 0700): remove it", dir)
	}
	return nil
}
