package config

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

var contoso = []Setting{{"tenant", "contoso.com"}, {"client_id", guid}, {"allow", []string{"imap", "smtp"}}}

func TestEditProfile(t *testing.T) {
	const set = `tenant    = "contoso.com"
client_id = "` + guid + `"
allow     = ["imap", "smtp"]
`
	const added = `client_id = "` + guid + `"
allow = ["imap", "smtp"]
`
	const inline = `client_id = "` + guid + `", allow = ["imap", "smtp"]`
	const all = `tenant = "contoso.com", ` + inline
	for _, tt := range []struct{ name, profile, before, after string }{
		{"no file", "work", "", "default_profile = \"work\"\n\n[profiles.work]\n" + set},
		{"comment alone", "work", "# mine\n", "# mine\n\ndefault_profile = \"work\"\n\n[profiles.work]\n" + set},
		{"no line end", "work", "# mine", "# mine\n\ndefault_profile = \"work\"\n\n[profiles.work]\n" + set},
		{"comment of the file", "work", "# mine\n#\n\n# of the gateway\n[gateway]\nimap = \"\"\n",
			"# mine\n#\n\ndefault_profile = \"work\"\n\n# of the gateway\n[gateway]\nimap = \"\"\n\n[profiles.work]\n" + set},
		{"comment of a table", "work", "# of the gateway\n[gateway]\n", "default_profile = \"work\"\n\n# of the gateway\n[gateway]\n\n[profiles.work]\n" + set},
		{"a name to be quoted", "a.b", "[profiles.x]\n\n\n", "[profiles.x]\n\n\n[profiles.\"a.b\"]\n" + set},
		{"others stay", "work", "[profiles.x] # first\ntenant='a.b'\n[hooks]\non_decoy=\"y\"",
			"[profiles.x] # first\ntenant='a.b'\n[hooks]\non_decoy=\"y\"\n\n[profiles.work]\n" + set},
		{"default stays", "work", "default_profile = \"x\"\n\n[profiles.x]\n", "default_profile = \"x\"\n\n[profiles.x]\n\n[profiles.work]\n" + set},
		{"default written ahead", "work", "default_profile = 'work' # soon\n", "default_profile = 'work' # soon\n\n[profiles.work]\n" + set},
		{"empty table of profiles", "work", "[profiles]\n", "default_profile = \"work\"\n\n[profiles]\n\n[profiles.work]\n" + set},
		{"keys are added below the last", "work", "[profiles.work]\n  # who\n  tenant = \"old.example\" # from 2020\n\n  # not mine\n[gateway]\n",
			"[profiles.work]\n  # who\n  tenant = \"contoso.com\" # from 2020\n  client_id = \"" + guid + "\"\n  allow = [\"imap\", \"smtp\"]\n\n  # not mine\n[gateway]\n"},
		{"below the header", "work", "[ profiles . \"work\" ] # empty\n\n[gateway]\n",
			"[ profiles . \"work\" ] # empty\ntenant = \"contoso.com\"\n" + added + "\n[gateway]\n"},
		{"at the end without line end", "work", "[profiles.work]\ntenant = 'contoso.com'",
			"[profiles.work]\ntenant = 'contoso.com'\n" + added},
		{"what is there already stays as it is written", "work", "[profiles.work]\nallow = [ 'imap', # read\n  'smtp' ]\ntenant = \"c.example\"\nclient_id = \"\"\"\n" + guid + "\"\"\"\n",
			"[profiles.work]\nallow = [ 'imap', # read\n  'smtp' ]\ntenant = \"contoso.com\"\nclient_id = \"\"\"\n" + guid + "\"\"\"\n"},
		{"list changes", "work", "[profiles.work]\nallow=[\n'pop3',\n] # end\n" + set[:strings.Index(set, "allow")],
			"[profiles.work]\nallow=[\"imap\", \"smtp\"] # end\n" + set[:strings.Index(set, "allow")]},
		{"dotted", "work", "profiles.work.tenant = \"x.example\" # t\nprofiles.x.tenant = \"y.example\"\n",
			"profiles.work.tenant = \"contoso.com\" # t\nprofiles.work.client_id = \"" + guid + "\"\nprofiles.work.allow = [\"imap\", \"smtp\"]\nprofiles.x.tenant = \"y.example\"\n"},
		{"dotted below a header", "a.b", "[profiles]\n\t'a.b' . tenant = \"contoso.com\"\n[gateway]",
			"[profiles]\n\t'a.b' . tenant = \"contoso.com\"\n\t'a.b' . client_id = \"" + guid + "\"\n\t'a.b' . allow = [\"imap\", \"smtp\"]\n[gateway]"},
		{"dotted, another one", "work", "profiles.x.tenant = \"y.example\"\n", "profiles.x.tenant = \"y.example\"\n\n[profiles.work]\n" + set},
		{"inline", "work", "profiles.work = { tenant = 'x.example' } # one\n", "profiles.work = { tenant = \"contoso.com\", " + inline + " } # one\n"},
		{"inline, empty", "work", "[profiles]\nwork = {}\n", "[profiles]\nwork = { " + all + " }\n"},
		{"inline, comma last", "work", "profiles.work = {\n  tenant = 'contoso.com', # t\n}\n", "profiles.work = {\n  tenant = 'contoso.com', " + inline + ", # t\n}\n"},
		{"inline in inline", "work", "profiles = { x = {}, work = { tenant = 'contoso.com' } }", "profiles = { x = {}, work = { tenant = 'contoso.com', " + inline + " } }"},
		{"dotted in inline", "work", "profiles = { work.tenant = 'contoso.com', x.tenant = 'y.z' }",
			"profiles = { work.tenant = 'contoso.com', work.client_id = \"" + guid + "\", work.allow = [\"imap\", \"smtp\"], x.tenant = 'y.z' }"},
		{"inline, another one", "a.b", "profiles = { x = {tenant='y.z'} }\n", "profiles = { x = {tenant='y.z'}, \"a.b\" = { " + all + " } }\n"},
		{"inline, none", "work", "profiles = {}\n", "default_profile = \"work\"\n\nprofiles = { work = { " + all + " } }\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, form := range []struct {
				name string
				in   func(string) string
			}{
				{"LF", func(s string) string { return s }},
				{"BOM", func(s string) string { return "\uFEFF" + s }},
				{"CRLF", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
			} {
				before, after := form.in(tt.before), form.in(tt.after)
				if !strings.Contains(before, "\n") && form.name == "CRLF" {
					continue // nothing tells how its lines end
				}
				got, err := editProfile("/etc/o365pw.toml", []byte(before), tt.profile, contoso)
				if err != nil {
					t.Fatalf("%s: %v", form.name, err)
				}
				if d := cmp.Diff(after, string(got.Text)); d != "" {
					t.Errorf("%s: %s", form.name, d)
				}
				again, err := editProfile("/etc/o365pw.toml", got.Text, tt.profile, contoso)
				if err != nil || !bytes.Equal(again.Text, got.Text) || again.Diff != "" || got.Diff == "" {
					t.Errorf("%s: a second time: %v\n%s", form.name, err, again.Diff)
				}
			}
		})
	}
}

func TestEditProfileValues(t *testing.T) {
	// What can be told apart only by escapes survives.
	for _, v := range []string{"/keys/a b.pem", `C:\keys\mail.pem`, `"quoted"`, "tab\tline\nbell\a del\x7f nul\x00", "Schlüssel 🔑", ""} {
		got, err := editProfile("/etc/o365pw.toml", nil, "work", []Setting{{"certificate", v}})
		if err != nil {
			t.Errorf("%q: %v", v, err)
			continue
		}
		var f file
		if err := toml.Unmarshal(got.Text, &f); err != nil || f.Profiles["work"].Certificate != v {
			t.Errorf("%q became %q, %v", v, f.Profiles["work"].Certificate, err)
		}
	}
}

func TestEditProfileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, before, profile string
		settings              []Setting
		line                  int
		key, problem          string
	}{
		{"bad name", "", "a b", contoso, 0, "profiles.a b", "not a good name"},
		{"bad value", "# x\n\n", "work", []Setting{{"tenant", "x"}}, 0, "profiles.work.tenant", "neither"},
		{"unknown key", "", "work", []Setting{{"tenent", "x"}}, 0, "profiles.work.tenent", "unknown key"},
		{"wrong type", "", "work", []Setting{{"allow", "imap"}}, 0, "profiles.work.allow", "must be a list"},
		{"other type", "", "work", []Setting{{"tenant", 1}}, 0, "profiles.work.tenant", "int is neither"},
		{"not UTF-8", "", "work", []Setting{{"certificate", "\xff"}}, 0, "profiles.work.certificate", "not UTF-8"},
		{"twice", "", "work", []Setting{{"tenant", "a.b"}, {"tenant", "a.b"}}, 0, "profiles.work.tenant", "twice"},
		{"not TOML", "\n[profiles.x\n", "work", contoso, 2, "", ""},
		{"wrong elsewhere", "\n\n[gateway]\nimap = \"x\"\n", "work", contoso, 4, "gateway.imap", "not host:port"},
		{"no table", "profiles = 5\n", "work", contoso, 1, "profiles", "must be a table"},
		{"tables in a list", "[[profiles]]\n", "work", contoso, 1, "", ""},
		{"below it", "[profiles.work.more]\nx = 1\n", "work", contoso, 1, "profiles.work.more", "unknown key"},
		{"default of another", "default_profile = \"x\"\n", "work", contoso, 1, "default_profile", "no profile"},
		{"too long", strings.Repeat("#", maxFile-10), "work", contoso, 0, "", "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := editProfile("/etc/o365pw.toml", []byte(tt.before), tt.profile, tt.settings)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Path != "/etc/o365pw.toml" || e.Line != tt.line || tt.key != "" && e.Key != tt.key || !strings.Contains(e.Problem, tt.problem) {
				t.Errorf("%+v", err)
			}
		})
	}
	// A profile that was wrong may be set right.
	got, err := editProfile("/etc/o365pw.toml", []byte("[profiles.work]\ntenant = \"x\"\n"), "work", []Setting{{"tenant", "a.b"}})
	if err != nil || string(got.Text) != "[profiles.work]\ntenant = \"a.b\"\n" {
		t.Errorf("%q, %v", got.Text, err)
	}
}

// What is changed by more than it should be is refused, whatever the cause.
func TestCheckEdit(t *testing.T) {
	const before = "[profiles.x]\ntenant = \"a.b\"\n"
	for _, after := range []string{
		"[profiles.work]\ntenant = \"a.b\"\n",                                                // another is gone
		before + "mailbox = \"a@b\"\n[profiles.work]\ntenant = \"a.b\"\n",                    // another is changed
		before + "[profiles.work]\n",                                                         // it is not there
		before + "[profiles.work]\ntenant = \"c.d\"\n",                                       // it is another
		"default_profile = \"work\"\n" + before + "[profiles.work]\ntenant = \"a.b\"\n",      // the default is another
		before + "[profiles.work]\ntenant = \"a.b\"\n[gateway]\nimap = \"127.0.0.1:1993\"\n", // more than asked for
	} {
		err := checkEdit("/etc/o365pw.toml", []byte(before), []byte(after), "work", []Setting{{"tenant", "a.b"}})
		if e, ok := errors.AsType[*Error](err); !ok || e.Key != "profiles.work" || !strings.Contains(e.Hint, `by hand: tenant = "a.b"`) {
			t.Errorf("%s\n%v", after, err)
		}
	}
	if err := checkEdit("/etc/o365pw.toml", []byte(before), []byte(before+"[profiles.work]\ntenant = \"a.b\"\n"), "work", []Setting{{"tenant", "a.b"}}); err != nil {
		t.Error(err)
	}
}

func TestPreviewProfile(t *testing.T) {
	name := write(t, "# mine\n[profiles.work]\ntenant = \"a.b\"\n")
	got, err := PreviewProfile(name, "work", []Setting{{"tenant", "contoso.com"}, {"keychain", "file"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"-tenant = \"a.b\"\n", "+tenant = \"contoso.com\"\n", "+keychain = \"file\"\n", " # mine\n"} {
		if !strings.Contains(got.Diff, line) {
			t.Errorf("no %q in\n%s", line, got.Diff)
		}
	}
	if now, err := os.ReadFile(name); err != nil || string(now) != "# mine\n[profiles.work]\ntenant = \"a.b\"\n" {
		t.Errorf("%q, %v", now, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(name)); len(entries) != 1 {
		t.Errorf("%v beside it", entries)
	}
}

func TestSetProfile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new", "o365pw", "config.toml")
	if _, err := SetProfile(t.Context(), name, "work", []Setting{{"tenant", "x"}}); err == nil {
		t.Fatal("a bad value was written")
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(name))); !os.IsNotExist(err) {
		t.Errorf("a refused setting left %v", err)
	}
	for _, want := range []bool{true, false} {
		if changed, err := SetProfile(t.Context(), name, "work", contoso); err != nil || changed != want {
			t.Fatalf("%v, %v; want %v", changed, err, want)
		}
	}
	cfg, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if p := cfg.Profiles["work"]; cfg.DefaultProfile != "work" || p.Tenant != "contoso.com" || p.ClientID != guid || !slices.Equal(p.Allow, []string{"imap", "smtp"}) {
		t.Errorf("%+v", cfg)
	}
	if runtime.GOOS != "windows" {
		for p, want := range map[string]os.FileMode{name: 0o600, filepath.Dir(name): 0o700} {
			if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", p, info.Mode(), err)
			}
		}
	}
}

// A dotfile manager's link stays one.
func TestSetProfileFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "dotfiles.toml"), filepath.Join(dir, "config.toml")
	for _, before := range []string{"", "# mine\n"} {
		if before != "" {
			if err := os.WriteFile(target, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Symlink(filepath.Base(target), link); err != nil {
			t.Fatal(err)
		}
		if changed, err := SetProfile(t.Context(), link, "work", contoso); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if got, err := os.Readlink(link); err != nil || got != filepath.Base(target) {
			t.Errorf("the link is %q, %v", got, err)
		}
		if now, err := os.ReadFile(target); err != nil || !strings.HasPrefix(string(now), before) || !strings.Contains(string(now), "[profiles.work]") {
			t.Errorf("%q, %v", now, err)
		}
	}
}

// Writers at the same time lose nothing of each other.
func TestSetProfileTogether(t *testing.T) {
	name := write(t, "# mine\n")
	var all sync.WaitGroup
	profiles := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, p := range profiles {
		all.Go(func() {
			if _, err := SetProfile(t.Context(), name, p, contoso); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	cfg, err := Load(name)
	if err != nil || len(cfg.Profiles) != len(profiles) || !slices.Contains(profiles, cfg.DefaultProfile) {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestSetProfileWaitsNoLongerThanContext(t *testing.T) {
	name := write(t, "# mine\n")
	unlock, err := durable.Lock(t.Context(), filepath.Join(filepath.Dir(name), ".config.toml.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if changed, err := SetProfile(ctx, name, "work", contoso); changed || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", changed, err)
	}
	if now, err := os.ReadFile(name); err != nil || string(now) != "# mine\n" {
		t.Errorf("%q, %v", now, err)
	}
}

// FuzzEditProfile adds a profile to any file: where the file was good, it works,
// all that was in it is still there, and the second time changes nothing.
func FuzzEditProfile(f *testing.F) {
	for _, s := range []string{full, "", "# x", "profiles = {}", "profiles={a={},}", "[profiles]\r\nwork={\r\n# c\r\n}", "[profiles.work]#", "profiles.work.tenant='a.b'",
		"[profiles]\nwork.tenant=\"a.b\"#c", "\uFEFF[profiles.\"work\"]\n[clouds]", "default_profile=''", "[profiles.work.x]\ny=1", "hooks.on_decoy='''\n#\n'''"} {
		f.Add([]byte(s), "work")
		f.Add([]byte(s), "a.b")
	}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if len(data) > maxFile-1000 {
			return
		}
		_, old := parse("/etc/o365pw.toml", data)
		got, err := editProfile("/etc/o365pw.toml", data, name, append([]Setting{{"backing", "user"}}, contoso...))
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Problem == "" || strings.Contains(e.Hint, "by hand") {
				t.Fatalf("%#v", err)
			}
			if old == nil && nameForm.MatchString(name) {
				t.Fatalf("%v, while the file was good", err)
			}
			return
		}
		if _, err := parse("/etc/o365pw.toml", got.Text); err != nil {
			t.Fatal(err)
		}
		var was, is map[string]any
		if err := errors.Join(toml.Unmarshal(bytes.TrimPrefix(data, bom), &was), toml.Unmarshal(bytes.TrimPrefix(got.Text, bom), &is)); err != nil {
			t.Fatal(err)
		}
		profile := is["profiles"].(map[string]any)[name].(map[string]any)
		if profile["tenant"] != "contoso.com" || profile["client_id"] != guid || profile["backing"] != "user" || !reflect.DeepEqual(profile["allow"], []any{"imap", "smtp"}) {
			t.Fatalf("the profile is %v", profile)
		}
		survives(t, was, is, []string{"tenant", "client_id", "backing", "allow"}, name)
		again, err := editProfile("/etc/o365pw.toml", got.Text, name, append([]Setting{{"backing", "user"}}, contoso...))
		if err != nil || !bytes.Equal(again.Text, got.Text) {
			t.Fatalf("a second time: %v\n%s", err, again.Diff)
		}
	})
}

// survives checks that what was is still there, except for the keys set in the
// profile called name.
func survives(t *testing.T, was, is map[string]any, set []string, name string, at ...string) {
	t.Helper()
	for k, v := range was {
		here := append(slices.Clone(at), k)
		if slices.Equal(at, []string{"profiles", name}) && slices.Contains(set, k) {
			continue
		}
		if below, ok := v.(map[string]any); ok {
			now, _ := is[k].(map[string]any)
			survives(t, below, now, set, name, here...)
		} else if !reflect.DeepEqual(v, is[k]) {
			t.Errorf("%v was %v and is %v", here, v, is[k])
		}
	}
}
