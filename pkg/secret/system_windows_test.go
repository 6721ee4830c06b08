//go:build integration

package secret

import (
	"errors"
	"strings"
	"testing"
)

// TestIntegrationCredentialManager runs against the real Credential Manager of
// Windows, or against Wine's.
func TestIntegrationCredentialManager(t *testing.T) {
	testKeychain(t, &System{Service: "o365pw-test"})

	// Longer than an item can be there: in parts.
	s := &System{Service: "o365pw-parts"}
	value := strings.Repeat("0123456789", 1024)
	must(t, s.Set(t.Context(), "long", New(value)))
	checkValueIs(t, s, "long", value)
	for _, part := range []string{"long#a0", "long#a3"} {
		if _, err := s.get(t.Context(), part); err != nil {
			t.Errorf("the part %s: %v", part, err)
		}
	}
	if _, err := (&System{Service: "o365pw-test"}).Get(t.Context(), "long"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another service has it, too: %v", err)
	}
	must(t, s.Delete(t.Context(), "long"))
	for _, item := range []string{"long", "long#a0", "long#a3"} {
		if _, err := s.get(t.Context(), item); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s is left: %v", item, err)
		}
	}
}
