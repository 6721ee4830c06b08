//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestThunderbird sets up Thunderbird from an empty profile, with a name, an
// address and an app password, in its own dialog. It finds the rest at
// https://autoconfig.contoso.com/, reads the mailbox and sends.
func TestThunderbird(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: smallMessages()})
	page := freePorts(t, 1)[0]
	config, err := os.ReadFile(filepath.Join(l.dir, "config.toml"))
	must(t, err)
	l.file("config.toml", fmt.Appendf(config, "autoconfig = %q\n", page))
	password := l.create("thunderbird")
	l.serve().await("settings for mail programs on " + page)
	caPEM, err := os.ReadFile(l.ca)
	must(t, err)
	ca, _ := pem.Decode(caPEM)
	printed := l.o365pw("settings", "thunderbird", "--for", "thunderbird")

	asked := &names{}
	tb := startThunderbird(t, l, connectProxy(t, asked, map[string]string{"autoconfig.contoso.com:443": page, "autodiscover.contoso.com:443": page}))
	const recipient = "thunderbird@example.org"
	run := func(phase string) map[string]any {
		t.Helper()
		return tb.script("thunderbird.js", mailbox, compact(password), base64.StdEncoding.EncodeToString(ca.Bytes), printed, recipient, len(smallMessages()), phase)
	}
	if found := run("find"); found["found"] != true || !strings.Contains(fmt.Sprint(found["shown"]), "autoconfig.contoso.com") {
		t.Fatalf("it has found %v; it has looked at %v", found, asked.all())
	}
	run("password")
	got := run("use")

	found := map[string][]byte{}
	for _, m := range got["messages"].([]any) {
		data, err := base64.StdEncoding.DecodeString(m.(string))
		must(t, err)
		for bytes.HasPrefix(data, []byte("X-Mozilla-")) { // its own lines
			_, data, _ = bytes.Cut(data, []byte("\n"))
		}
		found[subjectOf(data)] = data
	}
	want := smallMessages()
	for i := range want {
		want[i].data = ended(want[i].data) // as it keeps them
	}
	checkMessages(t, "what Thunderbird has fetched", found, want)
	server := func(host, address string) []any {
		return []any{host, float64(atoi(t, port(address))), 3.0, 3.0, mailbox} // TLS from the first byte, a password as it is
	}
	for what, host := range map[string]string{"account": "autoconfig.contoso.com", "printed": "localhost"} {
		if want := []any{server(host, l.gateway["imap"]), server(host, l.gateway["smtp"])}; fmt.Sprint(got[what]) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got[what], want)
		}
	}
	if got["name"] != "Alice Example" || got["address"] != mailbox {
		t.Errorf("it sends as %v <%v>", got["name"], got["address"])
	}
	if sent := l.dovecot.sink.to(recipient); len(sent) != 1 || sent[0].from != mailbox || !bytes.Contains(sent[0].data, []byte("Set up by autoconfiguration.")) {
		t.Errorf("sent: %v", sent)
	}
}

// thunderbird is a Thunderbird that a test drives by Marionette, its protocol for
// that: messages of JSON, each after its length and a colon.
type thunderbird struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	id   int
}

// startThunderbird starts it in an empty profile without a window. All names lead
// to this machine, and its HTTPS goes through the proxy.
func startThunderbird(t *testing.T, l *lab, proxy string) *thunderbird {
	t.Helper()
	marionette := freePorts(t, 1)[0]
	host, proxyPort, _ := net.SplitHostPort(proxy)
	var prefs strings.Builder
	for name, value := range map[string]any{
		"marionette.port": atoi(t, port(marionette)), "network.dns.forceResolve": "127.0.0.1",
		"network.proxy.type": 1, "network.proxy.ssl": host, "network.proxy.ssl_port": atoi(t, proxyPort), "network.proxy.http": host, "network.proxy.http_port": atoi(t, proxyPort),
		"network.proxy.allow_hijacking_localhost": true, "network.proxy.no_proxies_on": "",
		"app.update.auto": false, "app.update.enabled": false, "datareporting.policy.dataSubmissionEnabled": false, "toolkit.telemetry.enabled": false,
		"mail.provider.suppress_dialog_on_startup": true, "mail.spotlight.firstRunDone": true, "mail.winsearch.firstRunDone": true, "mail.shell.checkDefaultClient": false,
		"mailnews.start_page.enabled": false, "mail.rights.version": 1, "extensions.update.enabled": false, "security.sandbox.content.level": 0,
	} {
		v, err := json.Marshal(value)
		must(t, err)
		fmt.Fprintf(&prefs, "user_pref(%q, %s);\n", name, v)
	}
	profile := filepath.Dir(l.file("thunderbird/user.js", []byte(prefs.String())))
	l.start("thunderbird", "--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile", profile)
	tb := &thunderbird{t: t}
	eventually(t, "Thunderbird", func() bool {
		conn, err := net.Dial("tcp", marionette)
		tb.conn = conn
		return err == nil
	})
	t.Cleanup(func() { tb.conn.Close() })
	tb.in = bufio.NewReader(tb.conn)
	tb.read() // it says who it is
	tb.do("WebDriver:NewSession", map[string]any{})
	tb.do("WebDriver:SetTimeouts", map[string]any{"script": 60_000})
	tb.do("Marionette:SetContext", map[string]any{"value": "chrome"})
	eventually(t, "Thunderbird's window", func() bool {
		value, err := tb.try("WebDriver:ExecuteScript", map[string]any{"script": `return Services.wm.getMostRecentWindow("mail:3pane")?.document.readyState ?? ""`, "args": []any{}})
		return err == nil && value["value"] == "complete"
	})
	t.Cleanup(func() {
		if t.Failed() {
			tb.picture(filepath.Join(os.TempDir(), "o365pw-thunderbird.png"))
		}
	})
	return tb
}

// read takes one message.
func (tb *thunderbird) read() []byte {
	tb.t.Helper()
	must(tb.t, tb.conn.SetReadDeadline(time.Now().Add(90*time.Second)))
	length, err := tb.in.ReadString(':')
	must(tb.t, err)
	data := make([]byte, atoi(tb.t, strings.TrimSuffix(length, ":")))
	_, err = io.ReadFull(tb.in, data)
	must(tb.t, err)
	return data
}

// try gives a command, and returns what it yields.
func (tb *thunderbird) try(command string, params map[string]any) (value map[string]any, err error) {
	tb.t.Helper()
	tb.id++
	data, err := json.Marshal([]any{0, tb.id, command, params})
	must(tb.t, err)
	_, err = fmt.Fprintf(tb.conn, "%d:%s", len(data), data)
	must(tb.t, err)
	var answer [4]json.RawMessage // 1, the id, an error, a value
	must(tb.t, json.Unmarshal(tb.read(), &answer))
	if string(answer[2]) != "null" {
		return nil, fmt.Errorf("%s: %s", command, answer[2])
	}
	if json.Unmarshal(answer[3], &value) != nil {
		return nil, nil // a list or nothing
	}
	return value, nil
}

func (tb *thunderbird) do(command string, params map[string]any) map[string]any {
	tb.t.Helper()
	value, err := tb.try(command, params)
	must(tb.t, err)
	return value
}

// script runs a file of testdata in Thunderbird's window.
func (tb *thunderbird) script(name string, args ...any) map[string]any {
	tb.t.Helper()
	script, err := os.ReadFile(filepath.Join("testdata", name))
	must(tb.t, err)
	value := tb.do("WebDriver:ExecuteScript", map[string]any{"script": string(script), "args": args, "newSandbox": true, "sandbox": "system"})
	result, ok := value["value"].(map[string]any)
	if !ok {
		tb.t.Fatalf("%s yields %v", name, value)
	}
	return result
}

// picture saves what its window shows.
func (tb *thunderbird) picture(path string) {
	value, err := tb.try("WebDriver:TakeScreenshot", map[string]any{"full": true})
	if err != nil {
		tb.t.Log(err)
		return
	}
	data, err := base64.StdEncoding.DecodeString(fmt.Sprint(value["value"]))
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	tb.t.Logf("what Thunderbird shows is in %s (%v)", path, err)
}

// names are host names that somebody has asked for.
type names struct {
	mu   sync.Mutex
	list []string
}

func (n *names) add(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, name)
}

func (n *names) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// connectProxy stands for DNS and port 443: it connects to the addresses that the
// names have in routes, and to no others.
func connectProxy(t *testing.T, asked *names, routes map[string]string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.add(r.Method + " " + r.Host)
		to, ok := routes[r.Host]
		if r.Method != http.MethodConnect || !ok {
			http.Error(w, "there is no such host", http.StatusBadGateway)
			return
		}
		up, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(up, buffered); up.Close() })
		_, _ = io.Copy(down, up)
		down.Close()
		wg.Wait()
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}
