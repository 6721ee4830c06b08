package sendmail

import (
	"bytes"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxLine is the longest line of a message without its CRLF (RFC 5322 section
// 2.1.1).
const maxLine = 998

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

func longLine(text []byte) bool {
	for line := range bytes.Lines(text) {
		if len(bytes.TrimRight(line, "\n")) > maxLine {
			return true
		}
	}
	return false
}

// encode is the message as it goes out, its lines ended by CRLF. Text of one
// part with lines that are too long, or with bytes that a server does not take
// (without 8BITMIME), becomes quoted-printable; 8-bit text that says nothing of
// itself is told to be what it is (RFC 2045). All else is as it came.
func (m *Message) encode(eightBit bool) []byte {
	fields, body := slices.Clone(m.fields), m.body
	one := &Message{fields: fields}
	encoding, hasEncoding := one.get("Content-Transfer-Encoding")
	kind, hasKind := one.get("Content-Type")
	_, mimed := one.get("MIME-Version")
	in := strings.ToLower(encoding.value())
	text := !hasKind || strings.HasPrefix(strings.ToLower(kind.value()), "text/")
	open := !hasEncoding || slices.Contains([]string{"7bit", "8bit", "binary"}, in)
	high := slices.ContainsFunc(body, func(b byte) bool { return b >= utf8.RuneSelf })
	switch {
	case text && open && (longLine(body) || high && !eightBit):
		var b bytes.Buffer
		w := quotedprintable.NewWriter(&b)
		_, _ = w.Write(body) // into memory
		_ = w.Close()
		body = bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n"))
		one.describe(mimed, hasKind, m.body, "quoted-printable")
	case high && !mimed && !hasKind && !hasEncoding:
		one.describe(false, false, m.body, "8bit")
	}
	var out bytes.Buffer
	for _, f := range one.fields {
		for line := range strings.SplitSeq(fold(f), "\n") {
			out.WriteString(line + "\r\n")
		}
	}
	out.WriteString("\r\n")
	for line := range bytes.Lines(body) {
		out.Write(bytes.TrimRight(line, "\n"))
		out.WriteString("\r\n")
	}
	return out.Bytes()
}

// describe has the header say how the body is to be read.
func (m *Message) describe(mimed, hasKind bool, body []byte, encoding string) {
	if !mimed {
		m.set("MIME-Version", "1.0")
	}
	if !hasKind {
		charset := "utf-8"
		if !utf8.Valid(body) {
			charset = "unknown-8bit" // RFC 1428
		}
		m.set("Content-Type", "text/plain; charset="+charset)
	}
	m.set("Content-Transfer-Encoding", encoding)
}

// fold is a field as it goes out: text without structure encoded where it is
// not ASCII (RFC 2047), and lines that are too long broken at blanks.
func fold(f field) string {
	text := f.text
	if name := strings.ToLower(f.name); (name == "subject" || name == "comments") && !ascii(text) && utf8.ValidString(text) {
		unfolded := strings.ReplaceAll(f.value(), "\n", "")
		text = f.name + ": " + strings.ReplaceAll(mime.QEncoding.Encode("utf-8", unfolded), "\r\n", "\n")
	}
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		for len(line) > maxLine {
			at := strings.LastIndexAny(line[:maxLine+1], " \t")
			if at <= 0 || strings.Trim(line[:at], " \t") == "" || strings.Trim(line[at:], " \t") == "" {
				break // nowhere to break it: the server decides
			}
			lines, line = append(lines, line[:at]), line[at:]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
