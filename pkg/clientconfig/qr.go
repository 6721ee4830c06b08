package clientconfig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/adler32"
	"hash/crc32"
	"strings"

	"rsc.io/qr/coding"
)

// Code is a QR code (ISO/IEC 18004).
type Code struct{ c *coding.Code }

// QR encodes text as bytes, with the least error correction: the code is read
// from a screen, and has to fit into a terminal. More than 2953 bytes are an
// error.
func QR(text string) (Code, error) {
	for v := coding.Version(coding.MinVersion); v <= coding.MaxVersion; v++ {
		if coding.String(text).Bits(v) > v.DataBytes(coding.L)*8 {
			continue
		}
		plan, err := coding.NewPlan(v, coding.L, 0)
		if err != nil {
			return Code{}, err
		}
		c, err := plan.Encode(coding.String(text))
		return Code{c}, err
	}
	return Code{}, errors.New("too long for a QR code")
}

// quiet is the margin that readers need, in modules.
const quiet = 4

// size is that of a side with the margin, in modules.
func (q Code) size() int { return q.c.Size + 2*quiet }

func (q Code) black(x, y int) bool { return q.c.Black(x-quiet, y-quiet) }

// Terminal draws the code with half blocks, two modules in each. It sets both
// colours, black on white, so that the background of the terminal does not
// matter.
func (q Code) Terminal() []byte {
	var b strings.Builder
	for y := 0; y < q.size(); y += 2 {
		b.WriteString("\x1b[38;5;16;48;5;231m")
		for x := range q.size() {
			switch upper, lower := q.black(x, y), q.black(x, y+1); {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return []byte(b.String())
}

// scale is the side of a module in the PNG, in pixels.
const scale = 8

// PNG is the code as an image of two colours (ISO/IEC 15948). It is not
// compressed, which spares the program image/png.
func (q Code) PNG() []byte {
	side := q.size() * scale
	var raw []byte
	for y := range side {
		row := make([]byte, 1+(side+7)/8) // a filter type, none, comes first
		for x := range side {
			if !q.black(x/scale, y/scale) {
				row[1+x/8] |= 0x80 >> (x % 8)
			}
		}
		raw = append(raw, row...)
	}
	z := []byte{0x78, 0x01} // zlib (RFC 1950), blocks without compression (RFC 1951)
	for rest := raw; ; {
		n := min(len(rest), 0xFFFF)
		last := byte(0)
		if n == len(rest) {
			last = 1
		}
		z = append(z, last)
		z = binary.LittleEndian.AppendUint16(z, uint16(n))
		z = binary.LittleEndian.AppendUint16(z, ^uint16(n))
		z = append(z, rest[:n]...)
		if rest = rest[n:]; last == 1 {
			break
		}
	}
	z = binary.BigEndian.AppendUint32(z, adler32.Checksum(raw))

	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(name string, data []byte) {
		c := append([]byte(name), data...)
		_ = binary.Write(&b, binary.BigEndian, uint32(len(data)))
		b.Write(c)
		_ = binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(c))
	}
	header := binary.BigEndian.AppendUint32(nil, uint32(side))
	header = binary.BigEndian.AppendUint32(header, uint32(side))
	chunk("IHDR", append(header, 1, 0, 0, 0, 0)) // one bit of grey
	chunk("IDAT", z)
	chunk("IEND", nil)
	return b.Bytes()
}

func (q Code) file() File {
	return File{Path: "code.png", Content: q.PNG(), Binary: true, Terminal: q.Terminal()}
}
