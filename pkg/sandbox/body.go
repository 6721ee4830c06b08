package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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
