package cli

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/o365pw/o365pw/pkg/explain"
)

// TestEverythingCompletes holds each command and each flag that takes a value to
// a completion: without one, shells offer files. Free text has completeNothing.
func TestEverythingCompletes(t *testing.T) {
	a := newApp(Env{Getenv: func(string) string { return "" }})
	root := newRoot(a)
	used := map[string]bool{}
	values := a.flagValues()
	flags := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && c.ValidArgsFunction == nil {
			t.Errorf("%s has no ValidArgsFunction: completeNothing is for commands that take no arguments, or free text", c.CommandPath())
		}
		see := func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == "version" || f.Value.Type() == "bool" {
				return
			}
			flags++
			if _, ok := c.GetFlagCompletionFunc(f.Name); !ok {
				t.Errorf("%s --%s has no completion: give it one in flagValues, completeNothing for free text", c.CommandPath(), f.Name)
			}
			name := f.Name
			if _, ok := values[c.Name()+" "+name]; ok {
				name = c.Name() + " " + name
			}
			used[name] = true
			if v, ok := values[name]; !ok || v.name != f.Value.Type() {
				t.Errorf("%s --%s: help calls its value %q, which is Go's name for it: give it one in flagValues", c.CommandPath(), f.Name, f.Value.Type())
			}
		}
		c.LocalNonPersistentFlags().VisitAll(see)
		c.PersistentFlags().VisitAll(see)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if flags < 30 {
		t.Errorf("only %d flags were looked at", flags)
	}
	for name := range values {
		if !used[name] {
			t.Errorf("flagValues has %q, which no command has", name)
		}
	}
}

// completer is a machine to complete on.
type completer struct {
	t   testing.TB
	env map[string]string
}

const completionConfigText = `default_profile = "work"
[profiles.work]
tenant = "contoso.onmicrosoft.com"
client_id = "11111111-2222-3333-4444-555555555555"
mailbox = "alice@contoso.com"
[profiles.other]
tenant = "fabrikam.onmicrosoft.com"
client_id = "66666666-2222-3333-4444-555555555555"
cloud = "lab"
[clouds.lab]
authority = "http://127.0.0.1:8400"
graph = "http://127.0.0.1:8401/v1.0"
`

func newCompleter(t testing.TB) *completer {
	dir := t.TempDir()
	c := &completer{t: t, env: map[string]string{"HOME": dir, "O365PW_CONFIG": filepath.Join(dir, "config.toml"), "O365PW_STATE": dir}}
	record := func(id, name, profile, mailbox, expires string) string {
		return `{"id":"` + id + `","name":` + strconv.Quote(name) + `,"profile":"` + profile + `","mailboxes":["` + mailbox + `"],"allow":["imap"],"backing":"secret","expires":"` + expires + `"}`
	}
	c.file("config.toml", completionConfigText)
	c.file("registry.json", `{"version":1,"appPasswords":[`+strings.Join([]string{
		record("aa000000-0000-4000-8000-000000000001", "Outlook on Mac", "work", "alice@contoso.com", "2027-05-01T00:00:00Z"),
		record("ab000000-0000-4000-8000-000000000002", "邮件 it's", "work", "scan@contoso.com", "2026-01-01T00:00:00Z"),
		record("bb000000-0000-4000-8000-000000000003", "-dash", "work", "alice@contoso.com", "2027-05-01T00:00:00Z"),
		record("cc000000-0000-4000-8000-000000000004", "Over there", "other", "bob@fabrikam.com", "2027-05-01T00:00:00Z"),
	}, ",")+`]}`)
	return c
}

func (c *completer) file(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.env["O365PW_STATE"], name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// complete gives the lines of a completion, and its directive.
func (c *completer) complete(args ...string) ([]string, cobra.ShellCompDirective) {
	c.t.Helper()
	var out, errs bytes.Buffer
	code := Main(c.t.Context(), Env{
		Args: append([]string{cobra.ShellCompRequestCmd}, args...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(k string) string { return c.env[k] },
		Now:    func() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local) },
	})
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	last := lines[len(lines)-1]
	directive, err := strconv.Atoi(strings.TrimPrefix(last, ":"))
	if code != 0 || err != nil || !strings.HasPrefix(last, ":") {
		c.t.Fatalf("complete %q: exit code %d\n%s%s", args, code, out.String(), errs.String())
	}
	return lines[:len(lines)-1], cobra.ShellCompDirective(directive)
}

func TestCompletions(t *testing.T) {
	c := newCompleter(t)
	const (
		mac  = "Outlook on Mac\talice@contoso.com"
		post = "邮件 it's\tscan@contoso.com (expired)"
	)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"revoke", ""}, []string{mac, post}},
		{[]string{"revoke", "OUT"}, []string{mac}},
		{[]string{"revoke", "Outlook on Mac", ""}, []string{post}},
		{[]string{"revoke", "--", ""}, []string{"-dash\talice@contoso.com", mac, post}},
		{[]string{"revoke", "a"}, []string{"aa000000-0000-4000-8000-000000000001\tOutlook on Mac, alice@contoso.com", "ab000000-0000-4000-8000-000000000002\t邮件 it's, scan@contoso.com (expired)"}},
		{[]string{"show", "Outlook on Mac", ""}, nil},
		{[]string{"doctor", "邮"}, []string{post}},
		{[]string{"--profile", "other", "revoke", ""}, []string{"Over there\tbob@fabrikam.com"}},
		{[]string{"--profile", "nobody", "revoke", ""}, nil},
		{[]string{"--config", "/not/there.toml", "revoke", "o"}, []string{mac, "Over there\tbob@fabrikam.com"}},
		{[]string{"create", ""}, nil},
		{[]string{"create", "--name", "O"}, nil},
		{[]string{"--profile", ""}, []string{"other\tfabrikam.onmicrosoft.com", "work\talice@contoso.com"}},
		{[]string{"create", "--mailbox", ""}, []string{"alice@contoso.com\tprofile work", "scan@contoso.com\tas 邮件 it's"}},
		{[]string{"create", "--mailbox=S"}, []string{"scan@contoso.com\tas 邮件 it's"}},
		{[]string{"create", "--from", "@"}, []string{"@contoso.com\tevery address there"}},
		{[]string{"create", "--allow", ""}, []string{"imap\tread and file mail", "pop3\tfetch mail", "smtp\tsend mail"}},
		{[]string{"create", "--allow", "imap"}, []string{"imap\tread and file mail", "imap,pop3\tfetch mail", "imap,smtp\tsend mail"}},
		{[]string{"create", "--allow", "smtp,"}, []string{"smtp,imap\tread and file mail", "smtp,pop3\tfetch mail"}},
		{[]string{"create", "--allow", "smtp,imap,p"}, []string{"smtp,imap,pop3\tfetch mail"}},
		{[]string{"create", "--expires", ""}, []string{"30d\tuntil 24 December 2026", "90d\tuntil 22 February 2027", "180d\tuntil 23 May 2027", "1y\tuntil 24 November 2027"}},
		{[]string{"create", "--expires", "2"}, []string{"2h\tuntil 24 November, 14:00", "2d\tuntil 26 November 2026", "2w\tuntil 8 December 2026", "2mo\tuntil 23 January 2027", "2y\tuntil 23 November 2028"}},
		{[]string{"audit", "--since", "2"}, []string{"24h\tsince 23 November, 12:00", "2h\tsince 24 November, 10:00", "2d\tsince 22 November 2026", "2w\tsince 10 November 2026", "2mo\tsince 25 September 2026", "2y\tsince 24 November 2024"}},
		{[]string{"setup", "--cloud", ""}, []string{"global\tMicrosoft 365 worldwide, with GCC", "usgov\tUS government, GCC High", "dod\tUS Department of Defense", "china\tChina, operated by 21Vianet", "lab\tof the configuration"}},
		{[]string{"setup", "--tenant", "fa"}, []string{"fabrikam.onmicrosoft.com\tprofile other"}},
		{[]string{"list", "-o", "j"}, []string{"json\tone object"}},
		{[]string{"login", "--for", ""}, []string{"graph\tmanaging app passwords", "mail\topening your own mailbox"}},
		{[]string{"serve", "--imap", ""}, []string{"127.0.0.1:1993\tthe default", "off\tnot spoken"}},
		{[]string{"serve", "--log", ""}, []string{"text", "json"}},
		{[]string{"list", ""}, nil},
		{[]string{"completion", "install", "z"}, []string{"zsh"}},
	} {
		got, directive := c.complete(tt.args...)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
		if directive&cobra.ShellCompDirectiveNoFileComp == 0 {
			t.Errorf("%q: files are offered", tt.args)
		}
	}
	for flag, want := range map[string]cobra.ShellCompDirective{
		"list --config": cobra.ShellCompDirectiveDefault, "setup --import": cobra.ShellCompDirectiveDefault, "doctor --report": cobra.ShellCompDirectiveDefault,
		"sandbox --dir": cobra.ShellCompDirectiveFilterDirs,
	} {
		if got, directive := c.complete(append(strings.Fields(flag), "")...); len(got) > 0 || directive != want {
			t.Errorf("%s: %q, directive %d, want %d", flag, got, directive, want)
		}
	}
	commands, _ := c.complete("")
	for _, want := range []string{"create\tMake an app password", "help\tHelp about a command or a topic", "completion\tComplete commands, names and values in your shell"} {
		if !slices.Contains(commands, want) {
			t.Errorf("no %q among the commands: %q", want, commands)
		}
	}
	if slices.ContainsFunc(commands, func(s string) bool { return strings.HasPrefix(s, "environment") || s == "" }) {
		t.Errorf("topics, or nothing, among the commands: %q", commands)
	}
	faults, directive := c.complete("sandbox", "--fault", "graph")
	if !slices.Equal(faults, []string{"graphDown=true"}) || directive&cobra.ShellCompDirectiveNoSpace == 0 {
		t.Errorf("--fault: %q, directive %d", faults, directive)
	}
}

// What is missing or damaged offers nothing, and says nothing.
func TestCompletionIsSilent(t *testing.T) {
	for name, spoil := range map[string]func(c *completer){
		"nothing there":    func(c *completer) { c.env = map[string]string{} },
		"damaged registry": func(c *completer) { c.file("registry.json", "{") },
		"newer registry":   func(c *completer) { c.file("registry.json", `{"version":99}`) },
		"damaged both":     func(c *completer) { c.file("registry.json", "{"); c.file("config.toml", "[") },
		"no registry":      func(c *completer) { c.env["O365PW_STATE"] = filepath.Join(c.env["O365PW_STATE"], "none") },
		"unknown profile":  func(c *completer) { c.env["O365PW_PROFILE"] = "nobody" },
	} {
		c := newCompleter(t)
		spoil(c)
		if got, directive := c.complete("revoke", ""); len(got) != 0 || directive&cobra.ShellCompDirectiveNoFileComp == 0 {
			t.Errorf("%s: %q, directive %d", name, got, directive)
		}
	}
}

// TestStartUpBlock: lines come into a start-up file once, and leave it as it was.
func TestStartUpBlock(t *testing.T) {
	for _, file := range []string{"", "alias ll='ls -l'\n", "no line end", "a\n\n"} {
		once := withBlock(file, []string{"one", "two"})
		if withBlock(once, []string{"one", "two"}) != once {
			t.Errorf("%q: twice is not once: %q", file, withBlock(once, []string{"one", "two"}))
		}
		if got := withBlock(once+"after\n", []string{"three"}); !strings.HasSuffix(got, rcBegin+"three\n"+rcEnd+"after\n") {
			t.Errorf("%q: other lines: %q", file, got)
		}
		if got := withoutBlock(once); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(file, "\n") {
			t.Errorf("%q: taken out: %q", file, got)
		}
	}
	for _, file := range []string{rcBegin + "no end\n", "# " + rcBegin + rcEnd, rcEnd + rcBegin} {
		if got := withoutBlock(file); got != file {
			t.Errorf("%q was changed to %q", file, got)
		}
	}
}

// TestExitCodesAgree: what help says of exit codes is what explain says.
func TestExitCodesAgree(t *testing.T) {
	var parts []string
	for _, c := range ExitCodes() {
		if c.Meaning == "" {
			t.Errorf("explain has no exit code %d", c.Code)
		}
		parts = append(parts, strconv.Itoa(c.Code)+" "+c.Meaning)
	}
	if want := "Exit codes: " + strings.Join(parts, ", ") + "."; strings.Join(strings.Fields(exitCodeHelp), " ") != want {
		t.Errorf("help has %q, explain %q", exitCodeHelp, want)
	}
	for code := range 256 {
		if _, ok := explain.Exit(code); ok != slices.Contains(exitCodeList, exitCode(code)) {
			t.Errorf("exit code %d: explain has it: %v", code, ok)
		}
	}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range exitCodeList {
		if !regexp.MustCompile(`(?m)^\| ` + strconv.Itoa(int(c)) + ` \| `).Match(readme) {
			t.Errorf("exit code %d is not in the table of README.md", c)
		}
	}
}

// readIndirectly are variables whose names the function that reads them gets as
// arguments, or makes.
var readIndirectly = map[string][]string{
	"userDir":         {"AppData", "LocalAppData", "XDG_CONFIG_HOME", "XDG_STATE_HOME"},
	"missingInCI":     {"ACTIONS_ID_TOKEN_REQUEST_URL", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN", "SYSTEM_ACCESSTOKEN", "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"},
	"allProfiles":     {"O365PW_CLIENT_ID", "O365PW_TENANT"},
	"add":             {"O365PW_CLIENT_ID", "O365PW_KEYCHAIN", "O365PW_TENANT"},
	"environmentStep": {"O365PW_CLIENT_ID", "O365PW_KEYCHAIN", "O365PW_STATE", "O365PW_TENANT"},
	"serviceEnviron":  {"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"},
	"completionPlace": {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR"},
}

// readByLibraries are variables that Go's own library and modules read: net and
// crypto/x509, os/exec, go-systemd, cobra.
var readByLibraries = []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "PATH", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "O365PW_COMPLETION_DESCRIPTIONS"}

// TestEnvironmentTopic holds the help topic to the variables that the source
// reads, both ways.
func TestEnvironmentTopic(t *testing.T) {
	read := map[string]string{}
	for _, name := range readByLibraries {
		read[name] = "a library"
	}
	seen := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			ast.Inspect(decl, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 1 || !isGetenv(call.Fun) {
					return true
				}
				if lit, ok := call.Args[0].(*ast.BasicLit); ok {
					name, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Error(err)
					}
					read[name] = path
					return true
				}
				name := ""
				if fn, ok := decl.(*ast.FuncDecl); ok {
					name = fn.Name.Name
				}
				if _, ok := readIndirectly[name]; !ok {
					t.Errorf("%s: %s reads a variable whose name is not written there: name it in readIndirectly", path, name)
				}
				seen[name] = true
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for fn, names := range readIndirectly {
		if !seen[fn] {
			t.Errorf("readIndirectly has %s, which reads no variable", fn)
		}
		for _, name := range names {
			read[name] = fn
		}
	}
	if len(read) < 30 {
		t.Fatalf("only %d variables were found", len(read))
	}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(environmentTopic) {
			t.Errorf("%s, which %s reads, is not in the topic environment", name, read[name])
		}
	}
	for _, name := range regexp.MustCompile(`\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|(?m)^  ([A-Z]{4,})\b`).FindAllString(environmentTopic, -1) {
		if read[strings.TrimSpace(name)] == "" {
			t.Errorf("the topic environment has %s, which nothing reads", name)
		}
	}
}

func isGetenv(fun ast.Expr) bool {
	name := ""
	switch f := fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
	}
	return slices.Contains([]string{"Getenv", "getenv", "LookupEnv"}, name)
}
