package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hello is a message with a Message-ID, and alarm one of a device: the same each
// time.
const (
	hello = "From: alice@contoso.com\r\nTo: bob@contoso.com\r\nDate: Tue, 24 Nov 2026 18:00:00 +0000\r\nMessage-ID: <1@laptop>\r\n\r\nhello\r\n"
	alarm = "From: alice@contoso.com\r\nTo: bob@contoso.com\r\nSubject: alarm\r\n\r\nfire\r\n"
)

func bySubmit(t *testing.T, change func(*rig), f func(t *testing.T, r *rig)) {
	t.Helper()
	bubble(t, func(r *rig) {
		r.name = SMTP
		r.server.offers.learned(r.backend.grant.Upstream.Address, nil)
		r.backend.grant.Send = SendGraph
		if change != nil {
			change(r)
		}
	}, f)
}

// submitter is a signed-in session that sends by Graph.
func (r *rig) submitter(t *testing.T, over ...func(net.Conn) net.Conn) *end {
	t.Helper()
	conn := r.connect("127.0.0.1:5000")
	for _, wrap := range over {
		conn = wrap(conn)
	}
	c := &end{conn, bufio.NewReader(conn)}
	if len(over) > 0 {
		if err := conn.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	c.hears(t, "220 ")
	c.says(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+goodUser+"\x00"+goodPassword))+"\r\n", "235 ")
	return c
}

// submits hands a message over; after follows its last line in the same write.
func (e *end) submits(t *testing.T, message, after string, due ...string) {
	t.Helper()
	e.says(t, "MAIL FROM:<alice@contoso.com>\r\n", "250 ")
	e.says(t, "RCPT TO:<bob@contoso.com>\r\n", "250 ")
	e.says(t, "DATA\r\n", "354 ")
	e.says(t, message+".\r\n"+after, due...)
}

// sends sends a message that is answered by 250, in a session of its own.
func (r *rig) sends(t *testing.T, message string) {
	t.Helper()
	c := r.submitter(t)
	c.submits(t, message, "QUIT\r\n", "250 2.0.0 sent by Graph", "221 ")
	expectEnd(t, c.in)
	c.Close()
}

func (g *fakeGraph) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sent)
}

func (r *rig) notes(t *testing.T) []string {
	t.Helper()
	synctest.Wait()
	list, err := filepath.Glob(filepath.Join(r.server.Notes, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Whoever has had 250 and sends the same again means it, however the connection
// ended: many close TLS without its good-bye.
func TestSameMessageTwice(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, r *rig, raw net.Conn, c *end){
		"QUIT":                      func(t *testing.T, _ *rig, _ net.Conn, c *end) { c.says(t, "QUIT\r\n", "221 ") },
		"closed":                    func(_ *testing.T, _ *rig, _ net.Conn, c *end) { c.Close() },
		"TLS without close_notify":  func(_ *testing.T, _ *rig, raw net.Conn, _ *end) { raw.Close() },
		"within a line":             func(t *testing.T, _ *rig, raw net.Conn, c *end) { c.says(t, "QUI"); raw.Close() },
		"idle until it is sent off": func(t *testing.T, _ *rig, _ net.Conn, c *end) { c.hears(t, "421 ") },
	} {
		t.Run(name, func(t *testing.T) {
			for _, message := range []string{hello, alarm} {
				bySubmit(t, nil, func(t *testing.T, r *rig) {
					for n := range 2 {
						var raw net.Conn
						c := r.submitter(t, func(conn net.Conn) net.Conn { raw = conn; return tls.Client(conn, r.trust) })
						c.submits(t, message, "", "250 2.0.0 sent by Graph")
						leave(t, r, raw, c)
						synctest.Wait()
						if got := r.graph.count(); got != n+1 {
							t.Errorf("sent %d times of %d", got, n+1)
						}
						raw.Close()
					}
					if left := r.notes(t); len(left) > 0 {
						t.Errorf("notes are left: %v", left)
					}
				})
			}
		})
	}
}

// Whoever left before 250 comes again, and it is not sent again, also where the
// client had sent QUIT ahead.
func TestSentToNobodyWhoListens(t *testing.T) {
	for name, after := range map[string]string{"": "", "QUIT ahead": "QUIT\r\n"} {
		t.Run(name, func(t *testing.T) {
			bySubmit(t, func(r *rig) { r.graph.hold, r.graph.arrived = make(chan struct{}), make(chan struct{}, 9) }, func(t *testing.T, r *rig) {
				c := r.submitter(t)
				c.submits(t, hello, after)
				<-r.graph.arrived
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite() // TCP lets what comes then be written
				close(r.graph.hold)
				synctest.Wait()
				r.sends(t, hello)
				if got := r.graph.count(); got != 1 {
					t.Errorf("sent %d times", got)
				}
				time.Sleep(time.Hour)
				r.sends(t, hello) // it has had its 250
				if got := r.graph.count(); got != 2 {
					t.Errorf("sent %d times", got)
				}
			})
		})
	}
}

// A script that pipes all it has to say in, and half-closes, has its answer, and
// may say the same again.
func TestHalfClosedScript(t *testing.T) {
	bySubmit(t, nil, func(t *testing.T, r *rig) {
		for n := range 2 {
			c := r.submitter(t)
			c.submits(t, alarm, "QUIT\r\n")
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.hears(t, "250 2.0.0 sent by Graph", "221 ")
			expectEnd(t, c.in)
			c.Close()
			if got := r.graph.count(); got != n+1 {
				t.Errorf("sent %d times of %d", got, n+1)
			}
		}
	})
}

// A message that was changed before it came again, with its Message-ID, is neither
// sent nor taken for sent: the first one was.
func TestChangedMessageIsNotTakenForSent(t *testing.T) {
	edited := strings.Replace(hello, "\r\n\r\nhello", "\r\n\r\nhello, and good-bye", 1)
	redated := strings.Replace(hello, "18:00", "18:05", 1)
	for _, tc := range []struct {
		name, says, sees, again, answer string
		sent                            int
	}{
		{"sent, and found later", "done-unknown", "no,no,no,no", edited, "554 5.6.0 ", 1},
		{"sent, and found later, the same text", "done-unknown", "no,no,no,no", redated, "250 ", 1},
		{"not sent, and not found", "unknown", "no,no,no,no", edited, "250 ", 1},
		{"nobody may look", "done-unknown", "forbidden,forbidden", edited, "554 5.4.7 ", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bySubmit(t, func(r *rig) { r.graph.says, r.graph.sees = []string{tc.says}, strings.Split(tc.sees, ",") }, func(t *testing.T, r *rig) {
				c := r.submitter(t)
				c.submits(t, hello, "")
				if line, err := c.in.ReadString('\n'); err != nil || line[0] == '2' {
					t.Fatal(line, err)
				}
				time.Sleep(6 * time.Minute)
				c.submits(t, tc.again, "", tc.answer)
				c.Close()
				if got := r.graph.count(); got != tc.sent {
					t.Errorf("sent %d times", got)
				}
			})
		})
	}
}

// A copy that the mail program has filed itself, before it sent, is none that
// shows that the message was sent.
func TestOwnCopyIsNoProof(t *testing.T) {
	for _, tc := range []struct{ name, flags, answer string }{
		{"a copy", `(\Seen) `, "554 5.4.7 "},
		{"no flags", "", "554 5.4.7 "},
		{"a draft", `(\Draft \Seen) `, "250 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bySubmit(t, func(r *rig) { r.graph.says, r.graph.sees = []string{"unknown"}, []string{"yes"} }, func(t *testing.T, r *rig) {
				imap := &imapRelay{s: &session{server: r.server, grant: Grant{Mailbox: "Alice@Contoso.com"}}, up: &upstream{conn: discard{}}}
				imap.sent.ended = imap.commanded
				_, _ = fmt.Fprintf(imap, "a APPEND \"Sent Items\" %s\"24-Nov-2026 18:00:00 +0000\" {%d+}\r\n%s\r\n", tc.flags, len(hello), hello)
				time.Sleep(2 * time.Second)
				c := r.submitter(t)
				c.submits(t, hello, "", tc.answer)
				c.Close()
			})
		})
	}
}

type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A note that cannot be read concerns the message that it is named after, and no
// other, and goes after a day like all.
func TestUnreadableNote(t *testing.T) {
	bySubmit(t, func(r *rig) { r.graph.says = []string{"unknown"}; r.graph.sees = []string{"no", "no", "no", "no"} }, func(t *testing.T, r *rig) {
		c := r.submitter(t)
		c.submits(t, hello, "", "451 4.4.2 ")
		c.Close()
		notes := r.notes(t)
		if len(notes) != 1 {
			t.Fatal(notes)
		}
		if err := os.WriteFile(notes[0], []byte(`{"v":`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(notes[0], time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		r.sends(t, alarm)
		if !strings.Contains(r.log.String(), "may be sent twice") {
			t.Errorf("the log does not tell of it:\n%s", r.log.String())
		}
		time.Sleep(time.Hour)
		c = r.submitter(t)
		c.submits(t, hello, "", "451 4.3.0 the message may have been sent already")
		c.Close()
		time.Sleep(24 * time.Hour)
		r.sends(t, hello)
		if left := r.notes(t); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// What is under way when the gateway is stopped arrives, and its sender is told.
func TestShutdownLetsASubmissionArrive(t *testing.T) {
	t.Run("in DATA", func(t *testing.T) {
		bySubmit(t, nil, func(t *testing.T, r *rig) {
			idle, c := r.submitter(t), r.submitter(t)
			c.says(t, "MAIL FROM:<alice@contoso.com>\r\n", "250 ")
			c.says(t, "RCPT TO:<bob@contoso.com>\r\n", "250 ")
			c.says(t, "DATA\r\n", "354 ")
			c.says(t, hello[:20])
			r.stop()
			idle.hears(t, "421 4.3.2 o365pw: the gateway is shutting down")
			time.Sleep(5 * time.Second)
			c.says(t, hello[20:]+".\r\n", "250 2.0.0 sent by Graph", "421 ")
			if r.graph.count() != 1 {
				t.Error("it was not sent")
			}
		})
	})
	t.Run("in the request", func(t *testing.T) {
		bySubmit(t, func(r *rig) { r.graph.hold, r.graph.arrived = make(chan struct{}), make(chan struct{}, 1) }, func(t *testing.T, r *rig) {
			c := r.submitter(t)
			c.submits(t, hello, "")
			<-r.graph.arrived
			r.stop()
			time.Sleep(5 * time.Second)
			close(r.graph.hold)
			c.hears(t, "250 2.0.0 sent by Graph", "421 ")
		})
	})
}

// A revocation while Graph is asked: the request may end, and where it does not,
// the note stays.
func TestRevokedInASubmission(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		sent  int
		notes int
	}{{"answered soon", time.Second, 1, 1}, {"not answered", time.Minute, 0, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			var revoked atomic.Bool
			bySubmit(t, func(r *rig) {
				r.graph.hold, r.graph.arrived = make(chan struct{}), make(chan struct{}, 1)
				r.backend.allowed = func(Grant) error {
					if revoked.Load() {
						return &Refusal{Reason: Revoked, Err: errors.New("revoked")}
					}
					return nil
				}
			}, func(t *testing.T, r *rig) {
				c := r.submitter(t)
				c.submits(t, hello, "")
				<-r.graph.arrived
				revoked.Store(true)
				r.server.Recheck()
				time.Sleep(tc.after)
				close(r.graph.hold)
				rest, _ := io.ReadAll(c.in)
				if !bytes.HasPrefix(rest, []byte("421 ")) || bytes.Contains(rest, []byte("250")) {
					t.Errorf("heard %q", rest)
				}
				time.Sleep(time.Minute)
				if got, notes := r.graph.count(), r.notes(t); got != tc.sent || len(notes) != tc.notes {
					t.Errorf("sent %d, notes %v", got, notes)
				}
				if n := len(r.server.Sessions()); n != 0 {
					t.Errorf("%d sessions", n)
				}
			})
		})
	}
}

// A message of exactly the size that is announced is sent, by DATA and by BDAT, and
// one of a byte more is not; CHUNKING is not announced.
func TestSubmissionSize(t *testing.T) {
	bySubmit(t, func(r *rig) { r.server.GraphSize = headerRoom + 500 }, func(t *testing.T, r *rig) {
		c := r.submitter(t)
		c.says(t, "EHLO x\r\n")
		var offered []string
		for {
			line, err := c.in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			offered = append(offered, strings.TrimSpace(line[4:]))
			if line[3] == ' ' {
				break
			}
		}
		if got := strings.Join(offered[1:], ","); got != "SIZE 500,PIPELINING,8BITMIME,ENHANCEDSTATUSCODES" {
			t.Errorf("offered %s", got)
		}
		for over := range 2 {
			text := hello + strings.Repeat(".\r\n", 20) // doubled on the wire
			text += strings.Repeat("x", 500+over-len(text)-2) + "\r\n"
			answer := "250 2.0.0 sent by Graph"
			if over > 0 {
				answer = "552 5.3.4 "
			}
			c.submits(t, strings.ReplaceAll(text, "\n.", "\n.."), "", answer)
			c.says(t, "MAIL FROM:<alice@contoso.com>\r\n", "250 ")
			c.says(t, "RCPT TO:<bob@contoso.com>\r\n", "250 ")
			c.says(t, fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text), answer)
		}
		c.Close()
		for _, m := range r.graph.sent {
			if len(m) != 500 {
				t.Errorf("sent %d bytes", len(m))
			}
		}
		if r.graph.count() != 2 {
			t.Errorf("sent %d", r.graph.count())
		}
	})
}

// A request that hangs holds up its own mailbox alone; others of that are asked
// to come again within half a minute.
func TestStuckRequest(t *testing.T) {
	bySubmit(t, func(r *rig) { r.graph.hold, r.graph.arrived = make(chan struct{}), make(chan struct{}, 9) }, func(t *testing.T, r *rig) {
		stuck, waits := r.submitter(t), r.submitter(t)
		began := time.Now()
		stuck.submits(t, hello, "")
		<-r.graph.arrived
		waits.submits(t, alarm, "", "451 4.3.2 this mailbox is sending other messages; try again in 60 seconds")
		if took := time.Since(began); took > queueTime+time.Second {
			t.Errorf("it took %s", took)
		}
		stuck.hears(t, "451 4.4.2 the message may have been sent already")
		if took := time.Since(began); took > submitTime+lookTime+time.Second {
			t.Errorf("it took %s", took)
		}
		close(r.graph.hold)
		waits.submits(t, alarm, "", "250 ")
		stuck.Close()
		waits.Close()
	})
}
