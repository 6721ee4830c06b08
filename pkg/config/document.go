package config

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// bom is what Windows editors put before UTF-8.
var bom = []byte("\uFEFF")

// A document is the text of a configuration file with the places of all that is
// written in it, so that it can be changed at these places alone.
type document struct {
	text    []byte
	eol     string // how lines end
	entries []entry
}

// An entry is a table's header or a key with its value. Offsets are those of the
// text.
type entry struct {
	path   path  // in full
	parts  []int // where each part of it that is written here begins
	end    int   // after the value, or after the last part of a header
	header bool  // [table] or [[table]]
	inline bool  // in an inline table
	value  int   // where the value begins
	is     any   // the value, where it is a string or a list of strings
	brace  int   // of an inline table: after its {; else 0
}

// readDocument finds the places. data has no byte order mark.
func readDocument(data []byte) (*document, error) {
	d := &document{text: data, eol: "\n"}
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		d.eol = "\r\n"
	}
	var p unstable.Parser
	p.Reset(data)
	var table path
	for p.NextExpression() {
		node := p.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			e := entry{header: true}
			table = e.addKey(nil, node)
			d.entries = append(d.entries, e)
		case unstable.KeyValue:
			d.addValue(table, node, false)
		}
	}
	return d, p.Error()
}

// addKey notes where the parts of the node's key are, and gives the whole path.
func (e *entry) addKey(prefix path, node *unstable.Node) path {
	e.path = slices.Clone(prefix)
	for it := node.Key(); it.Next(); {
		part := it.Node()
		e.path = append(e.path, string(part.Data))
		e.parts = append(e.parts, int(part.Raw.Offset))
		e.end = int(part.Raw.Offset + part.Raw.Length)
	}
	return e.path
}

func (d *document) addValue(prefix path, node *unstable.Node, inline bool) {
	e := entry{inline: inline}
	e.addKey(prefix, node)
	rest := bytes.TrimLeft(d.text[e.end:], " \t=") // no value begins with one of these
	e.value = len(d.text) - len(rest)
	e.end = int(node.Raw.Offset + node.Raw.Length)
	value := node.Value()
	switch value.Kind {
	case unstable.String:
		e.is = string(value.Data)
	case unstable.Array:
		list := []string{}
		for it := value.Children(); it.Next(); {
			if it.Node().Kind != unstable.String {
				list = nil
				break
			}
			list = append(list, string(it.Node().Data))
		}
		if list != nil {
			e.is = list
		}
	case unstable.InlineTable:
		e.brace = e.value + 1
	}
	d.entries = append(d.entries, e)
	if value.Kind == unstable.InlineTable {
		for it := value.Children(); it.Next(); {
			d.addValue(e.path, it.Node(), true)
		}
	}
}

// hasProfiles tells whether there is a profile at all.
func (d *document) hasProfiles() bool {
	return slices.ContainsFunc(d.entries, func(e entry) bool { return len(e.path) > 1 && e.path[0] == "profiles" })
}

func (d *document) has(p path) bool {
	return slices.ContainsFunc(d.entries, func(e entry) bool { return slices.Equal(e.path, p) })
}

// A change puts text in the place of what is between two offsets.
type change struct {
	start, end int
	text       string
}

// setProfile gives the text with the settings of the profile.
func (d *document) setProfile(name string, settings []Setting) []byte {
	profile := path{"profiles", name}
	var changes []change
	var missing []Setting
	for _, s := range settings {
		i := slices.IndexFunc(d.entries, func(e entry) bool {
			return !e.header && slices.Equal(e.path, append(slices.Clone(profile), s.Key))
		})
		if i < 0 {
			missing = append(missing, s)
			continue
		}
		if e := d.entries[i]; !same(e.is, s.Value) {
			value, _ := encode(s.Value) // editProfile has looked
			changes = append(changes, change{e.value, e.end, value})
		}
	}
	if len(missing) > 0 || !d.hasTable(profile) {
		changes = append(changes, d.add(profile, missing))
	}
	sort.SliceStable(changes, func(i, j int) bool { return changes[i].start < changes[j].start })
	var out []byte
	at := 0
	for _, c := range changes {
		out = append(append(out, d.text[at:c.start]...), c.text...)
		at = c.end
	}
	return append(out, d.text[at:]...)
}

func same(is, value any) bool {
	switch v := value.(type) {
	case string:
		return is == v
	case []string:
		list, ok := is.([]string)
		return ok && slices.Equal(list, v)
	}
	return false
}

// hasTable tells whether something makes the table at p.
func (d *document) hasTable(p path) bool {
	return slices.ContainsFunc(d.entries, func(e entry) bool { return len(e.path) >= len(p) && slices.Equal(e.path[:len(p)], p) })
}

// add is the change that gives new keys to the profile, in the way in which it
// is written: below its header, by dotted keys, or in an inline table. A profile
// that is not there gets a header at the end, or a place in the inline table of
// all profiles.
func (d *document) add(profile path, settings []Setting) change {
	under := func(p path) func(entry) bool {
		return func(e entry) bool { return len(e.path) > len(p) && slices.Equal(e.path[:len(p)], p) }
	}
	at := func(p path) func(entry) bool {
		return func(e entry) bool { return slices.Equal(e.path, p) && (e.header || e.brace > 0) }
	}
	if i := slices.IndexFunc(d.entries, at(profile)); i >= 0 {
		e := d.entries[i]
		if e.header {
			body := d.entries[i+1:]
			if next := slices.IndexFunc(body, func(e entry) bool { return e.header }); next >= 0 {
				body = body[:next]
			}
			if last := lastIndex(body, func(e entry) bool { return !e.inline }); last >= 0 {
				return d.newLines(body[last], "", settings)
			}
			return d.newLines(e, "", settings)
		}
		return d.inBraces(e, under(profile), pairs("", settings))
	}
	// written is how many parts of the path up to the profile's name stand at e.
	written := func(e entry) int { return len(e.parts) - (len(e.path) - len(profile)) }
	dotted := func(e entry) bool { return !e.header && under(profile)(e) && written(e) > 0 }
	if i := lastIndex(d.entries, dotted); i >= 0 {
		e := d.entries[i]
		prefix := string(d.text[e.parts[0]:e.parts[written(e)]]) // with its dot
		if e.inline {
			return change{e.end, e.end, ", " + pairs(prefix, settings)}
		}
		return d.newLines(e, prefix, settings)
	}
	if i := slices.IndexFunc(d.entries, func(e entry) bool { return slices.Equal(e.path, profile[:1]) && e.brace > 0 }); i >= 0 {
		return d.inBraces(d.entries[i], under(profile[:1]), quoteKey(profile[1])+" = { "+pairs("", settings)+" }")
	}
	return d.newTable(profile, settings)
}

func lastIndex(entries []entry, ok func(entry) bool) int {
	for i, e := range slices.Backward(entries) {
		if ok(e) {
			return i
		}
	}
	return -1
}

// pairs are keys and values as they stand in an inline table.
func pairs(prefix string, settings []Setting) string {
	var all []string
	for _, s := range settings {
		value, _ := encode(s.Value)
		all = append(all, prefix+quoteKey(s.Key)+" = "+value)
	}
	return strings.Join(all, ", ")
}

// inBraces puts text after the last entry of an inline table.
func (d *document) inBraces(table entry, under func(entry) bool, text string) change {
	end := table.brace
	for _, e := range d.entries {
		if e.inline && under(e) && e.end > end {
			end = e.end
		}
	}
	if end > table.brace {
		return change{end, end, ", " + text}
	}
	return change{end, end, " " + text + " "}
}

// newLines puts the settings on lines of their own below the entry's, with keys
// that are indented as its own is.
func (d *document) newLines(below entry, prefix string, settings []Setting) change {
	line := d.text[bytes.LastIndexByte(d.text[:below.parts[0]], '\n')+1 : below.parts[0]]
	indent := string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
	var b strings.Builder
	for _, s := range settings {
		value, _ := encode(s.Value)
		b.WriteString(indent + prefix + quoteKey(s.Key) + " = " + value + d.eol)
	}
	i := bytes.IndexByte(d.text[below.end:], '\n')
	if i < 0 {
		return change{len(d.text), len(d.text), d.eol + b.String()}
	}
	return change{below.end + i + 1, below.end + i + 1, b.String()}
}

// newTable puts the profile at the end, below an empty line.
func (d *document) newTable(profile path, settings []Setting) change {
	var b strings.Builder
	if n := len(d.text); n > 0 {
		if d.text[n-1] != '\n' {
			b.WriteString(d.eol)
		}
		if before := bytes.TrimSuffix(bytes.TrimSuffix(d.text, []byte("\n")), []byte("\r")); len(before) > 0 && before[len(before)-1] != '\n' {
			b.WriteString(d.eol)
		}
	}
	width := 0
	for _, s := range settings {
		width = max(width, len(s.Key))
	}
	fmt.Fprintf(&b, "[%s.%s]%s", profile[0], quoteKey(profile[1]), d.eol)
	for _, s := range settings {
		value, _ := encode(s.Value)
		fmt.Fprintf(&b, "%-*s = %s%s", width, s.Key, value, d.eol)
	}
	return change{len(d.text), len(d.text), b.String()}
}

// setDefault puts the default profile at the top, below comments that an empty
// line sets off from the rest.
func setDefault(text []byte, name, eol string) []byte {
	at := 0
	for rest := text; ; {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		blank := len(bytes.TrimSpace(line)) == 0
		if !ok || !blank && !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			break
		}
		rest = after
		if blank {
			at = len(text) - len(rest)
			break
		}
	}
	line := "default_profile = " + quote(name) + eol + eol
	return slices.Concat(text[:at], []byte(line), text[at:])
}
