package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

const alice, bob = "alice@contoso.com", "bob@contoso.com"

// mailSandbox is a sandbox, and a client with the roles of its mail application.
func mailSandbox(t *testing.T, roles ...string) (*sandbox.Server, *graph.Client) {
	s := &sandbox.Server{RequireClientRequestID: true, AdminRoles: append([]string{}, roles...)}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	id, password := s.AdminClient()
	resp, err := http.PostForm(s.Authority()+"/"+s.Tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {password}, "scope": {"https://graph.microsoft.com/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return s, &graph.Client{BaseURL: s.Graph(), HTTP: &http.Client{Transport: transport}, Pause: time.Millisecond,
		Token: func(context.Context) (secret.Text, error) { return secret.New(answer.Token), nil }}
}

// note is a message of size bytes (at least some 150), whose Message-ID is id.
func note(id string, size int) []byte {
	m := "From: Alice <" + alice + ">\r\nTo: " + bob + "\r\nBcc: carol@fabrikam.example\r\nMessage-ID: " + id + "\r\n\r\n"
	m += strings.Repeat(strings.Repeat("x", 76)+"\r\n", max(0, size-len(m))/78+1)
	return []byte(m[:max(size, 150)-2] + "\r\n")
}

func TestMailAtSandbox(t *testing.T) {
	s, c := mailSandbox(t, "Mail.Send", "Mail.ReadBasic")
	for n, size := range []int{0, 10_000, graph.MaxMIME} {
		id := fmt.Sprintf("<it's.%d@contoso.com>", n)
		if found, err := c.SentMessage(t.Context(), alice, id); found || err != nil {
			t.Errorf("before: %v, %v", found, err)
		}
		message := note(id, size)
		if err := c.SendMIME(t.Context(), alice, message); err != nil {
			t.Fatal(err)
		}
		if found, err := c.SentMessage(t.Context(), alice, id); !found || err != nil {
			t.Errorf("after: %v, %v", found, err)
		}
		sent := s.Sent()
		if got := sent[len(sent)-1]; len(sent) != n+1 || string(got.Posted) != string(message) || strings.Join(got.To, " ") != bob+" carol@fabrikam.example" ||
			string(got.Data) != strings.Replace(string(message), "Bcc: carol@fabrikam.example\r\n", "", 1) {
			t.Errorf("%d messages, the last to %v", len(sent), got.To)
		}
	}
	before := len(s.Requests())
	if e := failure(t, c.SendMIME(t.Context(), alice, note("<large@contoso.com>", graph.MaxMIME+1))); e.Status != 413 || e.Ambiguous() || len(s.Requests()) != before {
		t.Error(e)
	}
}

func failure(t *testing.T, err error) *graph.Error {
	t.Helper()
	e, ok := errors.AsType[*graph.Error](err)
	if !ok {
		t.Fatalf("not an error of Graph's: %v", err)
	}
	return e
}

// TestMailFaultsAtSandbox: an error that is not ambiguous is of a message that
// was not sent, and nothing is ever sent twice.
func TestMailFaultsAtSandbox(t *testing.T) {
	s, c := mailSandbox(t, "Mail.Send", "Mail.Read")
	for _, tt := range []struct {
		name            string
		fault           func(*sandbox.Faults)
		sent, ambiguous bool
		wait            time.Duration
	}{
		{"429", func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus, f.RetryAfter = 1, 429, 7 }, false, false, 7 * time.Second},
		{"429 of any call", func(f *sandbox.Faults) { f.ThrottleNext, f.RetryAfter = 1, 5 }, false, false, 5 * time.Second},
		{"503", func(f *sandbox.Faults) { f.SendErrorNext, f.RetryAfter = 1, 4 }, false, true, 4 * time.Second},
		{"500", func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus = 1, 500 }, false, true, 0},
		{"500, sent", func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus, f.SendErrorDone = 1, 500, true }, true, true, 0},
		{"dropped", func(f *sandbox.Faults) { f.SendDropNext = 1 }, false, true, 0},
		{"lost", func(f *sandbox.Faults) { f.SendLoseNext = 1 }, true, true, 0},
		{"garbage", func(f *sandbox.Faults) { f.GarbageNext = 1 }, false, true, 0},
		{"forbidden", func(f *sandbox.Faults) { f.SendForbidden = true }, false, false, 0},
		{"down", func(f *sandbox.Faults) { f.GraphDown = true }, false, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// One that goes well before has left a connection.
			if err := c.SendMIME(t.Context(), alice, note("<first@contoso.com>", 0)); err != nil {
				t.Fatal(err)
			}
			before := len(s.Sent())
			id := "<" + strings.ReplaceAll(tt.name, " ", ".") + "@contoso.com>"
			s.SetFaults(func(f *sandbox.Faults) { tt.fault(f) })
			e := failure(t, c.SendMIME(t.Context(), alice, note(id, 300_000)))
			s.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
			if e.Ambiguous() != tt.ambiguous || e.RetryAfter != tt.wait {
				t.Errorf("ambiguous %v: %v", e.Ambiguous(), e)
			}
			if n := len(s.Sent()) - before; n > 1 || (n == 1) != tt.sent {
				t.Errorf("sent %d times", n)
			}
			if found, err := c.SentMessage(t.Context(), alice, id); err != nil || found != tt.sent {
				t.Errorf("in Sent Items: %v, %v", found, err)
			}
		})
	}

	// An answer that is later than the client waits.
	s.SetFaults(func(f *sandbox.Faults) { f.SendLate = time.Hour })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	before := len(s.Sent())
	go func() { done <- c.SendMIME(ctx, alice, note("<late@contoso.com>", 0)) }()
	for len(s.Sent()) == before {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if e := failure(t, <-done); !e.Ambiguous() || e.Temporary() || !errors.Is(e, context.Canceled) {
		t.Error(e)
	}
	if found, err := c.SentMessage(t.Context(), alice, "<late@contoso.com>"); err != nil || !found {
		t.Errorf("in Sent Items: %v, %v", found, err)
	}
}

func TestMailRefusedAtSandbox(t *testing.T) {
	s, c := mailSandbox(t, "Mail.Send")
	for _, tt := range []struct {
		mailbox, from, to string
		status            int
		code              string
	}{
		{alice, bob, bob, 403, "ErrorSendAsDenied"},
		{"mallory@contoso.com", alice, bob, 404, "ErrorInvalidUser"},
		{alice, alice, "who knows", 400, "ErrorInvalidRecipients"},
		{alice, alice, bob + "\r\nContent-Type: multipart/mixed", 400, "ErrorMimeContentInvalid"},
	} {
		e := failure(t, c.SendMIME(t.Context(), tt.mailbox, []byte("From: "+tt.from+"\r\nTo: "+tt.to+"\r\n\r\nx\r\n")))
		if e.Status != tt.status || !e.HasCode(tt.code) || e.Ambiguous() || e.Temporary() {
			t.Error(e)
		}
	}
	_, err := c.SentMessage(t.Context(), alice, "<a@b>")
	if e := failure(t, err); !e.IsForbidden() || !e.HasCode("ErrorAccessDenied") {
		t.Error(e)
	}
	if len(s.Sent()) != 0 {
		t.Error("something was sent")
	}
	none, c := mailSandbox(t)
	if e := failure(t, c.SendMIME(t.Context(), alice, note("<a@b>", 0))); !e.IsForbidden() || !e.HasCode("ErrorAccessDenied") || e.Ambiguous() || len(none.Sent()) != 0 {
		t.Error(e)
	}
}
