package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// imapMaxPassed is the longest command that goes upstream: what every
	// server has to take (RFC 7162 section 4). A server that took less might
	// go on in mid-line and find a command of the client's choice there.
	imapMaxPassed = 8 << 10
	// imapMaxSkipped is how much of a refused command's literals is read over
	// to find the next command: no client appends larger messages.
	imapMaxSkipped = 100 << 20
	imapMaxVerb    = 32
)

// imapReadOnly are the commands that change no mailbox, given that one is only
// ever opened by EXAMINE: there CLOSE removes nothing (RFC 9051 section 6.4.1)
// and FETCH sets no \Seen (section 6.3.3). ENABLE is not among them: it has the
// server read and do things differently, in ways that nobody here can know of.
var imapReadOnly = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "IDLE": true,
	"NAMESPACE": true, "LIST": true, "LSUB": true, "XLIST": true, "STATUS": true,
	"SELECT": true, "EXAMINE": true, "CHECK": true, "CLOSE": true, "UNSELECT": true,
	"SEARCH": true, "SORT": true, "THREAD": true, "FETCH": true,
	"UID SEARCH": true, "UID SORT": true, "UID THREAD": true, "UID FETCH": true,
	"GETQUOTA": true, "GETQUOTAROOT": true, "MYRIGHTS": true, "GETACL": true, "LISTRIGHTS": true, "GETMETADATA": true,
}

// imapFilter stands between a signed-in client whose app password is read-only
// and the upstream. What it passes on never changes a mailbox, even if the
// upstream should lose its place: it is one line with one command, apart from
// the literals that appendString allows.
type imapFilter struct {
	in       *bufio.Reader // from the client
	ask      func() error  // sends the client "+ …", so that a synchronising literal comes
	literals bool          // the upstream has LITERAL+ (RFC 7888)
	offers   string        // the capabilities that hold; empty: the upstream is asked
	idle     bool          // IDLE has been passed on, and no DONE
}

// next reads one command, or the DONE that ends IDLE. It returns the bytes to
// send upstream, or else an answer for the client, without CRLF; then nothing
// goes upstream. After an error, errTooLong among them, the place is lost.
func (f *imapFilter) next() (pass []byte, answer string, err error) {
	line, err := readLine(f.in, imapMaxCommand)
	if err != nil {
		return nil, "", err
	}
	if f.idle && strings.EqualFold(string(withoutEOL(line)), "DONE") {
		f.idle = false
		return []byte("DONE\r\n"), "", nil
	}
	cmd := filteredCommand{literals: f.literals}
	cmd.begin(line)
	skipped, left := int64(0), imapMaxCommand-len(line)
	for {
		size, sync, announced := cmd.add(withoutEOL(line))
		if !announced {
			break
		}
		if size > int64(imapMaxPassed-len(cmd.out)) {
			cmd.tooLong()
		}
		switch {
		case sync && cmd.refusal != "":
			return nil, cmd.refusal, nil // it is not asked for, and so never comes
		case cmd.refusal != "":
			if size > imapMaxSkipped-skipped {
				return nil, "", fmt.Errorf("%w: a literal of %d bytes", errTooLong, size)
			}
			skipped += size
			if _, err := f.in.Discard(int(size)); err != nil {
				return nil, "", noEOFWithin(line, err)
			}
		default:
			if sync {
				if err := f.ask(); err != nil {
					return nil, "", err
				}
			}
			cmd.literal = make([]byte, size)
			if _, err := io.ReadFull(f.in, cmd.literal); err != nil {
				return nil, "", noEOFWithin(line, err)
			}
			left -= len(cmd.literal)
		}
		if line, err = readLine(f.in, left); err != nil {
			return nil, "", noEOFWithin([]byte("within"), err)
		}
		left -= len(line)
	}
	if cmd.refusal != "" {
		return nil, cmd.refusal, nil
	}
	if cmd.verb == "CAPABILITY" && f.offers != "" {
		return nil, "* CAPABILITY " + f.offers + "\r\n" + cmd.tag + " OK CAPABILITY completed", nil
	}
	pass = append(cmd.out, "\r\n"...)
	if f.idle {
		// The client forgot DONE, or the upstream refused its IDLE, which is
		// not seen here. This works either way, while the command alone could
		// be taken for the end of IDLE, or its middle for another command.
		pass = append([]byte("DONE\r\n"), pass...)
	}
	f.idle = cmd.verb == "IDLE"
	return pass, "", nil
}

// filteredCommand is a command on its way through the filter.
type filteredCommand struct {
	literals  bool
	tag, verb string
	out       []byte // what goes upstream, so far
	literal   []byte // the last one, which is not in out yet
	refusal   string // why nothing does
}

// refuse keeps the first reason: the status and text after the tag.
func (c *filteredCommand) refuse(format string, args ...any) {
	if c.refusal == "" {
		c.refusal = c.tag + " " + fmt.Sprintf(format, args...)
	}
}

func (c *filteredCommand) tooLong() {
	c.refuse("NO [LIMIT] the command is longer than %d bytes", imapMaxPassed)
}

// begin looks at the tag and the verb, and turns SELECT into EXAMINE.
func (c *filteredCommand) begin(line []byte) {
	c.tag = parseIMAPCommand(line).tag
	_, rest, _ := bytes.Cut(withoutEOL(line), []byte(" "))
	verb, rest, ok := imapVerb(rest)
	if verb == "UID" {
		var sub string
		sub, rest, ok = imapVerb(bytes.TrimPrefix(rest, []byte(" ")))
		verb += " " + sub
	}
	switch c.verb = verb; {
	case c.tag == "*":
		c.refuse("BAD a command begins by a tag")
	case !ok:
		c.refuse("BAD a tag is followed by a space and a command")
	case !imapReadOnly[verb]:
		c.refuse("NO [NOPERM] this app password is read-only: %s is not allowed", imapText(verb))
	case verb == "IDLE" && len(rest) > 0:
		c.refuse("BAD IDLE has no arguments")
	}
}

// imapVerb cuts a command's name off, and makes it upper case.
func imapVerb(text []byte) (verb string, rest []byte, ok bool) {
	end := bytes.IndexByte(text, ' ')
	if end < 0 {
		end = len(text)
	}
	word := text[:end]
	if end == 0 || end > imapMaxVerb || bytes.ContainsFunc(word, func(r rune) bool { return !isAtomChar(r) }) {
		return "", nil, false
	}
	return strings.ToUpper(string(word)), text[end:], true
}

// add takes one line of the command, without its end. It returns the literal
// that the line announces, if any, which is known of a refused line as well.
func (c *filteredCommand) add(line []byte) (size int64, sync, announced bool) {
	at, problem := imapLex(line)
	if problem != "" {
		c.refuse("BAD %s", problem)
	}
	if at < len(line) {
		size, sync, announced = announcedLiteral(line)
	}
	if c.refusal == "" {
		c.assemble(line[:at])
	}
	if len(c.out) > imapMaxPassed-len("\r\n") {
		c.tooLong()
	}
	if c.refusal != "" {
		c.out = nil
	}
	return size, sync, announced
}

// assemble adds to what goes upstream: the literal read before, and the text
// after it.
func (c *filteredCommand) assemble(text []byte) {
	switch {
	case len(c.out) == 0 && c.verb == "SELECT":
		c.out = append(append(c.out, c.tag+" EXAMINE"...), text[len(c.tag+" SELECT"):]...)
		return
	case c.literal == nil:
	case bytes.ContainsFunc(c.literal, isControl):
		c.refuse("NO [CANNOT] a literal with line breaks or control characters is not allowed")
		return
	default:
		c.out = appendString(c.out, c.literal, text, c.literals)
		c.literal = nil
	}
	c.out = append(c.out, text...)
}

// appendString adds a literal's content as a quoted string. A literal could be
// taken for a command: servers exist that refuse a command at its first
// mistake and go on after the end of that line. Quoted strings are ASCII by
// RFC 3501, though, and so other content stays a literal if there is no space
// up to the end of the command, nor what another literal could follow: then it
// is no command to anybody.
func appendString(out, content, rest []byte, literals bool) []byte {
	ascii := !bytes.ContainsFunc(content, func(r rune) bool { return r > '~' })
	if literals && !ascii && !bytes.ContainsAny(content, " \t") && !bytes.ContainsAny(rest, " \t(") {
		out = append(out, '{')
		out = strconv.AppendInt(out, int64(len(content)), 10)
		return append(append(out, "+}\r\n"...), content...)
	}
	out = append(out, '"')
	for _, b := range content {
		if b == '"' || b == '\\' {
			out = append(out, '\\')
		}
		out = append(out, b)
	}
	return append(out, '"')
}

// imapLex checks one line of a command, without its end, against RFC 9051
// section 9 as far as it tells strings from other things. It returns where a
// literal is announced, or the end of the line, and what is wrong with it.
func imapLex(line []byte) (at int, problem string) {
	wrong := func(text string) {
		if problem == "" {
			problem = text
		}
	}
	quoted := false
	for i := 0; i < len(line); i++ {
		switch b := line[i]; {
		case isControl(rune(b)) || b == '\t' && !quoted:
			wrong("a control character")
		case b == '"':
			quoted = !quoted
		case quoted && b == '\\':
			if i++; i == len(line) || line[i] != '"' && line[i] != '\\' {
				wrong(`a backslash in a quoted string that is before neither " nor \`)
			}
		case quoted: // eight-bit characters as well (RFC 9051 section 4.3)
		case b > '~':
			wrong("an eight-bit character outside of a string")
		case b == '{':
			if _, _, ok := announcedLiteral(line); !ok || bytes.IndexByte(line[i+1:], '{') >= 0 {
				wrong("a brace that announces no literal")
				continue
			}
			if line[i-1] == '~' {
				wrong("a binary literal is not allowed")
			}
			return i, problem
		}
	}
	if quoted {
		wrong("a quoted string that does not end")
	}
	return len(line), problem
}

// isControl is what goes upstream nowhere: control characters but TAB.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
