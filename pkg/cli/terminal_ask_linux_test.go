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

// TestTerminalNextStep: o365pw alone says what comes next, from nothing to a
// gateway that runs, by what is on this machine alone; in a pipe it is the help.
func TestTerminalNextStep(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.watch(nil, nil)
	alone := func(code int, env []string, want ...string) {
		t.Helper()
		before := m.requests()
		// Without what opens the keychain: it is not asked.
		got, screen := m.onTerminal(append([]string{"NO_COLOR=1", "O365PW_KEYCHAIN_PASSPHRASE=", "AZURE_CLIENT_SECRET="}, env...)).wait()
		for _, pattern := range append(want, `(?m)^  o365pw --help +all commands\r$`) {
			if !regexp.MustCompile(pattern).MatchString(screen) {
				t.Errorf("no %s on the screen:\n%s", pattern, screen)
			}
		}
		if n := strings.Count(screen, "\n"); got != code || n > 10 || m.requests() != before {
			t.Errorf("exit code %d, %d lines, %d requests\n%s", got, n, m.requests()-before, screen)
		}
	}
	alone(0, []string{"O365PW_CONFIG=", "XDG_CONFIG_HOME=" + m.dir + "/none"}, `Nothing is set up`, `(?m)^  o365pw demo +see`, `(?m)^  o365pw setup +set`)
	alone(2, []string{"O365PW_CONFIG=" + m.dir + "/missing.toml"}, `cannot be used`, `no such file`, `to mend it: o365pw setup`, `(?m)^  o365pw doctor `)
	alone(0, nil, `Profile sandbox is set up, and has no app password`, `(?m)^  o365pw create `)
	m.run("create", "mutt", "--no-wait", "--expires", "10d")
	alone(0, nil, `Profile sandbox: 1 app password, but the gateway does not run\.`, `(?m)^  o365pw serve `, `(?m)^  o365pw service install `, `⚠ "mutt" expires within 30 days: o365pw rotate mutt\r`)
	m.serve("")
	alone(0, nil, `Profile sandbox: 1 app password; the gateway runs, 0 open sessions\.`, `(?m)^  o365pw list `, `(?m)^  o365pw sessions `)

	person := newMachine(t)
	person.rewrite(func(cfg string) string {
		return strings.Replace(cfg, `[profiles.sandbox]`, "[profiles.sandbox]\nbacking = \"user\"", 1)
	})
	m = person
	alone(0, nil, `nobody is signed in for mail`, `(?m)^  o365pw login `)

	cmd, out := m.command()
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "App passwords:\n") || strings.Contains(out.String(), "nobody is signed in") {
		t.Errorf("in a pipe: %v\n%s", err, out)
	}
	if code, screen := m.onTerminal(nil, "--help").wait(); code != 0 || !strings.Contains(screen, "App passwords:") {
		t.Errorf("--help: exit code %d\n%s", code, screen)
	}
}
