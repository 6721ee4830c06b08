package gateway

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// TestLegacyTakesPrivateNetworksAlone: who comes from the Internet is turned away
// before a word, and nobody is excused from TLS.
func TestLegacyTakesPrivateNetworksAlone(t *testing.T) {
	legacy := newPipeListener()
	r := newRig(t, func(r *rig) {
		r.server.Legacy = Legacy{Listeners: map[Protocol]net.Listener{IMAP: legacy},
			TLS: LegacyTLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &r.tls.Certificates[0], nil })}
	})
	defer r.close()
	for remote, taken := range map[string]bool{
		"192.168.1.20:1000": true, "10.9.8.7:1000": true, "172.31.0.1:1000": true, "127.0.0.1:1000": true, "169.254.3.3:1000": true,
		"[::ffff:192.168.1.20]:1000": true, "[fd00::20]:1000": true, "[fe80::20]:1000": true, "[::1]:1000": true,
		"203.0.113.9:1000": false, "172.32.0.1:1000": false, "100.64.0.1:1000": false, "[2001:db8::9]:1000": false, "[::ffff:203.0.113.9]:1000": false,
	} {
		conn, err := legacy.dial(t.Context(), netip.MustParseAddrPort(remote))
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if taken != strings.HasPrefix(line, "* OK") || !taken && err != io.EOF {
			t.Errorf("%s: %q, %v", remote, line, err)
		}
		_ = conn.Close()
	}
	if !strings.Contains(r.log.String(), "old TLS is for private networks") {
		t.Error(r.log.String())
	}
	conn, err := legacy.dial(t.Context(), netip.MustParseAddrPort("192.168.1.20:1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "LOGINDISABLED") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(conn, "x LOGIN "+goodUser+" "+goodPassword+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "[PRIVACYREQUIRED]") {
		t.Errorf("a password in clear: %q, %v", line, err)
	}
	if got := r.server.Status().Legacy[IMAP]; got == "" {
		t.Error("the status does not have it")
	}
}

func TestLegacyNeedsTLS(t *testing.T) {
	s := &Server{Backend: &fakeBackend{}, Legacy: Legacy{Listeners: map[Protocol]net.Listener{IMAP: newPipeListener()}}}
	if err := s.Serve(t.Context(), map[Protocol]net.Listener{IMAP: newPipeListener()}); err == nil {
		t.Error("it serves")
	}
	for _, suite := range LegacyTLS(nil).CipherSuites {
		if strings.Contains(tls.CipherSuiteName(suite), "RC4") {
			t.Errorf("%s is spoken", tls.CipherSuiteName(suite))
		}
	}
}
