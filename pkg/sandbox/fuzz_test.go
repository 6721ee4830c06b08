package sandbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// startFuzzed is a server for as long as fuzzing goes on.
func startFuzzed(f *testing.F) *Server {
	f.Helper()
	s := &Server{}
	if err := s.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	return s
}

// FuzzIMAP sends anything at all to the IMAP front, before and after sign-in.
// It must answer, end, and leave nothing behind.
func FuzzIMAP(f *testing.F) {
	s := startFuzzed(f)
	token := s.issue(&grant{kind: "client_credentials", app: s.dir.mail, scope: scope{resource: exchangeResource}}).AccessToken
	for _, seed := range []string{
		"a CAPABILITY\r\n", "a LOGIN {3}\r\nabc {1+}\r\nx\r\n", "a AUTHENTICATE XOAUTH2 =\r\n", "\r\n", "a\r\n", "a UID\r\n", "* x\r\n",
		"a SELECT INBOX\r\nb FETCH 1:* (FLAGS BODY[])\r\n", "a APPEND INBOX {10}\r\na: b\r\n\r\nxx\r\n", "a IDLE\r\nDONE\r\n", "a IDLE\r\n",
		"a APPEND INBOX (\\Seen) {4+}\r\n", "a SEARCH HEADER {3+}\r\na b {1+}\r\nc\r\n", "a {5+}\r\n", "a SELECT {99999+}\r\nx",
		"a SELECT INBOX\r\nb STORE 1 +FLAGS (\\Deleted)\r\nc EXPUNGE\r\n", "a LIST \"\" *\r\n", "a SEA\rCH HEADER {3+}\r\nq b {1+}\r\nc\r\n",
		"a XYZZY {3+}\r\nabc {2+}\r\nde\r\n", "a FETCH 1 BODY[ {3+}\r\nabc\r\n", "a IDLE\r\nNOOP\r\n", "a NOOP\r\r\n", "a SEARCH HEADER {3+}\r\na b {1+}\r", "a APPEND 0 \"0}\r\n", "a ID (\"x\" {1}\r\nx)\r\n", "a NOOP\nb NOOP\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, authenticated bool) {
		fuzzConn(t, s, append(bytes.Clone(input), "\r\nDONE\r\nzz LOGOUT\r\n"...), func(far net.Conn) {
			c := newIMAPConn(far)
			if !authenticated {
				if sess := s.exchange.imapPreAuth(c); sess != nil {
					s.exchange.signOut(sess)
				}
				return
			}
			sess := fuzzSession(t, s, "IMAP", token)
			defer s.exchange.signOut(sess)
			s.exchange.relayIMAP(c, sess)
		})
	})
}

// fuzzSession is a session of alice's.
func fuzzSession(t *testing.T, s *Server, protocol, token string) *mailSession {
	sess, err := s.exchange.signIn(protocol, "fuzz", []byte("user=alice@contoso.com\x01auth=Bearer "+token+"\x01\x01"))
	if err != nil {
		t.Error(err)
	}
	return sess
}

// fuzzConn sends input to what serves a connection, which must then end with
// nobody signed in. It gives what was answered.
func fuzzConn(t *testing.T, s *Server, input []byte, serve func(net.Conn)) []byte {
	near, far := net.Pipe()
	near.SetDeadline(time.Now().Add(10 * time.Second))
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer far.Close()
		serve(far)
	}()
	go func() {
		near.Write(input)
		near.Close()
	}()
	said, _ := io.ReadAll(near)
	near.Close()
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection goes on")
	}
	if n := len(s.Sessions()); n != 0 {
		t.Fatalf("%d sessions", n)
	}
	return said
}

// FuzzPOP3 sends anything at all to the POP3 front, before and after sign-in.
// Every line of its answers is in the form of RFC 1939, and nothing but QUIT
// deletes a message.
func FuzzPOP3(f *testing.F) {
	s := startFuzzed(f)
	token := s.issue(&grant{kind: "client_credentials", app: s.dir.mail, scope: scope{resource: exchangeResource}}).AccessToken
	for _, seed := range []string{
		"CAPA\r\nUTF8\r\nUSER a\r\nPASS b\r\nQUIT\r\n", "AUTH XOAUTH2\r\n*\r\nAUTH XOAUTH2\r\n=\r\n", "AUTH XOAUTH2 =\r\n", "\r\n", "\n", " ", "A B ",
		"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 1\r\nDELE 1\r\nLIST 1\r\nRSET\r\n", "LIST 0\r\nRETR 99999999999\r\nTOP 1 -1\r\nDELE +1\r\n",
		"TOP 3 2147483647\r\n", "NO\x00OP\r\nNOOP\r\r\n", "RETR " + strings.Repeat("1", 300) + "\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	count := func(t *testing.T) int {
		c := &popConn{x: s.exchange}
		if err := c.open(&mailSession{mailbox: s.exchange.mailbox("alice@contoso.com")}); err != nil {
			t.Fatal(err)
		}
		return len(c.messages)
	}
	f.Fuzz(func(t *testing.T, input []byte, authenticated bool) {
		before := count(t)
		said := fuzzConn(t, s, append(bytes.Clone(input), "\r\n\r\nRSET\r\nQUIT\r\n"...), func(far net.Conn) {
			c := &popConn{lineConn: newLineConn(far), x: s.exchange}
			if authenticated {
				sess := fuzzSession(t, s, "POP", token)
				if err := c.open(sess); err != nil {
					t.Error(err)
				}
				c.sess = sess
			}
			c.serve()
		})
		if after := count(t); after != before && !bytes.Contains(bytes.ToUpper(input), []byte("QUIT")) {
			t.Errorf("%d messages of %d", after, before)
		}
		if lines := strings.SplitAfter(string(said), "\r\n"); !authenticated {
			for i, line := range lines[:len(lines)-1] {
				if !strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "-ERR ") && !slices.Contains(append(popCapabilities, "."), strings.TrimSpace(line)) {
					t.Errorf("line %d: %q", i, line)
				}
			}
		}
	})
}

// FuzzSMTP sends anything at all to the SMTP front: without TLS, under it, and
// after sign-in. Every line of its answers is in the form of RFC 5321, and
// what it accepts was sent by somebody who may.
func FuzzSMTP(f *testing.F) {
	s := startFuzzed(f)
	token := s.issue(&grant{kind: "client_credentials", app: s.dir.mail, scope: scope{resource: exchangeResource}}).AccessToken
	envelope := "EHLO a\r\nMAIL FROM:<alice@contoso.com> BODY=BINARYMIME\r\nRCPT TO:<bob@contoso.com>\r\n"
	text := "EHLO a\r\nMAIL FROM:<alice@contoso.com> SIZE=1\r\nRCPT TO:<x@y.example> NOTIFY=NEVER\r\n"
	for _, seed := range []string{
		"EHLO a\r\nAUTH XOAUTH2\r\n=\r\nAUTH LOGIN =\r\n=\r\n", "HELO a\r\nSTARTTLS\r\n", "EHLO a\r\nSTARTTLS\r\nQUIT\r\n", "\r\n", "\n", " \r\n",
		text + "DATA\r\na: b\r\n\r\n..\r\n.\r\n", text + "DATA\r\na: b\n.\n\r.\r\n.\r\n", text + "DATA\r\n.\r\n", text + "BDAT 0 LAST\r\n",
		envelope + "BDAT 8 LAST\r\na: b\r\n\r\n", envelope + "BDAT 3\r\na: BDAT 4 LAST\r\n\n.\r\n", envelope + "BDAT 99\r\n", "BDAT 3\r\nabcBDAT x\r\n",
		text + "DATA\r\nFrom: bob@contoso.com\r\n\r\n.\r\n", "EHLO a\r\nMAIL FROM:<> AUTH=<> ENVID=+\r\nRSET\r\nVRFY\r\nNOOP\r\n",
	} {
		for state := range byte(3) {
			f.Add([]byte(seed), state)
		}
	}
	reply := regexp.MustCompile(`^[2-5][0-9][0-9][ -][ -~]*\r\n$`)
	f.Fuzz(func(t *testing.T, input []byte, state byte) {
		before := len(s.Sent())
		said := fuzzConn(t, s, append(bytes.Clone(input), "\r\n.\r\nQUIT\r\n"...), func(far net.Conn) {
			c := s.exchange.newSMTPConn(far)
			c.secured = state%3 > 0
			if state%3 == 2 {
				c.sess = fuzzSession(t, s, "SMTP", token)
			}
			c.serve()
		})
		lines := strings.SplitAfter(string(said), "\r\n")
		for i, line := range lines[:len(lines)-1] {
			if !reply.MatchString(line) {
				t.Errorf("line %d: %q", i, line)
			}
		}
		for _, m := range s.Sent()[before:] {
			if state%3 != 2 || !strings.EqualFold(m.From, "alice@contoso.com") || len(m.To) == 0 || !unchanged(m.Data) {
				t.Errorf("accepted: %+v", m)
			}
		}
	})
}

func FuzzXOAUTH2(f *testing.F) {
	f.Add([]byte("user=a@b\x01auth=Bearer x\x01\x01"))
	f.Add([]byte("user=\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, response []byte) {
		user, token, err := parseXOAUTH2(response)
		if err == nil && "user="+user+"\x01auth=Bearer "+token+"\x01\x01" != string(response) {
			t.Errorf("%q: user %q, token %q", response, user, token)
		}
	})
}

// FuzzToken sends any form to the token endpoint. Nothing but the right secret
// gives a token, and every refusal is whole.
func FuzzToken(f *testing.F) {
	var s Server
	if err := s.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	h := s.entraHandler()
	id, _ := s.AdminClient()
	f.Add(credentialsForm(id, "x", graphResource).Encode(), "")
	f.Add("grant_type=refresh_token&client_id="+s.LoginClientID()+"&refresh_token=x", "")
	f.Add("grant_type=client_credentials&grant_type=x", "Basic eDp5")
	f.Add("%", "Basic x")
	f.Add(url.Values{"grant_type": {deviceGrant}, "client_id": {s.LoginClientID()}, "device_code": {"\x00\r\n"}}.Encode(), "")
	f.Fuzz(func(t *testing.T, form, authorization string) {
		r := httptest.NewRequest("POST", "/"+s.Tenant+"/oauth2/v2.0/token", strings.NewReader(form))
		r.Header.Set("Content-Type", formType)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body struct {
			Error       string
			Description string `json:"error_description"`
			Codes       []int  `json:"error_codes"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if w.Code < 400 || body.Error == "" || len(body.Codes) != 1 || strings.Count(body.Description, "\r\n") != 3 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// FuzzGraph sends any path, query and body with a good token.
func FuzzGraph(f *testing.F) {
	s := &Server{AdminRoles: []string{"Application.ReadWrite.All", "AppRoleAssignment.ReadWrite.All", "DelegatedPermissionGrant.ReadWrite.All", "User.Read.All"}}
	if err := s.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	token := s.issue(&grant{kind: "client_credentials", app: s.dir.admin, scope: scope{resource: graphResource}}).AccessToken
	object, id := s.MailApp()
	f.Add("POST", "applications/"+object+"/addPassword", "", `{"passwordCredential":{"displayName":"x","endDateTime":"2099-01-01T00:00:00Z"}}`)
	f.Add("POST", "applications(appId='"+id+"')/removePassword", "", `{"keyId":"`+id+`"}`)
	f.Add("GET", "applications", "$filter=tags/any(t:t eq 'x')&$select=id&$top=1", "")
	f.Add("GET", "applications(appId='')", "$skiptoken=", "{")
	f.Add("GET", "servicePrincipals(appId='"+exchangeAppID+"')", "$select=id,,", "")
	f.Add("PATCH", "applications(appId='"+id+"')", "", newApp)
	f.Add("PATCH", "applications/"+object, "", `{"tags":["a",null],"keyCredentials":[{"key":"AAAA","type":"AsymmetricX509Cert","usage":"Verify","keyId":null}]}`)
	f.Add("POST", "applications", "", `{"displayName":"x","signInAudience":"PersonalMicrosoftAccount","publicClient":{"redirectUris":["http://[::1"]}}`)
	f.Add("PATCH", "applications(uniqueName='it''s')", "", `{"displayName":"x"}`)
	f.Add("POST", "servicePrincipals/"+s.dir.mail.principalID+"/appRoleAssignments", "", `{"principalId":"`+s.dir.mail.principalID+`","resourceId":"`+s.dir.exchange.principalID+`","appRoleId":"dc890d15-9560-4a4c-9b7f-a736ec74ec40"}`)
	f.Add("POST", "oauth2PermissionGrants", "", `{"clientId":"`+s.dir.mail.principalID+`","consentType":"AllPrincipals","resourceId":"`+s.dir.exchange.principalID+`","scope":" "}`)
	f.Add("POST", "applications/"+object+"/federatedIdentityCredentials", "", `{"name":"abc","issuer":"https://x","subject":"y","audiences":["z"]}`)
	f.Add("GET", "users", "$filter=proxyAddresses/any(x:x eq 'smtp:a@b')", "")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		u := &url.URL{Path: "/v1.0/" + path, RawQuery: query}
		r := (&http.Request{Method: method, URL: u, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}).WithContext(t.Context())
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Prefer", "create-if-missing")
		w := httptest.NewRecorder()
		s.serveGraph(w, r)
		if w.Code == http.StatusNoContent {
			return
		}
		var answer map[string]json.RawMessage
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || (w.Code >= 400) != (answer["error"] != nil) || w.Code >= 500 {
			t.Errorf("%d %s: %v", w.Code, w.Body, err)
		}
	})
}

func FuzzStrictObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"b":1}`, `{"a":{"b":[1]}} x`, `[]`, `{"a"`, ``, `{"\u0061":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := strictObject(data, "a")
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if jsonErr := json.Unmarshal(data, &want); jsonErr != nil || len(want) != len(members) || len(members) > 1 {
			t.Errorf("%q: %v, encoding/json: %v, %v", data, members, want, jsonErr)
		}
	})
}
