//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// message is one message of the mailbox, as IMAP gives it: CRLF at each line
// end.
type message struct {
	subject string
	data    []byte
}

// bigSize is the least size of the big message.
const bigSize = 10 << 20

// messages are the mailbox. They are the same in each run.
func messages() []message {
	rnd := rand.New(rand.NewPCG(365, 2))
	blob := func(size int) string { return wrapped(base64.StdEncoding.EncodeToString(random(rnd, size)), 76) }
	picture := "Content-Type: image/png; name=\"p.png\"\nContent-Transfer-Encoding: base64\n" +
		"Content-Disposition: attachment; filename=\"p.png\"\n\n" + blob(9000)
	inner := header("inner", `Content-Type: multipart/mixed; boundary="in"`) +
		"\n--in\nContent-Type: text/plain\n\nthe message within\n--in\n" + picture + "--in--\n"

	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "X-Trace-%04d: %s\n folded %d\n", i, hexText(rnd, 24), i)
	}
	list := []struct{ subject, text string }{
		{"plain", header("plain") + "\nhello\n"},
		{"attachments", header("attachments", `Content-Type: multipart/mixed; boundary="o"`) +
			"\nnot MIME\n--o\nContent-Type: multipart/alternative; boundary=\"i\"\n\n" +
			"--i\nContent-Type: text/plain\n\nplain\n--i\nContent-Type: text/html\n\n<p>html</p>\n--i--\n" +
			"--o\n" + picture + "--o\n" + picture + "--o--\nafter the end\n"},
		{"nested", header("nested", `Content-Type: multipart/mixed; boundary="out"`) +
			"\n--out\nContent-Type: message/rfc822\n\n" + inner + "\n--out--\n"},
		{"utf8", header("utf8", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit") +
			"\nGrüße, приве́т, こんにちは, 👋\n"},
		{"latin1", header("latin1", "Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit") +
			"\nGr\xfc\xdfe \xa0\xff\xfe\x80 end\n"},
		{"long lines", header("long lines") + "\n" + strings.Repeat("0123456789", 9000) + "\n" + strings.Repeat("é", 5000) + "\n"},
		{"dots", header("dots") + "\n.\n..\n.hidden\n...\n.\n"},
		{"IMAP inside", header("IMAP inside") + "\n* BYE a trap\n)\na1 OK done\n* 1 FETCH (BODY[] {3}\n+ idling\n"},
		{"mbox inside", header("mbox inside") + "\nFrom here on\n>From there on\n\nFrom x@example.org Mon Jan  5 10:00:00 2026\n"},
		{"empty body", header("empty body") + "\n"},
		{"no last line end", header("no last line end") + "\nthe end"},
		{"blank lines", header("blank lines") + strings.Repeat("\n", 500)},
		{"many headers", many.String() + header("many headers") + "\nthat was it\n"},
		{"big", header("big", "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64") +
			"\n" + blob(bigSize*3/4)},
	}
	out := make([]message, len(list))
	for i, m := range list {
		out[i] = message{m.subject, crlf([]byte(m.text))}
	}
	return out
}

// smallMessages are the mailbox without the big one.
func smallMessages() []message {
	return slices.DeleteFunc(messages(), func(m message) bool { return len(m.data) >= bigSize })
}

// outgoing are what is sent: what breaks most easily, in one message, and the
// big one if asked for.
func outgoing(big bool) []message {
	text := header("outgoing", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit") +
		"\n.\n..\n.hidden\n...\nFrom here on\nGrüße, приве́т, こんにちは, 👋\n" +
		strings.Repeat("0123456789", 98) + "é\n" + strings.Repeat("long ", 9000) + "\n\n.\n"
	text = strings.Replace(text, "From: Bob <bob@contoso.com>", "From: Alice <alice@contoso.com>", 1)
	list := []message{{"outgoing", crlf([]byte(text))}}
	if big {
		all := messages()
		list = append(list, all[len(all)-1])
	}
	return list
}

// header is a message's header without the empty line after it.
func header(subject string, more ...string) string {
	h := "Date: Mon, 05 Jan 2026 10:00:00 +0000\nFrom: Bob <bob@contoso.com>\nTo: Alice <alice@contoso.com>\n" +
		"Subject: " + subject + "\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@contoso.com>\nMIME-Version: 1.0\n"
	for _, line := range more {
		h += line + "\n"
	}
	return h
}

func random(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func hexText(r *rand.Rand, size int) string { return fmt.Sprintf("%x", random(r, size/2)) }

func wrapped(text string, width int) string {
	var b strings.Builder
	for len(text) > 0 {
		n := min(width, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return b.String()
}

func crlf(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
func lf(b []byte) []byte   { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }

// checkSame compares a message byte by byte, and shows where it differs.
func checkSame(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, min(at, len(b))-40):min(len(b), at+40)] }
	t.Errorf("%s: %d bytes, want %d; they differ at byte %d:\n got %q\nwant %q", what, len(got), len(want), at, around(got), around(want))
}
