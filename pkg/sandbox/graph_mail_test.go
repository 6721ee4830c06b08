package sandbox

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// graphApp is a token of an application's for Graph, with these roles.
func (s *Server) graphApp(app *application, roles ...string) string {
	text := s.issue(&grant{kind: "client_credentials", app: app, scope: scope{resource: graphResource}}).AccessToken
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entra.tokens[text].roles = roles
	return text
}

// graphPerson is a person's token for Graph, with these scopes.
func (s *Server) graphPerson(address string, scopes ...string) string {
	i := slices.IndexFunc(s.dir.people, func(p *person) bool { return p.address == address })
	return s.issue(&grant{kind: "refresh_token", app: s.dir.mail, person: s.dir.people[i], scope: scope{resource: graphResource, names: scopes}}).AccessToken
}

// outline is a message with these header fields.
func outline(fields ...string) string { return strings.Join(fields, "\r\n") + "\r\n\r\nHello.\r\n" }

var hello = outline("From: Alice <alice@contoso.com>", "To: Bob <bob@contoso.com>", "Message-ID: <hello@contoso.com>", "Subject: Hello")

func post(t *testing.T, s *Server, bearer, mailbox, message string) response {
	t.Helper()
	return send(t, http.MethodPost, s.Graph()+"/users/"+mailbox+"/sendMail", "text/plain", base64.StdEncoding.EncodeToString([]byte(message)), "Authorization", "Bearer "+bearer)
}

// lookUp looks a message up in Sent Items: "found", "none", or the refusal.
func lookUp(t *testing.T, s *Server, bearer, mailbox, id string) string {
	t.Helper()
	q := "$filter=" + url.QueryEscape("internetMessageId eq '"+strings.ReplaceAll(id, "'", "''")+"'") + "&$select=id&$top=1"
	r := send(t, http.MethodGet, s.Graph()+"/users/"+mailbox+"/mailFolders/sentitems/messages?"+q, "", "", "Authorization", "Bearer "+bearer)
	list, _ := r.body["value"].([]any)
	switch {
	case r.status != 200:
		return fmt.Sprintf("%d %s", r.status, graphCode(r))
	case len(list) == 0:
		return "none"
	}
	if id, _ := list[0].(map[string]any)["id"].(string); id == "" || len(list) > 1 {
		t.Errorf("found %s", r.text)
	}
	return "found"
}

// folder is what a folder of a mailbox holds.
func folder(t *testing.T, s *Server, address, name string) []string {
	t.Helper()
	c := imapSignIn(t, s, address, mailToken(t, s), &imapclient.Options{})
	if _, err := c.Select(name, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range fetchAll(t, c) {
		list = append(list, string(m))
	}
	return list
}

// until asks again and again until something is so.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
	}
}

func empty(boxes ...string) []Mailbox {
	var list []Mailbox
	for _, b := range boxes {
		list = append(list, Mailbox{Address: b})
	}
	return list
}

func TestSendMail(t *testing.T) {
	s := start(t, &Server{Mailboxes: empty(alice, bob, "carol@contoso.com"), MailRoles: []string{"Mail.Send", "Mail.ReadBasic"}})
	_, secret := newPassword(t, s, graphBearer(t, s), "laptop")
	_, id := s.MailApp()
	token := appToken(t, s, id, secret, graphResource)
	message := "bcc: hidden@fabrikam.example,\r\n\tcarol@contoso.com\r\nFrom: Alice <alice@contoso.com>\r\nTo: Bob <BOB@contoso.com>, dave@fabrikam.example\r\n" +
		"BCC : bob@contoso.com\r\nCc: undisclosed:;\r\nX-Bcc: stays\r\nMessage-ID: <it's.one@contoso.com>\r\n\r\nBcc: in the text\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	want := "From: Alice <alice@contoso.com>\r\nTo: Bob <BOB@contoso.com>, dave@fabrikam.example\r\n" +
		"Cc: undisclosed:;\r\nX-Bcc: stays\r\nMessage-ID: <it's.one@contoso.com>\r\n\r\nBcc: in the text\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	if got := lookUp(t, s, token, alice, "<it's.one@contoso.com>"); got != "none" {
		t.Error(got)
	}
	if r := post(t, s, token, alice, message); r.status != 202 || r.text != "" {
		t.Fatalf("%d %s", r.status, r.text)
	}
	for _, where := range [][2]string{{alice, "Sent Items"}, {bob, "INBOX"}, {"carol@contoso.com", "INBOX"}} {
		if got := folder(t, s, where[0], where[1]); len(got) != 1 || got[0] != want {
			t.Errorf("%v: %q", where, got)
		}
	}
	for id, want := range map[string]string{"<it's.one@contoso.com>": "found", "<it's.two@contoso.com>": "none", "<one@contoso.com>": "none"} {
		if got := lookUp(t, s, token, alice, id); got != want {
			t.Errorf("%s: %s", id, got)
		}
	}
	if got := lookUp(t, s, token, bob, "<it's.one@contoso.com>"); got != "none" {
		t.Error(got)
	}
	sent := s.Sent()
	if len(sent) != 1 || sent[0].By != "graph" || sent[0].Mailbox != alice || sent[0].From != alice || string(sent[0].Data) != want || string(sent[0].Posted) != message ||
		strings.Join(sent[0].To, " ") != "BOB@contoso.com dave@fabrikam.example hidden@fabrikam.example carol@contoso.com" {
		t.Errorf("%+v", sent)
	}
	if r := send(t, http.MethodPost, s.Graph()+"/users/"+alice+"/sendMail", "text/plain", wrapBase64([]byte(hello)), "Authorization", "Bearer "+token); r.status != 202 {
		t.Errorf("with broken lines: %d %s", r.status, r.text)
	}
}

func TestSendMailIsStrict(t *testing.T) {
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "sales@contoso.com", UPN: "s@contoso.onmicrosoft.com", SendAs: []string{"info@contoso.com"}},
		Mailbox{Address: "new@contoso.com", NoLicence: true}, Mailbox{Address: "zoe@outlook.com", Personal: true})})
	token := s.graphApp(s.dir.mail, "Mail.Send")
	encoded := func(m string) string { return base64.StdEncoding.EncodeToString([]byte(m)) }
	from := func(a string) string { return strings.Replace(hello, "alice@contoso.com", a, 1) }
	multipart := func(kind, body string) string {
		return strings.Replace(hello, "\r\n\r\nHello.\r\n", "\r\nContent-Type: "+kind+"\r\n\r\n"+body, 1)
	}
	const parts = "--x\r\nContent-Type: text/plain\r\n\r\na\r\n--x--\r\n"
	for name, c := range map[string]struct {
		mailbox, kind, body string
		status              int
		code                string
	}{
		"good":               {alice, "text/plain", encoded(hello), 202, ""},
		"by UPN":             {"S@contoso.onmicrosoft.com", "text/plain", encoded(from("sales@contoso.com")), 202, ""},
		"alias":              {"s@contoso.onmicrosoft.com", "text/plain", encoded(from("INFO@contoso.com")), 202, ""},
		"multipart":          {alice, "text/plain", encoded(multipart("multipart/mixed; boundary=x", parts)), 202, ""},
		"by address":         {"sales@contoso.com", "text/plain", encoded(from("sales@contoso.com")), 404, "ErrorInvalidUser"},
		"nobody":             {"mallory@contoso.com", "text/plain", encoded(hello), 404, "ErrorInvalidUser"},
		"no mailbox":         {"new@contoso.com", "text/plain", encoded(hello), 404, "MailboxNotEnabledForRESTAPI"},
		"another tenant":     {"zoe@outlook.com", "text/plain", encoded(hello), 404, "ErrorInvalidUser"},
		"JSON":               {alice, "application/json", `{"message":{}}`, 400, "Request_BadRequest"},
		"charset":            {alice, "text/plain; charset=utf-8", encoded(hello), 400, "Request_BadRequest"},
		"no type":            {alice, "", encoded(hello), 400, "Request_BadRequest"},
		"not base64":         {alice, "text/plain", hello, 400, "ErrorMimeContentInvalidBase64String"},
		"no padding":         {alice, "text/plain", strings.TrimRight(encoded(hello[:len(hello)/3*3-1]+"\r\n"), "="), 400, "ErrorMimeContentInvalidBase64String"},
		"URL alphabet":       {alice, "text/plain", base64.URLEncoding.EncodeToString([]byte(hello + "\xff\xfe\xff\xff")), 400, "ErrorMimeContentInvalidBase64String"},
		"empty":              {alice, "text/plain", "", 400, "ErrorMimeContentInvalidBase64String"},
		"no header":          {alice, "text/plain", encoded("Hello.\r\n"), 400, "ErrorMimeContentInvalid"},
		"bare line feeds":    {alice, "text/plain", encoded(strings.ReplaceAll(hello, "\r\n", "\n")), 400, "ErrorMimeContentInvalid"},
		"long line":          {alice, "text/plain", encoded(hello + strings.Repeat("x", 1001)), 400, "ErrorMimeContentInvalid"},
		"no boundary":        {alice, "text/plain", encoded(multipart("multipart/mixed", parts)), 400, "ErrorMimeContentInvalid"},
		"other boundary":     {alice, "text/plain", encoded(multipart("multipart/mixed; boundary=y", parts)), 400, "ErrorMimeContentInvalid"},
		"cut parts":          {alice, "text/plain", encoded(multipart("multipart/mixed; boundary=x", parts[:len(parts)-4])), 400, "ErrorMimeContentInvalid"},
		"no From":            {alice, "text/plain", encoded(strings.Replace(hello, "From", "X-From", 1)), 400, "ErrorMimeContentInvalid"},
		"two From":           {alice, "text/plain", encoded("From: alice@contoso.com\r\n" + hello), 400, "ErrorMimeContentInvalid"},
		"nonsense From":      {alice, "text/plain", encoded(from("who knows")), 400, "ErrorMimeContentInvalid"},
		"another's From":     {alice, "text/plain", encoded(from("bob@contoso.com")), 403, "ErrorSendAsDenied"},
		"one of two":         {alice, "text/plain", encoded(from("alice@contoso.com>, Bob <bob@contoso.com")), 403, "ErrorSendAsDenied"},
		"another's Sender":   {alice, "text/plain", encoded("Sender: bob@contoso.com\r\n" + hello), 403, "ErrorSendAsDenied"},
		"no recipients":      {alice, "text/plain", encoded(outline("From: alice@contoso.com", "To: undisclosed:;")), 400, "ErrorInvalidRecipients"},
		"nonsense recipient": {alice, "text/plain", encoded(outline("From: alice@contoso.com", "To: who knows")), 400, "ErrorInvalidRecipients"},
	} {
		r := send(t, http.MethodPost, s.Graph()+"/users/"+c.mailbox+"/sendMail", c.kind, c.body, "Authorization", "Bearer "+token)
		if r.status != c.status || graphCode(r) != c.code {
			t.Errorf("%s: %d %s %v", name, r.status, r.text, r.err)
		}
	}
	if n := len(s.Sent()); n != 4 {
		t.Errorf("%d were sent", n)
	}
	for query, code := range map[string]string{
		"?$filter=subject%20eq%20'x'&$select=id&$top=1":                       "ErrorInvalidUrlQueryFilter",
		"?$select=id&$top=1":                                                  "ErrorInvalidUrlQueryFilter",
		"?$filter=internetMessageId%20eq%20'it's'&$select=id&$top=1":          "ErrorInvalidUrlQueryFilter",
		"?$filter=internetMessageId%20eq%20'x'&$top=1":                        "Request_BadRequest",
		"?$filter=internetMessageId%20eq%20'x'&$select=id":                    "Request_BadRequest",
		"?$filter=internetMessageId%20eq%20'x'&$select=id,subject&$top=1":     "Request_BadRequest",
		"?$filter=internetMessageId%20eq%20'x'&$select=id&$top=1&$count=true": "Request_BadRequest",
	} {
		reader := s.graphApp(s.dir.mail, "Mail.Read")
		if r := graphCall(t, s, reader, "GET", "/users/"+alice+"/mailFolders/sentitems/messages"+query, ""); r.status != 400 || graphCode(r) != code {
			t.Errorf("%s: %d %s", query, r.status, r.text)
		}
	}
}

func TestSendMailSize(t *testing.T) {
	s := start(t, &Server{})
	token := s.graphApp(s.dir.mail, "Mail.Send")
	sized := func(n int) string {
		m := hello + strings.Repeat(strings.Repeat("x", 998)+"\r\n", n/1000+1)
		return m[:n-2] + "\r\n"
	}
	if r := post(t, s, token, alice, sized(2_995_000)); r.status != 202 {
		t.Errorf("%d %s", r.status, r.text)
	}
	for _, n := range []int{3_000_000, 3 << 20, 12_000_000} {
		if r := post(t, s, token, alice, sized(n)); r.status != 413 || graphCode(r) != "ErrorMessageSizeExceeded" {
			t.Errorf("%d bytes: %d %s %v", n, r.status, r.text, r.err)
		}
	}
}

// TestSendMailRights: who may send, and look, where.
func TestSendMailRights(t *testing.T) {
	const shared = "office@contoso.com"
	s := start(t, &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: shared}, Mailbox{Address: "zoe@outlook.com", Personal: true})})
	check := func(name, token, mailbox, from string, sends, looks string) {
		t.Helper()
		r := post(t, s, token, mailbox, strings.Replace(hello, alice, from, 1))
		got := fmt.Sprint(r.status)
		if r.status != 202 {
			got += " " + graphCode(r)
		}
		if look := lookUp(t, s, token, mailbox, "<none@contoso.com>"); got != sends || look != looks {
			t.Errorf("%s: %s, %s", name, got, look)
		}
	}
	const denied = "403 ErrorAccessDenied"
	app := s.dir.mail
	check("no role", s.graphApp(app), alice, alice, denied, denied)
	check("Mail.Send", s.graphApp(app, "Mail.Send"), bob, bob, "202", denied)
	check("Mail.Read", s.graphApp(app, "Mail.Read"), bob, bob, denied, "none")
	check("Mail.ReadBasic.All", s.graphApp(app, "Mail.ReadBasic.All"), bob, bob, denied, "none")
	check("both", s.graphApp(app, "Mail.Send", "Mail.ReadBasic"), alice, alice, "202", "none")
	check("another's From", s.graphApp(app, "Mail.Send"), alice, shared, "403 ErrorSendAsDenied", denied)

	both := []string{"Mail.Send", "Mail.ReadBasic", "Mail.Read"}
	check("own", s.graphPerson(alice, both...), alice, alice, "202", "none")
	check("not asked for", s.graphPerson(alice, "User.Read"), alice, alice, denied, denied)
	check("another's", s.graphPerson(bob, both...), shared, shared, denied, denied)
	person := s.graphPerson(bob, "Mail.Send", "Mail.Send.Shared", "Mail.Read.Shared")
	check("no FullAccess", person, shared, shared, denied, denied)
	shell(t, s, "Add-MailboxPermission -Identity "+shared+" -User "+bob+" -AccessRights FullAccess")
	check("FullAccess", person, shared, shared, "403 ErrorSendAsDenied", "none")
	shell(t, s, "Add-RecipientPermission -Identity "+shared+" -Trustee "+bob+" -AccessRights SendAs -Confirm:$false")
	check("SendAs", person, shared, shared, "202", "none")
	check("SendAs, from the own mailbox", person, bob, shared, "202", "none")
	check("SendAs, not asked for", s.graphPerson(bob, both...), bob, shared, denied, "none")
	check("personal", s.graphPerson("zoe@outlook.com", both...), "zoe@outlook.com", "zoe@outlook.com", "202", "none")
	check("personal, in the tenant", s.graphPerson("zoe@outlook.com", both...), alice, alice, denied, denied)

	// RBAC for Applications does for some mailboxes what a role does for all.
	token := s.graphApp(app)
	shell(t, s,
		`New-ManagementScope -Name "Bob" -RecipientRestrictionFilter "PrimarySmtpAddress -eq '`+bob+`'"`,
		`New-ManagementRoleAssignment -Role "Application Mail.Send" -App `+app.clientID+` -CustomResourceScope "Bob"`)
	check("in scope", token, bob, bob, "202", denied)
	check("out of scope", token, alice, alice, denied, denied)
	shell(t, s, `New-ManagementRoleAssignment -Role "Application Mail.ReadBasic" -App `+app.clientID)
	check("without scope", token, alice, alice, denied, "none")
	if out := shell(t, s, "Test-ServicePrincipalAuthorization -Identity "+app.clientID+" -Resource "+bob); !strings.Contains(out, "Application Mail.Send") || !strings.Contains(out, "Mail.ReadBasic") {
		t.Error(out)
	}
	// Nor does it open the protocols.
	setRoles(t, s, app)
	if got := outcome(t, s, "smtp", alice, alice, s.appOnly(app)); got != refused {
		t.Errorf("smtp: %s", got)
	}

	s.SetFaults(func(f *Faults) { f.SendForbidden = true })
	r := post(t, s, s.graphApp(app, "Mail.Send"), alice, hello)
	if r.status != 403 || graphCode(r) != "ErrorAccessDenied" || !strings.Contains(r.text, "AccessPolicy") {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// TestMailScopes: who has signed in to the mail can get a token for Graph with
// the same refresh token, where that was consented to.
func TestMailScopes(t *testing.T) {
	for _, consented := range []bool{false, true} {
		s := &Server{Mailboxes: append(DefaultMailboxes(), Mailbox{Address: "zoe@outlook.com", Personal: true})}
		if consented {
			s.MailScopes = []string{"Mail.Send", "Mail.ReadBasic"}
		}
		start(t, s)
		_, mail := s.MailApp()
		for _, who := range [][3]string{{s.Tenant, mail, alice}, {"consumers", s.PersonalClientID(), "zoe@outlook.com"}} {
			refresh, _ := signInAt(t, s, who[0], who[1], who[2]).body["refresh_token"].(string)
			r := postForm(t, s.at(who[0], "token"), url.Values{"grant_type": {"refresh_token"}, "client_id": {who[1]}, "refresh_token": {refresh},
				"scope": {graphResource + "/Mail.Send " + graphResource + "/Mail.ReadBasic"}})
			token, _ := r.body["access_token"].(string)
			if !consented {
				if token != "" || !strings.Contains(r.text, "AADSTS65001") {
					t.Errorf("%s without consent: %d %s", who[2], r.status, r.text)
				}
				continue
			}
			if r := post(t, s, token, who[2], strings.Replace(hello, alice, who[2], 1)); r.status != 202 {
				t.Errorf("%s: %d %s", who[2], r.status, r.text)
			}
			if got := lookUp(t, s, token, who[2], "<hello@contoso.com>"); got != "found" {
				t.Errorf("%s: %s", who[2], got)
			}
		}
	}
}

// TestSendMailIndependentOfSMTPAuth: where SMTP AUTH is off, Graph sends.
func TestSendMailIndependentOfSMTPAuth(t *testing.T) {
	s := start(t, &Server{})
	shell(t, s, "Set-TransportConfig -SmtpClientAuthenticationDisabled $true")
	if got := outcome(t, s, "smtp", alice, alice, mailToken(t, s)); got != offTenant {
		t.Error(got)
	}
	if r := post(t, s, s.graphApp(s.dir.mail, "Mail.Send"), alice, hello); r.status != 202 {
		t.Errorf("%d %s", r.status, r.text)
	}
}

func TestSendMailFaults(t *testing.T) {
	s := start(t, &Server{Mailboxes: empty(alice, bob)})
	token := s.graphApp(s.dir.mail, "Mail.Send", "Mail.Read")
	for _, c := range []struct {
		name   string
		set    func(*Faults)
		status int // 0: the connection is cut
		code   string
		sent   bool
		wait   string
	}{
		{"429", func(f *Faults) { f.SendErrorNext, f.SendErrorStatus, f.RetryAfter = 1, 429, 7 }, 429, "ApplicationThrottled", false, "7"},
		{"503", func(f *Faults) { f.SendErrorNext, f.RetryAfter = 1, 3 }, 503, "ErrorServerBusy", false, "3"},
		{"500", func(f *Faults) { f.SendErrorNext, f.SendErrorStatus = 1, 500 }, 500, "ErrorInternalServerError", false, ""},
		{"500 after all", func(f *Faults) { f.SendErrorNext, f.SendErrorStatus, f.SendErrorDone = 1, 500, true }, 500, "ErrorInternalServerError", true, ""},
		{"dropped", func(f *Faults) { f.SendDropNext = 1 }, 0, "", false, ""},
		{"lost", func(f *Faults) { f.SendLoseNext = 1 }, 0, "", true, ""},
		{"write dropped", func(f *Faults) { f.DropWriteNext = 1 }, 0, "", false, ""},
		{"write lost", func(f *Faults) { f.LoseWriteNext = 1 }, 0, "", true, ""},
		{"throttled", func(f *Faults) { f.ThrottleNext = 1 }, 429, "TooManyRequests", false, ""},
		{"forbidden", func(f *Faults) { f.SendForbidden = true }, 403, "ErrorAccessDenied", false, ""},
	} {
		s.SetFaults(func(f *Faults) { *f = Faults{}; c.set(f) })
		before := len(s.Sent())
		r := post(t, s, token, alice, strings.Replace(hello, "<hello", "<"+strings.ReplaceAll(c.name, " ", "."), 1))
		if r.status != c.status || graphCode(r) != c.code || (r.err != nil) != (c.status == 0) || r.status != 0 && r.header.Get("Retry-After") != c.wait {
			t.Errorf("%s: %d %s %v", c.name, r.status, r.text, r.err)
		}
		s.SetFaults(func(f *Faults) { *f = Faults{} })
		if got := len(s.Sent()) > before; got != c.sent {
			t.Errorf("%s: sent %v", c.name, got)
		}
		want := map[bool]string{true: "found", false: "none"}[c.sent]
		if got := lookUp(t, s, token, alice, "<"+strings.ReplaceAll(c.name, " ", ".")+"@contoso.com>"); got != want {
			t.Errorf("%s: %s", c.name, got)
		}
		if r := post(t, s, token, alice, hello); r.status != 202 {
			t.Errorf("after %s: %d %s", c.name, r.status, r.text)
		}
	}
	s.SetFaults(func(f *Faults) { f.SentItemsDown = true })
	if got := lookUp(t, s, token, alice, "<lost@contoso.com>"); got != "503 ErrorServerBusy" {
		t.Error(got)
	}
}

func TestSentItemsDelay(t *testing.T) {
	s := start(t, &Server{Mailboxes: empty(alice, bob), Faults: Faults{SentItemsDelay: time.Minute}})
	token := s.graphApp(s.dir.mail, "Mail.Send", "Mail.Read")
	appears := func(id string) { // what is due is put there by others, soon after
		t.Helper()
		until(t, func() bool { return lookUp(t, s, token, alice, id) == "found" })
	}
	if r := post(t, s, token, alice, hello); r.status != 202 {
		t.Fatal(r.text)
	}
	if got := lookUp(t, s, token, alice, "<hello@contoso.com>"); got != "none" {
		t.Error(got)
	}
	if got := folder(t, s, bob, "INBOX"); len(got) != 1 {
		t.Errorf("bob has %q", got)
	}
	s.FastForward(59 * time.Second)
	if got := lookUp(t, s, token, alice, "<hello@contoso.com>"); got != "none" {
		t.Error(got)
	}
	s.FastForward(time.Second)
	appears("<hello@contoso.com>")
	second := strings.Replace(hello, "<hello", "<second", 1)
	if r := post(t, s, token, alice, second); r.status != 202 {
		t.Fatal(r.text)
	}
	s.SetFaults(func(f *Faults) { f.SentItemsDelay = 0 })
	appears("<second@contoso.com>")
}

// TestSendMailConcurrency: of a program, four messages of a mailbox at a time.
func TestSendMailConcurrency(t *testing.T) {
	s := start(t, &Server{Faults: Faults{SendLate: time.Hour}})
	token := s.graphApp(s.dir.mail, "Mail.Send")
	var wg sync.WaitGroup
	for range maxSending {
		wg.Go(func() {
			if r := post(t, s, token, alice, hello); r.status != 202 {
				t.Errorf("%d %s %v", r.status, r.text, r.err)
			}
		})
	}
	until(t, func() bool { return len(s.Sent()) == maxSending })
	if r := post(t, s, token, alice, hello); r.status != 429 || graphCode(r) != "ApplicationThrottled" {
		t.Errorf("the fifth: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.SendLate = 0 })
	wg.Wait()
	for _, box := range []string{alice, bob} {
		if r := post(t, s, token, box, strings.Replace(hello, alice, box, 1)); r.status != 202 {
			t.Errorf("%s, later: %d %s", box, r.status, r.text)
		}
	}
}

// TestSendMailRates: beyond 30 messages a minute are delivered later; beyond
// 10,000 recipients a day are refused.
func TestSendMailRates(t *testing.T) {
	s := start(t, &Server{Mailboxes: empty(alice, bob)})
	token := s.graphApp(s.dir.mail, "Mail.Send")
	for range maxSendPerMinute + 1 {
		if r := post(t, s, token, alice, hello); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.text)
		}
	}
	if n, m := len(s.Sent()), len(folder(t, s, bob, "INBOX")); n != maxSendPerMinute+1 || m != maxSendPerMinute {
		t.Errorf("%d were accepted, %d delivered", n, m)
	}
	s.FastForward(time.Minute)
	until(t, func() bool { return len(folder(t, s, bob, "INBOX")) == maxSendPerMinute+1 })

	var many bytes.Buffer
	many.WriteString("From: bob@contoso.com\r\nTo: a0@fabrikam.example")
	for n := range 4999 {
		fmt.Fprintf(&many, ",\r\n a%d@fabrikam.example", n+1)
	}
	many.WriteString("\r\n\r\nHello.\r\n")
	for n, want := range []int{202, 202, 429} {
		if r := post(t, s, token, bob, many.String()); r.status != want || want == 429 && graphCode(r) != "ErrorSubmissionQuotaExceeded" {
			t.Errorf("message %d: %d %s", n+1, r.status, r.text)
		}
	}
	s.FastForward(24 * time.Hour)
	if r := post(t, s, s.graphApp(s.dir.mail, "Mail.Send"), bob, many.String()); r.status != 202 {
		t.Errorf("a day later: %d %s", r.status, r.text)
	}
}

func TestSendStalls(t *testing.T) {
	s := start(t, &Server{Faults: Faults{SendStallNext: 1}})
	token := s.graphApp(s.dir.mail, "Mail.Send")
	var wg sync.WaitGroup
	wg.Go(func() {
		if r := post(t, s, token, alice, hello); r.err == nil {
			t.Errorf("%d %s", r.status, r.text)
		}
	})
	until(t, func() bool { return s.CurrentFaults().SendStallNext == 0 })
	if len(s.Sent()) != 0 {
		t.Error("sent")
	}
	s.Close()
	wg.Wait()
}
