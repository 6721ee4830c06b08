package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// Check reads the file called name as Load does, but tells of every fault that it
// finds, the nearest to the top first: unknown keys, values of a wrong type, and
// those that cannot work. A mistake in the TOML itself is the only one, since
// nobody knows what is meant below it. There are faults exactly where Load gives
// an error; without any, the result is Load's. Files that the configuration names
// are not looked at.
func Check(name string) (*Config, []*Error) {
	file, err := filepath.Abs(name)
	if err != nil {
		return nil, []*Error{{Path: name, Problem: "cannot be found", Err: err}}
	}
	data, err := readFile(file)
	if err != nil {
		return nil, faultsOf(unreadable(file, err))
	}
	return checkText(file, data)
}

// faultsOf gives the one fault that err is.
func faultsOf(err error) []*Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return []*Error{e}
	}
	return []*Error{{Problem: err.Error(), Err: err}}
}

// checkText is Check for the content of a file, whose path is absolute.
func checkText(name string, data []byte) (*Config, []*Error) {
	cfg, first := parse(name, data)
	if first == nil {
		return cfg, nil
	}
	data = bytes.TrimPrefix(data, bom)
	r := &reader{path: name, dir: filepath.Dir(name)}
	var content map[string]any
	if toml.Unmarshal(data, &content) != nil {
		return nil, faultsOf(first)
	}
	var err error
	if r.lines, err = index(data); err != nil {
		return nil, faultsOf(first)
	}
	_ = r.unknownKey()
	r.prune(nil, content)
	// What is left has the right types, and is read like a file of its own.
	var f file
	if b, err := json.Marshal(content); err == nil && json.Unmarshal(b, &f) == nil {
		r.config(f)
	}
	if len(r.faults) == 0 {
		return nil, faultsOf(first)
	}
	slices.SortStableFunc(r.faults, func(a, b *Error) int { return cmp.Or(a.Line-b.Line, cmp.Compare(a.Key, b.Key)) })
	// An unknown table is told of once, not for each key in it.
	told := map[string]bool{}
	return nil, slices.DeleteFunc(r.faults, func(e *Error) bool {
		again := told[e.Key+separator+e.Problem]
		told[e.Key+separator+e.Problem] = true
		return again
	})
}

// prune notes values of a wrong type, and takes them and unknown keys out of the
// table at p.
func (r *reader) prune(p path, table map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		key := append(slices.Clone(p), name)
		want := wanted(key)
		if want == "" {
			delete(table, name)
			continue
		}
		ok := false
		switch value := table[name].(type) {
		case string:
			ok = want == aString
		case []any:
			ok = want == aStrings && !slices.ContainsFunc(value, func(v any) bool { _, text := v.(string); return !text })
		case map[string]any:
			if ok = want == aTable; ok {
				r.prune(key, value)
			}
		}
		if !ok {
			r.fail(key, "must be "+want, "")
			delete(table, name)
		}
	}
}

// Line is the line on which the key is written or, where it is not, the nearest
// table around it; 0 without a file. The key is given in parts: "profiles",
// "work", "tenant".
func (c *Config) Line(key ...string) int { return path(key).line(c.lines) }

// Written tells whether the file has the key, given as to [Config.Line].
func (c *Config) Written(key ...string) bool {
	_, ok := c.lines[path(key).joined()]
	return ok
}
