package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/cli"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

const mailbox = "alice@contoso.com"

// lab is a tenant, a gateway before it, and what a mail program has to know.
type lab struct {
	sandbox  *sandbox.Server
	dir      string
	env      map[string]string
	gateway  map[string]string // addresses by protocol
	password string
	trust    *tls.Config
	stop     context.CancelFunc
	ended    chan int
	log      bytes.Buffer // read after the gateway has ended
}

func newLab(ctx context.Context) (_ *lab, err error) {
	l := &lab{sandbox: &sandbox.Server{ForgetSent: true}, gateway: map[string]string{}, ended: make(chan int, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "o365pw-soak-"); err != nil {
		return l, err
	}
	if err := l.sandbox.Start(); err != nil {
		return l, err
	}
	if err := l.configure(); err != nil {
		return l, err
	}
	if l.password, err = l.command(ctx, "create", "soak", "--allow", "imap,pop3,smtp"); err != nil {
		return l, err
	}
	l.password = strings.TrimSpace(l.password)
	return l, l.serve(ctx)
}

// configure writes the profile, and makes the environment of the commands.
func (l *lab) configure() error {
	for _, p := range []string{"imap", "pop3", "smtp"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		l.gateway[p] = ln.Addr().String()
		defer ln.Close()
	}
	ca := filepath.Join(l.dir, "sandbox-ca.pem")
	if err := os.WriteFile(ca, l.sandbox.CAPEM(), 0o600); err != nil {
		return err
	}
	config := l.sandbox.Config(ca) + fmt.Sprintf("\n[gateway]\nimap = %q\npop3 = %q\nsmtp = %q\nrevalidate = \"2s\"\n", l.gateway["imap"], l.gateway["pop3"], l.gateway["smtp"])
	file := filepath.Join(l.dir, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	id, adminSecret := l.sandbox.AdminClient()
	l.env = map[string]string{
		"O365PW_CONFIG": file, "O365PW_STATE": filepath.Join(l.dir, "state"),
		"O365PW_KEYCHAIN": "file", "O365PW_KEYCHAIN_PASSPHRASE": rand.Text(),
		"AZURE_CLIENT_ID": id, "AZURE_CLIENT_SECRET": adminSecret,
	}
	return nil
}

func (l *lab) environment(args []string, stdout, stderr *bytes.Buffer) cli.Env {
	return cli.Env{Args: args, Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr,
		Getenv: func(key string) string { return l.env[key] }, Now: time.Now, ScryptWorkFactor: 10}
}

func (l *lab) command(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	if code := cli.Main(ctx, l.environment(args, &stdout, &stderr)); code != 0 {
		return "", fmt.Errorf("o365pw %s: exit code %d: %s", args[0], code, &stderr)
	}
	return stdout.String(), nil
}

// serve runs the gateway until close, and waits until it listens.
func (l *lab) serve(ctx context.Context) error {
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() { l.ended <- cli.Main(ctx, l.environment([]string{"serve", "--quiet"}, &bytes.Buffer{}, &l.log)) }()
	ca := filepath.Join(l.env["O365PW_STATE"], "ca.pem")
	for range 600 {
		pem, err := os.ReadFile(ca)
		conn, derr := net.Dial("tcp", l.gateway["smtp"])
		if derr == nil {
			conn.Close()
		}
		if err == nil && derr == nil {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(pem)
			l.trust = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the gateway does not listen")
}

func (l *lab) close() error {
	var err error
	if l.stop != nil {
		l.stop()
		if code := <-l.ended; code != 0 {
			err = fmt.Errorf("the gateway ended with exit code %d: %s", code, &l.log)
		}
	}
	return errors.Join(err, l.sandbox.Close(), os.RemoveAll(l.dir))
}

// count is what this process holds now.
func (l *lab) count() count {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd") // nothing elsewhere: descriptors are then not compared
	return count{runtime.NumGoroutine(), len(open), m.HeapAlloc}
}
