package config

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
)

// readProperties reads the form of java.util.Properties.load(InputStream):
// ISO 8859-1, with \u and four digits for all else; a line that ends in an odd number of
// backslashes goes on in the next. Of a key that is there twice the last counts.
//
// Of keys for which keep says no, that they are there is all that is read: the
// value is empty.
func readProperties(data []byte, keep func(key string) bool) (map[string]string, error) {
	values := map[string]string{}
	logical := make([]byte, 0, len(data)) // lines that go on; never moves, so that it can be cleared
	defer clear(logical[:cap(logical)])
	last := 0
	for n, line := range eachLine(data) {
		last = n
		line = bytes.TrimLeft(line, " \t\f")
		if len(logical) == 0 && (len(line) == 0 || line[0] == '#' || line[0] == '!') {
			continue
		}
		if slashes := len(line) - len(bytes.TrimRight(line, `\`)); slashes%2 == 1 {
			logical = append(logical, line[:len(line)-1]...)
			continue
		}
		if err := readProperty(values, append(logical, line...), keep); err != nil {
			err.Line = n
			return nil, err
		}
		logical = logical[:0]
	}
	if len(logical) > 0 {
		if err := readProperty(values, logical, keep); err != nil {
			err.Line = last
			return nil, err
		}
	}
	return values, nil
}

func readProperty(values map[string]string, line []byte, keep func(key string) bool) *Error {
	end := 0
	for end < len(line) && strings.IndexByte(" \t\f=:", line[end]) < 0 {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	key, ok := unescapeProperty(line[:end])
	rest := bytes.TrimLeft(line[end:], " \t\f")
	if len(rest) > 0 && (rest[0] == '=' || rest[0] == ':') {
		rest = bytes.TrimLeft(rest[1:], " \t\f")
	}
	value := ""
	if ok && keep(key) {
		value, ok = unescapeProperty(rest)
	}
	if !ok {
		return &Error{Problem: `has \u without four hexadecimal digits`, Hint: "mend that line; Java does not take it either"}
	}
	values[key] = value
	return nil
}

// unescapeProperty takes the escapes of Latin-1 text away.
func unescapeProperty(text []byte) (string, bool) {
	var units []uint16 // as Java has it: \u gives one, and two may make one character
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' || i+1 == len(text) {
			if c != '\\' {
				units = append(units, uint16(c))
			}
			continue
		}
		i++
		if text[i] != 'u' {
			c = text[i]
			if j := strings.IndexByte("tnrf", c); j >= 0 {
				c = "\t\n\r\f"[j]
			}
			units = append(units, uint16(c))
			continue
		}
		if len(text) < i+5 {
			return "", false
		}
		n, err := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
		if err != nil {
			return "", false
		}
		units = append(units, uint16(n))
		i += 4
	}
	return string(utf16.Decode(units)), true
}
