package cli_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// clipboard stands in for the programs that have the clipboard: it is a file.
type clipboard struct {
	t       *testing.T
	dir     string // the programs are here
	content string // what is on it
	copied  string // whatever was copied to it
	since   string // what is on it when it is read for the first time
	log     string // what was called
}

// newClipboard makes these programs.
func newClipboard(t *testing.T, programs ...string) *clipboard {
	t.Helper()
	dir := t.TempDir()
	c := &clipboard{t: t, dir: dir, content: dir + "/content", copied: dir + "/copied", since: dir + "/since", log: dir + "/log"}
	const script = `#!/bin/sh
set -e
cd "${0%/*}"
printf '%s %s\n' "${0##*/}" "$*" >>log
env >>environ
case "${0##*/} $*" in
"wl-copy --sensitive") exit 1 ;; # which its older versions do not know
"wl-paste --no-newline" | "xsel --clipboard --output" | "xclip -selection clipboard -o")
	if [ -e since ]; then mv since content; fi
	cat content
	echo ;;
"wl-copy --clear" | "xsel --clipboard --clear") : >content ;;
"wl-copy " | "xsel --clipboard --input" | "xclip -selection clipboard") cat >new; cat new >>copied; mv new content ;;
*) exit 2 ;;
esac
`
	for _, name := range programs {
		c.write(filepath.Join(dir, name), script)
		if err := os.Chmod(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cat", "env", "mv"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *clipboard) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clipboard) read(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	return string(b)
}

func (c *clipboard) until(done func() bool, what string) {
	c.t.Helper()
	for range 600 {
		if done() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	c.t.Fatalf("in vain waited for %s; it is %q, and what was called:\n%s", what, c.read(c.content), c.read(c.log))
}

// env has these programs alone.
func (c *clipboard) env(display ...string) []string {
	return append([]string{"PATH=" + c.dir, "SSH_CONNECTION=", "DISPLAY=", "WAYLAND_DISPLAY="}, display...)
}

// TestCopyClears: each program gives the password back when the time is up, and
// keeps what was copied since.
func TestCopyClears(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x", "--no-wait"))
	for name, tc := range map[string]struct {
		programs []string
		display  string
		since    string // copied by somebody else in the meantime
		left     string
		called   string
	}{
		"wl-copy":                  {[]string{"wl-copy", "wl-paste"}, "WAYLAND_DISPLAY=wayland-0", "", "", "wl-copy --sensitive\nwl-copy \nwl-paste --no-newline\nwl-copy --clear\n"},
		"xclip":                    {[]string{"xclip"}, "DISPLAY=:77", "", "", "xclip -selection clipboard\nxclip -selection clipboard -o\nxclip -selection clipboard\n"},
		"xsel":                     {[]string{"xsel"}, "DISPLAY=:77", "", "", "xsel --clipboard --input\nxsel --clipboard --output\nxsel --clipboard --clear\n"},
		"something else is copied": {[]string{"xsel"}, "DISPLAY=:77", "a recipe", "a recipe", "xsel --clipboard --input\nxsel --clipboard --output\n"},
		"no program that reads it": {[]string{"wl-copy"}, "WAYLAND_DISPLAY=wayland-0", "", "", "wl-copy --sensitive\nwl-copy \nwl-copy --clear\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClipboard(t, tc.programs...)
			if tc.since != "" {
				c.write(c.since, tc.since)
			}
			code, screen := m.onTerminal(c.env(tc.display), "show", "x", "--copy", "--clear-after", "1s").wait()
			if code != 0 || !strings.Contains(screen, `the password of "x" is on the clipboard, for 1 second`) || strings.Contains(screen, password) {
				t.Fatalf("exit code %d\n%s", code, screen)
			}
			c.until(func() bool { return c.read(c.log) == tc.called && len(clearing(t, c.dir)) == 0 }, tc.called)
			if got := c.read(c.copied); got != password {
				t.Errorf("%q was copied", got)
			}
			if got := c.read(c.content); got != tc.left {
				t.Errorf("%q is left", got)
			}
			if all := c.read(c.log) + c.read(c.dir+"/environ"); strings.Contains(all, password) || strings.Contains(all, "O365PW_KEYCHAIN_PASSPHRASE") {
				t.Errorf("a program was told a secret:\n%s", all)
			}
		})
	}
}

// TestCopyStays: without a time nothing is left behind that would clear it.
func TestCopyStays(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x", "--no-wait"))
	c := newClipboard(t, "xclip")
	code, screen := m.onTerminal(c.env("DISPLAY=:77"), "show", "x", "--copy", "--clear-after", "0").wait()
	if code != 0 || !strings.Contains(screen, "is on the clipboard\r\n") || c.read(c.content) != password || c.read(c.log) != "xclip -selection clipboard\n" {
		t.Errorf("exit code %d\n%s\n%s", code, screen, c.read(c.log))
	}
	if left := clearing(t, m.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, args := range [][]string{{"--copy", "--clear-after", "-1s"}, {"--clear-after", "1s"}} {
		code, screen = m.onTerminal(c.env("DISPLAY=:77"), append([]string{"show", "x"}, args...)...).wait()
		if code != 2 || !strings.Contains(screen, "hint: ") {
			t.Errorf("%v: exit code %d\n%s", args, code, screen)
		}
	}
}

// TestTerminalClears: the terminal that has the clipboard is told to empty it, when
// the time is up and when its session ends, and nothing is left behind.
func TestTerminalClears(t *testing.T) {
	t.Parallel()
	const empty = "\x1b]52;c;!\a"
	for name, after := range map[string]string{"the time is up": "1s", "the session ends": "1h"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			password := strings.TrimSpace(m.run("create", "x", "--no-wait"))
			term := m.programOnTerminal([]string{"SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"}, "sh", "-c", "o365pw show x --copy --clear-after "+after+"; echo prompt; read line")
			term.expect(`prompt\r\n`)
			if want := "\x1b]52;c;" + base64.StdEncoding.EncodeToString([]byte(password)) + "\a"; !strings.Contains(term.text(), want) {
				t.Fatalf("not copied:\n%q", term.text())
			}
			if !strings.Contains(term.text(), "the terminal was asked to put it there, and some do not; then: o365pw show x --password") {
				t.Errorf("nobody can know that the clipboard has it:\n%q", term.text())
			}
			if after == "1s" {
				term.expect(regexp.QuoteMeta(empty))
			}
			term.send("\r")
			term.wait()
			for range 600 {
				if len(clearing(t, m.dir)) == 0 {
					return
				}
				time.Sleep(25 * time.Millisecond)
			}
			t.Errorf("left behind: %v", clearing(t, m.dir))
		})
	}
}

// clearing are the processes that are to empty a clipboard, and have a text in their
// environment.
func clearing(t *testing.T, in string) (pids []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if strings.HasSuffix(string(line), "\x00__clear-clipboard\x00") && strings.Contains(string(env), in) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}
