package sandbox

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// query is the query options of a Graph request.
type query struct {
	selected []string // nil: everything
	top      int
	skip     string
	values   url.Values
}

// parseQuery reads the query options; those not allowed, given twice, or
// without the dollar sign are refused.
func parseQuery(raw string, allowed []string) (query, *graphError) {
	var q query
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, badRequest("The query is not well formed.")
	}
	q.values = values
	for name, v := range values {
		switch {
		case !slices.Contains(allowed, name):
			return q, badRequest("The query parameter '%s' is not supported.", printable(name))
		case len(v) != 1:
			return q, badRequest("Query option '%s' was specified more than once, but it must be specified at most once.", name)
		}
	}
	if values.Has("$select") {
		q.selected = strings.Split(values.Get("$select"), ",")
		for i, name := range q.selected {
			q.selected[i] = strings.TrimSpace(name)
			if q.selected[i] == "" {
				return q, badRequest("Term '%s' is not valid in a $select or $expand expression.", printable(name))
			}
		}
	}
	if values.Has("$top") {
		if q.top, err = strconv.Atoi(values.Get("$top")); err != nil || q.top < 1 || q.top > 999 {
			return q, badRequest("Invalid page size specified: '%s'. Must be between 1 and 999 inclusive.", printable(values.Get("$top")))
		}
	}
	if values.Has("$skiptoken") {
		if q.skip = values.Get("$skiptoken"); q.skip == "" {
			return q, badRequest("The skip token is empty.")
		}
	}
	return q, nil
}

// filter is the query option $filter, if there is one.
func (q query) filter() (string, bool) { return q.values.Get("$filter"), q.values.Has("$filter") }

func invalidFilter(filter string) *graphError {
	return badRequest("Invalid filter clause: '%s'.", printable(filter))
}

// Strings are quoted; a quotation mark in one is doubled (OData 4.0 URL
// conventions, section 5.1.1.6.1).
var (
	equalFilter = regexp.MustCompile(`^(appId|id|displayName) eq '((?:[^']|'')*)'$`)
	startFilter = regexp.MustCompile(`^startswith\(displayName, ?'((?:[^']|'')*)'\)$`)
	tagFilter   = regexp.MustCompile(`^tags/any\(([a-z]+): ?([a-z]+) eq '((?:[^']|'')*)'\)$`)
)

// parseFilter understands the filters that Graph takes on applications without
// advanced query capabilities, one at a time; nil for any other.
func parseFilter(filter string) func(*application) bool {
	text := func(s string) string { return strings.ReplaceAll(s, "''", "'") }
	if m := equalFilter.FindStringSubmatch(filter); m != nil {
		property, value := m[1], text(m[2])
		return func(a *application) bool {
			switch property {
			case "appId":
				return a.clientID == value
			case "id":
				return a.objectID == value
			default:
				return strings.EqualFold(a.displayName, value)
			}
		}
	}
	if m := startFilter.FindStringSubmatch(filter); m != nil {
		prefix := strings.ToLower(text(m[1]))
		return func(a *application) bool { return strings.HasPrefix(strings.ToLower(a.displayName), prefix) }
	}
	if m := tagFilter.FindStringSubmatch(filter); m != nil && m[1] == m[2] {
		return func(a *application) bool { return slices.Contains(a.tags, text(m[3])) }
	}
	return nil
}

// project keeps of an entity what $select asks for.
func (q query) project(kind string, entity map[string]any) (map[string]any, *graphError) {
	if q.selected == nil {
		return entity, nil
	}
	out := make(map[string]any, len(q.selected))
	for _, name := range q.selected {
		v, ok := entity[name]
		if !ok {
			return nil, &graphError{status: 400, code: "Request_BadRequest", message: fmt.Sprintf(
				"Could not find a property named '%s' on type 'microsoft.graph.%s'.", printable(name), kind)}
		}
		out[name] = v
	}
	return out, nil
}

// context is what follows $metadata# for an entity set or singleton of it.
func (q query) context(set string) string {
	if q.selected == nil {
		return set
	}
	return set + "(" + strings.Join(q.selected, ",") + ")"
}

// entity answers with one entity of a set.
func (c *call) entity(set, kind string, properties map[string]any) (*answer, *graphError) {
	entity, refusal := c.query.project(kind, properties)
	if refusal != nil {
		return nil, refusal
	}
	return found(c.query.context(set)+"/$entity", entity), nil
}

// entry is an entity of a collection, made when its page is asked for.
type entry func() map[string]any

// collection answers with a page of a list. sample is an entity of its kind:
// $select is checked even where the list is empty.
func (c *call) collection(set, kind string, list []entry, sample map[string]any) (*answer, *graphError) {
	if _, refusal := c.query.project(kind, sample); refusal != nil {
		return nil, refusal
	}
	now, next, refusal := c.paginate(list)
	if refusal != nil {
		return nil, refusal
	}
	value := []any{}
	for _, e := range now {
		entity, refusal := c.query.project(kind, e())
		if refusal != nil {
			return nil, refusal
		}
		value = append(value, entity)
	}
	body := map[string]any{"value": value}
	if next != "" {
		body["@odata.nextLink"] = next
	}
	return found(c.query.context(set), body), nil
}

// page is the rest of a collection that a skip token stands for.
type page struct {
	path   string
	values url.Values // the options of the first request
	rest   []entry
	empty  bool
}

// paginate cuts a page off list. Between the first page and the second comes
// an empty one: Graph's pages may be empty, and clients must go on.
func (c *call) paginate(list []entry) (now []entry, nextLink string, refusal *graphError) {
	p := page{path: c.path, values: c.query.values, rest: list}
	first := c.query.skip == ""
	if !first {
		var known bool
		p, known = c.s.graph.pages[c.query.skip]
		if !known || p.path != c.path || !sameOptions(p.values, c.query.values) {
			return nil, "", badRequest("The skip token is not valid for this request.")
		}
	}
	if !p.empty {
		size := c.s.PageSize
		if c.query.top > 0 {
			size = min(size, c.query.top)
		}
		size = min(size, len(p.rest))
		now, p.rest = p.rest[:size], p.rest[size:]
	}
	if len(p.rest) == 0 {
		return now, "", nil
	}
	skip := randomText(40, tokenAlphabet)
	if len(c.s.graph.pages) > 1000 {
		clear(c.s.graph.pages)
	}
	c.s.graph.pages[skip] = page{path: p.path, values: p.values, rest: p.rest, empty: first}
	next := url.Values{"$skiptoken": {skip}}
	for name, v := range p.values {
		if name != "$skiptoken" {
			next[name] = v
		}
	}
	base := c.root
	if c.s.Faults.NextLinkBase != "" {
		base = c.s.Faults.NextLinkBase
	}
	return now, base + "/" + c.path + "?" + next.Encode(), nil
}

// sameOptions compares the query options of two requests, but for $skiptoken.
func sameOptions(a, b url.Values) bool {
	for _, name := range []string{"$filter", "$select", "$top"} {
		if a.Get(name) != b.Get(name) {
			return false
		}
	}
	return true
}
