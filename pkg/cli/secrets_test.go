//go:build unix

package cli_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// secretsOnTheWire notes every secret that crosses it: client secrets, access
// and refresh tokens, authorization codes.
type secretsOnTheWire struct {
	mu   sync.Mutex
	seen map[string]bool
}

var wireSecrets = regexp.MustCompile(`"(?:secretText|access_token|refresh_token|id_token|device_code)" ?: ?"([^"]+)"`)

func (s *secretsOnTheWire) proxy(t *testing.T, base string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		req, err := http.NewRequestWithContext(r.Context(), r.Method, base+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		s.mu.Lock()
		for _, m := range wireSecrets.FindAllStringSubmatch(string(answer), -1) {
			s.seen[m[1]] = true
		}
		s.mu.Unlock()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(answer)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestNoSecretIsWritten runs the whole life of app passwords, with all that
// can go wrong and with --verbose, and looks for every secret that was made in
// every stream, log and file. Only create and show --password may print one.
func TestNoSecretIsWritten(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	wire := &secretsOnTheWire{seen: map[string]bool{}}
	config := filepath.Join(m.dir, "config.toml")
	cfg := m.sandbox.Config(filepath.Join(m.dir, "sandbox-ca.pem"))
	for _, base := range []string{m.sandbox.Authority(), strings.TrimSuffix(m.sandbox.Graph(), "/v1.0")} {
		cfg = strings.ReplaceAll(cfg, base, wire.proxy(t, base))
	}
	cfg += "\n[gateway]\nimap = \"127.0.0.1:0\"\npop3 = \"127.0.0.1:0\"\nsmtp = \"127.0.0.1:0\"\nrevalidate = \"1s\"\n"
	if err := os.WriteFile(config, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	var passwords []string
	run := func(args ...string) {
		cmd, out := m.command(append(args, "--verbose")...)
		_ = cmd.Run() // failures are part of it
		written.Write(out.Bytes())
	}
	create := func(name string, flags ...string) {
		cmd, _ := m.command(append([]string{"create", name, "--verbose"}, flags...)...)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		_ = cmd.Run()
		if p := strings.TrimSpace(out.String()); p != "" {
			passwords = append(passwords, p)
		}
		written.Write(errOut.Bytes())
	}
	gateway, log := m.command("serve", "--verbose")
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	create("one")
	create("two")
	faults := []func(*sandbox.Faults){
		func(f *sandbox.Faults) { f.LoseAddPassword = 1 },
		func(f *sandbox.Faults) { f.GarbageNext = 1 },
		func(f *sandbox.Faults) { f.PolicyMaxLifetime = time.Hour },
		func(f *sandbox.Faults) { f.NoServicePrincipal = true },
		func(f *sandbox.Faults) { f.EntraGarbage = true },
		func(f *sandbox.Faults) { f.Forbidden = true },
		func(f *sandbox.Faults) { f.ConditionalAccess = true },
	}
	for _, fault := range faults {
		m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{}; fault(f) })
		create("with a fault")
		m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
		run("revoke", "with a fault", "--yes", "--if-exists")
	}
	run("list")
	attended := append(slices.Clone(m.env), "AZURE_CLIENT_ID=", "AZURE_CLIENT_SECRET=", "BROWSER=browser")
	for _, args := range [][]string{{"login"}, {"login", "--device-code"}, {"list"}, {"status"}} {
		cmd, out := m.command(append(args, "--verbose")...)
		cmd.Env = attended
		if err := cmd.Run(); err != nil {
			t.Errorf("o365pw %v: %v\n%s", args, err, out)
		}
		written.Write(out.Bytes())
	}
	create("bait", "--decoy")
	run("revoke", "bait", "--yes")
	run("list", "-o", "json")
	run("show", "one")
	run("status", "-o", "json")
	run("create", "one")
	recipient := strings.TrimSpace(m.run("import", "--recipient"))
	moving := filepath.Join(m.dir, "state", "moving.age") // where it is looked at
	run("export", "one", "--to", recipient, "--file", moving)
	run("export", "one", "--to", recipient)
	run("import", moving)
	run("import", moving, "--identity", moving)
	run("revoke", "two", "--yes", "-o", "json")
	_ = gateway.Process.Signal(os.Interrupt)
	_ = gateway.Wait()
	written.Write(log.Bytes())

	secrets := passwords
	wire.mu.Lock()
	for s := range wire.seen {
		secrets = append(secrets, s)
	}
	wire.mu.Unlock()
	_, admin := m.sandbox.AdminClient()
	secrets = append(secrets, admin, "kill")
	if len(passwords) < 3 || len(secrets) < 20 {
		t.Fatalf("only %d passwords and %d secrets were seen", len(passwords), len(secrets))
	}
	look := func(where string, b []byte) {
		for _, s := range secrets {
			if len(s) > 8 && bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds a secret (%.6s…)", where, s)
			}
		}
		if bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a private key", where)
		}
	}
	look("what was printed", written.Bytes())
	files := 0
	err := filepath.WalkDir(filepath.Join(m.dir, "state"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		look(path, b)
		if fi, serr := d.Info(); serr == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
}
