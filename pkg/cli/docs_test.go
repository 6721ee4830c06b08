package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// mention is a command line in a page: up to what the shell would take for
// itself, or the end of the code that it is in.
var mention = regexp.MustCompile("(?:^|[ `(\"'=\\[])o365pw((?: +(?:\"[^\"\n]*\"|'[^'\n]*'|[^ \n`|><;&#()\"']+))+)")

// called are the second words of names in Entra and Exchange that begin with
// o365pw, and of a sentence that does.
var called = []string{"trial", "mail", "ci", "for", "makes"}

// TestDocsNameWhatExists holds every command line in the README and in docs to
// commands and flags that there are.
func TestDocsNameWhatExists(t *testing.T) {
	pages := []string{"../../README.md"}
	err := filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".svg") && !strings.Contains(path, "schema") {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.ReplaceAll(line, "-u o365pw", "-u UNIT")
			for _, m := range mention.FindAllStringSubmatch(line, -1) {
				words := strings.Fields(regexp.MustCompile(`"[^"]*"|'[^']*'`).ReplaceAllString(m[1], "TEXT"))
				if !strings.Contains(line, "`o365pw "+words[0]) && !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "o365pw ") && !strings.Contains(line, "run: ") {
					continue // prose, in which the program does something
				}
				if slices.Contains(called, words[0]) || strings.HasPrefix(words[0], "-") {
					continue // a user, a folder or a volume of that name
				}
				seen++
				checkMention(t, page, words)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d command lines found: is the pattern still right?", seen)
	}
}

// TestReadmeNamesEveryCommand holds the README's table to the commands that there are.
func TestReadmeNamesEveryCommand(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "\n## Commands\n")
	table, _, _ = strings.Cut(table, "\n\n[")
	for _, c := range newRoot(newApp(Env{Getenv: func(string) string { return "" }})).Commands() {
		if c.Name() != "help" && !c.IsAdditionalHelpTopicCommand() && !regexp.MustCompile("(?m)^\\|[^|]*`"+c.Name()+"`").MatchString(table) {
			t.Errorf("README.md does not name %s among the commands", c.Name())
		}
	}
}

// TestDocsNameWhatIsCheckedByFormatAlone holds the list in docs/mail-clients.md to
// the clients that no test runs.
func TestDocsNameWhatIsCheckedByFormatAlone(t *testing.T) {
	b, err := os.ReadFile("../../docs/mail-clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(b), "only held to their published format:")
	list, _, ok2 := strings.Cut(list, ".\n")
	if !ok || !ok2 {
		t.Fatal("docs/mail-clients.md has no such list")
	}
	var want, got []string
	for _, c := range clientconfig.Clients() {
		if c.Checked == clientconfig.ByFormat {
			want = append(want, c.Name)
		}
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/mail-clients.md has %q as checked by format alone, and the table %q", got, want)
	}
}

func checkMention(t *testing.T, page string, words []string) {
	t.Helper()
	root := newRoot(newApp(Env{Getenv: func(string) string { return "" }}))
	c := root
	for _, w := range words {
		name, _, _ := strings.Cut(strings.TrimRight(w, ".,:"), "=")
		switch {
		case strings.HasPrefix(name, "--") && len(name) > 2:
			c.InitDefaultHelpFlag()
			if c.Flag(name[2:]) == nil && root.PersistentFlags().Lookup(name[2:]) == nil && name != "--version" {
				t.Errorf("%s: %q: %s has no flag %s", page, strings.Join(words, " "), c.CommandPath(), name)
			}
		case strings.HasPrefix(name, "-") && len(name) == 2 && name != "--":
			if c.Flags().ShorthandLookup(name[1:]) == nil && root.PersistentFlags().ShorthandLookup(name[1:]) == nil && name != "-h" {
				t.Errorf("%s: %q: %s has no flag %s", page, strings.Join(words, " "), c.CommandPath(), name)
			}
		case c.HasSubCommands():
			sub, _, err := c.Find([]string{name})
			if (err != nil || sub == c) && c == root && regexp.MustCompile(`^[a-z]+$`).MatchString(name) {
				t.Errorf("%s: %q: there is no command %s", page, strings.Join(words, " "), name)
				return
			}
			if err == nil {
				c = sub
			}
			if c.CommandPath() == "o365pw service run" {
				c = root // what it runs is a command, too
			}
		}
	}
}
