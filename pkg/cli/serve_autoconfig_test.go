package cli

import (
	"net"
	"testing"
)

// callers is a listener to which connections come from these addresses.
type callers []string

func (c *callers) Accept() (net.Conn, error) {
	if len(*c) == 0 {
		return nil, net.ErrClosed
	}
	addr, err := net.ResolveTCPAddr("tcp", (*c)[0])
	*c = (*c)[1:]
	return &caller{remote: addr}, err
}
func (c *callers) Close() error   { return nil }
func (c *callers) Addr() net.Addr { return &net.TCPAddr{} }

// caller is one connection.
type caller struct {
	net.Conn
	remote net.Addr
	closed bool
}

func (c *caller) RemoteAddr() net.Addr { return c.remote }
func (c *caller) Close() error         { c.closed = true; return nil }

// TestAutoconfigPlaces: one address does not take the places of all others.
func TestAutoconfigPlaces(t *testing.T) {
	in := &callers{}
	l := &limitedListener{Listener: in}
	call := func(n int, addr string) (taken []net.Conn) {
		for range n {
			*in = append(*in, addr)
		}
		for {
			conn, err := l.Accept()
			if err != nil {
				return taken
			}
			taken = append(taken, conn)
		}
	}
	one := call(200, "198.51.100.7:1")
	if len(one) != maxAutoconfigPerAddress {
		t.Errorf("one address has %d connections", len(one))
	}
	if n := len(call(1, "[::ffff:198.51.100.7]:2")); n != 0 {
		t.Error("the same address counts anew as an IPv6 address")
	}
	if n := len(call(200, "[2001:db8:0:1::1]:1")) + len(call(200, "[2001:db8:0:1:ffff::2]:1")); n != maxAutoconfigPerAddress {
		t.Errorf("one IPv6 network has %d connections", n)
	}
	if n := len(call(200, "127.0.0.1:1")); n != maxAutoconfig-2*maxAutoconfigPerAddress {
		t.Errorf("%d connections from this machine", n)
	}
	if n := len(call(1, "198.51.100.8:1")); n != 0 {
		t.Error("there are more connections than there may be in all")
	}
	_ = one[0].Close()
	_ = one[0].Close()
	if n := len(call(5, "198.51.100.7:1")); n != 1 {
		t.Errorf("after one has left, %d came in", n)
	}
}
