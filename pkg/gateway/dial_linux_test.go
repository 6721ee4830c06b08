package gateway

import (
	"context"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestDialTriesEveryAddress: of a host with several addresses it is enough that
// one answers, whichever it is.
func TestDialTriesEveryAddress(t *testing.T) {
	addresses := []string{"127.0.0.2", "127.0.0.3"}
	resolveTo(t, addresses)
	for _, address := range addresses {
		ln, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		up, err := (&Server{}).dialer().dial(t.Context(), Upstream{Address: "upstream.test:" + port, StartTLS: true})
		if err != nil {
			t.Errorf("only %s listens: %v", address, err)
			continue
		}
		up.close()
		_ = ln.Close()
		if _, err := (&Server{}).dialer().dial(t.Context(), Upstream{Address: "upstream.test:" + port, StartTLS: true}); err == nil || !strings.Contains(err.Error(), "connect to the upstream upstream.test:"+port) {
			t.Errorf("nobody listens: %v", err)
		}
	}
}

// resolveTo has every host name of the program stand for some IPv4 addresses,
// until the test ends.
func resolveTo(t *testing.T, addresses []string) {
	t.Helper()
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	t.Cleanup(func() {
		net.DefaultResolver = before
		dns.Close()
	})
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", dns.LocalAddr().String())
	}}
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := dns.ReadFrom(query)
			if err != nil {
				return
			}
			_, _ = dns.WriteTo(dnsReply(query[:n], addresses), from)
		}
	}()
}

// dnsReply answers a query of one question: A by the addresses, all else by
// nothing (RFC 1035 section 4).
func dnsReply(query []byte, addresses []string) []byte {
	end := 12 // of the question: a name, type and class
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	reply := slices.Clone(query[:end])
	reply[2], reply[3] = 0x84, 0                // a response with authority, no error
	copy(reply[6:12], make([]byte, 6))          // no records of any section
	if query[end-4] != 0 || query[end-3] != 1 { // not A
		return reply
	}
	reply[7] = byte(len(addresses))
	for _, a := range addresses {
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the question's name, A, IN, no life, 4 bytes
		reply = append(reply, net.ParseIP(a).To4()...)
	}
	return reply
}

// TestKeepAlive: vanished peers are found on both sides, within minutes.
func TestKeepAlive(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	raw, err := newRawConn(near).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(level, name int) (value int) {
		if cerr := raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		return value
	}
	on, idle := option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
	interval, n := option(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL), option(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
	if on == 0 || idle+interval*n > 180 {
		t.Errorf("on %d, idle %d s, %d times every %d s", on, idle, n, interval)
	}
}
