package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// benchRig has a gateway on loopback before an upstream that, once signed in
// to, hands its connection to serve.
func benchRig(b *testing.B, serve func(io.ReadWriter)) *rig {
	b.Helper()
	up := listen(b)
	r := newRig(b, func(r *rig) {
		r.server.Dial = nil
		r.server.Log = slog.New(slog.DiscardHandler)
		r.backend.grant.Upstream.Address = up.Addr().String()
	}, listen(b))
	go func() {
		for {
			raw, err := up.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				conn := tls.Server(raw, r.tls)
				in := bufio.NewReader(conn)
				say := func(text string) { _, _ = io.WriteString(conn, text) }
				say("* OK ready\r\n")
				for line := range lines(in) {
					switch {
					case strings.HasPrefix(line, "g1 "):
						say("g1 OK done\r\n")
					case strings.HasPrefix(line, "g3 "):
						say("* CAPABILITY IMAP4rev1 IDLE\r\ng2 OK done\r\ng3 OK done\r\n")
						serve(struct {
							io.Reader
							io.Writer
						}{in, conn})
						return
					}
				}
			}()
		}
	}()
	b.Cleanup(func() {
		r.close()
		_ = up.Close()
	})
	return r
}

func lines(in *bufio.Reader) func(func(string) bool) {
	return func(yield func(string) bool) {
		for {
			line, err := in.ReadString('\n')
			if err != nil || !yield(line) {
				return
			}
		}
	}
}

// enter signs a client in over implicit TLS.
func (r *rig) enter(b *testing.B) (net.Conn, *bufio.Reader) {
	conn, err := tls.Dial("tcp", r.ln.Addr().String(), r.trust)
	if err != nil {
		b.Fatal(err)
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	_, _ = io.WriteString(conn, "a LOGIN "+goodUser+" "+goodPassword+"\r\n")
	expectLine(b, in, "* OK")
	expectLine(b, in, "a OK")
	return conn, in
}

// BenchmarkSignIn is TCP, TLS on both sides, LOGIN, XOAUTH2 and the probe, one
// client after the other; the token is there.
func BenchmarkSignIn(b *testing.B) {
	r := benchRig(b, func(rw io.ReadWriter) { _, _ = io.Copy(io.Discard, rw) })
	for b.Loop() {
		conn, _ := r.enter(b)
		_ = conn.Close()
	}
}

// BenchmarkDownload is one session that reads literals of 1 MiB.
func BenchmarkDownload(b *testing.B) {
	const size = 1 << 20
	literal := append([]byte("* 1 FETCH (BODY[] {1048576}\r\n"), bytes.Repeat([]byte("0123456789abcde\n"), size/16)...)
	literal = append(literal, ")\r\nb OK done\r\n"...)
	r := benchRig(b, func(rw io.ReadWriter) {
		for range lines(bufio.NewReader(rw)) {
			_, _ = rw.Write(literal)
		}
	})
	conn, in := r.enter(b)
	defer conn.Close()
	b.SetBytes(size)
	for b.Loop() {
		_, _ = io.WriteString(conn, "b FETCH 1 BODY[]\r\n")
		if _, err := io.CopyN(io.Discard, in, int64(len(literal))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is one NOOP in an open session.
func BenchmarkRoundTrip(b *testing.B) {
	r := benchRig(b, func(rw io.ReadWriter) {
		for range lines(bufio.NewReader(rw)) {
			_, _ = io.WriteString(rw, "n OK done\r\n")
		}
	})
	conn, in := r.enter(b)
	defer conn.Close()
	for b.Loop() {
		_, _ = io.WriteString(conn, "n NOOP\r\n")
		expectLine(b, in, "n OK")
	}
}

// BenchmarkPosition follows short lines, the dearest case.
func BenchmarkPosition(b *testing.B) {
	text := bytes.Repeat([]byte("* 12345 FETCH (FLAGS (\\Seen) UID 12345)\r\n"), 800)
	b.SetBytes(int64(len(text)))
	var p position
	for b.Loop() {
		p.advance(text)
	}
}
