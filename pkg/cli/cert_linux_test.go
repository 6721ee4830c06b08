package cli_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/localca"
)

// authorities are the certificates in ca.pem.
func (m *machine) authorities() []*x509.Certificate {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "state", "ca.pem"))
	if err != nil {
		m.t.Fatal(err)
	}
	certs, err := localca.ParseCertificates(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return certs
}

// trusts makes a connection as a client does that trusts root alone.
func trusts(addr string, root *x509.Certificate, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "localhost", Time: func() time.Time { return at }})
	if err == nil {
		err = conn.Close()
	}
	return err
}

// alive holds an open session to an answer.
func alive(t *testing.T, session io.ReadWriter) {
	t.Helper()
	fmt.Fprint(session, "y NOOP\r\n")
	b := make([]byte, 200)
	if n, err := session.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "y OK") {
		t.Errorf("the open session: %q, %v", b[:n], err)
	}
}

// TestKillCertRenew kills renewals at moments of their whole run. Whatever is
// killed, the authority in force is the old one or the one that was to take over,
// with its key; and the next run leaves no key that nobody needs.
func TestKillCertRenew(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("cert", "export")
	start := time.Now()
	m.run("cert", "renew", "--now", "--yes")
	took := time.Since(start)
	const kills = 14
	killed := 0
	for i := range kills {
		before := m.authorities()
		args := []string{"cert", "renew"}
		if i%2 == 0 {
			args = append(args, "--now", "--yes")
		}
		p := m.start(args...)
		time.AfterFunc(took*time.Duration(i+2)/(kills+2), func() { p.signal(os.Kill) })
		if p.run() != nil {
			killed++
		}
		after := m.authorities()
		if len(before) > 1 && !slices.ContainsFunc(before, after[0].Equal) {
			t.Fatalf("killed after %d of %d of the run: an authority is in force that nobody knew", i+2, kills+2)
		}
		m.run("cert", "renew") // is refused where the key of the one in force is gone
		ready := m.authorities()
		if len(ready) != 2 || !ready[0].Equal(after[0]) {
			t.Fatalf("killed after %d of %d of the run: %d authorities afterwards", i+2, kills+2, len(ready))
		}
		if items := m.keychainItems(); !slices.Equal(items, []string{"local-ca-key", "local-ca-key-next"}) {
			t.Fatalf("killed after %d of %d of the run: the keychain has %v", i+2, kills+2, items)
		}
		if i%4 == 3 {
			m.run("cert", "renew", "--now", "--yes")
			if items := m.keychainItems(); !slices.Equal(items, []string{"local-ca-key"}) || len(m.authorities()) != 1 {
				t.Fatalf("after a takeover the keychain has %v", items)
			}
		}
	}
	if killed < kills/4 {
		t.Errorf("only %d of %d were killed", killed, kills)
	}
	_, l, addr := m.serve("")
	if err := trusts(addr, m.authorities()[0], time.Now()); err != nil {
		t.Error(err)
	}
	if strings.Contains(l.String(), "a new authority is made") {
		t.Error(l.String())
	}
}

// TestCertRenewWhileServing: a running gateway takes up the new authority when
// that takes over, and not before; sessions go on.
func TestCertRenewWhileServing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	_, l, addr := m.serve("")
	session, answer := signIn(t, addr, password)
	if !strings.HasPrefix(answer, "x OK") {
		t.Fatal(answer)
	}
	old := m.authorities()[0]
	m.run("cert", "renew")
	next := m.authorities()[1]
	if err := trusts(addr, old, time.Now()); err != nil {
		t.Errorf("before the takeover: %v", err)
	}
	m.run("cert", "renew", "--now", "--yes")
	l.await(t, `certificate has changed, and is in use`)
	if err := trusts(addr, next, time.Now()); err != nil {
		t.Errorf("after the takeover: %v", err)
	}
	if err := trusts(addr, old, time.Now()); err == nil {
		t.Error("the old authority still signs")
	}
	alive(t, session)
	wants(t, m.run("cert", "show"), `Shown by   imap on `+regexp.QuoteMeta(addr), `Names      localhost, 127.0.0.1, ::1`)
}

// TestAuthorityEnds sets the clock to where the authority is near its end: it gets
// a successor, which everybody is told of, and which takes over by itself.
func TestAuthorityEnds(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	told := filepath.Join(m.dir, "told")
	m.run("cert", "export")
	old := m.authorities()[0]
	metrics := "127.0.0.1:0"
	m.configure("\n[gateway]\nimap = \"127.0.0.1:0\"\npop3 = \"\"\nsmtp = \"\"\nmetrics = \"" + metrics + "\"\n[hooks]\non_expiring = \"cat >> " + told + "\"\n")
	var ahead atomic.Int64
	ahead.Store(int64(localca.CALifetime - 60*24*time.Hour))
	l, _ := m.serveAhead(&ahead)
	addr := l.await(t, `imap on (127\.0\.0\.1:\d+)`)[1]
	l.await(t, `the local authority ends on \d{4}-\d\d-\d\d, and a new one has been made`)
	l.await(t, `"hook":"on_expiring"`)
	b, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(b), `"event":"certificate-expiring"`, `"daysLeft":60`, `o365pw cert install`)
	certs := m.authorities()
	if len(certs) != 2 || !certs[0].Equal(old) {
		t.Fatalf("%d authorities", len(certs))
	}
	now := time.Now().Add(time.Duration(ahead.Load()))
	if err := trusts(addr, old, now); err != nil {
		t.Error(err)
	}
	_, out := m.inProcess(t.Context(), time.Duration(ahead.Load()), nil, "status")
	wants(t, out, `the gateway's authority ends on .* and a new one takes over a day before: o365pw cert install; o365pw cert export`)
	_, out = m.inProcess(t.Context(), time.Duration(ahead.Load()), nil, "doctor")
	wants(t, out, `the gateway's authority ends on .* a new one takes over`, `o365pw cert install`)
	resp, err := http.Get("http://" + l.await(t, `metrics on (127\.0\.0\.1:\d+)`)[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(page), `^o365pw_certificate_expires_days\{certificate="authority"\} (59\.9|60)`, `^o365pw_certificate_expires_days\{certificate="server"\} (59\.9|60)`)

	ahead.Store(int64(localca.CALifetime - 12*time.Hour))
	l.await(t, `the new local authority has taken over`)
	l.await(t, `certificate has changed, and is in use`)
	now = time.Now().Add(time.Duration(ahead.Load()))
	if err := trusts(addr, certs[1], now); err != nil {
		t.Error(err)
	}
}

// TestOwnCertificateRenewed replaces a certificate of one's own as certbot and
// people do, while a session is open.
func TestOwnCertificateRenewed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	for _, name := range []string{"first", "second", "third"} {
		if err := os.MkdirAll(filepath.Join(m.dir, "archive", name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeCertificate(t, filepath.Join(m.dir, "archive", name), name)
	}
	link := filepath.Join(m.dir, "live")
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(filepath.Join("archive", to), link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	point("first")
	_, l, addr := m.serve("tls_cert = \"live/cert.pem\"\ntls_key = \"live/key.pem\"\n")
	session, answer := signIn(t, addr, password)
	if !strings.HasPrefix(answer, "x OK") {
		t.Fatal(answer)
	}
	shows := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	inUse := func(n int) {
		t.Helper()
		for range 400 {
			if strings.Count(l.String(), "certificate has changed, and is in use") >= n {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		t.Fatalf("not in use:\n%s", l)
	}
	point("second")
	inUse(1)
	if got := shows(); got != "second" {
		t.Errorf("after the link was turned: %s", got)
	}
	// The certificate comes before its key: nothing changes until both are there.
	copyFile := func(name string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(m.dir, "archive", "third", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(m.dir, "archive", "second", name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyFile("cert.pem")
	l.await(t, `changed and cannot be used; the former one stays in use.*private key does not match`)
	if got := shows(); got != "second" {
		t.Errorf("with half of a new pair: %s", got)
	}
	copyFile("key.pem")
	inUse(2)
	if got := shows(); got != "third" {
		t.Errorf("with the whole pair: %s", got)
	}
	// Gone for a while, and back as it was.
	if err := os.Rename(link, link+".away"); err != nil {
		t.Fatal(err)
	}
	l.await(t, `cannot be used; the former one stays in use.*no such file`)
	if got := shows(); got != "third" {
		t.Errorf("without files: %s", got)
	}
	if err := os.Rename(link+".away", link); err != nil {
		t.Fatal(err)
	}
	point("first")
	inUse(3)
	if n := strings.Count(l.String(), "cannot be used"); n != 2 {
		t.Errorf("two faults were logged %d times:\n%s", n, l)
	}
	alive(t, session)
	wants(t, m.run("cert", "show"), `Subject    CN=first`, `File       .*/live/cert.pem`, `Shown by   imap on`)
	cmd, out := m.command("cert", "export")
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "certificate of your own") || strings.Contains(out.String(), "BEGIN") {
		t.Errorf("export: %v\n%s", err, out)
	}
}

// TestLegacyTLS: a device that knows TLS 1.0 and RSA alone signs in where that is
// taken, and nowhere else.
func TestLegacyTLS(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x", "--allow", "imap"))
	_, l, addr := m.serve("[gateway.legacy]\nimap = \"127.0.0.1:0\"\n")
	legacy := l.await(t, `o365pw: imap with old TLS on (127\.0\.0\.1:\d+): only for devices`)[1]
	l.await(t, `"level":"WARN","msg":"old TLS`)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		for _, suite := range []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA} {
			old := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: []uint16{suite}}
			name := tls.VersionName(version) + " " + tls.CipherSuiteName(suite)
			conn, err := tls.Dial("tcp", legacy, old)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			fmt.Fprintf(conn, "x LOGIN alice@contoso.com %s\r\n", password)
			var seen []byte
			b := make([]byte, 4096)
			for !bytes.Contains(seen, []byte("\r\nx ")) {
				n, err := conn.Read(b)
				if err != nil {
					t.Fatalf("%s: %v after %q", name, err, seen)
				}
				seen = append(seen, b[:n]...)
			}
			if !bytes.Contains(seen, []byte("\r\nx OK")) {
				t.Errorf("%s: %q", name, seen)
			}
			if out := m.run("sessions", "-o", "csv"); !strings.Contains(out, ","+tls.VersionName(version)+"\n") {
				t.Errorf("%s: %s", name, out)
			}
			l.await(t, `"msg":"signed in".*"tls_version":"`+tls.VersionName(version)+`"`)
			root := x509.NewCertPool()
			root.AddCert(m.authorities()[0])
			leaf := conn.ConnectionState().PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "127.0.0.1", Roots: root}); err != nil || leaf.PublicKeyAlgorithm != x509.RSA {
				t.Errorf("%s: a certificate with %s, %v", name, leaf.PublicKeyAlgorithm, err)
			}
			conn.Close()
			if conn, err := tls.Dial("tcp", addr, old); err == nil {
				t.Errorf("%s: taken on the other address", name)
				conn.Close()
			}
		}
	}
	// A client that knows better gets it there, too.
	conn, err := tls.Dial("tcp", legacy, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if st := conn.ConnectionState(); st.Version != tls.VersionTLS13 || st.PeerCertificates[0].PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("%s with %s", tls.VersionName(st.Version), st.PeerCertificates[0].PublicKeyAlgorithm)
	}
	conn.Close()
	if conn, err := tls.Dial("tcp", legacy, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}}); err == nil {
		t.Error("RC4 is spoken")
		conn.Close()
	}
	_, out := m.inProcess(t.Context(), 0, nil, "status")
	wants(t, out, `old TLS: imap on `+regexp.QuoteMeta(legacy))
	_, out = m.inProcess(t.Context(), 0, nil, "doctor")
	wants(t, out, `old TLS \(1.0 and 1.1\) is spoken: imap on `+regexp.QuoteMeta(legacy))
}

// TestMissingIntermediate: doctor tells that a certificate of one's own lacks what
// stands between it and an authority that mail programs know.
func TestMissingIntermediate(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	now := time.Now()
	caPEM, keyPEM, err := localca.Create("intermediate", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := localca.Load(caPEM, keyPEM, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf([]string{"localhost", "127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	alone := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert.pem", alone)
	write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	_, l, _ := m.serve("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n")
	_, out := m.inProcess(t.Context(), 0, nil, "doctor")
	wants(t, out, `has the certificate of CN=o365pw local CA \(intermediate\).*, which has signed it`, `fullchain.pem`)
	write("cert.pem", append(alone, caPEM...))
	l.await(t, `certificate has changed, and is in use`)
	_, out = m.inProcess(t.Context(), 0, nil, "doctor")
	wants(t, out, `! which has signed it`)
}
