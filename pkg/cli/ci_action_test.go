//go:build unix

package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// releases is a server of releases, and a machine that the action runs on.
type releases struct {
	t   *testing.T
	dir string
	url string

	mu    sync.Mutex
	files map[string][]byte // by path
	asked []string
}

const (
	archiveName = "o365pw_1.2.3_linux_amd64.tar.gz"
	// signature is what the cosign of these tests takes for one.
	signature = "the signature of "
)

// cosignStub records what it is called with, and takes a bundle that names the
// SHA-256 of the file. It stands for cosign, which cannot be asked to sign here:
// that takes the release workflow and a public log.
const cosignStub = `#!/usr/bin/env bash
set -euo pipefail
printf '%s\n' "$@" >"$COSIGN_ARGS"
bundle=
while (($# > 1)); do
	[[ $1 != --bundle ]] || bundle=$2
	shift
done
[[ $(<"$bundle") == "the signature of $( (sha256sum <"$1" 2>/dev/null || shasum -a 256 <"$1") | cut -d ' ' -f 1)" ]]
`

// program is what the release's archive holds: it writes down its arguments.
const program = `#!/usr/bin/env bash
[[ ${1:-} != version ]] || { echo o365pw 1.2.3; exit; }
printf '<%s>\n' "$@"
`

func newReleases(t *testing.T) *releases {
	r := &releases{t: t, dir: t.TempDir(), files: map[string][]byte{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked = append(r.asked, req.URL.Path)
		if req.URL.Path == "/releases/latest" {
			http.Redirect(w, req, "/releases/tag/v1.2.3", http.StatusFound)
			return
		}
		b, ok := r.files[req.URL.Path]
		if !ok {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	r.url = srv.URL + "/releases"
	r.put(archiveName, tarball(t, map[string]string{"o365pw": program, "LICENSE": "MIT"}))
	r.sums(fmt.Sprintf("%s  %s\n%s  o365pw_1.2.3_darwin_arm64.tar.gz\n", sumOf(r.get(archiveName)), archiveName, strings.Repeat("0", 64)))
	r.write("bin/cosign", cosignStub, 0o755)
	return r
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func (r *releases) put(name string, b []byte) { r.files["/releases/download/v1.2.3/"+name] = b }
func (r *releases) get(name string) []byte    { return r.files["/releases/download/v1.2.3/"+name] }
func (r *releases) remove(name string)        { delete(r.files, "/releases/download/v1.2.3/"+name) }
func (r *releases) path(name string) string   { return filepath.Join(r.dir, name) }
func (r *releases) read(name string) string   { b, _ := os.ReadFile(r.path(name)); return string(b) }
func (r *releases) sums(text string)          { r.put("checksums.txt", []byte(text)); r.sign() }
func (r *releases) sign() {
	r.put("checksums.txt.sigstore.json", []byte(signature+sumOf(r.get("checksums.txt"))+"\n"))
}

func (r *releases) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

// action runs a part of the action as a runner does.
func (r *releases) action(part string, env ...string) (stdout, stderr string, err error) {
	r.t.Helper()
	for _, f := range []string{"path", "output"} {
		r.write(f, "", 0o600)
	}
	script, err := filepath.Abs("../../.github/action.sh")
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), "bash", script, part)
	cmd.Dir = r.dir
	cmd.Env = append([]string{
		"PATH=" + r.path("bin") + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "COSIGN_ARGS=" + r.path("cosign-args"),
		"RUNNER_OS=Linux", "RUNNER_ARCH=X64", "RUNNER_TEMP=" + r.path("temp"), "RUNNER_TOOL_CACHE=" + r.path("tools"),
		"GITHUB_PATH=" + r.path("path"), "GITHUB_OUTPUT=" + r.path("output"), "O365PW_RELEASES=" + r.url, "O365PW_VERSION=1.2.3",
	}, env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

func TestActionInstalls(t *testing.T) {
	t.Parallel()
	r := newReleases(t)
	folder := r.path("temp/o365pw/1.2.3/amd64")
	r.write("tools/o365pw/1.2.3/amd64/o365pw", "#!/bin/sh\necho evil", 0o755) // of another job
	for _, version := range []string{"1.2.3", "v1.2.3", "latest"} {
		stdout, stderr, err := r.action("install", "O365PW_VERSION="+version)
		if err != nil || stdout != "" || r.read("path") != folder+"\n" || r.read("output") != "version=1.2.3\npath="+folder+"\n" {
			t.Fatalf("%s: %v\n%s%s\npath %q, output %q", version, err, stdout, stderr, r.read("path"), r.read("output"))
		}
	}
	// Who has to have signed, word for word.
	args := strings.Split(strings.TrimSpace(r.read("cosign-args")), "\n")
	want := []string{"verify-blob", "--bundle", args[2],
		"--certificate-identity", "https://github.com/o365pw/o365pw/.github/workflows/release.yml@refs/tags/v1.2.3",
		"--certificate-oidc-issuer", "https://token.actions.githubusercontent.com", args[len(args)-1]}
	if !slices.Equal(args, want) || !strings.HasSuffix(args[2], "/checksums.txt.sigstore.json") || !strings.HasSuffix(want[7], "/checksums.txt") {
		t.Errorf("cosign was called with %q", args)
	}
	// The first has fetched three files; the others, of the same job, none.
	if len(r.asked) != 4 || r.asked[3] != "/releases/latest" {
		t.Errorf("asked for %q", r.asked)
	}
	left, err := os.ReadDir(r.path("temp/o365pw/1.2.3"))
	if err != nil || len(left) != 1 {
		t.Errorf("left in the cache: %v %v", left, err)
	}
}

// noCosign makes a folder of programs without it, whatever else this machine has.
func noCosign(r *releases) {
	for _, tool := range []string{"mkdir", "mktemp", "rm"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			r.t.Fatal(err)
		}
		r.write("few/"+tool, "#!/bin/sh\nexec "+path+" \"$@\"\n", 0o755)
	}
}

// TestActionFailsClosed: whatever is wrong with a release, nothing of it comes
// onto the PATH, nor into the cache.
func TestActionFailsClosed(t *testing.T) {
	t.Parallel()
	other := tarball(t, map[string]string{"o365pw": "#!/bin/sh\necho evil"})
	for _, tt := range []struct {
		name  string
		spoil func(*releases)
		env   []string
		want  string
	}{
		{"archive changed", func(r *releases) { r.put(archiveName, other) }, nil, "is not what was released"},
		{"checksums changed with it", func(r *releases) {
			r.put(archiveName, other)
			r.put("checksums.txt", []byte(sumOf(other)+"  "+archiveName+"\n"))
		}, nil, "are not signed by the workflow that releases o365pw"},
		{"no signature", func(r *releases) { r.remove("checksums.txt.sigstore.json") }, nil, "checksums.txt.sigstore.json of version 1.2.3 could not be fetched"},
		{"empty signature", func(r *releases) { r.put("checksums.txt.sigstore.json", nil) }, nil, "are not signed"},
		{"no checksums", func(r *releases) { r.remove("checksums.txt") }, nil, "checksums.txt of version 1.2.3 could not be fetched"},
		{"no archive", func(r *releases) { r.remove(archiveName) }, nil, archiveName + " of version 1.2.3 could not be fetched"},
		{"not in the checksums", func(r *releases) { r.sums(strings.Repeat("0", 64) + "  other.tar.gz\n") }, nil, "does not have " + archiveName + " once"},
		{"twice in the checksums", func(r *releases) {
			r.sums(fmt.Sprintf("%s  %s\n%[3]s  %[2]s\n", sumOf(r.get(archiveName)), archiveName, sumOf(other)))
		}, nil, "once"},
		{"no sum", func(r *releases) { r.sums("  " + archiveName + "\n") }, nil, "once"},
		{"no cosign", noCosign, []string{"PATH=few"}, "cosign is not there"},
		{"does not run", func(r *releases) {
			b := tarball(r.t, map[string]string{"o365pw": "#!/bin/sh\nexit 1"})
			r.put(archiveName, b)
			r.sums(sumOf(b) + "  " + archiveName + "\n")
		}, nil, "does not run here"},
		{"no such version", func(*releases) {}, []string{"O365PW_VERSION=1.2.4"}, "could not be fetched"},
		{"version is code", func(*releases) {}, []string{"O365PW_VERSION=1.2.3$(touch hacked)"}, "neither like 1.2.3 nor latest"},
		{"version is a path", func(*releases) {}, []string{"O365PW_VERSION=../../1.2.3"}, "neither like 1.2.3 nor latest"},
		{"other system", func(*releases) {}, []string{"RUNNER_OS=Plan9"}, "no release for the system Plan9"},
		{"other processor", func(*releases) {}, []string{"RUNNER_ARCH=X86"}, "no release for the processor X86"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newReleases(t)
			tt.spoil(r)
			stdout, stderr, err := r.action("install", tt.env...)
			if err == nil || !strings.Contains(stderr, "::error title=o365pw::") || !strings.Contains(stderr, tt.want) {
				t.Errorf("%v, want %q\n%s%s", err, tt.want, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "evil") || r.read("path") != "" || r.read("output") != "" {
				t.Errorf("it came onto the PATH: %q %q\n%s", r.read("path"), r.read("output"), stderr)
			}
			if left, _ := filepath.Glob(r.path("temp/o365pw/*/[!.]*")); len(left) > 0 {
				t.Errorf("it came into the cache: %v", left)
			}
			if new, _ := filepath.Glob(r.path("temp/o365pw/*/.new-*")); len(new) > 0 {
				t.Errorf("left behind: %v", new)
			}
			if _, err := os.Stat(r.path("hacked")); err == nil {
				t.Error("the version was run")
			}
		})
	}
}

// TestActionRuns: a line of args is an argument, and nothing else.
func TestActionRuns(t *testing.T) {
	t.Parallel()
	r := newReleases(t)
	r.write("bin/o365pw", program, 0o755)
	stdout, stderr, err := r.action("run", "O365PW_ARGS=revoke\r\n--name\nOutlook on Mac\n\n$(touch hacked) `touch hacked`; \"quoted\" *\n-x\n\n")
	want := "<revoke>\n<--name>\n<Outlook on Mac>\n<$(touch hacked) `touch hacked`; \"quoted\" *>\n<-x>\n"
	if err != nil || stdout != want {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
	if _, err := os.Stat(r.path("hacked")); err == nil {
		t.Error("an argument was run")
	}
	if _, stderr, err := r.action("run", "O365PW_ARGS=\n"); err == nil || !strings.Contains(stderr, "args is empty") {
		t.Errorf("no arguments: %v\n%s", err, stderr)
	}
	// The command's exit code is the step's.
	r.write("bin/o365pw", "#!/bin/sh\nexit 4", 0o755)
	_, _, err = r.action("run", "O365PW_ARGS=show")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 4 {
		t.Errorf("exit: %v", err)
	}
}

// TestActionFile: no input is put into a script, where it would be code; and the
// steps are those that the tests above run.
func TestActionFile(t *testing.T) {
	b, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Description, Default string }
		Runs   struct {
			Using string
			Steps []struct {
				Uses, Run, Shell string
				Env              map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(b, &action); err != nil {
		t.Fatal(err)
	}
	if action.Runs.Using != "composite" || len(action.Runs.Steps) != 3 {
		t.Fatalf("steps: %+v", action.Runs)
	}
	for i, part := range []string{"", "install", "run"} {
		s := action.Runs.Steps[i]
		if part == "" {
			if !strings.HasPrefix(s.Uses, "sigstore/cosign-installer@") {
				t.Errorf("step %d: %+v", i, s)
			}
		} else if s.Run != `bash "$GITHUB_ACTION_PATH/.github/action.sh" `+part || s.Shell != "bash" || len(s.Env) != 1 {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	if v := action.Runs.Steps[1].Env["O365PW_VERSION"]; v != "${{ inputs.version }}" {
		t.Errorf("version: %q", v)
	}
	if v := action.Runs.Steps[2].Env["O365PW_ARGS"]; v != "${{ inputs.args }}" {
		t.Errorf("args: %q", v)
	}
	for name, in := range action.Inputs {
		if in.Description == "" {
			t.Errorf("input %s has no description", name)
		}
	}
}

// TestActionsArePinned: what is not GitHub's own may not change under a name that
// a workflow, or whoever uses the action, has trusted.
func TestActionsArePinned(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	uses := regexp.MustCompile(`(?m)^\s*- uses: (\S+)`)
	pinned := regexp.MustCompile(`@[0-9a-f]{40}$`)
	for _, file := range append(files, "../../action.yml") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range uses.FindAllStringSubmatch(string(b), -1) {
			if !strings.HasPrefix(m[1], "actions/") && !pinned.MatchString(m[1]) {
				t.Errorf("%s: %s is not pinned to a commit", filepath.Base(file), m[1])
			}
		}
	}
}
