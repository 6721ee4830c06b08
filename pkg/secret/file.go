package secret

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"filippo.io/age"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

const (
	// defaultWorkFactor is log2 of scrypt's N (r=8, p=1): 2^17 is what the
	// OWASP password storage cheat sheet asks for, takes 128 MiB and about
	// 0.4 s once per process, and makes a stranger who took the file pay as
	// much for each guess at a passphrase that a human made up.
	defaultWorkFactor = 17
	// maxWorkFactor bounds what a file can demand: 2^20 is 1 GiB and 3 s.
	maxWorkFactor = 20
	// maxFile bounds the file, of which each read takes all.
	maxFile = 16 << 20
)

// File is a keychain in one file that is encrypted with a passphrase, for
// machines without a system keychain. The file is age's, in a JSON envelope,
// and can be opened by hand with the age command:
//
//	{"version": 1, "identity": "<age, armored>", "items": "<age, armored>"}
//
// Identity is an age X25519 identity, encrypted to the passphrase with scrypt;
// items is a JSON object of all keys and values, encrypted to that identity.
// So the passphrase costs its time once per process, and a write nothing.
//
// The file has mode 0600: one found with more is tightened, and refused where
// that is not possible. It is read anew for each call, and written whole
// under a lock (Path with ".lock" appended) that holds between processes. A
// file that cannot be read and understood is never written to.
//
// A File must not be copied after its first use.
type File struct {
	// Path is where the file is, or is made by the first Set.
	Path string
	// Passphrase returns the passphrase, or an error or nothing where there
	// is none. It is called when the file is opened first, and again only
	// when the one it gave is wrong; create says that the file is about to
	// be made, so that a person may be asked twice. It is not called by
	// Get and Delete where there is no file. Calls do not overlap.
	Passphrase func(ctx context.Context, create bool) (Text, error)
	// WorkFactor is log2 of scrypt's N for a file that is made, 1 to 20;
	// zero means 17. An existing file keeps its own.
	WorkFactor int

	using gate // guards what follows, and Passphrase

	block      string              // the identity of the file that was opened
	identity   *age.X25519Identity // what is in block; nil before
	passphrase Text                // opens block

	wrongBlock string // does not open with wrong: not worth the time again
	wrong      Text
}

var _ Keychain = (*File)(nil)

// String returns "encrypted file" and the path.
func (f *File) String() string { return "encrypted file " + f.Path }

// Get returns the value kept under key.
func (f *File) Get(ctx context.Context, key string) (Text, error) {
	if err := checkKey(key); err != nil {
		return Text{}, err
	}
	if err := f.using.acquire(ctx); err != nil {
		return Text{}, fmt.Errorf("get %q: %w", key, err)
	}
	defer f.using.release()
	_, items, err := f.load(ctx)
	if err != nil && !errors.Is(err, errNoFile) {
		return Text{}, fmt.Errorf("get %q: %w", key, err)
	}
	value, ok := items[key]
	if !ok {
		return Text{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	return New(value), nil
}

// Set keeps value under key, and makes the file where there is none.
func (f *File) Set(ctx context.Context, key string, value Text) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(f.String(), key, value); err != nil {
		return err
	}
	err := f.change(ctx, true, func(items map[string]string) error {
		items[key] = value.Reveal()
		return nil
	})
	if err != nil {
		return fmt.Errorf("set %q: %w", key, err)
	}
	return nil
}

// Delete removes what is kept under key.
func (f *File) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	err := f.change(ctx, false, func(items map[string]string) error {
		if _, ok := items[key]; !ok {
			return ErrNotFound
		}
		delete(items, key)
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	return nil
}

// change reads the items, lets edit work on them and writes them back, with
// all other writers kept out. Where there is no file it makes one if create is
// set, and returns ErrNotFound otherwise.
func (f *File) change(ctx context.Context, create bool, edit func(items map[string]string) error) error {
	if err := f.using.acquire(ctx); err != nil {
		return err
	}
	defer f.using.release()
	// Opened once before the lock is taken: a person who is asked for the
	// passphrase keeps no other process waiting.
	_, _, err := f.load(ctx)
	if errors.Is(err, errNoFile) && !create {
		return ErrNotFound
	}
	if err != nil && !errors.Is(err, errNoFile) {
		return err
	}
	unlock, err := durable.Lock(ctx, f.Path+".lock")
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		return f.unavailable(Failed, err)
	}
	defer unlock()
	e, items, err := f.load(ctx)
	identity, passphrase := f.identity, f.passphrase
	if errors.Is(err, errNoFile) {
		if !create {
			return ErrNotFound
		}
		items = map[string]string{}
		e, identity, passphrase, err = f.create(ctx)
	}
	if err != nil {
		return err
	}
	if err := edit(items); err != nil {
		return err
	}
	if e.Items, err = sealItems(items, identity); err != nil {
		return f.unavailable(Failed, err)
	}
	data, err := e.encode()
	if err != nil {
		return f.unavailable(Failed, err)
	}
	if len(data) > maxFile {
		return f.unavailable(TooBig, fmt.Errorf("the file would have %d bytes, at most %d are read", len(data), maxFile))
	}
	if err := durable.WriteFile(f.Path, data); err != nil {
		return f.unavailable(Failed, err)
	}
	f.block, f.identity, f.passphrase = e.Identity, identity, passphrase
	return nil
}

// create makes the identity of a new file, with a passphrase asked for now.
func (f *File) create(ctx context.Context) (envelope, *age.X25519Identity, Text, error) {
	workFactor := f.WorkFactor
	if workFactor == 0 {
		workFactor = defaultWorkFactor
	}
	if workFactor < 1 || workFactor > maxWorkFactor {
		return envelope{}, nil, Text{}, fmt.Errorf("scrypt work factor %d is not between 1 and %d", workFactor, maxWorkFactor)
	}
	passphrase, err := f.ask(ctx, true)
	if err != nil {
		return envelope{}, nil, Text{}, err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return envelope{}, nil, Text{}, f.unavailable(Failed, err)
	}
	block, err := sealIdentity(identity, passphrase, workFactor)
	if err != nil {
		return envelope{}, nil, Text{}, f.unavailable(Failed, err)
	}
	return envelope{Version: envelopeVersion, Identity: block}, identity, passphrase, nil
}

// errNoFile is returned by load where the file is yet to be made.
var errNoFile = errors.New("no file")

// load reads the file and opens it.
func (f *File) load(ctx context.Context) (envelope, map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return envelope{}, nil, err
	}
	data, err := f.read()
	if err != nil {
		return envelope{}, nil, err
	}
	e, err := decodeEnvelope(data)
	if err != nil {
		if errors.Is(err, errVersion) {
			return envelope{}, nil, f.unavailable(Unsupported, err)
		}
		return envelope{}, nil, f.damaged(err)
	}
	if err := f.open(ctx, e.Identity); err != nil {
		return envelope{}, nil, err
	}
	items, err := openItems(e.Items, f.identity)
	if err != nil {
		return envelope{}, nil, f.damaged(err)
	}
	return e, items, nil
}

// read returns what is in the file.
func (f *File) read() ([]byte, error) {
	if f.Path == "" {
		return nil, f.unavailable(Failed, errors.New("it has no path"))
	}
	// Looked at before it is opened, which a named pipe would make wait.
	info, err := os.Stat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		link, lerr := os.Lstat(f.Path)
		if lerr != nil {
			return nil, errNoFile
		}
		if link.Mode()&fs.ModeSymlink != 0 {
			return nil, f.unavailable(Failed, errors.New("it is a symbolic link to a file that is not there"))
		}
		info, err = link, nil // another process has made it in between
	}
	if err != nil {
		return nil, f.unavailable(Failed, err)
	}
	if !info.Mode().IsRegular() {
		return nil, f.unavailable(Failed, errors.New("it is not a regular file"))
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, f.unavailable(Failed, err)
	}
	defer file.Close()
	if err := tighten(file); err != nil {
		return nil, f.unavailable(Failed, err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, f.unavailable(Failed, err)
	}
	if len(data) > maxFile {
		return nil, f.damaged(fmt.Errorf("it has more than %d bytes", maxFile))
	}
	return data, nil
}

// tighten takes the file from everybody but its owner. The content is
// encrypted, so a file that a backup or an editor has opened up is mended
// rather than refused.
func tighten(file *os.File) error {
	if runtime.GOOS == "windows" {
		return nil // has no such bits; the folder is the user's own
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 {
		return nil
	}
	if err := file.Chmod(mode &^ 0o077); err != nil {
		return fmt.Errorf("others may read it (mode %04o) and that cannot be changed: %w", mode, err)
	}
	return nil
}

// open makes f.identity the one in block.
func (f *File) open(ctx context.Context, block string) error {
	if f.identity != nil && f.block == block {
		return nil
	}
	// Another process has made the file anew: with the same passphrase?
	if !f.passphrase.IsZero() {
		if err := f.try(block, f.passphrase); !errors.Is(err, errPassphrase) {
			return f.openError(err)
		}
	}
	passphrase, err := f.ask(ctx, false)
	if err != nil {
		return err
	}
	return f.openError(f.try(block, passphrase))
}

// try opens block with passphrase, unless that is known to be wrong.
func (f *File) try(block string, passphrase Text) error {
	if f.wrongBlock == block && f.wrong.Equal(passphrase) {
		return errPassphrase
	}
	identity, err := openIdentity(block, passphrase)
	if errors.Is(err, errPassphrase) {
		f.wrongBlock, f.wrong = block, passphrase
	}
	if err != nil {
		return err
	}
	f.block, f.identity, f.passphrase = block, identity, passphrase
	return nil
}

func (f *File) openError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errPassphrase):
		return f.unavailable(WrongPassphrase, nil)
	}
	return f.damaged(err)
}

// ask calls Passphrase.
func (f *File) ask(ctx context.Context, create bool) (Text, error) {
	if f.Passphrase == nil {
		return Text{}, f.unavailable(NoPassphrase, nil)
	}
	passphrase, err := f.Passphrase(ctx, create)
	switch {
	case ctx.Err() != nil:
		return Text{}, ctx.Err()
	case err != nil:
		return Text{}, f.unavailable(NoPassphrase, err)
	case passphrase.IsZero():
		return Text{}, f.unavailable(NoPassphrase, errors.New("it is empty"))
	}
	return passphrase, nil
}

func (f *File) unavailable(r Reason, err error) error {
	return &UnavailableError{Keychain: f.String(), Reason: r, Err: err}
}

func (f *File) damaged(err error) error {
	return f.unavailable(Damaged, fmt.Errorf("%w; nothing was changed, restore it from a backup or move it away to begin anew", err))
}
