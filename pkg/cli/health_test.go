package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

func TestHealthTargets(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	rec := func(id, profile string, life time.Duration, allow ...string) apppassword.Record {
		return apppassword.Record{ID: id, Profile: profile, Allow: allow, Expires: now.Add(life), Mailboxes: []string{"alice@contoso.com"}}
	}
	revoked := rec("revoked", "work", 900*time.Hour, "imap")
	revoked.Revoked = now
	forever := rec("forever", "home", 0, "imap")
	forever.Expires = time.Time{}
	list := []apppassword.Record{
		rec("b", "work", time.Hour, "smtp", "imap"), rec("a", "work", 2*time.Hour, "imap"), rec("send", "work", 99*time.Hour, "smtp"),
		rec("ended", "work", -time.Hour, "imap"), revoked,
		rec("long", "home", 9999*time.Hour, "imap"), forever,
		rec("printer", "print", time.Hour, "smtp"), rec("scan", "print", time.Hour, "smtp", "pop3"),
		rec("gone", "old", -time.Hour, "imap"),
	}
	for range 2 {
		var got []string
		for _, target := range healthTargets(list, now) {
			got = append(got, target.rec.Profile+" "+target.rec.ID+" "+string(target.protocol))
		}
		if want := []string{"home forever imap", "print scan pop3", "work a imap"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		slices.Reverse(list)
	}
}

// healthOf is a health of two profiles, whose checks the test answers.
func healthOf(t *testing.T, check func(profile string) error) *health {
	recs := []apppassword.Record{
		{ID: "1", Profile: "home", Allow: []string{"imap"}, Mailboxes: []string{"a@contoso.com"}},
		{ID: "2", Profile: "work", Allow: []string{"pop3"}, Mailboxes: []string{"b@contoso.com"}},
	}
	return &health{
		records: func() []apppassword.Record { return recs },
		check:   func(_ context.Context, rec apppassword.Record, _ gateway.Protocol) error { return check(rec.Profile) },
		now:     time.Now, base: t.Context(), log: slog.New(slog.DiscardHandler),
	}
}

func ask(t *testing.T, h *health, target string) (int, healthJSON) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", target, nil))
	var v healthJSON
	if !strings.Contains(target, "live=1") {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Error(err)
		}
	}
	return w.Code, v
}

// TestHealthOnce: whoever asks within a minute gets the same answer, and those
// who ask together wait for one look.
func TestHealthOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks, bad atomic.Int32
		h := healthOf(t, func(profile string) error {
			checks.Add(1)
			time.Sleep(3 * time.Second)
			if profile == "work" && bad.Load() > 0 {
				return errors.New("the tenant\nrefuses \x1b[31m" + strings.Repeat("ü", 1000))
			}
			return nil
		})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if code, v := ask(t, h, "/healthz"); code != 200 || v.Status != "ok" || len(v.Profiles) != 2 {
					t.Errorf("%d %+v", code, v)
				}
			})
		}
		wg.Wait()
		bad.Store(1)
		time.Sleep(healthKept - 4*time.Second)
		if code, _ := ask(t, h, "/healthz"); code != 200 || checks.Load() != 2 {
			t.Errorf("within the minute: %d after %d checks", code, checks.Load())
		}
		time.Sleep(2 * time.Second)
		code, v := ask(t, h, "/healthz")
		if code != 503 || v.Status != "failing" || checks.Load() != 4 {
			t.Fatalf("after the minute: %d %+v after %d checks", code, v, checks.Load())
		}
		home, work := v.Profiles[0], v.Profiles[1]
		if !home.OK || home.Error != "" || home.Protocol != "imap" || home.Checked.IsZero() {
			t.Errorf("home: %+v", home)
		}
		if work.OK || work.Profile != "work" || work.Protocol != "pop3" || !strings.HasPrefix(work.Error, "the tenant refuses [31mü") || len(work.Error) > healthError {
			t.Errorf("work: %+v", work)
		}
		if code, _ := ask(t, h, "/healthz?live=1"); code != 200 {
			t.Errorf("alive: %d", code)
		}
	})
}

// TestHealthGoesOn: the look goes on when the one who asked has left, and a
// panic in it ends nothing.
func TestHealthGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := healthOf(t, func(profile string) error {
			time.Sleep(10 * time.Second)
			if profile == "home" {
				panic("at home")
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.report(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who leaves: %v", err)
		}
		began := time.Now()
		v, err := h.report(t.Context())
		if err != nil || v.Status != "failing" || v.Profiles[0].Error != "internal error" || !v.Profiles[1].OK || time.Since(began) != 9*time.Second {
			t.Errorf("%+v, %v after %s", v, err, time.Since(began))
		}
	})
}
