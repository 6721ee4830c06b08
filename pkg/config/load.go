package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds the size of a configuration file.
const maxFile = 1 << 20

// The file as it is written. The types here decide what TOML is refused for a
// wrong type; keys.go says the same in words. Check fills them by way of JSON: the
// TOML package's encoder is larger, and used nowhere else.
type (
	file struct {
		DefaultProfile string                 `toml:"default_profile" json:"default_profile"`
		Profiles       map[string]fileProfile `toml:"profiles" json:"profiles"`
		Clouds         map[string]fileCloud   `toml:"clouds" json:"clouds"`
		Gateway        fileGateway            `toml:"gateway" json:"gateway"`
		Hooks          fileHooks              `toml:"hooks" json:"hooks"`
	}
	fileProfile struct {
		Tenant        string   `toml:"tenant" json:"tenant"`
		ClientID      string   `toml:"client_id" json:"client_id"`
		LoginClientID string   `toml:"login_client_id" json:"login_client_id"`
		Mailbox       string   `toml:"mailbox" json:"mailbox"`
		Backing       string   `toml:"backing" json:"backing"`
		Allow         []string `toml:"allow" json:"allow"`
		Expires       string   `toml:"expires" json:"expires"`
		Cloud         string   `toml:"cloud" json:"cloud"`
		Keychain      string   `toml:"keychain" json:"keychain"`
		Certificate   string   `toml:"certificate" json:"certificate"`

		AssertionAlgorithm string `toml:"assertion_algorithm" json:"assertion_algorithm"`
		Send               string `toml:"send" json:"send"`
	}
	fileCloud struct {
		Authority        string `toml:"authority" json:"authority"`
		Graph            string `toml:"graph" json:"graph"`
		IMAP             string `toml:"imap" json:"imap"`
		POP3             string `toml:"pop3" json:"pop3"`
		SMTP             string `toml:"smtp" json:"smtp"`
		ExchangeResource string `toml:"exchange_resource" json:"exchange_resource"`
		CAFile           string `toml:"ca_file" json:"ca_file"`
	}
	fileGateway struct {
		IMAP       *string `toml:"imap" json:"imap"`
		POP3       *string `toml:"pop3" json:"pop3"`
		SMTP       *string `toml:"smtp" json:"smtp"`
		Metrics    string  `toml:"metrics" json:"metrics"`
		Autoconfig string  `toml:"autoconfig" json:"autoconfig"`
		TLSCert    string  `toml:"tls_cert" json:"tls_cert"`
		TLSKey     string  `toml:"tls_key" json:"tls_key"`
		Revalidate *string `toml:"revalidate" json:"revalidate"`

		AutoconfigDomains []string `toml:"autoconfig_domains" json:"autoconfig_domains"`

		Legacy fileLegacy `toml:"legacy" json:"legacy"`
	}
	fileLegacy struct {
		IMAP string `toml:"imap" json:"imap"`
		POP3 string `toml:"pop3" json:"pop3"`
		SMTP string `toml:"smtp" json:"smtp"`
	}
	fileHooks struct {
		OnExpiring       string `toml:"on_expiring" json:"on_expiring"`
		OnSignInRequired string `toml:"on_sign_in_required" json:"on_sign_in_required"`
		OnRefused        string `toml:"on_refused" json:"on_refused"`
		OnDecoy          string `toml:"on_decoy" json:"on_decoy"`
	}
)

// Load reads the file called name. Every fault of its content is an *Error with its
// line, the first one in the file where there are several of a kind. A file
// that is missing is an *Error that wraps fs.ErrNotExist.
func Load(name string) (*Config, error) {
	file, err := filepath.Abs(name)
	if err != nil {
		return nil, &Error{Path: name, Problem: "cannot be found", Err: err}
	}
	data, err := readFile(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	return parse(file, data)
}

// unreadable is the *Error for what readFile gave.
func unreadable(file string, err error) error {
	problem, hint := err.Error(), "name the file with --config or O365PW_CONFIG"
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		problem = "cannot be read: " + pe.Err.Error()
	}
	if errors.Is(err, fs.ErrPermission) {
		hint = "let the user who runs o365pw read it, or name another with --config"
	}
	return &Error{Path: file, Problem: problem, Hint: hint, Err: err}
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a folder, not a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("is longer than %d bytes", maxFile)
	}
	return data, err
}

// parse reads the content of a file, whose path is absolute.
func parse(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, bom)
	r := &reader{path: name, dir: filepath.Dir(name)}
	var f file
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&f)
	strict, unknown := errors.AsType[*toml.StrictMissingError](err)
	if err != nil && !unknown {
		return nil, r.syntax(data, err)
	}
	// The decoder takes keys in any case and does not give the whole path of one
	// in an inline table, so that a second look is needed.
	if r.lines, err = index(data); err != nil {
		return nil, r.syntax(data, err)
	}
	if err := r.unknownKey(); err != nil {
		return nil, err
	}
	if unknown {
		return nil, r.syntax(data, errors.Join(strict.Unwrap()...))
	}

	cfg := r.config(f)
	if e := r.first(); e != nil {
		return nil, e
	}
	return cfg, nil
}

// config is what f says, with defaults; what cannot work is noted.
func (r *reader) config(f file) *Config {
	cfg := &Config{Path: r.path, DefaultProfile: f.DefaultProfile, lines: r.lines,
		Profiles: map[string]Profile{}, Clouds: map[string]Cloud{}}
	for _, name := range slices.Sorted(maps.Keys(f.Clouds)) {
		cfg.Clouds[name] = r.cloud(name, f.Clouds[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f.Profiles)) {
		cfg.Profiles[name] = r.profile(name, f.Profiles[name], cfg.Clouds)
	}
	if cfg.DefaultProfile != "" {
		if _, ok := cfg.Profiles[cfg.DefaultProfile]; !ok {
			known := slices.Sorted(maps.Keys(cfg.Profiles))
			r.fail(path{"default_profile"}, fmt.Sprintf("there is no profile %q", cfg.DefaultProfile), suggest(cfg.DefaultProfile, known, "known"))
		}
	}
	cfg.Gateway = r.gateway(f.Gateway)
	cfg.Hooks = r.hooks(f.Hooks)
	return cfg
}

// reader collects what is wrong with one file.
type reader struct {
	path, dir string
	lines     map[string]int
	faults    []*Error
}

// fail notes a fault of the key.
func (r *reader) fail(key path, problem, hint string) {
	r.faults = append(r.faults, &Error{Path: r.path, Line: key.line(r.lines), Key: key.String(), Problem: problem, Hint: hint})
}

// first is the fault nearest to the top of the file.
func (r *reader) first() error {
	if len(r.faults) == 0 {
		return nil
	}
	return slices.MinFunc(r.faults, func(a, b *Error) int { return a.Line - b.Line })
}

// file makes a path absolute, starting at the configuration file's folder.
func (r *reader) file(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}

// syntax turns what the TOML package says into an *Error.
func (r *reader) syntax(data []byte, err error) error {
	e := &Error{Path: r.path, Line: 1, Problem: strings.TrimPrefix(err.Error(), "toml: "), Hint: "mend that line; the file is TOML, in which texts, addresses and times stand in quotes", Err: err}
	if de, ok := errors.AsType[*toml.DecodeError](err); ok {
		e.Line, _ = de.Position()
		// The end of the file is reported on the line after the last.
		e.Line = max(1, min(e.Line, bytes.Count(bytes.TrimRight(data, "\r\n"), []byte("\n"))+1))
		e.Key = path(de.Key()).String()
		if want := wanted(path(de.Key())); want != "" && strings.Contains(e.Problem, "cannot decode") {
			e.Problem = "must be " + want
		}
	}
	return e
}
