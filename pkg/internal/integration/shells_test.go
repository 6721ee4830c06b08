//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newShellLab is a user with app passwords of these names, with o365pw and
// argdump on the PATH. Nothing is there that could be asked: no tenant, no
// keychain's passphrase.
func newShellLab(t *testing.T, names ...string) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	l.state = filepath.Join(l.dir, ".local", "state", "o365pw")
	profile := "[profiles.%s]\ntenant = \"%s.onmicrosoft.com\"\nclient_id = \"%s\"\nmailbox = \"%s\"\n"
	l.file(".config/o365pw/config.toml", []byte("default_profile = \"work\"\n"+
		fmt.Sprintf(profile, "work", "contoso", "11111111-2222-3333-4444-555555555555", mailbox)+
		fmt.Sprintf(profile, "other", "fabrikam", "66666666-2222-3333-4444-555555555555", "bob@fabrikam.com")))
	l.file("other.toml", nil)
	l.file("st*r and more.toml", nil)
	must(t, os.Mkdir(filepath.Join(l.dir, "sub dir"), 0o700))
	bin := filepath.Join(l.dir, "bin")
	l.file("bin/argdump", []byte("#!/bin/sh\nfor a; do printf '%s\\n' \"$a\"; done >\"$ARGS\".new\nmv \"$ARGS\".new \"$ARGS\"\n"))
	must(t, os.Chmod(filepath.Join(bin, "argdump"), 0o700))
	must(t, os.Symlink(binary, filepath.Join(bin, "o365pw")))
	l.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + l.dir, "ARGS=" + filepath.Join(l.dir, "args"), quickExit}
	env := l.env
	l.env = append(slices.Clone(env), l.fileKeychain()...)
	for _, name := range names {
		l.o365pw("create", name, "--decoy")
	}
	l.o365pw("create", "Over there", "--decoy", "--profile", "other")
	l.env = env
	return l
}

// completed types a line and Tab, and gives the arguments that the shell then
// sees: the line is run with argdump before it.
func (s *screen) completed(line string) []string {
	s.l.t.Helper()
	file := filepath.Join(s.l.dir, "args")
	must(s.l.t, os.RemoveAll(file))
	s.send(line + "\t\x01argdump \r") // Ctrl-A goes to the line's beginning
	var b []byte
	eventually(s.l.t, "the arguments of "+line, func() bool {
		var err error
		b, err = os.ReadFile(file)
		return err == nil
	})
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// A name may be anybody's, of whoever has exported it: none is run.
func TestCompletionRunsNoName(t *testing.T) {
	const evil = "evil$(touch hacked)`touch hacked`;touch hacked|<(touch hacked)!x{a,b}~%n$PATH\\&*?[a]#^'\"z"
	l := newShellLab(t, evil, "evict -rf")
	for _, shell := range shells {
		t.Run(shell.name, func(t *testing.T) {
			sub := *l
			sub.t = t
			tool(t, shell.program[0])
			s := sub.onScreen(shell.program[0], shell.program[1:]...)
			s.send(shell.setUp + "; echo re''ady\r")
			s.await("ready", 1)
			for _, tt := range []struct {
				line string
				want []string
			}{
				{`o365pw revoke evil`, []string{"revoke", evil}},
				{`o365pw revoke "evil`, []string{"revoke", evil}},
				{`o365pw revoke 'evil`, []string{"revoke", evil}},
				{`o365pw revoke --name=evil`, []string{"revoke", "--name=" + evil}},
			} {
				if got := s.completed(tt.line); !slices.Equal(got, append([]string{"o365pw"}, tt.want...)) {
					t.Errorf("%s: %q", tt.line, got)
				}
			}
			s.send("o365pw revoke ev\t\t\x15echo do''ne\r") // the list of both
			s.await("done", 1)
			for _, dir := range []string{l.dir, "."} {
				if _, err := os.Stat(filepath.Join(dir, "hacked")); err == nil {
					t.Error("a name was run")
				}
			}
		})
	}
}

// shells are started so that they complete, each in its own way.
var shells = []struct {
	name    string
	program []string
	setUp   string
}{
	{"bash", []string{"bash", "--norc", "--noprofile", "-i"}, `eval "$(o365pw completion bash)"`},
	// macOS's is so old that it cannot change how it completes on the way.
	{"bash without compopt", []string{"bash", "--norc", "--noprofile", "-i"}, `compopt() { return 1; }; eval "$(o365pw completion bash)"`},
	{"bash with bash-completion", []string{"bash", "--norc", "--noprofile", "-i"}, `o365pw completion install bash; . /usr/share/bash-completion/bash_completion`},
	{"zsh", []string{"zsh", "-f", "-i"}, `autoload -Uz compinit; compinit -u -D; source <(o365pw completion zsh)`},
	{"fish", []string{"fish", "-i"}, `o365pw completion fish | source`},
}

func TestCompletionInShells(t *testing.T) {
	l := newShellLab(t, "Outlook on Mac", `it's "quoted" $HOME`, "邮件 müller", "printer:floor 2", `back\slash`, "semi;colon & more*")
	home := l.dir
	for _, shell := range shells {
		t.Run(shell.name, func(t *testing.T) {
			sub := *l
			sub.t = t
			tool(t, shell.program[0])
			s := sub.onScreen(shell.program[0], shell.program[1:]...)
			s.send(shell.setUp + "; echo re''ady\r")
			s.await("ready", 1)
			for _, tt := range []struct {
				line string
				want []string // but for o365pw itself
			}{
				{`o365pw rev`, []string{"revoke"}},
				{`o365pw revoke Out`, []string{"revoke", "Outlook on Mac"}},
				{`o365pw revoke out`, []string{"revoke", "Outlook on Mac"}},
				{`o365pw revoke "Out`, []string{"revoke", "Outlook on Mac"}},
				{`o365pw revoke 'Out`, []string{"revoke", "Outlook on Mac"}},
				{`o365pw revoke Outlook\ o`, []string{"revoke", "Outlook on Mac"}},
				{`o365pw revoke it`, []string{"revoke", `it's "quoted" $HOME`}},
				{`o365pw revoke "it`, []string{"revoke", `it's "quoted" $HOME`}},
				{`o365pw revoke 'Outlook on Mac' it`, []string{"revoke", "Outlook on Mac", `it's "quoted" $HOME`}},
				{`o365pw revoke 邮`, []string{"revoke", "邮件 müller"}},
				{`o365pw revoke pri`, []string{"revoke", "printer:floor 2"}},
				{`o365pw revoke printer:`, []string{"revoke", "printer:floor 2"}},
				{`o365pw revoke "printer:f`, []string{"revoke", "printer:floor 2"}},
				{`o365pw revoke back`, []string{"revoke", `back\slash`}},
				{`o365pw revoke 'back`, []string{"revoke", `back\slash`}},
				{`o365pw revoke semi`, []string{"revoke", `semi;colon & more*`}},
				{`o365pw revoke --name Out`, []string{"revoke", "--name", "Outlook on Mac"}},
				{`o365pw revoke --name=Out`, []string{"revoke", "--name=Outlook on Mac"}},
				{`o365pw revoke --name=printer:f`, []string{"revoke", "--name=printer:floor 2"}},
				{`o365pw revoke --prof`, []string{"revoke", "--profile"}},
				{`o365pw --profile oth`, []string{"--profile", "other"}},
				{`o365pw --profile other revoke O`, []string{"--profile", "other", "revoke", "Over there"}},
				{`o365pw --profile nobody revoke O`, []string{"--profile", "nobody", "revoke", "O"}},
				{`o365pw --config ~/other.toml --profile w`, []string{"--config", home + "/other.toml", "--profile", "w"}},
				{`o365pw create x --allow imap,s`, []string{"create", "x", "--allow", "imap,smtp"}},
				{`o365pw create x --allow=imap,pop3,`, []string{"create", "x", "--allow=imap,pop3,smtp"}},
				{`o365pw create x --mailbox ali`, []string{"create", "x", "--mailbox", "alice@contoso.com"}},
				{`o365pw create x --mailbox=alice@c`, []string{"create", "x", "--mailbox=alice@contoso.com"}},
				{`o365pw create x --mailbox alice@c`, []string{"create", "x", "--mailbox", "alice@contoso.com"}},
				{`o365pw create x --from @co`, []string{"create", "x", "--from", "@contoso.com"}},
				{`o365pw create x --expires 180`, []string{"create", "x", "--expires", "180"}}, // hours, days, …
				{`o365pw create x --expires 180d`, []string{"create", "x", "--expires", "180d"}},
				{`o365pw list -o j`, []string{"list", "-o", "json"}},
				{`o365pw setup --cloud us`, []string{"setup", "--cloud", "usgov"}},
				{`o365pw --config oth`, []string{"--config", "other.toml"}},
				{`o365pw --config st`, []string{"--config", "st*r and more.toml"}},
				{`o365pw --config "st`, []string{"--config", "st*r and more.toml"}},
				{`o365pw --config=oth`, []string{"--config=other.toml"}},
				{`o365pw --config ~/oth`, []string{"--config", home + "/other.toml"}},
				{`o365pw sandbox --dir su`, []string{"sandbox", "--dir", "sub dir"}},
				{`o365pw list oth`, []string{"list", "oth"}},     // no files
				{`o365pw create oth`, []string{"create", "oth"}}, // free text
				{`o365pw create --name oth`, []string{"create", "--name", "oth"}},
				{`o365pw help envi`, []string{"help", "environment"}},
				{`o365pw completion install zs`, []string{"completion", "install", "zsh"}},
			} {
				got := s.completed(tt.line)
				// Whether a folder's slash stays behind it is the shell's affair.
				got[len(got)-1] = strings.TrimSuffix(got[len(got)-1], "/")
				if !slices.Equal(got, append([]string{"o365pw"}, tt.want...)) {
					t.Errorf("%s<Tab>: %q, want %q", tt.line, got, tt.want)
				}
			}
			// The words, with what they mean.
			s.send("o365pw revoke \t\t")
			s.await("printer:floor 2", 1)
			s.await("alice@contoso.com", 1)
			s.await("semi;colon & more*", 1)
		})
	}
}

// TestCompletionInstall: after completion install, a new shell of somebody whose
// home was empty completes, and after uninstall no trace is left.
func TestCompletionInstall(t *testing.T) {
	path := func(l *lab) string {
		return l.env[slices.IndexFunc(l.env, func(v string) bool { return strings.HasPrefix(v, "PATH=") })]
	}
	for _, tt := range []struct {
		name    string
		install []string
		program []string
		setUp   string // what the system's start-up files have undone
		startUp string // that is written; empty: none
	}{
		// Debian loads bash-completion for login shells.
		{"bash, a login shell", []string{"bash"}, []string{"bash", "-l", "-i"}, "export %s", ""},
		{"bash", []string{"bash", "--edit-rc"}, []string{"bash", "-i"}, "", ".bashrc"},
		{"zsh", []string{"zsh", "--edit-rc"}, []string{"zsh", "-i"}, "", ".zshrc"},
		{"zsh that has run compinit before", []string{"zsh", "--edit-rc"}, []string{"zsh", "-i"}, "", ".zshrc"},
		{"fish", []string{"fish"}, []string{"fish", "-i"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newShellLab(t, "Outlook on Mac")
			tool(t, tt.program[0])
			// Root has a folder of the system's for zsh else.
			l.env = append(l.env, "XDG_DATA_HOME="+filepath.Join(l.dir, ".local", "share"))
			own := ""
			if strings.Contains(tt.name, "compinit") {
				own = "autoload -Uz compinit\ncompinit -u"
				l.file(".zshrc", []byte(own))
			}
			for range 2 { // the second time nothing is to do
				l.o365pw(append([]string{"completion", "install"}, tt.install...)...)
			}
			said := ""
			if tt.startUp != "" {
				b, err := os.ReadFile(filepath.Join(l.dir, tt.startUp))
				must(t, err)
				said = string(b)
			}
			if n := strings.Count(said, ">>> o365pw completion >>>"); n > 1 || n == 0 && tt.startUp != "" {
				t.Errorf("%s has the lines %d times:\n%s", tt.startUp, n, said)
			}
			s := l.onScreen(tt.program[0], tt.program[1:]...)
			if tt.setUp != "" {
				s.send(fmt.Sprintf(tt.setUp, path(l)) + "; ")
			}
			s.send("echo re''ady\r")
			s.await("ready", 1)
			for range 2 { // the first may be what loads it
				if got, want := s.completed(`o365pw revoke Out`), []string{"o365pw", "revoke", "Outlook on Mac"}; !slices.Equal(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			}
			l.o365pw("completion", "uninstall", tt.install[0])
			if tt.startUp != "" {
				b, err := os.ReadFile(filepath.Join(l.dir, tt.startUp))
				must(t, err)
				if strings.TrimSuffix(string(b), "\n") != own {
					t.Errorf("%s after uninstall:\n%s", tt.startUp, b)
				}
			}
			must(t, filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.Contains(d.Name(), "o365pw") && !strings.HasSuffix(filepath.Dir(path), "bin") {
					t.Errorf("%s is left", path)
				}
				return err
			}))
		})
	}
}

// TestManPages: the readers of man pages find nothing to complain of, and show
// what is in them.
func TestManPages(t *testing.T) {
	l := &lab{t: t, dir: t.TempDir(), env: append(os.Environ(), "SOURCE_DATE_EPOCH=1764000000", "MANWIDTH=80", "LC_ALL=C.UTF-8")}
	man := filepath.Join(l.dir, "man")
	r := l.try("", "go", "-C", absolute(t, "../../.."), "run", "-buildvcs=false", "./cmd/gendocs", "-docs", filepath.Join(l.dir, "docs"), "-man", man)
	if r.code != 0 {
		t.Fatalf("gendocs: exit code %d\n%s", r.code, r.stderr)
	}
	files, err := filepath.Glob(filepath.Join(man, "*"))
	must(t, err)
	if len(files) < 25 {
		t.Fatalf("only %d pages", len(files))
	}
	for _, file := range files {
		if r := l.try("", "mandoc", "-Tlint", "-Wwarning", file); r.code != 0 {
			t.Errorf("mandoc: %s%s", r.stdout, r.stderr)
		}
		if r := l.try("", "groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", file); r.code != 0 || r.stderr != "" {
			t.Errorf("groff: %s", r.stderr)
		}
	}
	r = l.try("", "man", "-P", "cat", "-l", filepath.Join(man, "o365pw-list.1"))
	for _, want := range []string{
		"\nNAME\n       o365pw-list - list app passwords\n",
		"\n           active        opens its mailboxes\n",
		"\n       --sort column\n",
		`           o365pw list -o json | jq '.appPasswords[] | select(.status == "remote-only")'` + "\n",
		"\n       130    interrupted\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
}
