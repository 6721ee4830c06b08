//go:build integration

package integration

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/localca"
)

// dovecotConfig leaves out all that would slow down or fail a test: the
// penalty for failed sign-ins, delays, chroot, other users. %[n] are those of
// configure.
const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap pop3 submission
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
mail_max_userip_connections = 100
hostname = dovecot.test
submission_relay_host = 127.0.0.1
submission_relay_port = %[11]s
submission_max_mail_size = 100M
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
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = %[8]s
  }
  inet_listener pop3s {
    port = %[9]s
    ssl = yes
  }
}
service submission-login {
  chroot =
  inet_listener submission {
    port = %[10]s
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
	d.write("dovecot.conf", fmt.Appendf(nil, dovecotConfig, d.dir, account.Username, group.Name, d.uid, d.gid,
		port(d.imap), port(d.imaps), port(d.pop3), port(d.pop3s), port(d.submission), port(d.sink.address)))
	d.write("oauth2.conf", fmt.Appendf(nil, introspectionConfig, authority, mailbox))
}

func (d *dovecot) write(name string, data []byte) {
	d.t.Helper()
	must(d.t, os.WriteFile(filepath.Join(d.dir, name), data, 0o600))
}
