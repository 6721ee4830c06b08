//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// client is a mail program that signs in at the gateway.
type client struct {
	name    string
	version string // what prints it, as a shell command
	big     bool   // it has the messages of 10 MB too, which take time
	uses    []use
}

// use is what a client does over one protocol.
type use struct {
	protocol  string // imap and pop3 read, smtp sends
	mechanism string // where the client has several and one is chosen
	run       func(*attempt) result
	refusal   string            // how it reports a wrong password; a regular expression
	silent    bool              // its exit code is 0 even so
	cannot    map[string]string // why, by way; the others it can
	skip      string            // the subject of a message that the client itself damages
	note      string            // for the table
}

// ways are how a connection is secured, as the columns of the table have them.
var ways = []string{"clear", "starttls", "tls"}

// attempt is one run of a client in one way.
type attempt struct {
	*lab
	use
	way, password string
	folder        string              // for a reader: each message of INBOX goes into a file of its own there
	to            string              // for a sender
	mail          string              // for a sender: the message's file
	unix          bool                // its line ends are LF
	copied        []byte              // what the sender says that it sent, if not the file
	attached      []byte              // what it has attached
	undo          func([]byte) []byte // what the client does to a message by design
	made          func([]byte) []byte // what it makes of one
	headers       bool                // the client makes the header anew, and keeps its lines
	muttrc        string              // more of mutt's configuration
	curlrc        string              // curl's, in the place of a password
	getmailToken  bool                // getmail signs in with a token
	want          []message
}

// pick chooses by way.
func (a *attempt) pick(clear, starttls, tls string) string {
	return map[string]string{"clear": clear, "starttls": starttls, "tls": tls}[a.way]
}

func (a *attempt) port() string { return port(a.gateway[a.protocol]) }

// wrong is well-formed, and no app password.
const wrong = "wrongwrongwrongg"

// typed are the ways that people type an app password in.
func typed(way, password string) string {
	switch way {
	case "clear":
		return strings.ToUpper(strings.ReplaceAll(spaced(password), " ", "-"))
	case "starttls":
		return spaced(password)
	}
	return password
}

// TestClients has each client read the mailbox and send mail in each way that
// it can, and show what it says of a wrong password. The table in
// docs/clients.md is made of what has worked.
func TestClients(t *testing.T) {
	t.Parallel()
	small, all := newLab(t, options{messages: smallMessages(), startTLS: true}), newLab(t, options{messages: messages()})
	passwords := map[*lab]string{small: small.create("clients"), all: all.create("clients")}
	table := &clientTable{cells: map[cell]bool{}}
	t.Run("each", func(t *testing.T) {
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				l, want := small, smallMessages()
				if c.big {
					l, want = all, messages()
				}
				for _, u := range c.uses {
					g := l.beside(t) // for each: five wrong passwords slow nobody down
					for _, way := range ways {
						if u.cannot[way] == "" {
							t.Run(u.title()+" "+way, func(t *testing.T) {
								start := time.Now()
								a := &attempt{lab: g.in(t), use: u, way: way, password: typed(way, passwords[l]), want: want}
								a.works(c)
								table.add(cell{c.name, u.title(), way}, !t.Failed())
								t.Log(time.Since(start))
							})
						}
					}
					t.Run(u.title()+" refused", func(t *testing.T) {
						a := &attempt{lab: g.in(t), use: u, way: "tls", password: wrong}
						if u.cannot["tls"] != "" {
							a.way = "clear"
						}
						a.refused()
					})
				}
			})
		}
	})
	table.check(t)
}

func (u use) title() string { return strings.TrimSpace(u.protocol + " " + u.mechanism) }

// works runs a client, and compares each message that passed.
func (a *attempt) works(c client) {
	t := a.t
	t.Helper()
	before := len(a.server.out.String())
	defer func() { a.checkSecured(before) }()
	if a.protocol != "smtp" {
		a.folder = t.TempDir()
		r := a.run(a)
		if r.code != 0 {
			t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		a.checkFolder(a.want)
		return
	}
	for _, m := range outgoing(c.big && a.way == "tls") {
		a.send(m)
		r := a.run(a)
		if r.code != 0 {
			t.Fatalf("%s: exit code %d\n%s%s", m.subject, r.code, r.stdout, r.stderr)
		}
		a.checkSent(m)
	}
}

// checkSecured wants the gateway to have seen sign-ins over TLS alone, or in
// clear alone, since its log had a length.
func (a *attempt) checkSecured(before int) {
	t := a.t
	t.Helper()
	if t.Failed() {
		return
	}
	var log string
	eventually(t, "the sign-in in the gateway's log", func() bool {
		log = a.server.out.String()[before:]
		return strings.Contains(log, `"msg":"signed in"`)
	})
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"msg":"signed in"`) && !strings.Contains(line, `"tls":`+a.pick("false", "true", "true")) {
			t.Errorf("a sign-in that was not %s: %s", a.way, line)
		}
	}
}

// send makes a message ready for the client.
func (a *attempt) send(m message) {
	a.t.Helper()
	name := strings.TrimPrefix(a.t.Name(), "TestClients/each/") + "." + m.subject
	a.to = strings.ToLower(strings.ReplaceAll(name, "/", ".")) + "@example.org"
	a.mail = a.file("message.eml", m.data)
	a.copied, a.attached = nil, nil
}

// refused runs a client with a wrong password.
func (a *attempt) refused() {
	t := a.t
	t.Helper()
	a.folder = t.TempDir()
	a.send(outgoing(false)[0])
	r := a.run(a)
	if said := r.stdout + r.stderr; r.code == 0 != a.silent || !regexp.MustCompile(a.refusal).MatchString(said) {
		t.Errorf("exit code %d, without %s:\n%s", r.code, a.refusal, said)
	}
	a.checkFolder(nil)
	if n := len(a.dovecot.sink.to(a.to)); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// checkFolder compares the files of a folder with messages.
func (a *attempt) checkFolder(want []message) {
	a.t.Helper()
	found := map[string][]byte{}
	entries, err := os.ReadDir(a.folder)
	must(a.t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(a.folder, e.Name()))
		must(a.t, err)
		if a.undo != nil {
			data = a.undo(data)
		}
		if a.unix {
			data = crlf(data)
		}
		found[subjectOf(data)] = data
	}
	want = slices.Clone(want)
	for i := range want {
		if a.protocol == "pop3" { // which knows whole lines only (RFC 1939 section 3)
			want[i].data = ended(want[i].data)
		}
		if a.made != nil {
			want[i].data = a.made(want[i].data)
		}
	}
	if a.skip != "" {
		if len(want) > 0 && found[a.skip] == nil {
			a.t.Errorf("%s is not there", a.skip)
		}
		delete(found, a.skip)
		want = slices.DeleteFunc(want, func(m message) bool { return m.subject == a.skip })
	}
	checkMessages(a.t, a.t.Name(), found, want)
}

// checkSent compares what has arrived with what the client was given, or says
// that it sent.
func (a *attempt) checkSent(m message) {
	t := a.t
	t.Helper()
	got := a.dovecot.sink.to(a.to)
	if len(got) != 1 {
		t.Fatalf("%s: %d messages have arrived, want 1", m.subject, len(got))
	}
	if got[0].from != mailbox {
		t.Errorf("%s: it came from %q", m.subject, got[0].from)
	}
	want := m.data
	if a.copied != nil {
		want = a.copied
	}
	data := withoutReceived(t, got[0].data)
	if a.made != nil {
		data = a.made(data)
	}
	if a.headers {
		checkHeaders(t, m.subject, data, want)
		data, want = body(data), body(want)
	}
	checkSame(t, m.subject, data, want)
	if a.attached != nil {
		checkSame(t, m.subject+", the attachment", attachment(t, data), a.attached)
	}
}

// checkHeaders wants the header's lines, in any order, but for those that the
// client sets.
func checkHeaders(t *testing.T, what string, got, want []byte) {
	t.Helper()
	lines := strings.Split(string(got[:len(got)-len(body(got))]), "\r\n")
	for line := range strings.SplitSeq(string(want[:len(want)-len(body(want))]), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		kept := slices.ContainsFunc(lines, func(l string) bool { return strings.EqualFold(l, line) })
		if !kept && !slices.Contains([]string{"Date", "To"}, name) {
			t.Errorf("%s: the header has no %q: %q", what, line, lines)
		}
	}
}

func body(data []byte) []byte {
	_, after, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	return after
}

// attachment is the one attachment of a message.
func attachment(t *testing.T, data []byte) []byte {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(data))
	must(t, err)
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	must(t, err)
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextPart()
		must(t, err)
		if part.FileName() != "" {
			if encoding := part.Header.Get("Content-Transfer-Encoding"); !strings.EqualFold(encoding, "base64") {
				t.Fatalf("the attachment is in %q", encoding)
			}
			out, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
			must(t, err)
			return out
		}
	}
}

// received is the line that Dovecot puts before what is sent.
var received = regexp.MustCompile(`\AReceived: from .*\r\n(?:[ \t].*\r\n)*`)

func withoutReceived(t *testing.T, data []byte) []byte {
	t.Helper()
	at := received.FindIndex(data[:min(len(data), 2000)])
	if at == nil {
		t.Errorf("it has no line Received: %.200q", data)
		return data
	}
	return data[at[1]:]
}

var subjectLine = regexp.MustCompile(`(?m)^Subject: (.*?)\r?$`)

func subjectOf(data []byte) string {
	if m := subjectLine.FindSubmatch(data); m != nil {
		return string(m[1])
	}
	return ""
}

// ended gives the last line an end.
func ended(data []byte) []byte {
	if bytes.HasSuffix(data, []byte("\r\n")) {
		return data
	}
	return append(bytes.Clone(data), "\r\n"...)
}

// cell is a place in the table of docs/clients.md.
type cell struct{ client, use, way string }

// clientTable is what has worked.
type clientTable struct {
	mu    sync.Mutex
	cells map[cell]bool
}

func (c *clientTable) add(at cell, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cells[at] = ok
}
