package jsontemplate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
)

// functions are all but and and or, which do not evaluate all their arguments.
func functions() map[string]Func {
	return map[string]Func{
		"not":      exactly(1, func(a []any) (any, error) { return !truth(a[0]), nil }),
		"len":      exactly(1, length),
		"index":    atLeast(1, index),
		"slice":    atLeast(1, part),
		"print":    func(a []any) (any, error) { return fmt.Sprint(a...), nil },
		"println":  func(a []any) (any, error) { return fmt.Sprintln(a...), nil },
		"printf":   atLeast(1, printf),
		"html":     func(a []any) (any, error) { return htmlEscaper.Replace(joined(a)), nil },
		"urlquery": func(a []any) (any, error) { return url.QueryEscape(joined(a)), nil },

		"eq": atLeast(1, func(a []any) (any, error) { return equalsAny(a[0], a[1:]) }),
		"ne": exactly(2, func(a []any) (any, error) {
			same, err := equalsAny(a[0], a[1:])
			return !same, err
		}),
		"lt": ordered(func(c int) bool { return c < 0 }),
		"le": ordered(func(c int) bool { return c <= 0 }),
		"gt": ordered(func(c int) bool { return c > 0 }),
		"ge": ordered(func(c int) bool { return c >= 0 }),

		"json":    exactly(1, toJSON),
		"join":    exactly(2, join),
		"split":   exactly(2, split),
		"upper":   onText(strings.ToUpper),
		"lower":   onText(strings.ToLower),
		"timefmt": exactly(2, timefmt),
	}
}

func exactly(n int, f Func) Func {
	return func(a []any) (any, error) {
		if len(a) != n {
			return nil, fmt.Errorf("it takes %d arguments, and has %d", n, len(a))
		}
		return f(a)
	}
}

func atLeast(n int, f Func) Func {
	return func(a []any) (any, error) {
		if len(a) < n {
			return nil, fmt.Errorf("it takes at least %d arguments, and has %d", n, len(a))
		}
		return f(a)
	}
}

func onText(f func(string) string) Func {
	return exactly(1, func(a []any) (any, error) {
		s, err := asText(a[0])
		return f(s), err
	})
}

func asText(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("it takes a string, not %s", kindOf(v))
	}
	return s, nil
}

func length(a []any) (any, error) {
	switch v := a[0].(type) {
	case string:
		return len(v), nil
	case []any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return nil, fmt.Errorf("%s has no length", kindOf(a[0]))
}

// position is an index of something with room for limit.
func position(v any, limit int) (int, error) {
	n, ok := integer(v)
	if !ok {
		return 0, fmt.Errorf("%s is no index of it", kindOf(v))
	}
	if n < 0 || n > int64(limit) {
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return int(n), nil
}

func index(a []any) (any, error) {
	item := a[0]
	if item == nil {
		return nil, errors.New("null has nothing in it")
	}
	for _, at := range a[1:] {
		switch v := item.(type) {
		case map[string]any:
			key, ok := at.(string)
			if !ok {
				return nil, fmt.Errorf("%s is no key of an object", kindOf(at))
			}
			item = v[key]
		case []any:
			n, err := position(at, len(v)-1)
			if err != nil {
				return nil, err
			}
			item = v[n]
		case string:
			n, err := position(at, len(v)-1)
			if err != nil {
				return nil, err
			}
			item = int(v[n])
		default:
			return nil, fmt.Errorf("%s has nothing in it", kindOf(item))
		}
	}
	return item, nil
}

func part(a []any) (any, error) {
	item, limits := a[0], a[1:]
	var size, room int
	switch v := item.(type) {
	case string:
		size, room = len(v), len(v)
	case []any:
		size, room = len(v), cap(v)
	default:
		return nil, fmt.Errorf("%s has no parts", kindOf(item))
	}
	s, isText := item.(string)
	if len(limits) > 3 || isText && len(limits) > 2 {
		return nil, errors.New("there are too many limits")
	}
	at := [3]int{0, size, room}
	for i, l := range limits {
		var err error
		if at[i], err = position(l, room); err != nil {
			return nil, err
		}
	}
	if at[0] > at[1] || at[1] > at[2] {
		return nil, errors.New("the end is before the beginning")
	}
	if isText {
		return s[at[0]:at[1]], nil
	}
	return item.([]any)[at[0]:at[1]:at[2]], nil
}

// printf writes numbers as Go does, and those of JSON also where the format
// asks for a string, or has %d for a number like 3.0.
func printf(a []any) (any, error) {
	format, err := asText(a[0])
	if err != nil {
		return nil, err
	}
	args := slices.Clone(a[1:])
	for i, v := range args {
		switch v.(type) {
		case int, int64, float64:
			if !strings.Contains(format, "*") { // a width has to be a plain number
				args[i] = formatted{v}
			}
		}
	}
	return fmt.Sprintf(format, args...), nil
}

// formatted is a number for printf.
type formatted struct{ v any }

// Format implements [fmt.Formatter].
func (n formatted) Format(f fmt.State, verb rune) {
	v := n.v
	switch whole, isFloat := v.(float64); {
	case verb == 's' || verb == 'q':
		v = fmt.Sprint(v)
	case verb == 'd' && isFloat && math.Abs(whole) < 1<<53 && whole == math.Trunc(whole):
		v = int64(whole)
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), v)
}

var htmlEscaper = strings.NewReplacer("\x00", "\uFFFD", `"`, "&#34;", "'", "&#39;", "&", "&amp;", "<", "&lt;", ">", "&gt;")

// joined is what print gives, with null as an action prints it.
func joined(a []any) string {
	shown := make([]any, len(a))
	for i, v := range a {
		if v == nil {
			v = text(absent{})
		}
		shown[i] = v
	}
	return fmt.Sprint(shown...)
}

// equalsAny tells whether v is one of others. Two that cannot be equal for
// their kinds are an error, except that one of them is null.
func equalsAny(v any, others []any) (bool, error) {
	if len(others) == 0 {
		return false, errors.New("there is nothing to compare with")
	}
	for _, o := range others {
		if same, err := equal(v, o); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

func equal(x, y any) (bool, error) {
	if x == nil || y == nil {
		return x == nil && y == nil, nil
	}
	if x, ok := x.(bool); ok {
		if y, ok := y.(bool); ok {
			return x == y, nil
		}
	}
	c, err := compare(x, y)
	return err == nil && c == 0, err
}

// compare orders two strings, or two numbers of one kind.
func compare(x, y any) (int, error) {
	switch x := x.(type) {
	case string:
		if y, ok := y.(string); ok {
			return cmp.Compare(x, y), nil
		}
	case float64:
		if y, ok := y.(float64); ok {
			return cmp.Compare(x, y), nil
		}
	case int, int64:
		m, _ := integer(x)
		if n, ok := integer(y); ok {
			return cmp.Compare(m, n), nil
		}
	}
	return 0, fmt.Errorf("%s and %s cannot be compared", kindOf(x), kindOf(y))
}

func ordered(is func(int) bool) Func {
	return exactly(2, func(a []any) (any, error) {
		c, err := compare(a[0], a[1])
		return is(c), err
	})
}

// toJSON writes a value as JSON in one line.
func toJSON(a []any) (any, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a[0]); err != nil {
		return nil, err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// join puts a separator between the elements of a list: join ", " .mailboxes.
func join(a []any) (any, error) {
	sep, err := asText(a[0])
	if err != nil {
		return nil, err
	}
	list, ok := a[1].([]any)
	if !ok && a[1] != nil {
		return nil, fmt.Errorf("it takes a list, not %s", kindOf(a[1]))
	}
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = text(v)
	}
	return strings.Join(parts, sep), nil
}

// split is the other way round: split "@" .username.
func split(a []any) (any, error) {
	sep, err := asText(a[0])
	if err != nil {
		return nil, err
	}
	s, err := asText(a[1])
	if err != nil {
		return nil, err
	}
	var list []any
	for part := range strings.SplitSeq(s, sep) {
		list = append(list, part)
	}
	return slices.Clip(list), nil
}

// timefmt writes a time (RFC 3339) in Go's layout, in its own zone, which is
// UTC: timefmt "2 January 2006" .expires. Null stays empty.
func timefmt(a []any) (any, error) {
	layout, err := asText(a[0])
	if err != nil || a[1] == nil {
		return "", err
	}
	s, err := asText(a[1])
	if err != nil {
		return nil, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, fmt.Errorf("%q is no time as in 2026-11-22T12:00:00Z", s)
	}
	return t.Format(layout), nil
}
