package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// envProfile is the name of the profile that the environment makes by itself.
const envProfile = "default"

const setUpHint = "o365pw setup writes one; or set O365PW_TENANT and O365PW_CLIENT_ID"

// Resolve gives the profile to work with, complete and checked: the one called
// name (of --profile), else O365PW_PROFILE, else default_profile, else the only
// one there is. O365PW_TENANT, O365PW_CLIENT_ID and O365PW_KEYCHAIN take the
// place of what the profile says. Without a configuration (cfg nil or without
// profiles), the first two make a profile called "default" in the global cloud.
//
// Errors: an *UnknownProfileError where no profile has the name asked for;
// otherwise an *Error: nothing is configured, it is open which profile is
// meant, tenant or client id is missing, or a variable makes no sense.
func Resolve(cfg *Config, name string, getenv func(string) string) (Profile, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	tenant, clientID, keychain := getenv("O365PW_TENANT"), getenv("O365PW_CLIENT_ID"), getenv("O365PW_KEYCHAIN")
	for _, v := range []struct {
		name, value string
		check       check
	}{{"O365PW_TENANT", tenant, checkTenant}, {"O365PW_CLIENT_ID", clientID, checkGUID}, {"O365PW_KEYCHAIN", keychain, oneOf(keychains)}} {
		if v.value == "" {
			continue
		}
		if problem, hint := v.check(v.value); problem != "" {
			return Profile{}, &Error{Key: v.name, Problem: problem, Hint: hint}
		}
	}

	p, err := choose(cfg, cmp.Or(name, getenv("O365PW_PROFILE")), tenant != "" || clientID != "")
	if err != nil {
		return Profile{}, err
	}
	p.Allow = slices.Clone(p.Allow)
	p.Tenant = cmp.Or(tenant, p.Tenant)
	p.ClientID = cmp.Or(clientID, p.ClientID)
	p.Keychain = cmp.Or(keychain, p.Keychain)
	for _, f := range []struct{ key, variable, value string }{
		{"tenant", "O365PW_TENANT", p.Tenant}, {"client_id", "O365PW_CLIENT_ID", p.ClientID},
	} {
		if f.value != "" {
			continue
		}
		if len(cfg.Profiles) == 0 {
			return Profile{}, &Error{Key: f.variable, Problem: "is not set", Hint: setUpHint}
		}
		key := path{"profiles", p.Name, f.key}
		return Profile{}, &Error{Path: cfg.Path, Line: key.line(cfg.lines), Key: key.String(), Problem: "is missing",
			Hint: fmt.Sprintf("add %s to the profile, or set %s", f.key, f.variable)}
	}
	if problem, hint := CheckTenant(p.Tenant, p.Backing, p.Cloud); problem != "" {
		// Load has checked what the file says by itself.
		return Profile{}, &Error{Key: "O365PW_TENANT", Problem: problem, Hint: hint}
	}
	return p, nil
}

// ErrNoDefault is the cause where one profile is wanted, none is named, and
// several could be meant.
var ErrNoDefault = errors.New("no default profile")

// choose finds the profile called name, or the one meant without a name.
func choose(cfg *Config, name string, fromEnv bool) (Profile, error) {
	known := slices.Sorted(maps.Keys(cfg.Profiles))
	if name == "" {
		name = cfg.DefaultProfile
	}
	switch {
	case name == "" && len(known) == 1:
		name = known[0]
	case name == "" && len(known) > 1:
		return Profile{}, &Error{Path: cfg.Path, Line: path{"profiles"}.line(cfg.lines), Key: "default_profile",
			Problem: "there are several profiles, and none is the default",
			Hint:    "choose one with --profile: " + strings.Join(known, ", "), Err: ErrNoDefault}
	}
	if p, ok := cfg.Profiles[name]; ok {
		return p, nil
	}
	switch {
	case len(known) == 0 && fromEnv && (name == "" || name == envProfile):
		p := Profile{Name: envProfile, Cloud: global}
		p.fillDefaults()
		return p, nil
	case name == "":
		return Profile{}, &Error{Path: cfg.Path, Problem: "no profile is configured", Hint: setUpHint}
	}
	return Profile{}, &UnknownProfileError{Name: name, Path: cfg.Path, Known: known}
}

// ConfigPath is the absolute path of the configuration file, which need not
// exist: flag (of --config), else O365PW_CONFIG, else o365pw/config.toml in the
// user's configuration folder.
func ConfigPath(flag string, getenv func(string) string) (string, error) {
	if p := cmp.Or(flag, getenv("O365PW_CONFIG")); p != "" {
		return filepath.Abs(p)
	}
	dir, err := configDir(runtime.GOOS, getenv)
	if err != nil {
		return "", &Error{Key: "O365PW_CONFIG", Problem: "is not set, and " + err.Error(), Hint: "set O365PW_CONFIG or give --config", Err: err}
	}
	return filepath.Join(dir, "o365pw", "config.toml"), nil
}

// StateDir is the absolute path of the state folder, which need not exist:
// O365PW_STATE, else o365pw in the platform's folder for state: XDG_STATE_HOME
// or ~/.local/state, ~/Library/Application Support on macOS, %LocalAppData% on
// Windows.
func StateDir(getenv func(string) string) (string, error) {
	if p := getenv("O365PW_STATE"); p != "" {
		return filepath.Abs(p)
	}
	dir, err := stateDir(runtime.GOOS, getenv)
	if err != nil {
		return "", &Error{Key: "O365PW_STATE", Problem: "is not set, and " + err.Error(), Hint: "set O365PW_STATE", Err: err}
	}
	return filepath.Join(dir, "o365pw"), nil
}

func configDir(goos string, getenv func(string) string) (string, error) {
	return userDir(goos, getenv, "AppData", "XDG_CONFIG_HOME", ".config")
}

func stateDir(goos string, getenv func(string) string) (string, error) {
	return userDir(goos, getenv, "LocalAppData", "XDG_STATE_HOME", ".local/state")
}

// userDir finds a folder of the user. Variables that hold a relative path are
// passed over, as the XDG Base Directory Specification asks: what is kept there
// must not depend on the working directory.
func userDir(goos string, getenv func(string) string, windows, xdg, fallback string) (string, error) {
	switch goos {
	case "windows":
		if dir := getenv(windows); filepath.IsAbs(dir) {
			return dir, nil
		}
		return "", fmt.Errorf("%%%s%% is not an absolute path", windows)
	case "darwin", "ios":
		fallback = "Library/Application Support"
	default:
		if dir := getenv(xdg); filepath.IsAbs(dir) {
			return dir, nil
		}
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("HOME is not an absolute path")
	}
	return filepath.Join(home, filepath.FromSlash(fallback)), nil
}
