package gateway

import (
	"net"
	"strings"
	"syscall"
	"testing"
)

// TestDialTriesEveryAddress: of a host with several addresses it is enough that
// one answers, whichever it is.
func TestDialTriesEveryAddress(t *testing.T) {
	addresses, err := net.LookupHost("localhost")
	if err != nil || len(addresses) < 2 {
		t.Skipf("localhost has no two addresses here: %v, %v", addresses, err)
	}
	for _, address := range addresses {
		ln, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Skipf("cannot listen on %s: %v", address, err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		up, err := (&Server{}).dial(t.Context(), Upstream{Address: "localhost:" + port, StartTLS: true})
		if err != nil {
			t.Errorf("only %s listens: %v", address, err)
			continue
		}
		up.close()
		_ = ln.Close()
		if _, err := (&Server{}).dial(t.Context(), Upstream{Address: "localhost:" + port, StartTLS: true}); err == nil || !strings.Contains(err.Error(), "connect to the upstream localhost:"+port) {
			t.Errorf("nobody listens: %v", err)
		}
	}
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
