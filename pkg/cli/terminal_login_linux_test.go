package cli_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asPerson is the environment of somebody at a terminal, without what CI has.
var asPerson = []string{"AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "NO_COLOR=1"}

var printedURL = regexp.MustCompile(`(?m)^(http\S+)\r$`)

// answerOf opens the address that the terminal shows, as somebody on another
// machine does, and gives the one that the browser ends at.
func answerOf(t *testing.T, screen string) string {
	t.Helper()
	m := printedURL.FindStringSubmatch(screen)
	if m == nil {
		t.Fatalf("no address on the screen:\n%s", screen)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(m[1])
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	to := resp.Header.Get("Location")
	if !strings.HasPrefix(to, "http://localhost/?code=") {
		t.Fatalf("redirected to %q", to)
	}
	return to
}

// TestTerminalPaste: what is pasted is never shown, may be longer than a
// terminal's line and have several lines, and is asked for again where it is
// something else.
func TestTerminalPaste(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	term := m.onTerminal(asPerson, "login", "--paste")
	term.expect(`paste it here: $`)
	answer := answerOf(t, term.text())
	term.send("no address\r")
	term.expect(`that is not it: .*\s+paste it here: $`)
	term.send("typed wrong\x15\x7f")
	long := answer + "&client_info=" + strings.Repeat("s", 6000)
	term.send(long[:100] + "\r" + long[100:2000] + "\r" + long[2000:] + "\r")
	term.expect(`signed in as`)
	code, screen := term.wait()
	if code != 0 || !strings.Contains(screen, "signed in as alice@contoso.com") {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	if strings.Contains(screen, answer[40:80]) || strings.Contains(screen, "sssssss") {
		t.Errorf("what was pasted is on the screen:\n%s", screen)
	}
}

// TestTerminalPasteOfAnother: the answer to an earlier sign-in is refused.
func TestTerminalPasteOfAnother(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := m.onTerminal(asPerson, "login", "--paste")
	first.expect(`paste it here: $`)
	stale := answerOf(t, first.text())
	first.send("\x03")
	if code, screen := first.wait(); code != 130 || strings.Contains(screen, "signed in") {
		t.Errorf("Ctrl-C: exit code %d\n%s", code, screen)
	}
	// The terminal is as it was: it shows what is typed, and Ctrl-C is a signal.
	state, err := unix.IoctlGetTermios(int(first.master.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ECHO == 0 || state.Lflag&unix.ICANON == 0 || state.Lflag&unix.ISIG == 0 {
		t.Errorf("the terminal is left in raw mode: %+v, %v", state, err)
	}
	second := m.onTerminal(asPerson, "login", "--paste")
	second.expect(`paste it here: $`)
	second.send(stale + "\r")
	if code, screen := second.wait(); code != 3 || !strings.Contains(screen, "of another sign-in than this one") {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	if code, screen := m.onTerminal(asPerson, "list").wait(); code != 3 {
		t.Errorf("somebody is signed in: exit code %d\n%s", code, screen)
	}
}

// TestTerminalLoginInterrupted: Ctrl-C while a browser or another device is
// waited for ends the command, and keeps nothing.
func TestTerminalLoginInterrupted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, flag := range []string{"--for=graph", "--for=mail"} {
		term := m.onTerminal(append([]string{"BROWSER=true"}, asPerson...), "login", flag)
		term.expect(`if none opens, visit:`)
		term.send("\x03")
		if code, screen := term.wait(); code != 130 || !strings.Contains(screen, "o365pw: interrupted") {
			t.Errorf("%s: exit code %d\n%s", flag, code, screen)
		}
	}
	if code, screen := m.onTerminal(asPerson, "list").wait(); code != 3 {
		t.Errorf("somebody is signed in: exit code %d\n%s", code, screen)
	}
}
