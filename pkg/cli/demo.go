package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

func newDemo(a *app) *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work from end to end, without a tenant",
		Long: `Starts the sandbox, a profile and a keychain in a temporary folder, and the
gateway, all in this process. Then makes an app password, signs in with it over
IMAP and SMTP by independent clients, reads a message, sends one, and revokes
it. What is printed is what was really answered. Needs no network and leaves
nothing behind.

--interactive leaves everything running for your own mail program.`,
		Example:           "  o365pw demo\n  o365pw demo --interactive",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runDemo(cmd.Context(), stay) },
	}
	cmd.Flags().BoolVar(&stay, "interactive", false, "leave it running, to connect your own mail program")
	return cmd
}

// demo is one run: the sandbox, and the environment in which the program's own
// commands run against it.
type demo struct {
	a       *app
	dir     string
	env     map[string]string
	sandbox *sandbox.Server
	imap    string // the gateway's address
	smtp    string // likewise
	step    int
	failed  error // of the first write to stdout that failed
}

func (a *app) runDemo(ctx context.Context, stay bool) (err error) {
	d := &demo{a: a, sandbox: &sandbox.Server{AdminRoles: sandboxRoles}}
	dir, remove, err := a.workFolder("")
	if err != nil {
		return err
	}
	defer remove()
	d.dir = dir
	if err := d.sandbox.Start(); err != nil {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	defer func() { err = errors.Join(err, d.sandbox.Close()) }()
	if err := d.configure(); err != nil {
		return err
	}
	d.say("A tenant of its own: Entra at %s, Graph at %s, Exchange at %s (IMAP), %s (POP3) and %s (SMTP), OAuth 2.0 only",
		d.sandbox.Authority(), d.sandbox.Graph(), d.sandbox.IMAP(), d.sandbox.POP3(), d.sandbox.SMTP())

	ctx, cancel := context.WithCancel(ctx)
	var gatewayErr error
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		err = errors.Join(err, gatewayErr)
	}()
	g, err := d.child(&bytes.Buffer{}, &bytes.Buffer{}).newGateway(ctx, serveOptions{})
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	wg.Go(func() { gatewayErr = g.run(ctx, nil) })
	d.imap, d.smtp = g.listeners[gateway.IMAP].Addr().String(), g.listeners[gateway.SMTP].Addr().String()
	d.say("The gateway: IMAP on %s, POP3 on %s, SMTP on %s, certificate signed by %s", d.imap, g.listeners[gateway.POP3].Addr(), d.smtp, g.caFile)

	if err := d.walk(ctx, g.caFile); err != nil {
		return err
	}
	if stay {
		return d.stay(ctx)
	}
	d.say("Done. Everything was in %s, which is removed now.", d.dir)
	return d.failed
}

// configure writes the profile and makes the environment of the commands. The
// sandbox's unattended client stands for a person's sign-in.
func (d *demo) configure() error {
	settings := "\n[gateway]\n"
	for _, p := range gateway.Protocols() {
		port, err := freePort()
		if err != nil {
			return err
		}
		settings += fmt.Sprintf("%s = \"127.0.0.1:%d\"\n", p, port)
	}
	if _, err := writeSandboxConfig(d.sandbox, d.dir, settings); err != nil {
		return err
	}
	id, clientSecret := d.sandbox.AdminClient()
	d.env = map[string]string{
		"O365PW_CONFIG":              filepath.Join(d.dir, "config.toml"),
		"O365PW_STATE":               filepath.Join(d.dir, "state"),
		"O365PW_KEYCHAIN":            "file",
		"O365PW_KEYCHAIN_PASSPHRASE": rand.Text(),
		"AZURE_CLIENT_ID":            id,
		"AZURE_CLIENT_SECRET":        clientSecret,
	}
	return nil
}

// freePort finds a port for the gateway, so that the settings printed are the
// real ones. It is outside of the ports that systems give to connections, of
// which the sandbox has some before the gateway listens.
func freePort() (port int, err error) {
	for range 100 {
		port = 20000 + mathrand.N(12000)
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, ln.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// child is an app in the demo's environment. Its passphrase is random, so a
// low work factor loses nothing.
func (d *demo) child(stdout, stderr *bytes.Buffer, args ...string) *app {
	return newApp(Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr,
		Getenv: func(k string) string { return d.env[k] }, Now: d.a.Now, ScryptWorkFactor: 10,
	})
}

// command runs one command of the program as a person would and shows what it
// printed.
func (d *demo) command(ctx context.Context, args ...string) (stdout string, err error) {
	line := []string{"o365pw"}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			arg = shellQuote(arg)
		}
		line = append(line, arg)
	}
	d.line("$ %s", strings.Join(line, " "))
	var out, errOut bytes.Buffer
	code := Main(ctx, d.child(&out, &errOut, args...).Env)
	for l := range strings.Lines(out.String() + errOut.String()) {
		d.line("%s", strings.TrimRight(l, "\n"))
	}
	if code != int(done) {
		return "", &failedError{code: exitCode(code), msg: fmt.Sprintf("the demo's %q ended with exit code %d", strings.Join(line, " "), code)}
	}
	return out.String(), nil
}

// walk is the demonstration itself.
func (d *demo) walk(ctx context.Context, caFile string) error {
	const name = "Outlook on Mac"
	mailbox := d.sandbox.Mailboxes[0].Address
	d.say("Make an app password for one mail program")
	out, err := d.command(ctx, "create", "--name", name, "--mailbox", mailbox, "--allow", "imap,smtp")
	if err != nil {
		return err
	}
	password := strings.TrimSpace(out)
	d.say("It is on the list, joined with what Graph says")
	if _, err := d.command(ctx, "list", "-o", "table"); err != nil {
		return err
	}

	d.say("Exchange itself takes no password")
	if err := d.refusedSignIn(ctx, d.sandbox.IMAP(), filepath.Join(d.dir, "sandbox-ca.pem"), mailbox, password); err != nil {
		return err
	}
	d.say("At the gateway the app password opens the mailbox (client: go-imap, over TLS)")
	mail, err := dialMail(ctx, d, d.imap, caFile)
	if err != nil {
		return err
	}
	defer mail.close()
	if err := mail.signIn(mailbox, password); err != nil {
		return fmt.Errorf("sign in at the gateway: %w", err)
	}
	if err := mail.readFirst(); err != nil {
		return fmt.Errorf("read a message: %w", err)
	}
	d.say("It sends as well (client: Go's net/smtp, over TLS)")
	if err := d.send(ctx, caFile, mailbox, password); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	d.say("A wrong password is refused")
	if err := d.refusedSignIn(ctx, d.imap, caFile, mailbox, "abcd efgh ijkl mnop"); err != nil {
		return err
	}
	d.say("Revoke it: the open session is closed, and nobody signs in with it any more")
	if _, err := d.command(ctx, "revoke", name, "--yes"); err != nil {
		return err
	}
	revoked := time.Now()
	if err := mail.waitClosed(ctx, 5*time.Second); err != nil {
		return err
	}
	d.line("the session was closed %d ms after revoke returned", max(time.Since(revoked).Milliseconds(), 0))
	return d.refusedSignIn(ctx, d.imap, caFile, mailbox, password)
}

// refusedSignIn proves that a sign-in fails. One that works is an error.
func (d *demo) refusedSignIn(ctx context.Context, addr, caFile, mailbox, password string) error {
	mail, err := dialMail(ctx, d, addr, caFile)
	if err != nil {
		return err
	}
	defer mail.close()
	if err := mail.signIn(mailbox, password); err == nil {
		return errors.New("a sign-in worked that must be refused")
	}
	return nil
}

// stay leaves everything running for the person's own mail program.
func (d *demo) stay(ctx context.Context) error {
	d.say("Your turn: settings for your own mail program")
	if _, err := d.command(ctx, "create", "--name", "My mail program", "--allow", "imap,pop3,smtp", "-o", "table"); err != nil {
		return err
	}
	d.line("certificate to trust: %s", filepath.Join(d.env["O365PW_STATE"], "ca.pem"))
	d.line("without TLS it works too, from this machine: connection security \"none\"")
	d.say("In another terminal, to list and revoke (the sandbox's own sign-in, no real secret):")
	for _, k := range []string{"O365PW_CONFIG", "O365PW_STATE", "O365PW_KEYCHAIN", "O365PW_KEYCHAIN_PASSPHRASE", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"} {
		d.line("export %s=%s", k, shellQuote(d.env[k]))
	}
	d.say("Stop with Ctrl-C")
	<-ctx.Done()
	return nil
}

// say begins a step.
func (d *demo) say(format string, args ...any) {
	d.step++
	d.write("\n" + d.a.paint(bold, fmt.Sprintf("%2d. ", d.step)+fmt.Sprintf(format, args...)) + "\n")
}

// line is what was answered.
func (d *demo) line(format string, args ...any) {
	d.write("    " + fmt.Sprintf(format, args...) + "\n")
}

func (d *demo) write(s string) {
	if err := d.a.print([]byte(s)); err != nil && d.failed == nil {
		d.failed = err
	}
}
