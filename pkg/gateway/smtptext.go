package gateway

import "bytes"

// messageText takes a message in, up to a limit; what is beyond is read and
// dropped.
type messageText struct {
	limit int64
	dots  bool // as copyMessage writes it: dots doubled, one alone at the end
	text  []byte
	over  bool
}

// Write implements io.Writer.
func (t *messageText) Write(p []byte) (int, error) {
	if t.over = t.over || int64(len(t.text)+len(p)) > t.limit+t.slack(); t.over {
		t.text = nil
		return len(p), nil
	}
	t.text = append(t.text, p...)
	return len(p), nil
}

// slack is what the text may have beyond the limit while its dots are doubled.
func (t *messageText) slack() int64 {
	if t.dots {
		return t.limit/3 + 3 // a line has two bytes beside its dot
	}
	return 0
}

// message is what was taken in, its lines ended by CRLF; ok is false where that is
// more than the limit.
func (t *messageText) message() (text []byte, ok bool) {
	switch {
	case t.over:
		return nil, false
	case t.dots:
		text = undot(t.text)
	default:
		text = withCRLF(t.text)
	}
	return text, int64(len(text)) <= t.limit
}

// undot undoes the doubling of dots, in place.
func undot(text []byte) []byte {
	text = text[:len(text)-len(".\r\n")]
	out := text[:0]
	for i, begin := 0, true; i < len(text); i++ {
		if begin && text[i] == '.' {
			begin = false
			continue
		}
		out = append(out, text[i])
		begin = text[i] == '\n'
	}
	return out
}

// withCRLF does for a message by BDAT what copyMessage does for one by DATA: each
// line ends in CRLF, and a CR elsewhere is a blank.
func withCRLF(text []byte) []byte {
	out := make([]byte, 0, len(text)+2)
	for len(text) > 0 {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		out = append(out, bytes.ReplaceAll(bytes.TrimRight(line, "\r"), []byte("\r"), []byte(" "))...)
		out = append(out, "\r\n"...)
		if text = rest; !ended {
			break
		}
	}
	return out
}
