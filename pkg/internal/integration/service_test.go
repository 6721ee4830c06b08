//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unitsOf writes the units that install would write, and returns their paths.
func unitsOf(t *testing.T, dir string, args ...string) (paths []string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"service", "install", "--dry-run", "-o", "json"}, args...)...)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	must(t, err)
	var plan struct {
		Files []struct{ Path, Content string }
	}
	must(t, json.Unmarshal(out, &plan))
	for _, f := range plan.Files {
		if name := filepath.Base(f.Path); strings.HasPrefix(filepath.Ext(name), ".s") {
			paths = append(paths, filepath.Join(dir, name))
			must(t, os.WriteFile(paths[len(paths)-1], []byte(f.Content), 0o644))
		}
	}
	if len(paths) != 2 {
		t.Fatalf("the plan has the units %v:\n%s", paths, out)
	}
	return paths
}

// TestUnits: systemd understands every line of the units, and finds little that
// the machine's service could do beside its work (exposure 1.5 of 10 at most).
func TestUnits(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	verify := func(args ...string) {
		t.Helper()
		cmd := exec.Command(analyze, append([]string{"verify", "--man=no"}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %v: %v\n%s", args, err, out)
		}
	}
	system := unitsOf(t, t.TempDir(), "--system", "--program", "/bin/true")
	verify(system...)
	out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold=15", system[0]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Overall exposure level") {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}

	// A path with all that means something to systemd.
	odd := filepath.Join(t.TempDir(), "a $HOME %h;b")
	must(t, os.Mkdir(odd, 0o755))
	must(t, os.Symlink("/bin/true", filepath.Join(odd, "o365pw")))
	verify(append([]string{"--user"}, unitsOf(t, t.TempDir(), "--user", "--program", filepath.Join(odd, "o365pw"))...)...)

	// That the check can fail.
	must(t, os.WriteFile(system[0], []byte("[Service]\nExecStart=/bin/true\nProtectSytem=strict\n"), 0o644))
	if out, _ := exec.Command(analyze, "verify", "--man=no", system[0]).CombinedOutput(); len(out) == 0 {
		t.Error("systemd-analyze verify has nothing to say of a key that does not exist")
	}
	if err := exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold=15", system[0]).Run(); err == nil {
		t.Error("systemd-analyze security finds a service without a sandbox harmless")
	}
}

// TestSocketActivate: systemd listens, and starts the gateway when the first
// client connects, who is served.
func TestSocketActivate(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: messages()[:1]})
	password := l.create("activated")
	args := []string{"--fdname=imap:pop3:smtp"}
	for _, protocol := range []string{"imap", "pop3", "smtp"} {
		args = append(args, "--listen="+l.gateway[protocol])
	}
	for _, v := range l.env {
		name, _, _ := strings.Cut(v, "=")
		args = append(args, "--setenv="+name) // its value comes from the environment
	}
	p := l.start("systemd-socket-activate", append(args, binary, "serve")...)
	l.server = p
	p.await("Listening on " + l.gateway["smtp"])
	first, err := net.Dial("tcp", l.gateway["pop3"])
	must(t, err)
	defer first.Close()
	p.await("pop3 on " + l.gateway["pop3"])
	greeting, err := bufio.NewReader(first).ReadString('\n')
	if err != nil || !strings.HasPrefix(greeting, "+OK ") {
		t.Errorf("who came first was told %q: %v", greeting, err)
	}
	s := l.signIn(password)
	s.do("FETCH 1 (BODY.PEEK[])")
	p.await(`"msg":"systemd listens","protocol":"smtp","address":"` + l.gateway["smtp"] + `"`)
	s.do("LOGOUT")
	p.terminate()
}

// TestServiceUnderSystemd boots systemd in a container of this machine's files,
// of which nothing is changed, and lives through testdata/service.sh there:
// install, app passwords, start, restart, faults, stop, uninstall. Where no
// container can be started, since that takes root on a machine of one's own,
// there is nothing to see.
func TestServiceUnderSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a container")
	}
	nspawn := tool(t, "systemd-nspawn")
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	root, layers := filepath.Join(dir, "root"), filepath.Join(dir, "layers")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(layers, 0o755))
	mount := func(what, where, kind, options string) {
		t.Helper()
		if err := unix.Mount(what, where, kind, 0, options); err != nil {
			t.Skipf("nothing can be mounted here: %v", err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(where, unix.MNT_DETACH)) })
	}
	mount("tmpfs", layers, "tmpfs", "")
	for _, layer := range []string{"upper", "work"} {
		must(t, os.Mkdir(filepath.Join(layers, layer), 0o755))
	}
	mount("overlay", root, "overlay", "lowerdir=/,upperdir="+layers+"/upper,workdir="+layers+"/work")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	container := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, nspawn, append([]string{"--quiet", "--directory=" + root, "--register=no", "--keep-unit", "--private-network",
			"--console=pipe", "--machine=o365pw-test-" + strconv.Itoa(os.Getpid())}, args...)...)
		cmd.Stdin = bytes.NewReader(nil)
		return cmd.CombinedOutput()
	}
	if out, err := container("true"); err != nil {
		t.Skipf("no container can be started here: %v\n%s", err, out)
	}
	// Not the one with the race detector, which needs what the unit forbids.
	program := filepath.Join(dir, "o365pw")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "github.com/o365pw/o365pw/cmd/o365pw")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build o365pw: %v\n%s", err, out)
	}
	script, err := os.ReadFile("testdata/service.sh")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "service.sh"), script, 0o755))
	unit := filepath.Join(dir, "test.service")
	must(t, os.WriteFile(unit, []byte("[Unit]\nAfter=basic.target dbus.service\nWants=dbus.service\n[Service]\nType=oneshot\nExecStart=/bin/bash /test/service.sh\n"), 0o644))
	boot, err := container("--boot", "--bind="+dir+":/test", "--bind-ro="+program+":/usr/local/bin/o365pw", "--bind-ro="+unit+":/etc/systemd/system/o365pw-test.service",
		"--", "--unit=o365pw-test.service")
	out, rerr := os.ReadFile(filepath.Join(dir, "out"))
	if !strings.HasSuffix(string(out), "+ echo all went well\nall went well\n+ systemctl poweroff\n") {
		t.Errorf("%v %v\n%s\n%s", err, rerr, out, boot)
	}
}
