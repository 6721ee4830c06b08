//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestClipboard: the programs for X11 take the password and give it back when the
// time is up, unless something else was copied.
func TestClipboard(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	password := strings.TrimSpace(l.o365pw("create", "mutt", "--no-wait"))
	for _, program := range []string{"xclip", "xsel"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			x := l.in(t)
			server := x.start("Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "640x480x8")
			number := regexp.MustCompile(`(?m)^(\d+)\n`)
			eventually(t, "the display", func() bool { return number.MatchString(server.out.String()) })
			bin := t.TempDir()
			must(t, os.Symlink(tool(t, program), filepath.Join(bin, program)))
			x.env = append(x.env, "DISPLAY=:"+number.FindStringSubmatch(server.out.String())[1], "PATH="+bin)
			content := func() string { return x.try("", "xclip", "-selection", "clipboard", "-o").stdout }

			x.o365pw("show", "mutt", "--copy", "--clear-after", "1s")
			eventually(t, "an empty clipboard", func() bool { return content() == "" })

			// Told to end, as when the machine is shut down, it does so at once.
			x.o365pw("show", "mutt", "--copy")
			if got := content(); got != password {
				t.Fatalf("%q is on the clipboard", got)
			}
			x.endClearing()
			if got := content(); got != "" {
				t.Errorf("%q is left on the clipboard", got)
			}

			x.o365pw("show", "mutt", "--copy")
			other := exec.Command(tool(t, "xclip"), "-selection", "clipboard")
			other.Env, other.Stdin = x.env, strings.NewReader("a recipe")
			must(t, other.Run())
			x.endClearing()
			if got := content(); got != "a recipe" {
				t.Errorf("%q is on the clipboard, and nobody copied it", got)
			}
		})
	}
}

// endClearing has the one process end that is to clear this lab's clipboard, and
// waits for it.
func (l *lab) endClearing() {
	l.t.Helper()
	var found []int
	eventually(l.t, "the process that clears the clipboard", func() bool {
		found = nil
		dirs, err := filepath.Glob("/proc/[0-9]*")
		must(l.t, err)
		for _, dir := range dirs {
			line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			env, _ := os.ReadFile(filepath.Join(dir, "environ"))
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && strings.HasSuffix(string(line), "\x00__clear-clipboard\x00") && strings.Contains(string(env), "HOME="+l.dir) {
				found = append(found, pid)
			}
		}
		return len(found) == 1
	})
	must(l.t, syscall.Kill(found[0], syscall.SIGTERM))
	eventually(l.t, "its end", func() bool {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", found[0]))
		return len(line) == 0 // also where nobody has asked how it ended
	})
}
