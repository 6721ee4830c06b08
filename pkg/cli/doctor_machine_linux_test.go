package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/cli"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// newDoctorMachine is a machine whose Graph has no pages: their links would lead
// past the machine's proxies.
func newDoctorMachine(t *testing.T) *machine {
	return newMachine(t, &sandbox.Server{AutoSignIn: true, AdminRoles: []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All"}, PageSize: 50})
}

// inProcess runs a command within the test, with a clock that is ahead.
func (m *machine) inProcess(ctx context.Context, ahead time.Duration, change map[string]string, args ...string) (code int, out string) {
	env := map[string]string{}
	for _, pair := range m.env {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	for name, value := range change {
		env[name] = value
	}
	var b bytes.Buffer
	code = cli.Main(ctx, cli.Env{Args: args, Stdin: strings.NewReader(""), Stdout: &b, Stderr: &bytes.Buffer{},
		Getenv: func(name string) string { return env[name] },
		Now:    func() time.Time { return time.Now().Add(ahead) }, ScryptWorkFactor: 10})
	return code, b.String()
}

func wants(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		want := !strings.HasPrefix(line, "! ")
		if regexp.MustCompile(`(?m)`+strings.TrimPrefix(line, "! ")).MatchString(out) != want {
			t.Errorf("%q is not so:\n%s", line, out)
		}
	}
}

// rewrite changes the machine's configuration.
func (m *machine) rewrite(change func(string) string) {
	m.t.Helper()
	file := filepath.Join(m.dir, "config.toml")
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(change(string(b))), 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// TestDoctorChangesNothing: it asks for tokens and reads, and what it finds
// stays as it is.
func TestDoctorChangesNothing(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	m.run("create", "one", "--allow", "imap,pop3,smtp")
	registry := filepath.Join(m.dir, "state", "registry.json")
	before, err := os.ReadFile(registry)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	m.watch(func(_ int, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token") {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		asked[r.Method+" "+r.URL.Path]++
	}, nil)
	code, out := m.inProcess(t.Context(), 0, nil, "doctor", "one")
	m.watch(nil, nil)
	if code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	after, err := os.ReadFile(registry)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the registry has changed: %v", err)
	}
	if n := len(m.sandbox.Credentials()); n != 1 {
		t.Errorf("%d credentials", n)
	}
	if n := len(m.sandbox.Sent()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	for _, item := range m.keychainItems() {
		if strings.HasPrefix(item, "probe/") {
			t.Errorf("%s is left in the keychain", item)
		}
	}
	for request, n := range asked {
		if n > 4 {
			t.Errorf("%d times %s", n, request)
		}
	}
}

// TestDoctorClock: a clock that is off is told, by how much, and fails once
// Entra refuses it.
func TestDoctorClock(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	m.run("create", "one")
	for ahead, want := range map[time.Duration]string{
		20 * time.Second: `^ok    Clock `, 2 * time.Minute: `^warn  Clock +this machine's is 2m\ds? ahead of Microsoft's`, -2 * time.Minute: `^warn  Clock +.* behind Microsoft's`,
		10 * time.Minute: `^FAIL  Clock +.* ahead of Microsoft's`,
	} {
		code, out := m.inProcess(t.Context(), ahead, nil, "doctor")
		wants(t, out, want)
		if (code == 1) != strings.Contains(want, "FAIL") || code > 1 {
			t.Errorf("%s: exit code %d", ahead, code)
		}
		if strings.Contains(want, "FAIL") {
			wants(t, out, `to mend it: set the clock`, `! For the administrator`)
		}
	}
}

// TestDoctorInBetween: a network that answers in Entra's place, by a page and by
// a redirect.
func TestDoctorInBetween(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	var redirect bool
	portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if redirect {
			http.Redirect(w, r, "http://portal.example/welcome", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<h1>Welcome to the hotel</h1>"))
	}))
	defer portal.Close()
	m.rewrite(func(s string) string {
		return regexp.MustCompile(`(?m)^authority.*$`).ReplaceAllString(s, `authority = "`+portal.URL+`"`)
	})
	for _, redirect = range []bool{false, true} {
		code, out := m.inProcess(t.Context(), 0, nil, "doctor")
		if code != 7 {
			t.Errorf("exit code %d", code)
		}
		wants(t, out, `^FAIL  Entra +.*it answers HTTP \d+ with "text/html" in place of its own answer`, `to mend it: open a page in a browser and sign in to this network`, `^skip  Tenant `, `! Welcome`)
	}
}

// TestDoctorInspected: TLS that somebody on the way has opened names who.
func TestDoctorInspected(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	inspected := httptest.NewUnstartedServer(http.NotFoundHandler())
	inspected.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	inspected.StartTLS()
	defer inspected.Close()
	m.rewrite(func(s string) string {
		return regexp.MustCompile(`(?m)^authority.*$`).ReplaceAllString(s, `authority = "`+inspected.URL+`"`)
	})
	code, out := m.inProcess(t.Context(), 0, nil, "doctor")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, `^FAIL  Entra +.* shows a certificate of "O=Acme Co", which is not trusted here`, `to mend it: .*SSL_CERT_FILE`)
}

// TestDoctorWithoutPermissions: the application has a new service principal,
// without any permission, which Exchange does not know.
func TestDoctorWithoutPermissions(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	m.run("create", "one", "--allow", "imap,smtp")
	m.run("create", "sender", "--allow", "smtp")
	_, client := m.sandbox.MailApp()
	m.sandbox.SetFaults(func(f *sandbox.Faults) { f.NoServicePrincipal = true })
	id, text := m.sandbox.AdminClient()
	c := &entra.Client{Authority: m.sandbox.Authority(), Tenant: m.sandbox.Tenant}
	tok, err := c.ClientSecret(t.Context(), id, secret.New(text), "https://graph.microsoft.com/.default")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", m.sandbox.Graph()+"/servicePrincipals", strings.NewReader(`{"appId":"`+client+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tok.Access.Reveal())
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%v %v", resp, err)
	}
	var made struct{ ID string }
	err = json.NewDecoder(resp.Body).Decode(&made)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}

	code, out := m.inProcess(t.Context(), 0, nil, "doctor", "one")
	if code != 5 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, `^FAIL  Consent +nobody has consented to IMAP.AccessAsApp and SMTP.SendAsApp$`, `^FAIL  Permissions +the token lacks IMAP.AccessAsApp and SMTP.SendAsApp$`,
		`^FAIL  IMAP alice@contoso.com .*\n   1. cause: the token lacks the role IMAP.AccessAsApp`, `az ad app permission admin-consent --id `+client,
		`New-ServicePrincipal -AppId `+client+` -ObjectId `+made.ID, `^Consent to them: `)

	// To send alone, a scoped role in Exchange does without: not a failure by
	// itself.
	_, out = m.inProcess(t.Context(), 0, nil, "doctor", "sender")
	wants(t, out, `^warn  Permissions +the token lacks SMTP.SendAsApp, which is right where Exchange has a scoped role for it$`, `New-ManagementRoleAssignment -Role "Application SMTP.SendAsApp" -App `+client,
		`^FAIL  SMTP alice@contoso.com `)
	if _, err := m.sandbox.PowerShell(strings.Join([]string{
		"Remove-ServicePrincipal -Identity " + client + " -Confirm:$false",
		"New-ServicePrincipal -AppId " + client + " -ObjectId " + made.ID + " -DisplayName mail",
		"New-ManagementRoleAssignment -Role \"Application SMTP.SendAsApp\" -App " + client,
	}, "\n")); err != nil {
		t.Fatal(err)
	}
	code, out = m.inProcess(t.Context(), 0, nil, "doctor", "sender")
	wants(t, out, `^warn  Permissions `, `^ok    SMTP alice@contoso.com `)
	if code != 0 {
		t.Errorf("exit code %d with warnings alone", code)
	}
}

// TestDoctorCertificate: the certificate of backing certificate, unknown to the
// application, known, ending and ended.
func TestDoctorCertificate(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	cert, err := entra.NewCertificate("o365pw", time.Now(), 100*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(m.dir, "app.pem")
	if err := os.WriteFile(file, []byte(cert.PEM().Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	m.rewrite(func(string) string {
		// Assertions are for the token endpoint by its own address.
		s := regexp.MustCompile(`(?m)^backing.*\n`).ReplaceAllString(m.sandbox.Config(filepath.Join(m.dir, "sandbox-ca.pem")), "")
		return strings.Replace(s, "[profiles.sandbox]", "[profiles.sandbox]\nbacking = \"certificate\"\ncertificate = \""+file+"\"", 1)
	})
	code, out := m.inProcess(t.Context(), 0, nil, "doctor")
	wants(t, out, `^FAIL  Certificates +the application does not have the certificate`, `^FAIL  Token for Exchange +.*AADSTS700027`, `to mend it: add the certificate to the application: az ad app credential reset --id .* --append --cert @CERT.pem$`)
	if code != 3 {
		t.Errorf("exit code %d", code)
	}
	_, client := m.sandbox.MailApp()
	if _, err := m.sandbox.AddCertificate(client, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER()})); err != nil {
		t.Fatal(err)
	}
	code, out = m.inProcess(t.Context(), 0, nil, "doctor")
	wants(t, out, `^ok    Certificates +[0-9a-f]{16}…, expires in 3 months$`, `^ok    Token for Exchange +by the certificate of the application$`, `^ok    IMAP alice@contoso.com `, `^skip  Policy for secrets +the backing certificate has no client secrets$`)
	if code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	_, out = m.inProcess(t.Context(), 80*24*time.Hour, nil, "doctor")
	wants(t, out, `^warn  Certificates `)
	_, out = m.inProcess(t.Context(), 101*24*time.Hour, nil, "doctor")
	wants(t, out, `^FAIL  Certificates +.*has expired`, `to mend it: make a new certificate and add it to the application: o365pw setup`)
}

// TestDoctorInterrupted: Ctrl-C ends it at once, with what is known.
func TestDoctorInterrupted(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	m.run("create", "one")
	m.sandbox.SetFaults(func(f *sandbox.Faults) { f.ExchangeStallAuth = true })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{})
	var once sync.Once
	m.watch(nil, func(_ int, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/appRoleAssignments") {
			once.Do(func() { close(asked) })
		}
	})
	go func() {
		<-asked
		cancel()
	}()
	report := filepath.Join(m.dir, "report.txt")
	code, out := m.inProcess(ctx, 0, nil, "doctor", "one", "--report", report)
	if code != 130 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, `^ok    Keychain `, `^skip  IMAP alice@contoso.com +interrupted$`)
	if _, err := os.Stat(report); !os.IsNotExist(err) {
		t.Errorf("there is a report: %v", err)
	}
}

// TestDoctorReportHoldsNothing looks for every secret and every address of the
// sandbox in reports of all that can be wrong.
func TestDoctorReportHoldsNothing(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	wire := &secretsOnTheWire{seen: map[string]bool{}}
	m.rewrite(func(string) string {
		cfg := m.sandbox.Config(filepath.Join(m.dir, "sandbox-ca.pem"))
		for _, base := range []string{m.sandbox.Authority(), strings.TrimSuffix(m.sandbox.Graph(), "/v1.0")} {
			cfg = strings.ReplaceAll(cfg, base, wire.proxy(t, base))
		}
		return cfg
	})
	var hidden []string
	for _, args := range [][]string{{"create", "Printer in the hall"}, {"create", "Bob's phone", "--mailbox", "bob@contoso.com", "--mailbox", "alice@contoso.com"}} {
		hidden = append(hidden, strings.TrimSpace(m.run(args...)), args[1])
	}
	objectID, client := m.sandbox.MailApp()
	admin, text := m.sandbox.AdminClient()
	hidden = append(hidden, objectID, client, admin, text, m.sandbox.Tenant, "alice", "contoso", "kill", m.dir)
	proxy := map[string]string{"HTTPS_PROXY": "http://me:hunter2@proxy.contoso.example:3128"}
	var reports []string
	for _, fault := range []func(*sandbox.Faults){
		func(f *sandbox.Faults) {},
		func(f *sandbox.Faults) { f.ConditionalAccess = true },
		func(f *sandbox.Faults) { f.NoServicePrincipal = true },
		func(f *sandbox.Faults) { f.AppDisabled = true },
		func(f *sandbox.Faults) { f.NoLicence = true },
		func(f *sandbox.Faults) { f.NoExchange = true },
		func(f *sandbox.Faults) { f.Forbidden = true },
		func(f *sandbox.Faults) { f.GarbageNext = 9 },
		func(f *sandbox.Faults) { f.EntraDown = true },
		func(f *sandbox.Faults) { f.ExchangeNotConnected = true },
		func(f *sandbox.Faults) { f.SMTPAuthDisabled = true },
	} {
		m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{}; fault(f) })
		for _, name := range []string{"Printer in the hall", "Bob's phone"} {
			_, out := m.inProcess(t.Context(), 0, proxy, "doctor", name, "--report", "-")
			reports = append(reports, out)
		}
	}
	m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	m.rewrite(func(s string) string { return strings.Replace(s, "imaps://127.0.0.1", "imaps://mx.contoso.example", 1) })
	_, out := m.inProcess(t.Context(), 0, proxy, "doctor", "--report", "-")
	wants(t, out, `^FAIL  Exchange IMAP +.*host-\d+:\d+`)
	reports = append(reports, out)

	wire.mu.Lock()
	for s := range wire.seen {
		hidden = append(hidden, s)
	}
	wire.mu.Unlock()
	if len(hidden) < 20 {
		t.Fatalf("only %d things to look for", len(hidden))
	}
	for _, report := range reports {
		if !strings.HasPrefix(report, "o365pw doctor report\n") {
			t.Fatalf("no report: %s", report)
		}
		for _, s := range append(hidden, "hunter2", "me:") {
			if strings.Contains(strings.ToLower(report), strings.ToLower(s)) {
				t.Errorf("%q is in a report:\n%s", s, report)
			}
		}
	}
}

// TestDoctorGatewayCertificate: the gateway's certificate, good and ended, and a
// protocol that it does not listen for.
func TestDoctorGatewayCertificate(t *testing.T) {
	t.Parallel()
	m := newDoctorMachine(t)
	password := strings.TrimSpace(m.run("create", "one"))
	m.configure("\n[gateway]\nimap = \"127.0.0.1:0\"\npop3 = \"\"\nsmtp = \"\"\n")
	ctx, stop := context.WithCancel(t.Context())
	l := &log{}
	ended := make(chan struct{})
	env := map[string]string{}
	for _, pair := range m.env {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	go func() {
		defer close(ended)
		cli.Main(ctx, cli.Env{Args: []string{"serve"}, Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: l,
			Getenv: func(name string) string { return env[name] }, Now: time.Now, ScryptWorkFactor: 10})
	}()
	defer func() { stop(); <-ended }()
	addr := l.await(t, `imap on (127\.0\.0\.1:\d+)`)[1]
	if s, err := openPlain(addr, password); err != nil {
		t.Fatal(err)
	} else {
		s.conn.Close()
	}
	code, out := m.inProcess(t.Context(), 0, nil, "doctor", "one")
	wants(t, out, `^ok    Gateway's certificate `, `^ok    IMAP at the gateway, alice@contoso.com `, `^FAIL  SMTP at the gateway, .*nothing listens for smtp`)
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	_, out = m.inProcess(t.Context(), 800*24*time.Hour, nil, "doctor")
	wants(t, out, `^FAIL  Gateway's certificate +imap: .*expired`, `to mend it: o365pw serve --stop$`)
}
