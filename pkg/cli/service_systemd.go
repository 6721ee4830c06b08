package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
)

// Names and folders of the machine's service.
const (
	serviceUser   = "o365pw"
	serviceConfig = "/etc/o365pw"
	serviceDir    = "/var/lib/o365pw"

	serviceName = "o365pw.service"
	socketName  = "o365pw.socket"
)

// systemd runs the gateway for a person or for the machine.
type systemd struct {
	a      *app
	system bool
	dir    string // of the units
}

func (a *app) systemd(system bool) (supervisor, error) {
	s := &systemd{a: a, system: system, dir: a.systemPath("/etc/systemd/system")}
	if !system {
		dir := a.Getenv("XDG_CONFIG_HOME")
		if !filepath.IsAbs(dir) {
			home := a.Getenv("HOME")
			if !filepath.IsAbs(home) {
				return nil, &usageError{problem: "HOME is not an absolute path", hint: "set HOME; or make a service of the machine: sudo o365pw service install --system"}
			}
			dir = filepath.Join(home, ".config")
		}
		s.dir = filepath.Join(dir, "systemd", "user")
	}
	return s, nil
}

func (s *systemd) scoped(program string, args ...string) []string {
	line := []string{program}
	if !s.system {
		line = append(line, "--user")
	}
	return append(line, args...)
}

func (s *systemd) systemctl(ctx context.Context, args ...string) error {
	_, err := s.a.ask(ctx, s.scoped("systemctl", args...)...)
	return err
}

// units are those that are there, the socket first: systemd must listen before
// the gateway starts, and no longer when it stops.
func (s *systemd) units() []string {
	for _, dir := range []string{s.dir, s.packaged()} {
		if _, err := os.Stat(filepath.Join(dir, socketName)); err == nil && dir != "" {
			return []string{socketName, serviceName}
		}
	}
	return []string{serviceName}
}

// packaged is where packages put units.
func (s *systemd) packaged() string {
	if s.system {
		return s.a.systemPath("/usr/lib/systemd/system")
	}
	return s.a.systemPath("/usr/lib/systemd/user")
}

// install is writing the units, and for the machine what they rely on.
func (s *systemd) install(ctx context.Context, o serviceOptions) (p servicePlan, err error) {
	addrs, err := s.addresses()
	if err != nil {
		return p, err
	}
	unit, environ, passphraseFile := systemUnit, []string(nil), o.passphraseFile
	if passphraseFile != "" {
		if passphraseFile, err = s.a.checkPassphraseFile(passphraseFile); err != nil {
			return p, err
		}
	}
	if s.system {
		err = s.a.checkSystemProgram(o.program)
	} else {
		unit = userUnit
		environ, err = s.a.serviceEnviron(passphraseFile)
		passphraseFile = ""
	}
	if err != nil {
		return p, err
	}
	unit, err = serviceUnit(unit, o.program, environ, passphraseFile)
	if err != nil {
		return p, err
	}
	if s.system {
		p.files = append(p.files, serviceFile{path: s.a.systemPath("/etc/sysusers.d/o365pw.conf"), content: marked(sysusersFile), same: s.a.systemPath("/usr/lib/sysusers.d/o365pw.conf")})
	}
	p.files = append(p.files, serviceFile{path: filepath.Join(s.dir, serviceName), content: marked(unit), same: filepath.Join(s.packaged(), serviceName)})
	enable := []string{"enable", serviceName}
	if socket := socketUnitFor(addrs); socket != "" {
		p.files = append(p.files, serviceFile{path: filepath.Join(s.dir, socketName), content: marked(socket), same: filepath.Join(s.packaged(), socketName)})
		enable = []string{"enable", socketName, serviceName}
	} else {
		p.unused = append(p.unused, filepath.Join(s.dir, socketName))
	}
	if s.system {
		p.then = append(p.then, s.a.step("systemd-sysusers"),
			s.a.step("install", "-d", "-o", serviceUser, "-g", serviceUser, "-m", "0750", s.a.systemPath(serviceConfig)),
			s.a.step("install", "-d", "-o", serviceUser, "-g", serviceUser, "-m", "0700", s.a.systemPath(serviceDir)))
		if passphraseFile == "" {
			p.then = append(p.then, s.passphrase()...)
		}
	}
	p.then = append(p.then, s.a.step(s.scoped("systemctl", "daemon-reload")...), s.a.step(s.scoped("systemctl", enable...)...))
	p.next = s.next(ctx, o)
	return p, nil
}

// next is what to tell after install.
func (s *systemd) next(ctx context.Context, o serviceOptions) (lines []string) {
	if o.dryRun {
		return nil
	}
	if st, err := s.state(ctx); err == nil && st.Running {
		lines = append(lines, "the service still runs as it was; to take up what is new: "+s.own("stop")+"; "+s.own("start"))
	} else if _, err := os.Stat(s.a.systemPath(serviceConfig + "/config.toml")); s.system && err != nil {
		lines = append(lines, "set it up, as the service's user: sudo o365pw service run setup", "then start it: "+s.own("start"))
	} else {
		lines = append(lines, "start it: "+s.own("start"))
	}
	if name := s.a.Getenv("USER"); !s.system && name != "" {
		if _, err := os.Stat(s.a.systemPath("/var/lib/systemd/linger/" + name)); err != nil {
			lines = append(lines, "it ends when you sign out; to have it run always: sudo loginctl enable-linger "+shellQuote(name))
		}
	}
	return lines
}

// own is a service command with what chooses this service.
func (s *systemd) own(command string) string {
	if s.system {
		return "sudo o365pw service " + command + " --system"
	}
	return "o365pw service " + command
}

// addresses are those that the service's configuration says.
func (s *systemd) addresses() ([]string, error) {
	var cfg *config.Config
	var err error
	if !s.system {
		cfg, err = s.a.loadConfig()
	} else if s.a.configPath != "" {
		return nil, &usageError{problem: "the machine's service has its configuration in " + serviceConfig + "/config.toml", hint: "put the file there, and leave --config out"}
	} else if cfg, err = config.Load(s.a.systemPath(serviceConfig + "/config.toml")); errors.Is(err, fs.ErrNotExist) {
		cfg, err = nil, nil
	}
	g := config.DefaultGateway()
	if cfg != nil {
		g = cfg.Gateway
	}
	return []string{g.IMAP, g.POP3, g.SMTP}, err
}

func (s *systemd) uninstall(ctx context.Context) (p servicePlan, err error) {
	for _, path := range []string{filepath.Join(s.dir, serviceName), filepath.Join(s.dir, socketName)} {
		p.files = append(p.files, serviceFile{path: path})
	}
	p.first = append(p.first, s.a.step(s.scoped("systemctl", append([]string{"disable", "--now"}, s.units()...)...)...))
	p.then = append(p.then, s.a.step(s.scoped("systemctl", "daemon-reload")...))
	p.next = []string{"configuration, state and keychain are still there"}
	if s.system {
		p.files = append(p.files, serviceFile{path: s.a.systemPath("/etc/sysusers.d/o365pw.conf")})
		p.next = []string{"still there: " + serviceConfig + ", " + serviceDir + ", the keychain's passphrase and the user " + serviceUser}
	}
	return p, nil
}

func (s *systemd) start(ctx context.Context) error {
	return s.systemctl(ctx, append([]string{"start"}, s.units()...)...)
}

func (s *systemd) stop(ctx context.Context) error {
	return s.systemctl(ctx, append([]string{"stop"}, s.units()...)...)
}

// restart leaves the sockets open, so that clients wait.
func (s *systemd) restart(ctx context.Context) error {
	return s.systemctl(ctx, "restart", serviceName)
}

func (s *systemd) logs(ctx context.Context, o serviceOptions) error {
	if err := s.a.systemdRuns(); err != nil {
		return err
	}
	args := s.scoped("journalctl", "--unit="+serviceName, "--output=cat", "--no-pager", "--lines="+strconv.Itoa(o.lines))
	if o.follow {
		args = append(args, "--follow")
	}
	return s.a.show(ctx, args...)
}

// systemdTime is how systemd writes a time in UTC, whatever the language.
const systemdTime = "Mon 2006-01-02 15:04:05 MST"

func (s *systemd) state(ctx context.Context) (serviceState, error) {
	st := serviceState{Supervisor: "systemd", Scope: map[bool]string{true: "system", false: "user"}[s.system]}
	if err := s.a.systemdRuns(); err != nil {
		return st, err
	}
	v, err := s.properties(ctx, serviceName, "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "MainPID", "ActiveEnterTimestamp", "FragmentPath")
	if err != nil {
		return st, err
	}
	st.Installed = v["LoadState"] == "loaded"
	st.Path = v["FragmentPath"]
	st.Enabled = strings.HasPrefix(v["UnitFileState"], "enabled")
	st.Running = v["ActiveState"] == "active" || v["ActiveState"] == "reloading"
	if st.State = v["ActiveState"]; v["SubState"] != "" {
		st.State += " (" + v["SubState"] + ")"
	}
	if r := v["Result"]; r != "" && r != "success" {
		st.State += ", " + r
	}
	if st.Running {
		st.PID, _ = strconv.Atoi(v["MainPID"])
		if t, err := time.Parse(systemdTime, v["ActiveEnterTimestamp"]); err == nil {
			st.Since = utc(t)
		}
	}
	st.stateDir = s.a.systemPath(serviceDir)
	if !s.system {
		st.stateDir, _ = config.StateDir(s.a.Getenv)
	}
	if len(s.units()) < 2 {
		return st, nil
	}
	if v, err = s.properties(ctx, socketName, "ActiveState", "Listen"); err == nil && v["ActiveState"] == "active" {
		for line := range strings.Lines(v["Listen"]) {
			st.Sockets = append(st.Sockets, strings.TrimSuffix(strings.TrimSpace(line), " (Stream)"))
		}
	}
	return st, err
}

// properties of a unit; of those that are there several times, one a line.
func (s *systemd) properties(ctx context.Context, unit string, names ...string) (map[string]string, error) {
	out, err := s.a.ask(ctx, s.scoped("systemctl", "show", "--property="+strings.Join(names, ","), unit)...)
	if err != nil {
		return nil, err
	}
	v := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			if _, more := v[name]; more {
				value = v[name] + "\n" + value
			}
			v[name] = value
		}
	}
	return v, nil
}

// checkSystemProgram refuses a program that the machine's service cannot reach:
// homes and temporary files are hidden from it.
func (a *app) checkSystemProgram(path string) error {
	for _, dir := range []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"} {
		if strings.HasPrefix(path, dir) {
			return &noServiceError{problem: fmt.Sprintf("the service cannot run %s: what is in %s is hidden from it", path, dir), hint: "sudo install " + shellQuote(path) + " /usr/local/bin/o365pw, then: sudo /usr/local/bin/o365pw service install --system"}
		}
	}
	return nil
}
