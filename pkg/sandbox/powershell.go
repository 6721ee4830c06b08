package sandbox

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"text/tabwriter"
)

// PowerShell runs lines of Exchange Online PowerShell as an administrator
// would, and gives what they print. It knows the cmdlets by which a service
// principal gets at mailboxes and by which protocols are switched, takes names
// without regard to case, and refuses every cmdlet and parameter that it does
// not know. As in Exchange, the object id that New-ServicePrincipal is given
// is compared with nothing: with a wrong one, sign-ins fail.
//
// A script that cannot be read is not run at all. Otherwise it ends at the
// first error, and what came before holds. Variables live as long as the
// script. Sign-ins see changes after Faults.ExchangePropagation.
//
// The same is served at POST {authority}/sandbox/powershell, in text/plain,
// with status 400 for errors.
func (s *Server) PowerShell(script string) (output string, err error) {
	list, err := parsePowerShell(script)
	if err != nil {
		return "", err
	}
	r := &psRun{x: s.exchange, variables: make(map[string]psValue)}
	for _, st := range list {
		if err := r.statement(st); err != nil {
			return r.out.String(), err
		}
	}
	return r.out.String(), nil
}

// withPowerShell puts the endpoint of PowerShell before h. Pages of other sites
// in a browser cannot use it.
func (s *Server) withPowerShell(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("POST /sandbox/powershell", http.NewCrossOriginProtection().Handler(http.HandlerFunc(s.servePowerShell)))
	return mux
}

func (s *Server) servePowerShell(w http.ResponseWriter, r *http.Request) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	switch {
	case media != "text/plain":
		http.Error(w, "Content-Type must be text/plain", http.StatusUnsupportedMediaType)
		return
	case err != nil:
		http.Error(w, "the body is too long or was cut off", http.StatusBadRequest)
		return
	}
	output, err := s.PowerShell(string(body))
	if err != nil {
		http.Error(w, output+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, output)
}

// psRun is a script that runs.
type psRun struct {
	x         *exchange
	variables map[string]psValue // by name in lower case
	out       bytes.Buffer
}

// psKind is what a value is, or what a parameter takes.
type psKind int

const (
	psText psKind = iota
	psGUID        // a text, of a parameter alone
	psBool
	psNull
	psSwitch // of a parameter: stands alone, or has a colon and a psBool
	psNullBool
	psRows // what a cmdlet gave
)

// psValue is a value: text for psText, truth for psBool, rows for psRows.
type psValue struct {
	kind  psKind
	text  string
	truth bool
	rows  []psRow
}

// psRow is an object, its properties in the order in which they are printed.
type psRow []psField

type psField struct{ name, value string }

func (row psRow) get(name string) (string, bool) {
	for _, f := range row {
		if sameFold(f.name, name) {
			return f.value, true
		}
	}
	return "", false
}

// psArgs are the values of a cmdlet's parameters, by name in lower case; those
// not given are not there.
type psArgs map[string]psValue

func (a psArgs) text(name string) string { return a[strings.ToLower(name)].text }

func (a psArgs) has(name string) bool { _, ok := a[strings.ToLower(name)]; return ok }

// statement runs one statement.
func (r *psRun) statement(st psStatement) error {
	var v psValue
	if st.cmdlet == "" {
		var err error
		if v, err = r.value(st.psPlace, st.value); err != nil {
			return err
		}
	} else {
		c, ok := cmdlets[strings.ToLower(st.cmdlet)]
		if !ok {
			return st.errorf("The term '%s' is not recognized as the name of a cmdlet, function, script file, or operable program.", printable(st.cmdlet))
		}
		args, err := r.bind(st, c)
		if err != nil {
			return err
		}
		rows, err := c.run(r, args)
		if err != nil {
			return st.errorf("%s: %v", c.name, err)
		}
		v = psValue{kind: psRows, rows: rows}
	}
	switch {
	case st.variable == "":
		r.print(v)
	case constants[strings.ToLower(st.variable)].kind != psText:
		return st.errorf("Cannot overwrite variable %s because it is read-only or constant.", st.variable)
	default:
		r.variables[strings.ToLower(st.variable)] = v
	}
	return nil
}

// constants are the variables that PowerShell has itself.
var constants = map[string]psValue{
	"true": {kind: psBool, truth: true}, "false": {kind: psBool}, "null": {kind: psNull},
}

// value is what a word stands for.
func (r *psRun) value(at psPlace, w *psWord) (psValue, error) {
	var all psValue
	for _, part := range w.parts {
		if part.variable == "" {
			all.text += part.text
			continue
		}
		v, ok := constants[strings.ToLower(part.variable)]
		if !ok {
			v, ok = r.variables[strings.ToLower(part.variable)]
		}
		switch {
		case !ok:
			return v, at.errorf("The variable '$%s' cannot be retrieved because it has not been set.", part.variable)
		case part.property != "":
			if v.kind != psRows || len(v.rows) != 1 {
				return v, at.errorf("'$%s' is not one object, so that it has no property '%s'.", part.variable, part.property)
			}
			text, found := v.rows[0].get(part.property)
			if !found {
				return v, at.errorf("The property '%s' cannot be found on '$%s'.", part.property, part.variable)
			}
			v = psValue{text: text}
		}
		if !w.quoted {
			return v, nil // a variable without quotes stands alone
		}
		if v.kind != psText {
			return v, at.errorf("'$%s' is not text.", part.variable)
		}
		all.text += v.text
	}
	return all, nil
}

// bind gives the arguments of a statement to the parameters of its cmdlet.
func (r *psRun) bind(st psStatement, c cmdlet) (psArgs, error) {
	args := make(psArgs)
	for _, arg := range st.args {
		i := c.param(arg.name)
		if i < 0 {
			return nil, arg.errorf("%s: A parameter cannot be found that matches parameter name '%s'.", c.name, printable(arg.name))
		}
		p := c.params[i]
		if args.has(p.name) {
			return nil, arg.errorf("%s: Cannot bind parameter because parameter '%s' is specified more than once.", c.name, p.name)
		}
		v := psValue{kind: psBool, truth: true}
		switch {
		case arg.value != nil:
			var err error
			if v, err = r.value(arg.psPlace, arg.value); err != nil {
				return nil, err
			}
		case p.kind != psSwitch:
			return nil, arg.errorf("%s: Missing an argument for parameter '%s'.", c.name, p.name)
		}
		if p.kind == psSwitch && arg.value != nil && !arg.colon {
			return nil, arg.errorf("%s: A positional parameter cannot be found that accepts argument '%s': the value of a switch needs a colon.", c.name, v)
		}
		v, ok := p.accept(v)
		if !ok {
			return nil, arg.errorf("%s: Cannot process argument transformation on parameter '%s': '%s' is not of its type.", c.name, p.name, v)
		}
		args[strings.ToLower(p.name)] = v
	}
	for _, p := range c.params {
		if p.required && !args.has(p.name) {
			return nil, st.errorf("%s: Cannot process command because of one or more missing mandatory parameters: %s.", c.name, p.name)
		}
	}
	return args, nil
}

// String is a value for errors.
func (v psValue) String() string {
	switch v.kind {
	case psBool:
		return psTruth(v.truth)
	case psNull:
		return "$null"
	case psRows:
		return fmt.Sprintf("%d objects", len(v.rows))
	}
	return printable(v.text)
}

func psTruth(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// print shows a value: objects as a table, with an empty line after it.
func (r *psRun) print(v psValue) {
	if v.kind == psText {
		fmt.Fprintln(&r.out, v.text)
		return
	}
	if v.kind != psRows {
		fmt.Fprintln(&r.out, v)
		return
	}
	if len(v.rows) == 0 {
		return
	}
	w := tabwriter.NewWriter(&r.out, 0, 0, 1, ' ', 0)
	line := func(row psRow, cell func(psField) string) {
		var cells []string
		for _, f := range row {
			cells = append(cells, cell(f))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	line(v.rows[0], func(f psField) string { return f.name })
	line(v.rows[0], func(f psField) string { return strings.Repeat("-", len(f.name)) })
	for _, row := range v.rows {
		line(row, func(f psField) string { return f.value })
	}
	w.Flush()
	fmt.Fprintln(&r.out)
}
