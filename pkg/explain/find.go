package explain

import (
	"cmp"
	"html"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is how many bytes of a text [Find] looks at.
const MaxText = 1 << 20

// Find explains everything that is recognised in a text, what says most first,
// each once. The text may be a code alone, or whatever a person has copied: an
// error body, a log, a line of a mail protocol, a dialog, the address that a
// sign-in ended at. An explanation holds nothing of the text but codes of the
// table.
func Find(text string) []Explanation {
	t, whole := normal(text), strings.TrimSpace(text)
	numbers := numbersIn(t)
	var found []hit
	for e := range table() {
		if h, ok := e.find(t, whole, numbers); ok {
			found = append(found, h)
		}
	}
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i], found[j]
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(kindOrder(a.entry.kind), kindOrder(b.entry.kind)), cmp.Compare(a.at, b.at)) < 0
	})
	var list []Explanation
	for _, h := range found {
		if !outdone(h, found) {
			list = append(list, h.entry.explanation(h.code))
		}
	}
	return list
}

// Unknown gives the AADSTS numbers in a text that the table does not have, each
// once. Microsoft's page on a number is login.microsoftonline.com/error?code=N.
func Unknown(text string) []int {
	var list []int
	for _, n := range numbersIn(normal(text)) {
		if _, ok := AADSTS(n.value); !ok && !slices.Contains(list, n.value) {
			list = append(list, n.value)
		}
	}
	return list
}

// rank orders what is recognised in one text.
type rank int

const (
	byItself   rank = iota // the whole text is this code
	specific               // says what happened
	general                // told only where nothing specific of its kind is found
	lastResort             // told only where nothing else but an exit code is found
)

// hit is an entry that a text holds.
type hit struct {
	entry *entry
	code  string
	rank  rank
	at    int // where in the text
}

// outdone says whether something else in found says more than h.
func outdone(h hit, found []hit) bool {
	return slices.ContainsFunc(found, func(o hit) bool {
		switch {
		case o.rank >= h.rank:
			return false
		case h.rank == lastResort:
			return o.entry.kind != OfExit
		}
		return h.rank == general && o.entry.kind == h.entry.kind
	})
}

func kindOrder(k Kind) int {
	return slices.Index([]Kind{OfEntra, OfGraph, OfExchange, OfGateway, OfExit}, k)
}

// find looks for the entry in a text: as it is normally, whole, and by the
// AADSTS numbers in it.
func (e *entry) find(t, whole string, numbers []numberAt) (hit, bool) {
	strength := specific
	if e.general {
		strength = general
	}
	for _, name := range e.names() {
		if strings.EqualFold(name, whole) {
			return hit{e, name, byItself, 0}, true
		}
	}
	if bare, err := strconv.Atoi(whole); err == nil {
		if n := numberOf(e, bare); n != "" {
			return hit{e, n, byItself, 0}, true
		}
	}
	for _, n := range numbers {
		if slices.Contains(e.numbers, n.value) {
			return hit{e, number(n.value), specific, n.at}, true
		}
	}
	if e.kind == OfExit {
		return e.findExit(t)
	}
	says := e.says
	if says == nil {
		for _, c := range e.codes {
			says = append(says, strings.ToLower(c))
		}
	}
	for _, s := range says {
		if at := indexWord(t, s); at >= 0 {
			return hit{e, e.codeIn(t), strength, at}, true
		}
	}
	for _, s := range e.weakly {
		if at := indexWord(t, s); at >= 0 {
			return hit{e, e.codeIn(t), lastResort, at}, true
		}
	}
	return hit{}, false
}

// numberOf is the code that a bare number stands for: an AADSTS number, or an
// exit code.
func numberOf(e *entry, n int) string {
	if slices.Contains(e.numbers, n) {
		return number(n)
	}
	if code := "exit " + strconv.Itoa(n); slices.Contains(e.codes, code) {
		return code
	}
	return ""
}

// codeIn is the one of the entry's codes that the text names, else its main
// one.
func (e *entry) codeIn(t string) string {
	for _, c := range e.codes {
		if indexWord(t, strings.ToLower(c)) >= 0 {
			return c
		}
	}
	return e.codes[0]
}

var (
	exitText = regexp.MustCompile(`\bexit(?:ed with)?(?: code| status)?:? ([0-9]{1,3})\b`)
	// exitJSON is the error object that commands print under -o json.
	exitJSON = regexp.MustCompile(`\{ ?"code": ?([0-9]{1,3}), ?"message":`)
)

func (e *entry) findExit(t string) (hit, bool) {
	for _, re := range []*regexp.Regexp{exitText, exitJSON} {
		for _, m := range re.FindAllStringSubmatchIndex(t, -1) {
			if code := "exit " + strings.TrimLeft(t[m[2]:m[3]-1], "0") + t[m[3]-1:m[3]]; slices.Contains(e.codes, code) {
				return hit{e, code, specific, m[0]}, true
			}
		}
	}
	return hit{}, false
}

// numberText is how Entra and its sign-in log give numbers.
var numberText = []*regexp.Regexp{
	regexp.MustCompile(`aadsts ?0*([1-9][0-9]{3,8})\b`),
	regexp.MustCompile(`\berror_codes"?\\? ?[:=] ?\[([0-9, ]{1,200})\]`),
	regexp.MustCompile(`\berror\?code=([1-9][0-9]{3,8})\b`),
	regexp.MustCompile(`\berror code:? ?([1-9][0-9]{4,8})\b`),
}

type numberAt struct{ value, at int }

func numbersIn(t string) []numberAt {
	var list []numberAt
	for _, re := range numberText {
		for _, m := range re.FindAllStringSubmatchIndex(t, -1) {
			for i, s := range strings.FieldsFunc(t[m[2]:m[3]], func(r rune) bool { return r == ',' || r == ' ' }) {
				if n, err := strconv.Atoi(s); err == nil {
					list = append(list, numberAt{n, m[0] + i})
				}
			}
		}
	}
	return list
}

// normal brings a text to the form that the table is written in: lower case, in
// one line, followed by the same without the escapes of JSON, HTML and
// addresses.
func normal(text string) string {
	text = text[:min(len(text), MaxText)]
	text = strings.ToValidUTF8(text, " ")
	forms := []string{text}
	for range 2 { // an address in an address, JSON in JSON
		next := jsonEscapes.Replace(html.UnescapeString(unescapeQuery(forms[len(forms)-1])))
		if next == forms[len(forms)-1] {
			break
		}
		forms = append(forms, next)
	}
	return strings.ToLower(strings.Join(strings.Fields(strings.Join(forms, "\n")), " "))
}

var jsonEscapes = strings.NewReplacer(`\r`, " ", `\n`, " ", `\t`, " ", `\"`, `"`, `\/`, "/", `\\`, `\`, `\u0027`, "'", `\u0022`, `"`, `\u0026`, "&")

var escaped = regexp.MustCompile(`(?:%[0-9A-Fa-f]{2})+`)

// unescapeQuery undoes the escapes of a query, where there are any.
func unescapeQuery(s string) string {
	if !escaped.MatchString(s) && (!strings.Contains(s, "+") || !strings.Contains(s, "error_description=")) {
		return s
	}
	return escaped.ReplaceAllStringFunc(strings.ReplaceAll(s, "+", " "), func(part string) string {
		if plain, err := url.QueryUnescape(part); err == nil && utf8.ValidString(plain) {
			return plain
		}
		return part
	})
}

// indexWord is where word stands in t by itself, and not as a part of a longer
// word, number or address; -1: nowhere.
func indexWord(t, word string) int {
	if word == "" {
		return -1
	}
	for from := 0; ; {
		i := strings.Index(t[from:], word)
		if i < 0 {
			return -1
		}
		i += from
		if bounded(t[:i], t[i+len(word):], word) {
			return i
		}
		from = i + 1
	}
}

func bounded(before, after, word string) bool {
	first, _ := utf8.DecodeRuneInString(word)
	last, _ := utf8.DecodeLastRuneInString(word)
	b, _ := utf8.DecodeLastRuneInString(before)
	a, n := utf8.DecodeRuneInString(after)
	digitAfter := len(after) > n && after[n] >= '0' && after[n] <= '9'
	switch {
	case wordy(first) && before != "" && (wordy(b) || unicode.IsDigit(first) && b == '.'):
		return false
	case wordy(last) && after != "" && (unicode.IsDigit(last) && (unicode.IsDigit(a) || a == '.' && digitAfter)):
		return false
	case unicode.IsLetter(last) && after != "" && a == '_':
		return false
	}
	return true
}

func wordy(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
