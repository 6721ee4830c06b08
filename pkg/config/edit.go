package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// A Setting is one key of a profile.
type Setting struct {
	Key   string // as it is written in the file: tenant, client_id, …
	Value any    // a string, or a []string
}

// An Edit is a configuration file with a profile added or changed.
type Edit struct {
	Text []byte // the whole of the new file
	Diff string // what is new, in the unified format of diff(1); empty where nothing is
}

// SetProfile adds the profile called name to the file at path, or gives the
// settings to the one that is there; settings that are not named stay. All else
// in the file stays as it is, byte by byte. A file without profiles gets
// default_profile, too, unless it has it. The file is written whole or not at
// all, with mode 0600, where a symbolic link at path leads to; a missing one is
// made, with its folder (0700). Calls of several processes wait for each other
// until ctx ends, by a lock file beside path. Where nothing changes, nothing is
// written.
//
// Nothing is written either where Load would refuse the result: the error is the
// *Error that it would give, with a line only where the file is wrong already.
func SetProfile(ctx context.Context, path, name string, settings []Setting) (changed bool, err error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return false, &Error{Path: path, Problem: "cannot be found", Err: err}
	}
	// A first look leaves neither folder nor lock behind where there is nothing
	// to do.
	if edit, err := PreviewProfile(file, name, settings); err != nil || edit.Diff == "" {
		return false, err
	}
	unlock, err := durable.Lock(ctx, filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".lock"))
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", file, err)
	}
	defer unlock()
	edit, err := PreviewProfile(file, name, settings)
	if err != nil || edit.Diff == "" {
		return false, err
	}
	return true, durable.WriteFile(file, edit.Text)
}

// PreviewProfile gives what SetProfile would write, and writes nothing. Its errors
// are the same.
func PreviewProfile(path, name string, settings []Setting) (Edit, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return Edit{}, &Error{Path: path, Problem: "cannot be found", Err: err}
	}
	data, err := readFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Edit{}, unreadable(file, err)
	}
	return editProfile(file, data, name, settings)
}

// editProfile is PreviewProfile for a file with content data.
func editProfile(file string, data []byte, name string, settings []Setting) (Edit, error) {
	if !nameForm.MatchString(name) {
		r := &reader{path: file}
		r.name("profiles", name)
		return Edit{}, r.first()
	}
	for i, s := range settings {
		key := path{"profiles", name, s.Key}
		e := &Error{Path: file, Key: key.String()}
		_, err := encode(s.Value)
		switch {
		case wanted(key) == "":
			e.describeUnknown(key)
		case err != nil:
			e.Problem, e.Err = err.Error(), err
		case slices.ContainsFunc(settings[:i], func(before Setting) bool { return before.Key == s.Key }):
			e.Problem = "is given twice"
		default:
			continue
		}
		return Edit{}, e
	}
	rest, hasBOM := bytes.CutPrefix(data, bom)
	d, err := readDocument(rest)
	if err != nil {
		_, err = parse(file, data) // fails as well, and knows the line
		return Edit{}, err
	}
	text := d.setProfile(name, settings)
	if !d.hasProfiles() && !d.has(path{"default_profile"}) {
		text = setDefault(text, name, d.eol)
	}
	if hasBOM {
		text = append(slices.Clone(bom), text...)
	}
	if err := checkEdit(file, data, text, name, settings); err != nil {
		return Edit{}, err
	}
	return Edit{Text: text, Diff: lineDiff(filepath.Base(file), data, text)}, nil
}

// lineDiff is what is shown, without the CR of Windows' lines.
func lineDiff(base string, before, after []byte) string {
	plain := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }
	return string(diff.Diff(base, plain(before), base, plain(after)))
}

// checkEdit refuses what Load would refuse, and what has changed more than it
// should have: where a value stands in the file is told by a part of the TOML
// library that promises no stability.
func checkEdit(file string, before, after []byte, name string, settings []Setting) error {
	if len(after) > maxFile {
		return &Error{Path: file, Problem: fmt.Sprintf("would be longer than %d bytes", maxFile)}
	}
	if _, err := parse(file, after); err != nil {
		if _, old := parse(file, before); old != nil {
			return old
		}
		if e, ok := errors.AsType[*Error](err); ok {
			e.Line = 0 // of a file that nobody has seen
		}
		return err
	}
	var was, is map[string]any
	err := errors.Join(toml.Unmarshal(bytes.TrimPrefix(before, bom), &was), toml.Unmarshal(bytes.TrimPrefix(after, bom), &is))
	if err == nil && reflect.DeepEqual(apply(was, name, settings, is["default_profile"]), is) {
		return nil
	}
	var lines []string
	for _, s := range settings {
		value, _ := encode(s.Value) // as editProfile has looked
		lines = append(lines, s.Key+" = "+value)
	}
	return &Error{Path: file, Key: path{"profiles", name}.String(), Err: err,
		Problem: "the profile is written in a way that cannot be changed without changing something else",
		Hint:    "write into it by hand: " + strings.Join(lines, ", ")}
}

// apply gives was with the settings, and with def as the default profile where it
// had no profiles and no default.
func apply(was map[string]any, name string, settings []Setting, def any) map[string]any {
	all := maps.Clone(was)
	if all == nil {
		all = map[string]any{}
	}
	profiles, _ := all["profiles"].(map[string]any)
	if _, ok := all["default_profile"]; !ok && len(profiles) == 0 {
		all["default_profile"] = def
	}
	profiles = maps.Clone(profiles)
	if profiles == nil {
		profiles = map[string]any{}
	}
	profile, _ := profiles[name].(map[string]any)
	profile = maps.Clone(profile)
	if profile == nil {
		profile = map[string]any{}
	}
	for _, s := range settings {
		profile[s.Key] = decoded(s.Value)
	}
	profiles[name], all["profiles"] = profile, profiles
	return all
}

// decoded gives the value as the TOML library decodes it.
func decoded(value any) any {
	list, ok := value.([]string)
	if !ok {
		return value
	}
	all := []any{}
	for _, v := range list {
		all = append(all, v)
	}
	return all
}

// encode writes a value of a Setting in TOML.
func encode(value any) (string, error) {
	switch v := value.(type) {
	case string:
		if !utf8.ValidString(v) {
			return "", errors.New("the text is not UTF-8")
		}
		return quote(v), nil
	case []string:
		var all []string
		for _, s := range v {
			q, err := encode(s)
			if err != nil {
				return "", err
			}
			all = append(all, q)
		}
		return "[" + strings.Join(all, ", ") + "]", nil
	}
	return "", fmt.Errorf("%T is neither a string nor a list of strings", value)
}

// quote writes a basic string of TOML (TOML 1.0, String). Go's own quoting has
// escapes that TOML does not know.
func quote(v string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range v {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// quoteKey writes a part of a key, bare where TOML lets it be.
func quoteKey(v string) string {
	bare := v != "" && !strings.ContainsFunc(v, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	})
	if bare {
		return v
	}
	return quote(v)
}
