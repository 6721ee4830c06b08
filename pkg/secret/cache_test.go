package secret

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func cacheOf(f *File, passphrase string) Cache {
	return Cache{Keychain: f, Passphrase: func() (Text, error) { return New(passphrase), nil }}
}

// kernelKeyring skips where the kernel keeps nothing for programs.
func kernelKeyring(t testing.TB) *File {
	t.Helper()
	f := &File{Path: filepath.Join(t.TempDir(), "keychain.age")}
	if err := kernelSet(kernelName(f, "probe"), []byte("x"), time.Second); err != nil {
		t.Skipf("the kernel keeps no keys here: %v", err)
	}
	return f
}

func TestCacheOfFile(t *testing.T) {
	f := kernelKeyring(t)
	token := New(strings.Repeat("eyJ0", 900))
	c := cacheOf(f, "correct horse")
	if _, ok := c.Get(t.Context(), "a"); ok {
		t.Fatal("found before it was kept")
	}
	c.Set(t.Context(), "a", New("first"), time.Minute)
	c.Set(t.Context(), "a", token, time.Minute)
	if got, ok := c.Get(t.Context(), "a"); !ok || !got.Equal(token) {
		t.Error("not found as it was kept last")
	}
	for name, other := range map[string]Cache{
		"another passphrase": cacheOf(f, "incorrect horse"),
		"no passphrase":      cacheOf(f, ""),
		"a person's":         {Keychain: f},
		"another file":       cacheOf(&File{Path: f.Path + "2"}, "correct horse"),
	} {
		if _, ok := other.Get(t.Context(), "a"); ok {
			t.Errorf("found with %s", name)
		}
	}
	sealed, err := kernelGet(kernelName(f, "a"))
	if err != nil || bytes.Contains(sealed, []byte("eyJ0eyJ0")) {
		t.Errorf("the kernel holds it in clear (%v)", err)
	}
	// Under another's name it is not taken for that one's.
	if err := kernelSet(kernelName(f, "b"), sealed, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(t.Context(), "b"); ok {
		t.Error("found under another key than it was kept under")
	}
	for _, n := range []int{0, 1, cacheSalt, cacheSalt + 5, len(sealed) - 1} {
		if err := kernelSet(kernelName(f, "a"), append(bytes.Clone(sealed[:n]), 0), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get(t.Context(), "a"); ok {
			t.Errorf("found when cut to %d bytes", n)
		}
	}
}

func TestCacheKeepsNothingUnasked(t *testing.T) {
	f := kernelKeyring(t)
	for _, c := range []Cache{{Keychain: f}, cacheOf(f, "")} {
		c.Set(t.Context(), "a", New("x"), time.Minute)
		if _, err := kernelGet(kernelName(f, "a")); err == nil {
			t.Error("kept without a passphrase")
		}
	}
	// More than the kernel takes of a user is not kept, and does no harm.
	c := cacheOf(f, "p")
	c.Set(t.Context(), "a", New(strings.Repeat("x", 40<<10)), time.Minute)
	if _, ok := c.Get(t.Context(), "a"); ok {
		t.Error("found what is larger than any token")
	}
}

// keychainOf is a keychain that is no File.
type keychainOf map[string]Text

func (k keychainOf) Get(_ context.Context, key string) (Text, error) {
	if t, ok := k[key]; ok {
		return t, nil
	}
	return Text{}, ErrNotFound
}
func (k keychainOf) Set(_ context.Context, key string, t Text) error { k[key] = t; return nil }
func (k keychainOf) Delete(context.Context, string) error            { return nil }
func (k keychainOf) String() string                                  { return "map" }

func TestCacheOfOthersIsTheKeychain(t *testing.T) {
	k := keychainOf{}
	c := Cache{Keychain: k}
	if _, ok := c.Get(t.Context(), "a"); ok {
		t.Error("found before it was kept")
	}
	c.Set(t.Context(), "a", New("x"), time.Minute)
	if got, ok := c.Get(t.Context(), "a"); !ok || !got.Equal(New("x")) || len(k) != 1 {
		t.Error("not found as it was kept")
	}
}

func BenchmarkCacheOfFile(b *testing.B) {
	f := kernelKeyring(b)
	c := cacheOf(f, "correct horse")
	c.Set(b.Context(), "a", New(strings.Repeat("eyJ0", 500)), time.Minute)
	for b.Loop() {
		if _, ok := c.Get(b.Context(), "a"); !ok {
			b.Fatal("not found")
		}
	}
}
