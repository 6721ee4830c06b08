package graph

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestApplication(t *testing.T) {
	f := newFake(t)
	var log bytes.Buffer
	c := f.serve(t)
	c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	app, err := c.Application(t.Context(), clientID)
	if err != nil {
		t.Fatal(err)
	}
	if app.ID != objectID || app.AppID != clientID || app.DisplayName != "Mail" || len(app.PasswordCredentials) != 1 {
		t.Errorf("%+v", app)
	}
	cred := app.PasswordCredentials[0]
	if cred.KeyID != oldKey || cred.DisplayName != "old" || cred.Hint != "" || !cred.End.IsZero() ||
		!cred.Start.Equal(time.Date(1999, 9, 9, 19, 50, 29, 308638100, time.UTC)) {
		t.Errorf("%+v", cred)
	}
	if l := log.String(); strings.Contains(l, theToken) || strings.Contains(l, "select") || !strings.Contains(l, "status=200") || !strings.Contains(l, "clientRequestId=") {
		t.Errorf("log: %s", l)
	}
}

func TestRetries(t *testing.T) {
	many := func(n int, f fault) []fault { return slices.Repeat([]fault{f}, n) }
	tests := []struct {
		name   string
		faults []fault
		status int // of the error; 0 and sent 0: none expected
		fails  bool
		sent   int
		min    time.Duration
		max    time.Duration
	}{
		{"none", nil, 0, false, 1, 0, 0},
		{"429 seconds", []fault{status(429, "Retry-After", "30")}, 0, false, 2, 30 * time.Second, 30 * time.Second},
		{"429 date", []fault{status(429, "Retry-After", "Sat, 01 Jan 2000 01:00:20 GMT", "Date", "Sat, 01 Jan 2000 01:00:00 GMT")}, 0, false, 2, 20 * time.Second, 20 * time.Second},
		{"429 without", many(3, status(429)), 0, false, 4, 3 * time.Second, 7 * time.Second},
		{"429 zero", many(3, status(429, "Retry-After", "0")), 0, false, 4, 3 * time.Second, 7 * time.Second},
		{"429 nonsense", many(1, status(429, "Retry-After", "soon")), 0, false, 2, 500 * time.Millisecond, time.Second},
		{"429 too long", []fault{status(429, "Retry-After", "121")}, 429, true, 1, 0, 0},
		{"429 for ever", many(maxSent, status(429)), 429, true, -1, 90 * time.Second, 2 * time.Minute},
		{"503 with wait", []fault{status(503, "Retry-After", "60"), status(504, "Retry-After", "59")}, 0, false, 3, 119 * time.Second, 119 * time.Second},
		{"503 without", many(2, status(503)), 0, false, 3, time.Second, 3 * time.Second},
		{"500 for ever", many(maxSent, status(500)), 500, true, maxFailed, 7 * time.Second, 15 * time.Second},
		{"lost once", many(1, lostBefore), 0, false, 2, 500 * time.Millisecond, time.Second},
		{"lost for ever", many(maxSent, lostBefore), 0, true, maxLost, time.Second, 3 * time.Second},
		{"stalls", many(maxSent, stalls), 0, true, maxLost, 90 * time.Second, 95 * time.Second},
		{"400", []fault{status(400)}, 400, true, 1, 0, 0},
		{"401", []fault{status(401)}, 401, true, 1, 0, 0},
		{"404", []fault{status(404)}, 404, true, 1, 0, 0},
		{"redirect", []fault{status(307, "Location", "https://evil.example/")}, 307, true, 1, 0, 0},
		{"garbage", []fault{answers("<html>")}, 200, true, 1, 0, 0},
		{"empty object", []fault{answers("{}")}, 200, true, 1, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.fail("get", tt.faults...)
				c := f.direct()
				var told []string
				c.Progress = func(s string) { told = append(told, s) }
				begin := time.Now()
				_, err := c.Application(t.Context(), clientID)
				took := time.Since(begin)
				e, _ := errors.AsType[*Error](err)
				if (err != nil) != tt.fails || tt.fails && (e == nil || e.Status != tt.status) {
					t.Fatalf("%v", err)
				}
				if took < tt.min || took > tt.max || tt.sent > 0 && f.count("get") != tt.sent {
					t.Errorf("took %s, calls %d", took, f.count("get"))
				}
				if tt.fails && e.Temporary() != (tt.status < 300 || tt.status == 429 || tt.status >= 500) {
					t.Errorf("temporary %t: %v", e.Temporary(), err)
				}
				if f.count("get") > 1 && (len(told) != f.count("get")-1 || !strings.Contains(told[0], "Microsoft Graph")) {
					t.Errorf("told %q", told)
				}
			})
		})
	}
}

func TestThrottledText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("get", status(429, "Retry-After", "30"), status(429, "Retry-After", "300"))
		_, err := f.direct().Application(t.Context(), clientID)
		want := "GET https://graph.example/v1.0/applications(appId='" + clientID + "'): 429 Too Many Requests: Some: Some text, asks to wait 5m0s, after waiting 30s (request-id rrrrrrrr)"
		if err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
	})
}

// What waits ends with the caller's context.
func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("get", status(429, "Retry-After", "60"))
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		time.AfterFunc(5*time.Second, cancel)
		_, err := f.direct().Application(ctx, clientID)
		e, ok := errors.AsType[*Error](err)
		if !ok || !errors.Is(err, context.Canceled) || e.Temporary() || time.Since(begin) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) { // a deadline that the wait would pass
		f := newFake(t)
		f.fail("get", status(429, "Retry-After", "60"))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := f.direct().Application(ctx, clientID)
		if e, ok := errors.AsType[*Error](err); !ok || !e.IsThrottled() || time.Since(begin) != 0 {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestToken(t *testing.T) {
	f := newFake(t)
	c := f.serve(t)
	gone := errors.New("sign-in required")
	c.Token = func(context.Context) (secret.Text, error) { return secret.Text{}, gone }
	if _, err := c.Application(t.Context(), clientID); !errors.Is(err, gone) || len(f.calls) != 0 {
		t.Errorf("%v", err)
	}
	c.Token = nil
	if _, err := c.Application(t.Context(), clientID); err == nil {
		t.Error("no error without Token")
	}
	c.Token = func(context.Context) (secret.Text, error) { return secret.New("two\r\nlines"), nil }
	if _, err := c.Application(t.Context(), clientID); err == nil || strings.Contains(err.Error(), "lines") || len(f.calls) != 0 {
		t.Errorf("%v", err)
	}
}

// The token follows no redirect, and no error holds it.
func TestRedirectNotFollowed(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("followed: %v", r.Header) }))
	defer evil.Close()
	f := newFake(t)
	f.fail("get", status(302, "Location", evil.URL))
	_, err := f.serve(t).Application(t.Context(), clientID)
	if e, ok := err.(*Error); !ok || e.Status != 302 || strings.Contains(err.Error(), theToken) {
		t.Errorf("%v", err)
	}
}

func TestAnswerTooLong(t *testing.T) {
	f := newFake(t)
	f.fail("get", func(w http.ResponseWriter, _ *http.Request, _ func() any) {
		_, _ = io.Copy(w, io.LimitReader(endless{}, maxAnswer+100))
	})
	_, err := f.serve(t).Application(t.Context(), clientID)
	if err == nil || !strings.Contains(err.Error(), "longer than") || f.count("get") != 1 {
		t.Errorf("%v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
