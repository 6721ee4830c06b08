// Package jsontemplate runs Go templates on JSON values.
//
// The language is that of text/template, read by the standard parser
// (text/template/parse): actions, pipelines, variables, if, with, range with
// break and continue, define, block and template. Values are JSON alone, so
// that nothing is called by name: text/template calls methods so, for which the
// linker has to keep every exported method of the whole program. Functions are
// those of text/template without call and js, and a few of its own (see Parse).
package jsontemplate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/template/parse"
)

// MaxDepth is how deep templates may use each other, and MaxOutput how many
// bytes one run may write, or one function give.
const (
	MaxDepth  = 1000
	MaxOutput = 64 << 20
)

// Func is a function of a template. Its arguments are JSON values, as Decode
// gives them; nil is null, and what is not there. Its result is one, too.
type Func func(args []any) (any, error)

// Template is a template that has been read. It can be run several times at
// once.
type Template struct {
	trees map[string]*parse.Tree
	funcs map[string]Func
}

// rootName is the template's own, as against those that it defines.
const rootName = "template"

// Parse reads a template. Beside the functions of text/template it knows json,
// join, split, upper, lower and timefmt, and those of more. Errors name the
// line.
func Parse(text string, more map[string]Func) (*Template, error) {
	t := &Template{funcs: functions()}
	for name, f := range more {
		t.funcs[name] = f
	}
	known := map[string]any{"and": true, "or": true} // in eval, since they do not evaluate all that they are given
	for name := range t.funcs {
		known[name] = true
	}
	var err error
	if t.trees, err = parse.Parse(rootName, text, "", "", known); err != nil {
		msg := strings.TrimPrefix(err.Error(), "template: "+rootName+":")
		if line, rest, ok := strings.Cut(msg, ": "); ok {
			if _, nerr := strconv.Atoi(line); nerr == nil {
				return nil, fmt.Errorf("line %s: %s", line, rest)
			}
		}
		return nil, errors.New(msg)
	}
	return t, nil
}

// Decode reads one JSON value into what templates work on: nil, bool, string,
// []any, map[string]any, and int, int64 (where int is shorter) or float64.
func Decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.Atoi(v.String()); err == nil {
			return n
		}
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // what is too large is infinite
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
		return v[:len(v):len(v)]
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// Execute runs the template on a value that Decode gave. What was written
// before an error stays written. Errors name line and column; the end of ctx is
// one.
func (t *Template) Execute(ctx context.Context, w io.Writer, data any) error {
	if data == nil {
		data = absent{}
	}
	s := &state{t: t, tree: t.trees[rootName], ctx: ctx, out: &limitedWriter{w: w}, vars: []variable{{"$", data}}}
	return s.walk(data, s.tree.Root)
}

// limitedWriter ends a template that writes without end.
type limitedWriter struct {
	w io.Writer
	n int
}

var errOutput = fmt.Errorf("it writes more than %d MiB", MaxOutput>>20)

func (l *limitedWriter) Write(b []byte) (int, error) {
	if l.n += len(b); l.n > MaxOutput {
		return 0, errOutput
	}
	return l.w.Write(b)
}

// state is one run of one template. Templates that it uses have their own.
type state struct {
	t     *Template
	tree  *parse.Tree
	ctx   context.Context
	out   *limitedWriter
	vars  []variable
	depth int
}

type variable struct {
	name  string
	value any
}

// absent is what is not there, as against null: a field of it is not there
// either, while a field of null is an error.
type absent struct{}

// The ends of a loop's body that are none of the template.
var (
	errBreak    = errors.New("break outside of range")
	errContinue = errors.New("continue outside of range")
)

// errorAt says where an error is. Errors of what is beneath have their place
// already.
func (s *state) errorAt(n parse.Node, format string, args ...any) error {
	location, what := s.tree.ErrorContext(n)
	_, place, _ := strings.Cut(location, ":")
	line, column, _ := strings.Cut(place, ":")
	before, _ := strconv.Atoi(column)
	return fmt.Errorf("line %s, column %d, at <%s>: %w", line, before+1, what, fmt.Errorf(format, args...))
}

func (s *state) pop(mark int) { s.vars = s.vars[:mark] }

// set changes the variable that was declared last under this name. The parser
// does not look whether there is one.
func (s *state) set(n *parse.VariableNode, value any) error {
	for i := len(s.vars) - 1; i >= 0; i-- {
		if s.vars[i].name == n.Ident[0] {
			s.vars[i].value = value
			return nil
		}
	}
	return s.errorAt(n, "there is no variable %s to assign to", n.Ident[0])
}

func (s *state) walk(dot any, node parse.Node) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	switch n := node.(type) {
	case *parse.ListNode:
		for _, sub := range n.Nodes {
			if err := s.walk(dot, sub); err != nil {
				return err
			}
		}
		return nil
	case *parse.TextNode:
		_, err := s.out.Write(n.Text)
		return err
	case *parse.ActionNode:
		v, err := s.pipeline(dot, n.Pipe)
		if err != nil || len(n.Pipe.Decl) > 0 {
			return err
		}
		_, err = io.WriteString(s.out, text(v))
		return err
	case *parse.IfNode:
		return s.choose(dot, n.Pipe, n.List, n.ElseList, false)
	case *parse.WithNode:
		return s.choose(dot, n.Pipe, n.List, n.ElseList, true)
	case *parse.RangeNode:
		return s.loop(dot, n)
	case *parse.TemplateNode:
		return s.use(dot, n)
	case *parse.BreakNode:
		return errBreak
	case *parse.ContinueNode:
		return errContinue
	case *parse.CommentNode:
		return nil
	}
	return s.errorAt(node, "%s cannot be used", node)
}

// choose is if, or with, which gives its list another dot.
func (s *state) choose(dot any, pipe *parse.PipeNode, list, other *parse.ListNode, with bool) error {
	defer s.pop(len(s.vars))
	v, err := s.pipeline(dot, pipe)
	switch {
	case err != nil:
		return err
	case truth(v) && with:
		return s.walk(v, list)
	case truth(v):
		return s.walk(dot, list)
	case other != nil:
		return s.walk(dot, other)
	}
	return nil
}

// loop is range: over a list, an object by its sorted keys, or the numbers
// below an integer.
func (s *state) loop(dot any, r *parse.RangeNode) error {
	defer s.pop(len(s.vars))
	v, err := s.pipeline(dot, r.Pipe)
	if err != nil {
		return err
	}
	mark, decl := len(s.vars), r.Pipe.Decl
	ran := false
	once := func(key, elem any) (more bool, err error) {
		ran = true
		defer s.pop(mark)
		switch {
		case len(decl) == 0:
		case r.Pipe.IsAssign:
			for i, v := range [][]any{nil, {elem}, {key, elem}}[len(decl)] {
				if err := s.set(decl[i], v); err != nil {
					return false, err
				}
			}
		default:
			s.vars[mark-1].value = elem
			if len(decl) > 1 {
				s.vars[mark-2].value = key
			}
		}
		switch err := s.walk(elem, r.List); err {
		case nil, errContinue:
			return true, nil
		case errBreak:
			return false, nil
		default:
			return false, err
		}
	}
	if err := s.each(r.Pipe, v, len(decl) > 1, once); err != nil {
		return err
	}
	if !ran && r.ElseList != nil {
		return s.walk(dot, r.ElseList)
	}
	return nil
}

func (s *state) use(dot any, n *parse.TemplateNode) error {
	tree := s.t.trees[n.Name]
	if tree == nil {
		return s.errorAt(n, "there is no template %q", n.Name)
	}
	if s.depth == MaxDepth {
		return s.errorAt(n, "templates use each other more than %d deep", MaxDepth)
	}
	dot, err := s.pipeline(dot, n.Pipe)
	if err != nil {
		return err
	}
	sub := &state{t: s.t, tree: tree, ctx: s.ctx, out: s.out, vars: []variable{{"$", dot}}, depth: s.depth + 1}
	return sub.walk(dot, tree.Root)
}
