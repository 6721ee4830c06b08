package sandbox

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// maxLine is the longest line that is read at all. Access tokens need a part
// of it; each protocol has limits of its own below it.
const maxLine = 64 << 10

// lineConn is the client's side of a connection that speaks in lines.
type lineConn struct {
	conn net.Conn
	br   *bufio.Reader

	mu sync.Mutex // held for one response
	bw *bufio.Writer
}

func newLineConn(conn net.Conn) *lineConn {
	return &lineConn{conn: conn, br: bufio.NewReaderSize(conn, maxLine), bw: bufio.NewWriter(conn)}
}

// say writes whole lines.
func (c *lineConn) say(lines ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lines {
		c.bw.WriteString(l)
		c.bw.WriteString("\r\n")
	}
	return c.bw.Flush()
}

// end says last lines and closes. A client that does not read does not hold it
// up for long.
func (c *lineConn) end(lines ...string) {
	c.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	c.say(lines...)
	c.conn.Close()
}

var (
	errTooLong = errors.New("line or literal too long")
	errTooMany = errors.New("too many errors")
)

// readLine reads one line with its end, which may be a bare LF. The line is
// good until the next read.
func (c *lineConn) readLine() ([]byte, error) {
	line, err := c.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errTooLong
	}
	return line, err
}

// trimEnd takes the line end off, CRLF or LF, and no more than that.
func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// plainLine gives the text of a line that ends in CRLF and has no control
// character in it, as POP3 and SMTP want their commands.
func plainLine(line []byte) (string, bool) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	return text, ok && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// decodeBase64 decodes a SASL response. It must be the one right way to write
// it (RFC 4648 section 3.5), on one line.
func decodeBase64(encoded string) ([]byte, bool) {
	response, err := base64.StdEncoding.Strict().DecodeString(encoded)
	return response, err == nil && !strings.ContainsAny(encoded, "\r\n")
}
