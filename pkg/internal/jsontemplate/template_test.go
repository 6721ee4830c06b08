package jsontemplate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"text/template"
)

const document = `{"schemaVersion": 1, "none": null, "yes": true, "no": false, "zero": 0, "big": 9007199254740993, "half": 0.5, "three": 3.0,
"appPasswords": [
 {"name": "Outlook <Mac>", "mailboxes": ["alice@contoso.com", "bob@contoso.com"], "maxPerHour": 20, "expires": "2027-05-21T12:00:00Z", "servers": {"smtp": {"port": 1587}, "imap": {"port": 1993}}},
 {"name": "", "mailboxes": [], "maxPerHour": 0, "expires": null, "servers": {}}],
"empty": {}, "list": [1, "two", null, [3], {"four": 4}], "text": "größer & 'so'\u0000"}`

// corpus is the whole language; text/template says what each gives.
var corpus = []string{
	``, `text`, "{{.}}", `{{.schemaVersion}}`, `{{.appPasswords}}`, `{{.none}}`, `{{.absent}}`, `{{.absent.deeper}}`, `{{.none.deeper}}`, `{{.schemaVersion.x}}`,
	`{{range .appPasswords}}{{.name}}{{"\n"}}{{end}}`, `{{range $i, $p := .appPasswords}}{{$i}}={{$p.name}} {{$.schemaVersion}};{{end}}`,
	`{{range $p := .appPasswords}}{{range $k, $v := $p.servers}}{{$k}}:{{$v.port}} {{else}}none{{end}}{{end}}`,
	`{{range .empty}}x{{else}}empty {{.yes}}{{end}}`, `{{range .absent}}x{{else}}absent{{end}}`, `{{range .none}}x{{else}}null{{end}}`, `{{range .text}}x{{end}}`, `{{range .half}}{{end}}`, `{{range .yes}}{{end}}`,
	`{{range 3}}{{.}}{{end}}`, `{{range $i := 3}}{{$i}}{{end}}`, `{{range $i, $j := 3}}{{$i}}{{end}}`, `{{range 0}}x{{else}}none{{end}}`, `{{range $i, $j := 0}}{{end}}`, `{{range -1}}x{{end}}`,
	`{{range .list}}[{{.}}]{{end}}`, `{{range .list}}{{with .}}{{.}}{{else}}-{{end}}{{end}}`, `{{range .list}}{{if eq . nil}}{{break}}{{end}}{{.}}{{end}}`, `{{range $i, $e := .list}}{{if eq $i 1 3}}{{continue}}{{end}}{{$e}},{{end}}`,
	`{{range .list}}{{.x}}{{end}}`, `{{range $x := .list}}{{$y := $x}}{{$y}}{{end}}`,
	`{{$i := 0}}{{$e := 0}}{{range $i, $e = .list}}{{end}}{{$i}} {{$e}}`, `{{$x := 0}}{{range $x, $x = .list}}{{$x}}{{end}}`, `{{$x := 0}}{{range $x = .list}}{{end}}{{$x}}`, `{{$y = 1}}`, `{{range $y = .list}}{{end}}`, `{{range $y = 0}}{{end}}`, `{{if $y = 0}}{{end}}`,
	`{{$x := 1}}{{if .yes}}{{$x = 2}}{{$x := 3}}{{$x}}{{end}}{{$x}}`, `{{with $x := .schemaVersion}}{{$x}}{{.}}{{end}}`, `{{if $x := .zero}}a{{else}}{{$x}}{{end}}`,
	`{{if .no}}a{{else if .zero}}b{{else if .yes}}c{{else}}d{{end}}`, `{{with .none}}a{{else with .yes}}{{.}}{{else}}d{{end}}`, `{{if .half}}y{{end}}{{if .empty}}y{{else}}n{{end}}{{if .list}}y{{end}}{{if 0.0}}y{{end}}`,
	`{{define "p"}}<{{.name}}>{{end}}{{range .appPasswords}}{{template "p" .}}{{end}}`, `{{block "b" .schemaVersion}}{{.}}{{$}}{{end}}`, `{{define "x"}}{{.}}{{end}}{{template "x"}}`, `{{template "nowhere"}}`,
	`{{define "x"}}{{$y}}{{end}}`, `{{define "r"}}{{if .}}({{range .}}{{template "r" .}}{{end}}){{end}}{{end}}{{template "r" .empty}}`, `{{define "x"}}1{{end}}{{define "x"}}2{{end}}`, `{{define "x"}} {{end}}{{define "x"}}2{{end}}{{template "x"}}`,
	"a \n {{- /* comment */ -}} \n b", "{{/* c */}}x", "a {{- 1 -}} b", "{{ 3 -}}\n\n{{- 4 }}",
	`{{and}}`, `{{and 1}}`, `{{and 0 .none.x}}`, `{{or 1 .none.x}}`, `{{and 1 .none.x}}`, `{{or .absent "default"}}`, `{{"" | or .no}}`, `{{"x" | and .yes}}`, `{{and .none}}`, `{{. | and}}`, `{{not .none}} {{not 1}} {{not}}`, `{{not 1 2}}`,
	`{{eq 1 1}} {{eq 1 2 1}} {{eq "a" "b"}} {{eq .yes true}} {{eq .yes false}} {{ne 1 2}}`, `{{eq 1 1.0}}`, `{{eq .half 0.5}}`, `{{eq .three 3.0}}`, `{{eq 1 "1"}}`, `{{eq .list .list}}`, `{{eq .list .none}}`, `{{eq .none nil}} {{eq .absent .none}} {{eq .none 1}}`, `{{eq .empty 1}}`, `{{eq .list .empty}}`, `{{eq 1}}`, `{{eq}}`, `{{ne 1}}`, `{{ne 1 2 3}}`, `{{eq 2 1 "x"}}`, `{{eq 1 1 "x"}}`, `{{true | eq true}}`,
	`{{lt 1 2}}{{le 2 2}}{{gt 3 2}}{{ge 1 2}}`, `{{lt "a" "b"}}{{gt "a" "b"}}{{ge "a" "a"}}`, `{{lt 0.5 .half}}{{le 0.5 .half}}`, `{{lt 1 0.5}}`, `{{lt true false}}`, `{{lt nil 1}}`, `{{lt .list .list}}`, `{{lt 1}}`, `{{le 1 "x"}}`, `{{gt .empty 1}}`,
	`{{index .list 0}} {{index .list 3 0}} {{index .list 4 "four"}} {{index . "text"}}`, `{{index .list 9}}`, `{{index .list 5}}`, `{{index .list -1}}`, `{{index .list "x"}}`, `{{index . 1}}`, `{{index .none}}`, `{{index .list 2 0}}`, `{{index "abc" 1}}`, `{{index "abc" 3}}`, `{{index . "absent"}}`, `{{index . "absent" "x"}}`, `{{index . nil}}`, `{{index 1 1}}`, `{{index .list}}`, `{{index}}`, `{{(index .appPasswords 0).name}}`, `{{(index .list 2).x}}`, `{{(index .list 2 | print).x}}`, `{{(index .list 0).x}}`,
	`{{slice "abcdef" 1 3}} {{slice "abc"}} {{slice "abc" 1}} {{slice .list 1 2}} {{slice .list 0 1 2}}`, `{{slice "abc" 2 1}}`, `{{slice "abc" 0 1 2}}`, `{{slice "abc" 9}}`, `{{slice .none}}`, `{{slice .empty}}`, `{{slice .list 3 1}}`, `{{slice .list 0 2 1}}`, `{{slice .list 0 1 9}}`, `{{slice .list 0 1 2 3}}`, `{{slice (slice .list 0 1) 0 3}}`, `{{slice (slice .list 0 1 1) 0 3}}`, `{{slice "abc" nil}}`,
	`{{len .list}} {{len "größer"}} {{len .empty}}`, `{{len 3}}`, `{{len .none}}`, `{{len nil}}`, `{{len}}`,
	`{{print 1 2 "a" "b" nil .none .absent .list .half}}`, `{{println "x" 1}}`, `{{printf "%s|%v|%q|%5d|%-4d|%05.1f|%x|%t" "a" 1 "q" 7 8 0.5 255 true}}`, `{{printf "%v %v" .none .absent}}`, `{{printf "%d"}}`, `{{printf}}`, `{{printf 1}}`, `{{printf nil}}`, `{{1 | printf "%d%%"}}`, `{{printf "%*d" 5 42}}`, `{{printf "%d" "x"}}`, `{{printf "%+v %#v" .list "x"}}`,
	`{{html .text}}{{html "<a href='x'>" "&"}} {{html 1 .none}}`, `{{urlquery .text "a b"}}`, `{{"<" | html}}`,
	`{{1}} {{-5}} {{0x1F}} {{'a'}} {{1e3}} {{.5}} {{1_000}} {{0b11}} {{0o17}} {{07}} {{1.}} {{0x1p4}} {{+3}} {{1e400}}`, `{{9223372036854775807}}`, `{{18446744073709551615}}`, `{{99999999999999999999}}`, `{{.big}} {{.three}} {{.half}}`,
	`{{nil}}`, `{{nil | print}}`, `{{true}} {{"s"}} {{` + "`raw\n`" + `}}`, `{{"x" 1}}`, `{{1 | 2}}`, `{{.schemaVersion 1}}`, `{{1 | .schemaVersion}}`, `{{$ | .none}}`, `{{. | print | len}}`, `{{(1) 2}}`, `{{$x := 1}}{{$x 1}}`, `{{$x := .}}{{$x.text}} {{$x.none.y}}`, `{{$.text}}`, `{{.text.x}}`, `{{.list.x}}`, `{{(.appPasswords).x}}`, `{{((.empty)).x.y}}`,
	`{{with .none}}{{else}}{{.yes}}{{end}}`, `{{with .appPasswords}}{{len .}}{{end}}`, `{{$x := .none}}{{$x.y}}`, `{{$x := index .list 2}}{{$x.y}}{{$x}}`,
	`{{json .list}} {{json "<a>"}} {{json nil}} {{json .half}}`, `{{join ", " (index .appPasswords 0).mailboxes}}`, `{{.list | join "|"}}`, `{{join 1 .list}}`, `{{join "," "x"}}`, `{{join "," .none}}`, `{{split "@" "a@b" | join "-"}}{{index (split "@" "a@b") 1}}`, `{{upper "größer"}}{{lower "ABC"}}`, `{{upper 1}}`, `{{timefmt "2 January 2006" "2027-05-21T12:00:00Z"}}`, `{{timefmt "2006" .none}}`, `{{timefmt "2006" "soon"}}`, `{{slice (split "," "a,b,c") 0 1 4}}`,
	`{{`, `{{if}}`, `{{end}}`, `{{.x`, `{{range}}`, `{{break}}`, `{{nosuch}}`, `{{$nosuch}}`, `{{if .}}`, `{{"x}}`, `{{template}}`, `{{define "x"}}`, `{{|}}`, `{{. | }}`, `{{.a.}}`, `{{1i}}`, "{{else}}", `{{with 1}}{{else if 2}}{{end}}`,
}

// reference runs text/template with the functions of this package.
func reference(text string, data any) (string, error) {
	funcs := template.FuncMap{}
	own := functions()
	for _, name := range []string{"json", "join", "split", "upper", "lower", "timefmt"} {
		f := own[name]
		funcs[name] = func(args ...any) (any, error) { return f(args) }
	}
	// Beyond Go's, it has %s and %d for all numbers.
	funcs["printf"] = func(format string, args ...any) (any, error) {
		return own["printf"](append([]any{format}, args...))
	}
	t, err := template.New(rootName).Funcs(funcs).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&limitedWriter{w: &b}, data)
	return b.String(), err
}

func run(ctx context.Context, text string, data any) (string, error) {
	t, err := Parse(text, nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(ctx, &b, data)
	return b.String(), err
}

// compareWith holds one template to what text/template makes of it. What is
// told of an error is one's own affair; that there is one, and what was written
// before, is not.
func compareWith(t *testing.T, text string, doc []byte) {
	t.Helper()
	data, err := Decode(doc)
	if err != nil {
		return
	}
	got, err := run(t.Context(), text, data)
	if err != nil && differs(err) {
		return
	}
	want, werr := reference(text, data)
	if got != want || (err == nil) != (werr == nil) {
		t.Errorf("%s\non %s\ngives  %q, %v\nwanted %q, %v", text, doc, got, err, want, werr)
	}
}

// differs tells what is refused here and not there: functions, numbers and
// depths that JSON templates do not have, and arguments to what is no function
// where text/template happens not to look at them.
func differs(err error) bool {
	for _, s := range []string{`function "call" not defined`, `function "js" not defined`, "complex numbers", "more than 1000 deep", "takes no arguments", "too long", "it writes more"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

func TestAgainstTextTemplate(t *testing.T) {
	for _, text := range corpus {
		compareWith(t, text, []byte(document))
		for _, doc := range []string{`null`, `[]`, `[{"name":"x"},null]`, `"text"`, `3`, `{"list":[[1,2],[3]],"text":null}`} {
			compareWith(t, text, []byte(doc))
		}
	}
}

func FuzzAgainstTextTemplate(f *testing.F) {
	for _, text := range corpus {
		f.Add(text, document)
	}
	f.Add(`{{range $k, $v := .}}{{$k}}{{$v}}{{end}}`, `{"b":1,"a":[null,{}],"c":{"d":1e99}}`)
	f.Fuzz(func(t *testing.T, text, doc string) {
		if len(text) > 300 || len(doc) > 1000 || tooLong(text) || doc != document && largeNumber.MatchString(doc) && strings.Contains(text, "range") {
			t.Skip()
		}
		compareWith(t, text, []byte(doc))
	})
}

// largeNumber is one that a loop should not go to, nor a text be as wide as.
var largeNumber = regexp.MustCompile(`[0-9][0-9a-zA-Z_.]{3,}|'|[0-9][eEpP]|[*]`)

// tooLong tells that a template may run for very long, for which text/template
// has no end; or that it asks for the type of a number, which printf hides.
func tooLong(text string) bool {
	loops := strings.Count(text, "range")
	return largeNumber.MatchString(text) && (loops > 0 || strings.Contains(text, "%")) || loops > 2 ||
		strings.Count(text, "template")+strings.Count(text, "block") > 2 || strings.Contains(text, "%T")
}

func TestErrorsNameThePlace(t *testing.T) {
	data, err := Decode([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"\n{{.x":                        "line 2: unclosed action",
		"{{nosuch 1}}":                  `line 1: function "nosuch" not defined`,
		`{{call .x}}`:                   `line 1: function "call" not defined`,
		"a\nb {{.schemaVersion.x}}":     "line 2, column 19, at <.schemaVersion.x>: a number has no field x",
		"{{.none.deeper}}":              "line 1, column 8, at <.none.deeper>: null has no field deeper",
		`{{index .list 9}}`:             "line 1, column 3, at <index>: index: 9 is out of range",
		`{{range .text}}{{end}}`:        "at <.text>: range cannot go over a string",
		`{{range $i, $j := 1}}{{end}}`:  "one variable, not two",
		`{{template "nowhere"}}`:        `there is no template "nowhere"`,
		`{{eq .list 1}}`:                "a list and a number cannot be compared",
		`{{timefmt "2006" "tomorrow"}}`: `"tomorrow" is no time as in 2026-11-22T12:00:00Z`,
		`{{upper .list}}`:               "it takes a string, not a list",
		`{{$y = 1}}`:                    "there is no variable $y to assign to",
		`{{not}}`:                       "it takes 1 arguments, and has 0",
		`{{.text 1}}`:                   ".text is no function, and takes no arguments",
		`{{18446744073709551615}}`:      "is too large",
		"{{range 100}}{{printf `%1000000s` `x`}}{{end}}":                      "it writes more than 64 MiB",
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`:               "templates use each other more than 1000 deep",
		`{{$x := "0123456789abcdef"}}{{range 40}}{{$x = print $x $x}}{{end}}`: "the text is too long",
	} {
		_, err := run(t.Context(), text, data)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	data, err := Decode([]byte(`{"port": 1993, "bytes": 3000000000, "half": 0.5, "three": 3.0}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := run(t.Context(), `{{printf "%s %d %v %5s| %05d %q %.1f %d %s" .port .port .port .port .port .port .half .three .half}} {{.bytes}}`, data)
	if want := `1993 1993 1993  1993| 01993 "1993" 0.5 3 0.5 3000000000`; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestMoreFunctions(t *testing.T) {
	tmpl, err := Parse(`{{.x | twice}}`, map[string]Func{"twice": func(a []any) (any, error) { return fmt.Sprint(a[0], a[0]), nil }})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tmpl.Execute(t.Context(), &b, map[string]any{"x": "a"}); err != nil || b.String() != "aa" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// What runs without end, and writes nothing, ends with its context.
func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tmpl, err := Parse(`{{stop}}{{range 1000000000000}}{{end}}`, map[string]Func{"stop": func(a []any) (any, error) {
		cancel()
		return "", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tmpl.Execute(ctx, &strings.Builder{}, map[string]any{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
