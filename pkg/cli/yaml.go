package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// printYAML prints the same object as printJSON, with the same names in the
// same order.
func (a *app) printYAML(v any) error {
	b, err := toYAML(v)
	if err != nil {
		return err
	}
	return a.print(b)
}

// toYAML writes JSON in YAML's block style. All that can stand in JSON is in a
// small part of YAML; a library for the rest costs a third of a megabyte.
func toYAML(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("print YAML: %w", err)
	}
	y := yamlWriter{in: json.NewDecoder(&b)}
	y.in.UseNumber()
	if err := y.value(0, true); err != nil {
		return nil, fmt.Errorf("print YAML: %w", err)
	}
	return y.out.Bytes(), nil
}

type yamlWriter struct {
	in  *json.Decoder
	out bytes.Buffer
}

// value writes the next value behind its name, or behind its dash where inline:
// then the first line of a collection stands beside that.
func (y *yamlWriter) value(indent int, inline bool) error {
	t, err := y.in.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case json.Delim:
		return y.collection(t, indent, inline)
	case string:
		return y.scalar(inline, yamlText(t))
	case nil:
		return y.scalar(inline, "null")
	}
	return y.scalar(inline, fmt.Sprint(t)) // a number, or a truth value
}

func (y *yamlWriter) scalar(inline bool, text string) error {
	if !inline {
		y.out.WriteByte(' ')
	}
	y.out.WriteString(text + "\n")
	return nil
}

func (y *yamlWriter) collection(kind json.Delim, indent int, inline bool) error {
	if !y.in.More() {
		end, err := y.in.Token()
		if err != nil {
			return err
		}
		return y.scalar(inline, kind.String()+fmt.Sprint(end))
	}
	if !inline {
		y.out.WriteByte('\n')
	}
	for first := true; y.in.More(); first = false {
		if !inline || !first {
			y.out.WriteString(strings.Repeat(" ", indent))
		}
		if kind == '[' {
			y.out.WriteString("- ")
			if err := y.value(indent+2, true); err != nil {
				return err
			}
			continue
		}
		t, err := y.in.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return errors.New("a name that is no text")
		}
		y.out.WriteString(yamlText(name) + ":")
		if err := y.value(indent+4, false); err != nil {
			return err
		}
	}
	_, err := y.in.Token()
	return err
}

// plainYAML is text that no reader of YAML 1.1 or 1.2 takes for anything else.
var plainYAML = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9@._/ -]*[A-Za-z0-9@._/-])?$`)

// wordsOfYAML are plain words that mean something to one reader or another.
var wordsOfYAML = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}

// yamlText is the text as it is where that is safe, else in double quotes, where
// the escapes of JSON hold (YAML 1.2.2 section 5.7).
func yamlText(s string) string {
	if plainYAML.MatchString(s) && !slices.Contains(wordsOfYAML, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a text can always be written
	var out []byte
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		// What may stand in JSON as it is and not in YAML (section 5.1).
		if r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0xfffe || r == 0xffff {
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}
