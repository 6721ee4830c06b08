//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// throwaway runs a script with the system's trust store in the place of which a
// copy is mounted, for it alone. $1 is o365pw, $2 a port of the gateway.
const throwaway = `set -e
work=$(mktemp -d)
mkdir "$work/local" "$work/hooks"
cp -a /etc/ssl/certs "$work/certs"
mount --bind "$work/local" /usr/local/share/ca-certificates
mount --bind "$work/certs" /etc/ssl/certs
[ ! -d /etc/ca-certificates/update.d ] || mount --bind "$work/hooks" /etc/ca-certificates/update.d
trap 'rm -rf "$work"/*' EXIT
by_openssl() { openssl s_client -verify_return_error -verify_hostname localhost -connect "127.0.0.1:$2" </dev/null; }
by_curl() { curl --silent --show-error --user nobody:nothing "imaps://localhost:$2/"; }
list() { ls /usr/local/share/ca-certificates; }

! by_openssl "$@" || { echo "trusted before"; exit 1; }
"$1" cert install --store system --yes
by_openssl "$@" || { echo "openssl does not trust it"; exit 1; }
by_curl "$@" 2>curl.said || [ $? = 67 ] || { cat curl.said; echo "curl does not trust it"; exit 1; }
"$1" cert show
list >before
"$1" cert install --store system --yes
list | cmp - before
"$1" cert renew
"$1" cert install --store system --yes
"$1" cert renew --now --yes
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do # until the gateway has taken it up
	openssl s_client -connect "127.0.0.1:$2" </dev/null 2>/dev/null | openssl x509 >leaf.pem
	openssl verify -CAfile "$O365PW_STATE/ca.pem" leaf.pem && break
	sleep 1
done
by_openssl "$@" || { echo "the new authority is not trusted"; exit 1; }
"$1" cert uninstall --store system
[ -z "$(list)" ] || { list; echo "left"; exit 1; }
! by_openssl "$@" || { echo "trusted after"; exit 1; }
! by_curl "$@" || exit 1
! ls -l /etc/ssl/certs | grep o365pw || exit 1
`

// TestSystemTrustStore has Debian's own trust store, openssl and curl judge what
// cert install and uninstall do.
func TestSystemTrustStore(t *testing.T) {
	t.Parallel()
	if err := exec.Command("unshare", "--mount", "true").Run(); err != nil {
		t.Skipf("nothing may be mounted here: %v", err)
	}
	l := newLab(t, options{})
	l.serve()
	r := l.try("", "unshare", "--mount", "sh", "-c", throwaway, "sh", binary, port(l.gateway["imap"]))
	if r.code != 0 || !strings.Contains(r.stdout, "Trusted by the system (/usr/local/share/ca-certificates)") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if found, _ := filepath.Glob("/usr/local/share/ca-certificates/o365pw-*"); len(found) > 0 {
		t.Errorf("left in this machine's store: %v", found)
	}
}

// TestNSSTrustStore has NSS itself judge, by databases as Firefox, Thunderbird and
// Chromium have them.
func TestNSSTrustStore(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{})
	l.serve()
	var all []string
	for _, folder := range []string{".pki/nssdb", ".mozilla/firefox/ab12.default-release", ".thunderbird/cd 34.default", "snap/firefox/common/.mozilla/firefox/ef56.default"} {
		path := filepath.Join(l.dir, folder)
		must(t, os.MkdirAll(path, 0o700))
		if r := l.try("", "certutil", "-N", "-d", "sql:"+path, "--empty-password"); r.code != 0 {
			t.Fatal(r.stderr)
		}
		all = append(all, path)
	}
	// Another authority of the same name, as of a gateway that was set up before.
	other := l.in(t)
	other.state = filepath.Join(other.dir, "state")
	other.env = append(other.env, "O365PW_STATE="+other.state)
	other.o365pw("cert", "export", "--file", filepath.Join(other.dir, "other.pem"))
	for _, db := range all {
		if r := l.try("", "certutil", "-A", "-d", "sql:"+db, "-n", "another", "-t", "C,,", "-a", "-i", filepath.Join(other.dir, "other.pem")); r.code != 0 {
			t.Fatal(r.stderr)
		}
	}
	trusted := func(want bool, when string) {
		t.Helper()
		for _, db := range all {
			r := l.try("", "tstclnt", "-h", "localhost", "-4", "-p", port(l.gateway["imap"]), "-d", "sql:"+db, "-Q")
			if (r.code == 0) != want || !want && !strings.Contains(r.stderr+r.stdout, "issuer") {
				t.Errorf("%s: %s: exit code %d\n%s%s", when, db, r.code, r.stdout, r.stderr)
			}
		}
	}
	trusted(false, "before")
	for range 2 {
		l.o365pw("cert", "install", "--store", "nss", "--yes")
		trusted(true, "installed")
	}
	if out := l.o365pw("cert", "show", "--jq", `.certificates[] | select(.role == "authority") | .trustedBy | length`); out != fmt.Sprintln(len(all)) {
		t.Errorf("cert show names %s of %d", out, len(all))
	}
	l.o365pw("cert", "renew")
	l.o365pw("cert", "install", "--store", "nss", "--yes")
	l.o365pw("cert", "renew", "--now", "--yes")
	l.server.await("certificate has changed, and is in use")
	trusted(true, "after the takeover")
	l.o365pw("cert", "uninstall", "--store", "nss")
	trusted(false, "uninstalled")
	for _, db := range all {
		if r := l.try("", "certutil", "-L", "-d", "sql:"+db); !strings.Contains(r.stdout, "another") || strings.Contains(r.stdout, "o365pw local CA") {
			t.Errorf("%s: %s", db, r.stdout)
		}
	}
}

// TestOldTLS signs in with clients that are told to know no more than an old
// printer does.
func TestOldTLS(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: []message{}})
	legacy := freePorts(t, 1)[0]
	config, err := os.ReadFile(filepath.Join(l.dir, "config.toml"))
	must(t, err)
	l.file("config.toml", append(config, fmt.Sprintf("[gateway.legacy]\nimap = %q\n", legacy)...))
	password := l.create("printer")
	l.serve()
	l.server.await("imap with old TLS on " + legacy)
	for _, version := range []string{"1.0", "1.1"} {
		args := func(address string) []string {
			return []string{"--silent", "--show-error", "--insecure", "--tlsv" + version, "--tls-max", version, "--ciphers", "AES128-SHA:@SECLEVEL=0",
				"--user", mailbox + ":" + compact(password), "imaps://" + address + "/"}
		}
		if r := l.try("", "curl", args(legacy)...); r.code != 0 || !strings.Contains(r.stdout, "INBOX") {
			t.Errorf("TLS %s: exit code %d\n%s%s", version, r.code, r.stdout, r.stderr)
		}
		l.server.await("TLS " + version)
		if r := l.try("", "curl", args(l.gateway["imap"])...); r.code != 35 {
			t.Errorf("TLS %s at the other address: exit code %d\n%s", version, r.code, r.stderr)
		}
	}
	r := l.try("x LOGOUT\r\n", "openssl", "s_client", "-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0", "-quiet", "-ign_eof", "-CAfile", l.ca, "-verify_return_error", "-connect", legacy)
	if r.code != 0 || !strings.Contains(r.stdout, "x OK") {
		t.Errorf("openssl: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
