package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/internal/jsontemplate"
)

// withoutData are the commands that print no data, or text that has one form
// only, with their subcommands. Each other command has a schema in docs/schema (a test holds it).
var withoutData = []string{"cert export", "cert install", "cert renew", "cert uninstall", "completion", "config schema", "demo", "help", "sandbox", "serve", "service logs", "service restart", "service run", "service start", "service stop", "sessions close"}

// onlyHold are the commands that have no work of their own, only subcommands.
var onlyHold = []string{"cert", "config", "service"}

// printsData tells whether --jq, --template and all values of --output have a
// meaning for a command.
func printsData(cmd *cobra.Command) bool {
	if !cmd.HasParent() || slices.Contains(onlyHold, commandName(cmd)) {
		return false
	}
	for c := cmd; c.HasParent(); c = c.Parent() {
		if slices.Contains(withoutData, commandName(c)) {
			return false
		}
	}
	return true
}

// commandName is a command as it is typed behind o365pw.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// filter is what --jq or --template does to the object that a command prints.
type filter struct {
	flag string
	run  func(ctx context.Context, w io.Writer, object any) error
	read func([]byte) (any, error)
	ctx  context.Context // the command's
}

// filterError tells that an expression failed on what the command printed,
// whose work was done.
type filterError struct {
	flag string
	err  error
}

func (e *filterError) Error() string {
	return fmt.Sprintf("the command has done its work, but %s failed on the result: %v", e.flag, e.err)
}

func (e *filterError) Unwrap() error { return e.err }

// filterGrace is how long an expression may run on after an interrupt: what the
// command has done is done, and its result should be seen.
const filterGrace = time.Second

// prepareOutput reads --jq and --template before the command does anything,
// and refuses what does not go together.
func (a *app) prepareOutput(cmd *cobra.Command) error {
	flags := cmd.Flags()
	flag := ""
	for _, name := range []string{"jq", "template"} {
		if !flags.Changed(name) {
			continue
		}
		if flag != "" {
			return &usageError{problem: "--jq and --template both say what is printed", hint: "take one of them"}
		}
		flag = "--" + name
	}
	asked := flag
	if flag == "" && a.output != outputAuto && a.output != outputTable && a.output != outputJSON { // under json, errors are an object
		asked = "--output " + string(a.output)
	}
	if asked != "" && !printsData(cmd) {
		return &usageError{problem: cmd.CommandPath() + " prints no data, so " + asked + " has no meaning for it", hint: "leave " + strings.Fields(asked)[0] + " out"}
	}
	switch {
	case flag == "":
		return nil
	case a.output != outputAuto && a.output != outputJSON:
		return &usageError{problem: flag + " works on JSON, so --output " + string(a.output) + " has no meaning beside it", hint: "leave --output out"}
	}
	f := &filter{flag: flag, ctx: cmd.Context()}
	var err error
	if flag == "--jq" {
		f.read = readForJQ
		f.run, err = jqFilter(a.jq)
	} else {
		f.read = jsontemplate.Decode
		f.run, err = a.templateFilter(a.template)
	}
	if err != nil {
		return &usageError{problem: flag + ": " + err.Error(), hint: "o365pw help output; the object is what " + cmd.CommandPath() + " -o json prints"}
	}
	a.plainErrors = a.output != outputJSON
	a.filter, a.output = f, outputJSON
	return nil
}

// jqFilter reads an expression. The program's environment, other files and
// other input are not there for it.
func jqFilter(expression string) (func(context.Context, io.Writer, any) error, error) {
	if strings.TrimSpace(expression) == "" { // an unset variable in a script must not mean "all"
		return nil, errors.New("the expression is empty")
	}
	query, err := gojq.Parse(expression)
	if e, ok := errors.AsType[*gojq.ParseError](err); ok {
		// Offset is behind the token.
		return nil, fmt.Errorf("%w at %s", err, place(expression, e.Offset-len(e.Token)))
	}
	if err != nil {
		return nil, err
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer, object any) error {
		iter := code.RunWithContext(ctx, object)
		for {
			v, more := iter.Next()
			if !more {
				return nil
			}
			switch v := v.(type) {
			case string:
				_, err = io.WriteString(w, v+"\n")
			case error:
				if halt, ok := errors.AsType[*gojq.HaltError](v); ok && halt.Value() == nil {
					return nil // halt
				}
				return v
			default:
				var b []byte
				if b, err = gojq.Marshal(v); err == nil {
					_, err = w.Write(append(b, '\n'))
				}
			}
			if err != nil {
				return err
			}
		}
	}, nil
}

// place is where in a text of one or more lines an offset is.
func place(s string, offset int) string {
	before := s[:max(0, min(offset, len(s)))]
	line := strings.Count(before, "\n")
	column := len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
	if line == 0 {
		return fmt.Sprintf("column %d", column)
	}
	return fmt.Sprintf("line %d, column %d", line+1, column)
}

// readForJQ keeps numbers as they are written.
func readForJQ(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

func (a *app) templateFilter(text string) (func(context.Context, io.Writer, any) error, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the template is empty")
	}
	t, err := jsontemplate.Parse(text, map[string]jsontemplate.Func{"timeago": a.timeago})
	if err != nil {
		return nil, err
	}
	return t.Execute, nil
}

// timeago is how tables write times: "3 days ago", "in 6 months", "-" for null.
func (a *app) timeago(args []any) (any, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("it takes 1 argument, and has %d", len(args))
	}
	if args[0] == nil {
		return relative(time.Time{}, a.Now()), nil
	}
	s, _ := args[0].(string)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, fmt.Errorf("%v is no time as in 2026-11-22T12:00:00Z", args[0])
	}
	return relative(t, a.Now()), nil
}

// printFiltered prints what the filter makes of an object. What it gave before
// it failed is printed, too.
func (a *app) printFiltered(object []byte) error {
	f := a.filter
	v, err := f.read(object)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	if a.stdoutTTY() {
		v = forTerminal(v)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.ctx))
	defer cancel()
	defer context.AfterFunc(f.ctx, func() { time.AfterFunc(filterGrace, cancel) })()
	out := bufio.NewWriter(printer{a})
	err = f.run(ctx, out, v)
	if werr := out.Flush(); werr != nil {
		return werr // nobody reads any more: no fault of the expression
	}
	if err != nil {
		return &filterError{f.flag, err}
	}
	return nil
}

// forTerminal takes what could move the cursor of a terminal out of an object's
// texts. They may have come from others; what the expression adds has not.
func forTerminal(v any) any {
	switch v := v.(type) {
	case string:
		lines := strings.Split(v, "\n")
		for i, l := range lines {
			cells := strings.Split(l, "\t")
			for j := range cells {
				cells[j] = printable(cells[j])
			}
			lines[i] = strings.Join(cells, "\t")
		}
		return strings.Join(lines, "\n")
	case []any:
		for i := range v {
			v[i] = forTerminal(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = forTerminal(v[k])
		}
	}
	return v
}
