package cli

import (
	"fmt"
	"os"
	"testing"

	"github.com/o365pw/o365pw/pkg/secret"
)

// TestPassedOn: whoever opens several keychains asks for the passphrase again,
// and nobody else may read it.
func TestPassedOn(t *testing.T) {
	f, err := passedOn(secret.New("opensesame"), os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := fmt.Sprintf("/dev/fd/%d", f.Fd())
	for range 2 {
		if b, err := os.ReadFile(path); err != nil || string(b) != "opensesame" {
			t.Errorf("%q %v", b, err)
		}
	}
	if others, err := readableByOthers(path); err != nil || others {
		t.Errorf("others can read it: %v %v", others, err)
	}
}
