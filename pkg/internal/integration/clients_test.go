//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// program is a mail program that signs in at the gateway.
type program struct {
	name string
	// exact says that it saves messages with their line ends; others save LF.
	exact bool
	// fetch saves each message of INBOX in a file of its own in folder.
	fetch func(l *lab, way, password, folder string) result
	// refusal is how it reports a wrong password; a regular expression.
	refusal string
}

// wrong is well-formed, and no app password.
const wrong = "wrongwrongwrongg"

// refusedMutt is what mutt shows, with SASL modules or without, before it asks
// for the password again.
const refusedMutt = `(SASL authentication|Login) failed\.`

var programs = []program{
	{"curl", true, fetchCurl, `curl: \(67\)`},
	{"python", true, fetchPython("login"), `refused: b'\[AUTHENTICATIONFAILED\] user name or app password not accepted'`},
	{"python plain", true, fetchPython("plain"), `refused: \[AUTHENTICATIONFAILED\] user name or app password not accepted`},
	{"mbsync", false, fetchMbsync, `NO \[AUTHENTICATIONFAILED\] user name or app password not accepted`},
	{"mutt", false, fetchMutt, refusedMutt},
}

// TestPrograms fetches the whole mailbox with each program in each way, with
// the app password typed in the ways that people type it.
func TestPrograms(t *testing.T) {
	t.Parallel()
	want := messages()
	l := newLab(t, options{messages: want})
	password := l.create("programs")
	l.serve()
	typed := map[string]string{"tls": password, "starttls": spaced(password), "clear": strings.ToUpper(strings.ReplaceAll(spaced(password), " ", "-"))}
	for _, p := range programs {
		for way, password := range typed {
			t.Run(p.name+" "+way, func(t *testing.T) {
				start, l, folder := time.Now(), l.in(t), t.TempDir()
				r := p.fetch(l, way, password, folder)
				if r.code != 0 {
					t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
				}
				checkFolder(t, p, folder, want)
				t.Log(time.Since(start))
			})
		}
	}
	// At the end: five wrong ones are no reason yet to slow a client down.
	for _, p := range programs {
		t.Run(p.name+" refused", func(t *testing.T) {
			l, folder := l.in(t), t.TempDir()
			r := p.fetch(l, "tls", wrong, folder)
			if said := r.stdout + r.stderr; r.code == 0 || !regexp.MustCompile(p.refusal).MatchString(said) {
				t.Errorf("exit code %d, without %s:\n%s", r.code, p.refusal, said)
			}
			checkFolder(t, p, folder, nil)
		})
	}
}

// checkFolder compares the files of a folder with messages.
func checkFolder(t *testing.T, p program, folder string, want []message) {
	t.Helper()
	found := map[string][]byte{}
	entries, err := os.ReadDir(folder)
	must(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		must(t, err)
		if !p.exact {
			data = crlf(data)
		}
		found[subjectOf(data)] = data
	}
	checkMessages(t, p.name, found, want)
}

var subjectLine = regexp.MustCompile(`(?m)^Subject: (.*?)\r?$`)

func subjectOf(data []byte) string {
	if m := subjectLine.FindSubmatch(data); m != nil {
		return string(m[1])
	}
	return ""
}

// fetchCurl gives the password in a configuration on stdin, which no list of
// processes shows.
func fetchCurl(l *lab, way, password, folder string) result {
	l.t.Helper()
	args := []string{"--config", "-", "--silent", "--show-error", "--cacert", l.ca, "--max-time", "60", "--fail-early",
		"--output", filepath.Join(folder, "#1")}
	scheme := "imap"
	switch way {
	case "tls":
		scheme = "imaps"
	case "starttls":
		args = append(args, "--ssl-reqd")
	}
	url := fmt.Sprintf("%s://%s/INBOX/;UID=[1-%d]", scheme, l.gateway, len(messages()))
	return l.try(fmt.Sprintf("user = \"%s:%s\"\n", mailbox, password), "curl", append(args, url)...)
}

func fetchPython(mechanism string) func(l *lab, way, password, folder string) result {
	return func(l *lab, way, password, folder string) result {
		l.t.Helper()
		host, port, _ := net.SplitHostPort(l.gateway)
		return l.try(password+"\n", "python3", absolute(l.t, "testdata/fetch.py"), way, mechanism, host, port, l.ca, mailbox, folder)
	}
}

// mbsync writes an mbsync configuration for a new, empty Maildir.
func (l *lab) mbsync(way, password, maildir string) (config string) {
	l.t.Helper()
	_, port, _ := net.SplitHostPort(l.gateway)
	kind := map[string]string{"tls": "IMAPS", "starttls": "STARTTLS", "clear": "None"}[way]
	must(l.t, os.MkdirAll(maildir, 0o700))
	return l.file("mbsyncrc", fmt.Appendf(nil, `IMAPAccount gateway
Host localhost
Port %s
User %s
Pass "%s"
SSLType %s
CertificateFile %s

IMAPStore far
Account gateway

MaildirStore near
Path %[6]s/
Inbox %[6]s/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Both
SyncState *
CopyArrivalDate yes
`, port, mailbox, password, kind, l.ca, maildir))
}

func fetchMbsync(l *lab, way, password, folder string) result {
	l.t.Helper()
	maildir := filepath.Join(l.t.TempDir(), "Maildir")
	r := l.try("", "mbsync", "--config", l.mbsync(way, password, maildir), "--all")
	for _, sub := range []string{"new", "cur"} {
		paths, err := filepath.Glob(filepath.Join(maildir, "INBOX", sub, "*"))
		must(l.t, err)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			must(l.t, err)
			must(l.t, os.WriteFile(filepath.Join(folder, filepath.Base(path)), withoutTUID(l.t, data), 0o600))
		}
	}
	return r
}

var tuid = regexp.MustCompile(`(?m)^X-TUID: .{12}\r?\n`)

// withoutTUID takes off the one line that mbsync puts into the header of what
// it copies.
func withoutTUID(t *testing.T, data []byte) []byte {
	t.Helper()
	end := max(bytes.Index(data, []byte("\n\n")), bytes.Index(data, []byte("\n\r\n"))) + 1
	at := tuid.FindAllIndex(data[:end], -1)
	if len(at) != 1 {
		t.Errorf("mbsync has put %d lines X-TUID into %q", len(at), subjectOf(data))
		return data
	}
	return bytes.Join([][]byte{data[:at[0][0]], data[at[0][1]:]}, nil)
}

// fetchMutt lets mutt, on a terminal, show the list, open a message, and pipe
// each message into a file.
func fetchMutt(l *lab, way, password, folder string) result {
	l.t.Helper()
	scheme := map[string]string{"tls": "imaps"}[way]
	if scheme == "" {
		scheme = "imap"
	}
	yesNo := map[bool]string{true: "yes", false: "no"}
	_, port, _ := net.SplitHostPort(l.gateway)
	rc := l.file("muttrc", fmt.Appendf(nil, `set folder="%s://localhost:%s/" spoolfile="+INBOX"
set imap_user="%s" imap_pass="%s" imap_login="$imap_user"
set certificate_file="%s" ssl_starttls=%s ssl_force_tls=%s ssl_verify_host=yes
set header_cache="" message_cachedir="" record="" postponed="" mail_check=600 net_inc=0 read_inc=0
set pipe_split=yes pipe_decode=no pipe_sep="" wait_key=no pager_stop=yes quit=yes
macro pager X "<exit><tag-pattern>~A<enter><tag-prefix><pipe-message>cat >%s/$$<enter><exit>"
push "<first-entry><display-message>"
`, scheme, port, mailbox, password, l.ca, yesNo[way == "starttls"], yesNo[way != "clear"], folder))
	p := l.start("script", "--quiet", "--return", "--flush", "--command", "TERM=vt100 exec mutt -n -F "+rc, filepath.Join(l.t.TempDir(), "typescript"))
	if password == wrong { // it asks for another one
		refused := regexp.MustCompile(refusedMutt)
		eventually(l.t, "mutt's refusal", func() bool { return refused.MatchString(p.out.String()) })
		p.kill()
		return result{stdout: p.out.String(), code: -1}
	}
	for _, shown := range []string{"attachments", "latin1", "dots", "hello"} { // of the list, and the first message
		p.await(shown)
	}
	_, err := io.WriteString(p.stdin, "X")
	must(l.t, err)
	return result{stdout: p.out.String(), code: p.wait(20 * time.Second)}
}
