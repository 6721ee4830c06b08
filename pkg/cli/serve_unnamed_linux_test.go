package cli_test

import (
	"net"
	"strings"
	"testing"
)

// TestUnnamedProtocolsAreOptional: a configuration from before there was POP3
// names imap alone. Somebody who has POP3's usual address keeps that from being
// served, and nothing else.
func TestUnnamedProtocolsAreOptional(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:1995")
	if err == nil {
		defer ln.Close() // else somebody has it already
	}
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	m.configure("\n[gateway]\nimap = \"127.0.0.1:0\"\nsmtp = \"127.0.0.1:0\"\n")
	_, l, addr := m.serving()
	l.await(t, `o365pw: nothing listens for pop3: .*address already in use; set pop3 = … in \[gateway\]`)
	if _, answer := signIn(t, addr, password); !strings.HasPrefix(answer, "x OK") {
		t.Error(answer)
	}
}
