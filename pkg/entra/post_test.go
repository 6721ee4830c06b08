package entra

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestRepeats(t *testing.T) {
	throttled := func(after string) reply {
		return reply{status: 429, body: "{}", header: map[string]string{"Retry-After": after}}
	}
	down := reply{status: 503, body: "<html>"}
	tests := []struct {
		name     string
		answers  []reply
		maxWait  time.Duration
		requests int
		fails    bool
		min, max time.Duration // how long it takes
	}{
		{"at once", []reply{tokenReply(nil)}, 0, 1, false, 0, 0},
		{"after Retry-After", []reply{throttled("4"), tokenReply(nil)}, 0, 2, false, 4 * time.Second, 5 * time.Second},
		{"Retry-After of all there is", []reply{throttled("10"), tokenReply(nil)}, 0, 2, false, 10 * time.Second, 10 * time.Second},
		{"Retry-After too long", []reply{throttled("11"), tokenReply(nil)}, 0, 1, true, 0, 0},
		{"Retry-After twice too long", []reply{throttled("6"), throttled("6"), tokenReply(nil)}, 0, 2, true, 6 * time.Second, 8 * time.Second},
		{"more patience", []reply{throttled("60"), tokenReply(nil)}, 2 * time.Minute, 2, false, time.Minute, 73 * time.Second},
		{"no repeats", []reply{throttled("1"), tokenReply(nil)}, -1, 1, true, 0, 0},
		{"503 then well", []reply{down, down, tokenReply(nil)}, 0, 3, false, 3 * time.Second, 4 * time.Second},
		{"503 for ever", []reply{down}, 0, 4, true, 7 * time.Second, 9 * time.Second},
		{"refused", []reply{errorReply(401, "invalid_client", 7000215), tokenReply(nil)}, 0, 1, true, 0, 0},
		{"400", []reply{errorReply(400, "temporarily_unavailable", 90033), tokenReply(nil)}, 0, 1, true, 0, 0},
		{"501", []reply{{status: 501}, tokenReply(nil)}, 0, 1, true, 0, 0},
		{"lost answer", []reply{{status: 0}, tokenReply(nil)}, 0, 1, true, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, f := newBubbleClient(t, tt.answers...)
				c.MaxWait = tt.maxWait
				start := time.Now()
				_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
				if took := time.Since(start); took < tt.min || took > tt.max {
					t.Errorf("took %v, want %v to %v", took, tt.min, tt.max)
				}
				if n := len(f.got()); n != tt.requests || (err != nil) != tt.fails {
					t.Errorf("%d requests, error %v; want %d, error %v", n, err, tt.requests, tt.fails)
				}
			})
		})
	}
}

// What may have worked is not sent again; what was not done is.
func TestCodeIsRedeemedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for status, want := range map[int]int{503: 1, 429: 2} {
			c, f := newBubbleClient(t, reply{status: status}, tokenReply(nil))
			_, _ = c.token(t.Context(), "test", map[string][]string{"client_id": {"x"}}, onlyUndone)
			if n := len(f.got()); n != want {
				t.Errorf("after %d: %d requests, want %d", status, n, want)
			}
		}
	})
}

func TestCancelledInPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := newBubbleClient(t, reply{status: 429, header: map[string]string{"Retry-After": "9"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.ClientSecret(ctx, testClient, secret.New(testSecret), testScope)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second || len(f.got()) != 1 {
			t.Errorf("got %v after %v and %d requests", err, time.Since(start), len(f.got()))
		}
	})
}

// A redirect is not followed, whatever the given client would do, so that the
// secret stays here; nor are cookies kept.
func TestRedirectKeepsSecret(t *testing.T) {
	var visits int
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits++ }))
	defer thief.Close()
	c, _ := newClient(t, reply{status: 308, header: map[string]string{"Location": thief.URL}})
	given := c.HTTP
	given.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
	if err == nil || visits != 0 {
		t.Errorf("got error %v, %d visits", err, visits)
	}
	if given.CheckRedirect(nil, nil) != nil {
		t.Error("the given client was changed")
	}
}

// Nothing hangs: neither before the answer nor in its midst.
func TestStall(t *testing.T) {
	for _, start := range []string{"", `{"access_token":`} {
		release := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if start != "" {
				_, _ = io.WriteString(w, start)
				_ = http.NewResponseController(w).Flush()
			}
			<-release
		}))
		c := &Client{HTTP: s.Client(), Authority: s.URL, Tenant: testTenant, Timeout: 50 * time.Millisecond}
		_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
		close(release)
		s.Close()
		e := asError(t, err)
		if e.Kind() != Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	c := &Client{Authority: s.URL, Tenant: testTenant}
	_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
	if e := asError(t, err); e.Kind() != Unavailable || e.Err == nil || e.Status != 0 {
		t.Errorf("got %+v", e)
	}
}
