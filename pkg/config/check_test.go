package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCheckAll holds Check to telling of everything at once.
func TestCheckAll(t *testing.T) {
	name := write(t, `default_profile = "wrk"
colour = "red"

[profiles.work]
tenant = "contoso"
clientid = "x"
allow = "imap"
cloud = "lba"

[profile.other]
tenant = "a.b"
mailbox = 5

[clouds.lab]
graph = "ftp://g.example"

[gateway]
imap = 1993
smtp = "nonsense"
`)
	_, faults := Check(name)
	var got []string
	for _, e := range faults {
		if e.Path != name || e.Problem == "" {
			t.Errorf("%+v", e)
		}
		got = append(got, fmt.Sprintf("%d %s: %s", e.Line, e.Key, e.Problem))
	}
	want := []string{
		`1 default_profile: there is no profile "wrk"`,
		`2 colour: unknown key`,
		`5 profiles.work.tenant: "contoso" is neither a GUID nor a domain`,
		`6 profiles.work.clientid: unknown key`,
		`7 profiles.work.allow: must be a list of strings, as in ["imap", "smtp"]`,
		`8 profiles.work.cloud: there is no cloud "lba"`,
		`10 profile: unknown key`,
		`14 clouds.lab.authority: is missing`,
		`15 clouds.lab.graph: "ftp://g.example" does not begin with https://`,
		`18 gateway.imap: must be a string in quotes`,
		`19 gateway.smtp: "nonsense" is not host:port`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestCheckAgrees holds Check to Load, file by file.
func TestCheckAgrees(t *testing.T) {
	for _, tt := range loadFaults() {
		name := write(t, tt.content)
		_, faults := Check(name)
		if len(faults) == 0 {
			t.Errorf("%s: nothing was found", tt.name)
			continue
		}
		e := faults[0]
		if e.Line != tt.line || tt.key != "" && e.Key != tt.key || !strings.Contains(e.Problem, tt.problem) {
			t.Errorf("%s: %+v", tt.name, e)
		}
	}
	name := write(t, full)
	cfg, faults := Check(name)
	loaded, err := Load(name)
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	if d := cmp.Diff(loaded, cfg, cmp.AllowUnexported(Config{})); d != "" {
		t.Error(d)
	}
	if l := cfg.Line("profiles", "work", "client_id"); l != 5 || !cfg.Written("profiles", "work", "client_id") {
		t.Errorf("line %d", l)
	}
	if l := cfg.Line("profiles", "a.b", "tenant"); l != 17 || cfg.Written("profiles", "a.b", "tenant") {
		t.Errorf("line %d of a key that is not there", l)
	}
	_, faults = Check(name + ".none")
	if len(faults) != 1 || !os.IsNotExist(faults[0].Err) {
		t.Errorf("a file that is not there: %v", faults)
	}
}

// FuzzCheck holds Check to finding something exactly where Load does.
func FuzzCheck(f *testing.F) {
	for _, tt := range loadFaults() {
		f.Add([]byte(tt.content))
	}
	f.Add([]byte(full))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := parse("/etc/o365pw.toml", data)
		cfg, faults := checkText("/etc/o365pw.toml", data)
		if (err == nil) != (len(faults) == 0) || (cfg == nil) == (len(faults) == 0) {
			t.Fatalf("Load: %v; Check: %v", err, faults)
		}
		for _, e := range faults {
			if e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 || e.Problem == "" {
				t.Errorf("%#v", e)
			}
		}
	})
}
