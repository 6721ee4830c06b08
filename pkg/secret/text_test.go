package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
)

const plain = "hunter2-\x01é"

type (
	exported   struct{ T Text }
	unexported struct{ t Text }
	deep       struct {
		P *unexported
		m map[string]Text
		s []Text
		a any
		e exported
	}
)

// holders are the ways in which a secret may reach a printer.
func holders() map[string]any {
	t := New(plain)
	return map[string]any{
		"text":               t,
		"pointer":            &t,
		"exported field":     exported{t},
		"unexported field":   unexported{t},
		"pointer to struct":  &exported{t},
		"pointer to hidden":  &unexported{t},
		"slice":              []Text{t},
		"slice of hidden":    []unexported{{t}},
		"array":              [1]Text{t},
		"map":                map[string]Text{"k": t},
		"map of hidden":      map[string]unexported{"k": {t}},
		"any":                []any{t, &t, unexported{t}},
		"deep":               deep{&unexported{t}, map[string]Text{"k": t}, []Text{t}, t, exported{t}},
		"pointer to deep":    &deep{&unexported{t}, map[string]Text{"k": t}, []Text{t}, &t, exported{t}},
		"reflect.Value":      reflect.ValueOf(t),
		"hidden by reflect":  reflect.ValueOf(unexported{t}),
		"error that has one": &textError{t},
	}
}

type textError struct{ t Text }

func (e *textError) Error() string { return fmt.Sprint("failed with ", e.t) }

func checkHidden(t *testing.T, how, out string) {
	t.Helper()
	for _, leak := range []string{"hunter", fmt.Sprintf("%x", "hunter"), fmt.Sprintf("%X", "hunter"), fmt.Sprint([]byte("hunt"))[1:]} {
		if strings.Contains(out, leak) {
			t.Errorf("%s shows the secret: %s", how, out)
		}
	}
}

func TestTextCannotBePrinted(t *testing.T) {
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%#q", "%x", "%X", "% x", "%d", "%c", "%U", "%o", "%b",
		"%e", "%g", "%t", "%T", "%p", "%w", "%z", "%10.3s", "%-20v", "%+q"}
	for name, v := range holders() {
		for _, verb := range verbs {
			checkHidden(t, verb+" of "+name, fmt.Sprintf(verb, v))
		}
		checkHidden(t, "Sprint of "+name, fmt.Sprint(v))
		checkHidden(t, "Errorf of "+name, fmt.Errorf("it is %v", v).Error())
		var out bytes.Buffer
		log.New(&out, "", 0).Print(v)
		checkHidden(t, "log of "+name, out.String())
	}
	for _, verb := range verbs {
		if verb == "%T" || verb == "%p" || verb == "%w" { // fmt asks no method for these
			continue
		}
		if got := fmt.Sprintf(verb, New(plain)); got != "[secret]" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	text := New(plain)
	if s, g := text.String(), text.GoString(); s != "[secret]" || g != "[secret]" {
		t.Errorf("String %q, GoString %q", s, g)
	}
	if got := fmt.Sprintf("%v %v", Text{}, New("")); got != "[secret] [secret]" {
		t.Errorf("empty ones print %q", got)
	}
}

func TestTextCannotBeLogged(t *testing.T) {
	for name, v := range holders() {
		for handler, newHandler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var out bytes.Buffer
			l := slog.New(newHandler(&out))
			l.With("with", v).Info("message", "key", v, slog.Group("group", "inner", v))
			checkHidden(t, handler+" log of "+name, out.String())
		}
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "password", New(plain))
	if !strings.Contains(out.String(), "password=[secret]") {
		t.Errorf("logged %s", out.String())
	}
}

func TestTextCannotBeMarshalled(t *testing.T) {
	marshallers := map[string]func(any) ([]byte, error){
		"json": json.Marshal,
		"yaml": func(v any) (b []byte, err error) {
			defer func() { // yaml panics on errors of its own making only
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v", p)
				}
			}()
			return yaml.Marshal(v)
		},
		"xml":  xml.Marshal,
		"toml": toml.Marshal,
		"gob": func(v any) ([]byte, error) {
			var out bytes.Buffer
			err := gob.NewEncoder(&out).Encode(v)
			return out.Bytes(), err
		},
	}
	for how, marshal := range marshallers {
		for name, v := range holders() {
			out, _ := marshal(v)
			checkHidden(t, how+" of "+name, string(out))
		}
		text := New(plain)
		for _, v := range []any{text, &text, exported{text}, &exported{text}} {
			if out, err := marshal(v); err == nil {
				t.Errorf("%s of %T gives %s and no error", how, v, out)
			}
		}
	}
	// As a key a Text is not even comparable; as a value it fails.
	if out, err := json.Marshal(map[string]Text{"k": New(plain)}); err == nil {
		t.Errorf("json of a map gives %s", out)
	}
	if _, err := New(plain).MarshalText(); !errors.Is(err, errMarshal) {
		t.Errorf("MarshalText: %v", err)
	}
	if _, err := New(plain).MarshalBinary(); !errors.Is(err, errMarshal) {
		t.Errorf("MarshalBinary: %v", err)
	}
}

func TestTextReveals(t *testing.T) {
	for _, s := range []string{"", "x", plain, "\xff\x00", strings.Repeat("long", 1<<16)} {
		text := New(s)
		kept := text
		if text.Reveal() != s || kept.Reveal() != s {
			t.Errorf("%q comes back as %q", s, text.Reveal())
		}
		if text.IsZero() != (s == "") {
			t.Errorf("IsZero of %q is %v", s, text.IsZero())
		}
	}
	if (Text{}).Reveal() != "" || !(Text{}).IsZero() {
		t.Error("the zero Text is not empty")
	}
}

func TestTextEqual(t *testing.T) {
	for _, test := range []struct {
		a, b Text
		want bool
	}{
		{New("a"), New("a"), true},
		{New("a"), New("b"), false},
		{New("a"), New("aa"), false},
		{New("a"), New("A"), false},
		{New(""), Text{}, true},
		{Text{}, Text{}, true},
		{New("a"), Text{}, false},
		{New("a\x00"), New("a"), false},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%q equals %q: %v", test.a.Reveal(), test.b.Reveal(), got)
		}
		if got := test.b.Equal(test.a); got != test.want {
			t.Errorf("%q equals %q: %v", test.b.Reveal(), test.a.Reveal(), got)
		}
	}
	if reflect.TypeFor[Text]().Comparable() {
		t.Error("Texts can be compared with ==, which compares their addresses")
	}
}
