package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// errTooLong is what a line, or a command with its literals, beyond the limit
// is answered by.
var errTooLong = errors.New("line or literal too long")

// readLine reads up to the next LF, which it keeps, and at most limit bytes.
// End of file in mid-line is io.ErrUnexpectedEOF.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", errTooLong, limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// readUnit reads one command or response: a line and, as long as the line
// ends by announcing a literal (RFC 9051 section 4.3), the literal and the
// line after it. It is returned as it was on the wire.
//
// For each literal, take is asked whether it may come; sync says that its
// sender waits to be told. What take declines ends the unit at the
// announcement, unless the sender does not wait (RFC 7888): then the literal
// is on its way whatever anybody wants, and read to keep the place.
func readUnit(r *bufio.Reader, limit int, take func(unit []byte, size int64, sync bool) (bool, error)) (unit []byte, declined bool, err error) {
	for {
		line, err := readLine(r, limit-len(unit))
		if err != nil {
			return nil, false, noEOFWithin(unit, err)
		}
		unit = append(unit, line...)
		size, sync, ok := announcedLiteral(line)
		if !ok {
			return unit, false, nil
		}
		taken, err := take(unit, size, sync)
		if err != nil {
			return nil, false, err
		}
		if sync && !taken {
			return unit, true, nil
		}
		if size > int64(limit-len(unit)) {
			return nil, false, fmt.Errorf("%w: a literal of %d bytes, where %d are left", errTooLong, size, limit-len(unit))
		}
		at := len(unit)
		unit = append(unit, make([]byte, size)...)
		if _, err := io.ReadFull(r, unit[at:]); err != nil {
			return nil, false, noEOFWithin(unit, err)
		}
	}
}

func noEOFWithin(unit []byte, err error) error {
	if errors.Is(err, io.EOF) && len(unit) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// announcedLiteral reads the literal announcement that line ends by, if any:
// {n}, {n+} (RFC 7888), ~{n} (RFC 3516), before CRLF or a bare LF. It must
// stand at the beginning of a token: an atom that ends like one is none.
func announcedLiteral(line []byte) (size int64, sync, ok bool) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	rest, ok := bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return 0, false, false
	}
	rest, nonSync := bytes.CutSuffix(rest, []byte("+"))
	open := bytes.LastIndexByte(rest, '{')
	if open < 0 {
		return 0, false, false
	}
	before := bytes.TrimSuffix(rest[:open], []byte("~"))
	if len(before) == 0 || !bytes.ContainsAny(before[len(before)-1:], " (") {
		return 0, false, false
	}
	digits := rest[open+1:]
	if len(digits) == 0 || bytes.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, false, false
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		n = math.MaxInt64 // a literal still, and too long for anybody
	}
	return n, !nonSync, true
}

// position follows IMAP commands or responses as they pass, to know when the
// next byte would begin a new one.
type position struct {
	ended func(head []byte) // told of the beginning of each that has ended; may be nil

	literal int64  // bytes of a literal still to come
	within  bool   // one has begun and not ended
	first   bool   // in its first line
	tail    []byte // the end of the current line, enough of it to see a literal announced
	head    []byte // the beginning of the current one
}

const (
	// tailSize holds the longest announcement and what stands before it.
	tailSize = len(" ~{9223372036854775807+}\r")
	// headSize holds a tag, the verb after it, and of APPEND the flags as a rule.
	headSize = imapMaxTag + len(" AUTHENTICATE ") + 200
)

// between says whether the next byte would begin a response.
func (p *position) between() bool { return !p.within && p.literal == 0 }

func (p *position) advance(b []byte) {
	for len(b) > 0 {
		if p.literal > 0 {
			n := min(p.literal, int64(len(b)))
			p.literal -= n
			b = b[n:]
			continue
		}
		if !p.within {
			p.within, p.first, p.head = true, true, p.head[:0]
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			p.keep(b)
			return
		}
		p.keep(b[:end])
		p.literal, _, p.within = announcedLiteral(p.tail)
		p.tail, p.first = p.tail[:0], false
		b = b[end+1:]
		if !p.within && p.ended != nil {
			p.ended(p.head)
		}
	}
}

// keep adds to what is kept of the current line.
func (p *position) keep(b []byte) {
	if room := headSize - len(p.head); p.first && room > 0 {
		p.head = append(p.head, b[:min(room, len(b))]...)
	}
	if len(b) >= tailSize {
		p.tail = append(p.tail[:0], b[len(b)-tailSize:]...)
		return
	}
	if over := len(p.tail) + len(b) - tailSize; over > 0 {
		p.tail = p.tail[:copy(p.tail, p.tail[over:])]
	}
	p.tail = append(p.tail, b...)
}
