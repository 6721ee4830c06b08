package config

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	aString  = "a string in quotes"
	aStrings = `a list of strings, as in ["imap", "smtp"]`
	aTable   = "a table"
)

// keys are the keys there are, with the type of each in words; * stands for a
// name of the writer's choice.
var keys = map[string]string{
	"default_profile": aString,
	"profiles":        aTable, "clouds": aTable, "gateway": aTable, "hooks": aTable, "profiles.*": aTable, "clouds.*": aTable,
	"profiles.*.tenant": aString, "profiles.*.client_id": aString, "profiles.*.login_client_id": aString,
	"profiles.*.mailbox": aString, "profiles.*.backing": aString, "profiles.*.allow": aStrings,
	"profiles.*.expires": aString, "profiles.*.cloud": aString, "profiles.*.keychain": aString,
	"profiles.*.certificate": aString, "profiles.*.assertion_algorithm": aString, "profiles.*.send": aString,
	"clouds.*.authority": aString, "clouds.*.graph": aString, "clouds.*.imap": aString, "clouds.*.pop3": aString,
	"clouds.*.smtp": aString, "clouds.*.exchange_resource": aString, "clouds.*.ca_file": aString,
	"gateway.imap": aString, "gateway.pop3": aString, "gateway.smtp": aString, "gateway.tls_cert": aString,
	"gateway.tls_key": aString, "gateway.revalidate": aString, "gateway.metrics": aString,
	"gateway.autoconfig": aString, "gateway.autoconfig_domains": aStrings,
	"gateway.legacy": aTable, "gateway.legacy.imap": aString, "gateway.legacy.pop3": aString, "gateway.legacy.smtp": aString,
	"hooks.on_expiring": aString, "hooks.on_sign_in_required": aString, "hooks.on_refused": aString, "hooks.on_decoy": aString,
}

// A path leads to a key: profiles, work, tenant.
type path []string

// String is the path as it is written in TOML, without quotes.
func (p path) String() string { return strings.Join(p, ".") }

// pattern is the path as it stands in keys.
func pattern(p path) string {
	p = slices.Clone(p)
	if len(p) > 1 && (p[0] == "profiles" || p[0] == "clouds") {
		p[1] = "*"
	}
	return p.String()
}

// wanted is the type of the key in words, or empty for an unknown one.
func wanted(p path) string { return keys[pattern(p)] }

// describeUnknown fills e for a key that there is not.
func (e *Error) describeUnknown(p path) {
	// Only the first part that is unknown matters: [profile.work] is wrong in
	// "profile".
	for n := range p {
		if wanted(p[:n+1]) == "" {
			p = p[:n+1]
			break
		}
	}
	e.Problem = "unknown key"
	if len(p) == 0 {
		return
	}
	e.Key = p.String()
	last, parent := p[len(p)-1], pattern(p[:len(p)-1])
	var siblings []string
	for known := range keys {
		before, name := "", known
		if i := strings.LastIndexByte(known, '.'); i >= 0 {
			before, name = known[:i], known[i+1:]
		}
		if before == parent && name != "*" {
			siblings = append(siblings, name)
		}
	}
	slices.Sort(siblings)
	e.Hint = suggest(last, siblings, "known here")
	if parent == "" && wanted(path{"profiles", "*", last}) != "" {
		e.Hint = fmt.Sprintf("%s belongs under [profiles.NAME]", last)
	}
}

// index gives the line of every key and table header, by its path joined; a
// table is on the line where it is first named.
func index(data []byte) (map[string]int, error) {
	d, err := readDocument(data)
	lines := map[string]int{}
	line, at := 1, 0
	for _, e := range d.entries { // in the order of the text
		for i, start := range e.parts {
			line += bytes.Count(data[at:start], []byte("\n"))
			at = start
			p := e.path[:len(e.path)-len(e.parts)+i+1]
			if _, ok := lines[p.joined()]; !ok {
				lines[p.joined()] = line
			}
		}
	}
	return lines, err
}

// separator stands between the parts of a path in an index, since names may
// have dots. A quoted key with it inside gets a wrong line at worst.
const separator = "\x00"

func (p path) joined() string { return strings.Join(p, separator) }

// line is where the path is written or, where it is not, the nearest table
// around it; 0 without a file.
func (p path) line(lines map[string]int) int {
	for ; len(p) > 0; p = p[:len(p)-1] {
		if line, ok := lines[p.joined()]; ok {
			return line
		}
	}
	if len(lines) == 0 {
		return 0
	}
	return 1
}

// unknownKey finds keys that differ from a known one only in case.
func (r *reader) unknownKey() error {
	for _, joined := range slices.Sorted(maps.Keys(r.lines)) {
		p := path(strings.Split(joined, separator))
		if wanted(p) != "" {
			continue
		}
		e := &Error{Path: r.path, Line: r.lines[joined]}
		e.describeUnknown(p)
		r.faults = append(r.faults, e)
	}
	return r.first()
}

// suggest is a hint for a value that is not among known.
func suggest(value string, known []string, word string) string {
	if len(known) == 0 {
		return ""
	}
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(strings.ToLower(value), k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return word + ": " + strings.Join(known, ", ")
}

// editDistance is the number of letters to put in, take out, change or swap
// with their neighbour.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, above []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
