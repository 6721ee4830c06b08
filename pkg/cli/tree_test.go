package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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
		if c.IsAdditionalHelpTopicCommand() {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.Contains(c.Long, "Exit codes:") {
				t.Errorf("topic %s: short help %q, or exit codes of a command", c.Name(), c.Short)
			}
			for line := range strings.Lines(c.Long) {
				if utf8.RuneCountInString(line) > 85 {
					t.Errorf("topic %s: the line %q is too long for a terminal", c.Name(), line)
				}
			}
			return
		}
		if !strings.Contains(c.Long, "Exit codes:") {
			t.Errorf("%s: no exit codes in the help", c.CommandPath())
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 && line[0] != ' ' {
				t.Errorf("%s: the line %q of the help is too long for a terminal", c.CommandPath(), line)
			}
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
			if !hasFlag(c.Example, f.Name) {
				t.Errorf("%s: no example for --%s", c.CommandPath(), f.Name)
			}
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", c.CommandPath(), f.Name, f.Usage)
			}
		})
	}
	walk(root)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !hasFlag(examples[root], f.Name) && (f.Shorthand == "" || !strings.Contains(examples[root], " -"+f.Shorthand+" ")) {
			t.Errorf("no example anywhere for --%s", f.Name)
		}
	})
}

// hasFlag tells whether a flag is in a text, and not only one whose name begins so.
func hasFlag(text, flag string) bool {
	return regexp.MustCompile(`--` + regexp.QuoteMeta(flag) + `($|[^a-z-])`).MatchString(text)
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

func TestRelative(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		30 * time.Second:             "in seconds",
		-30 * time.Second:            "just now",
		12*time.Hour - time.Second:   "in 12 hours",
		90 * time.Minute:             "in 2 hours",
		10*day - time.Second:         "in 10 days",
		180*day - time.Second:        "in 6 months",
		365*day - time.Second:        "in 12 months",
		730 * day:                    "in 2 years",
		-47 * time.Hour:              "47 hours ago",
		-3 * day:                     "3 days ago",
		time.Hour + 10*time.Second:   "in 1 hour",
		59*time.Minute + time.Second: "in 59 minutes",
	} {
		if got := relative(now.Add(d), now); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := relative(time.Time{}, now); got != "-" {
		t.Errorf("no time: %q", got)
	}
}

func TestFit(t *testing.T) {
	header := []string{"NAME", "MAILBOX", "ALLOW", "CREATED", "EXPIRES", "LAST USED", "STATUS", "ID"}
	row := []string{strings.Repeat("邮", 60), "alice@contoso.com", "imap,smtp", "3 days ago", "\x1b[33m⚠ in 10 days\x1b[0m", "3 hours ago, imap", "active", "c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611"}
	h, rows := fit(header, [][]string{slices.Clone(row)}, 1000)
	if len(h) != len(header) || !slices.Equal(rows[0], row) {
		t.Errorf("with room enough: %v %v", h, rows)
	}
	for _, width := range []int{120, 80, 60} {
		h, rows := fit(header, [][]string{slices.Clone(row)}, width)
		if w := tableWidth(h, rows); w > width || h[0] != "NAME" || !slices.Contains(h, "STATUS") {
			t.Errorf("for %d columns: %d, %v %v", width, w, h, rows)
		}
	}
}

// TestYAMLText holds texts that some reader of YAML takes for something else
// to their quotes.
func TestYAMLText(t *testing.T) {
	for text, plain := range map[string]bool{
		"Outlook on Mac": true, "alice@contoso.com": true, "mutt": true,
		"12:30": false, "no": false, "Yes": false, "1e3": false, "0x1F": false, "2026-11-22": false, "~": false, "a: b": false, "- x": false, "#": false, "": false, "null": false, "=": false,
	} {
		var out strings.Builder
		a := newApp(Env{Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }})
		if err := a.printYAML(map[string]string{"name": text}); err != nil {
			t.Fatal(err)
		}
		if got := strings.HasPrefix(out.String(), "name: \""); got == plain {
			t.Errorf("%q: %s", text, out.String())
		}
	}
}
