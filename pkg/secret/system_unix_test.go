//go:build !windows && !darwin

package secret

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestReasons(t *testing.T) {
	dead := &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	for _, test := range []struct {
		err  error
		want Reason
	}{
		{noSession{errors.New("dbus: couldn't determine address of session bus")}, NoSession},
		{noSession{dead}, NoSession},
		{&exec.Error{Name: "dbus-launch", Err: exec.ErrNotFound}, NoSession},
		{&exec.ExitError{}, NoSession},
		{dead, NoSession},
		{fmt.Errorf("call: %w", dead), NoSession},
		{dbus.ErrClosed, NoSession},
		{errors.New("dbus: invalid bus address (no transport)"), NoSession},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.ServiceUnknown"}, NoService},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NameHasNoOwner"}, NoService},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.Spawn.ChildExited"}, NoService},
		{dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}, Locked},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}, Timeout},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.Disconnected"}, NoSession},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.Failed"}, Failed},
		{errors.New("failed to unlock correct collection '/org/freedesktop/secrets/collection/login'"), Locked},
		{errors.New("failed to unlock correct collection '/org/freedesktop/secrets/aliases/default'"), NoService},
		{errors.New("anything else"), Failed},
	} {
		if got := reasonOf(test.err); got != test.want {
			t.Errorf("%T %v: %q, want %q", test.err, test.err, got, test.want)
		}
	}
}

// The real go-keyring, with nobody at the address of the bus.
func TestDeadBus(t *testing.T) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
	if err := reach(); err != nil {
		t.Errorf("reach with an address: %v", err)
	}
	_, err := (&System{}).Get(t.Context(), "key")
	if reason(err) != NoSession {
		t.Errorf("Get: %v", err)
	}
}
