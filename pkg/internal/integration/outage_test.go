//go:build integration

package integration

import (
	"strings"
	"testing"
)

// TestDovecotGone takes the mail server away: sessions end, who signs in is told
// to come back, and may when it is there again.
func TestDovecotGone(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: messages()[:1]})
	password := l.create("outage")
	l.serve()
	sessions := []*session{l.idle(password), l.pop3(password, "+OK"), l.smtp(password, "235 ")}

	l.dovecot.stop()
	for _, s := range sessions {
		s.ended()
	}
	l.checkRefused(password, "UNAVAILABLE")

	l.dovecot.start()
	l.signIn(password).do("LOGOUT")
	s := l.pop3(password, "+OK")
	s.send("STAT")
	s.expect("+OK 1 ")
	s = l.smtp(password, "235 ")
	s.send("NOOP")
	s.expect("250 ")
}

// TestGatewayKilled kills the gateway in the middle of a session, and starts
// it again on the same port and state.
func TestGatewayKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: messages()[:1], startTLS: true})
	password := l.create("killed")
	gateway := l.serve()
	s := l.idle(password)
	l.awaitSessions("killed", 1)

	gateway.kill()
	s.ended()
	if r := l.try("", binary, "status", "-o", "json"); !strings.Contains(r.stdout, `"running": false`) {
		t.Errorf("status of a killed gateway: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	gateway = l.serve()
	s = l.idle(password)
	l.awaitSessions("killed", 1)
	if r := l.try("", binary, "serve"); r.code == 0 || !strings.Contains(r.stderr, "running") {
		t.Errorf("a second gateway on the same state: exit code %d\n%s", r.code, r.stderr)
	}
	s.send("DONE")
	s.expect("i OK")

	s.send("i IDLE")
	s.expect("+ ")
	gateway.terminate()
	if last := s.ended(); !strings.HasPrefix(last, "* BYE ") {
		t.Errorf("the last line before the shutdown is %q, not BYE", last)
	}
}
