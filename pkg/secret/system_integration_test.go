//go:build integration && !windows && !darwin

package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// These tests run against the real gnome-keyring. Each runs the test binary
// again inside a session bus of its own, with a home of its own, and there
// the test named by SECRET_TEST_INSIDE does its work. They fail where
// dbus-run-session or gnome-keyring-daemon is missing.

const insideEnv = "SECRET_TEST_INSIDE"

// session runs the current test inside a new session bus, where a shell has
// run script before. It reports whether this is the outside, which is done.
func session(t *testing.T, script string) (outside bool) {
	if os.Getenv(insideEnv) == t.Name() {
		return false
	}
	for _, tool := range []string{"dbus-run-session", "gnome-keyring-daemon", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s (Debian: apt-get install gnome-keyring dbus): %v", tool, err)
		}
	}
	home := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dbus-run-session", "--", "sh", "-c", script+"\nexec \"$@\"", "sh",
		os.Args[0], "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout=50s")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), insideEnv + "=" + t.Name(), "HOME=" + home}
	for name, dir := range map[string]string{"XDG_RUNTIME_DIR": "run", "XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"} {
		path := filepath.Join(home, dir)
		must(t, os.Mkdir(path, 0o700))
		cmd.Env = append(cmd.Env, name+"="+path)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("inside the session: %v\n%s", err, out)
	}
	return true
}

// unlocked starts the daemon with a new login keyring, as a desktop login
// does. It ends with its session.
const unlocked = `printf %s opensesame | gnome-keyring-daemon --unlock --components=secrets >/dev/null`

func TestIntegrationGnomeKeyring(t *testing.T) {
	if session(t, unlocked) {
		return
	}
	t.Run("whole", func(t *testing.T) { testKeychain(t, &System{}) })
	t.Run("in parts", func(t *testing.T) {
		// As on a platform with a limit: 10 KB and more in parts.
		s := &System{Service: "o365pw-parts", limit: 2560, lockPath: filepath.Join(t.TempDir(), "lock")}
		testKeychain(t, s)
		value := strings.Repeat("0123456789", 1024)
		must(t, s.Set(t.Context(), "long", New(value)))
		checkValueIs(t, s, "long", value)
		for _, k := range []string{"long#a0", "long#a3", "long#a4"} {
			_, err := s.get(t.Context(), k)
			if (err == nil) != (k != "long#a4") {
				t.Errorf("the part %s: %v", k, err)
			}
		}
		must(t, s.Delete(t.Context(), "long"))
		if _, err := s.get(t.Context(), "long#a0"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a part is left: %v", err)
		}
	})
	t.Run("services do not meet", func(t *testing.T) {
		must(t, (&System{Service: "one"}).Set(t.Context(), "key", New("1")))
		must(t, (&System{Service: "two"}).Set(t.Context(), "key", New("2")))
		checkValueIs(t, &System{Service: "one"}, "key", "1")
		checkValueIs(t, &System{Service: "two"}, "key", "2")
	})
	t.Run("locked meanwhile", func(t *testing.T) {
		s := &System{}
		must(t, s.Set(t.Context(), "key", New("value")))
		lock := exec.Command("dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.secrets",
			"/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock",
			"array:objpath:/org/freedesktop/secrets/collection/login")
		if out, err := lock.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		checkUnavailable(t, s, Locked)
	})
}

func TestIntegrationNoCollection(t *testing.T) {
	// Started, but never unlocked: there is no keyring yet.
	if session(t, `gnome-keyring-daemon --start --components=secrets >/dev/null`) {
		return
	}
	checkUnavailable(t, &System{}, NoService)
}

func TestIntegrationLockedFromTheStart(t *testing.T) {
	// A second daemon, given the wrong password, finds the keyring of the first.
	if session(t, unlocked+`
dbus-send --session --print-reply --dest=org.freedesktop.secrets /org/freedesktop/secrets org.freedesktop.Secret.Service.Lock \
	array:objpath:/org/freedesktop/secrets/collection/login >/dev/null
printf %s wrong | gnome-keyring-daemon --replace --unlock --components=secrets >/dev/null`) {
		return
	}
	checkUnavailable(t, &System{}, Locked)
}

func TestIntegrationNoService(t *testing.T) {
	// A bus that starts no services by itself, as in a container.
	if session(t, `cat >"$HOME/bus.conf" <<END
<busconfig><type>session</type><listen>unix:tmpdir=$HOME</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
END
set -- dbus-run-session --config-file="$HOME/bus.conf" -- "$@"`) {
		return
	}
	checkUnavailable(t, &System{}, NoService)
}

func TestIntegrationNoSession(t *testing.T) {
	// Where systemd has logged somebody in there is always a session.
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
		t.Log("this user has a bus of its own, which is found without a variable")
		return
	}
	if session(t, `unset DBUS_SESSION_BUS_ADDRESS`) {
		return
	}
	checkUnavailable(t, &System{}, NoSession)
}

func TestIntegrationDeadSession(t *testing.T) {
	for name, address := range map[string]string{
		"nothing there": "unix:path=/nonexistent/bus",
		"no address":    "nonsense",
		"no transport":  "tcp2:host=x",
	} {
		t.Run(name, func(t *testing.T) {
			if session(t, `export DBUS_SESSION_BUS_ADDRESS='`+address+`'`) {
				return
			}
			checkUnavailable(t, &System{}, NoSession)
		})
	}
}

// checkUnavailable wants the error of all calls to have the reason, before
// the time limit.
func checkUnavailable(t *testing.T, s *System, want Reason) {
	t.Helper()
	_, err := s.Get(t.Context(), "key")
	for op, err := range map[string]error{"Get": err, "Set": s.Set(t.Context(), "key", New("value")), "Delete": s.Delete(t.Context(), "key")} {
		t.Logf("%s: %v", op, err)
		if reason(err) != want {
			t.Errorf("%s: %v (reason %q), want %q", op, err, reason(err), want)
		}
	}
}
