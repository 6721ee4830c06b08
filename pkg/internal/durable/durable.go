// Package durable keeps files that must survive a crash: they are written
// whole or not at all, readable by their owner alone, and guarded by locks
// that hold between processes as well as between goroutines.
package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// staleAfter is the age at which a temporary file is taken for that of a
	// writer who was killed; a write takes well under a second.
	staleAfter = time.Hour

	// Windows refuses to rename over a file while somebody has it open, if
	// only to read it.
	renameTries = 100
	renamePause = 10 * time.Millisecond
)

// lockPoll is how often a waiting Lock looks again. Locks are held for the
// length of a file write or of one token request.
const lockPoll = 20 * time.Millisecond

// WriteFile puts data at path with mode 0600, making the folder (0700) where
// it is missing. The file has either its old content or the new one at any
// moment, also after a power cut: data is written to a temporary file beside
// it, synced, and renamed over it. A symbolic link at path is followed, so
// that a file kept elsewhere stays there, also before it is made. The
// temporary file of a writer that was killed is removed by a later write, an
// hour after it was made at the earliest.
//
// Writers of one path must keep each other out by Lock where one builds on
// what the other wrote; readers need no lock.
func WriteFile(path string, data []byte) (err error) {
	path = follow(path)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder for %s: %w", filepath.Base(path), err)
	}
	// CreateTemp opens with 0600.
	prefix := "." + filepath.Base(path) + "."
	f, err := os.CreateTemp(dir, prefix+"*"+tempSuffix)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = rename(f.Name(), path); err != nil {
		return err
	}
	SyncDir(dir)
	removeStale(dir, prefix)
	return nil
}

// follow returns the file that path leads to by symbolic links, whether that
// is there or not.
func follow(path string) string {
	for range 40 { // as many links as Linux follows
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				break
			}
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return path
}

func rename(from, to string) error {
	err := os.Rename(from, to)
	if runtime.GOOS != "windows" {
		return err
	}
	for range renameTries {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(renamePause)
		err = os.Rename(from, to)
	}
	return err
}

const tempSuffix = ".tmp"

// removeStale removes what killed writers left in dir. It fails silently: the
// write has succeeded, and the next one tries again.
func removeStale(dir, prefix string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		middle, ok := strings.CutPrefix(e.Name(), prefix)
		middle, ok2 := strings.CutSuffix(middle, tempSuffix)
		// CreateTemp fills in digits, nobody else does.
		if _, err := strconv.ParseUint(middle, 10, 64); err != nil || !ok || !ok2 {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// SyncDir makes a rename in dir, or a new file there, last. Not every system
// lets a folder be synced (Windows does not); the rename itself has happened by
// then, so a failure here changes nothing a caller could mend.
func SyncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// Lock takes the lock file at path, waiting until ctx ends, and returns what
// gives it back. The file stays: removing it would let two holders in. A
// process that dies gives its locks back.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	l, err := open(path)
	if err != nil {
		return nil, err
	}
	// Returns true or an error, that of ctx when it ends.
	if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("wait for lock %s: %w", path, err)
	}
	return func() { _ = l.Unlock() }, nil
}

// TryLock is Lock without the wait: ok is false when somebody else holds it.
func TryLock(path string) (unlock func(), ok bool, err error) {
	l, err := open(path)
	if err != nil {
		return nil, false, err
	}
	ok, err = l.TryLock()
	if err != nil {
		return nil, false, fmt.Errorf("take lock %s: %w", path, err)
	}
	if !ok {
		return nil, false, nil
	}
	return func() { _ = l.Unlock() }, true, nil
}

func open(path string) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder for lock %s: %w", path, err)
	}
	return flock.New(path, flock.SetPermissions(0o600)), nil
}
