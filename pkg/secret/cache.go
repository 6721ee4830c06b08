package secret

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Cache keeps secrets that are good for an hour or so, access tokens for instance,
// where another process reads them back within milliseconds. It is never needed:
// what cannot be kept is not kept, and nobody is told. A value is found until it
// ends, or until the machine or the keychain loses it.
//
// Beside a [System] keychain values are items of it. A [File] takes a tenth of a
// second to open, by design. Beside it values are kept by Linux' kernel in the
// user's keyring (user-keyring(7)), which no other user reads, no disk holds, and
// which forgets each when it ends. They are encrypted there, under a key made of
// the passphrase: a program of the same user that does not have it reads nothing,
// unless the passphrase can be guessed. For guessing it a value is cheaper than
// the file, so nothing is kept where a person types the passphrase. On other
// systems, and where the kernel refuses (containers do that), there is no cache
// beside a File.
type Cache struct {
	Keychain Keychain
	// Passphrase of a File, where a program has it at hand without asking a
	// person; else, and with an empty one, nothing is kept.
	Passphrase func() (Text, error)
}

// Get returns the value kept under key.
func (c Cache) Get(ctx context.Context, key string) (Text, bool) {
	f, ok := c.Keychain.(*File)
	if !ok {
		t, err := c.Keychain.Get(ctx, key)
		return t, err == nil
	}
	passphrase, ok := c.passphrase()
	if !ok {
		return Text{}, false
	}
	sealed, err := kernelGet(kernelName(f, key))
	if err != nil || len(sealed) < cacheSalt {
		return Text{}, false
	}
	aead, err := cacheCipher(passphrase, sealed[:cacheSalt])
	if err != nil {
		return Text{}, false
	}
	plain, err := aead.Open(nil, nil, sealed[cacheSalt:], []byte(kernelName(f, key)))
	return New(string(plain)), err == nil
}

// Set keeps value under key for so long, in whole seconds and at least one.
func (c Cache) Set(ctx context.Context, key string, value Text, life time.Duration) {
	f, ok := c.Keychain.(*File)
	if !ok {
		_ = c.Keychain.Set(ctx, key, value)
		return
	}
	passphrase, ok := c.passphrase()
	if !ok {
		return
	}
	salt := make([]byte, cacheSalt)
	_, _ = rand.Read(salt) // never fails
	aead, err := cacheCipher(passphrase, salt)
	if err != nil {
		return
	}
	name := kernelName(f, key)
	_ = kernelSet(name, aead.Seal(salt, nil, []byte(value.Reveal()), []byte(name)), max(life, time.Second))
}

// cacheSalt is the length of what makes each value's key its own.
const cacheSalt = 16

func (c Cache) passphrase() (Text, bool) {
	if c.Passphrase == nil {
		return Text{}, false
	}
	p, err := c.Passphrase()
	return p, err == nil && !p.IsZero()
}

// cacheCipher is AES-256-GCM with random nonces (NIST SP 800-38D) under a key that
// HKDF (RFC 5869) makes of the passphrase. A slow derivation would cost what the
// cache is there to save.
func cacheCipher(passphrase Text, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(passphrase.Reveal()), salt, "o365pw cache", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// kernelName is how a value is called in the kernel's keyring, which tells the
// user's other programs no more than that it is this program's.
func kernelName(f *File, key string) string {
	sum := sha256.Sum256([]byte(f.Path + "\x00" + key))
	return "o365pw:" + hex.EncodeToString(sum[:16])
}
