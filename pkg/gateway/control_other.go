//go:build !unix

package gateway

import (
	"net"
	"os"
)

// listenPrivately relies on the folder: it is the user's own, and Windows
// gives a socket its folder's access list.
func listenPrivately(path string) (net.Listener, error) { return net.Listen("unix", path) }

// checkPrivate relies on the folder for temporary files being per user.
func checkPrivate(dir string) error {
	_, err := os.Lstat(dir)
	return err
}
