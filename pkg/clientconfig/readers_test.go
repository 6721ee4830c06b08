package clientconfig

import (
	"net/mail"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// awkward are names with what has a meaning in a file of one program or another.
var awkward = []string{
	"mutt", "Outlook on Mac", "it's", `"a"`, `\`, `\\`, `a\`, `\'`, `'\''`, "`", "a`b`", "\\`", "$(touch x)", "${z} %{z} $z", "%(h)s %s %h %%", "#;)(", "ü 邮 👋", "-x", "--name", "a)b", `"'"'"`, "'", "''", "+x", "~/x",
}

// readerAccount is one that has everything.
func readerAccount(name, user, file string) Account {
	s := func(port int) Server { return Server{Host: "localhost", Port: port, Security: "tls"} }
	return Account{AppPassword: name, Address: user, User: user, CAFile: file, Program: []string{file, "--profile", name},
		Servers: map[string]Server{"imap": s(1993), "pop3": s(1995), "smtp": s(1587)}}
}

// reread has the user, the certificate file and the words of the password
// command, as a reader of the file finds them; empty: it has none.
var reread = map[string]func(t *testing.T, file string) (user, ca string, command []string){
	"aerc": func(t *testing.T, file string) (string, string, []string) {
		source := line(t, file, "source = ")
		return userOf(t, source), "", shellWords(t, goINI(line(t, file, "source-cred-cmd = ")))
	},
	"fdm": func(t *testing.T, file string) (string, string, []string) {
		account := line(t, file, `account "o365pw" `)
		_, user, _ := strings.Cut(account, " user ")
		_, command, _ := strings.Cut(user, " pass $(")
		return fdmString(t, user), "", shellWords(t, fdmCommand(t, command))
	},
	"fetchmail": func(t *testing.T, file string) (string, string, []string) {
		return backslashed(t, strings.TrimSuffix(line(t, file, "  user "), " keep")), backslashed(t, line(t, file, "  sslcertfile ")), nil
	},
	"getmail": func(t *testing.T, file string) (string, string, []string) {
		return line(t, file, "username = "), line(t, file, "ca_certs = "), pythonWords(t, line(t, file, "password_command = "))
	},
	"himalaya": func(t *testing.T, file string) (string, string, []string) {
		type server struct {
			TLS  struct{ Cert string }
			SASL struct {
				Plain struct {
					Username string
					Password struct{ Command []string }
				}
			}
		}
		var v struct {
			Accounts map[string]struct {
				Email      string
				IMAP, SMTP server
			}
		}
		if err := toml.Unmarshal([]byte(file), &v); err != nil {
			t.Fatalf("%v:\n%s", err, file)
		}
		a := v.Accounts["o365pw"]
		if a.IMAP.SASL.Plain.Username != a.SMTP.SASL.Plain.Username || a.Email == "" {
			t.Errorf("IMAP and SMTP differ: %+v", a)
		}
		return a.IMAP.SASL.Plain.Username, a.IMAP.TLS.Cert, a.SMTP.SASL.Plain.Password.Command
	},
	"mbsync": func(t *testing.T, file string) (string, string, []string) {
		return backslashed(t, line(t, file, "User ")), backslashed(t, line(t, file, "CertificateFile ")), shellWords(t, backslashed(t, line(t, file, "PassCmd ")))
	},
	"mpop": func(t *testing.T, file string) (string, string, []string) {
		ca := line(t, file, "tls_trust_file ")
		return line(t, file, "user "), ca[1 : len(ca)-1], shellWords(t, line(t, file, "passwordeval "))
	},
	"mutt": func(t *testing.T, file string) (string, string, []string) {
		return rereadMutt(t, file, func(s string) string { return s })
	},
	"neomutt": func(t *testing.T, file string) (string, string, []string) {
		return rereadMutt(t, file, func(s string) string { return backslashed(t, `"`+strings.ReplaceAll(s, `"`, `\"`)+`"`) })
	},
	"offlineimap": func(t *testing.T, file string) (string, string, []string) {
		plain := func(s string) string { // Python's BasicInterpolation
			if rest := strings.ReplaceAll(s, "%%", ""); strings.Contains(rest, "%") {
				t.Errorf("%q would be put together with other values", s)
			}
			return strings.ReplaceAll(s, "%%", "%")
		}
		call := plain(line(t, file, "remotepasseval = "))
		_, tuple, _ := strings.Cut(call, ".check_output(")
		tuple, _, ok := strings.Cut(tuple, ", text=True).strip()")
		if !ok {
			t.Fatalf("no call: %s", call)
		}
		return plain(line(t, file, "remoteuser = ")), plain(line(t, file, "sslcacertfile = ")), pythonWords(t, tuple)
	},
}

// TestReadersQuote holds each configuration to the values that went into it, as
// the program's own rules of quoting give them back.
func TestReadersQuote(t *testing.T) {
	for _, name := range awkward {
		checkQuoted(t, name, "alice@contoso.com", "/home/alice/"+name)
	}
	for _, user := range []string{"alice+x@contoso.com", "o'brien@contoso.com", "$a%(h)s@contoso.com", "a`b`@contoso.com", "ü@contoso.com", "{a}#/=?@contoso.com", "a${b}%{c}@contoso.com"} {
		checkQuoted(t, "mutt", user, "/ca.pem")
	}
}

func FuzzReadersQuote(f *testing.F) {
	for _, name := range awkward {
		f.Add(name, "alice@contoso.com", "/home/x/"+name)
	}
	f.Add("mutt", "o'b+$`%@contoso.com", "/ca.pem")
	f.Fuzz(func(t *testing.T, name, user, file string) {
		m, err := mail.ParseAddress(user)
		if err != nil || m.Address != user || strings.ContainsAny(user, " \"\\") { // as package apppassword has it
			return
		}
		for _, s := range []string{name, user, file} {
			if s == "" || !utf8.ValidString(s) || strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
				return
			}
		}
		if strings.Contains(file, `"`) && strings.HasPrefix(file, `"`) {
			return // no path begins so: it is absolute
		}
		checkQuoted(t, name, user, file)
	})
}

func checkQuoted(t *testing.T, name, user, file string) {
	t.Helper()
	a := readerAccount(name, user, file)
	for _, c := range readers() {
		cfg, err := c.Settings(a)
		read := reread[c.Name]
		if err != nil || read == nil {
			if c.Name != "alpine" {
				t.Errorf("%s: %v", c.Name, err)
			}
			continue
		}
		gotUser, ca, command := read(t, string(cfg.Files[0].Content))
		if gotUser != user || ca != "" && ca != file || command != nil && !slices.Equal(command, a.PasswordArgs()) {
			t.Errorf("%s: user %q, certificate %q, command %q, want %q, %q, %q, in:\n%s", c.Name, gotUser, ca, command, user, file, a.PasswordArgs(), cfg.Files[0].Content)
		}
	}
}

// TestReadersProtocols has each client set up with each set of protocols that it
// can do with, and each kind of server.
func TestReadersProtocols(t *testing.T) {
	for _, c := range readers() {
		for _, security := range []string{"tls", "starttls", "none"} {
			for bits := range 8 {
				a := readerAccount("laptop", "alice@contoso.com", "/ca.pem")
				for i, p := range []string{"imap", "pop3", "smtp"} {
					a.Servers[p] = Server{Host: "::1", Port: 1000 + i, Security: security}
					if bits&(1<<i) == 0 {
						delete(a.Servers, p)
					}
				}
				missing := c.Missing(func(p string) bool { _, ok := a.Servers[p]; return ok })
				cfg, err := c.Settings(a)
				if (err != nil) != (len(missing) > 0) {
					t.Errorf("%s, %s, %v: %v, missing %q", c.Name, security, a.Servers, err, missing)
				}
				if err != nil {
					continue
				}
				text := string(cfg.Files[0].Content)
				for p, s := range a.Servers {
					used := strings.Contains(text, strconv.Itoa(s.Port))
					read, _ := a.reading(c.Protocols...)
					if want := slices.Contains(c.Protocols, p) && (p == "smtp" || p == read || read == "smtp"); used != want {
						t.Errorf("%s, %s, %v: the port of %s is there: %v, want %v:\n%s", c.Name, security, a.Servers, p, used, want, text)
					}
				}
				if strings.Contains(text, "::1:") {
					t.Errorf("%s: an IPv6 address without brackets:\n%s", c.Name, text)
				}
				if !strings.HasSuffix(text, "\n") || path.Base(cfg.Files[0].Path) == "" {
					t.Errorf("%s: no last line end, or no name", c.Name)
				}
			}
		}
	}
}

// TestReadersScope holds what create --for presets to what the client can use.
func TestReadersScope(t *testing.T) {
	for _, c := range readers() {
		if len(c.Scope.Allow) == 0 || len(c.Missing(func(p string) bool { return slices.Contains(c.Scope.Allow, p) })) > 0 {
			t.Errorf("%s is preset to %q, which does not do for it", c.Name, c.Scope.Allow)
		}
		for _, p := range c.Scope.Allow {
			if !slices.Contains(c.Protocols, p) {
				t.Errorf("%s is preset to %s, which it cannot use", c.Name, p)
			}
		}
	}
}

func TestPathsWithLineBreaks(t *testing.T) {
	a := readerAccount("laptop", "alice@contoso.com", "/tmp/a\nb")
	if _, err := readers()[0].Settings(a); err == nil {
		t.Error("a path with a line break was taken")
	}
}

// line is what stands behind a text that one line begins with.
func line(t *testing.T, file, begin string) string {
	t.Helper()
	for l := range strings.Lines(file) {
		if rest, ok := strings.CutPrefix(l, begin); ok {
			return strings.TrimSuffix(rest, "\n")
		}
	}
	t.Fatalf("no line begins with %q:\n%s", begin, file)
	return ""
}

func userOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		t.Fatalf("%s: %v", address, err)
	}
	return u.User.Username()
}

// shellWords splits a command as /bin/sh does, which must have nothing to put
// in.
func shellWords(t *testing.T, command string) (words []string) {
	t.Helper()
	var word strings.Builder
	begun := false
	for i := 0; i < len(command); i++ {
		switch c := command[i]; c {
		case ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
			continue
		case '\'', '"':
			end := strings.IndexByte(command[i+1:], c)
			if end < 0 {
				t.Fatalf("a text without end: %s", command)
			}
			inner := command[i+1 : i+1+end]
			if c == '"' && strings.ContainsAny(inner, "$`\\") {
				t.Fatalf("the shell would put something in: %s", command)
			}
			word.WriteString(inner)
			i += end + 1
		case '\\':
			i++
			if i == len(command) {
				t.Fatalf("a backslash at the end: %s", command)
			}
			word.WriteByte(command[i])
		default:
			if strings.IndexByte("$`&|;<>()#*?[]{}!~\t\n", c) >= 0 {
				t.Fatalf("the shell gives a meaning to %q: %s", c, command)
			}
			word.WriteByte(c)
		}
		begun = true
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

// backslashed reads a text between double quotes, to the end of it.
func backslashed(t *testing.T, s string) string {
	t.Helper()
	if s == "" || s[0] != '"' {
		t.Fatalf("not quoted: %s", s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			if i != len(s)-1 {
				t.Fatalf("it ends early: %s", s)
			}
			return b.String()
		case '\\':
			i++
		}
		b.WriteByte(s[i])
	}
	t.Fatalf("no end: %s", s)
	return ""
}

// rereadMutt reads a muttrc. unquote is what the program does to a command
// before it runs it.
func rereadMutt(t *testing.T, file string, unquote func(string) string) (user, ca string, command []string) {
	t.Helper()
	pass := line(t, file, "set imap_pass = ")
	if pass != line(t, file, "set smtp_pass = ") || !strings.HasPrefix(pass, "\"`") {
		t.Fatalf("two passwords, or no command: %s", file)
	}
	end := 2
	for ; pass[end] != '`'; end++ {
		if pass[end] == '\\' {
			end++
		}
	}
	if pass[end:] != "`\"" {
		t.Fatalf("the command ends early: %s", pass)
	}
	user = backslashed(t, line(t, file, "set imap_user = "))
	if u := userOf(t, backslashed(t, line(t, file, "set smtp_url = "))); u != user {
		t.Errorf("SMTP has the user %q, IMAP %q", u, user)
	}
	for _, l := range []string{line(t, file, "set imap_user = "), line(t, file, "set certificate_file = ")} {
		for i := range l {
			if (l[i] == '$' || l[i] == '`') && l[i-1] != '\\' {
				t.Errorf("something is put in: %s", l)
			}
		}
	}
	return user, backslashed(t, line(t, file, "set certificate_file = ")), shellWords(t, unquote(pass[2:end]))
}

// goINI reads a value as gopkg.in/ini does.
func goINI(s string) string {
	if s[0] == '`' {
		return s[1:strings.LastIndexByte(s, '`')]
	}
	if i := strings.IndexAny(s, "#;"); i >= 0 {
		s = s[:i]
	}
	return s
}

// fdmString reads a text of an fdm.conf.
func fdmString(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	for i := 1; i < len(s) && s[i] != '"'; i++ {
		switch {
		case s[i] == '\\':
			i++
		case (s[i] == '$' || s[i] == '%') && strings.HasPrefix(s[i+1:], "{"):
			t.Errorf("a macro is put in: %s", s)
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// fdmCommand reads a command up to its bracket. It is taken as it is between
// single quotes, and between double ones backslashes are taken away.
func fdmCommand(t *testing.T, s string) string {
	t.Helper()
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth == 0 {
				return s[:i]
			}
			depth--
		case '\'', '"':
			end := strings.IndexByte(s[i+1:], s[i])
			if end < 0 || s[i] == '"' && strings.ContainsAny(s[i+1:i+1+end], `\$%`) {
				t.Fatalf("no end, or something is put in: %s", s)
			}
			i += end + 1
		}
	}
	t.Fatalf("the command has no end: %s", s)
	return ""
}

// pythonWords reads a tuple of texts in ASCII.
func pythonWords(t *testing.T, tuple string) (words []string) {
	t.Helper()
	inner, ok := strings.CutPrefix(tuple, "(")
	inner, ok2 := strings.CutSuffix(inner, ")")
	if !ok || !ok2 || strings.ContainsFunc(tuple, func(r rune) bool { return r > 0x7e }) {
		t.Fatalf("no tuple in ASCII: %s", tuple)
	}
	for inner != "" {
		q, err := strconv.QuotedPrefix(inner) // Go's escapes are among Python's
		if err != nil {
			t.Fatalf("%v: %s", err, inner)
		}
		word, err := strconv.Unquote(q)
		if err != nil {
			t.Fatalf("%v: %s", err, q)
		}
		words = append(words, word)
		inner = strings.TrimPrefix(inner[len(q):], ", ")
	}
	return words
}
