package cli

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// filtered runs version, whose object has three texts and a number.
func filtered(t *testing.T, ctx context.Context, out *failingWriter, args ...string) (int, string) {
	t.Helper()
	var stderr strings.Builder
	code := Main(ctx, Env{Args: append([]string{"version"}, args...), Stdout: out, Stderr: &stderr, Now: time.Now,
		Getenv: func(name string) string { return map[string]string{"O365PW_KEYCHAIN_PASSPHRASE": "SECRETSECRET"}[name] }})
	return code, stderr.String()
}

// failingWriter keeps what it is given, and fails where err is not nil.
type failingWriter struct {
	strings.Builder
	err error
}

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	return w.Builder.Write(b)
}

// Secrets in the environment, files and other input are out of reach.
func TestExpressionsSeeTheObjectAlone(t *testing.T) {
	for _, e := range []string{"env", "$ENV", "[env, $ENV] | tostring", "$ENV.O365PW_KEYCHAIN_PASSPHRASE", "input", "[inputs]", "import \"/etc/passwd\" as $x; $x", "include \"x\"; .",
		"$__prog_args", "input_filename", "debug", "stderr", "get_search_list", "\"/etc/passwd\" | @json", "modulemeta"} {
		var out failingWriter
		_, stderr := filtered(t, t.Context(), &out, "--jq", e)
		if s := out.String() + stderr; strings.Contains(s, "SECRET") || strings.Contains(s, "root:") {
			t.Errorf("%s gives %s", e, s)
		}
	}
}

func TestJQResults(t *testing.T) {
	for e, want := range map[string]string{
		".schemaVersion":          "1\n",
		"1, \"a\\nb\", null":      "1\na\nb\nnull\n",
		"{b: 1, a: [true, 0.5]}":  "{\"a\":[true,0.5],\"b\":1}\n",
		"\"<&>\", [\"<&>\"]":      "<&>\n[\"<&>\"]\n",
		"empty":                   "",
		"1, halt, 2":              "1\n",
		"9007199254740993":        "9007199254740993\n",
		"[.nosuch, .version[:0]]": "[null,\"\"]\n",
	} {
		var out failingWriter
		if code, stderr := filtered(t, t.Context(), &out, "--jq", e); code != 0 || out.String() != want || stderr != "" {
			t.Errorf("%s: %d %q %q, want %q", e, code, out.String(), stderr, want)
		}
	}
}

func TestExpressionsAreReadFirst(t *testing.T) {
	for _, c := range []struct{ flag, text, want string }{
		{"--jq", ".a ]", `unexpected token "]" at column 4`},
		{"--jq", ".a, \"ä\" |\n .b )", `unexpected token ")" at line 2, column 5`},
		{"--jq", `"abc`, "unterminated string literal at column"},
		{"--jq", ".a |", "unexpected EOF at column 5"},
		{"--jq", `"ä" ]`, `unexpected token "]" at column 5`},
		{"--jq", "f(1)", "function not defined: f/1"},
		{"--jq", "$x", "variable not defined: $x"},
		{"--jq", " ", "the expression is empty"},
		{"--template", "a\n{{if}}", "line 2: missing value for if"},
		{"--template", "{{call .x}}", `function "call" not defined`},
		{"--template", "", "the template is empty"},
	} {
		var out failingWriter
		code, stderr := filtered(t, t.Context(), &out, c.flag, c.text)
		if code != int(wrongUsage) || out.Len() > 0 || !strings.Contains(stderr, "o365pw: "+c.flag+": ") || !strings.Contains(stderr, c.want) {
			t.Errorf("%s %q: %d %q", c.flag, c.text, code, stderr)
		}
	}
}

// An expression without end goes on until the command is interrupted, one that
// ends is not cut off by it.
func TestInterruptedExpressions(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out failingWriter
	code, stderr := filtered(t, ctx, &out, "--jq", "last(range(1e18))")
	if code != int(interrupted) || !strings.Contains(stderr, "interrupted") {
		t.Errorf("%d %q", code, stderr)
	}
	if code, stderr := filtered(t, ctx, &out, "--jq", ".schemaVersion"); code != 0 || out.String() != "1\n" {
		t.Errorf("%d %q %q", code, out.String(), stderr)
	}
}

// A reader that has gone is no fault of the expression.
func TestFilteredWithoutAReader(t *testing.T) {
	for _, args := range [][]string{{"--jq", "repeat(.)"}, {"--template", "{{range 1000000000}}{{.}}{{end}}"}} {
		out := failingWriter{err: syscall.EPIPE}
		if code, stderr := filtered(t, t.Context(), &out, args...); code != int(failed) || stderr != "" {
			t.Errorf("%v: %d %q", args, code, stderr)
		}
	}
	out := failingWriter{err: errors.New("no space left")}
	if code, stderr := filtered(t, t.Context(), &out, "--jq", "."); code != int(failed) || !strings.Contains(stderr, "print the result: no space left") || strings.Contains(stderr, "--jq") {
		t.Errorf("%d %q", code, stderr)
	}
}

func TestForTerminal(t *testing.T) {
	got := forTerminal(map[string]any{"a": []any{"\x1b[31mred\ttwo\nlines\u202e", 1, nil}})
	if d := cmp.Diff(map[string]any{"a": []any{"[31mred\ttwo\nlines", 1, nil}}, got); d != "" {
		t.Error(d)
	}
}

// FuzzYAML holds YAML to the value of the JSON, whatever the texts.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{"", "no", "12:30", "1e3", "~", "- a", "a: b", "#", "null", "<<", "=", "\n", "a\nb\n", " a", "a ", "\t", "é", "\u2028", "\x00", "\xff", "'", `"`, "{}", "!x", "&a", "*a", "0x1F", "2026-11-22", "|", ">", "\x7f", "\u009b", "\ufeff", "\ufffe", "\U0001f600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		want := map[string]any{"text": s, "list": []any{s, "b"}, "object": map[string]any{"x": s, "none": nil, "n": 3}}
		b, err := toYAML(want)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		var got any
		if err := yaml.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v\n%s", s, err, b)
		}
		if d := cmp.Diff(any(want), got); d != "" {
			t.Errorf("%q: %s\n%s", s, d, b)
		}
	})
}

// TestDocumentedExpressions reads each expression that documentation and help
// show.
func TestDocumentedExpressions(t *testing.T) {
	a := newApp(Env{Getenv: func(string) string { return "" }})
	texts := []string{newRoot(a).Example}
	for _, f := range []string{"../../docs/output.md", "../../README.md"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`o365pw .* --(jq|template) ('[^']*'|\.\S+)`).FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
		seen[m[1]]++
		expression := strings.Trim(m[2], "'")
		read := jqFilter
		if m[1] == "template" {
			read = a.templateFilter
		}
		if _, err := read(expression); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
	}
	if seen["jq"] < 8 || seen["template"] < 5 {
		t.Errorf("only %v were seen", seen)
	}
}
