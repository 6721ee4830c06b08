package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"filippo.io/age"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// TestMain lets the test binary be the other process of a test.
func TestMain(m *testing.M) {
	if path := os.Getenv("SECRET_TEST_SET"); path != "" {
		f := newFile(path, "passphrase")
		for i := 0; ; i++ {
			if err := f.Set(context.Background(), os.Getenv("SECRET_TEST_KEY"), New(fmt.Sprint("value ", i))); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			if os.Getenv("SECRET_TEST_FOREVER") == "" && i == 9 {
				os.Exit(0)
			}
			if i == 0 {
				fmt.Println("set")
			}
		}
	}
	os.Exit(m.Run())
}

func always(passphrase string) func(context.Context, bool) (Text, error) {
	return func(context.Context, bool) (Text, error) { return New(passphrase), nil }
}

func newFile(path, passphrase string) *File {
	return &File{Path: path, Passphrase: always(passphrase), WorkFactor: 2}
}

func tempFile(t *testing.T) *File {
	return newFile(filepath.Join(t.TempDir(), "new", "keychain.age"), "passphrase")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func checkValueIs(t *testing.T, k Keychain, key, want string) {
	t.Helper()
	if got, err := k.Get(t.Context(), key); err != nil || got.Reveal() != want {
		t.Errorf("Get(%q) = %q, %v, want %q", key, got.Reveal(), err, want)
	}
}

func TestFile(t *testing.T) {
	f := tempFile(t)
	testKeychain(t, f)
	must(t, f.Set(t.Context(), "key", New("hunter2")))
	data, err := os.ReadFile(f.Path)
	must(t, err)
	for _, leak := range []string{"hunter2", "passphrase", "AGE-SECRET", "\"key\""} {
		if strings.Contains(string(data), leak) {
			t.Errorf("the file holds %s:\n%s", leak, data)
		}
	}
	checkValueIs(t, newFile(f.Path, "passphrase"), "key", "hunter2")
}

// The file is what its comment says, and opens with age alone.
func TestFileFormat(t *testing.T) {
	f := tempFile(t)
	must(t, f.Set(t.Context(), "key", New("value")))
	data, err := os.ReadFile(f.Path)
	must(t, err)
	var e map[string]any
	must(t, json.Unmarshal(data, &e))
	if len(e) != 3 || e["version"] != 1.0 {
		t.Fatalf("envelope: %v", e)
	}
	scrypt, err := age.NewScryptIdentity("passphrase")
	must(t, err)
	identityText, err := unseal(e["identity"].(string), scrypt)
	must(t, err)
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(identityText)))
	must(t, err)
	items, err := unseal(e["items"].(string), identity)
	must(t, err)
	if string(items) != `{"key":"value"}` {
		t.Errorf("items: %s", items)
	}
}

func TestFileAsksOnce(t *testing.T) {
	f := tempFile(t)
	var asked []bool
	f.Passphrase = func(_ context.Context, create bool) (Text, error) {
		asked = append(asked, create)
		return New("passphrase"), nil
	}
	ctx := t.Context()
	if _, err := f.Get(ctx, "key"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := f.Delete(ctx, "key"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(f.Path)); len(asked) != 0 || err == nil {
		t.Errorf("reading nothing asked %d times, or made the folder", len(asked))
	}
	for i := range 5 {
		must(t, f.Set(ctx, fmt.Sprint("key", i), New("value")))
		checkValueIs(t, f, "key0", "value")
	}
	if len(asked) != 1 || !asked[0] {
		t.Errorf("making it asked: %v", asked)
	}
	asked = nil
	again := &File{Path: f.Path, Passphrase: f.Passphrase}
	for range 3 {
		checkValueIs(t, again, "key0", "value")
		must(t, again.Set(ctx, "key", New("value")))
	}
	if len(asked) != 1 || asked[0] {
		t.Errorf("opening it asked: %v", asked)
	}
	// Other processes change it, and make it anew with the same passphrase.
	must(t, newFile(f.Path, "passphrase").Set(ctx, "key", New("theirs")))
	checkValueIs(t, again, "key", "theirs")
	must(t, os.Remove(f.Path))
	must(t, newFile(f.Path, "passphrase").Set(ctx, "key", New("anew")))
	checkValueIs(t, again, "key", "anew")
	if len(asked) != 1 {
		t.Errorf("after changes of others asked: %v", asked)
	}
	// With another passphrase it has to ask.
	must(t, os.Remove(f.Path))
	must(t, newFile(f.Path, "other").Set(ctx, "key", New("other")))
	again.Passphrase = always("other")
	checkValueIs(t, again, "key", "other")
	must(t, again.Set(ctx, "key", New("mine")))
	checkValueIs(t, newFile(f.Path, "other"), "key", "mine")
}

func TestFilePassphrases(t *testing.T) {
	f := tempFile(t)
	ctx := t.Context()
	cause := errors.New("no terminal")
	for _, test := range []struct {
		name string
		ask  func(context.Context, bool) (Text, error)
		want Reason
	}{
		{"none", nil, NoPassphrase},
		{"empty", always(""), NoPassphrase},
		{"error", func(context.Context, bool) (Text, error) { return Text{}, cause }, NoPassphrase},
		{"wrong", always("wrong secret"), WrongPassphrase},
		{"nearly right", always("passphrase "), WrongPassphrase},
	} {
		t.Run(test.name, func(t *testing.T) {
			must(t, f.Set(ctx, "key", New("value")))
			bad := &File{Path: f.Path, Passphrase: test.ask, WorkFactor: 2}
			before, err := os.ReadFile(f.Path)
			must(t, err)
			value, err := bad.Get(ctx, "key")
			for op, err := range map[string]error{"Get": err, "Set": bad.Set(ctx, "key", New("x")), "Delete": bad.Delete(ctx, "key")} {
				if reason(err) != test.want || !strings.Contains(err.Error(), f.Path) || strings.Contains(err.Error(), "wrong secret") {
					t.Errorf("%s: %v", op, err)
				}
				if test.name == "error" && !errors.Is(err, cause) {
					t.Errorf("%s: %v does not wrap the cause", op, err)
				}
			}
			if after, err := os.ReadFile(f.Path); err != nil || string(after) != string(before) || !value.IsZero() {
				t.Error("the file was changed, or read")
			}
			if test.want == NoPassphrase {
				bad.Path = filepath.Join(t.TempDir(), "new")
				if err := bad.Set(ctx, "key", New("x")); reason(err) != NoPassphrase {
					t.Errorf("making a file: %v", err)
				}
				if _, err := os.Stat(bad.Path); err == nil {
					t.Error("a file was made without a passphrase")
				}
			}
			bad.Passphrase, bad.Path = always("passphrase"), f.Path
			checkValueIs(t, bad, "key", "value")
		})
	}
	for _, factor := range []int{-1, maxWorkFactor + 1} {
		if err := (&File{Path: filepath.Join(t.TempDir(), "f"), Passphrase: always("x"), WorkFactor: factor}).Set(ctx, "k", New("v")); err == nil {
			t.Errorf("work factor %d was taken", factor)
		}
	}
}

// A wrong passphrase that stays the same costs its time once.
func TestFileKnowsWrongPassphrase(t *testing.T) {
	f := tempFile(t)
	must(t, f.Set(t.Context(), "key", New("value")))
	bad := newFile(f.Path, "wrong")
	for range 2 {
		if _, err := bad.Get(t.Context(), "key"); reason(err) != WrongPassphrase {
			t.Error(err)
		}
	}
	if err := bad.try(bad.wrongBlock, New("wrong")); err != errPassphrase {
		t.Errorf("try: %v, want errPassphrase as it is", err)
	}
	must(t, os.Remove(f.Path))
	must(t, newFile(f.Path, "wrong").Set(t.Context(), "key", New("right now")))
	checkValueIs(t, bad, "key", "right now")
}

func TestFileConcurrently(t *testing.T) {
	f := tempFile(t)
	var asked atomic.Int32
	f.Passphrase = func(context.Context, bool) (Text, error) { asked.Add(1); return New("passphrase"), nil }
	others := []*File{newFile(f.Path, "passphrase"), newFile(f.Path, "passphrase")}
	var all sync.WaitGroup
	for i := range 4 {
		for n, k := range append(others, f) {
			all.Go(func() {
				key := fmt.Sprint(n, i)
				for j := range 5 {
					value := fmt.Sprint("value ", j)
					if err := k.Set(t.Context(), key, New(value)); err != nil {
						t.Error(err)
					}
					checkValueIs(t, k, key, value)
				}
			})
		}
	}
	// Two other processes beside them.
	for i := range 2 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SECRET_TEST_SET="+f.Path, fmt.Sprint("SECRET_TEST_KEY=child", i))
		all.Go(func() {
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	_, items, err := f.load(t.Context())
	if err != nil || len(items) != 14 || items["child0"] != "value 9" || items["child1"] != "value 9" {
		t.Errorf("at the end %d items, %v", len(items), err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked for the passphrase %d times", n)
	}
}

// A process that is killed while it writes loses nothing.
func TestFileWriterKilled(t *testing.T) {
	f := tempFile(t)
	must(t, f.Set(t.Context(), "mine", New("value")))
	for range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SECRET_TEST_SET="+f.Path, "SECRET_TEST_KEY=theirs", "SECRET_TEST_FOREVER=1")
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		line := make([]byte, 4)
		if _, err := out.Read(line); err != nil || string(line) != "set\n" {
			t.Errorf("the child says %q, %v", line, err)
		}
		must(t, child.Process.Kill())
		_ = child.Wait()
		checkValueIs(t, f, "mine", "value")
		must(t, f.Set(t.Context(), "theirs", New("mine now")))
	}
}

// Whoever waits for another to type a passphrase honours its context.
func TestFileWaitsWithContext(t *testing.T) {
	f := tempFile(t)
	must(t, f.Set(t.Context(), "key", New("value")))
	synctest.Test(t, func(t *testing.T) {
		typed := make(chan struct{})
		f := &File{Path: f.Path, Passphrase: func(ctx context.Context, _ bool) (Text, error) {
			select {
			case <-typed:
				return New("passphrase"), nil
			case <-ctx.Done():
				return Text{}, errors.New("interrupted")
			}
		}}
		var all sync.WaitGroup
		all.Go(func() { checkValueIs(t, f, "key", "value") })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := f.Get(ctx, "key"); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who waits: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(typed)
		all.Wait()

		// And so does the one who asks.
		asking := &File{Path: f.Path, Passphrase: func(ctx context.Context, _ bool) (Text, error) {
			<-ctx.Done()
			return Text{}, errors.New("interrupted")
		}}
		ctx, cancel = context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := asking.Get(ctx, "key"); !errors.Is(err, context.Canceled) || reason(err) != "" {
				t.Errorf("the one who asks: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		all.Wait()
	})
}

// While another process holds the lock a write waits, and a read does not.
func TestFileLocked(t *testing.T) {
	f := tempFile(t)
	must(t, f.Set(t.Context(), "key", New("value")))
	unlock, err := durable.Lock(t.Context(), f.Path+".lock")
	must(t, err)
	checkValueIs(t, f, "key", "value")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Set(ctx, "key", New("late")) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || reason(err) != "" {
		t.Errorf("Set: %v", err)
	}
	unlock()
	checkValueIs(t, f, "key", "value")
}
