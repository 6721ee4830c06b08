//go:build unix

package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/cli"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

const quickExit = "atexit_sleep_ms=0"

// TestMain lets the test binary be the program itself: scripts run the real
// main in a process of its own. Only the cost of the keychain's passphrase is
// lowered.
func TestMain(m *testing.M) {
	// The race detector keeps every process for a second when it ends.
	os.Setenv("GORACE", quickExit)
	testscript.Main(m, map[string]func(){
		"o365pw": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			env := cli.OS()
			env.ScryptWorkFactor = 10
			env.GOOS, env.Root = os.Getenv("TEST_GOOS"), os.Getenv("TEST_ROOT") // whose services are installed
			os.Exit(checked(ctx, env))
		},
		// A browser that follows redirects, as a person with a session would.
		"browser": func() {
			if err := browse(os.Args[1], os.Getenv("BROWSER_AS")); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}

// TestScripts runs testdata/script: each file is a session at a shell, against
// a sandbox of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fault":     cmdFault,
			"remote":    cmdRemote,
			"imap":      cmdIMAP,
			"talk":      cmdTalk,
			"codes":     cmdCode,
			"capture":   cmdCapture,
			"nosecrets": cmdNoSecrets,
			"usage":     cmdUsage,
			"web":       cmdWeb,

			"identity":   cmdIdentity,
			"powershell": cmdPowerShell,
			"nowrites":   cmdNoWrites,
			"await":      cmdAwait,
			"arrived":    cmdArrived,
		},
	})
}

// scriptRoles are what setup needs without a person, and no more.
var scriptRoles = []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All", "AppRoleAssignment.ReadWrite.All", "Application.Read.All"}

type scriptKey struct{}

// script is what the custom commands of one script share.
type script struct {
	sandbox *sandbox.Server
	gateway map[string]string // addresses of the gateway the script may start, by protocol

	appCertificate string // key id of the mail application's certificate

	mu       sync.Mutex
	sessions map[string]*imapSession
	secrets  []string
}

func setupScript(e *testscript.Env) error {
	s := &script{sandbox: &sandbox.Server{AutoSignIn: true, AdminRoles: slices.Clone(scriptRoles)}, sessions: map[string]*imapSession{}}
	// A script may have a sandbox.json with other fields of the sandbox.
	b, err := os.ReadFile(filepath.Join(e.WorkDir, "sandbox.json"))
	if err == nil {
		err = json.Unmarshal(b, s.sandbox)
	}
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if s.sandbox.Mailboxes == nil {
		s.sandbox.Mailboxes = append(sandbox.DefaultMailboxes(),
			sandbox.Mailbox{Address: "carol@contoso.com", UPN: "carol.miller@contoso.com", OnlyByUPN: true},
			sandbox.Mailbox{Address: "dave@contoso.com", NoLicence: true})
	}
	if err := s.sandbox.Start(); err != nil {
		return err
	}
	e.Defer(func() {
		for _, c := range s.sessions {
			c.conn.Close()
		}
		s.sandbox.Close()
	})
	e.Values[scriptKey{}] = s
	s.gateway = map[string]string{}
	for _, name := range []string{"imap", "pop3", "smtp"} {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.gateway[name] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	page, err := freePort()
	if err != nil {
		return err
	}
	e.Setenv("AUTOCONFIG", fmt.Sprint(page))               // the same; its port
	e.Setenv("METRICS", fmt.Sprintf("127.0.0.1:%d", port)) // for scripts that configure them
	ca := filepath.Join(e.WorkDir, "sandbox-ca.pem")
	if err := os.WriteFile(ca, s.sandbox.CAPEM(), 0o600); err != nil {
		return err
	}
	cfg := s.sandbox.Config(ca) + fmt.Sprintf("\n[gateway]\nimap = %q\npop3 = %q\nsmtp = %q\nrevalidate = \"1s\"\n", s.gateway["imap"], s.gateway["pop3"], s.gateway["smtp"])
	if err := os.WriteFile(filepath.Join(e.WorkDir, "config.toml"), []byte(cfg), 0o600); err != nil {
		return err
	}
	_, client := s.sandbox.MailApp()
	docs, err := filepath.Abs(filepath.Join("..", "..", "docs"))
	if err != nil {
		return err
	}
	id, secret := s.sandbox.AdminClient()
	s.secrets = append(s.secrets, secret)
	for k, v := range map[string]string{
		"ADMIN_CLIENT_ID": id,

		"GORACE":                     quickExit,
		"HOME":                       filepath.Join(e.WorkDir, "home"),
		"O365PW_CONFIG":              filepath.Join(e.WorkDir, "config.toml"),
		"O365PW_STATE":               filepath.Join(e.WorkDir, "state"),
		"O365PW_KEYCHAIN":            "file",
		"O365PW_KEYCHAIN_PASSPHRASE": "a passphrase of the tests",
		"AZURE_CLIENT_ID":            id,
		"AZURE_CLIENT_SECRET":        secret,
		"ADMIN_ID":                   id,
		"ADMIN_SECRET":               secret,
		"MAIL_CLIENT_ID":             client,
		"MAIL_CLIENT_ID_2":           s.sandbox.MailApps()[len(s.sandbox.MailApps())-1], // where there are more
		"LOGIN_CLIENT_ID":            s.sandbox.LoginClientID(),
		"PERSONAL_CLIENT_ID":         s.sandbox.PersonalClientID(),
		"TENANT":                     s.sandbox.Tenant,
		"AUTHORITY":                  s.sandbox.Authority(),
		"GRAPH":                      s.sandbox.Graph(),
		"GATEWAY":                    s.gateway["imap"],
		"SMTP_PORT":                  s.gateway["smtp"][strings.LastIndex(s.gateway["smtp"], ":")+1:],
		"BROWSER":                    "browser",
		"DOCS":                       docs,
		"DBUS_SESSION_BUS_ADDRESS":   "unix:path=" + filepath.Join(e.WorkDir, "no-bus"),
	} {
		e.Setenv(k, v)
	}
	return nil
}

// freePort is outside of the ports that systems give to connections: until the
// script's gateway listens there, nobody else gets it by chance.
func freePort() (int, error) {
	for {
		port := 20000 + rand.N(12000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, ln.Close()
	}
}

func of(ts *testscript.TestScript) *script { return ts.Value(scriptKey{}).(*script) }

// fault NAME=VALUE... changes the sandbox's faults; "fault none" ends them.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	var change map[string]json.RawMessage
	s := of(ts)
	b, err := json.Marshal(s.sandbox.CurrentFaults())
	ts.Check(err)
	ts.Check(json.Unmarshal(b, &change))
	if len(args) > 0 && args[0] == "none" {
		args, change = args[1:], map[string]json.RawMessage{}
	}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("usage: fault NAME=VALUE")
		}
		if !json.Valid([]byte(value)) {
			value = fmt.Sprintf("%q", value)
		}
		change[name] = json.RawMessage(value)
	}
	b, err = json.Marshal(change)
	ts.Check(err)
	var f sandbox.Faults
	ts.Check(json.Unmarshal(b, &f))
	s.sandbox.SetFaults(func(now *sandbox.Faults) { *now = f })
}

// remote count N | remove NAME | add NAME: what an administrator sees and does.
func cmdRemote(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	switch {
	case len(args) == 2 && args[0] == "count":
		if got := fmt.Sprint(len(s.sandbox.Credentials())); (got == args[1]) == neg {
			ts.Fatalf("the application has %s credentials: %v", got, s.sandbox.Credentials())
		}
	case len(args) == 2 && args[0] == "remove":
		for _, c := range s.sandbox.Credentials() {
			if c.DisplayName == args[1] {
				s.sandbox.RemoveCredential(c.KeyID)
				return
			}
		}
		ts.Fatalf("no credential %q", args[1])
	case len(args) == 2 && args[0] == "add":
		ts.Check(addCredential(s.sandbox, args[1]))
	default:
		ts.Fatalf("usage: remote count N | remove NAME | add NAME")
	}
}

// addCredential makes a credential behind o365pw's back, by plain HTTP. It ends
// after two years, or when end says.
func addCredential(srv *sandbox.Server, name string, end ...time.Time) error {
	id, secret := srv.AdminClient()
	_, client := srv.MailApp()
	resp, err := http.PostForm(srv.Authority()+"/"+srv.Tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {"https://graph.microsoft.com/.default"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tok); err != nil {
		return err
	}
	credential := map[string]any{"displayName": name}
	for _, t := range end {
		credential["endDateTime"] = t.UTC().Format(time.RFC3339)
	}
	body, err := json.Marshal(map[string]any{"passwordCredential": credential})
	if err != nil {
		return err
	}
	req, err := http.NewRequest("POST", srv.Graph()+"/applications(appId='"+client+"')/addPassword", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("client-request-id", "11111111-2222-4333-8444-555555555555")
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("addPassword: %s %s", resp.Status, b)
	}
	return nil
}

// usage NAME TIME PROTOCOL ADDRESS: the gateway writes down a last use.
func cmdUsage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: usage NAME TIME PROTOCOL ADDRESS")
	}
	at, err := time.Parse(time.RFC3339, args[1])
	ts.Check(err)
	dir := ts.Getenv("O365PW_STATE")
	r := apppassword.UsageRecorder{Usage: apppassword.Usage{Dir: dir}, Registry: apppassword.Registry{Dir: dir}}
	before := ts.ReadFile(r.Registry.Path())
	s, err := r.Registry.Load()
	ts.Check(err)
	for _, rec := range s.AppPasswords {
		if rec.Name == args[0] {
			r.Note(rec.ID, apppassword.LastUse{Time: at, Protocol: args[2], Address: args[3]})
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r.Run(ended)
	if ts.ReadFile(r.Registry.Path()) != before {
		ts.Fatalf("the registry has changed")
	}
}

// codes N COMMAND... runs the command and holds it to its exit code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: codes N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if m := regexp.MustCompile(`exit status (\d+)`).FindStringSubmatch(fmt.Sprint(err)); m != nil {
		got = m[1]
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// capture NAME sets a variable to what the last command printed. It is taken
// for a secret from then on.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if value == "" {
		ts.Fatalf("nothing was printed")
	}
	ts.Setenv(args[0], value)
	s := of(ts)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, value)
}

// nosecrets looks through every file of the script for what must not be in it.
// The encrypted keychain is among them.
func cmdNoSecrets(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	s.mu.Lock()
	defer s.mu.Unlock()
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, secret := range s.secrets {
			if bytes.Contains(b, []byte(secret)) {
				return fmt.Errorf("%s holds a secret", path)
			}
		}
		return nil
	}))
}

// web STATUS URL [FILE] prints what is answered, and holds it to its HTTP status.
// FILE is posted. Each host is this machine; https trusts the gateway's authority
// alone.
func cmdWeb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: web STATUS URL [FILE]")
	}
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(filepath.Join(ts.Getenv("O365PW_STATE"), "ca.pem")); err == nil {
		roots.AppendCertsFromPEM(ca)
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true, // as browsers and curl do
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	req, err := http.NewRequest(http.MethodGet, args[1], nil)
	if len(args) == 3 {
		req, err = http.NewRequest(http.MethodPost, args[1], strings.NewReader(ts.ReadFile(args[2])))
	}
	ts.Check(err)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s", b)
	if resp.TLS != nil && resp.TLS.NegotiatedProtocol == "h2" {
		ts.Fatalf("HTTP/2 is offered, which releases are built without")
	}
	if got := fmt.Sprint(resp.StatusCode); got != args[0] {
		ts.Fatalf("HTTP status %s, want %s: %s", got, args[0], b)
	}
}
