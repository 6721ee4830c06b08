//go:build !linux

package secret

import (
	"errors"
	"time"
)

func kernelGet(string) ([]byte, error) { return nil, errors.ErrUnsupported }

func kernelSet(string, []byte, time.Duration) error { return errors.ErrUnsupported }
