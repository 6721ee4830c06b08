package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// An iniSection is a section with its keys, which are in lower case.
type iniSection struct {
	name   string
	values map[string]string
}

var (
	iniHeader = regexp.MustCompile(`^\[(.+)\]`)
	iniOption = regexp.MustCompile(`^(.*?)\s*[=:]\s*(.*)$`)
)

// readINI reads the form of Python's configparser with its defaults, but for
// interpolation, which email-oauth2-proxy switches off:
// https://docs.python.org/3/library/configparser.html#supported-ini-file-structure.
// Lines that are indented more than their key go on with its value; a comment is
// a line of its own. The section DEFAULT holds for all others.
//
// Of keys for which keep says no, that they are there is all that is read: the
// value is empty.
func readINI(data []byte, keep func(key string) bool) ([]iniSection, error) {
	var sections []iniSection
	names := map[string]bool{}
	defaults := map[string]string{}
	var current map[string]string
	key, keyIndent := "", 0
	for n, raw := range eachLine(data) {
		line := bytes.TrimSpace(raw)
		if len(line) == 0 || line[0] == '#' || line[0] == ';' {
			continue
		}
		indent := len(raw) - len(bytes.TrimLeft(raw, " \t\f\v"))
		if current != nil && key != "" && indent > keyIndent {
			if keep(key) {
				current[key] = strings.TrimSpace(current[key] + "\n" + string(line))
			}
			continue
		}
		keyIndent = indent
		if m := iniHeader.FindSubmatch(line); m != nil {
			name := string(m[1])
			key = ""
			if name == "DEFAULT" {
				current = defaults
				continue
			}
			if names[name] {
				return nil, &Error{Line: n, Problem: fmt.Sprintf("there is a second section %q", name), Hint: "email-oauth2-proxy does not take this either; leave one out"}
			}
			names[name] = true
			current = map[string]string{}
			sections = append(sections, iniSection{name, current})
			continue
		}
		m := iniOption.FindSubmatch(line)
		if current == nil || m == nil || len(m[1]) == 0 {
			return nil, &Error{Line: n, Problem: "is neither a section nor a key with a value", Hint: "mend that line; the form of the file is that of Python's configparser"}
		}
		key = strings.ToLower(string(m[1]))
		if _, ok := current[key]; ok {
			return nil, &Error{Line: n, Problem: "the key is there twice in its section", Hint: "email-oauth2-proxy does not take this either; leave one out"}
		}
		current[key] = ""
		if keep(key) {
			current[key] = string(m[2])
		}
	}
	for _, s := range sections {
		for k, v := range defaults {
			if _, ok := s.values[k]; !ok {
				s.values[k] = v
			}
		}
	}
	return sections, nil
}
