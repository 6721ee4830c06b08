package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumented holds docs/operations.md to an example that can be read, with
// every key there is.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```toml\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("no example in TOML")
	}
	cfg, err := parse("/etc/o365pw/config.toml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]bool{}
	for joined := range cfg.lines {
		here[pattern(strings.Split(joined, separator))] = true
	}
	for key := range keys {
		if !here[key] {
			t.Errorf("%s is not in the example", key)
		}
	}
	// What the example calls a default must be one.
	def := DefaultGateway()
	if cfg.Gateway.IMAP != def.IMAP || cfg.Gateway.POP3 != def.POP3 || cfg.Gateway.SMTP != def.SMTP || cfg.Gateway.Revalidate != def.Revalidate {
		t.Errorf("%+v, while the defaults are %+v", cfg.Gateway, def)
	}
	// Hooks are told of in a table as well.
	for key := range keys {
		if name, ok := strings.CutPrefix(key, "hooks."); ok && !regexp.MustCompile("(?m)^\\| `"+name+"` ").Match(b) {
			t.Errorf("%s is not in the table of hooks", name)
		}
	}
}
