package sendmail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseArgs(t *testing.T) {
	for _, c := range []struct {
		args string
		want Options
	}{
		{"-t", Options{FromMessage: true}},
		{"-ti", Options{FromMessage: true, IgnoreDots: true}},
		{"-oi -t bob@contoso.com", Options{FromMessage: true, IgnoreDots: true, Recipients: []string{"bob@contoso.com"}}},
		{"-o i root", Options{IgnoreDots: true, Recipients: []string{"root"}}},
		{"-FCronDaemon -i -B8BITMIME -oem root", Options{Name: "CronDaemon", IgnoreDots: true, Recipients: []string{"root"}}},
		{"-f alice@contoso.com -F Alice -- -odd", Options{Sender: "alice@contoso.com", Name: "Alice", Recipients: []string{"-odd"}}},
		{"-f<alice@contoso.com> bob", Options{Sender: "alice@contoso.com", Recipients: []string{"bob"}}},
		{"-f <> bob", Options{NullSender: true, Recipients: []string{"bob"}}},
		{"-ralice@contoso.com bob", Options{Sender: "alice@contoso.com", Recipients: []string{"bob"}}},
		{"-O IgnoreDots -N never -R hdrs -V id -h 3 bob", Options{IgnoreDots: true, Recipients: []string{"bob"}}},
		{"-bm -odb -G -U -v -d0.1 bob", Options{Verbose: true, Recipients: []string{"bob"}}},
		{"-a cron --profile work bob -t", Options{AppPassword: "cron", FromMessage: true, Recipients: []string{"bob"}}},
	} {
		got, err := ParseArgs(strings.Fields(c.args), func(args []string) (int, error) { return 2, nil })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.args, got, err, c.want)
		}
	}
	for _, args := range []string{"-bs", "-bd", "-bp", "-f", "-Z", "-tZ", "-o"} {
		if _, err := ParseArgs(strings.Fields(args), nil); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
	for _, args := range []string{"-q", "-q30m", "-vq"} {
		if _, err := ParseArgs(strings.Fields(args), nil); !errors.Is(err, ErrNothing) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"bob@contoso.com":                                  "<bob@contoso.com>",
		"Bob <bob@contoso.com>, carol@contoso.com":         "Bob<bob@contoso.com> <carol@contoso.com>",
		`"Miller, Erin" <erin@contoso.com>,`:               "Miller, Erin<erin@contoso.com>",
		"Team: bob@contoso.com, carol@contoso.com;":        "<bob@contoso.com> <carol@contoso.com>",
		"undisclosed-recipients:;":                         "",
		"root (Cron Daemon)":                               "Cron Daemon<root>",
		`"Cron Daemon" <root>`:                             "Cron Daemon<root>",
		"root, Bob <bob@contoso.com>":                      "<root> Bob<bob@contoso.com>",
		"=?utf-8?q?J=C3=BCrgen?= <j@contoso.com>":          "Jürgen<j@contoso.com>",
		`"a b"@contoso.com`:                                "<a b@contoso.com>",
		"J\xfcrgen <j@contoso.com>":                        "J?rgen<j@contoso.com>",
		"bob@contoso.com,\n carol@contoso.com":             "<bob@contoso.com> <carol@contoso.com>",
		"jürgen@contoso.com":                               "<jürgen@contoso.com>",
		"":                                                 "",
		" , ,":                                             "",
		`root, "Miller, Erin" <erin@contoso.com> (a, (b))`: "<root> Miller, Erin<erin@contoso.com>",
	} {
		list, err := parseAddresses(in)
		var got []string
		for _, a := range list {
			got = append(got, a.name+"<"+a.spec+">")
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", in, strings.Join(got, " "), err, want)
		}
	}
	for _, in := range []string{"bob@contoso.com>\r\nDATA", "bob@", "@contoso.com", "a b c", "bob@contoso.com> <x", "-x y", "bob\x00@contoso.com", "bob@contoso.com\rx", "bob;rm"} {
		if list, err := parseAddresses(in); err == nil {
			t.Errorf("%q was taken: %q", in, list)
		}
	}
	if got := wire("a b@contoso.com"); got != `"a b"@contoso.com` {
		t.Errorf("on the wire: %s", got)
	}
}

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// ready is a message that is read and complete.
func ready(t *testing.T, text string, o Options) *Message {
	t.Helper()
	m, err := Read(strings.NewReader(text), o)
	if err == nil {
		err = m.Complete(Completion{Mailbox: "alice@contoso.com", User: "alice", Name: o.Name, Now: now})
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMessage(t *testing.T) {
	bob := []string{"bob@contoso.com"}
	const made = "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@x>\r\n"
	for name, c := range map[string]struct {
		in   string
		o    Options
		want string
	}{
		"text alone": {"hello\nworld", Options{Recipients: bob}, "From: alice@contoso.com\r\n" + made + "To: undisclosed-recipients:;\r\n\r\nhello\r\nworld\r\n"},
		"nothing":    {"", Options{Recipients: bob}, "From: alice@contoso.com\r\n" + made + "To: undisclosed-recipients:;\r\n\r\n"},
		"no empty line before the text": {"To: bob@contoso.com\nhello", Options{FromMessage: true, Name: "Alice"},
			"To: bob@contoso.com\r\nFrom: \"Alice\" <alice@contoso.com>\r\n" + made + "\r\nhello\r\n"},
		"all line ends": {"To: a@contoso.com\r\nX: y\rBcc: eve@contoso.com\n\nlone\rcr\r\nnul\x00\r\r\n", Options{Recipients: bob},
			"To: a@contoso.com\r\nX: y Bcc: eve@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "\r\nlone cr\r\nnul\r\n"},
		"a mailbox file's line": {"From alice Sun Nov 22\n>From x\nTo: a@contoso.com\n\nFrom here\n", Options{Recipients: bob},
			"To: a@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "\r\nFrom here\r\n"},
		"a folded Bcc": {"To: a@contoso.com\nBcc: b@contoso.com,\n c@contoso.com\nBCC : d@contoso.com\n\n", Options{FromMessage: true},
			"To: a@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "\r\n"},
		"an end by a dot":  {"To: a@contoso.com\n\nx\n.\ny\n", Options{Recipients: bob}, "To: a@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "\r\nx\r\n"},
		"a dot in text":    {"To: a@contoso.com\n\nx\n.\ny\n", Options{Recipients: bob, IgnoreDots: true}, "To: a@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "\r\nx\r\n.\r\ny\r\n"},
		"a name with ends": {"To: a@contoso.com\n\n", Options{Recipients: bob, Name: "A\r\nBcc: eve@contoso.com"}, "To: a@contoso.com\r\nFrom: \"A  Bcc: eve@contoso.com\" <alice@contoso.com>\r\n" + made + "\r\n"},
		"8-bit text": {"To: a@contoso.com\n\nGrüße\n", Options{Recipients: bob},
			"To: a@contoso.com\r\nFrom: alice@contoso.com\r\n" + made + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"},
		"its own MIME": {"To: a@contoso.com\nContent-Type: text/plain; charset=iso-8859-1\n\n\xfc\n", Options{Recipients: bob},
			"To: a@contoso.com\r\nContent-Type: text/plain; charset=iso-8859-1\r\nFrom: alice@contoso.com\r\n" + made + "\r\n\xfc\r\n"},
		"cron":                {"From: alice (Cron Daemon)\nTo: alice\n\n", Options{Recipients: []string{"alice"}}, "From: \"Cron Daemon\" <alice@contoso.com>\r\nTo: alice\r\n" + made + "\r\n"},
		"a sender of its own": {"From: Team <team@contoso.com>\nTo: a@contoso.com\n\n", Options{Recipients: bob}, "From: Team <team@contoso.com>\r\nTo: a@contoso.com\r\n" + made + "\r\n"},
	} {
		m := ready(t, c.in, c.o)
		m.set("Message-ID", "<1@x>")
		if got := string(m.encode(true)); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, c.want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	for name, c := range map[string]struct {
		in       string
		o        Options
		from, to string
	}{
		"arguments":           {"To: x@contoso.com\n\n", Options{Recipients: []string{"a@contoso.com", "b@contoso.com, a@contoso.com"}}, "alice@contoso.com", "a@contoso.com b@contoso.com"},
		"the message's":       {"To: x@contoso.com\nCc: y@contoso.com\nBcc: z@contoso.com\n\n", Options{FromMessage: true}, "alice@contoso.com", "x@contoso.com y@contoso.com z@contoso.com"},
		"both":                {"To: x@contoso.com\n\n", Options{FromMessage: true, Recipients: []string{"a@contoso.com"}}, "alice@contoso.com", "a@contoso.com x@contoso.com"},
		"resent":              {"To: x@contoso.com\nResent-To: y@contoso.com\n\n", Options{FromMessage: true}, "alice@contoso.com", "y@contoso.com"},
		"the caller":          {"\n", Options{Recipients: []string{"alice"}}, "alice@contoso.com", "alice@contoso.com"},
		"-f":                  {"From: team@contoso.com\n\n", Options{Sender: "other@contoso.com", Recipients: []string{"a@contoso.com"}}, "other@contoso.com", "a@contoso.com"},
		"a user's name in -f": {"From: team@contoso.com\n\n", Options{Sender: "www-data", Recipients: []string{"a@contoso.com"}}, "team@contoso.com", "a@contoso.com"},
		"nobody":              {"From: team@contoso.com\n\n", Options{NullSender: true, Recipients: []string{"a@contoso.com"}}, "", "a@contoso.com"},
	} {
		m := ready(t, c.in, c.o)
		var to []string
		for _, r := range m.recipients {
			to = append(to, r.spec)
		}
		if m.sender != c.from || strings.Join(to, " ") != c.to {
			t.Errorf("%s: from %q to %q; want %q, %q", name, m.sender, to, c.from, c.to)
		}
	}
	m, err := Read(strings.NewReader("\n"), Options{Recipients: []string{"bob"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Complete(Completion{Mailbox: "alice@contoso.com", User: "alice"}); !errors.As(err, new(*LocalError)) {
		t.Errorf("a user who is not the caller: %v", err)
	}
	if m, err = Read(strings.NewReader("\n"), Options{}); err == nil {
		err = m.Complete(Completion{Mailbox: "alice@contoso.com"})
	}
	if !errors.Is(err, ErrNoRecipient) {
		t.Errorf("nobody to send to: %v", err)
	}
}

// TestLongLines holds what is sent to lines that every server takes, and to the
// text that it was.
func TestLongLines(t *testing.T) {
	text := strings.Repeat("Grüße ", 400) + "\n.\n" + strings.Repeat("x", 2000) + "\n"
	o := Options{Recipients: []string{"bob@contoso.com"}, IgnoreDots: true}
	for _, eight := range []bool{true, false} {
		m := ready(t, "Subject: "+strings.Repeat("long ", 400)+"\n\n"+text, o)
		out := m.encode(eight)
		for line := range bytes.Lines(out) {
			if len(line) > maxLine+2 {
				t.Errorf("a line of %d bytes: %.40s", len(line), line)
			}
		}
		parsed, err := mail.ReadMessage(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if e := parsed.Header.Get("Content-Transfer-Encoding"); e != "quoted-printable" {
			t.Errorf("encoding %q", e)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		if got := strings.ReplaceAll(string(body), "\r\n", "\n"); err != nil || got != text {
			t.Errorf("the text is another one: %q, %v", got, err)
		}
	}
	short := ready(t, "\nGrüße\n", o)
	if out := short.encode(false); !bytes.Contains(out, []byte("Gr=C3=BC=C3=9Fe\r\n")) || !slices.Contains(strings.Split(string(out), "\r\n"), "Content-Transfer-Encoding: quoted-printable") {
		t.Errorf("for a server without 8BITMIME:\n%s", out)
	}
}

// FuzzMessage holds whatever is read to one header and one body, lines that end
// in CRLF, and an envelope that fits into commands.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"To: bob@contoso.com\nBcc: x@y\n\nhello\n.\n", "From: root (Cron)\nTo: root\r\n\r\n\x00\r\rx", "a: b\n c\n\n", "\n\n", "To: \"a\\\"b\"@c, <d@e>\n", "Subject: ü\n\n"} {
		f.Add(s, "bob@contoso.com", "alice@contoso.com")
	}
	f.Fuzz(func(t *testing.T, text, to, from string) {
		m, err := Read(strings.NewReader(text), Options{FromMessage: true, Recipients: []string{to}, Sender: from, Name: from})
		if err != nil {
			return
		}
		if m.Complete(Completion{Mailbox: "alice@contoso.com", User: "root", Name: from, Now: now}) != nil {
			return
		}
		out := m.encode(true)
		if bytes.Contains(bytes.ReplaceAll(out, []byte("\r\n"), nil), []byte("\r")) || bytes.Contains(bytes.ReplaceAll(out, []byte("\r\n"), nil), []byte("\n")) || bytes.Contains(out, []byte{0}) {
			t.Fatalf("line ends of another kind, or a NUL: %q", out)
		}
		header, _, _ := bytes.Cut(out, []byte("\r\n\r\n"))
		for line := range strings.SplitSeq(string(header), "\r\n") {
			if strings.HasPrefix(strings.ToLower(line), "bcc:") || line == "" || !fieldName.MatchString(line) && line[0] != ' ' && line[0] != '\t' {
				t.Fatalf("the header has the line %q", line)
			}
		}
		if len(m.recipients) == 0 {
			t.Fatal("complete without a recipient")
		}
		for _, a := range append([]address{{spec: m.sender}}, m.recipients...) {
			if strings.ContainsAny(wire(a.spec), "\r\n\x00") || a.spec != "" && !strings.Contains(a.spec, "@") {
				t.Fatalf("the address %q", a.spec)
			}
			if bare, _, quoted := strings.Cut(wire(a.spec), `"`); !quoted && strings.ContainsAny(bare, "<> ") {
				t.Fatalf("the address %q", a.spec)
			}
		}
	})
}
