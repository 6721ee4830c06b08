//go:build integration

package integration

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/localca"
)

// dovecot is a mail server that takes nothing but XOAUTH2, with one mailbox.
// Everything of it is in one folder. It runs as this user, or as nobody where
// that is root, who may not have mail.
type dovecot struct {
	t           *testing.T
	dir         string
	imap, imaps string // addresses: STARTTLS, and TLS from the start
	caPEM       []byte
	roots       *x509.CertPool
	uid, gid    int
	process     *exec.Cmd
}

// dovecotConfig leaves out all that would slow down or fail a test: the
// penalty for failed sign-ins, delays, chroot, other users. %[n] are those of
// configure.
const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap
listen = 127.0.0.1
default_login_user = %[2]s
default_internal_user = %[2]s
default_internal_group = %[3]s
ssl = required
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
auth_mechanisms = xoauth2
auth_failure_delay = 0
auth_verbose = yes
mail_location = maildir:%[1]s/mail
mail_fsync = never
maildir_copy_with_hardlinks = no
passdb {
  driver = oauth2
  mechanisms = xoauth2
  args = %[1]s/oauth2.conf
}
userdb {
  driver = static
  args = uid=%[4]d gid=%[5]d home=%[1]s/home allow_all_users=yes
}
first_valid_uid = 1
service imap-login {
  chroot =
  inet_listener imap {
    port = %[6]s
  }
  inet_listener imaps {
    port = %[7]s
    ssl = yes
  }
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

// introspectionConfig asks the sandbox about each token (RFC 7662). There is
// one address for each mailbox, since an app-only token names none.
const introspectionConfig = `introspection_mode = post
introspection_url = %s/introspect/%s
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
`

// startDovecot serves mailbox with list in its INBOX, until the test ends.
func startDovecot(t *testing.T, authority, mailbox string, list []message) *dovecot {
	t.Helper()
	d := &dovecot{t: t, uid: os.Getuid(), gid: os.Getgid()}
	if d.uid == 0 {
		nobody, err := user.Lookup("nobody")
		must(t, err)
		d.uid, d.gid = atoi(t, nobody.Uid), atoi(t, nobody.Gid)
	}
	// Not t.TempDir, which no other user may enter, and whose paths are too
	// long for a socket.
	dir, err := os.MkdirTemp("", "o365pw-dovecot-")
	must(t, err)
	d.dir = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	ports := freePorts(t, 2)
	d.imap, d.imaps = ports[0], ports[1]
	d.configure(authority, mailbox)
	d.fill(list)
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, d.uid, d.gid)
		}
		return err
	}))
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("Dovecot's log:\n%s", log)
		}
	})
	d.start()
	return d
}

func (d *dovecot) configure(authority, mailbox string) {
	t := d.t
	account, err := user.LookupId(strconv.Itoa(d.uid))
	must(t, err)
	group, err := user.LookupGroupId(strconv.Itoa(d.gid))
	must(t, err)
	for _, sub := range []string{"run", "state", "home", "mail", "mail/cur", "mail/new", "mail/tmp"} {
		must(t, os.Mkdir(filepath.Join(d.dir, sub), 0o700))
	}
	now := time.Now()
	caPEM, caKey, err := localca.Create("integration test", now)
	must(t, err)
	ca, err := localca.Load(caPEM, caKey, now)
	must(t, err)
	leaf, err := ca.Leaf([]string{"127.0.0.1"}, now)
	must(t, err)
	d.caPEM = caPEM
	d.roots = x509.NewCertPool()
	d.roots.AppendCertsFromPEM(caPEM)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	must(t, err)
	d.write("cert.pem", pemBlock("CERTIFICATE", leaf.Certificate[0]))
	d.write("key.pem", pemBlock("PRIVATE KEY", key))
	_, imap, _ := net.SplitHostPort(d.imap)
	_, imaps, _ := net.SplitHostPort(d.imaps)
	d.write("dovecot.conf", fmt.Appendf(nil, dovecotConfig, d.dir, account.Username, group.Name, d.uid, d.gid, imap, imaps))
	d.write("oauth2.conf", fmt.Appendf(nil, introspectionConfig, authority, mailbox))
}

func (d *dovecot) write(name string, data []byte) {
	d.t.Helper()
	must(d.t, os.WriteFile(filepath.Join(d.dir, name), data, 0o600))
}

// fill puts messages into the Maildir, as a delivery agent does: LF at the
// line ends. Their names give the order, hence the first has UID 1.
func (d *dovecot) fill(list []message) {
	for i, m := range list {
		d.write(fmt.Sprintf("mail/cur/%d.M1P1.host:2,", 1_700_000_000+i), lf(m.data))
	}
}

// start runs Dovecot, and waits until it signs people in.
func (d *dovecot) start() {
	t := d.t
	t.Helper()
	cmd := exec.Command(tool(t, "dovecot"), "-F", "-c", filepath.Join(d.dir, "dovecot.conf"))
	cmd.Dir = d.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(d.uid), Gid: uint32(d.gid)}
	}
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	d.process = cmd
	eventually(t, "Dovecot's greeting", func() bool {
		conn, err := net.DialTimeout("tcp", d.imaps, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		// While its parts start it says "* OK Waiting for…" first.
		for lines := bufio.NewScanner(tls.Client(conn, &tls.Config{RootCAs: d.roots, ServerName: "127.0.0.1"})); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "* OK [CAPABILITY ") {
				if !strings.Contains(lines.Text(), " AUTH=XOAUTH2]") {
					t.Errorf("Dovecot offers other mechanisms: %s", lines.Text())
				}
				return true
			}
		}
		return false
	})
	if t.Failed() {
		t.FailNow()
	}
}

// stop kills Dovecot with all its sessions. Asked to end it would let clients
// go on for ten seconds.
func (d *dovecot) stop() {
	if d.process == nil {
		return
	}
	_ = syscall.Kill(-d.process.Process.Pid, syscall.SIGKILL) // the group
	if _, err := waitProcess(d.process, 10*time.Second); err != nil {
		d.t.Errorf("Dovecot: %v", err)
	}
	d.process = nil
}
