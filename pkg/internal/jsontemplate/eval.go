package jsontemplate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// noFinal stands for the value from the left of a pipe where there is none.
type noFinal struct{}

// each calls once for all that range goes over, until that says no or fails.
func (s *state) each(n parse.Node, v any, two bool, once func(key, elem any) (bool, error)) error {
	switch v := v.(type) {
	case absent:
		return nil
	case []any:
		for i, elem := range v {
			if more, err := once(i, elem); !more || err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if more, err := once(k, v[k]); !more || err != nil {
				return err
			}
		}
		return nil
	}
	count, ok := integer(v)
	switch {
	case !ok:
		return s.errorAt(n, "range cannot go over %s", kindOf(v))
	case two:
		return s.errorAt(n, "range over a number has one variable, not two")
	}
	for i := range count {
		if more, err := once(absent{}, sameInt(v, i)); !more || err != nil {
			return err
		}
	}
	return nil
}

// sameInt is n as the integer type of like.
func sameInt(like any, n int64) any {
	if _, ok := like.(int); ok {
		return int(n)
	}
	return n
}

// pipeline gives the value of the last command. What it declares stays until
// whoever asked pops it. Null and what is not there are the same from here on.
func (s *state) pipeline(dot any, pipe *parse.PipeNode) (any, error) {
	if pipe == nil {
		return absent{}, nil
	}
	var v any = noFinal{}
	for _, cmd := range pipe.Cmds {
		var err error
		if v, err = s.command(dot, cmd, v); err != nil {
			return nil, err
		}
		if v == nil {
			v = absent{}
		}
	}
	for _, d := range pipe.Decl {
		if !pipe.IsAssign {
			s.vars = append(s.vars, variable{d.Ident[0], v})
		} else if err := s.set(d, v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// command is the value of one part of a pipeline; final is that of the part
// before.
func (s *state) command(dot any, cmd *parse.CommandNode, final any) (any, error) {
	first := cmd.Args[0]
	if n, ok := first.(*parse.IdentifierNode); ok {
		return s.call(dot, n, cmd.Args[1:], final)
	}
	if _, none := final.(noFinal); len(cmd.Args) > 1 || !none {
		return nil, s.errorAt(first, "%s is no function, and takes no arguments", first)
	}
	if _, ok := first.(*parse.NilNode); ok {
		return nil, s.errorAt(first, "nil alone is no command")
	}
	return s.value(dot, first)
}

// value is that of a node that stands for one: an argument, or a command
// without any.
func (s *state) value(dot any, node parse.Node) (any, error) {
	switch n := node.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.NilNode:
		return nil, nil
	case *parse.BoolNode:
		return n.True, nil
	case *parse.StringNode:
		return n.Text, nil
	case *parse.NumberNode:
		return s.number(n)
	case *parse.FieldNode:
		return s.fields(n, dot, n.Ident)
	case *parse.VariableNode:
		for i := len(s.vars) - 1; i >= 0; i-- {
			if s.vars[i].name == n.Ident[0] {
				return s.fields(n, s.vars[i].value, n.Ident[1:])
			}
		}
		return nil, s.errorAt(n, "there is no variable %s", n.Ident[0])
	case *parse.PipeNode:
		return s.pipeline(dot, n)
	case *parse.ChainNode:
		v, err := s.value(dot, n.Node)
		if err != nil {
			return nil, err
		}
		return s.fields(n, v, n.Field)
	case *parse.IdentifierNode:
		return s.call(dot, n, nil, noFinal{})
	}
	return nil, s.errorAt(node, "%s has no value", node)
}

// number is a constant: float64 where it is written like one, else int.
func (s *state) number(n *parse.NumberNode) (any, error) {
	hex := len(n.Text) > 2 && n.Text[0] == '0' && (n.Text[1] == 'x' || n.Text[1] == 'X') && !strings.ContainsAny(n.Text, "pP")
	switch {
	case n.IsComplex:
		return nil, s.errorAt(n, "JSON has no complex numbers")
	case n.IsFloat && !hex && n.Text[0] != '\'' && strings.ContainsAny(n.Text, ".eEpP"):
		return n.Float64, nil
	case n.IsInt && int64(int(n.Int64)) == n.Int64:
		return int(n.Int64), nil
	}
	return nil, s.errorAt(n, "%s is too large", n.Text)
}

// fields follows names from v on. A field that an object does not have is
// absent, as is every field of that.
func (s *state) fields(n parse.Node, v any, names []string) (any, error) {
	for _, name := range names {
		switch o := v.(type) {
		case absent:
			continue
		case map[string]any:
			var ok bool
			if v, ok = o[name]; !ok {
				v = absent{}
			}
		default:
			return nil, s.errorAt(n, "%s has no field %s", kindOf(v), name)
		}
	}
	return v, nil
}

// call evaluates the arguments and calls the function. The value from the left
// of the pipe is the last argument.
func (s *state) call(dot any, fn *parse.IdentifierNode, args []parse.Node, final any) (any, error) {
	name := fn.Ident
	_, none := final.(noFinal)
	if name == "and" || name == "or" {
		if len(args) == 0 && none {
			return nil, s.errorAt(fn, "%s takes at least one argument", name)
		}
		var v any
		for _, arg := range args {
			var err error
			if v, err = s.value(dot, arg); err != nil || truth(v) == (name == "or") {
				return v, err
			}
		}
		if !none {
			v = final
		}
		return v, nil
	}
	values := make([]any, 0, len(args)+1)
	for _, arg := range args {
		v, err := s.value(dot, arg)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	if !none {
		values = append(values, final)
	}
	for i, v := range values {
		if _, ok := v.(absent); ok {
			values[i] = nil
		}
	}
	f := s.t.funcs[name]
	if f == nil {
		return nil, s.errorAt(fn, "there is no function %s", name)
	}
	v, err := f(values)
	if text, ok := v.(string); ok && err == nil && len(text) > MaxOutput {
		err = errors.New("the text is too long")
	}
	if err != nil {
		return nil, s.errorAt(fn, "%s: %w", name, err)
	}
	return v, nil
}

// text is a value as it is printed.
func text(v any) string {
	switch v := v.(type) {
	case absent:
		return "<no value>"
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// truth tells whether a value is neither false, nor zero, nor empty.
func truth(v any) bool {
	switch v := v.(type) {
	case nil, absent:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case float64:
		return v != 0
	}
	n, _ := integer(v)
	return n != 0
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// kindOf names the kind of a value for errors.
func kindOf(v any) string {
	switch v.(type) {
	case nil, absent:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "a number"
}
