package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestResolve(t *testing.T) {
	load := func(s string) *Config {
		cfg, err := Load(write(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	profile := func(name string) string {
		return "[profiles." + name + "]\ntenant = \"" + name + ".example\"\nclient_id = \"" + guid + "\"\n"
	}
	one, two := load(profile("work")), load(profile("work")+profile("home"))
	chosen := load("default_profile = \"home\"\n" + profile("work") + profile("home"))
	other := "ffff1111-aaaa-2222-bbbb-3333cccc4444"

	tests := []struct {
		name    string
		cfg     *Config
		flag    string
		getenv  func(string) string
		profile string
		tenant  string
	}{
		{"only one", one, "", env(), "work", "work.example"},
		{"default", chosen, "", env(), "home", "home.example"},
		{"environment", chosen, "", env("O365PW_PROFILE", "work"), "work", "work.example"},
		{"flag", chosen, "home", env("O365PW_PROFILE", "work"), "home", "home.example"},
		{"overridden", one, "", env("O365PW_TENANT", "x.example"), "work", "x.example"},
		{"no configuration", nil, "", env("O365PW_TENANT", "x.example", "O365PW_CLIENT_ID", guid), "default", "x.example"},
		{"named default", nil, "default", env("O365PW_TENANT", "x.example", "O365PW_CLIENT_ID", guid), "default", "x.example"},
		{"no profiles", load("[gateway]\n"), "", env("O365PW_TENANT", other, "O365PW_CLIENT_ID", guid), "default", other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Resolve(tt.cfg, tt.flag, tt.getenv)
			if err != nil {
				t.Fatal(err)
			}
			if p.Name != tt.profile || p.Tenant != tt.tenant || p.ClientID != guid || p.Cloud != global ||
				p.Backing != "secret" || p.Expires != "180d" || p.Keychain != "system" || !slices.Equal(p.Allow, []string{"imap", "smtp"}) {
				t.Errorf("%+v", p)
			}
		})
	}

	p, err := Resolve(one, "", env("O365PW_CLIENT_ID", other, "O365PW_KEYCHAIN", "file"))
	if err != nil || p.ClientID != other || p.Keychain != "file" || p.Tenant != "work.example" {
		t.Errorf("%+v %v", p, err)
	}
	if one.Profiles["work"].ClientID != guid {
		t.Error("Resolve changed the configuration")
	}
	p.Allow[0] = "pop3"
	if one.Profiles["work"].Allow[0] != "imap" {
		t.Error("the profile shares its list with the configuration")
	}

	faults := []struct {
		name      string
		cfg       *Config
		getenv    func(string) string
		key       string
		line      int
		text      string
		hintsText string
	}{
		{"nothing", nil, env(), "", 0, "no profile is configured", "O365PW_TENANT"},
		{"half", nil, env("O365PW_TENANT", "x.example"), "O365PW_CLIENT_ID", 0, "is not set", ""},
		{"several", two, env(), "default_profile", 1, "several", "home, work"},
		{"bad variable", one, env("O365PW_KEYCHAIN", "fil"), "O365PW_KEYCHAIN", 0, "not one of", "did you mean file?"},
		{"bad tenant", one, env("O365PW_TENANT", "x y"), "O365PW_TENANT", 0, "neither", ""},
		{"many tenants", one, env("O365PW_TENANT", "common"), "O365PW_TENANT", 0, "many tenants", "backing"},
		{"personal accounts alone", nil, env("O365PW_TENANT", "consumers", "O365PW_CLIENT_ID", guid), "O365PW_TENANT", 0, "personal accounts", "backing"},
		{"missing", load("\n[profiles.a]\ntenant = \"a.b\""), env(), "profiles.a.client_id", 2, "is missing", "O365PW_CLIENT_ID"},
	}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Resolve(tt.cfg, "", tt.getenv)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Key != tt.key || e.Line != tt.line || !strings.Contains(e.Error(), tt.text) || !strings.Contains(e.Hint, tt.hintsText) {
				t.Errorf("%#v", err)
			}
		})
	}

	for _, cfg := range []*Config{nil, two} {
		_, err := Resolve(cfg, "wrk", env("O365PW_TENANT", "x.example", "O365PW_CLIENT_ID", guid))
		if e, ok := errors.AsType[*UnknownProfileError](err); !ok || e.Name != "wrk" || !strings.Contains(e.Error(), `no profile "wrk"`) {
			t.Errorf("%#v", err)
		} else if cfg == two && !strings.Contains(e.Error(), "known: home, work") {
			t.Error(e)
		}
	}
}

func TestPaths(t *testing.T) {
	cwd, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		getenv func(string) string
		flag   string
		want   string
	}{
		{env("O365PW_CONFIG", "/a/b.toml"), "", "/a/b.toml"},
		{env("O365PW_CONFIG", "/a/b.toml"), "c.toml", filepath.Join(cwd, "c.toml")},
	} {
		if got, err := ConfigPath(tt.flag, tt.getenv); err != nil || got != tt.want {
			t.Errorf("%s %v", got, err)
		}
	}
	if got, err := StateDir(env("O365PW_STATE", "state")); err != nil || got != filepath.Join(cwd, "state") {
		t.Errorf("%s %v", got, err)
	}
	if _, err := StateDir(env()); err == nil || !strings.Contains(err.Error(), "O365PW_STATE") {
		t.Errorf("without HOME: %v", err)
	}

	for _, tt := range []struct {
		goos          string
		getenv        func(string) string
		config, state string // empty: an error
	}{
		{"linux", env("HOME", "/home/a"), "/home/a/.config", "/home/a/.local/state"},
		{"linux", env("HOME", "/home/a", "XDG_CONFIG_HOME", "/c", "XDG_STATE_HOME", "/s"), "/c", "/s"},
		{"freebsd", env("HOME", "/home/a", "XDG_CONFIG_HOME", "c", "XDG_STATE_HOME", "./s"), "/home/a/.config", "/home/a/.local/state"},
		{"darwin", env("HOME", "/Users/a", "XDG_STATE_HOME", "/s"), "/Users/a/Library/Application Support", "/Users/a/Library/Application Support"},
		{"windows", env("AppData", "/r", "LocalAppData", "/l"), "/r", "/l"},
		{"windows", env("HOME", "/h"), "", ""},
		{"linux", env("HOME", "h"), "", ""},
	} {
		c, cerr := configDir(tt.goos, tt.getenv)
		s, serr := stateDir(tt.goos, tt.getenv)
		if c != tt.config || s != tt.state || (cerr != nil) != (tt.config == "") || (serr != nil) != (tt.state == "") {
			t.Errorf("%s: %q %v, %q %v", tt.goos, c, cerr, s, serr)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 11, 22, 18, 30, 0, 500, zone)
	for _, tt := range []struct{ in, want string }{
		{"180d", "2027-05-21T16:30:00Z"},
		{" 12h ", "2026-11-23T04:30:00Z"},
		{"90m", "2026-11-22T18:00:00Z"},
		{"2W", "2026-12-06T16:30:00Z"},
		{"6mo", "2027-05-21T16:30:00Z"},
		{"1y", "2027-11-22T16:30:00Z"},
		{"1d12h", "2026-11-24T04:30:00Z"},
		{"2027-05-01", "2027-05-01T21:59:59Z"},
		{"2026-11-22", "2026-11-22T21:59:59Z"},
		{"2027-05-01T12:00:00+02:00", "2027-05-01T10:00:00Z"},
		{"2027-05-01t12:00:00z", "2027-05-01T12:00:00Z"},
		{"100y", "2126-10-29T16:30:00Z"},
	} {
		got, err := ParseExpiry(tt.in, now)
		if err != nil || got.Format(time.RFC3339Nano) != tt.want {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"", "empty"}, {"0d", "no time at all"}, {"-5d", "negative"}, {"+5d", "not a duration"}, {"180", "not a duration"},
		{"d", "not a duration"}, {"1.5d", "not a duration"}, {"5 d", "not a duration"}, {"5x", "not a duration"},
		{"101y", "100 years"}, {"99999999999999999999d", "100 years"}, {"36500d1s", "100 years"},
		{"2026-11-21", "past"}, {"2026-11-22T16:29:59Z", "past"}, {"2027-02-30", "no date"}, {"2027-5-1", "no date"},
		{"2227-01-01", "100 years"}, {"9999-12-31", "100 years"}, {"tomorrow", "not a duration"}, {"2027-05-01 12:00", "no date"},
	} {
		if got, err := ParseExpiry(tt.in, now); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
}

func TestParseSince(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 11, 22, 18, 30, 0, 0, zone)
	for _, tt := range []struct{ in, want string }{
		{"24h", "2026-11-21T16:30:00Z"},
		{" 7D ", "2026-11-15T16:30:00Z"},
		{"2026-11-01", "2026-10-31T22:00:00Z"},
		{"2026-11-22", "2026-11-21T22:00:00Z"},
		{"2026-11-01T12:00:00+02:00", "2026-11-01T10:00:00Z"},
		{"2026-11-01t12:00:00z", "2026-11-01T12:00:00Z"},
	} {
		got, err := ParseSince(tt.in, now)
		if err != nil || got.Format(time.RFC3339Nano) != tt.want {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"", "empty"}, {"0d", "no time at all"}, {"-5d", "negative"}, {"yesterday", "not a duration"}, {"2026-02-30", "no date"},
		{"2026-11-1", "no date"}, {"2026-11-23", "future"}, {"2026-11-22T18:30:00Z", "future"}, {"101y", "100 years"},
	} {
		if got, err := ParseSince(tt.in, now); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
}

func FuzzParseExpiry(f *testing.F) {
	for _, s := range []string{"180d", "1d12h", "2027-05-01", "2027-05-01T12:00:00Z", "99999999999999999999y", "-", "", "m", "1mo1m"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseExpiry(s, now)
		if err == nil && (!got.After(now) || got.Year() > 2127 || got.Location() != time.UTC) {
			t.Errorf("%q gave %s", s, got)
		}
	})
}
