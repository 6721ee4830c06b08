//go:build integration

package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// endLimit is how soon after a revocation a session must be over. The design
// says a second; this machine may be busy.
const endLimit = 5 * time.Second

// TestRevoke ends, by one command, the sessions of real clients in the middle
// of what they do, and those of no other app password.
func TestRevoke(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: messages()})
	password, other := l.create("revoked"), l.create("kept")
	l.serve()
	l.trust() // its file is there
	kept := l.idle(other)
	idle := l.idle(password)

	// curl would need 20 s for the big message. What the gateway has sent by
	// then, a few megabytes, is in curl's socket and cannot be taken back.
	l.file("curlrc", []byte("user = \""+mailbox+":"+password+"\"\n"))
	curl := l.start("curl", "--config", l.dir+"/curlrc", "--silent", "--show-error", "--cacert", l.ca, "--limit-rate", "500k",
		"--output", l.dir+"/part", "imaps://"+l.gateway["imap"]+"/INBOX/;UID=14")
	// Python waits in IDLE for news.
	python := l.start("python3", absolute(t, "testdata/idle.py"), l.gateway["imap"], l.ca, mailbox)
	_, err := io.WriteString(python.stdin, password+"\n")
	must(t, err)
	python.await("idling")
	stalled := l.signIn(password) // a client that asks for much and reads nothing
	stalled.send("f UID FETCH 1:* (BODY.PEEK[])")
	pop3 := l.pop3(password, "+OK")
	sending := l.smtp(password, "235 ") // in the middle of a message
	sending.send("MAIL FROM:<%s>\r\nRCPT TO:<cut@example.org>\r\nDATA", mailbox)
	sending.expect("354 ")
	sending.send("Subject: cut\r\n\r\nthe first line")
	l.awaitSessions("revoked", 6)

	start := time.Now()
	l.o365pw("revoke", "revoked", "--yes")
	command := time.Since(start)
	if last := idle.ended(); !strings.HasPrefix(last, "* BYE ") {
		t.Errorf("the last line of the session is %q, not BYE", last)
	}
	t.Logf("closed %v after revoke had begun, which took %v", time.Since(start), command)
	if late := time.Since(start) - command; late > endLimit {
		t.Errorf("the session was closed %v after revoke", late)
	}
	if code := python.wait(endLimit); code != 1 || !strings.Contains(python.out.String(), "* BYE o365pw: ") {
		t.Errorf("Python was told nothing: exit code %d", code)
	}
	stalled.ended()
	if last := pop3.ended(); !strings.HasPrefix(last, "-ERR [AUTH] o365pw: ") {
		t.Errorf("the last line of the POP3 session is %q", last)
	}
	if last := sending.ended(); !strings.HasPrefix(last, "421 4.3.2 o365pw: ") {
		t.Errorf("the last line of the SMTP session is %q", last)
	}
	l.awaitSessions("revoked", 0)
	l.checkRefused(password, "AUTHENTICATIONFAILED")

	if code := curl.wait(20 * time.Second); code == 0 {
		t.Error("curl got the whole message")
	}

	if n := len(l.dovecot.sink.to("cut@example.org")); n != 0 {
		t.Errorf("%d messages were sent that had no end", n)
	}
	kept.send("DONE")
	kept.expect("i OK")
	kept.do("NOOP")
}

// TestRevokedInEntra removes the backing credential in Entra alone, as an
// administrator does: the gateway asks again and closes the session. While
// Entra cannot be asked it closes nothing.
func TestRevokedInEntra(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: messages()[:1], revalidate: "1s"})
	password := l.create("elsewhere")
	l.serve()
	s := l.idle(password)

	faults := func(down bool, status int) {
		l.sandbox.SetFaults(func(f *sandbox.Faults) { f.EntraDown, f.EntraStatus = down, status })
	}
	for _, outage := range []struct {
		down   bool
		status int
	}{{true, 0}, {false, http.StatusServiceUnavailable}} {
		faults(outage.down, outage.status)
		l.awaitTokenRequests(2, outage.status)
		s.send("DONE")
		s.expect("i OK")
		s.do("NOOP")
		s.send("i IDLE")
		s.expect("+ ")
	}
	faults(false, 0)
	l.awaitTokenRequests(1, http.StatusOK)

	for _, c := range l.sandbox.Credentials() {
		l.sandbox.RemoveCredential(c.KeyID)
	}
	start := time.Now()
	if last := s.ended(); !strings.HasPrefix(last, "* BYE ") {
		t.Errorf("the last line of the session is %q, not BYE", last)
	}
	t.Logf("closed %v after the credential was removed; it is checked every second", time.Since(start))
	if late := time.Since(start); late > time.Second+endLimit {
		t.Errorf("the session was closed %v after the credential was removed", late)
	}
	l.checkRefused(password, "AUTHENTICATIONFAILED")
}

// awaitTokenRequests waits for n more token requests answered by status; 0 is
// no answer.
func (l *lab) awaitTokenRequests(n, status int) {
	l.t.Helper()
	count := func() (n int) {
		for _, r := range l.sandbox.Requests() {
			if strings.HasSuffix(r.Path, "/oauth2/v2.0/token") && r.Status == status {
				n++
			}
		}
		return n
	}
	before := count()
	eventually(l.t, "the gateway to ask Entra", func() bool { return count() >= before+n })
}

// awaitSessions waits until status shows n sessions of an app password.
func (l *lab) awaitSessions(name string, n int) {
	l.t.Helper()
	var out string
	eventually(l.t, "the sessions in status", func() bool {
		out = l.try("", binary, "status", "-o", "json").stdout
		return strings.Contains(out, `"running": true`) && strings.Count(out, `"appPassword": "`+name+`"`) == n
	})
}

// refusals are what POP3 and SMTP say where IMAP has a response code.
var refusals = map[string]struct{ pop3, smtp string }{
	"AUTHENTICATIONFAILED": {"-ERR [AUTH] ", "535 5.7.8 "},
	"UNAVAILABLE":          {"-ERR [SYS/TEMP] ", "454 4.7.0 "},
}

// checkRefused wants a sign-in to be refused with a response code: IMAP's in
// each way, and what stands for it over POP3 and SMTP.
func (l *lab) checkRefused(password, code string) {
	l.t.Helper()
	for name, dial := range l.ways() {
		c, err := dial()
		must(l.t, err)
		if err := c.Login(mailbox, password).Wait(); err == nil || !strings.Contains(err.Error(), code) {
			l.t.Errorf("%s: a sign-in gave %v, want %s", name, err, code)
		} else {
			l.t.Logf("%s: %v", name, err)
		}
		c.Close()
	}
	l.pop3(password, refusals[code].pop3)
	l.smtp(password, refusals[code].smtp)
}
