package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// passage is what a filter made of a client's bytes.
type passage struct {
	passed  []string // one for each command that goes upstream
	answers []string
	asked   int // literals
	err     error
}

func (p passage) String() string {
	return fmt.Sprintf("passed %q, answers %q, asked %d, error %v", p.passed, p.answers, p.asked, p.err)
}

// playFilter runs a filter until the client's bytes are at their end.
func playFilter(from io.Reader, literals bool) passage {
	var p passage
	f := &imapFilter{in: bufio.NewReaderSize(from, 16), literals: literals, ask: func() error { p.asked++; return nil }}
	for {
		pass, answer, err := f.next()
		if err != nil {
			p.err = err
			return p
		}
		if pass != nil {
			p.passed = append(p.passed, string(pass))
		} else {
			p.answers = append(p.answers, answer)
		}
	}
}

// splits are the client's bytes whole, byte by byte and, if they are few, cut
// in two at every place.
func splits(in string) func(func(string, io.Reader) bool) {
	return func(yield func(string, io.Reader) bool) {
		if !yield("whole", strings.NewReader(in)) || !yield("byte by byte", iotest.OneByteReader(strings.NewReader(in))) || len(in) > 1000 {
			return
		}
		for i := range in {
			if !yield(fmt.Sprintf("cut at %d", i), &pieces{[]string{in[:i], in[i:]}}) {
				return
			}
		}
	}
}

// pieces gives one piece to each Read.
type pieces struct{ rest []string }

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) > 0 && p.rest[0] == "" {
		p.rest = p.rest[1:]
	}
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[0])
	p.rest[0] = p.rest[0][n:]
	return n, nil
}

// filterAllowed are commands that are passed on, as they are or as pass says.
var filterAllowed = []struct{ in, pass string }{
	{in: "a CAPABILITY\r\n"}, {in: "a NOOP\r\n"}, {in: "a LOGOUT\r\n"}, {in: "a NAMESPACE\r\n"}, {in: "a CHECK\r\n"},
	{in: "a CLOSE\r\n"}, {in: "a UNSELECT\r\n"}, {in: "a IDLE\r\n"}, {in: "A.1-x noop\r\n"},
	{in: "a ID (\"name\" \"x {5}\")\r\n"}, {in: "a ID NIL\r\n"}, {in: "a LIST \"\" \"*\"\r\n"}, {in: "a LSUB \"\" %\r\n"}, {in: "a XLIST \"\" *\r\n"},
	{in: "a LIST (SUBSCRIBED) \"\" (\"INBOX\" \"Archive/*\") RETURN (STATUS (MESSAGES))\r\n"},
	{in: "a STATUS \"Sent Items\" (MESSAGES UNSEEN)\r\n"}, {in: "a EXAMINE INBOX\r\n"},
	{"a SELECT INBOX\r\n", "a EXAMINE INBOX\r\n"}, {"a select \"a \\\"b\\\" {5}\"\r\n", "a EXAMINE \"a \\\"b\\\" {5}\"\r\n"},
	{"a SELECT INBOX (CONDSTORE)\r\n", "a EXAMINE INBOX (CONDSTORE)\r\n"}, {"a SELECT\r\n", "a EXAMINE\r\n"},
	{"a SELECT {5}\r\nINBOX\r\n", "a EXAMINE \"INBOX\"\r\n"}, {"a SELECT {5+}\r\nINBOX\r\n", "a EXAMINE \"INBOX\"\r\n"},
	{in: "a SEARCH RETURN (SAVE COUNT) UNSEEN\r\n"}, {in: "a SORT (REVERSE DATE) UTF-8 ALL\r\n"}, {in: "a THREAD REFERENCES UTF-8 ALL\r\n"},
	{in: "a FETCH 1:* (FLAGS BODY[HEADER.FIELDS (DATE FROM)]<0.100>)\r\n"}, {in: "a UID FETCH 1:* RFC822\r\n"}, {in: "a uid fetch 1 FLAGS\r\n"},
	{in: "a UID SEARCH 1:*\r\n"}, {in: "a UID SORT (DATE) UTF-8 ALL\r\n"}, {in: "a UID THREAD REFERENCES UTF-8 ALL\r\n"},
	{in: "a GETQUOTA \"\"\r\n"}, {in: "a GETQUOTAROOT INBOX\r\n"}, {in: "a MYRIGHTS INBOX\r\n"}, {in: "a GETACL INBOX\r\n"},
	{in: "a LISTRIGHTS INBOX x\r\n"}, {in: "a GETMETADATA \"\" /shared/comment\r\n"},
	{"a NOOP\n", "a NOOP\r\n"}, // a bare LF
	{in: "a SEARCH SUBJECT \"{5}\"\r\n"}, {in: "a SEARCH SUBJECT \"x {5+}\"\r\n"}, {in: "a SEARCH SUBJECT \"a\tb\"\r\n"},
	{in: "a SEARCH SUBJECT \"Gr\xc3\xbc\xc3\x9fe\"\r\n"}, {in: "a SEARCH KEYWORD x}\r\n"},
	{"a SEARCH SUBJECT {3}\r\na\"\\\r\n", "a SEARCH SUBJECT \"a\\\"\\\\\"\r\n"}, {"a SEARCH SUBJECT {0+}\r\n\r\n", "a SEARCH SUBJECT \"\"\r\n"},
	{"a SEARCH OR FROM {1}\r\nx SUBJECT {2+}\n{5 UNSEEN\n", "a SEARCH OR FROM \"x\" SUBJECT \"{5\" UNSEEN\r\n"},
	{"a FETCH 1 BODY[HEADER.FIELDS ({4}\r\nDate)]\r\n", "a FETCH 1 BODY[HEADER.FIELDS (\"Date\")]\r\n"},
	{"a SEARCH BOGUS {29+}\r\nb STORE 1 +FLAGS (\\Deleted) x\r\n", "a SEARCH BOGUS \"b STORE 1 +FLAGS (\\\\Deleted) x\"\r\n"},
	// Eight-bit content, which RFC 3501 has in literals only.
	{"a UID SEARCH CHARSET UTF-8 TEXT {7}\r\nGr\xc3\xbc\xc3\x9fe\r\n", "a UID SEARCH CHARSET UTF-8 TEXT {7+}\r\nGr\xc3\xbc\xc3\x9fe\r\n"},
	{"a SEARCH (TEXT {2+}\r\n\xc3\xbc)\r\n", "a SEARCH (TEXT {2+}\r\n\xc3\xbc)\r\n"},
	{"a SEARCH TEXT {4+}\r\n\xc3\xbc x\r\n", "a SEARCH TEXT \"\xc3\xbc x\"\r\n"},
	{"a SEARCH TEXT {4+}\r\n\xc3\xbc\tx\r\n", "a SEARCH TEXT \"\xc3\xbc\tx\"\r\n"},
	{"a SEARCH TEXT {2+}\r\n\xc3\xbc STORE\r\n", "a SEARCH TEXT \"\xc3\xbc\" STORE\r\n"},
	{"a SEARCH TEXT {2+}\r\n\xc3\xbc({10+}\r\nx STORE 1 \r\n", "a SEARCH TEXT \"\xc3\xbc\"(\"x STORE 1 \"\r\n"},
	{"a SEARCH FROM {1+}\r\nx TEXT {2+}\r\n\xc3\xbc\r\n", "a SEARCH FROM \"x\" TEXT {2+}\r\n\xc3\xbc\r\n"},
}

var synchronising = regexp.MustCompile(`[ (]\{[0-9]+\}\r?\n`)

func TestIMAPFilterPasses(t *testing.T) {
	for _, test := range filterAllowed {
		want := test.pass
		if want == "" {
			want = test.in
		}
		for how, from := range splits(test.in) {
			p := playFilter(from, true)
			if len(p.passed) != 1 || p.passed[0] != want || len(p.answers) > 0 || !errors.Is(p.err, io.EOF) || p.asked != len(synchronising.FindAllString(test.in, -1)) {
				t.Errorf("%q, %s: %v; want %q", test.in, how, p, want)
				break
			}
		}
	}
}

// TestIMAPFilterWithoutLiterals: an upstream without LITERAL+ gets none.
func TestIMAPFilterWithoutLiterals(t *testing.T) {
	for how, from := range splits("a SEARCH TEXT {2}\r\n\xc3\xbc\r\n") {
		if p := playFilter(from, false); len(p.passed) != 1 || p.passed[0] != "a SEARCH TEXT \"\xc3\xbc\"\r\n" || p.asked != 1 {
			t.Errorf("%s: %v", how, p)
		}
	}
}

const (
	filterNever = "NO [NOPERM] this app password is read-only: "
	filterVerb  = "BAD a tag is followed by a space and a command"
)

// filterRefused are commands that are not passed on, with their answers.
var filterRefused = []struct{ in, answer string }{
	{"a STORE 1 +FLAGS (\\Deleted)\r\n", "a " + filterNever + "STORE is not allowed"},
	{"a store 1 +FLAGS (\\Deleted)\r\n", "a " + filterNever + "STORE is not allowed"},
	{"a COPY 1 Archive\r\n", "a " + filterNever + "COPY is not allowed"},
	{"a MOVE 1 Archive\r\n", "a " + filterNever + "MOVE is not allowed"},
	{"a EXPUNGE\r\n", "a " + filterNever + "EXPUNGE is not allowed"},
	{"a CREATE x\r\n", "a " + filterNever + "CREATE is not allowed"},
	{"a DELETE x\r\n", "a " + filterNever + "DELETE is not allowed"},
	{"a RENAME x y\r\n", "a " + filterNever + "RENAME is not allowed"},
	{"a SUBSCRIBE x\r\n", "a " + filterNever + "SUBSCRIBE is not allowed"},
	{"a UNSUBSCRIBE x\r\n", "a " + filterNever + "UNSUBSCRIBE is not allowed"},
	{"a SETACL INBOX x lr\r\n", "a " + filterNever + "SETACL is not allowed"},
	{"a DELETEACL INBOX x\r\n", "a " + filterNever + "DELETEACL is not allowed"},
	{"a SETQUOTA \"\" (STORAGE 1)\r\n", "a " + filterNever + "SETQUOTA is not allowed"},
	{"a SETMETADATA \"\" (/shared/x NIL)\r\n", "a " + filterNever + "SETMETADATA is not allowed"},
	{"a REPLACE 1 INBOX {3+}\r\nabc\r\n", "a " + filterNever + "REPLACE is not allowed"},
	{"a UID STORE 1 FLAGS ()\r\n", "a " + filterNever + "UID STORE is not allowed"},
	{"a UID COPY 1 x\r\n", "a " + filterNever + "UID COPY is not allowed"},
	{"a UID MOVE 1 x\r\n", "a " + filterNever + "UID MOVE is not allowed"},
	{"a uid eXpunge 1\r\n", "a " + filterNever + "UID EXPUNGE is not allowed"},
	{"a UID NOOP\r\n", "a " + filterNever + "UID NOOP is not allowed"},
	{"a UID UID FETCH\r\n", "a " + filterNever + "UID UID is not allowed"},
	{"a COMPRESS DEFLATE\r\n", "a " + filterNever + "COMPRESS is not allowed"},
	{"a STARTTLS\r\n", "a " + filterNever + "STARTTLS is not allowed"},
	{"a AUTHENTICATE PLAIN\r\n", "a " + filterNever + "AUTHENTICATE is not allowed"},
	{"a LOGIN x y\r\n", "a " + filterNever + "LOGIN is not allowed"},
	{"a UNAUTHENTICATE\r\n", "a " + filterNever + "UNAUTHENTICATE is not allowed"},
	{"a ENABLE UTF8=ACCEPT\r\n", "a " + filterNever + "ENABLE is not allowed"},
	{"a NOTIFY SET (SELECTED (MessageNew))\r\n", "a " + filterNever + "NOTIFY is not allowed"},
	{"a X-[OK\r\n", "a " + filterNever + "X-(OK is not allowed"},
	{"a APPEND INBOX {5}\r\n", "a " + filterNever + "APPEND is not allowed"},
	{"a APPEND INBOX (\\Seen) {5+}\r\nhello\r\n", "a " + filterNever + "APPEND is not allowed"},
	{"a APPEND INBOX ~{5+}\r\nhello\r\n", "a " + filterNever + "APPEND is not allowed"},
	{"a APPEND \"{5}\" {10+}\r\nb NOOP\r\n\r\n {2+}\r\n\r\n\r\n", "a " + filterNever + "APPEND is not allowed"},
	{"a APPEND INBOX {100000+}\r\n" + strings.Repeat("b NOOP\r\n\r\n", 10000) + "\r\n", "a " + filterNever + "APPEND is not allowed"},
	{"a STORE \"x\r\n", "a " + filterNever + "STORE is not allowed"},

	{"\r\n", "* BAD a command begins by a tag"},
	{"+ NOOP\r\n", "* BAD a command begins by a tag"},
	{"a* NOOP\r\n", "* BAD a command begins by a tag"},
	{" a NOOP\r\n", "* BAD a command begins by a tag"},
	{"\xc3\xbc NOOP\r\n", "* BAD a command begins by a tag"},
	{strings.Repeat("a", 65) + " NOOP\r\n", "* BAD a command begins by a tag"},
	{"a\r\n", "a " + filterVerb},
	{"a \r\n", "a " + filterVerb},
	{"a  NOOP\r\n", "a " + filterVerb},
	{"a NOOP(x)\r\n", "a " + filterVerb},
	{"a N\x00OP\r\n", "a " + filterVerb},
	{"a FETCH\t1\r\n", "a " + filterVerb},
	{"a UID\r\n", "a " + filterVerb},
	{"a UID  FETCH 1 FLAGS\r\n", "a " + filterVerb},
	{"a " + strings.Repeat("X", 33) + "\r\n", "a " + filterVerb},
	{"DONE\r\n", "DONE " + filterVerb},
	{"a IDLE x\r\n", "a BAD IDLE has no arguments"},
	{"a IDLE {1+}\r\nx\r\n", "a BAD IDLE has no arguments"},

	{"a SEARCH SUBJECT \"x\rb STORE 1 FLAGS ()\"\r\n", "a BAD a control character"},
	{"a NOOP \r\r\n", "a BAD a control character"},
	{"a SEARCH SUBJECT \x00\r\n", "a BAD a control character"},
	{"a SEARCH SUBJECT \"\x00\"\r\n", "a BAD a control character"},
	{"a SEARCH\x20\tALL\r\n", "a BAD a control character"},
	{"a SEARCH SUBJECT \"x\r\n", "a BAD a quoted string that does not end"},
	{"a SEARCH SUBJECT \"x {5+}\r\n", "a BAD a quoted string that does not end"},
	{"a SEARCH SUBJECT \"x\\\"\r\n", "a BAD a quoted string that does not end"},
	{"a SEARCH SUBJECT \"x\\\r\n", "a BAD a backslash in a quoted string that is before neither \" nor \\"},
	{"a SEARCH SUBJECT \"\\x\" {3+}\r\nabc\r\n", "a BAD a backslash in a quoted string that is before neither \" nor \\"},
	{"a SEARCH SUBJECT x{5}\r\n", "a BAD a brace that announces no literal"},
	{"a SEARCH SUBJECT {5} \r\n", "a BAD a brace that announces no literal"},
	{"a SEARCH SUBJECT {5 {3+}\r\nabc\r\n", "a BAD a brace that announces no literal"},
	{"a SEARCH SUBJECT {1+}\r\nx{2+}\r\n", "a BAD a brace that announces no literal"},
	{"a SEARCH SUBJECT ~{5}\r\n", "a BAD a binary literal is not allowed"},
	{"a SEARCH SUBJECT ~{5+}\r\nhello\r\n", "a BAD a binary literal is not allowed"},
	{"a SEARCH SUBJECT \xc3\xbc {4+}\r\n\r\n\r\n\r\n", "a BAD an eight-bit character outside of a string"},

	{"a SEARCH SUBJECT {25+}\r\nx\r\nb STORE 1 FLAGS ()\r\n\r\n\r\n", "a NO [CANNOT] a literal with line breaks or control characters is not allowed"},
	{"a SEARCH SUBJECT {1}\r\n\x00\r\n", "a NO [CANNOT] a literal with line breaks or control characters is not allowed"},
	{"a SEARCH SUBJECT {1+}\r\n\n FROM {3}\r\n", "a NO [CANNOT] a literal with line breaks or control characters is not allowed"},
	{"a SEARCH SUBJECT {8193}\r\n", "a NO [LIMIT] the command is longer than 8192 bytes"},
	{"a SEARCH SUBJECT {99999999999999999999}\r\n", "a NO [LIMIT] the command is longer than 8192 bytes"},
	{"a SEARCH SUBJECT {9000+}\r\n" + strings.Repeat("x", 9000) + " UNSEEN\r\n", "a NO [LIMIT] the command is longer than 8192 bytes"},
	{"a SEARCH SUBJECT {8000+}\r\n" + strings.Repeat("\"", 8000) + "\r\n", "a NO [LIMIT] the command is longer than 8192 bytes"},
	{"a FETCH " + strings.Repeat("1,", 5000) + "1 FLAGS\r\n", "a NO [LIMIT] the command is longer than 8192 bytes"},
}

// TestIMAPFilterRefuses also looks that the place is kept: the commands around
// one that is refused are passed on, also within IDLE.
func TestIMAPFilterRefuses(t *testing.T) {
	const before, after = "b1 NOOP\r\n", "b2 SEARCH SUBJECT \"x\"\r\n"
	for _, test := range filterRefused {
		if line := test.answer; strings.ContainsAny(line, "\r\n\x00") || strings.Count(line, "]") > 1 {
			t.Errorf("answer %q", line)
		}
		for how, from := range splits(before + test.in + after) {
			p := playFilter(from, true)
			if len(p.answers) != 1 || p.answers[0] != test.answer || strings.Join(p.passed, "|") != before+"|"+after || !errors.Is(p.err, io.EOF) {
				t.Errorf("%.200q, %s: %v; want %q", test.in, how, p, test.answer)
				break
			}
		}
		if strings.HasPrefix(test.in, "DONE") {
			continue
		}
		p := playFilter(strings.NewReader("b IDLE\r\n"+test.in+"dOnE\n"+after), true)
		if len(p.answers) != 1 || p.answers[0] != test.answer || strings.Join(p.passed, "|") != "b IDLE\r\n|DONE\r\n|"+after {
			t.Errorf("%.200q in IDLE: %v", test.in, p)
		}
	}
}

func TestIMAPFilterIdle(t *testing.T) {
	for in, want := range map[string][]string{
		"a IDLE\r\nDONE\r\nb NOOP\r\n":           {"a IDLE\r\n", "DONE\r\n", "b NOOP\r\n"},
		"a IDLE\r\ndone\nb IDLE\r\nDone\r\n":     {"a IDLE\r\n", "DONE\r\n", "b IDLE\r\n", "DONE\r\n"},
		"a IDLE\r\nb NOOP\r\nc NOOP\r\n":         {"a IDLE\r\n", "DONE\r\nb NOOP\r\n", "c NOOP\r\n"},
		"a IDLE\r\nb SELECT {1}\r\nx\r\n":        {"a IDLE\r\n", "DONE\r\nb EXAMINE \"x\"\r\n"},
		"a IDLE\r\nb IDLE\r\nDONE\r\nc NOOP\r\n": {"a IDLE\r\n", "DONE\r\nb IDLE\r\n", "DONE\r\n", "c NOOP\r\n"},
		"a IDLE\r\nDONE NOOP\r\nc NOOP\r\n":      {"a IDLE\r\n", "DONE\r\nDONE NOOP\r\n", "c NOOP\r\n"},
	} {
		for how, from := range splits(in) {
			if p := playFilter(from, true); strings.Join(p.passed, "|") != strings.Join(want, "|") || len(p.answers) > 0 {
				t.Errorf("%q, %s: %v", in, how, p)
			}
		}
	}
}

// TestIMAPFilterEnds: errors that leave the place unknown, or come from below.
func TestIMAPFilterEnds(t *testing.T) {
	for in, want := range map[string]error{
		"a NOOP\r\n":                                                         io.EOF,
		"a NOO":                                                              io.ErrUnexpectedEOF,
		"a SEARCH TEXT {5}\r\nab":                                            io.ErrUnexpectedEOF,
		"a SEARCH TEXT {5}\r\n":                                              io.ErrUnexpectedEOF,
		"a SEARCH TEXT {2}\r\nab":                                            io.ErrUnexpectedEOF,
		"a APPEND INBOX {5+}\r\nab":                                          io.ErrUnexpectedEOF,
		"a APPEND INBOX {104857601+}\r\n":                                    errTooLong,
		"a APPEND INBOX {9999999999999999999+}":                              io.ErrUnexpectedEOF,
		"a APPEND INBOX {9999999999999999999+}\r\n":                          errTooLong,
		"a APPEND INBOX {1+}\r\nx {104857600+}\r\n":                          errTooLong,
		"a FETCH " + strings.Repeat("1,", 40000) + "1 FLAGS\r\n":             errTooLong,
		"a APPEND x" + strings.Repeat(" {1+}\r\nx", 20000) + "\r\n":          errTooLong,
		"a SEARCH" + strings.Repeat(" TEXT {1+}\r\nx", 20000) + "\r\n":       errTooLong,
		strings.Repeat("a NOOP\r\n", 10000) + strings.Repeat("x", 65537):     errTooLong,
		"a SEARCH TEXT {1+}\r\n" + strings.Repeat("\x00", 65536) + "b NOOP":  errTooLong,
		"a IDLE\r\n" + strings.Repeat("x", 65537) + "\r\nDONE\r\nb NOOP\r\n": errTooLong,
	} {
		for how, from := range splits(in) {
			if p := playFilter(from, true); !errors.Is(p.err, want) {
				t.Errorf("%.100q, %s: %v; want %v", in, how, p.err, want)
				break
			}
		}
	}
	broken := errors.New("the client is gone")
	f := &imapFilter{in: bufio.NewReader(strings.NewReader("a SELECT {5}\r\nINBOX\r\n")), ask: func() error { return broken }}
	if _, _, err := f.next(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// TestIMAPFilterSkips reads over a large message without holding it.
func TestIMAPFilterSkips(t *testing.T) {
	const size = 50 << 20
	in := io.MultiReader(strings.NewReader(fmt.Sprintf("a APPEND INBOX {%d+}\r\n", size)), io.LimitReader(zeros{}, size), strings.NewReader("\r\nb NOOP\r\n"))
	f := &imapFilter{in: bufio.NewReader(in), literals: true}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, answer, err := f.next()
	runtime.ReadMemStats(&after)
	if err != nil || !strings.HasPrefix(answer, "a NO [NOPERM]") {
		t.Errorf("got %q, %v", answer, err)
	}
	if held := after.TotalAlloc - before.TotalAlloc; held > 1<<20 {
		t.Errorf("%d bytes were allocated", held)
	}
	if pass, _, err := f.next(); string(pass) != "b NOOP\r\n" || err != nil {
		t.Errorf("then %q, %v", pass, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
