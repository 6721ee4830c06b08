package cli_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTerminalCreateAsksForName: until there is one that can be had; nothing is
// made where none is given, and nobody is asked without a terminal.
func TestTerminalCreateAsksForName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("create", "mutt", "--no-wait")
	const prompt = `Name, e\.g\. Thunderbird on laptop: `
	for key, name := range map[string]string{"\x03": "Ctrl-C", "\x04": "Ctrl-D"} {
		term := m.onTerminal(nil, "create", "--no-wait")
		term.expect(prompt + `$`)
		term.send(key)
		if code, screen := term.wait(); code != 130 || len(m.registry().AppPasswords) != 1 || len(m.sandbox.Credentials()) != 1 {
			t.Errorf("%s: exit code %d\n%s", name, code, screen)
		}
	}
	term := m.onTerminal([]string{"NO_COLOR=1"}, "create", "--no-wait")
	term.expect(prompt + `$`)
	term.send("\r")
	term.expect(`the name is empty\r\n` + prompt + `$`)
	term.send("MUTT\r")
	term.expect(`there is already an app password named "mutt"\r\n` + prompt + `$`)
	term.send(strings.Repeat("x", 500) + "\r")
	term.expect(`has 500 characters; 120 is the most\r\n` + prompt + `$`)
	term.send(" Outlook on Mac \r")
	code, screen := term.wait()
	if code != 0 || !regexp.MustCompile(`(?m)^Outlook on Mac\r$`).MatchString(screen) || len(m.sandbox.Credentials()) != 2 {
		t.Errorf("exit code %d\n%s", code, screen)
	}
	for _, args := range [][]string{{"create", "--quiet"}, {"create", "-o", "json"}} { // who asks for no words is not asked
		if code, screen := m.onTerminal(nil, args...).wait(); code != 2 || !strings.Contains(screen, "needs a name") {
			t.Errorf("%v: exit code %d\n%s", args, code, screen)
		}
	}
	term = m.onTerminal([]string{"O365PW_CONFIG=" + m.dir + "/missing.toml"}, "create")
	if code, screen := term.wait(); code != 2 || strings.Contains(screen, "Name, e.g.") {
		t.Errorf("asked although nothing can be made: exit code %d\n%s", code, screen)
	}
	cmd, out := m.command("create")
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 2 || !slices.Contains(strings.Split(out.String(), "\n"), "o365pw: an app password needs a name") {
		t.Errorf("in a pipe: %v\n%s", err, out)
	}
}
