package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/cli"
)

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// TestDocsAreCurrent holds docs/cli to the command tree.
func TestDocsAreCurrent(t *testing.T) {
	want, got := markdownPages(cli.Tree()), read(t, filepath.Join("..", "..", "docs", "cli"))
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("docs/cli/%s is not as the command tree has it: go run ./cmd/gendocs", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("docs/cli/%s belongs to no command: go run ./cmd/gendocs", name)
		}
	}
}

// TestRun writes all there is, twice, to the same bytes.
func TestRun(t *testing.T) {
	var runs []map[string]string
	for range 2 {
		dir := t.TempDir()
		docs, man, completions := filepath.Join(dir, "docs"), filepath.Join(dir, "man"), filepath.Join(dir, "completions")
		if err := os.MkdirAll(docs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(docs, "gone.md"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := run(docs, man, completions, "1764000000"); err != nil {
			t.Fatal(err)
		}
		all := read(t, docs)
		maps.Copy(all, read(t, man))
		maps.Copy(all, read(t, completions))
		runs = append(runs, all)
	}
	if !maps.Equal(runs[0], runs[1]) {
		t.Error("two runs differ")
	}
	for _, name := range []string{"README.md", "create.md", "audit-verify.md", "environment.md", "o365pw.1", "o365pw-audit-verify.1", "o365pw-environment.7", "o365pw.bash", "_o365pw", "o365pw.fish", "o365pw.ps1"} {
		if runs[0][name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	if _, ok := runs[0]["gone.md"]; ok {
		t.Error("a page of a command that is no more stays")
	}
	if !strings.Contains(runs[0]["o365pw.1"], `"2025-11-24"`) {
		t.Errorf("the date is not that of SOURCE_DATE_EPOCH: %.200s", runs[0]["o365pw.1"])
	}
	if err := run(t.TempDir(), t.TempDir(), "", "yesterday"); err == nil {
		t.Error("SOURCE_DATE_EPOCH of any kind is taken")
	}
}

// TestPagesAreWhole: each command has a page of both kinds, which has all of its
// flags, its examples and the exit codes, and whose links lead somewhere.
func TestPagesAreWhole(t *testing.T) {
	root := cli.Tree()
	md, man := markdownPages(root), manPages(root, "")
	link := regexp.MustCompile(`\]\(([^)#]+)`)
	reference := regexp.MustCompile(`(?m)^\.BR (\S+) \(([17])\)`)
	count := 0
	pages(root, func(c *cobra.Command) {
		count++
		page, manual := md[markdownFile(c)], man[fileName(c)+"."+section(c)]
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if _, ok := md[m[1]]; !ok {
				t.Errorf("%s: a link to %s", markdownFile(c), m[1])
			}
		}
		for _, m := range reference.FindAllStringSubmatch(manual, -1) {
			if _, ok := man[strings.ReplaceAll(m[1], `\-`, "-")+"."+m[2]]; !ok {
				t.Errorf("%s: a reference to %s(%s)", fileName(c), m[1], m[2])
			}
		}
		if isTopic(c) {
			return
		}
		for _, o := range options(c.LocalFlags()) {
			if !strings.Contains(page, o.long) || !strings.Contains(manual, roff(o.long)) {
				t.Errorf("%s: %s is missing", c.CommandPath(), o.long)
			}
		}
		first, _, _ := strings.Cut(example(c), "\n")
		if first == "" || !strings.Contains(page, first) || !strings.Contains(manual, roff(first)) {
			t.Errorf("%s: the example %q is missing", c.CommandPath(), first)
		}
		if !strings.Contains(page, "\n- 130: interrupted\n") || !strings.Contains(manual, "\\fB130\\fR\ninterrupted\n") || strings.Contains(page, "Exit codes: ") {
			t.Errorf("%s: exit codes are missing, or there twice", c.CommandPath())
		}
	})
	if count < 25 || len(md) != count || len(man) != count {
		t.Errorf("%d commands, %d and %d pages", count, len(md), len(man))
	}
}

func TestBlocks(t *testing.T) {
	got := blocks("One\nparagraph.\n\n  a   first\n      more\n\n  b   second\n\nAnother.\n  tight\nEnd.")
	want := []block{{"One paragraph.", false}, {"a   first\n    more\n\nb   second", true}, {"Another.", false}, {"tight", true}, {"End.", false}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"--read-only and <NAME>": "`--read-only` and \\<NAME\\>", "[clouds.NAME] in a_b": "`[clouds.NAME]` in a\\_b",
		`run "o365pw serve --stop" now`: "run `o365pw serve --stop` now", "well-known": "well-known", "-o json prints": "`-o json` prints",
		"(see NO_COLOR)": "(see `NO_COLOR`)", "a-b -- c": "a-b -- c",
	} {
		if got := markdownText(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{".lead": `\&.lead`, `it's a\b`: `it\(aqs a\eb`, "--x": `\-\-x`} {
		if got := roff(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
