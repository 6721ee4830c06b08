// Package explain says in plain words what an error of Entra, Graph, Exchange or
// o365pw itself means, whose move it is, and what mends it. It is the one table
// of such help: the hints of the commands, the gateway's log and the command
// explain read from it.
//
// It asks nobody, and knows of no profile: what a fix needs to be pasted stands
// in it as a placeholder (see [Explanation.Fill]).
package explain

import (
	"cmp"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind says whose error an [Explanation] is of.
type Kind string

// The kinds of explanations.
const (
	OfEntra    Kind = "entra"    // AADSTS numbers, and OAuth 2.0 error codes (RFC 6749 section 5.2)
	OfGraph    Kind = "graph"    // error codes of Microsoft Graph
	OfExchange Kind = "exchange" // replies of Exchange Online over IMAP, POP3 and SMTP
	OfGateway  Kind = "gateway"  // the gateway's reasons, and what mail programs show of them
	OfExit     Kind = "exit"     // exit codes of o365pw
)

// Who can make the next move.
const (
	You           = "you"
	Administrator = "administrator"
	Microsoft     = "Microsoft"
	Ourselves     = "o365pw" // a fault of this program
	Nobody        = "nobody" // it passes, or nothing is wrong
)

// Remedy is a cause and what mends it, each in a text that fits one line.
type Remedy struct {
	Cause string // what is wrong
	Fix   string // what to run or to set; may hold placeholders
	Mover string // whose move it is: You, Administrator, Microsoft, Ourselves or Nobody
}

// Explanation is help for one error.
type Explanation struct {
	Code  string // "AADSTS7000215", "Authorization_RequestDenied", "5.7.139", "exit 5"
	Kind  Kind
	Title string // what the code says, where that is not its first cause; may be empty

	Remedy          // the likeliest
	More   []Remedy // further ones, in the order to look at them; may be empty

	Source string // URL of documentation; empty: there is none
	// Confirmed tells that Source says so. Otherwise it is what others have
	// seen the service do, and may be different.
	Confirmed bool
}

// entry is a row of the table.
type entry struct {
	kind     Kind
	numbers  []int    // AADSTS numbers
	codes    []string // other names it is looked up by; the first is the main one
	says     []string // what it is recognised by in a text, in lower case; nil: codes
	weakly   []string // by what where nothing better is found
	general  bool     // told only where nothing specific of its kind is found
	title    string
	remedies []Remedy // the first is the likeliest
	source   string
	seen     bool // not documented
}

func (e *entry) explanation(code string) Explanation {
	x := Explanation{Code: code, Kind: e.kind, Title: e.title, Remedy: e.remedies[0], More: e.remedies[1:], Source: e.source, Confirmed: !e.seen && e.source != ""}
	if len(x.More) == 0 {
		x.More = nil
	}
	if digits, ok := strings.CutPrefix(code, "AADSTS"); ok {
		x.Source, x.Confirmed = "https://login.microsoftonline.com/error?code="+digits, !e.seen
	}
	return x
}

// names are all codes of the entry, the main one first.
func (e *entry) names() []string {
	names := make([]string, 0, len(e.numbers)+len(e.codes))
	for _, n := range e.numbers {
		names = append(names, number(n))
	}
	return append(names, e.codes...)
}

func number(n int) string { return "AADSTS" + strconv.Itoa(n) }

// table is every row, in the order in which replies are looked at.
func table() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, part := range [][]entry{entra, oauth, graph, graphMail, exchange, gateway, exits} {
			for i := range part {
				if !yield(&part[i]) {
					return
				}
			}
		}
	}
}

// lookup finds an entry of a kind by code. Case does not matter.
func lookup(kind Kind, code string) (Explanation, bool) {
	for e := range table() {
		if e.kind != kind {
			continue
		}
		for _, name := range e.names() {
			if strings.EqualFold(name, code) {
				return e.explanation(name), true
			}
		}
	}
	return Explanation{}, false
}

// All gives every code that is explained, each once.
func All() []Explanation {
	var list []Explanation
	for e := range table() {
		for _, name := range e.names() {
			list = append(list, e.explanation(name))
		}
	}
	return list
}

// Remedies are the likeliest remedy and all others, in the order to look at
// them.
func (x Explanation) Remedies() []Remedy { return append([]Remedy{x.Remedy}, x.More...) }

// Placeholder is a word in a fix that stands for something of the reader's.
type Placeholder struct {
	Name  string // "CLIENT_ID"
	Where string // where to find what belongs there
}

var placeholders = []Placeholder{
	{"OBJECT_ID", "the object id of the enterprise application, not of the app registration: az ad sp show --id CLIENT_ID --query id -o tsv"},
	{"CLIENT_ID", "the application's client id: client_id in the profile; in Entra on its page Overview"},
	{"OWNER_ID", "the object id of whoever signs in: az ad signed-in-user show --query id -o tsv; of an application: az ad sp show --id its client id --query id -o tsv"},
	{"TENANT", "the tenant's domain or GUID: tenant in the profile"},
	{"ADDRESS", "the mailbox's address"},
	{"OTHER_ADDRESS", "the address in From"},
	{"SCOPE", "the name of a management scope that holds the mailbox: Get-ManagementScope, New-ManagementScope"},
	{"ACCOUNT", "the address that the person signs in with"},
	{"NAME", "the app password's name: o365pw list"},
}

var placeholder = func() *regexp.Regexp {
	var names []string
	for _, p := range placeholders {
		names = append(names, p.Name)
	}
	return regexp.MustCompile(`\b(?:` + strings.Join(names, "|") + `)\b`)
}()

// FillText puts values in place of the placeholders of a text, as they are: who
// calls has quoted them for a command line. A placeholder without a value, or
// with an empty one, stays.
func FillText(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string { return cmp.Or(values[name], name) })
}

// HasPlaceholders tells whether a text holds any.
func HasPlaceholders(text string) bool { return placeholder.MatchString(text) }

// Fill is [FillText] for all fixes.
func (x Explanation) Fill(values map[string]string) Explanation {
	x.Fix = FillText(x.Fix, values)
	x.More = slices.Clone(x.More)
	for i := range x.More {
		x.More[i].Fix = FillText(x.More[i].Fix, values)
	}
	return x
}

// Placeholders are those that the fixes still hold.
func (x Explanation) Placeholders() []Placeholder {
	held := map[string]bool{}
	for _, r := range x.Remedies() {
		for _, name := range placeholder.FindAllString(r.Fix, -1) {
			held[name] = true
		}
	}
	var list []Placeholder
	for _, p := range placeholders {
		if held[p.Name] {
			list = append(list, p)
		}
	}
	return list
}

// Hint is what to do, on one line, for the person at a terminal: it says whose
// move it is where that is not his.
func (x Explanation) Hint() string {
	switch x.Mover {
	case Administrator:
		return "an administrator's move: " + x.Fix
	case Microsoft:
		return "Microsoft's move: " + x.Fix
	}
	return x.Fix
}

// Line is everything that mends it, in order, on one line: for a log. Whose
// move it is stands where that changes.
func (x Explanation) Line() string {
	var b strings.Builder
	mover := ""
	for i, r := range x.Remedies() {
		if i > 0 {
			b.WriteString("; or ")
		}
		b.WriteString(r.Cause)
		if r.Mover != mover {
			mover = r.Mover
			b.WriteString(" (" + mover + ")")
		}
		b.WriteString(": " + r.Fix)
	}
	return b.String()
}
