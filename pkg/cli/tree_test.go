package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestEveryCommandIsDocumented holds each command to a short and a long help
// with the exit codes, and each flag to an example.
func TestEveryCommandIsDocumented(t *testing.T) {
	root := newRoot(newApp(Env{Getenv: func(string) string { return "" }}))
	examples := map[*cobra.Command]string{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		examples[root] += c.Example + "\n"
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return // cobra's own
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(c.Long, "Exit codes:") {
			t.Errorf("%s: short help %q, or no exit codes in the long one", c.CommandPath(), c.Short)
		}
		for line := range strings.Lines(c.Example) {
			if len(line) > 100 {
				t.Errorf("%s: the example %q is too long for a terminal", c.CommandPath(), line)
			}
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == "version" {
				return
			}
			if !strings.Contains(c.Example, "--"+f.Name) {
				t.Errorf("%s: no example for --%s", c.CommandPath(), f.Name)
			}
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", c.CommandPath(), f.Name, f.Usage)
			}
		})
	}
	walk(root)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(examples[root], "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(examples[root], " -"+f.Shorthand+" ")) {
			t.Errorf("no example anywhere for --%s", f.Name)
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":              "plain",
		"two\nlines":         "two lines",
		"\x1b[31mred\x07":    "[31mred",
		"right\u202eleft":    "rightleft",
		"\u009b31m8 bit CSI": "31m8 bit CSI",
		"邮件 ümlaut":          "邮件 ümlaut",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"mutt": "mutt", "": "''", "Outlook on Mac": "'Outlook on Mac'", "it's": `'it'\''s'`, "-x": "'-x'", "--name": "'--name'", "$HOME": "'$HOME'", "/a/b": "/a/b",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
