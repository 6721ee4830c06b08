package secret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

const (
	defaultService = "o365pw"
	defaultTimeout = 5 * time.Second

	// A writer asks the keychain for at most a few calls per part. One that
	// holds the lock for longer than this many time limits is stuck.
	lockTimeouts = 6
)

// itemLimits is how many bytes of a value fit into one item. Windows stores
// 2,560 bytes (CRED_MAX_CREDENTIAL_BLOB_SIZE). On macOS go-keyring hands a
// line of at most 4,096 bytes to security(1), with the value in base64 and
// service and key quoted, and leaves that process behind when the line is too
// long: the limit leaves room for the longest key with every byte quoted. The
// Secret Service has none.
var itemLimits = map[string]int{"windows": 2560, "darwin": 1536}

// System is the keychain of the operating system: the Secret Service of a
// Linux or BSD desktop (GNOME Keyring, KWallet, KeePassXC), the macOS
// Keychain, the Windows Credential Manager. The zero value is ready for use.
// A System must not be copied after its first use.
//
// A keychain may ask its owner to unlock it, and answers only then. A call
// that waits longer than Timeout fails with Reason Timeout; what it asked is
// left hanging, and as long as it hangs no other call of this System is
// started, so that not more than one can. Set asks a question that changes
// nothing first: it does not happen after it has failed because the keychain
// was locked.
type System struct {
	// Service is the name that all items carry; empty means "o365pw".
	Service string
	// Timeout bounds each question to the keychain; zero means 5 seconds.
	// Get, Set and Delete ask one to four, and three for each part of a
	// value that is too long for one item.
	Timeout time.Duration

	calling gate // held by the goroutine that asks the keychain
	writing gate // held by Set and Delete from beginning to end

	// For tests, which need other limits and keychains that misbehave.
	store    store  // nil: go-keyring
	limit    int    // bytes in an item; 0: the platform's, negative: any
	lockPath string // "": in the user's cache folder
}

var _ Keychain = (*System)(nil)

// store is the part of go-keyring in use.
type store interface {
	Get(service, key string) (string, error)
	Set(service, key, value string) error
	Delete(service, key string) error
}

type goKeyring struct{}

func (goKeyring) Get(service, key string) (string, error) {
	if err := reach(); err != nil {
		return "", err
	}
	return keyring.Get(service, key)
}

func (goKeyring) Set(service, key, value string) error {
	if err := reach(); err != nil {
		return err
	}
	return keyring.Set(service, key, value)
}

func (goKeyring) Delete(service, key string) error {
	if err := reach(); err != nil {
		return err
	}
	return keyring.Delete(service, key)
}

// String returns "system keychain" and the name of the platform's.
func (s *System) String() string {
	switch runtime.GOOS {
	case "darwin":
		return "system keychain (macOS Keychain)"
	case "windows":
		return "system keychain (Windows Credential Manager)"
	}
	return "system keychain (Secret Service)"
}

// Get returns the value kept under key. It takes no lock: a value in parts
// that changes meanwhile is read again.
func (s *System) Get(ctx context.Context, key string) (Text, error) {
	if err := s.check(key); err != nil {
		return Text{}, err
	}
	value, err := s.read(ctx, key)
	if err != nil {
		return Text{}, fmt.Errorf("get %q: %w", key, err)
	}
	return New(value), nil
}

// Set keeps value under key, and reads it back before it says so: a keychain
// that asks its owner for leave reports no error to go-keyring when that is
// declined.
func (s *System) Set(ctx context.Context, key string, value Text) error {
	if err := s.check(key); err != nil {
		return err
	}
	if err := checkValue(s.String(), key, value); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("set %q: %w", key, err)
	}
	defer unlock()
	if err := s.write(ctx, key, value.Reveal()); err != nil {
		return fmt.Errorf("set %q: %w", key, err)
	}
	return nil
}

// Delete removes what is kept under key, and looks whether it is gone before
// it says so.
func (s *System) Delete(ctx context.Context, key string) error {
	if err := s.check(key); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	defer unlock()
	if err := s.remove(ctx, key); err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	return nil
}

func (s *System) check(key string) error {
	if service := s.service(); len(service) > 64 || checkKey(service) != nil {
		return fmt.Errorf("the keychain service name %q is longer than 64 bytes or not printable", service)
	}
	if isPartKey(key) {
		return fmt.Errorf("the key %q of a secret ends like the key of a part", key)
	}
	return checkKey(key)
}

func (s *System) service() string        { return cmp.Or(s.Service, defaultService) }
func (s *System) timeout() time.Duration { return cmp.Or(s.Timeout, defaultTimeout) }
func (s *System) itemLimit() int         { return cmp.Or(s.limit, itemLimits[runtime.GOOS]) }

// lock keeps other writers out: those of this process, and where values may
// be in parts those of others, which could delete the parts of one another.
func (s *System) lock(ctx context.Context) (unlock func(), err error) {
	if err := s.writing.acquire(ctx); err != nil {
		return nil, err
	}
	if s.itemLimit() <= 0 {
		return s.writing.release, nil
	}
	path := s.lockPath
	if path == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			s.writing.release()
			return nil, s.unavailable(Failed, fmt.Errorf("find a folder for its lock: %w", err))
		}
		path = filepath.Join(dir, "o365pw", "keychain.lock")
	}
	limited, cancel := context.WithTimeout(ctx, lockTimeouts*s.timeout())
	defer cancel()
	unlockFile, err := durable.Lock(limited, path)
	if err != nil {
		s.writing.release()
		switch {
		case ctx.Err() != nil:
			return nil, err
		case limited.Err() != nil:
			return nil, s.unavailable(Timeout, err)
		}
		return nil, s.unavailable(Failed, err)
	}
	return func() {
		unlockFile()
		s.writing.release()
	}, nil
}

// get, put and drop ask the keychain about one item. Get and drop return
// ErrNotFound, all *UnavailableError and the error of ctx.
func (s *System) get(ctx context.Context, key string) (string, error) {
	return s.call(ctx, func(st store) (string, error) { return st.Get(s.service(), key) })
}

func (s *System) put(ctx context.Context, key, value string) error {
	_, err := s.call(ctx, func(st store) (string, error) { return "", st.Set(s.service(), key, value) })
	return err
}

func (s *System) drop(ctx context.Context, key string) error {
	_, err := s.call(ctx, func(st store) (string, error) { return "", st.Delete(s.service(), key) })
	return err
}

// call runs ask in a goroutine of its own, since go-keyring knows no context
// and may wait for a person. When that takes too long the goroutine is left
// behind, with the gate still in its hands.
func (s *System) call(ctx context.Context, ask func(store) (string, error)) (string, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	late := func(what string) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.unavailable(Timeout, fmt.Errorf("%s after %v", what, s.timeout()))
	}
	if err := s.calling.acquire(limited); err != nil {
		return "", late("an earlier call still has no answer")
	}
	var st store = goKeyring{}
	if s.store != nil {
		st = s.store
	}
	type answer struct {
		value string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		defer s.calling.release()
		var a answer
		defer func() {
			// go-keyring dereferences a nil signal when the bus goes away
			// under a prompt.
			if p := recover(); p != nil {
				a = answer{err: fmt.Errorf("go-keyring: %v", p)}
			}
			answered <- a
		}()
		a.value, a.err = ask(st)
	}()
	select {
	case a := <-answered:
		return a.value, s.translate(a.err)
	case <-limited.Done():
		return "", late("no answer")
	}
}

func (s *System) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return s.unavailable(TooBig, err)
	case errors.Is(err, keyring.ErrUnsupportedPlatform):
		return s.unavailable(Unsupported, err)
	}
	return s.unavailable(reasonOf(err), err)
}

func (s *System) unavailable(r Reason, err error) error {
	return &UnavailableError{Keychain: s.String(), Reason: r, Err: err}
}
