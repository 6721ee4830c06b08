package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// moveIdentity is the keychain item of the key that opens what was exported to
// this machine.
const moveIdentity = "move-identity"

// maxSmall bounds files of recipients and identities.
const maxSmall = 1 << 20

// recipientJSON is what import --recipient prints with --output.
type recipientJSON struct {
	SchemaVersion int    `json:"schemaVersion"`
	Recipient     string `json:"recipient"`
}

func (a *app) runImportRecipient(ctx context.Context) error {
	l, err := a.land()
	if err != nil {
		return err
	}
	id, err := l.identity(ctx)
	if errors.Is(err, secret.ErrNotFound) {
		id, err = l.makeIdentity(ctx)
	}
	if err != nil {
		return err
	}
	v := recipientJSON{SchemaVersion: schemaVersion, Recipient: id.Recipient().String()}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"recipient"}, [][]string{{v.Recipient}})
	}
	return a.printf("%s\n", v.Recipient)
}

// identity is this machine's, from the keychain.
func (l landing) identity(ctx context.Context) (secret.Identity, error) {
	text, err := l.keychain.Get(ctx, moveIdentity)
	if err != nil {
		return secret.Identity{}, err
	}
	id, err := secret.ParseIdentity(text)
	if err != nil {
		return secret.Identity{}, fmt.Errorf("the keychain item %s: %w", moveIdentity, err)
	}
	return id, nil
}

// makeIdentity makes it, once: of two commands, the second takes the first one's.
func (l landing) makeIdentity(ctx context.Context) (secret.Identity, error) {
	unlock, err := durable.Lock(ctx, filepath.Join(l.stateDir, "import.lock"))
	if err != nil {
		return secret.Identity{}, err
	}
	defer unlock()
	if id, err := l.identity(ctx); !errors.Is(err, secret.ErrNotFound) {
		return id, err
	}
	id, err := secret.NewIdentity()
	if err != nil {
		return id, err
	}
	if err := l.keychain.Set(ctx, moveIdentity, id.Text()); err != nil {
		return id, fmt.Errorf("keep this machine's key: %w", err)
	}
	return id, nil
}

// identityFile reads a file of age-keygen.
func (a *app) identityFile(name string) (secret.Identity, error) {
	b, err := readSmall(name)
	if err != nil {
		return secret.Identity{}, &usageError{problem: "--identity: " + err.Error(), hint: "name the file that age-keygen -o has written"}
	}
	defer clear(b)
	if fi, err := os.Stat(name); err == nil && runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0 {
		a.warn("others can read the key in %s: chmod 600 %s", name, shellQuote(name))
	}
	id, err := secret.ParseIdentity(secret.New(string(b)))
	if err != nil {
		return id, &usageError{problem: "--identity " + name + ": " + err.Error(), hint: "name the file that age-keygen -o has written"}
	}
	return id, nil
}

// readSmall reads a small regular file whole.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	if info.Size() > maxSmall {
		return nil, fmt.Errorf("%s has more than %d kB", name, maxSmall>>10)
	}
	return os.ReadFile(name)
}
