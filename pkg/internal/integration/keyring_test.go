//go:build integration

package integration

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/o365pw/o365pw/pkg/internal/logtest"
)

// TestKeyring is the life of an app password with gnome-keyring as the
// keychain: nothing secret is in any file, and nothing of it is left after
// revoke.
func TestKeyring(t *testing.T) {
	t.Parallel()
	env, conn := keyring(t)
	l := newLab(t, options{messages: messages()[:1], keychain: env})
	password := l.create("keyring")
	made := items(t, conn)
	if len(made) == 0 {
		t.Fatal("the keyring holds nothing after create")
	}
	shown := l.o365pw("show", "keyring", "--password", "-o", "json")
	if !strings.Contains(shown, `"password": "`+password+`"`) {
		t.Errorf("show --password printed something else than create:\n%s", shown)
	}
	l.serve()
	s := l.signIn(password)
	s.do("FETCH 1 (BODY.PEEK[])")
	l.checkNoSecrets()

	l.o365pw("revoke", "keyring", "--yes")
	if last := s.ended(); !strings.HasPrefix(last, "* BYE ") {
		t.Errorf("the last line of the session is %q, not BYE", last)
	}
	l.checkRefused(password, "AUTHENTICATIONFAILED")
	left := items(t, conn)
	for item := range made {
		if left[item] != nil {
			t.Errorf("the keyring still holds %v", left[item])
		}
	}
	// The key of the gateway's authority belongs to no app password.
	for _, attributes := range left {
		if attributes["username"] != "local-ca-key" {
			t.Errorf("the keyring still holds %v", attributes)
		}
	}
	l.checkNoSecrets()
}

// keyring is a session bus with gnome-keyring on it, unlocked as by a desktop
// login. Both end with the test: the shell waits for the end of its stdin.
func keyring(t *testing.T) (env []string, conn *dbus.Conn) {
	t.Helper()
	tool(t, "gnome-keyring-daemon")
	home := t.TempDir()
	runtime := filepath.Join(home, "run")
	must(t, os.Mkdir(runtime, 0o700))
	cmd := exec.Command(tool(t, "dbus-run-session"), "--", "sh", "-c",
		`printf %s opensesame | gnome-keyring-daemon --unlock --components=secrets >/dev/null &&
		echo "bus $DBUS_SESSION_BUS_ADDRESS" && read -r end`)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + runtime}
	out := &logtest.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		if _, err := waitProcess(cmd, 10*time.Second); err != nil {
			t.Errorf("the session bus: %v\n%s", err, out)
		}
	})
	var address string
	eventually(t, "the session bus", func() bool {
		for line := range strings.Lines(out.String()) {
			if a, ok := strings.CutPrefix(line, "bus "); ok && strings.HasSuffix(line, "\n") {
				address = strings.TrimSpace(a)
			}
		}
		return address != ""
	})
	conn, err = dbus.Connect(address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return []string{"DBUS_SESSION_BUS_ADDRESS=" + address, "XDG_RUNTIME_DIR=" + runtime}, conn
}

// items are the attributes of all items in the keyring, by path.
func items(t *testing.T, conn *dbus.Conn) map[dbus.ObjectPath]map[string]string {
	t.Helper()
	const service = "org.freedesktop.secrets"
	all := map[dbus.ObjectPath]map[string]string{}
	collections, err := conn.Object(service, "/org/freedesktop/secrets").GetProperty("org.freedesktop.Secret.Service.Collections")
	must(t, err)
	for _, c := range collections.Value().([]dbus.ObjectPath) {
		list, err := conn.Object(service, c).GetProperty("org.freedesktop.Secret.Collection.Items")
		must(t, err)
		for _, item := range list.Value().([]dbus.ObjectPath) {
			attributes, err := conn.Object(service, item).GetProperty("org.freedesktop.Secret.Item.Attributes")
			must(t, err)
			all[item] = attributes.Value().(map[string]string)
		}
	}
	return all
}

// checkNoSecrets looks for the secrets in each file of the user's.
func (l *lab) checkNoSecrets() {
	l.t.Helper()
	files := 0
	must(l.t, filepath.WalkDir(l.state, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // being written, it has its name by now
		}
		files++
		for _, s := range l.secrets {
			if strings.Contains(string(data), s) {
				l.t.Errorf("%s holds a secret", path)
			}
		}
		return err
	}))
	if files == 0 {
		l.t.Errorf("there is no file in %s", l.state)
	}
}
