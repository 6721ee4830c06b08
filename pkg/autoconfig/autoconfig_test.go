package autoconfig

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"howett.net/plist"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

func handler() *Handler {
	return &Handler{
		Domains:   func() []string { return []string{"contoso.com", "fabrikam.com"} },
		Listeners: map[string]string{"imap": "0.0.0.0:993", "pop3": "[::]:995", "smtp": "192.0.2.1:465"},
		Certified: func(host string) bool { return strings.HasSuffix(host, "contoso.com") || host == "192.0.2.7" },
		Machine:   "gateway",
		Roots:     func() []clientconfig.Root { return []clientconfig.Root{{Name: "CA", DER: []byte{0x30, 0}}} },
	}
}

func ask(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

const configPath = "/mail/config-v1.1.xml?emailaddress="

// TestWho: who is told of settings, and that mailboxes cannot be told apart.
func TestWho(t *testing.T) {
	h := handler()
	long := strings.Repeat("a", 65)
	for _, tt := range []struct {
		method, url string
		want        int
	}{
		{"GET", "https://autoconfig.contoso.com" + configPath + "alice@contoso.com", 200},
		{"HEAD", "https://autoconfig.contoso.com" + configPath + "alice@contoso.com", 200},
		{"GET", "https://contoso.com/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress=alice%40CONTOSO.COM", 200},
		{"GET", "https://autoconfig.contoso.com/mail/config-v1.1.xml", 200},
		{"GET", "https://contoso.com/mail/config-v1.1.xml", 200},
		{"GET", "https://gateway/mail/config-v1.1.xml", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "alice@example.org", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "alice", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "@contoso.com", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "a@b@contoso.com", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "a%0d%0ab@contoso.com", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + "a..b@contoso.com", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + ".a@contoso.com", 404},
		{"GET", "https://autoconfig.contoso.com" + configPath + long + "@contoso.com", 404},
		{"GET", "https://x" + configPath + "a@contoso.com&emailaddress=b@contoso.com", 404},
		{"GET", "https://x" + configPath + "%zz", 404},
		{"GET", "https://x/?" + strings.Repeat("a", 1025), 414},
		{"POST", "https://autoconfig.contoso.com" + configPath + "alice@contoso.com", 405},
		{"GET", "https://autodiscover.contoso.com/autodiscover/autodiscover.xml", 405},
		{"GET", "https://autodiscover.contoso.com/Autodiscover/Autodiscover.xml", 405},
		{"GET", "https://x/profile.mobileconfig?address=alice@contoso.com", 200},
		{"GET", "https://x/profile.mobileconfig?address=alice@example.org", 404},
		{"GET", "https://x/profile.mobileconfig", 404},
		{"GET", "https://x/dns?domain=contoso.com", 200},
		{"GET", "https://autoconfig.fabrikam.com/", 200},
		{"GET", "https://x/dns?domain=example.org", 404},
		{"GET", "https://x/", 404},
		{"GET", "https://x/other", 404},
		{"GET", "https://x/mail/../etc/passwd", 404},
	} {
		if got := ask(h, tt.method, tt.url, ""); got.Code != tt.want {
			t.Errorf("%s %s: %d, want %d: %s", tt.method, tt.url, got.Code, tt.want, got.Body)
		}
	}
	if got := ask(h, "GET", "https://x/autodiscover/autodiscover.xml", ""); got.Header().Get("Allow") != "POST" {
		t.Errorf("%v", got.Header())
	}
	known, unknown := ask(h, "GET", "https://contoso.com"+configPath+"alice@contoso.com", ""), ask(h, "GET", "https://contoso.com"+configPath+"nobody@contoso.com", "")
	if known.Body.String() != unknown.Body.String() || fmt.Sprint(known.Header()) != fmt.Sprint(unknown.Header()) {
		t.Error("the answer depends on the mailbox")
	}
	if kind := known.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/xml") {
		t.Errorf("Content-Type %s", kind)
	}
}

// TestAnnounced: which host a client is told, by the name by which it came.
func TestAnnounced(t *testing.T) {
	h := handler()
	h.Listeners["pop3"] = "127.0.0.1:1995"
	host := regexp.MustCompile(`<hostname>(.*)</hostname>`)
	for _, tt := range []struct{ by, want string }{
		{"autoconfig.contoso.com", "autoconfig.contoso.com autoconfig.contoso.com 192.0.2.1"},
		{"Mail.Contoso.Com:8443", "mail.contoso.com mail.contoso.com 192.0.2.1"},
		{"192.0.2.7:8443", "192.0.2.7 192.0.2.7 192.0.2.1"},
		{"evil.example", "gateway gateway 192.0.2.1"},
		{"[::1]:8443", "gateway gateway 192.0.2.1"},
	} {
		var got []string
		for _, m := range host.FindAllStringSubmatch(ask(h, "GET", "https://"+tt.by+configPath+"a@contoso.com", "").Body.String(), -1) {
			got = append(got, m[1])
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("by %s: %s, want %s", tt.by, got, tt.want)
		}
	}
}

// TestProfile: what a phone gets is a profile, with the authority.
func TestProfile(t *testing.T) {
	w := ask(handler(), "GET", "https://mail.contoso.com:8443/profile.mobileconfig?address=Alice%2Bnew@contoso.com", "")
	if w.Header().Get("Content-Type") != "application/x-apple-aspen-config" {
		t.Errorf("%v", w.Header())
	}
	var top map[string]any
	if _, err := plist.Unmarshal(w.Body.Bytes(), &top); err != nil {
		t.Fatal(err)
	}
	payloads := top["PayloadContent"].([]any)
	mail := payloads[0].(map[string]any)
	if len(payloads) != 2 || mail["EmailAddress"] != "Alice+new@contoso.com" || mail["IncomingMailServerHostName"] != "mail.contoso.com" || mail["OutgoingMailServerHostName"] != "192.0.2.1" {
		t.Errorf("%v", top)
	}
	h := handler()
	delete(h.Listeners, "smtp") // which a profile cannot be without
	if w := ask(h, "GET", "https://x/profile.mobileconfig?address=a@contoso.com", ""); w.Code != 404 {
		t.Errorf("without SMTP: %d", w.Code)
	}
}

// discoverReply is the answer's schema: [MS-OXDSCLI] section 2.2.4.1.1.2, as far
// as mail programs without Exchange use it. What is not in it is an error.
type discoverReply struct {
	XMLName  xml.Name
	Response struct {
		XMLName xml.Name
		Account *struct {
			AccountType string                       `xml:"AccountType"`
			Action      string                       `xml:"Action"`
			Protocol    []discoverProto              `xml:"Protocol"`
			Other       []struct{ XMLName xml.Name } `xml:",any"`
		} `xml:"Account"`
		Error *struct {
			Time      string `xml:"Time,attr"`
			ID        string `xml:"Id,attr"`
			ErrorCode int
			Message   string
		} `xml:"Error"`
		Other []struct{ XMLName xml.Name } `xml:",any"`
	} `xml:"Response"`
}

type discoverProto struct {
	Type           string                       `xml:"Type"`
	Server         string                       `xml:"Server"`
	Port           int                          `xml:"Port"`
	LoginName      string                       `xml:"LoginName"`
	DomainRequired string                       `xml:"DomainRequired"`
	SPA            string                       `xml:"SPA"`
	SSL            string                       `xml:"SSL"`
	AuthRequired   string                       `xml:"AuthRequired"`
	UsePOPAuth     string                       `xml:"UsePOPAuth"`
	SMTPLast       string                       `xml:"SMTPLast"`
	Other          []struct{ XMLName xml.Name } `xml:",any"`
}

func request(address, schema string) string {
	return `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>` + address + `</EMailAddress>
    <AcceptableResponseSchema>` + schema + `</AcceptableResponseSchema>
  </Request>
</Autodiscover>`
}

const outlook2006a = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"

func discover(t *testing.T, body string) (reply discoverReply, code int) {
	t.Helper()
	w := ask(handler(), "POST", "https://autodiscover.contoso.com/Autodiscover/Autodiscover.xml", body)
	if w.Code != 200 {
		return reply, w.Code
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &reply); err != nil {
		t.Fatalf("%v\n%s", err, w.Body)
	}
	if reply.XMLName != (xml.Name{Space: "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006", Local: "Autodiscover"}) || len(reply.Response.Other) > 0 {
		t.Errorf("%s", w.Body)
	}
	return reply, w.Code
}

func TestAutodiscover(t *testing.T) {
	reply, _ := discover(t, request("o&apos;hara@Contoso.com", outlook2006a))
	account := reply.Response.Account
	if account == nil || reply.Response.XMLName.Space != outlook2006a || account.AccountType != "email" || account.Action != "settings" || len(account.Other) > 0 {
		t.Fatalf("%+v", reply)
	}
	proto := func(kind, server string, port int) discoverProto {
		return discoverProto{Type: kind, Server: server, Port: port, LoginName: "o'hara@Contoso.com", DomainRequired: "off", SPA: "off", SSL: "on", AuthRequired: "on"}
	}
	smtp := proto("SMTP", "192.0.2.1", 465)
	smtp.UsePOPAuth, smtp.SMTPLast = "on", "off"
	want := []discoverProto{proto("IMAP", "autodiscover.contoso.com", 993), proto("POP3", "autodiscover.contoso.com", 995), smtp}
	if fmt.Sprint(account.Protocol) != fmt.Sprint(want) {
		t.Errorf("%+v\nwant %+v", account.Protocol, want)
	}

	for name, tt := range map[string]struct {
		body        string
		code, error int
	}{
		"another domain":  {request("a@example.org", outlook2006a), 404, 0},
		"no address":      {request("alice", outlook2006a), 404, 0},
		"ActiveSync":      {request("alice@contoso.com", "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"), 200, 601},
		"nothing":         {"", 200, 600},
		"no XML":          {"address=alice@contoso.com", 200, 600},
		"no end":          {strings.TrimSuffix(request("alice@contoso.com", outlook2006a), ">"), 200, 600},
		"two addresses":   {request("alice@contoso.com</EMailAddress><EMailAddress>bob@contoso.com", outlook2006a), 200, 600},
		"an entity":       {"<!DOCTYPE a [<!ENTITY x \"alice\">]>" + request("&x;@contoso.com", outlook2006a), 200, 600},
		"unknown entity":  {request("&x;@contoso.com", outlook2006a), 200, 600},
		"another nesting": {"<a>" + request("alice@contoso.com", outlook2006a) + "</a>", 200, 600},
		"deep":            {strings.Repeat("<a>", 5000), 200, 600},
		"a child":         {request("evil<b/>alice@contoso.com", outlook2006a), 200, 600},
		"two roots":       {"<a/>" + request("alice@contoso.com", outlook2006a), 200, 600},
		"too long":        {request("alice@contoso.com", outlook2006a) + strings.Repeat(" ", maxBody), 413, 0},
	} {
		reply, code := discover(t, tt.body)
		got := 0
		if reply.Response.Error != nil {
			got = reply.Response.Error.ErrorCode
			if !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{7}$`).MatchString(reply.Response.Error.Time) || reply.Response.Error.Message == "" || reply.Response.Error.ID == "" {
				t.Errorf("%s: %+v", name, reply.Response.Error)
			}
		}
		if code != tt.code || got != tt.error {
			t.Errorf("%s: %d, error %d; want %d, error %d", name, code, got, tt.code, tt.error)
		}
	}
}

// FuzzRequest: where a whole XML reader takes a request too, it reads the same.
func FuzzRequest(f *testing.F) {
	f.Add(request("alice@contoso.com", outlook2006a))
	f.Add("\xEF\xBB\xBF<?xml version='1.0'?><!-- a --><a:Autodiscover xmlns:a='x' b=\"<>\"\n><a:Request >x<a:EMailAddress> &lt;&#x41;&#66; </a:EMailAddress >" +
		"<o/><AcceptableResponseSchema>s<!-- c --></AcceptableResponseSchema></a:Request></a:Autodiscover>\n")
	f.Add("<a><![CDATA[<b>]]></a>")
	f.Add("<a></b>")
	f.Fuzz(func(t *testing.T, body string) {
		if len(body) > maxBody {
			return
		}
		got, err := parseRequest([]byte(body))
		if err != nil {
			return
		}
		if got.address == "" || got.schema == "" || strings.Contains(got.address+got.schema, "\x00") {
			t.Errorf("%q", got)
		}
		var want struct {
			XMLName xml.Name
			Request []struct {
				Address []string `xml:"EMailAddress"`
				Schema  []string `xml:"AcceptableResponseSchema"`
			}
		}
		if xml.NewDecoder(strings.NewReader(strings.TrimPrefix(body, "\xEF\xBB\xBF"))).Decode(&want) != nil {
			return // we know less of XML, and need less
		}
		var addresses, schemas []string
		for _, r := range want.Request {
			addresses, schemas = append(addresses, r.Address...), append(schemas, r.Schema...)
		}
		line := strings.NewReplacer("\r\n", "\n", "\r", "\n") // XML 1.0 section 2.11
		if len(addresses) != 1 || line.Replace(strings.TrimSpace(addresses[0])) != line.Replace(got.address) ||
			len(schemas) != 1 || line.Replace(strings.TrimSpace(schemas[0])) != line.Replace(got.schema) {
			t.Errorf("%q: %q, and another reads %q %q", body, got, addresses, schemas)
		}
	})
}

// FuzzServe: whatever is asked, the answer is of a known kind, and no header or
// element of another's making.
func FuzzServe(f *testing.F) {
	f.Add("GET", "/mail/config-v1.1.xml?emailaddress=a@contoso.com", "contoso.com", "")
	f.Add("POST", "/autodiscover/autodiscover.xml", "x", request("a@contoso.com", outlook2006a))
	f.Add("GET", "/profile.mobileconfig?address=a@contoso.com", "contoso.com:1", "")
	f.Add("GET", "/dns?domain=contoso.com", "[::1]", "")
	f.Fuzz(func(t *testing.T, method, target, host, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Host: host, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		w := httptest.NewRecorder()
		handler().ServeHTTP(w, r)
		if !slices.Contains([]int{200, 404, 405, 413, 414}, w.Code) {
			t.Errorf("%d", w.Code)
		}
		if w.Code == 200 && strings.HasPrefix(w.Header().Get("Content-Type"), "text/xml") {
			for dec := xml.NewDecoder(w.Body); ; {
				if _, err := dec.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestZone: each line is a record or a comment, and each target a name.
func TestZone(t *testing.T) {
	servers := map[string]clientconfig.Server{"imap": {Port: 993}, "smtp": {Port: 465}}
	record := regexp.MustCompile(`^(\S+)\.\s+IN (SRV +(\d+) (\d+) (\d+) (\S*)\.|A +\S+|AAAA +\S+|CNAME +\S+\.)$`)
	for host, address := range map[string]string{
		"mail.contoso.com":       "CNAME mail.contoso.com.",
		"192.0.2.1":              "A 192.0.2.1",
		"2001:db8::1":            "AAAA 2001:db8::1",
		"gateway":                "",
		"127.0.0.1":              "",
		"autoconfig.contoso.com": "",
	} {
		found := map[string]string{}
		for line := range strings.Lines(string(Zone(Records("contoso.com", host, "8443", servers)))) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, ";") {
				continue
			}
			m := record.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("%s: %q", host, line)
				continue
			}
			found[m[1]] = strings.Join(strings.Fields(m[2]), " ")
			if _, err := netip.ParseAddr(m[6]); err == nil || m[6] != "" && !strings.Contains(m[6], ".") {
				t.Errorf("%s: the target of %q is no name", host, line)
			}
		}
		target := host
		if address != "" && !strings.HasPrefix(address, "CNAME") || host == "gateway" || host == "127.0.0.1" {
			target = "autoconfig.contoso.com"
		}
		want := map[string]string{
			"_imaps._tcp.contoso.com": "SRV 0 1 993 " + target + ".", "_imap._tcp.contoso.com": "SRV 10 1 993 " + target + ".",
			"_pop3s._tcp.contoso.com": "SRV 0 0 0 .", "_pop3._tcp.contoso.com": "SRV 0 0 0 .",
			"_submissions._tcp.contoso.com": "SRV 0 1 465 " + target + ".", "_submission._tcp.contoso.com": "SRV 10 1 465 " + target + ".",
		}
		if address != "" {
			want["autoconfig.contoso.com"] = address
		}
		if fmt.Sprint(found) != fmt.Sprint(want) {
			t.Errorf("%s:\n%v\nwant\n%v", host, found, want)
		}
	}
}
