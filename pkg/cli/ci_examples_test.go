//go:build unix

package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// examples is docs/ci/examples. What is in there is run here as it stands: by the
// real program against the sandbox, in what the platform gives a job.
const examples = "../../docs/ci/examples/"

// ciRunner is a runner of one platform, which has nothing but what the platform
// gives it.
type ciRunner struct {
	t     *testing.T
	m     *machine
	admin string            // client id of the application that trusts the platform
	env   map[string]string // of each job
	file  string            // where the client of a rotated app password reads it
}

const gitLabSubject = "project_path:contoso/mail:ref_type:branch:ref:main"

func newCIRunner(t *testing.T) *ciRunner {
	srv := &sandbox.Server{AdminRoles: []string{"Application.ReadWrite.OwnedBy"}, OIDCSubject: "repo:contoso/mail:environment:mail"}
	m := newMachine(t, srv)
	admin, _ := srv.AdminClient()
	_, _, _, connection := srv.AzurePipelinesOIDC()
	for name, subject := range map[string]string{"github": srv.OIDCSubject, "gitlab": gitLabSubject, "azure": connection, "cluster": "system:serviceaccount:mail:o365pw"} {
		if err := srv.AddFederatedCredential(admin, name, srv.OIDCIssuer(), subject); err != nil {
			t.Fatal(err)
		}
	}
	r := &ciRunner{t: t, m: m, admin: admin, file: filepath.Join(m.dir, "client-password")}
	r.env = map[string]string{
		"PATH": filepath.Join(m.dir, "bin") + ":" + os.Getenv("PATH"), "HOME": m.dir, "GORACE": quickExit, "CI": "true",
		// The sandbox is not Microsoft's cloud, so that there has to be a
		// configuration. State and keychain there are none.
		"O365PW_CONFIG": filepath.Join(m.dir, "config.toml"), "O365PW_STATE": filepath.Join(m.dir, "runner"),
		"DBUS_SESSION_BUS_ADDRESS": "unix:path=" + filepath.Join(m.dir, "no-bus"),
	}
	r.stubs()
	return r
}

// stubs makes a curl that has one release of the program, which is the one under
// test.
func (r *ciRunner) stubs() {
	real, err := exec.LookPath("o365pw")
	if err != nil {
		r.t.Fatal(err)
	}
	archive := tarball(r.t, map[string]string{"o365pw": "#!/bin/sh\nexec " + real + " \"$@\"\n"})
	r.env["O365PW_SHA256"] = sumOf(archive)
	for name, text := range map[string]string{
		"archive": string(archive),
		"bin/curl": `#!/bin/sh
set -eu
test "$1" = -fsSLO
test "$2" = https://github.com/o365pw/o365pw/releases/download/v1.0.0/o365pw_1.0.0_linux_amd64.tar.gz
exec cp ` + filepath.Join(r.m.dir, "archive") + ` "${2##*/}"
`,
		"bin/sha256sum": "#!/bin/sh\nif test -x /usr/bin/sha256sum; then exec /usr/bin/sha256sum \"$@\"; fi\nexec shasum -a 256 \"$@\"\n",
	} {
		path := filepath.Join(r.m.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}

// onGateway gives a job what it has on the gateway's machine.
func (r *ciRunner) onGateway(env map[string]string) {
	for _, v := range r.m.env {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "O365PW_") {
			env[name] = value
		}
	}
}

// script runs a script, or a program, as the platform does.
func (r *ciRunner) script(env map[string]string, program ...string) (log string, code int) {
	r.t.Helper()
	if env["FILE"] != "" {
		env["FILE"] = r.file
	}
	cmd := exec.CommandContext(r.t.Context(), program[0], program[1:]...)
	cmd.Dir = filepath.Join(r.m.dir, "work")
	if err := os.MkdirAll(cmd.Dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		r.t.Fatal(err)
	}
	if failed {
		code = exit.ExitCode()
	}
	return out.String(), code
}

// bash is a script in a file of its own, as runners make it of a step.
func (r *ciRunner) bash(env map[string]string, text string, flags ...string) (log string, code int) {
	r.t.Helper()
	if strings.Contains(text, "${{") || strings.Contains(text, "$(System") {
		r.t.Errorf("an expression of the platform is in a script, where it is code:\n%s", text)
	}
	path := filepath.Join(r.m.dir, "step.sh")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return r.script(env, slices.Concat([]string{"bash", "--noprofile", "--norc"}, flags, []string{path})...)
}

// read decodes the documents of a YAML file.
func (r *ciRunner) read(name string) []map[string]any {
	r.t.Helper()
	b, err := os.ReadFile(examples + name)
	if err != nil {
		r.t.Fatal(err)
	}
	var docs []map[string]any
	for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc map[string]any
		if err := dec.Decode(&doc); err != nil {
			if len(docs) == 0 || err.Error() != "EOF" {
				r.t.Fatalf("%s: %v", name, err)
			}
			return docs
		}
		docs = append(docs, doc)
	}
}

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }
func text(v any) string           { s, _ := v.(string); return s }
func list(v any) []any            { l, _ := v.([]any); return l }

var expression = regexp.MustCompile(`\$\{\{ ?([a-zA-Z0-9_.]+) ?\}\}|\$\(([A-Za-z.]+)\)`)

// expanded adds the variables of one level to env, with the platform's
// expressions in them replaced.
func (r *ciRunner) expanded(env map[string]string, level any, values map[string]string) {
	for name, v := range object(level) {
		env[name] = expression.ReplaceAllStringFunc(fmt.Sprint(v), func(s string) string {
			m := expression.FindStringSubmatch(s)
			value, ok := values[m[1]+m[2]]
			if !ok {
				r.t.Fatalf("%s: nobody sets %s", name, s)
			}
			return value
		})
	}
}

func (r *ciRunner) variables() map[string]string {
	_, mail := r.m.sandbox.MailApp()
	return map[string]string{"vars.AZURE_TENANT_ID": r.m.sandbox.Tenant, "vars.AZURE_CLIENT_ID": r.admin, "vars.O365PW_CLIENT_ID": mail}
}

// github runs a workflow.
func (r *ciRunner) github(task, name string) (log string, code int) {
	r.t.Helper()
	workflow := r.read("github/" + task + ".yml")[0]
	values := r.variables()
	values["inputs.name"] = name
	for _, job := range object(workflow["jobs"]) {
		env := maps.Clone(r.env)
		env["GITHUB_ACTIONS"] = "true"
		if object(object(job)["permissions"])["id-token"] == "write" && object(job)["environment"] == "mail" {
			env["ACTIONS_ID_TOKEN_REQUEST_URL"], env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = r.m.sandbox.GitHubOIDC()
		}
		if _, hosted := object(job)["runs-on"].(string); !hosted {
			r.onGateway(env)
		}
		r.expanded(env, object(job)["env"], values)
		for _, s := range list(object(job)["steps"]) {
			step, env := object(s), maps.Clone(env)
			r.expanded(env, step["env"], values)
			out := ""
			switch uses := text(step["uses"]); {
			case strings.HasPrefix(uses, "o365pw/o365pw@"):
				with := object(step["with"])
				for input := range with {
					if !slices.Contains([]string{"version", "args"}, input) {
						r.t.Errorf("%s: the action has no input %s", task, input)
					}
				}
				if env["O365PW_ARGS"] = text(with["args"]); env["O365PW_ARGS"] == "" {
					continue // it installs, which is tested by itself
				}
				script, err := filepath.Abs("../../.github/action.sh")
				if err != nil {
					r.t.Fatal(err)
				}
				out, code = r.script(env, "bash", script, "run")
			case uses != "":
				r.t.Errorf("%s: what is %s?", task, uses)
			default:
				out, code = r.bash(env, text(step["run"]), "-e")
			}
			if log += out; code != 0 {
				return log, code
			}
		}
	}
	return log, code
}

// gitlab runs a job.
func (r *ciRunner) gitlab(task, name string) (log string, code int) {
	r.t.Helper()
	file := r.read("gitlab/gitlab-ci.yml")[0]
	job := object(file[task])
	base := object(file[text(job["extends"])])
	env := maps.Clone(r.env)
	env["GITLAB_CI"], env["CI_PROJECT_DIR"] = "true", filepath.Join(r.m.dir, "work")
	env["AZURE_TENANT_ID"], env["AZURE_CLIENT_ID"] = r.m.sandbox.Tenant, r.admin
	env["O365PW_TENANT"] = r.m.sandbox.Tenant
	_, env["O365PW_CLIENT_ID"] = r.m.sandbox.MailApp()
	if job["tags"] != nil {
		r.onGateway(env)
	}
	for variable, token := range object(base["id_tokens"]) {
		env[variable] = r.m.sandbox.OIDCToken(gitLabSubject, text(object(token)["aud"]), 10*time.Minute)
	}
	r.expanded(env, base["variables"], nil)
	r.expanded(env, job["variables"], nil)
	if name != "" {
		env["NAME"] = name
	}
	before, ok := job["before_script"]
	if !ok {
		before = base["before_script"]
	}
	var lines []string
	for _, l := range append(list(before), list(job["script"])...) {
		lines = append(lines, text(l))
	}
	return r.bash(env, strings.Join(lines, "\n")+"\n", "-eo", "pipefail")
}

// azure runs a pipeline.
func (r *ciRunner) azure(task, name string) (log string, code int) {
	r.t.Helper()
	pipeline := r.read("azure/" + task + ".yml")[0]
	uri, token, connection, _ := r.m.sandbox.AzurePipelinesOIDC()
	values := map[string]string{"parameters.name": name, "System.AccessToken": token}
	env := maps.Clone(r.env)
	env["TF_BUILD"], env["SYSTEM_OIDCREQUESTURI"], env["AGENT_TEMPDIRECTORY"] = "True", uri, r.m.dir
	env["O365PW_TENANT"] = r.m.sandbox.Tenant
	_, env["O365PW_CLIENT_ID"] = r.m.sandbox.MailApp()
	if object(pipeline["pool"])["vmImage"] == nil {
		r.onGateway(env)
	}
	r.expanded(env, pipeline["variables"], values)
	var steps []any
	for _, s := range list(pipeline["steps"]) {
		if template := text(object(s)["template"]); template != "" {
			steps = append(steps, list(r.read("azure/" + template)[0]["steps"])...)
		} else if object(s)["checkout"] == nil {
			steps = append(steps, s)
		}
	}
	prepend := regexp.MustCompile(`(?m)^##vso\[task\.prependpath\](.+)$`)
	for _, s := range steps {
		step, stepEnv := object(s), maps.Clone(env)
		r.expanded(stepEnv, step["env"], values)
		script := text(step["bash"])
		if task := text(step["task"]); task == "AzureCLI@2" {
			in := object(step["inputs"])
			if in["scriptType"] != "bash" || in["scriptLocation"] != "inlineScript" || text(in["azureSubscription"]) == "" {
				r.t.Errorf("inputs %v", in)
			}
			script = text(in["inlineScript"])
			stepEnv["AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"] = connection
			stepEnv["AZURESUBSCRIPTION_CLIENT_ID"], stepEnv["AZURESUBSCRIPTION_TENANT_ID"] = r.admin, r.m.sandbox.Tenant
		}
		out, code := r.bash(stepEnv, script)
		if log += out; code != 0 {
			return log, code
		}
		if m := prepend.FindStringSubmatch(out); m != nil {
			env["PATH"] = m[1] + ":" + env["PATH"]
		}
	}
	return log, 0
}

// tokenFile runs a job of Kubernetes, or on the gateway's machine the script.
func (r *ciRunner) tokenFile(task, name string) (log string, code int) {
	r.t.Helper()
	env := maps.Clone(r.env)
	const audience = "api://AzureADTokenExchange"
	token := filepath.Join(r.m.dir, "token")
	if err := os.WriteFile(token, []byte(r.m.sandbox.OIDCToken("system:serviceaccount:mail:o365pw", audience, time.Hour)), 0o600); err != nil {
		r.t.Fatal(err)
	}
	env["AZURE_TENANT_ID"], env["AZURE_CLIENT_ID"], env["AZURE_FEDERATED_TOKEN_FILE"] = r.m.sandbox.Tenant, r.admin, token
	if task == "rotate" {
		r.onGateway(env)
		script, err := filepath.Abs(examples + "token-file/rotate.sh")
		if err != nil {
			r.t.Fatal(err)
		}
		return r.script(env, "bash", script, name, r.file)
	}
	env["O365PW_TENANT"] = r.m.sandbox.Tenant
	_, env["O365PW_CLIENT_ID"] = r.m.sandbox.MailApp()
	kind := map[string]string{"expiring": "CronJob", "offboarding": "Job"}[task]
	for _, doc := range r.read("token-file/kubernetes.yaml") {
		if doc["kind"] != kind {
			continue
		}
		spec := object(doc["spec"])
		if kind == "CronJob" {
			spec = object(object(spec["jobTemplate"])["spec"])
		}
		pod := object(object(spec["template"])["spec"])
		container := object(list(pod["containers"])[0])
		source := object(object(list(object(object(list(pod["volumes"])[0])["projected"])["sources"])[0])["serviceAccountToken"])
		mount := object(list(container["volumeMounts"])[0])
		set := map[any]any{}
		for _, e := range list(container["env"]) {
			set[object(e)["name"]] = object(e)["value"]
		}
		if set["AZURE_FEDERATED_TOKEN_FILE"] != fmt.Sprint(mount["mountPath"], "/", source["path"]) || source["audience"] != audience {
			r.t.Errorf("%s: the token is not where it is looked for: %v %v %v", kind, set, mount, source)
		}
		if set["O365PW_CONFIG"] != "" { // the image's is not there
			r.t.Errorf("%s: %v", kind, set)
		}
		args := []string{"o365pw"}
		for _, a := range list(container["args"]) {
			args = append(args, strings.ReplaceAll(text(a), "$(NAME)", name))
		}
		return r.script(env, args...)
	}
	r.t.Fatalf("no %s", kind)
	return "", 0
}

// TestCIExamples runs every example: revoke by name, list what expires, rotate.
func TestCIExamples(t *testing.T) {
	t.Parallel()
	for platform, run := range map[string]func(*ciRunner, string, string) (string, int){
		"github": (*ciRunner).github, "gitlab": (*ciRunner).gitlab, "azure": (*ciRunner).azure, "token-file": (*ciRunner).tokenFile,
	} {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			t.Run("offboarding", func(t *testing.T) {
				r := newCIRunner(t)
				const name = "alice: \"laptop\" $(touch hacked) `touch hacked`; touch hacked #"
				for _, n := range []string{name, name, "bob"} {
					if err := addCredential(r.m.sandbox, n); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 { // the second time there is nothing left to do
					log, code := run(r, "offboarding", name)
					if left := r.m.sandbox.Credentials(); code != 0 || len(left) != 1 || left[0].DisplayName != "bob" {
						t.Fatalf("exit code %d, %d credentials left\n%s", code, len(left), log)
					}
				}
				if found, _ := filepath.Glob(filepath.Join(r.m.dir, "*", "hacked")); len(found) > 0 {
					t.Error("the name was run as code")
				}
			})
			t.Run("expiring", func(t *testing.T) {
				r := newCIRunner(t)
				if err := addCredential(r.m.sandbox, "later"); err != nil {
					t.Fatal(err)
				}
				if log, code := run(r, "expiring", ""); code != 0 {
					t.Errorf("nothing expires: exit code %d\n%s", code, log)
				}
				if err := addCredential(r.m.sandbox, "soon", time.Now().Add(10*24*time.Hour)); err != nil {
					t.Fatal(err)
				}
				if log, code := run(r, "expiring", ""); code != 1 || !strings.Contains(log, "soon") || strings.Contains(log, "later") {
					t.Errorf("one expires: exit code %d\n%s", code, log)
				}
			})
			t.Run("rotate", func(t *testing.T) {
				r := newCIRunner(t)
				old := r.m.run("create", "backup script", "--mailbox", "alice@contoso.com")
				log, code := run(r, "rotate", "backup script")
				fi, err := os.Stat(r.file)
				if code != 0 || err != nil || fi.Mode().Perm() != 0o600 {
					t.Fatalf("exit code %d, %v %v\n%s", code, fi, err, log)
				}
				b, err := os.ReadFile(r.file)
				if now := r.m.run("show", "backup script", "--password"); err != nil || string(b) != now || now == old {
					t.Errorf("the file does not have the new password: %v", err)
				}
				// What a platform was asked to mask it shows nobody.
				log = regexp.MustCompile(`(?m)^(::add-mask::|##vso\[task\.setsecret\]).*$`).ReplaceAllString(log, "")
				if strings.Contains(log, strings.TrimSpace(string(b))) {
					t.Errorf("the password is in the log:\n%s", log)
				}
				if left, _ := filepath.Glob(r.file + ".*"); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				// Where it fails, what was there stays.
				r.m.sandbox.SetFaults(func(f *sandbox.Faults) { f.Forbidden = true })
				log, code = run(r, "rotate", "backup script")
				again, err := os.ReadFile(r.file)
				if left, _ := filepath.Glob(r.file + ".*"); code == 0 || err != nil || !bytes.Equal(again, b) || len(left) > 0 {
					t.Errorf("refused: exit code %d, %v, %v\n%s", code, err, left, log)
				}
			})
		})
	}
}

// TestCIExamplesAreRead holds all examples to their form, also those parts that no
// job runs.
func TestCIExamplesAreRead(t *testing.T) {
	r := &ciRunner{t: t}
	seen := 0
	err := filepath.WalkDir(examples, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		name := strings.TrimPrefix(path, examples)
		switch filepath.Ext(path) {
		case ".yml", ".yaml":
			r.read(name)
		case ".sh":
			if out, err := exec.Command("bash", "-n", path).CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s", name, err, out)
			}
		case ".service", ".timer":
		default:
			t.Errorf("%s: nothing reads it here", name)
		}
		return nil
	})
	if err != nil || seen < 12 {
		t.Errorf("%d files: %v", seen, err)
	}
}
