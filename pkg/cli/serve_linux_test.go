package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// log is a gateway's stderr while it runs.
type log struct{ logtest.Buffer }

func (l *log) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for range 400 {
		if m := re.FindStringSubmatch(l.String()); m != nil {
			return m
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%q never came:\n%s", pattern, l)
	return nil
}

// serve runs the gateway until the test ends, with more at the end of the
// configuration, and gives its IMAP address.
func (m *machine) serve(more string) (*process, *log, string) {
	m.t.Helper()
	m.configure("\n[gateway]\nimap = \"127.0.0.1:0\"\npop3 = \"127.0.0.1:0\"\nsmtp = \"127.0.0.1:0\"\nrevalidate = \"1s\"\n" + more)
	return m.serving()
}

// serving runs the gateway as it is configured.
func (m *machine) serving() (*process, *log, string) {
	m.t.Helper()
	p := m.start("serve")
	l := &log{}
	p.cmd.Stdout, p.cmd.Stderr = l, l
	ended := make(chan error, 1)
	go func() { ended <- p.run() }()
	m.t.Cleanup(func() {
		p.signal(os.Interrupt)
		if err := <-ended; err != nil {
			m.t.Errorf("the gateway: %v\n%s", err, l)
		}
	})
	return p, l, l.await(m.t, `imap on (127\.0\.0\.1:\d+)`)[1]
}

// configure puts more at the end of the machine's configuration.
func (m *machine) configure(more string) {
	m.t.Helper()
	path := filepath.Join(m.dir, "config.toml")
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, more...), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) edit(file, old, to string) {
	m.t.Helper()
	path := filepath.Join(m.dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		m.t.Fatalf("no %s in %s", old, file)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, to)), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// signIn gives the gateway's tagged answer and leaves the connection open.
func signIn(t *testing.T, addr, password string) (net.Conn, string) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "x LOGIN alice@contoso.com %s\r\n", password)
	var seen []byte
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		seen = append(seen, b[:n]...)
		for line := range strings.Lines(string(seen)) {
			if strings.HasPrefix(line, "x ") {
				return conn, line
			}
		}
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
	}
}

func writeCertificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(300 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// SIGHUP reads the certificate again, and a configuration that is wrong leaves
// the former one in force. Sessions notice nothing.
func TestServeReloads(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	writeCertificate(t, m.dir, "first")
	p, l, addr := m.serve("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n")
	name := func(conn net.Conn) string {
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	open, answer := signIn(t, addr, password)
	if !strings.HasPrefix(answer, "x OK") || name(open) != "first" {
		t.Fatalf("%s, certificate of %s", answer, name(open))
	}
	writeCertificate(t, m.dir, "second")
	p.signal(syscall.SIGHUP)
	l.await(t, `"msg":"reloaded"`)
	conn, answer := signIn(t, addr, password)
	if !strings.HasPrefix(answer, "x OK") || name(conn) != "second" {
		t.Errorf("after the reload: %s, certificate of %s", answer, name(conn))
	}
	m.configure("\nnonsense = 1\n")
	p.signal(syscall.SIGHUP)
	l.await(t, `the configuration is wrong`)
	if _, answer := signIn(t, addr, password); !strings.HasPrefix(answer, "x OK") {
		t.Errorf("after a wrong configuration: %s", answer)
	}
	fmt.Fprint(open, "y NOOP\r\n")
	b := make([]byte, 200)
	if n, err := open.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "y OK") {
		t.Errorf("the open session: %q, %v", b[:n], err)
	}
}

// What a person or another program does to the registry must not end the
// gateway, nor the profile's leaving the configuration its revalidation.
func TestServeSurvivesEdits(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	password := strings.TrimSpace(m.run("create", "x"))
	p, l, addr := m.serve("")
	if _, answer := signIn(t, addr, password); !strings.HasPrefix(answer, "x OK") {
		t.Fatal(answer)
	}
	m.edit("state/registry.json", `"keychain": "file"`, `"keychain": "nonsense"`)
	l.await(t, `neither system nor file`)
	if _, answer := signIn(t, addr, password); !strings.Contains(answer, "[UNAVAILABLE]") {
		t.Errorf("with a keychain that does not exist: %s", answer)
	}
	m.edit("state/registry.json", `"keychain": "nonsense"`, `"keychain": "file"`)
	var conn net.Conn
	for range 100 {
		var answer string
		if conn, answer = signIn(t, addr, password); strings.HasPrefix(answer, "x OK") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	// The profile is renamed: its app passwords go on, and are still checked.
	m.edit("config.toml", "profiles.sandbox", "profiles.renamed")
	m.edit("config.toml", `default_profile = "sandbox"`, `default_profile = "renamed"`)
	p.signal(syscall.SIGHUP)
	l.await(t, `"msg":"reloaded"`)
	if _, answer := signIn(t, addr, password); !strings.HasPrefix(answer, "x OK") {
		t.Errorf("after the profile was renamed: %s", answer)
	}
	if out := m.run("list", "-o", "name"); strings.TrimSpace(out) != "x" {
		t.Errorf("list: %q", out)
	}
	m.sandbox.RemoveCredential(m.sandbox.Credentials()[0].KeyID)
	b := make([]byte, 500)
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "* BYE") {
		t.Errorf("after the removal in Entra: %q, %v", b[:n], err)
	}
}

// What keeps the gateway from starting is an error with a next step.
func TestServeCannotStart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fails := func(code int, want string, args ...string) {
		t.Helper()
		cmd, out := m.command(append([]string{"serve"}, args...)...)
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "hint: ") {
			t.Errorf("serve %v: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
	fails(1, "address already in use", "--imap", taken.Addr().String())
	fails(2, "is not host:port", "--imap", "nonsense")
	if err := os.MkdirAll(filepath.Join(m.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "state", "ca.pem"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without its key in the keychain a new authority is made; with it, the
	// damage is told.
	_, _, _ = m.serve("")
}

// Output that nobody takes: what was made is named.
func TestCreateCannotPrint(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd, out := m.command("create", "x")
	cmd.Stdout = full
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "hint: o365pw show --password x") {
		t.Errorf("exit code %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
	if p := strings.TrimSpace(m.run("show", "--password", "x")); len(p) != 16 {
		t.Errorf("the password is %q", p)
	}
	cmd, out = m.command("demo")
	cmd.Stdout = full
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("demo into a full disk: exit code %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
}
