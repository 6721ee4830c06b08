//go:build !windows

package cli

import "os"

// readableByOthers tells whether anybody but the owner can read the file.
func readableByOthers(path string) (bool, error) {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().Perm()&0o077 != 0, err
}
