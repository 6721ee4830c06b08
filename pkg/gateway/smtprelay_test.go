package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// end is one end of a conversation.
type end struct {
	net.Conn
	in *bufio.Reader
}

// says sends lines, and awaits as many of the other end as are due.
func (e *end) says(t *testing.T, text string, due ...string) {
	t.Helper()
	if _, err := fmt.Fprint(e, text); err != nil {
		t.Fatal(err)
	}
	e.hears(t, due...)
}

func (e *end) hears(t *testing.T, due ...string) {
	t.Helper()
	for _, want := range due {
		expectLine(t, e.in, want)
	}
}

// smtpSignedIn is a signed-in SMTP session, seen by client and upstream.
func smtpSignedIn(t *testing.T, r *rig) (client, up *end) {
	t.Helper()
	conn := r.connect("127.0.0.1:5000")
	client = &end{conn, bufio.NewReader(conn)}
	client.hears(t, "220 ")
	client.says(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+goodUser+"\x00"+goodPassword))+"\r\n")
	raw, err := r.acceptUpstream()
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.Server(raw, r.tls)
	up = &end{secured, bufio.NewReader(secured)}
	up.says(t, "220 hi\r\n", "EHLO ")
	up.says(t, "250-x\r\n250-CHUNKING\r\n250 AUTH XOAUTH2\r\n", "AUTH XOAUTH2")
	up.says(t, "334 \r\n", "")
	up.says(t, "235 ok\r\n")
	client.hears(t, "235 ")
	return client, up
}

// smtpRig is a gateway for SMTP, whose upstream need not be asked ahead.
func smtpRig(t *testing.T, change func(*rig)) *rig {
	return newRig(t, func(r *rig) {
		r.name = SMTP
		r.server.offers.learned(r.backend.grant.Upstream.Address, nil)
		change(r)
	})
}

// counted is what the quota holds of the rig's app password.
func (r *rig) counted() (sent, underWay int) {
	synctest.Wait()
	q := &r.server.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.of[r.backend.grant.ID]
	if one == nil {
		return 0, 0
	}
	return len(one.sent), one.underWay
}

// A DATA without a message counts for none.
func TestQuotaOfDataWithoutMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := smtpRig(t, func(r *rig) { r.backend.grant.MaxPerHour, r.backend.grant.From = 1, []string{goodUser} })
		client, up := smtpSignedIn(t, r)
		client.says(t, "MAIL FROM:<evil@example.com>\r\nRCPT TO:<x@example.com>\r\nDATA\r\n", "550 5.7.60")
		up.hears(t, "RCPT TO:", "DATA")
		up.says(t, "503 no\r\n503 no\r\n")
		client.hears(t, "503", "503")
		if sent, underWay := r.counted(); sent != 0 || underWay != 0 {
			t.Errorf("%d sent, %d under way", sent, underWay)
		}
		client.Close()
		r.stop()
		<-r.finished
	})
}

// A message that is refused before its end is not one whose reply is lost.
func TestQuotaOfEarlyRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := smtpRig(t, func(r *rig) { r.backend.grant.MaxPerHour = 5 })
		client, up := smtpSignedIn(t, r)
		mail := func() {
			client.says(t, "MAIL FROM:<"+goodUser+">\r\n")
			up.hears(t, "MAIL FROM:")
			up.says(t, "250 ok\r\n")
			client.hears(t, "250")
		}
		mail()
		client.says(t, "DATA\r\n")
		up.hears(t, "DATA")
		up.says(t, "354 go\r\n")
		client.hears(t, "354")
		client.says(t, "too much\r\n")
		up.hears(t, "too much")
		up.says(t, "552 too big\r\n")
		client.hears(t, "552")
		client.says(t, ".\r\n")
		up.hears(t, ".")
		mail()
		up.Close()
		client.Close()
		if sent, underWay := r.counted(); sent != 0 || underWay != 0 {
			t.Errorf("%d sent, %d under way", sent, underWay)
		}
		r.stop()
		<-r.finished
	})
}

// Whoever is told of events may panic, and ends nothing by it.
func TestObserverPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := smtpRig(t, func(r *rig) {
			r.server.Observe = func(e Event) {
				if e.Kind == SessionEnded {
					panic("boom")
				}
			}
		})
		for range 2 { // the gateway goes on
			client, up := smtpSignedIn(t, r)
			client.says(t, "QUIT\r\n")
			up.hears(t, "QUIT")
			up.says(t, "221 bye\r\n")
			up.Close()
			client.hears(t, "221")
			client.Close()
			synctest.Wait()
		}
		if n := strings.Count(r.log.String(), "panic in a session"); n != 2 {
			t.Errorf("%d panics are logged:\n%s", n, r.log)
		}
		r.stop()
		<-r.finished
	})
}

// A client that says good-bye is not one that the upstream has left.
func TestGoodByeInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := smtpRig(t, func(*rig) {})
		client, up := smtpSignedIn(t, r)
		client.says(t, "QUIT\r\n")
		up.hears(t, "QUIT")
		up.says(t, "221 bye\r\n")
		up.Close()
		client.hears(t, "221")
		client.Close()
		time.Sleep(time.Second)
		r.stop()
		<-r.finished
		if text := r.log.String(); !strings.Contains(text, "session ended") || strings.Contains(text, errUpstreamEnded.Error()) {
			t.Error(text)
		}
	})
}

// Somebody who types everything into the wrong field is not quoted.
func TestSASLBehalfQuotesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Event
		r := smtpRig(t, func(r *rig) { r.server.Observe = func(e Event) { told = append(told, e) } })
		conn := r.connect("127.0.0.1:5000")
		client := &end{conn, bufio.NewReader(conn)}
		client.hears(t, "220 ")
		client.says(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(goodUser+"\x00"+goodPassword+"\x00"+goodUser))+"\r\n", "535 5.7.8")
		client.Close()
		r.stop()
		<-r.finished
		if text := fmt.Sprint(r.log, told); strings.Contains(text, goodPassword) || len(told) == 0 {
			t.Error(text)
		}
	})
}

// Whatever alphabet a token is in, none of it is quoted.
func TestQuotedHidesTokens(t *testing.T) {
	raw := strings.Repeat("\xfb\xef\xbe\xff\x00", 60)
	for _, token := range []string{base64.StdEncoding.EncodeToString([]byte(raw)), base64.RawURLEncoding.EncodeToString([]byte(raw))} {
		if got := quoted("535 not "+token+" please", 400); got != "535 not … please" {
			t.Error(got)
		}
	}
}
