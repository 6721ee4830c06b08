//go:build unix

package cli_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/o365pw/o365pw/pkg/cli"
)

// checked runs the program, and holds what it prints to what docs promises: JSON
// and YAML to the command's schema, errors to that of the error object, CSV and
// tab-separated lines to the documented columns. What differs ends a script
// that does not ask for exit code 99.
func checked(ctx context.Context, env cli.Env) int {
	docs := os.Getenv("DOCS")
	command, format, plain := cli.Asked(env.Args)
	if docs == "" || !plain {
		return cli.Main(ctx, env)
	}
	var stdout, stderr bytes.Buffer
	columns := documentedColumns(docs, command, format)
	if format == "" && slices.ContainsFunc(env.Args, func(a string) bool { return a == "--recipient" || a == "--for" || a == "--dns" }) { // one word, for $(…); a mail program's file; a zone's lines
		columns = nil
	}
	if format == "json" || format == "yaml" || columns != nil && !term.IsTerminal(int(os.Stdout.Fd())) {
		env.Stdout = io.MultiWriter(env.Stdout, &stdout)
	}
	if format == "json" && !term.IsTerminal(int(os.Stderr.Fd())) {
		env.Stderr = io.MultiWriter(env.Stderr, &stderr)
	}
	code := cli.Main(ctx, env)
	var err error
	switch {
	case format == "json" || format == "yaml":
		err = checkObject(docs, command, format, stdout.Bytes(), code)
	case columns != nil:
		err = checkColumns(format, stdout.String(), columns, code)
	}
	if err == nil && stderr.Len() > 0 && code != 0 {
		lines := bytes.Split(bytes.TrimSpace(stderr.Bytes()), []byte("\n"))
		err = validate(docs, "error", lines[len(lines)-1])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "what %v printed is not as documented: %v\n", env.Args, err)
		return 99
	}
	return code
}

func checkObject(docs, command, format string, out []byte, code int) error {
	name := strings.ReplaceAll(command, " ", "-")
	if _, err := os.Stat(filepath.Join(docs, "schema", name+".json")); err != nil {
		return nil // TestEveryCommandHasASchema knows which need none
	}
	if len(out) == 0 {
		if code == 0 {
			return fmt.Errorf("nothing was printed")
		}
		return nil
	}
	if format == "yaml" {
		var v any
		if err := yaml.Unmarshal(out, &v); err != nil {
			return err
		}
		var err error
		if out, err = json.Marshal(v); err != nil {
			return err
		}
	}
	return validate(docs, name, out)
}

// validate holds one JSON value to a schema, and to its properties alone.
func validate(docs, name string, out []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	s, err := compileSchema(docs, name)
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// compileSchema makes the schemas strict: what they do not name may come in a
// later version, but not unseen.
func compileSchema(docs, name string) (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	id := ""
	for _, file := range []string{"common", name} {
		b, err := os.ReadFile(filepath.Join(docs, "schema", file+".json"))
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		closeObjects(doc)
		top, _ := doc.(map[string]any)
		id, _ = top["$id"].(string)
		if err := c.AddResource(id, doc); err != nil {
			return nil, err
		}
	}
	return c.Compile(id)
}

func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"].(map[string]any); ok && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, sub := range v {
			closeObjects(sub)
		}
	case []any:
		for _, sub := range v {
			closeObjects(sub)
		}
	}
}

var inCode = regexp.MustCompile("`([^`]+)`")

// documentedColumns are those of a command in docs/output.md: its CSV headers,
// or of tab-separated lines where no format was asked for. Nil: there are none.
func documentedColumns(docs, command, format string) [][]string {
	cell := map[string]int{"csv": 3, "": 4}[format]
	b, err := os.ReadFile(filepath.Join(docs, "output.md"))
	if err != nil || cell == 0 {
		return nil
	}
	var columns [][]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || !strings.Contains(cells[1], "`"+command+"`") {
			continue
		}
		for _, m := range inCode.FindAllStringSubmatch(cells[cell], -1) {
			columns = append(columns, strings.Split(m[1], ","))
		}
	}
	return columns
}

func checkColumns(format, out string, columns [][]string, code int) error {
	if out == "" && code != 0 {
		return nil
	}
	r := csv.NewReader(strings.NewReader(out))
	if format == "" {
		r.Comma, r.LazyQuotes = '\t', true
	}
	rows, err := r.ReadAll() // which have to be of one length
	if err != nil {
		return err
	}
	if len(rows) == 0 || !slices.ContainsFunc(columns, func(c []string) bool { return slices.Equal(c, rows[0]) }) {
		return fmt.Errorf("the columns are not among %v: %.300s", columns, out)
	}
	return nil
}
