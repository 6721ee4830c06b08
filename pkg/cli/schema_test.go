package cli

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const schemaFolder = "../../docs/schema"

// TestEveryCommandHasASchema holds each command that prints data to a schema
// and a line in docs/output.md, and to a script that has each form of it
// checked; and each other to a place in withoutData.
func TestEveryCommandHasASchema(t *testing.T) {
	b, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	called := calledInScripts(t)
	left := slices.Clone(withoutData)
	schemas := map[string]bool{"common": true, "error": true}
	root := newRoot(newApp(Env{Getenv: func(string) string { return "" }}))
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		name := commandName(c)
		left = slices.DeleteFunc(left, func(s string) bool { return s == name })
		if !printsData(c) || !c.Runnable() {
			return
		}
		file := strings.ReplaceAll(name, " ", "-")
		schemas[file] = true
		if _, err := os.Stat(filepath.Join(schemaFolder, file+".json")); err != nil {
			t.Errorf("%s prints data, so it needs docs/schema/%s.json; if it does not, a place in withoutData", name, file)
		}
		if !strings.Contains(page, "| `"+name+"` | [schema](schema/"+file+".json) |") {
			t.Errorf("%s has no line in the table of docs/output.md", name)
		}
		for _, format := range outputNames[1:] {
			if !called[name+" "+format] {
				t.Errorf("no script calls %s with -o %s", name, format)
			}
		}
	}
	walk(root)
	if len(left) > 0 {
		t.Errorf("withoutData has %v, which are no commands", left)
	}
	files, err := filepath.Glob(schemaFolder + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if !schemas[name] {
			t.Errorf("%s belongs to no command", f)
		}
		checkSchemaFile(t, f)
	}
}

// calledInScripts has "COMMAND FORMAT" for each call in testdata/script, where
// what is printed is held to the schema.
func calledInScripts(t *testing.T) map[string]bool {
	scripts, err := filepath.Glob("../../testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	called := map[string]bool{}
	for _, f := range scripts {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if _, call, ok := strings.Cut(line, "o365pw "); ok && !strings.HasPrefix(line, "#") && strings.Contains(call, " -o ") {
				command, format, _ := Asked(strings.Fields(call))
				called[command+" "+format] = true
			}
		}
	}
	return called
}

// checkSchemaFile holds a schema to its name, and each property to a
// description, or to a definition that has one.
func checkSchemaFile(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal(b, &top); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if want := "https://raw.githubusercontent.com/o365pw/o365pw/main/docs/schema/" + filepath.Base(file); top["$id"] != want {
		t.Errorf("%s: $id is %v, want %s", file, top["$id"], want)
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			props, _ := v["properties"].(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(props)) {
				p, _ := props[name].(map[string]any)
				if p["description"] == nil && p["$ref"] == nil {
					t.Errorf("%s: %s.%s has no description", file, at, name)
				}
			}
			for k, sub := range v {
				walk(at+"."+k, sub)
			}
		case []any:
			for _, sub := range v {
				walk(at, sub)
			}
		}
	}
	walk("", top)
}
