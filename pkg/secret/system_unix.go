//go:build !windows && !darwin

package secret

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/godbus/dbus/v5"
)

// reach returns an error where there is no session bus. Without it godbus
// would run dbus-launch, which starts a new bus that no keyring is on, and
// leaves it behind.
func reach() error {
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" && address != "autolaunch:" {
		return nil
	}
	// Looks for the bus of a systemd login as well, and where it finds that
	// sets the variable.
	conn, err := dbus.SessionBusPrivateNoAutoStartup()
	if err != nil {
		return noSession{err}
	}
	return conn.Close()
}

// noSession marks an error as that of reach.
type noSession struct{ error }

func (e noSession) Unwrap() error { return e.error }

// reasonOf tells the errors of go-keyring and D-Bus apart.
func reasonOf(err error) Reason {
	if _, ok := errors.AsType[noSession](err); ok {
		return NoSession
	}
	if _, ok := errors.AsType[*exec.Error](err); ok {
		return NoSession // no dbus-launch
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return NoSession // dbus-launch failed
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return NoSession // nobody at the bus address
	}
	if e, ok := errors.AsType[dbus.Error](err); ok {
		return dbusReason(e.Name)
	}
	text := err.Error()
	switch {
	// go-keyring has no type for it. The alias is asked for where there is
	// no collection "login", and is there or not itself.
	case strings.HasPrefix(text, "failed to unlock correct collection"):
		if strings.Contains(text, "/aliases/") {
			return NoService
		}
		return Locked
	case strings.HasPrefix(text, "dbus: "), errors.Is(err, net.ErrClosed):
		return NoSession // a bad address, a refused or a broken connection
	}
	return Failed
}

// dbusReason goes by the names of the D-Bus specification, "Standard errors",
// and of the Secret Service API, "Errors".
func dbusReason(name string) Reason {
	switch name {
	case "org.freedesktop.Secret.Error.IsLocked":
		return Locked
	case "org.freedesktop.Secret.Error.NoSuchObject",
		"org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.UnknownObject",
		"org.freedesktop.DBus.Error.UnknownInterface":
		return NoService
	case "org.freedesktop.DBus.Error.Timeout",
		"org.freedesktop.DBus.Error.TimedOut",
		"org.freedesktop.DBus.Error.NoReply":
		return Timeout
	case "org.freedesktop.DBus.Error.NoServer",
		"org.freedesktop.DBus.Error.Disconnected":
		return NoSession
	}
	if strings.HasPrefix(name, "org.freedesktop.DBus.Error.Spawn.") {
		return NoService
	}
	return Failed
}
