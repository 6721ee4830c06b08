package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAnnouncedLiteral(t *testing.T) {
	for line, want := range map[string]struct {
		size     int64
		sync, ok bool
	}{
		"a LOGIN {5}\r\n":                      {5, true, true},
		"a LOGIN {5+}\r\n":                     {5, false, true},
		"a LOGIN {5}\n":                        {5, true, true},
		"* 1 FETCH (BINARY[1] ~{7}":            {7, true, true},
		"* LIST ({3}":                          {3, true, true},
		"a LOGIN {00}\r\n":                     {0, true, true},
		"a LOGIN {99999999999999999999999}":    {math.MaxInt64, true, true},
		"a LOGIN {99999999999999999999999+}":   {math.MaxInt64, false, true},
		"{5}":                                  {},
		"a LOGIN x{5}\r\n":                     {},
		"a LOGIN {}\r\n":                       {},
		"a LOGIN {+}\r\n":                      {},
		"a LOGIN {-5}\r\n":                     {},
		"a LOGIN {5x}\r\n":                     {},
		"a LOGIN {5++}\r\n":                    {},
		"a LOGIN {5} \r\n":                     {},
		"a LOGIN \"{5}\"\r\n":                  {},
		"":                                     {},
		"}":                                    {},
		"a LOGIN {\xd9\xa3}\r\n" /* digits */ : {},
	} {
		size, sync, ok := announcedLiteral([]byte(line))
		if ok != want.ok || ok && (size != want.size || sync != want.sync) {
			t.Errorf("%q: got %d, %t, %t", line, size, sync, ok)
		}
	}
}

func TestReadUnit(t *testing.T) {
	for name, test := range map[string]struct {
		in       string
		take     bool
		unit     string
		declined bool
		err      error
	}{
		"a line":                    {in: "a NOOP\r\nb", unit: "a NOOP\r\n"},
		"literals":                  {in: "a X {2}\r\n\r\n {1+}\r\ny z\r\nb", take: true, unit: "a X {2}\r\n\r\n {1+}\r\ny z\r\n"},
		"declined":                  {in: "a X {2}\r\nb", unit: "a X {2}\r\n", declined: true},
		"declined, but on its way":  {in: "a X {2+}\r\nyy z\r\nb", unit: "a X {2+}\r\nyy z\r\n"},
		"declined later":            {in: "a X {2+}\r\nyy {3}\r\nb", unit: "a X {2+}\r\nyy {3}\r\n", declined: true},
		"nothing":                   {err: io.EOF},
		"half a line":               {in: "a NOO", err: io.ErrUnexpectedEOF},
		"half a literal":            {in: "a X {5+}\r\nyy", err: io.ErrUnexpectedEOF},
		"no line after the literal": {in: "a X {2+}\r\nyy", err: io.ErrUnexpectedEOF},
		"line too long":             {in: strings.Repeat("x", 101), err: errTooLong},
		"literal too long":          {in: "a X {100+}\r\n", err: errTooLong},
		"together too long":         {in: "a X {60+}\r\n" + strings.Repeat("x", 100), err: errTooLong},
		"huge":                      {in: "a X {9223372036854775807+}\r\n", err: errTooLong},
	} {
		for _, oneByte := range []bool{true, false} {
			var from io.Reader = strings.NewReader(test.in)
			if oneByte {
				from = iotest.OneByteReader(from)
			}
			r := bufio.NewReaderSize(from, 16)
			unit, declined, err := readUnit(r, 100, func([]byte, int64, bool) (bool, error) { return test.take, nil })
			if string(unit) != test.unit || declined != test.declined || !errors.Is(err, test.err) {
				t.Errorf("%s: got %q, %t, %v", name, unit, declined, err)
			}
		}
	}
}

// FuzzPosition: however a stream is cut into writes, the gateway knows the
// same about where it stands, and what it calls the place between two
// responses is where readUnit, which reads whole responses, ends one too.
func FuzzPosition(f *testing.F) {
	for _, seed := range []string{
		"* 1 FETCH (BODY[] {4}\r\nab\r\n)\r\n* OK\r\n", "* 1 FETCH (A {0}\r\n B ~{2}\r\n\r\n)\r\n", "x\ny {3}\nabc", " {99999999999999999999}\r\nx\r\n",
		"* OK " + strings.Repeat("0", 30) + "{5}\r\nx\r\n", "\r\n", "* {2",
	} {
		f.Add([]byte(seed), byte(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step byte) {
		var whole, cut position
		whole.advance(stream)
		for chunk := range chunks(stream, int(step)+1) {
			cut.advance(chunk)
		}
		if whole.between() != cut.between() || whole.literal != cut.literal {
			t.Fatalf("at once: %+v, in pieces: %+v", whole, cut)
		}
		r := bufio.NewReader(bytes.NewReader(stream))
		for {
			_, _, err := readUnit(r, math.MaxInt32, func(_ []byte, size int64, _ bool) (bool, error) {
				if size > int64(len(stream)) {
					return false, io.ErrUnexpectedEOF // rather than make room for it
				}
				return true, nil
			})
			if err != nil {
				if between := errors.Is(err, io.EOF); between != whole.between() {
					t.Fatalf("read by responses the stream ends by %v, and between is %t", err, whole.between())
				}
				return
			}
		}
	})
}

func chunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}
