package secret

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

func TestFileDamaged(t *testing.T) {
	good := tempFile(t)
	must(t, good.Set(t.Context(), "key", New("value")))
	data, err := os.ReadFile(good.Path)
	must(t, err)
	stranger := tempFile(t)
	must(t, stranger.Set(t.Context(), "key", New("planted")))
	strangerData, err := os.ReadFile(stranger.Path)
	must(t, err)
	e, err := decodeEnvelope(data)
	must(t, err)
	other, err := decodeEnvelope(strangerData)
	must(t, err)
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	notScrypt, err := seal([]byte(identity.String()), identity.Recipient())
	must(t, err)
	scrypt, err := age.NewScryptRecipient("passphrase")
	must(t, err)
	scrypt.SetWorkFactor(2)
	notIdentity, err := seal([]byte("hello"), scrypt)
	must(t, err)
	own := good.identity
	notItems := func(s string) string { block, err := seal([]byte(s), own.Recipient()); must(t, err); return block }
	encode := func(e envelope) string { b, err := e.encode(); must(t, err); return string(b) }
	for name, content := range map[string]string{
		"empty":                  "",
		"garbage":                "garbage\x00\xff",
		"null":                   "null",
		"array":                  "[]",
		"no fields":              "{}",
		"no items":               encode(envelope{1, e.Identity, ""}),
		"version 0":              encode(envelope{0, e.Identity, e.Items}),
		"unknown field":          strings.Replace(string(data), "{", `{"x":1,`, 1),
		"twice":                  string(data) + string(data),
		"something after it":     string(data) + "x",
		"first half":             string(data[:len(data)/2]),
		"last byte but two gone": string(data[:len(data)-3]),
		"items of another":       encode(envelope{1, e.Identity, other.Items}),
		"items cut":              encode(envelope{1, e.Identity, e.Items[:len(e.Items)/2]}),
		"items changed":          encode(envelope{1, e.Identity, strings.Replace(e.Items, "\nY", "\nZ", 1)}),
		"items no JSON":          encode(envelope{1, e.Identity, notItems("value")}),
		"items null":             encode(envelope{1, e.Identity, notItems("null")}),
		"items of numbers":       encode(envelope{1, e.Identity, notItems(`{"key":1}`)}),
		"identity cut":           encode(envelope{1, e.Identity[:len(e.Identity)/2], e.Items}),
		"identity no scrypt":     encode(envelope{1, notScrypt, e.Items}),
		"identity no identity":   encode(envelope{1, notIdentity, e.Items}),
		"identity no age":        encode(envelope{1, "x", e.Items}),
		"too much":               strings.Repeat(" ", maxFile+1),
	} {
		t.Run(name, func(t *testing.T) {
			f := tempFile(t)
			must(t, durable.WriteFile(f.Path, []byte(content)))
			value, err := f.Get(t.Context(), "key")
			for op, err := range map[string]error{"Get": err, "Set": f.Set(t.Context(), "key", New("new")), "Delete": f.Delete(t.Context(), "key")} {
				if reason(err) != Damaged || !strings.Contains(err.Error(), f.Path) || !strings.Contains(err.Error(), "backup") {
					t.Errorf("%s: %v", op, err)
				}
			}
			if !value.IsZero() {
				t.Errorf("a value was read: %q", value.Reveal())
			}
			if after, err := os.ReadFile(f.Path); err != nil || string(after) != content {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
	t.Run("newer", func(t *testing.T) {
		f := tempFile(t)
		must(t, durable.WriteFile(f.Path, []byte(`{"version":2,"vault":"x"}`)))
		if err := f.Set(t.Context(), "key", New("new")); reason(err) != Unsupported {
			t.Error(err)
		}
	})
}

func TestFileNotReadable(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600))
	must(t, os.Symlink("nothing", filepath.Join(dir, "link")))
	for _, name := range []string{"folder", "plain/below", "link", "nul\x00"} {
		f := newFile(filepath.Join(dir, name), "passphrase")
		_, err := f.Get(t.Context(), "key")
		for op, err := range map[string]error{"Get": err, "Set": f.Set(t.Context(), "key", New("x")), "Delete": f.Delete(t.Context(), "key")} {
			if reason(err) != Failed {
				t.Errorf("%s with %q: %v", op, name, err)
			}
		}
	}
	if _, err := (&File{}).Get(t.Context(), "key"); reason(err) != Failed {
		t.Errorf("without a path: %v", err)
	}
	// A link to a file is followed, and stays a link.
	f := newFile(filepath.Join(dir, "real"), "passphrase")
	must(t, f.Set(t.Context(), "key", New("value")))
	must(t, os.Symlink("real", filepath.Join(dir, "alias")))
	must(t, newFile(filepath.Join(dir, "alias"), "passphrase").Set(t.Context(), "key", New("by link")))
	checkValueIs(t, f, "key", "by link")
}

func TestFileMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // has no such modes
	}
	f := tempFile(t)
	must(t, f.Set(t.Context(), "key", New("value")))
	for _, mode := range []os.FileMode{0o600, 0o644, 0o666, 0o640, 0o400} {
		must(t, os.Chmod(f.Path, mode))
		checkValueIs(t, f, "key", "value")
		if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != mode&0o700 {
			t.Errorf("mode %04o became %v, %v", mode, info.Mode(), err)
		}
	}
	must(t, f.Set(t.Context(), "key", New("value")))
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("written with mode %v, %v", info.Mode(), err)
	}
}

// A file never opens with the wrong passphrase, nor gives anything with the
// right one but what was put in.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	file := newFile(filepath.Join(dir, "keychain.age"), "passphrase")
	if err := file.Set(context.Background(), "key", New("value")); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(file.Path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-10])
	f.Add([]byte(`{"version":1,"identity":"x","items":"x"}`))
	f.Add([]byte(`{"version":9}`))
	f.Add([]byte("null"))
	f.Add([]byte(strings.Replace(string(data), "1", "2", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEnvelope(data)
		if err != nil {
			return
		}
		if _, err := openIdentity(e.Identity, New("wrong")); err == nil {
			t.Fatal("opened with the wrong passphrase")
		}
		identity, err := openIdentity(e.Identity, New("passphrase"))
		if err != nil {
			return
		}
		if items, err := openItems(e.Items, identity); err == nil && (len(items) != 1 || items["key"] != "value") {
			t.Errorf("a changed file gives %q", items)
		}
	})
}

// With 100 app passwords in it.
func BenchmarkFile(b *testing.B) {
	f := newFile(filepath.Join(b.TempDir(), "keychain.age"), "passphrase")
	value := New(strings.Repeat("x", 200))
	for i := range 100 {
		if err := f.Set(b.Context(), fmt.Sprint("key", i), value); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Get", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.Get(b.Context(), "key50"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Set", func(b *testing.B) {
		for b.Loop() {
			if err := f.Set(b.Context(), "key50", value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Unlock", func(b *testing.B) { // at the default work factor
		block, err := sealIdentity(f.identity, New("passphrase"), defaultWorkFactor)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := openIdentity(block, New("passphrase")); err != nil {
				b.Fatal(err)
			}
		}
	})
}
