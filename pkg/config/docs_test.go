package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// TestCloudsDocumented holds docs/clouds.md to the built-in clouds: all that is
// in one is in the table below its heading, with a word on whether that is
// confirmed.
func TestCloudsDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "clouds.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| ([^|]+) \\| `([^`]+)` \\| (documented|unconfirmed)\\b[^|]*\\|$")
	for _, c := range builtin {
		_, section, ok := strings.Cut(string(b), "\n### `"+c.Name+"`")
		if !ok {
			t.Errorf("there is no heading for %s", c.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n##")
		got := map[string]string{}
		for _, m := range row.FindAllStringSubmatch(section, -1) {
			got[m[1]] = m[2]
		}
		at := func(e Endpoint) string { return fmt.Sprintf("%s:%d", e.Host, e.Port) }
		want := map[string]string{
			"sign-in": c.Authority, "Graph": c.Graph, "Graph's resource": c.GraphResource, "IMAP": at(c.IMAP), "POP3": at(c.POP3), "SMTP, STARTTLS": at(c.SMTP),
			"Exchange's resource for applications": c.ExchangeResource, "Exchange's resource for persons": c.ExchangeDelegated,
			"Entra admin center": c.Portal, "Exchange PowerShell": c.ExchangeEnvironment,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", c.Name, d)
		}
		if c.IMAP.Security != "tls" || c.POP3.Security != "tls" || c.SMTP.Security != "starttls" {
			t.Errorf("%s: the table says nothing of %+v", c.Name, c)
		}
	}
	// Examples of clouds of one's own can be read.
	for part := range strings.SplitSeq(string(b), "```toml\n") {
		example, _, ok := strings.Cut(part, "```\n")
		if !ok || !strings.HasPrefix(example, "[") {
			continue
		}
		if _, err := parse("/etc/o365pw/config.toml", []byte(example)); err != nil {
			t.Error(err)
		}
	}
}
