package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// farewellTime is how long the end of a connection may take: the last line,
// TLS's and TCP's own end, and the client's. A client that does not read does
// not hold it up longer.
const farewellTime = 800 * time.Millisecond

// maxQueued bounds the gateway's own responses that wait for their place.
const maxQueued = 64 << 10

// readBuffer is the size of the buffers in use before sign-in.
const readBuffer = 4 << 10

// tlsHandshake is the first byte of a TLS connection (RFC 8446 section 5.1,
// ContentType handshake). No command of a mail protocol begins with it.
const tlsHandshake = 0x16

// keepAlive finds peers that have vanished within some two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// rawConn is a connection below TLS. It can be given one last limit that no
// later deadline exceeds: crypto/tls grants its own farewell five seconds.
type rawConn struct {
	net.Conn
	first []byte   // read already: to tell TLS from clear text, or behind a proxy's answer
	below *rawConn // of TLS to a proxy; nil: none

	mu    sync.Mutex
	limit time.Time // zero: none
}

func newRawConn(conn net.Conn) *rawConn {
	raw := &rawConn{Conn: conn}
	switch conn := conn.(type) {
	case *net.TCPConn:
		_ = conn.SetKeepAliveConfig(keepAlive)
	case *tls.Conn:
		raw.below, _ = conn.NetConn().(*rawConn)
	}
	return raw
}

func (c *rawConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite passes on a half-close where the connection knows one.
func (c *rawConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *rawConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetDeadline(c.clip(t))
}

func (c *rawConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetReadDeadline(c.clip(t))
}

func (c *rawConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(c.clip(t))
}

func (c *rawConn) clip(t time.Time) time.Time {
	if c.limit.IsZero() || (!t.IsZero() && t.Before(c.limit)) {
		return t
	}
	return c.limit
}

// hurry gives all that is still to happen on the connection until limit. The
// first limit stays.
func (c *rawConn) hurry(limit time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit.IsZero() {
		c.limit = limit
		_ = c.Conn.SetDeadline(limit)
		if c.below != nil {
			c.below.hurry(limit)
		}
	}
}

// client is the connection to the mail client. One goroutine, the session's,
// reads from it and changes it; several write.
type client struct {
	raw    *rawConn
	conn   net.Conn // raw, or TLS over it
	in     *bufio.Reader
	tls    bool
	remote netip.AddrPort

	version string // of TLS; empty: without

	mu       sync.Mutex
	speaking bool     // a line written now is understood as one: not before the greeting, not during a handshake
	gone     error    // nothing can be written any more
	place    follower // of the responses written so far
	queued   []byte   // responses of the gateway's own that wait for their place
}

// follower knows where in the server's responses a client stands.
type follower interface {
	// advance is told of every byte written to the client.
	advance(b []byte)
	// between says whether the next byte would begin a response.
	between() bool
}

func newClient(conn net.Conn) *client {
	raw := newRawConn(conn)
	return &client{raw: raw, conn: raw, in: bufio.NewReaderSize(raw, readBuffer), remote: addrPort(conn.RemoteAddr()), place: &position{}}
}

// addrPort reads an address; the zero AddrPort stands for what is none.
func addrPort(addr net.Addr) netip.AddrPort {
	if addr == nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// private says whether a password may cross the connection: over TLS, or
// without ever leaving this machine.
func (c *client) private() bool { return c.tls || c.remote.Addr().IsLoopback() }

// startsTLS waits for the client's first byte, which tells implicit TLS from
// clear text and is kept. A client that is silent for so long as wait is
// taken to wait for the server's greeting.
func (c *client) startsTLS(wait time.Duration, deadline time.Time) (bool, error) {
	_ = c.raw.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 1)
	n, err := c.raw.Conn.Read(b)
	if n == 0 && err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	c.raw.first = b[:n]
	_ = c.raw.SetReadDeadline(deadline)
	return n == 1 && b[0] == tlsHandshake, nil
}

// startTLS makes the connection a TLS one. What was read ahead in clear must
// have been refused by the caller.
func (c *client) startTLS(ctx context.Context, config *tls.Config) error {
	c.mu.Lock()
	c.speaking = false
	c.mu.Unlock()
	conn := tls.Server(c.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.tls, c.speaking = conn, true, true
	c.version = tls.VersionName(conn.ConnectionState().Version)
	c.in = bufio.NewReaderSize(conn, readBuffer)
	return nil
}

// speak says that the client takes lines from now on.
func (c *client) speak() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.speaking = true
}

// follow has f follow what is written from now on, which begins between two
// responses.
func (c *client) follow(f follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place = f
}

// Write sends responses to the client. It fails for good after the first
// failure and after a farewell.
func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queued) > 0 {
		return c.writeQueued(p)
	}
	c.place.advance(p)
	return c.write(p)
}

// write is Write below the following of places. mu is held.
func (c *client) write(p []byte) (int, error) {
	if c.gone != nil {
		return 0, c.gone
	}
	n, err := c.conn.Write(p)
	c.gone = err
	return n, err
}

// writeQueued writes p, and what is queued where the first response in it
// ends. mu is held.
func (c *client) writeQueued(p []byte) (int, error) {
	at := 0
	for at < len(p) && len(c.queued) > 0 {
		end := len(p)
		if i := bytes.IndexByte(p[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		c.place.advance(p[at:end])
		at = end
		if !c.place.between() {
			continue
		}
		if n, err := c.write(p[:at]); err != nil {
			return n, err
		}
		queued := c.queued
		c.queued = nil
		if _, err := c.write(queued); err != nil {
			return at, err
		}
		c.place.advance(p[at:])
		n, err := c.write(p[at:])
		return at + n, err
	}
	return c.write(p)
}

// inject writes whole responses of the gateway's own, at once if the client
// stands between two of the upstream's, else as soon as it does. Any goroutine
// may call it.
func (c *client) inject(text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.place.between() {
		_, err := c.write([]byte(text))
		return err
	}
	if len(c.queued) > maxQueued {
		return &ending{public: "too many commands at once", cause: errors.New("too many refused commands during one response")}
	}
	c.queued = append(c.queued, text...)
	return c.gone
}

// farewell writes a last line, if the client stands between two responses and
// takes it, and ends all reading and writing. Any goroutine may call it.
func (c *client) farewell(line string) {
	// A write that the client does not take holds the lock no longer than this.
	c.raw.hurry(time.Now().Add(farewellTime))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil && c.speaking && line != "" && c.place.between() {
		_, _ = io.WriteString(c.conn, line)
	}
	c.gone = net.ErrClosed
	c.interrupt()
}

// interrupt ends a Read of the session's.
func (c *client) interrupt() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

// close ends the connection so that the client can read what it was sent
// last: closing with input unread would reset the connection and might take
// the last lines with it, so what still comes is read and dropped for a moment.
func (c *client) close() {
	c.raw.hurry(time.Now().Add(farewellTime))
	if conn, ok := c.conn.(*tls.Conn); ok {
		_ = conn.CloseWrite()
	}
	_ = c.raw.CloseWrite()
	_ = c.raw.SetReadDeadline(time.Time{}) // clipped to what hurry left
	_, _ = io.Copy(io.Discard, c.raw)
	_ = c.raw.Close()
}
