//go:build !linux

package cli

import (
	"errors"
	"os"

	"github.com/o365pw/o365pw/pkg/secret"
)

// passedOn is for systemd. Elsewhere the service's passphrase is in a file.
func passedOn(secret.Text, int) (*os.File, error) { return nil, errors.ErrUnsupported }
