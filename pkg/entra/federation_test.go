package entra

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestFederatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	assertion := FederatedFile(path)
	tests := []struct {
		name, content string
		want          string // the assertion, or the error
	}{
		{"one", "aaa.bb-b.c_c", "aaa.bb-b.c_c"},
		{"replaced", "ddd.eee.fff\n", "ddd.eee.fff"},
		{"blanks and byte order mark", "\ufeff \r\naaa.bbb.ccc\r\n\r\n", "aaa.bbb.ccc"},
		{"empty", " \n", "empty"},
		{"two", "aaa.bbb.ccc\nddd.eee.fff\n", "one JWT"},
		{"JSON", `{"value":"hunter2"}`, "one JWT"},
		{"too few parts", "hunter2.bbb", "one JWT"},
		{"no signature", "hunter2.bbb.", "one JWT"},
		{"too large", strings.Repeat("a", 1<<20) + ".bbb.ccc", "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := assertion(t.Context(), testClient, "x")
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got error %q, want %q", err, tt.want)
				}
			} else if got.Reveal() != tt.want {
				t.Errorf("got %q, want %q", got.Reveal(), tt.want)
			}
		})
	}
	for name, path := range map[string]string{"missing": path + "-not", "a folder": filepath.Dir(path)} {
		if _, err := FederatedFile(path)(t.Context(), testClient, "x"); err == nil || strings.Count(err.Error(), path) != 1 ||
			errors.Is(err, fs.ErrNotExist) != (name == "missing") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFederatedToken(t *testing.T) {
	for text, want := range map[string]string{
		"aaa.bb-b.c_c":                "aaa.bb-b.c_c",
		" aaa.bbb.ccc\r\n":            "aaa.bbb.ccc",
		"":                            "error: empty",
		"  ":                          "error: empty",
		"hunter2":                     "error: one JWT",
		"hunter2.bbb.ccc aaa.bbb.ccc": "error: one JWT",
		"hunter2" + strings.Repeat("a", 1<<17) + ".b.c": "error: one JWT",
	} {
		got, err := FederatedToken(secret.New(text))(t.Context(), testClient, "x")
		said := got.Reveal()
		if err != nil {
			said = err.Error()
		}
		if part, failed := strings.CutPrefix(want, "error: "); failed != (err != nil) || !strings.Contains(said, part) || strings.Contains(said, "hunter2") {
			t.Errorf("%.40q: got %.80q, want %q", text, said, want)
		}
	}
}
