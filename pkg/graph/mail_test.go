package graph

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

const testMessage = "From: alice@contoso.com\r\nTo: bob@contoso.com\r\nMessage-ID: <it's@contoso.com>\r\n\r\nHi\r\n"

// mailClient is a client of h over a real connection.
func mailClient(t *testing.T, h http.HandlerFunc) (*Client, *httptest.Server) {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &Client{BaseURL: server.URL + "/v1.0", HTTP: server.Client(), Pause: time.Millisecond,
		Token: func(context.Context) (secret.Text, error) { return secret.New(theToken), nil }}, server
}

func TestSendMIME(t *testing.T) {
	for _, message := range []string{testMessage, "x", "xy", "xyz", strings.Repeat("long line\r\n", 20000), strings.Repeat("\xff\x00\r", MaxMIME/3)} {
		var got *http.Request
		var body []byte
		c, _ := mailClient(t, func(w http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusAccepted)
		})
		if err := c.SendMIME(t.Context(), "o'hara/x+y@contoso.com", []byte(message)); err != nil {
			t.Fatal(err)
		}
		if got.Method != http.MethodPost || got.RequestURI != "/v1.0/users/o%27hara%2Fx+y@contoso.com/sendMail" ||
			got.Header.Get("Content-Type") != "text/plain" || got.ContentLength != int64(len(body)) || got.Header.Get("Authorization") != "Bearer "+theToken {
			t.Errorf("%s %s, %d bytes, %v", got.Method, got.RequestURI, got.ContentLength, got.Header)
		}
		if back, err := base64.StdEncoding.DecodeString(string(body)); err != nil || string(back) != message {
			t.Errorf("a message of %d bytes came as one of %d: %v", len(message), len(back), err)
		}
		if len(body) > 4_000_000-16_000 {
			t.Errorf("%d bytes leave no room for headers", len(body))
		}
	}
}

// TestSendMIMEIsSentOnce: whatever comes back, there is one request, and the
// error says whether the message may have been sent.
func TestSendMIMEIsSentOnce(t *testing.T) {
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":{"code":"ErrorSendAsDenied","message":"Some text."}}`)
		}
	}
	cutShort := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(status)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	tests := []struct {
		name      string
		handler   http.HandlerFunc
		status    int // 0: no answer
		wait      time.Duration
		ambiguous bool
		temporary bool
	}{
		{"400", answer(400), 400, 0, false, false},
		{"401", answer(401), 401, 0, false, false},
		{"403", answer(403), 403, 0, false, false},
		{"404", answer(404), 404, 0, false, false},
		{"408", answer(408), 408, 0, true, true},
		{"413", answer(413), 413, 0, false, false},
		{"429", answer(429, "Retry-After", "7"), 429, 7 * time.Second, false, true},
		{"429 without wait", answer(429), 429, 0, false, true},
		{"500", answer(500), 500, 0, true, true},
		{"503", answer(503, "Retry-After", "9"), 503, 9 * time.Second, true, true},
		{"504", answer(504), 504, 0, true, true},
		{"200", answer(200), 200, 0, true, true},
		{"307", answer(307, "Location", "/v1.0/elsewhere"), 307, 0, false, false},
		{"200 cut short", cutShort(200), 0, 0, true, true},
		{"cut before the answer", func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}, 0, 0, true, true},
		{"cut before the body is read", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, 0, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			requests := make(chan string, 10)
			c, _ := mailClient(t, func(w http.ResponseWriter, r *http.Request) {
				requests <- r.URL.Path
				w.Header().Set("request-id", "rrrrrrrr")
				tt.handler(w, r)
			})
			c.Throttle = new(Throttle)
			err := c.SendMIME(t.Context(), "alice@contoso.com", []byte(testMessage))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != tt.status || e.RetryAfter != tt.wait || e.Ambiguous() != tt.ambiguous || e.Temporary() != tt.temporary {
				t.Errorf("%#v", err)
			}
			if len(requests) != 1 {
				t.Errorf("%d requests", len(requests))
			}
			if wait, _ := c.Throttle.left(); wait > 0 {
				t.Error("other requests have to wait for a mailbox")
			}
			if s := err.Error(); strings.Contains(s, theToken) || strings.Contains(s, "Hi") || !strings.Contains(s, "request-id") {
				t.Error(s)
			}
		})
	}

	t.Run("202 cut short", func(t *testing.T) {
		c, _ := mailClient(t, cutShort(202))
		if err := c.SendMIME(t.Context(), "alice@contoso.com", []byte(testMessage)); err != nil {
			t.Error(err)
		}
	})
}

// TestSendMIMENotSent: what never reached Graph is surely not sent.
func TestSendMIMENotSent(t *testing.T) {
	var requests int
	c, server := mailClient(t, func(http.ResponseWriter, *http.Request) { requests++ })
	send := func(ctx context.Context, mailbox, message string) *Error {
		t.Helper()
		err := c.SendMIME(ctx, mailbox, []byte(message))
		if err == nil {
			t.Fatalf("%q was sent", mailbox)
		}
		e, _ := errors.AsType[*Error](err)
		if e != nil && e.Ambiguous() {
			t.Errorf("may have been sent: %v", err)
		}
		return e
	}
	if e := send(t.Context(), "alice@contoso.com", strings.Repeat("x", MaxMIME+1)); e == nil || e.Status != 413 {
		t.Errorf("too large: %v", e)
	}
	for _, mailbox := range []string{"", "alice", "@contoso.com", "alice@", "a b@contoso.com", "a@contoso.com\r\nX: y"} {
		send(t.Context(), mailbox, testMessage)
	}
	send(t.Context(), "alice@contoso.com", "")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	send(over, "alice@contoso.com", testMessage)

	token := c.Token
	c.Token = func(context.Context) (secret.Text, error) { return secret.Text{}, errors.New("no token") }
	send(t.Context(), "alice@contoso.com", testMessage)
	c.Token = token

	c.BaseURL = strings.Replace(server.URL, "http:", "https:", 1) + "/v1.0" // the handshake fails
	if e := send(t.Context(), "alice@contoso.com", testMessage); e == nil || e.Status != 0 || !e.Temporary() {
		t.Errorf("TLS: %v", e)
	}
	c.BaseURL = server.URL + "/v1.0"
	c.HTTP = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}}}
	if e := send(t.Context(), "alice@contoso.com", testMessage); e == nil || e.Status != 0 || !e.Temporary() {
		t.Errorf("refused: %v", e)
	}
	if requests != 0 {
		t.Errorf("%d requests", requests)
	}
}

// TestSendMIMETimeout: a large message has more time, and one whose answer does
// not come may have been sent.
func TestSendMIMETimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{BaseURL: "https://graph.example/v1.0", Token: func(context.Context) (secret.Text, error) { return secret.New(theToken), nil },
			HTTP: &http.Client{Transport: handlerTransport{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}}}
		for size, want := range map[int]time.Duration{100: 30 * time.Second, MaxMIME: 90 * time.Second} {
			begin := time.Now()
			err := c.SendMIME(t.Context(), "alice@contoso.com", bytes.Repeat([]byte("x"), size))
			if e, ok := errors.AsType[*Error](err); !ok || !e.Ambiguous() || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != want {
				t.Errorf("%d bytes, after %s: %v", size, time.Since(begin), err)
			}
		}
	})
}

// TestSendMIMECannotBeReplayed: net/http has nothing to send a second time.
func TestSendMIMECannotBeReplayed(t *testing.T) {
	c, _ := mailClient(t, nil)
	c.HTTP = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		if r.GetBody != nil || r.Header["Idempotency-Key"] != nil {
			t.Error("the request can be replayed")
		}
		return &http.Response{StatusCode: http.StatusAccepted, Body: http.NoBody}, nil
	})}
	if err := c.SendMIME(t.Context(), "alice@contoso.com", []byte(testMessage)); err != nil {
		t.Error(err)
	}
}

func TestBase64Reader(t *testing.T) {
	for n := range 3 * 4096 {
		if n > 10 && n%1021 > 3 {
			continue
		}
		data := bytes.Repeat([]byte("\x00\xffa"), n)[:n]
		for _, slow := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader} {
			text, err := io.ReadAll(slow(&base64Reader{rest: data}))
			if back, bad := base64.StdEncoding.DecodeString(string(text)); err != nil || bad != nil || !bytes.Equal(back, data) {
				t.Errorf("%d bytes: %v, %v", n, err, bad)
			}
		}
	}
}

func TestSentMessage(t *testing.T) {
	var query url.Values
	var raw, body string
	c, _ := mailClient(t, func(w http.ResponseWriter, r *http.Request) {
		query, raw = r.URL.Query(), r.RequestURI
		if r.Method != http.MethodGet {
			t.Error(r.Method)
		}
		if body == "" {
			w.WriteHeader(http.StatusForbidden)
			body = `{"error":{"code":"ErrorAccessDenied","message":"Access is denied. Check credentials and try again."}}`
		}
		fmt.Fprint(w, body)
	})
	tests := []struct {
		body      string
		want, bad bool
	}{
		{`{"value":[]}`, false, false},
		{`{"value":[{"id":"AAMk="}]}`, true, false},
		{`{"value":[{"id":""}]}`, false, true},
		{`{"value":[{}]}`, false, true},
		{`{"value":[7]}`, false, true},
		{`{"value":[],"@odata.nextLink":"https://graph.example/more"}`, false, true},
		{`{}`, false, true},
		{`<html>`, false, true},
	}
	for _, tt := range tests {
		body = tt.body
		got, err := c.SentMessage(t.Context(), "alice@contoso.com", "<it's a+b&c@contoso.com>")
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%s: %v, %v", tt.body, got, err)
		}
	}
	if len(query) != 3 || query.Get("$filter") != "internetMessageId eq '<it''s a+b&c@contoso.com>'" || query.Get("$select") != "id" || query.Get("$top") != "1" ||
		!strings.HasPrefix(raw, "/v1.0/users/alice@contoso.com/mailFolders/sentitems/messages?") {
		t.Errorf("%s", raw)
	}
	body = ""
	if _, err := c.SentMessage(t.Context(), "alice@contoso.com", "<a@b>"); err == nil {
		t.Error("no error")
	} else if e, ok := errors.AsType[*Error](err); !ok || !e.IsForbidden() || !e.HasCode("ErrorAccessDenied") {
		t.Error(err)
	}
	raw = ""
	for _, id := range []string{"", "<>", "a@b", "<a@b", "<a\r\n@b>"} {
		if _, err := c.SentMessage(t.Context(), "alice@contoso.com", id); err == nil {
			t.Errorf("%q is taken", id)
		}
	}
	if _, err := c.SentMessage(t.Context(), "../me", "<a@b>"); err == nil || raw != "" {
		t.Errorf("%v, %s", err, raw)
	}
}
