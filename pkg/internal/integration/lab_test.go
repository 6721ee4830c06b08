//go:build integration

package integration

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

const mailbox = "alice@contoso.com"

// binary is o365pw with the race detector, as TestMain has built it.
var binary string

// quickExit is for the environment of what runs binary: the race detector keeps
// every process for a second when it ends.
const quickExit = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "o365pw-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "o365pw")
		build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", binary, "github.com/o365pw/o365pw/cmd/o365pw")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build o365pw: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// lab is a tenant in the sandbox, Dovecot in the place of its Exchange, and
// one user of o365pw.
type lab struct {
	t       *testing.T
	sandbox *sandbox.Server
	dovecot *dovecot
	dir     string // the user's home
	cloud   string // the configuration but for the gateway's part
	state   string
	gateway map[string]string // addresses of the gateway by protocol, whether it runs or not
	server  *process          // the gateway that was started last
	ca      string            // file that clients trust
	env     []string
	secrets []string // that no log may hold
}

// options of a lab; the zero value does for most.
type options struct {
	startTLS   bool   // from the gateway to Dovecot
	revalidate string // "": an hour, which is never
	keychain   []string
	messages   []message
}

func newLab(t *testing.T, o options) *lab {
	t.Helper()
	l := &lab{t: t, sandbox: &sandbox.Server{}, dir: t.TempDir()}
	must(t, l.sandbox.Start())
	t.Cleanup(func() { l.sandbox.Close() })
	l.dovecot = startDovecot(t, l.sandbox.Authority(), mailbox, o.messages)

	d := l.dovecot
	upstreams := fmt.Sprintf("imap = \"imaps://%s\"\npop3 = \"pop3s://%s\"\nsmtp = \"smtp://%s\"\n", d.imaps, d.pop3s, d.submission)
	if o.startTLS {
		upstreams = fmt.Sprintf("imap = \"imap://%s\"\npop3 = \"pop3://%s\"\nsmtp = \"smtp://%s\"\n", d.imap, d.pop3, d.submission)
	}
	// In the place of the sandbox's own servers.
	servers := regexp.MustCompile(`(?m)^(imap|pop3|smtp) = .*\n`)
	config := l.sandbox.Config(l.file("cloud-ca.pem", d.caPEM))
	at := servers.FindStringIndex(config)
	if at == nil {
		t.Fatalf("the sandbox's configuration has another form:\n%s", config)
	}
	l.cloud = config[:at[0]] + upstreams + servers.ReplaceAllString(config[at[0]:], "")
	id, adminSecret := l.sandbox.AdminClient()
	l.secrets = append(l.secrets, adminSecret)
	l.state = filepath.Join(l.dir, "state")
	if o.keychain == nil {
		o.keychain = l.fileKeychain()
	}
	l.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TERM=dumb", "LC_ALL=C.UTF-8", quickExit,
		"AZURE_CLIENT_ID=" + id, "AZURE_CLIENT_SECRET=" + adminSecret,
	}, o.keychain...)
	l.settle(cmp.Or(o.revalidate, "1h"))
	return l
}

// settle gives the gateway addresses of its own, and the user a configuration.
func (l *lab) settle(revalidate string) {
	l.t.Helper()
	ports := freePorts(l.t, 3)
	l.gateway = map[string]string{"imap": ports[0], "pop3": ports[1], "smtp": ports[2]}
	config := l.cloud + fmt.Sprintf("\n[gateway]\nimap = %q\npop3 = %q\nsmtp = %q\nrevalidate = %q\n", ports[0], ports[1], ports[2], revalidate)
	l.ca = filepath.Join(l.state, "ca.pem")
	l.env = append(slices.Clone(l.env), "HOME="+l.dir, "O365PW_CONFIG="+l.file("config.toml", []byte(config)), "O365PW_STATE="+l.state)
}

// beside is the lab with a gateway of its own, which runs until the subtest
// ends: what one client does wrong does not slow down the others.
func (l *lab) beside(t *testing.T) *lab {
	t.Helper()
	sub := l.in(t)
	sub.state = filepath.Join(sub.dir, "state")
	must(t, os.CopyFS(sub.state, os.DirFS(l.state)))
	sub.settle("1h")
	sub.serve()
	return sub
}

// fileKeychain makes a file keychain whose passphrase costs little to try:
// under the race detector the usual cost is two seconds for each command.
func (l *lab) fileKeychain() (env []string) {
	l.t.Helper()
	const passphrase = "the file's passphrase"
	k := &secret.File{
		Path:       filepath.Join(l.state, "keychain.age"),
		Passphrase: func(context.Context, bool) (secret.Text, error) { return secret.New(passphrase), nil },
		WorkFactor: 10,
	}
	must(l.t, k.Set(l.t.Context(), "first", secret.New("item")))
	must(l.t, k.Delete(l.t.Context(), "first"))
	return []string{"O365PW_KEYCHAIN=file", "O365PW_KEYCHAIN_PASSPHRASE=" + passphrase}
}

// in is the lab within a subtest, which its processes and files end with. Its
// programs find an empty home.
func (l *lab) in(t *testing.T) *lab {
	sub := *l
	sub.t, sub.dir = t, t.TempDir()
	sub.env = append(slices.Clone(l.env), "HOME="+sub.dir)
	return &sub
}

// file writes a file of the user's and returns its path.
func (l *lab) file(name string, data []byte) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	must(l.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(l.t, os.WriteFile(path, data, 0o600))
	return path
}

// o365pw runs a command, which must succeed, and returns what it printed.
func (l *lab) o365pw(args ...string) string {
	l.t.Helper()
	r := l.try("", binary, args...)
	if r.code != 0 {
		l.t.Fatalf("o365pw %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// create makes an app password.
func (l *lab) create(name string) string {
	l.t.Helper()
	password := strings.TrimSuffix(l.o365pw("create", name, "--allow", "imap,pop3,smtp"), "\n")
	if len(strings.ReplaceAll(password, " ", "")) != 16 {
		l.t.Fatalf("create printed %q, which is no app password", password)
	}
	l.secrets = append(l.secrets, password, compact(password))
	return password
}

// serve runs the gateway and waits until it listens.
func (l *lab) serve() *process {
	l.t.Helper()
	p := l.start(binary, "serve")
	l.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.terminate()
		}
		for _, s := range l.secrets {
			if strings.Contains(p.out.String(), s) {
				l.t.Error("the gateway's log holds a secret")
			}
		}
	})
	l.server = p
	for protocol, address := range l.gateway {
		p.await(protocol + " on " + address)
	}
	return p
}

func compact(password string) string { return strings.ReplaceAll(password, " ", "") }

// spaced is a password as people type it who have read it from a card.
func spaced(password string) string {
	var groups []string
	for g := range slices.Chunk([]byte(compact(password)), 4) {
		groups = append(groups, string(g))
	}
	return strings.Join(groups, " ")
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	must(t, err)
	return path
}
