package cli

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/o365pw/o365pw/pkg/secret"
)

// passedOn is a file that is in memory alone (memfd_create(2)), with the secret
// in it for the user with that id to read as often as it likes; -1: for the
// caller.
func passedOn(t secret.Text, uid int) (*os.File, error) {
	fd, err := unix.MemfdCreate("o365pw", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "o365pw")
	_, err = f.WriteString(t.Reveal())
	err = errors.Join(err, f.Chmod(0o400))
	if uid >= 0 {
		err = errors.Join(err, f.Chown(uid, -1))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
