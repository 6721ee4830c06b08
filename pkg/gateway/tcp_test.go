package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"

	"github.com/o365pw/o365pw/pkg/secret"
	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// xoauth2Session is a mailbox that only XOAUTH2 opens.
type xoauth2Session struct {
	imapserver.SessionIMAP4rev2
}

func (s *xoauth2Session) AuthenticateMechanisms() []string { return []string{xoauth2.Mechanism} }

func (s *xoauth2Session) Authenticate(string) (sasl.Server, error) {
	return xoauth2.NewServer(func(user string, token secret.Text) error {
		if token.Reveal() != goodToken {
			return imapserver.ErrAuthFailed
		}
		return s.Login(user, "known to nobody")
	}), nil
}

// tcpRig puts the gateway on loopback sockets, with go-imap's server upstream.
type tcpRig struct {
	*rig
	address string
}

func newTCPRig(t testing.TB, upstreamTLS bool, change func(*rig)) *tcpRig {
	t.Helper()
	mem := imapmemserver.New()
	user := imapmemserver.NewUser(goodUser, "known to nobody")
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	mem.AddUser(user)
	ln := listen(t)
	up := &tcpRig{address: ln.Addr().String()}
	up.rig = newRig(t, func(r *rig) {
		options := &imapserver.Options{
			NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
				return &xoauth2Session{mem.NewSession().(imapserver.SessionIMAP4rev2)}, nil, nil
			},
			Caps: imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}}, TLSConfig: r.tls,
		}
		upLn := listen(t)
		server := imapserver.New(options)
		serveOn := upLn
		if upstreamTLS {
			serveOn = tls.NewListener(upLn, r.tls)
		}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(serveOn) }()
		t.Cleanup(func() { _ = server.Close(); <-served })
		r.backend.grant.Upstream.Address = upLn.Addr().String()
		r.backend.grant.Upstream.StartTLS = !upstreamTLS
		r.server.Dial = nil
		if change != nil {
			change(r)
		}
	}, ln)
	return up
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// TestGoIMAPClient signs in with an independent client in every way, and has
// the mail pass unchanged.
func TestGoIMAPClient(t *testing.T) {
	for _, upstreamTLS := range []bool{true, false} {
		r := newTCPRig(t, upstreamTLS, func(r *rig) { r.server.GreetAfter = 50 * time.Millisecond })
		options := &imapclient.Options{TLSConfig: r.trust}
		for name, dial := range map[string]func() (*imapclient.Client, error){
			"clear":    func() (*imapclient.Client, error) { return imapclient.DialInsecure(r.address, options) },
			"starttls": func() (*imapclient.Client, error) { return imapclient.DialStartTLS(r.address, options) },
			"tls":      func() (*imapclient.Client, error) { return imapclient.DialTLS(r.address, options) },
		} {
			for how, signIn := range map[string]func(*imapclient.Client, string) error{
				"LOGIN": func(c *imapclient.Client, p string) error { return c.Login(goodUser, p).Wait() },
				"PLAIN": func(c *imapclient.Client, p string) error {
					return c.Authenticate(sasl.NewPlainClient("", goodUser, p))
				},
				"AUTHENTICATE LOGIN": func(c *imapclient.Client, p string) error {
					return c.Authenticate(sasl.NewLoginClient(goodUser, p))
				},
			} {
				t.Run(fmt.Sprintf("%s, %s, upstream TLS %t", name, how, upstreamTLS), func(t *testing.T) {
					c, err := dial()
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if err := signIn(c, "wrong"); err == nil || !strings.Contains(err.Error(), "not accepted") {
						t.Errorf("wrong password: %v", err)
					}
					if err := signIn(c, "abcd-efgh ijkl mnop"); err != nil {
						t.Fatal(err)
					}
					mailSurvives(t, c)
				})
			}
		}
		r.close()
	}
}

// mailSurvives appends a message with every byte in it and reads it back.
func mailSurvives(t *testing.T, c *imapclient.Client) {
	t.Helper()
	message := []byte("Subject: x\r\n\r\n")
	for i := range 1 << 20 {
		message = append(message, byte(i%255+1))
	}
	appending := c.Append("INBOX", int64(len(message)), nil)
	if _, err := appending.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := appending.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := appending.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	section := &imap.FetchItemBodySection{}
	got, err := c.Fetch(imap.UIDSetNum(data.UID), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil || len(got) != 1 {
		t.Fatalf("fetch: %d messages, %v", len(got), err)
	}
	if !bytes.Equal(got[0].FindBodySection(section), message) {
		t.Error("the message came back changed")
	}
	if err := c.Logout().Wait(); err != nil {
		t.Error(err)
	}
}

// TestClientThatDoesNotRead: it holds up neither its own end nor anybody's.
func TestClientThatDoesNotRead(t *testing.T) {
	for _, implicit := range []bool{true, false} {
		var revoked atomic.Bool
		up := listen(t)
		r := newRig(t, func(r *rig) {
			r.server.Dial = nil
			r.server.GreetAfter = 10 * time.Millisecond
			r.backend.grant.Upstream.Address = up.Addr().String()
			r.backend.allowed = func(Grant) error {
				if revoked.Load() {
					return &Refusal{Reason: Revoked}
				}
				return nil
			}
		}, listen(t))
		flooded := make(chan error, 1)
		go func() {
			conn, err := up.Accept()
			if err != nil {
				flooded <- err
				return
			}
			defer conn.Close()
			u := tls.Server(conn, r.tls)
			for _, line := range []string{"* OK ready\r\n", "g1 OK\r\n", "g2 OK x\r\ng3 OK x\r\n"} {
				_, _ = io.WriteString(u, line)
			}
			for err == nil {
				_, err = u.Write(bytes.Repeat([]byte("* 1 EXISTS\r\n"), 10000))
			}
			flooded <- nil
		}()
		conn, err := net.Dial("tcp", r.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := conn
		if implicit {
			client = tls.Client(conn, r.trust)
		}
		_, _ = io.WriteString(client, "a LOGIN "+goodUser+" "+goodPassword+"\r\n")
		in := bufio.NewReader(client)
		expectLine(t, in, "* OK")
		expectLine(t, in, "a OK")
		// Nothing is read from here on, until everything on the way is full.
		for last := int64(-1); ; {
			list := r.server.Sessions()
			if len(list) != 1 {
				t.Fatalf("sessions: %+v", list)
			}
			if list[0].BytesDown == last && last > 0 {
				break
			}
			last = list[0].BytesDown
			time.Sleep(100 * time.Millisecond)
		}
		revoked.Store(true)
		r.server.Recheck()
		if list := r.server.Sessions(); len(list) != 0 {
			t.Errorf("the session is still there: %+v", list)
		}
		if err := <-flooded; err != nil {
			t.Error(err)
		}
		_ = conn.Close()
		_ = up.Close()
		r.close()
	}
}

// TestNoGoroutineLeft signs in and out often and counts.
func TestNoGoroutineLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newTCPRig(t, true, nil)
	for range 20 {
		c, err := imapclient.DialTLS(r.address, &imapclient.Options{TLSConfig: r.trust})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Login(goodUser, goodPassword).Wait(); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	r.close()
	// go-imap's own goroutines end a moment after their connections.
	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for runtime.NumGoroutine() > before+2 && deadline.Err() == nil { // the upstream's listener, and its last
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, n, buf[:runtime.Stack(buf, true)])
	}
}
