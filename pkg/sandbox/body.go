package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// strictObject reads one JSON object whose members are all among allowed,
// spelt exactly so (encoding/json would ignore case), and none twice.
func strictObject(data []byte, allowed ...string) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if open != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name := token.(string) // the decoder lets nothing else be a name
		if !slices.Contains(allowed, name) {
			return nil, &propertyError{name, "is not known"}
		}
		if _, twice := members[name]; twice {
			return nil, &propertyError{name, "occurs twice"}
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object")
	}
	return members, nil
}

// propertyError is a member of a JSON object that must not be there, or not so.
type propertyError struct{ name, problem string }

func (e *propertyError) Error() string { return fmt.Sprintf("property %q %s", e.name, e.problem) }

// properties are the members of a JSON object in a Graph request, read one by
// one. The first that is not as it must be ends up in refusal.
type properties struct {
	resource string // the type, for the refusal
	raw      map[string]json.RawMessage
	refusal  *graphError
}

// readProperties reads an object that has no members but those allowed.
func readProperties(resource string, data []byte, allowed ...string) *properties {
	p := &properties{resource: resource}
	var err error
	if p.raw, err = strictObject(data, allowed...); err != nil {
		p.refusal = badRequest("Invalid object of type '%s' in the request body: %s.", resource, printable(err.Error()))
	}
	return p
}

// given says whether a member is there, null or not.
func (p *properties) given(name string) bool { _, ok := p.raw[name]; return ok }

// null says whether a member is absent or null.
func (p *properties) null(name string) bool { return !p.given(name) || string(p.raw[name]) == "null" }

func (p *properties) refuse(name, problem string) {
	if p.refusal == nil {
		p.refusal = badRequest("Invalid value specified for property '%s' of resource '%s': %s.", name, p.resource, problem)
	}
}

// require refuses an object that lacks a member.
func (p *properties) require(names ...string) {
	for _, name := range names {
		if p.null(name) {
			p.refuse(name, "it is required")
		}
	}
}

// text reads a string; null makes it empty. Without the member, into stays.
func (p *properties) text(name string, into *string) {
	if !p.given(name) {
		return
	}
	var s *string
	if json.Unmarshal(p.raw[name], &s) != nil {
		p.refuse(name, "it is not a string")
		return
	}
	*into = ""
	if s != nil {
		*into = *s
	}
}

// flag reads a boolean; null makes it false.
func (p *properties) flag(name string, into *bool) {
	if !p.given(name) {
		return
	}
	var b *bool
	if json.Unmarshal(p.raw[name], &b) != nil {
		p.refuse(name, "it is not a boolean")
		return
	}
	*into = b != nil && *b
}

// texts reads an array of strings, which must not be null.
func (p *properties) texts(name string, into *[]string) {
	var out []string
	for _, raw := range p.list(name) {
		var s *string
		if json.Unmarshal(raw, &s) != nil || s == nil {
			p.refuse(name, "it is not an array of strings")
			return
		}
		out = append(out, *s)
	}
	if p.given(name) {
		*into = out
	}
}

// list reads an array, which must not be null.
func (p *properties) list(name string) []json.RawMessage {
	if !p.given(name) {
		return nil
	}
	var out []json.RawMessage
	if json.Unmarshal(p.raw[name], &out) != nil || out == nil {
		p.refuse(name, "it is not an array")
	}
	return out
}

// guid reads a GUID, in lower case; null leaves into as it is.
func (p *properties) guid(name string, into *string) {
	if p.null(name) {
		return
	}
	var s string
	p.text(name, &s)
	if !isGUID(s) {
		p.refuse(name, "it is not a GUID")
		return
	}
	*into = strings.ToLower(s)
}

// moment reads a time in UTC, to 100 ns; null leaves into as it is.
func (p *properties) moment(name string, into *time.Time) {
	if p.null(name) {
		return
	}
	var s string
	p.text(name, &s)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !strings.HasSuffix(s, "Z") {
		p.refuse(name, "it is not an ISO 8601 time in UTC")
		return
	}
	*into = t.Truncate(100 * time.Nanosecond)
}
