//go:build integration && amd64

package integration

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// TestWindowsKeychain is the life of an app password with the program for Windows,
// and the tests of its keychain, in Wine, whose Credential Manager is another
// implementation of the same interface. Wine 8 has no sockets of the Unix family,
// so that the gateway, which is asked over one, cannot run there.
func TestWindowsKeychain(t *testing.T) {
	t.Parallel()
	w := newWine(t)
	program := w.build("o365pw.exe", "build", "-o", "{}", "github.com/o365pw/o365pw/cmd/o365pw")
	if v := w.run(program, "version"); !strings.Contains(v.stdout, "windows/amd64") {
		t.Errorf("version printed %q", v.stdout)
	}
	tests := w.build("secret.test.exe", "test", "-c", "-tags", "integration", "-o", "{}", "github.com/o365pw/o365pw/pkg/secret")
	if r := w.run(tests, "-test.v", "-test.run=^TestIntegrationCredentialManager$"); r.code != 0 || !strings.Contains(r.stdout, "--- PASS: TestIntegrationCredentialManager") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	s := &sandbox.Server{}
	must(t, s.Start())
	t.Cleanup(func() { s.Close() })
	id, adminSecret := s.AdminClient()
	w.file("ca.pem", s.CAPEM())
	w.state = filepath.Join(w.dir, "state")
	w.secrets = append(w.secrets, adminSecret)
	w.env = append(w.env, "AZURE_CLIENT_ID="+id, "AZURE_CLIENT_SECRET="+adminSecret, "O365PW_KEYCHAIN=system",
		"O365PW_CONFIG="+windowsPath(w.file("config.toml", []byte(s.Config("ca.pem")))), "O365PW_STATE="+windowsPath(w.state))
	o365pw := func(code int, args ...string) string {
		t.Helper()
		r := w.run(program, args...)
		if r.code != code {
			t.Fatalf("o365pw.exe %s: exit code %d, not %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	password := strings.TrimSpace(o365pw(0, "create", "Outlook"))
	if len(password) != 16 {
		t.Fatalf("create printed %q, which is no app password", password)
	}
	w.secrets = append(w.secrets, password)
	if got := o365pw(0, "list", "-o", "name"); strings.TrimSpace(got) != "Outlook" {
		t.Errorf("list printed %q", got)
	}
	if got := o365pw(0, "show", "Outlook", "--password"); strings.TrimSpace(got) != password {
		t.Errorf("show printed another password than create")
	}
	if got := o365pw(1, "doctor"); !strings.Contains(got, "(Windows Credential Manager): written, read and deleted") {
		t.Errorf("doctor says of the keychain:\n%s", got)
	}
	w.checkNoSecrets()
	o365pw(0, "revoke", "Outlook", "--yes")
	o365pw(4, "show", "Outlook", "--password")
	w.checkNoSecrets()
}

// wine is a lab with a Windows of its own.
type wine struct {
	*lab
	wine64 string
}

func newWine(t *testing.T) *wine {
	t.Helper()
	w := &wine{lab: &lab{t: t, dir: t.TempDir()}, wine64: tool(t, "wine64")}
	prefix := filepath.Join(w.dir, "wine")
	w.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "WINEPREFIX=" + prefix, "WINEDEBUG=-all"}
	server := tool(t, "wineserver")
	t.Cleanup(func() {
		// Of this prefix alone; without a server there is nothing to end.
		end := exec.Command(server, "--kill", "--wait")
		end.Env = w.env
		_ = end.Run()
	})
	if r := w.run("wineboot", "--init"); r.code != 0 {
		t.Fatalf("wineboot: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.random(filepath.Join(prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll"))
	return w
}

// random gives Wine 8 the library that Go takes random numbers from, which later
// versions have: its one function is another name for one of advapi32.dll's.
func (w *wine) random(library string) {
	w.t.Helper()
	if _, err := os.Stat(library); !errors.Is(err, fs.ErrNotExist) {
		must(w.t, err)
		return
	}
	definition := w.file("random.def", []byte("LIBRARY bcryptprimitives.dll\nEXPORTS\n ProcessPrng=advapi32.SystemFunction036\n"))
	exports := filepath.Join(w.dir, "random.exp")
	for _, command := range [][]string{
		{"x86_64-w64-mingw32-dlltool", "--input-def", definition, "--output-exp", exports},
		{"x86_64-w64-mingw32-ld", "--dll", "-m", "i386pep", "--entry", "0", "-o", library, exports},
	} {
		if r := w.try("", command[0], command[1:]...); r.code != 0 {
			w.t.Fatalf("%s: %s", command[0], r.stderr)
		}
	}
}

// build runs go for Windows, with {} for the file that it makes.
func (w *wine) build(name string, args ...string) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	for i, arg := range args {
		if arg == "{}" {
			args[i] = file
		}
	}
	cmd := exec.CommandContext(w.t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return file
}

// run runs a program for Windows. What it prints goes to files: Wine's own
// processes go on, and would hold pipes open.
func (w *wine) run(program string, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.wine64, append([]string{program}, args...)...)
	cmd.Env, cmd.Dir = w.env, w.dir
	var output [2]*os.File
	for i := range output {
		var err error
		output[i], err = os.Create(filepath.Join(w.dir, "output."+strconv.Itoa(i)))
		must(w.t, err)
		defer output[i].Close()
	}
	cmd.Stdout, cmd.Stderr = output[0], output[1]
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && (!ended || ctx.Err() != nil) {
		w.t.Fatalf("%s: %v", program, err)
	}
	var said [2]string
	for i, file := range output {
		data, err := os.ReadFile(file.Name())
		must(w.t, err)
		said[i] = string(data)
	}
	return result{said[0], said[1], cmd.ProcessState.ExitCode()}
}

// windowsPath is what Wine calls a file of the system beneath it.
func windowsPath(path string) string { return "Z:" + strings.ReplaceAll(path, "/", `\`) }
