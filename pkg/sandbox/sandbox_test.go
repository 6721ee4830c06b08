package sandbox

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// start starts a sandbox that the test closes.
func start(t *testing.T, s *Server) *Server {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// client follows no redirects and keeps no connections, so that each request
// stands alone.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type response struct {
	status int
	header http.Header
	text   string
	body   map[string]any
	err    error // of the transport
}

func send(t *testing.T, method, url, contentType, body string, header ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client(t).Do(req)
	if err != nil {
		return response{err: err}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return response{err: err}
	}
	r := response{status: res.StatusCode, header: res.Header, text: string(text)}
	json.Unmarshal(text, &r.body) // tests look at what they need
	return r
}

const formType = "application/x-www-form-urlencoded"

func postForm(t *testing.T, url string, form url.Values) response {
	t.Helper()
	return send(t, http.MethodPost, url, formType, form.Encode())
}

func (s *Server) tokenURL() string { return s.Authority() + "/" + s.Tenant + "/oauth2/v2.0/token" }

// graphBearer is a Graph token of the admin client.
func graphBearer(t *testing.T, s *Server) string {
	t.Helper()
	id, secret := s.AdminClient()
	return appToken(t, s, id, secret, graphResource)
}

func appToken(t *testing.T, s *Server, id, secret, resource string) string {
	t.Helper()
	r := postForm(t, s.tokenURL(), credentialsForm(id, secret, resource))
	token, _ := r.body["access_token"].(string)
	if r.status != 200 || token == "" {
		t.Fatalf("token: %d %s", r.status, r.text)
	}
	return token
}

func credentialsForm(id, secret, resource string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret},
		"scope": {resource + "/.default"},
	}
}

// call is a Graph call with the bearer token.
func graphCall(t *testing.T, s *Server, bearer, method, path, body string) response {
	t.Helper()
	contentType := ""
	if body != "" {
		contentType = "application/json"
	}
	if !strings.HasPrefix(path, "http") {
		path = s.Graph() + path
	}
	return send(t, method, path, contentType, body, "Authorization", "Bearer "+bearer)
}

// newPassword adds a password credential and gives its key id and secret.
func newPassword(t *testing.T, s *Server, bearer, name string) (keyID, secret string) {
	t.Helper()
	object, _ := s.MailApp()
	r := graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword", `{"passwordCredential":{"displayName":"`+name+`"}}`)
	if r.status != 200 {
		t.Fatalf("addPassword: %d %s %v", r.status, r.text, r.err)
	}
	return r.body["keyId"].(string), r.body["secretText"].(string)
}

// setRoles leaves an application these permissions of Exchange alone.
func setRoles(t *testing.T, s *Server, a *application, roles ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	a.assignments = nil
	if err := s.dir.assign(a, s.dir.exchange, a.created, roles...); err != nil {
		t.Fatal(err)
	}
}

func graphCode(r response) string {
	e, _ := r.body["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

func (s *Server) clientTLS(t *testing.T) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CAPEM()) {
		t.Fatal("CAPEM is no PEM certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func TestStartRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, s := range map[string]*Server{
		"every address":       {GraphAddr: ":0"},
		"another host":        {IMAPAddr: "192.0.2.1:0"},
		"POP3 elsewhere":      {POP3Addr: "0.0.0.0:0"},
		"SMTP elsewhere":      {SMTPAddr: "192.0.2.1:0"},
		"no port":             {AuthorityAddr: "127.0.0.1"},
		"port taken":          {IMAPAddr: taken.Addr().String()},
		"tenant is no GUID":   {Tenant: "contoso"},
		"mailbox, no address": {Mailboxes: []Mailbox{{Address: "alice"}}},
		"mailbox twice":       {Mailboxes: []Mailbox{{Address: "a@b.example"}, {Address: "A@B.example"}}},
		"UPN, no address":     {Mailboxes: []Mailbox{{Address: "a@b.example", UPN: "a"}}},
		"UPN of another":      {Mailboxes: []Mailbox{{Address: "a@b.example"}, {Address: "c@b.example", UPN: "A@b.example"}}},
		"SendAs, no address":  {Mailboxes: []Mailbox{{Address: "a@b.example", SendAs: []string{"b"}}}},
		"message, no header":  {Mailboxes: []Mailbox{{Address: "a@b.example", Messages: [][]byte{[]byte("hello")}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Start(); err == nil {
				s.Close()
				t.Fatal("started")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestStartOnceCloseTwice(t *testing.T) {
	var s Server
	if err := s.Close(); err != nil {
		t.Fatalf("Close before Start: %v", err)
	}
	start(t, &s)
	if err := s.Start(); err == nil {
		t.Fatal("started twice")
	}
	s.Close()
	s.Close()
	for _, addr := range []string{strings.TrimPrefix(s.Authority(), "http://"), s.IMAP(), s.POP3(), s.SMTP()} {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s still listens", addr)
		}
	}
}

// Close must not wait for clients that do nothing.
func TestCloseEndsIdleConnections(t *testing.T) {
	s := start(t, &Server{})
	s.SetFaults(func(f *Faults) { f.ExchangeStall = true })
	for _, addr := range []string{strings.TrimPrefix(s.Authority(), "http://"), strings.TrimSuffix(strings.TrimPrefix(s.Graph(), "http://"), "/v1.0"), s.IMAP(), s.IMAP(), s.POP3(), s.SMTP()} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	s.Close()
}

func TestConfig(t *testing.T) {
	s := start(t, &Server{})
	var c struct {
		DefaultProfile string `toml:"default_profile"`
		Profiles       map[string]map[string]string
		Clouds         map[string]map[string]string
	}
	file := `C:\Users\Zoë "x"/ca.pem`
	if err := toml.NewDecoder(strings.NewReader(s.Config(file))).DisallowUnknownFields().Decode(&c); err != nil {
		t.Fatal(err)
	}
	_, clientID := s.MailApp()
	wantProfile := map[string]string{
		"tenant": s.Tenant, "client_id": clientID, "login_client_id": s.LoginClientID(),
		"mailbox": "alice@contoso.com", "cloud": "sandbox",
	}
	wantCloud := map[string]string{
		"authority": s.Authority(), "graph": s.Graph(), "imap": "imaps://" + s.IMAP(),
		"pop3": "pop3s://" + s.POP3(), "smtp": "smtp://" + s.SMTP(),
		"exchange_resource": "https://outlook.office365.com", "ca_file": file,
	}
	if c.DefaultProfile != "sandbox" || !maps.Equal(c.Profiles["sandbox"], wantProfile) || !maps.Equal(c.Clouds["sandbox"], wantCloud) {
		t.Errorf("got %+v", c)
	}
}

func TestFaultsOverHTTP(t *testing.T) {
	s := start(t, &Server{})
	url := s.Authority() + "/sandbox/faults"
	put := func(body string) response { return send(t, http.MethodPut, url, "application/json", body) }

	r := put(`{"throttleNext":2,"retryAfter":3,"replicationDelay":"1m30s"}`)
	want := Faults{ThrottleNext: 2, RetryAfter: 3, ReplicationDelay: 90 * time.Second}
	if r.status != 200 || s.CurrentFaults() != want {
		t.Fatalf("%d %s: %+v", r.status, r.text, s.CurrentFaults())
	}
	var got Faults
	if err := json.Unmarshal([]byte(send(t, http.MethodGet, url, "", "").text), &got); err != nil || got != want {
		t.Fatalf("GET: %+v, %v", got, err)
	}
	for name, body := range map[string]string{
		"unknown": `{"throttle":1}`, "case": `{"ThrottleNext":1}`, "twice": `{"retryAfter":1,"retryAfter":2}`,
		"type": `{"throttleNext":"1"}`, "duration": `{"listLag":5}`, "negative": `{"listLag":"-5s"}`,
		"two": `{}{}`, "none": ``, "array": `[]`, "cut": `{"retryAfter":1`,
	} {
		if r := put(body); r.status != 400 || s.CurrentFaults() != want {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	if r := send(t, http.MethodPut, url, "text/plain", "{}"); r.status != 415 {
		t.Errorf("text/plain: %d", r.status)
	}
	if r := put(`{}`); r.status != 200 || s.CurrentFaults() != (Faults{}) {
		t.Errorf("reset: %d", r.status)
	}
}

// Every field of Faults has its place in JSON.
func TestFaultsJSONKeepsEverything(t *testing.T) {
	f := Faults{
		ThrottleNext: 1, RetryAfter: 2, ServerErrorNext: 3, ServerErrorStatus: 504, GarbageNext: 5, LoseAddPassword: 6,
		DropAddPassword: 7, LoseRemovePassword: 8, DropRemovePassword: 9, GraphDown: true, Forbidden: true,
		NextLinkBase: "http://x", ReplicationDelay: 1, ListLag: 2, PolicyForbidsSecrets: true, PolicyMaxLifetime: 3,
		PolicyUnreadable: true, EntraDown: true, EntraStatus: 500, EntraPlain: true, EntraGarbage: true,
		ConditionalAccess: true, NoServicePrincipal: true, AppDisabled: true, RevokeRefreshTokens: true,
		ExchangeDown: true, ExchangeStall: true, ExchangeStallAuth: true, ExchangeThrottled: true, ExchangeNotConnected: true, SessionLife: 4,
		SendErrorNext: 1, SendErrorStatus: 429, SendErrorDone: true, SendLoseNext: 2, SendDropNext: 3, SendStallNext: 4, SendLate: 5,
		SendForbidden: true, SentItemsDelay: 6, SentItemsDown: true, ExchangePropagation: 5, SMTPAuthDisabled: true, SMTPConcurrent: true, SMTPStallData: true,
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var got Faults
	if err := json.Unmarshal(b, &got); err != nil || got != f {
		t.Fatalf("%s: %+v, %v", b, got, err)
	}
	if n := len(faultNames()); bytes.Count(b, []byte(`":`)) != n {
		t.Errorf("%d names, JSON %s", n, b)
	}
}

func TestRequestsHoldNoSecrets(t *testing.T) {
	var log bytes.Buffer
	s := start(t, &Server{Log: newTestLog(&log)})
	bearer := graphBearer(t, s)
	_, adminSecret := s.AdminClient()
	_, secret := newPassword(t, s, bearer, "laptop")
	_, mailApp := s.MailApp()
	token := appToken(t, s, mailApp, secret, exchangeResource)
	refused := "wrong8Q~secretsecretsecret"
	postForm(t, s.tokenURL(), credentialsForm(mailApp, refused, exchangeResource))

	requests := s.Requests()
	if len(requests) != 4 || requests[1].Method != "POST" || requests[1].Service != "graph" ||
		!strings.HasSuffix(requests[1].Path, "/addPassword") || requests[1].Status != 200 || requests[3].Status != 401 {
		t.Errorf("requests: %+v", requests)
	}
	if got := s.TokensIssued(); got["client_credentials"] != 2 {
		t.Errorf("tokens: %v", got)
	}
	s.Close()
	said, _ := json.Marshal(requests)
	all := log.String() + string(said)
	for _, hidden := range []string{adminSecret, secret, token, bearer, refused} {
		if strings.Contains(all, hidden) {
			t.Errorf("a secret is in the log or the requests")
		}
	}
	if !strings.Contains(all, "7000215") {
		t.Error("the refusal is not in the log")
	}
}
