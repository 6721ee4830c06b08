package gateway

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/o365pw/o365pw/pkg/secret"
)

// TestProxyFromEnvironment: the rules are net/http's, except that a value which
// is no address stops what it was meant for.
func TestProxyFromEnvironment(t *testing.T) {
	const exchange = "https://outlook.office365.com:993"
	for name, tc := range map[string]struct {
		env  map[string]string
		url  string
		want string
		fail bool
	}{
		"none":                        {nil, exchange, "", false},
		"upper case":                  {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128"}, exchange, "http://proxy.example:3128", false},
		"lower case":                  {map[string]string{"https_proxy": "http://proxy.example:3128"}, exchange, "http://proxy.example:3128", false},
		"upper case wins":             {map[string]string{"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, exchange, "http://a:1", false},
		"without a scheme":            {map[string]string{"HTTPS_PROXY": "proxy.example:3128"}, exchange, "http://proxy.example:3128", false},
		"user and password":           {map[string]string{"HTTPS_PROXY": "https://me:p%40ss@proxy.example"}, exchange, "https://me:p%40ss@proxy.example", false},
		"socks5":                      {map[string]string{"HTTPS_PROXY": "socks5://proxy.example:1080"}, exchange, "socks5://proxy.example:1080", false},
		"for http only":               {map[string]string{"HTTP_PROXY": "http://proxy.example:3128"}, exchange, "", false},
		"excepted by domain":          {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.org, .office365.com"}, exchange, "", false},
		"excepted by port":            {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "outlook.office365.com:993"}, exchange, "", false},
		"another port":                {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "outlook.office365.com:443"}, exchange, "http://proxy.example:3128", false},
		"excepted by network":         {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3:993", "", false},
		"all are excepted":            {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "*"}, exchange, "", false},
		"localhost":                   {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128"}, "https://localhost:993", "", false},
		"loopback":                    {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128"}, "https://127.0.0.9:993", "", false},
		"IPv6 loopback":               {map[string]string{"HTTPS_PROXY": "http://proxy.example:3128"}, "https://[::1]:993", "", false},
		"no address":                  {map[string]string{"HTTPS_PROXY": "http://me:hunter%2@proxy.example"}, exchange, "", true},
		"a password with a blank":     {map[string]string{"HTTPS_PROXY": "http://me:hun ter2@proxy.example"}, exchange, "", true},
		"no address, and not wanted":  {map[string]string{"HTTPS_PROXY": "http://me:hunter%2@proxy.example", "NO_PROXY": "*"}, exchange, "", false},
		"no address, for the machine": {map[string]string{"HTTPS_PROXY": "http://me:hunter%2@proxy.example"}, "https://localhost:993", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			via, err := ProxyFromEnvironment(func(key string) string { return tc.env[key] })(u)
			if (err != nil) != tc.fail || err != nil && strings.Contains(err.Error(), "hun") {
				t.Errorf("error %v", err)
			}
			got := ""
			if via != nil {
				got = via.String()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestProxyAnswers: what proxies say to CONNECT, and what becomes of it.
func TestProxyAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 Connection established\r\n"
	via := "http://me:hunter2@proxy.example:3128"
	for name, tc := range map[string]struct {
		via    string
		answer string // the proxy's; it closes the connection where the tunnel is not open
		stall  bool   // it stays silent rather than closing
		open   bool
		fault  Fault
		reply  string
		text   string // in the error
		fix    string
	}{
		"open":                         {answer: ok + "\r\n", open: true},
		"open, HTTP/1.0":               {answer: "HTTP/1.0 200 OK\r\n\r\n", open: true},
		"open, 204":                    {answer: "HTTP/1.1 204 No Content\r\n\r\n", open: true},
		"open, bare LF":                {answer: "HTTP/1.1 200 OK\n\n", open: true},
		"more fields":                  {answer: ok + "Via: 1.1 proxy\r\nProxy-Agent: x\r\nX-Empty:\r\n\r\n", open: true},
		"fields about a body":          {answer: ok + "Content-Length: 5\r\n\r\n", open: true}, // RFC 9110 section 9.3.6: ignored
		"in chunks, it says":           {answer: ok + "Transfer-Encoding: chunked\r\n\r\n", open: true},
		"interim answers":              {answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "\r\n", open: true},
		"endless interim answers":      {answer: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), fault: FaultUnexpected, text: "interim"},
		"forbidden":                    {answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot here.", fault: FaultRefused, reply: "HTTP/1.1 403 Forbidden", fix: "allows CONNECT"},
		"method not allowed":           {answer: "HTTP/1.1 405 Method Not Allowed\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 405 Method", fix: "NO_PROXY"},
		"wants a sign-in":              {via: "http://proxy.example:3128", answer: "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 407 Proxy Authentication Required", fix: "HTTPS_PROXY=http://USER:PASSWORD@proxy.example:3128"},
		"wrong password":               {answer: "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: basic realm=\"x\"\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 407", fix: "does not accept the user name and password"},
		"wants what is not spoken":     {answer: "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 407", fix: "Negotiate, NTLM"},
		"cannot connect":               {answer: "HTTP/1.1 502 Bad Gateway\r\n\r\n", fault: FaultUnreachable, reply: "HTTP/1.1 502 Bad Gateway", fix: "HTTPS_PROXY"},
		"a redirection":                {answer: "HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 302 Found", fix: "HTTPS_PROXY"},
		"switches protocols":           {answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 101", fix: "HTTPS_PROXY"},
		"hostile status":               {answer: "HTTP/1.1 403 \x1b[31m" + strings.Repeat("x", 5000) + "\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 403 ?[", fix: "allows CONNECT"},
		"the credentials in its words": {answer: "HTTP/1.1 403 " + base64.StdEncoding.EncodeToString([]byte("a long user name:and a long password")) + "\r\n\r\n", fault: FaultRefused, reply: "HTTP/1.1 403 …", fix: "allows CONNECT"},
		"garbage":                      {answer: "* OK [\x1b[1m IMAP4rev1\r\n", fault: FaultUnexpected, text: "not an answer of an HTTP proxy"},
		"TLS alert":                    {answer: "\x15\x03\x01\x00\x02\x02\x16\r\n\r\n", fault: FaultUnexpected, text: "not an answer of an HTTP proxy"},
		"HTTP/2":                       {answer: "HTTP/2.0 200 OK\r\n\r\n", fault: FaultUnexpected, reply: "HTTP/2.0", text: "not an answer of an HTTP/1 proxy"},
		"no field":                     {answer: ok + "no colon here\r\n\r\n", fault: FaultUnexpected, text: "not an answer of an HTTP proxy"},
		"half an answer":               {answer: ok + "Via: x", fault: FaultUnreachable, text: "it closed the connection"},
		"nothing":                      {fault: FaultUnreachable, text: "it closed the connection"},
		"silence":                      {stall: true, fault: FaultUnreachable, text: "no answer within 20s"},
		"silence half-way":             {stall: true, answer: ok, fault: FaultUnreachable, text: "no answer within 20s"},
		"1 MiB of fields":              {answer: ok + strings.Repeat("X-Field: "+strings.Repeat("x", 1000)+"\r\n", 1024) + "\r\n", fault: FaultUnexpected, text: "an answer of more than 65536 bytes"},
		"1 MiB in one line":            {answer: strings.Repeat("HTTP/1.1 ", 1<<17), fault: FaultUnexpected, text: "an answer of more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				at, err := url.Parse(cmp.Or(tc.via, via))
				if err != nil {
					t.Fatal(err)
				}
				var dialled string
				req := ProbeRequest{
					Protocol: SMTP, Upstream: Upstream{Address: "smtp.office365.com:587", StartTLS: true, TLS: r.trust}, Mailbox: goodUser, Token: secret.New(goodToken),
					Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
						dialled = address
						return r.server.Dial(ctx, network, address)
					},
					Proxy: func(u *url.URL) (*url.URL, error) {
						if u.String() != "https://smtp.office365.com:587" {
							t.Errorf("the proxy for %s", u)
						}
						return at, nil
					},
				}
				var passed []Step
				done := make(chan error, 1)
				began := time.Now()
				go func() {
					var err error
					passed, err = Probe(t.Context(), req)
					done <- err
				}()
				conn, err := r.acceptUpstream()
				if err != nil {
					t.Fatal(err)
				}
				in := bufio.NewReader(conn)
				connect, err := http.ReadRequest(in)
				if err != nil || connect.Method != http.MethodConnect || connect.RequestURI != "smtp.office365.com:587" || connect.Host != connect.RequestURI {
					t.Fatalf("%+v (%v)", connect, err)
				}
				want := ""
				if at.User != nil {
					want = "Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunter2"))
				}
				if got := connect.Header.Get("Proxy-Authorization"); got != want || dialled != "proxy.example:3128" {
					t.Errorf("authorization %q at %s", got, dialled)
				}
				switch {
				case tc.open:
					// The server's greeting comes in the same breath.
					_, _ = io.WriteString(conn, tc.answer+"220 ready\r\n")
					r.play(conn, "C: EHLO", "S: 502 no")
				case tc.stall:
					_, _ = io.WriteString(conn, tc.answer)
					_, _ = io.Copy(io.Discard, in)
					_ = conn.Close()
				default:
					_, _ = io.WriteString(conn, tc.answer)
					_ = conn.Close()
				}
				err = <-done
				e, ok := errors.AsType[*ServerError](err)
				if !ok {
					t.Fatalf("no ServerError: %v", err)
				}
				if strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\r\n\x1b") {
					t.Errorf("text: %q", err)
				}
				if tc.open {
					if e.Step != StepGreeting || e.Reply != "502 no" || !slices.Equal(passed, []Step{StepProxy}) {
						t.Errorf("passed %v: %v", passed, err)
					}
					return
				}
				if e.Step != StepProxy || e.Fault != tc.fault || !strings.HasPrefix(e.Reply, tc.reply) || !strings.Contains(e.Fix, tc.fix) || e.Proxy != "http://proxy.example:3128" || passed != nil {
					t.Errorf("passed %v: %+v", passed, e)
				}
				if !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), "through the proxy http://proxy.example:3128") || !strings.Contains(err.Error(), "PROXY") {
					t.Errorf("text: %s", err)
				}
				if refusalOf(err).Reason != Unavailable {
					t.Errorf("reason %s", refusalOf(err).Reason)
				}
				if took := time.Since(began); tc.stall != (took == proxyTimeout) {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestProxySetting: settings that lead to no proxy at all.
func TestProxySetting(t *testing.T) {
	for name, tc := range map[string]struct{ value, text string }{
		"no address":     {"http://me:hunter%2@proxy.example", "HTTPS_PROXY: its value is no address"},
		"unknown scheme": {"ftp://me:hunter2@proxy.example", "ftp://proxy.example: proxies of the scheme \"ftp\""},
		"nobody there":   {"http://me:hunter2@127.0.0.1:1", "http://127.0.0.1:1: "},
		"no SOCKS there": {"socks5://me:hunter2@127.0.0.1:1", "socks5://127.0.0.1:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			passed, err := Probe(t.Context(), ProbeRequest{Protocol: IMAP, Upstream: Upstream{Address: "outlook.office365.com:993"}, Mailbox: goodUser, Token: secret.New(goodToken),
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") },
				Proxy: ProxyFromEnvironment(func(key string) string {
					return map[string]string{"HTTPS_PROXY": tc.value}[key]
				})})
			e, ok := errors.AsType[*ServerError](err)
			if !ok || e.Step != StepProxy || e.Fault != FaultUnreachable || passed != nil {
				t.Fatalf("passed %v: %+v", passed, err)
			}
			if !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "HTTPS_PROXY") {
				t.Error(err)
			}
		})
	}
}

// connectProxy is net/http's server as a proxy.
func connectProxy(t *testing.T, tunnels *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("the proxy was asked for %s", r.Method)
			return
		}
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if user != "me" || password != "p@ss" {
			w.Header().Set("Proxy-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		tunnels.Add(1)
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		pass(here, there)
	})
}

// pass copies both ways until both sides have ended.
func pass(a, b net.Conn) {
	done := make(chan bool)
	go func() {
		_, _ = io.Copy(a, b)
		_ = a.(interface{ CloseWrite() error }).CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(b, a)
	_ = b.(interface{ CloseWrite() error }).CloseWrite()
	<-done
}

// socksProxy answers one connection (RFC 1928, RFC 1929).
func socksProxy(t *testing.T, conn net.Conn, tunnels *atomic.Int64) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(in, b)
		return b
	}
	read(int(read(2)[1]))
	_, _ = conn.Write([]byte{5, 2})
	user := read(int(read(2)[1]))
	password := read(int(read(1)[0]))
	if string(user) != "me" || string(password) != "p@ss" {
		_, _ = conn.Write([]byte{1, 1})
		return
	}
	_, _ = conn.Write([]byte{1, 0})
	head := read(4)
	if head[1] != 1 || head[3] != 1 {
		t.Errorf("request %v", head)
		return
	}
	ip, port := read(4), read(2)
	there, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: ip, Port: int(port[0])<<8 | int(port[1])})
	if err != nil {
		_, _ = conn.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer there.Close()
	tunnels.Add(1)
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	pass(conn, there)
}

// TestThroughProxy reads and stores mail with an independent client and server,
// and net/http's own server as the proxy in between.
func TestThroughProxy(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		for _, upstreamTLS := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, upstream TLS %t", scheme, upstreamTLS), func(t *testing.T) {
				var tunnels atomic.Int64
				r := newTCPRig(t, upstreamTLS, func(r *rig) {
					ln := listen(t)
					via := &url.URL{Scheme: scheme, Host: ln.Addr().String(), User: url.UserPassword("me", "p@ss")}
					r.server.Proxy = func(*url.URL) (*url.URL, error) { return via, nil }
					if scheme == "socks5" {
						t.Cleanup(func() { _ = ln.Close() })
						go func() {
							for {
								conn, err := ln.Accept()
								if err != nil {
									return
								}
								go socksProxy(t, conn, &tunnels)
							}
						}()
						return
					}
					srv := &http.Server{Handler: connectProxy(t, &tunnels), TLSConfig: r.tls.Clone(), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
					t.Cleanup(func() { _ = srv.Close() })
					if scheme == "https" {
						go func() { _ = srv.ServeTLS(ln, "", "") }()
					} else {
						go func() { _ = srv.Serve(ln) }()
					}
				})
				defer r.close()
				c, err := imapclient.DialTLS(r.address, &imapclient.Options{TLSConfig: r.trust})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.Login(goodUser, goodPassword).Wait(); err != nil {
					t.Fatal(err)
				}
				mailSurvives(t, c)
				if n := tunnels.Load(); n != 1 {
					t.Errorf("%d tunnels", n)
				}
			})
		}
	}
}

// TestCloseThroughTLSProxy: a proxy that does not read holds up the end of a
// session no longer than anybody else.
func TestCloseThroughTLSProxy(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		near, far := net.Pipe() // a write waits for its reader
		defer far.Close()
		shaken := make(chan bool)
		go func() {
			conn := tls.Server(tls.Server(far, r.tls), r.tls)
			if err := conn.Handshake(); err != nil {
				t.Error(err)
			}
			close(shaken)
		}()
		trust := r.trust.Clone()
		trust.MaxVersion = tls.VersionTLS12 // whose handshake leaves nothing unread
		outer := tls.Client(newRawConn(near), trust)
		if err := outer.Handshake(); err != nil {
			t.Fatal(err)
		}
		raw := newRawConn(outer)
		inner := tls.Client(raw, trust)
		if err := inner.Handshake(); err != nil {
			t.Fatal(err)
		}
		<-shaken
		u := &upstream{raw: raw, conn: inner}
		began := time.Now()
		u.close()
		if took := time.Since(began); took > farewellTime {
			t.Errorf("it took %s", took)
		}
	})
}

// FuzzProxyAnswer has a proxy say arbitrary bytes: what follows its answer is
// never lost, and errors are fit for a log.
func FuzzProxyAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n220 ready\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n* OK",
		"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"\x1b\"\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\nabc", "HTTP/1.1 200 OK\n\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1  200\r\n\r\n", "", "\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n", "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	via := &url.URL{Scheme: "http", Host: "proxy.example:3128"}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := bytes.NewReader(input)
		first, err := proxyAnswer(r)
		if err != nil {
			text := (&upstream{address: "a:1", proxy: "p", step: StepProxy}).failed("proxy", err).Error() + fixForProxy(err, via)
			if len(first) > 0 || len(text) > 1500 || strings.ContainsAny(text, "\r\n\x00\x1b") {
				t.Errorf("%q after an error: %q", first, text)
			}
			return
		}
		rest, _ := io.ReadAll(r)
		behind := append(first, rest...)
		head, found := bytes.CutSuffix(input, behind)
		if !found || len(head) > proxyMaxHead || !bytes.HasPrefix(head, []byte("HTTP/1.")) || !bytes.HasSuffix(head, []byte("\n\r\n")) && !bytes.HasSuffix(head, []byte("\n\n")) {
			t.Errorf("head %q, behind it %q", head, behind)
		}
	})
}
