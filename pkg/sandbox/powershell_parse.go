package sandbox

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A small part of PowerShell's language: statements of one cmdlet each, with
// named parameters, or of one string; "$name = " before either; '…' and "…";
// comments and continued lines. What real PowerShell would take in another way
// is an error here, and never guessed at.

// psStatement is one statement.
type psStatement struct {
	psPlace
	variable string  // that takes the result; "" without one
	cmdlet   string  // "" for a value alone
	value    *psWord // without a cmdlet
	args     []psArg
}

// psArg is a parameter; value is nil for one that stands alone.
type psArg struct {
	psPlace
	name  string
	colon bool // stands between both
	value *psWord
}

// psWord is a value: parts that follow each other directly.
type psWord struct {
	parts []psPart
	// quoted is so for "…" and '…': only these are always text.
	quoted bool
}

// psPart is text, or the value of a variable or of its property.
type psPart struct{ text, variable, property string }

// psPlace is a place in a script; both count from 1.
type psPlace struct{ line, char int }

func (at psPlace) errorf(format string, args ...any) *psError {
	return &psError{at, fmt.Sprintf(format, args...)}
}

// psError is an error with its place, as PowerShell writes it.
type psError struct {
	psPlace
	text string
}

func (e *psError) Error() string {
	return fmt.Sprintf("%s\nAt line:%d char:%d", e.text, e.line, e.char)
}

// psParser reads a script.
type psParser struct {
	src       string
	pos       int
	line      int
	lineStart int // position of the line's first byte
}

// parsePowerShell reads a whole script. Errors are *psError.
func parsePowerShell(script string) ([]psStatement, error) {
	p := &psParser{src: strings.ReplaceAll(script, "\r\n", "\n"), line: 1}
	if !utf8.ValidString(script) || strings.ContainsFunc(p.src, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		return nil, p.errorf("The script is not plain text in UTF-8.")
	}
	var list []psStatement
	for {
		p.blank(true)
		if p.pos == len(p.src) {
			return list, nil
		}
		st, err := p.statement()
		if err != nil {
			return nil, err
		}
		list = append(list, st)
	}
}

// here is the place for errors.
func (p *psParser) here() psPlace {
	return psPlace{p.line, 1 + utf8.RuneCountInString(p.src[p.lineStart:p.pos])}
}

func (p *psParser) errorf(format string, args ...any) *psError {
	return p.here().errorf(format, args...)
}

func (p *psParser) unexpected() *psError {
	return p.errorf("Unexpected token '%s'.", printable(string(p.peek())))
}

// peek gives the next character, 0 at the end.
func (p *psParser) peek() rune {
	if p.pos == len(p.src) {
		return 0
	}
	r, _ := utf8.DecodeRuneInString(p.src[p.pos:])
	return r
}

func (p *psParser) newline() {
	p.pos++
	p.line++
	p.lineStart = p.pos
}

// blank skips spaces, continued lines and comments, and with ends the ends of
// statements too.
func (p *psParser) blank(ends bool) {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == ' ' || c == '\t':
			p.pos++
		case c == '`' && strings.HasPrefix(p.src[p.pos+1:], "\n"):
			p.pos++
			p.newline()
		case c == '#':
			if i := strings.IndexByte(p.src[p.pos:], '\n'); i >= 0 {
				p.pos += i
			} else {
				p.pos = len(p.src)
			}
		case c == '\n' && ends:
			p.newline()
		case c == ';' && ends:
			p.pos++
		default:
			return
		}
	}
}

// atEnd says whether a statement ends here.
func (p *psParser) atEnd() bool {
	return p.pos == len(p.src) || p.src[p.pos] == '\n' || p.src[p.pos] == ';'
}

// delimited says whether a word may end here.
func (p *psParser) delimited() bool {
	return p.atEnd() || p.src[p.pos] == ' ' || p.src[p.pos] == '\t' || strings.HasPrefix(p.src[p.pos:], "`\n")
}

func (p *psParser) statement() (psStatement, error) {
	st := psStatement{psPlace: p.here()}
	if p.peek() == '$' {
		start := *p
		name, property, err := p.name()
		if err != nil {
			return st, err
		}
		if p.blank(false); property == "" && p.peek() == '=' {
			p.pos++
			p.blank(false)
			st.variable = name
		} else {
			*p = start
		}
	}
	switch r := p.peek(); {
	case p.atEnd():
		return st, p.errorf("You must provide a value expression following the '=' operator.")
	case r == '$' || r == '\'' || r == '"':
		value, err := p.word()
		if err != nil {
			return st, err
		}
		st.value = value
	default:
		from := p.pos
		for !p.delimited() {
			if r := p.peek(); r != '-' && !wordRune(r) {
				return st, p.unexpected()
			}
			p.pos += utf8.RuneLen(p.peek())
		}
		st.cmdlet = p.src[from:p.pos]
	}
	for {
		p.blank(false)
		if p.atEnd() {
			return st, nil
		}
		if st.cmdlet == "" {
			return st, p.unexpected()
		}
		arg, err := p.argument()
		if err != nil {
			return st, err
		}
		st.args = append(st.args, arg)
	}
}

// argument reads a parameter and its value: -Name value, -Name:value, -Name.
func (p *psParser) argument() (psArg, error) {
	arg := psArg{psPlace: p.here()}
	if !p.parameter() {
		from := p.pos
		if _, err := p.word(); err != nil {
			return arg, err
		}
		return arg, arg.errorf("A positional parameter cannot be found that accepts argument '%s'.", printable(p.src[from:p.pos]))
	}
	p.pos++
	from := p.pos
	for wordRune(p.peek()) {
		p.pos += utf8.RuneLen(p.peek())
	}
	arg.name = p.src[from:p.pos]
	if arg.colon = p.peek() == ':'; arg.colon {
		p.pos++
	} else if !p.delimited() {
		return arg, p.unexpected()
	}
	p.blank(false)
	if p.atEnd() || p.parameter() {
		if arg.colon {
			return arg, p.errorf("Parameter '%s' requires an argument.", printable(arg.name))
		}
		return arg, nil
	}
	var err error
	arg.value, err = p.word()
	return arg, err
}

// parameter says whether the name of a parameter begins here.
func (p *psParser) parameter() bool {
	rest, ok := strings.CutPrefix(p.src[p.pos:], "-")
	r, _ := utf8.DecodeRuneInString(rest)
	return ok && unicode.IsLetter(r)
}

func wordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }

// name reads $name or $name.property.
func (p *psParser) name() (name, property string, err error) {
	ident := func() string {
		from := p.pos
		for wordRune(p.peek()) {
			p.pos += utf8.RuneLen(p.peek())
		}
		return p.src[from:p.pos]
	}
	p.pos++
	if name = ident(); name == "" {
		return "", "", p.errorf("Only simple variables are understood after '$'.")
	}
	if p.peek() == '.' {
		p.pos++
		if property = ident(); property == "" {
			return "", "", p.errorf("Missing property name after reference operator.")
		}
	}
	return name, property, nil
}

// word reads one value.
func (p *psParser) word() (*psWord, error) {
	var w psWord
	var err error
	switch p.peek() {
	case '\'':
		err = p.single(&w)
	case '"':
		err = p.double(&w)
	case '$':
		var part psPart
		if part.variable, part.property, err = p.name(); err == nil {
			w.parts = []psPart{part}
		}
	default:
		from := p.pos
		for !p.delimited() && bareRune(p.peek()) && !(p.pos == from && p.peek() == '@') {
			p.pos += utf8.RuneLen(p.peek())
		}
		w.parts = []psPart{{text: p.src[from:p.pos]}}
	}
	if err == nil && !p.delimited() {
		err = p.unexpected()
	}
	if err != nil {
		return nil, err
	}
	return &w, nil
}

// bareRune says whether a character stands for itself without quotes. Dashes
// and quotes that word processors make are PowerShell's too: not here.
func bareRune(r rune) bool {
	return r > ' ' && r != 0x7f && !strings.ContainsRune("`$'\"(){};,|&<>‘’‚“”„–—―", r) && !unicode.IsSpace(r) && !unicode.IsControl(r)
}

// single reads '…', in which two apostrophes are one.
func (p *psParser) single(w *psWord) error {
	start := *p
	var text strings.Builder
	for p.pos++; ; p.pos++ {
		switch {
		case p.pos == len(p.src) || p.src[p.pos] == '\n':
			return start.errorf("The string is missing the terminator: '.")
		case strings.HasPrefix(p.src[p.pos:], "''"):
			p.pos++
		case p.src[p.pos] == '\'':
			p.pos++
			w.quoted, w.parts = true, []psPart{{text: text.String()}}
			return nil
		}
		text.WriteByte(p.src[p.pos])
	}
}

// double reads "…", in which two quotes are one, a backtick takes a character
// for itself, and variables are replaced by their text.
func (p *psParser) double(w *psWord) error {
	start := *p
	var text strings.Builder
	for p.pos++; ; p.pos++ {
		rest := p.src[p.pos:]
		switch {
		case rest == "" || rest[0] == '\n':
			return start.errorf("The string is missing the terminator: \".")
		case strings.HasPrefix(rest, `""`):
			p.pos++
		case rest[0] == '"':
			p.pos++
			w.quoted, w.parts = true, append(w.parts, psPart{text: text.String()})
			return nil
		case rest[0] == '`':
			if len(rest) < 2 || !strings.ContainsRune("`$\"'", rune(rest[1])) {
				return p.errorf("Only `` `$ `\" and `' are understood in a string.")
			}
			p.pos++
		case rest[0] == '$':
			w.parts = append(w.parts, psPart{text: text.String()})
			text.Reset()
			// In a string only the name is read: "$a.b" is $a, and ".b".
			from := *p
			name, property, err := p.name()
			if err != nil {
				return err
			}
			if property != "" {
				return from.errorf("\"$%s.%s\" in a string is $%s and then \".%s\"; use it outside of a string.", name, property, name, property)
			}
			w.parts = append(w.parts, psPart{variable: name})
			p.pos--
			continue
		}
		text.WriteByte(p.src[p.pos])
	}
}
