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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// dovecot is a mail server that takes nothing but XOAUTH2, with one mailbox.
// What is sent goes on to sink. Everything of it is in one folder. It runs as
// this user, or as nobody where that is root, who may not have mail.
type dovecot struct {
	t           *testing.T
	dir         string
	imap, imaps string // addresses: STARTTLS, and TLS from the start
	pop3, pop3s string
	submission  string // STARTTLS
	sink        *sink
	caPEM       []byte
	roots       *x509.CertPool
	uid, gid    int
	process     *exec.Cmd
}

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
	ports := freePorts(t, 5)
	d.imap, d.imaps, d.pop3, d.pop3s, d.submission = ports[0], ports[1], ports[2], ports[3], ports[4]
	d.sink = startSink(t)
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
	out := &logtest.Buffer{}
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
