//go:build integration

package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// screen is a program on a pseudo-terminal of its own.
type screen struct {
	l      *lab
	master *os.File
	out    *logtest.Buffer
}

// onScreen starts a program on a terminal, until the test ends.
func (l *lab) onScreen(program string, args ...string) *screen {
	l.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	must(l.t, err)
	must(l.t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(l.t, err)
	must(l.t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 160}))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(l.t, err)
	defer slave.Close()
	s := &screen{l: l, master: master, out: &logtest.Buffer{}}
	cmd := exec.Command(tool(l.t, program), args...)
	cmd.Env, cmd.Dir = append(l.env, "TERM=xterm"), l.dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(l.t, cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(s.out, master) // EIO once the program has ended
	}()
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
		<-read
		if l.t.Failed() {
			l.t.Logf("the screen of %s:\n%s", program, s.text())
		}
	})
	return s
}

func (s *screen) send(keys string) {
	s.l.t.Helper()
	_, err := io.WriteString(s.master, keys)
	must(s.l.t, err)
}

// escapes are what moves the cursor and sets colours.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])|\x0f`)

// text is what was shown, without colours.
func (s *screen) text() string { return escapes.ReplaceAllString(s.out.String(), "") }

// await waits until text has been shown n times.
func (s *screen) await(text string, n int) {
	s.l.t.Helper()
	eventually(s.l.t, fmt.Sprintf("%q on the screen", text), func() bool { return strings.Count(s.text(), text) >= n })
}
