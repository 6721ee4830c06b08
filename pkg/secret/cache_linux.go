package secret

import (
	"time"

	"golang.org/x/sys/unix"
)

// kernelPermissions let every process of the user read a key, also one whose
// session keyring is not linked to the user's, as under systemd and cron
// (keyctl_setperm(3)): all for the possessor; view, read and search for the user.
const kernelPermissions = 0x3f000000 | 0x000b0000

// maxKernelValue bounds what is read: a key of the user's quota, 20,000 bytes.
const maxKernelValue = 32 << 10

func kernelGet(name string) ([]byte, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
	if err != nil {
		return nil, err
	}
	value := make([]byte, maxKernelValue)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, value, 0)
	if err != nil {
		return nil, err
	}
	return value[:min(n, len(value))], nil // cut short it does not decrypt
}

func kernelSet(name string, value []byte, life time.Duration) error {
	id, err := unix.AddKey("user", name, value, unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		return err
	}
	if _, err = unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, int(life/time.Second), 0, 0); err == nil {
		err = unix.KeyctlSetperm(id, kernelPermissions)
	}
	if err != nil {
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	}
	return err
}
