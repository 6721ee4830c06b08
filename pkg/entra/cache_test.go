package entra

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// source fetches tokens that live for life, or fails with err.
type source struct {
	mu    sync.Mutex
	calls int
	life  time.Duration
	took  time.Duration
	err   error
}

func (s *source) fetch(ctx context.Context) (Token, error) {
	if err := sleep(ctx, s.took); err != nil {
		return Token{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return Token{}, s.err
	}
	return Token{Access: secret.New(fmt.Sprint("token ", s.calls)), Expires: time.Now().Round(0).Add(s.life)}, nil
}

// want asks the cache and checks token or error, and the calls so far.
func (s *source) want(t *testing.T, ask func(context.Context, string, func(context.Context) (Token, error)) (Token, error), token string, err error, calls int) {
	t.Helper()
	got, gotErr := ask(t.Context(), "key", s.fetch)
	if got.Access.Reveal() != token || gotErr != err {
		t.Errorf("got %q, %v; want %q, %v", got.Access.Reveal(), gotErr, token, err)
	}
	if s.calls != calls {
		t.Errorf("%d fetches, want %d", s.calls, calls)
	}
}

var (
	errRefused = &Error{Op: "x", Status: 401, Code: "invalid_client", Numbers: []int{7000215}}
	errOutage  = &Error{Op: "x", Err: errors.New("no route to host")}
)

func TestCacheMargin(t *testing.T) {
	tests := []struct {
		life, margin, until time.Duration
	}{
		{time.Hour, 0, 55 * time.Minute},
		{time.Hour, 20 * time.Minute, 40 * time.Minute},
		{6 * time.Minute, 0, 3 * time.Minute},
		{3599 * time.Second, 30 * time.Minute, 1799 * time.Second},
		{59 * time.Minute, 30 * time.Minute, 29 * time.Minute},
		{50 * time.Minute, 30 * time.Minute, 25 * time.Minute},
		{90 * time.Minute, 30 * time.Minute, 60 * time.Minute},
		{4 * time.Second, 0, 2 * time.Second},
		{0, 0, time.Second},
		{-time.Hour, 0, time.Second},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.life, tt.margin), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := &Cache{Margin: tt.margin}, &source{life: tt.life}
				s.want(t, c.Token, "token 1", nil, 1)
				time.Sleep(tt.until - time.Millisecond)
				s.want(t, c.Token, "token 1", nil, 1)
				time.Sleep(time.Millisecond)
				s.want(t, c.Token, "token 2", nil, 2)
			})
		})
	}
}

// With half an hour as its margin, no token is given out that ends sooner,
// whenever it is asked for: tokens for mail live 60 to 90 minutes.
func TestCacheGivesHalfAnHour(t *testing.T) {
	for _, life := range []time.Duration{3541 * time.Second, 3598 * time.Second, 3599 * time.Second, time.Hour, 75*time.Minute + time.Second, 90 * time.Minute} {
		for _, took := range []time.Duration{0, 700 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				c := &Cache{Margin: 30 * time.Minute}
				fetches := 0
				for range 4000 {
					tok, err := c.Token(t.Context(), "key", func(ctx context.Context) (Token, error) {
						fetches++
						return Token{Access: secret.New("x"), Expires: time.Now().Round(0).Add(life)}, sleep(ctx, took)
					})
					if err != nil {
						t.Fatal(err)
					}
					if left := time.Until(tok.Expires); left < 30*time.Minute {
						t.Fatalf("a token that lived %v has %v left", life, left)
					}
					time.Sleep(3 * time.Second)
				}
				if fetches > 8 {
					t.Errorf("%d tokens of %v in 200 minutes", fetches, life)
				}
			})
		}
	}
}

// Exchange ends a session with its token. As long as the session was
// revalidated, the cache holds a newer one, so that the client's reconnect
// costs no request.
func TestCacheRenewedServesTheReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{Margin: 30 * time.Minute}, &source{life: time.Hour}
		s.want(t, c.Token, "token 1", nil, 1)
		for i := range 60 {
			time.Sleep(time.Minute)
			s.want(t, c.Renew, fmt.Sprint("token ", i+2), nil, i+2)
		}
		time.Sleep(59 * time.Second)
		s.want(t, c.Token, "token 61", nil, 61)
	})
}

func TestCacheShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour, took: time.Second}
		var wg sync.WaitGroup
		for i := range 100 {
			ask := c.Token
			if i%2 == 1 {
				ask = c.Renew
			}
			wg.Go(func() {
				if got, err := ask(t.Context(), "key", s.fetch); err != nil || got.Access.Reveal() != "token 1" {
					t.Errorf("got %q, %v", got.Access.Reveal(), err)
				}
			})
		}
		other := &source{life: time.Hour}
		if _, err := c.Token(t.Context(), "other key", other.fetch); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if s.calls != 1 || other.calls != 1 {
			t.Errorf("%d and %d fetches, want 1 each", s.calls, other.calls)
		}
	})
}

// The caller that started a fetch leaves; the others, and the next, get it.
func TestCacheCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour, took: 10 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			if _, err := c.Token(ctx, "key", s.fetch); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("got %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait()
		s.want(t, c.Token, "token 1", nil, 1)
		wg.Wait()

		if _, err := c.Renew(ctx, "key", s.fetch); !errors.Is(err, context.DeadlineExceeded) || s.calls != 1 {
			t.Errorf("a caller who has left: %v, %d fetches", err, s.calls)
		}
	})
}

func TestCacheLimitAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{Limit: 30 * time.Second}, &source{life: time.Hour, took: time.Hour}
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		go func() { _, _ = c.Token(t.Context(), "key", s.fetch) }()
		synctest.Wait()
		if _, err := c.Token(ctx, "key", s.fetch); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		c.Wait()
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("waited %v", took)
		}
		c.Wait()
	})
}

func TestCacheNegative(t *testing.T) {
	loop := &Error{Status: 400, Code: "invalid_grant", Numbers: []int{50196}}
	tests := []struct {
		name string
		err  error
		hold time.Duration
	}{
		{"refused", errRefused, time.Minute},
		{"wrapped", fmt.Errorf("for x: %w", errRefused), time.Minute},
		{"forbidden", &Error{Status: 400, Code: "invalid_grant", Numbers: []int{53003}}, time.Minute},
		{"sign in", &Error{Status: 400, Code: "invalid_grant"}, time.Minute},
		{"misconfigured", &Error{Status: 400, Code: "invalid_scope"}, time.Minute},
		{"loop", loop, time.Minute},
		{"outage", errOutage, time.Second},
		{"throttled", &Error{Status: 429, RetryAfter: 17 * time.Second}, 17 * time.Second},
		{"throttled for long", &Error{Status: 429, RetryAfter: time.Hour}, time.Minute},
		{"of the store", secret.ErrNotFound, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := &Cache{}, &source{life: time.Hour, err: tt.err}
				s.want(t, c.Token, "", tt.err, 1)
				time.Sleep(tt.hold - time.Millisecond)
				s.want(t, c.Token, "", tt.err, 1)
				time.Sleep(time.Millisecond)
				s.err = nil
				s.want(t, c.Token, "token 2", nil, 2)
			})
		})
	}
}

// An outage does not take away a token that is still good.
func TestCacheOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour}
		s.want(t, c.Token, "token 1", nil, 1)
		s.err = errOutage
		time.Sleep(57 * time.Minute)
		s.want(t, c.Token, "token 1", nil, 2)
		s.want(t, c.Token, "token 1", nil, 2)
		time.Sleep(3 * time.Minute)
		s.want(t, c.Token, "", errOutage, 3)
		s.err = nil
		time.Sleep(time.Second)
		s.want(t, c.Token, "token 4", nil, 4)
	})
}

func TestCacheRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour}
		s.want(t, c.Token, "token 1", nil, 1)
		s.want(t, c.Renew, "token 2", nil, 2)
		s.want(t, c.Token, "token 2", nil, 2)

		s.err = errOutage
		s.want(t, c.Renew, "", errOutage, 3)
		s.want(t, c.Token, "token 2", nil, 3)

		s.err = errRefused
		s.want(t, c.Renew, "", errRefused, 4)
		s.want(t, c.Token, "", errRefused, 4)

		s.err = nil // asked again although the refusal is remembered
		s.want(t, c.Renew, "token 5", nil, 5)
		s.want(t, c.Token, "token 5", nil, 5)
	})
}

func TestCacheForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{err: errRefused, life: time.Hour}
		s.want(t, c.Token, "", errRefused, 1)
		c.Forget("key")
		s.err = nil
		s.want(t, c.Token, "token 2", nil, 2)

		// What is under way is forgotten as well.
		s.took = time.Minute
		var wg sync.WaitGroup
		wg.Go(func() { s.want(t, c.Renew, "token 3", nil, 3) })
		synctest.Wait()
		c.Forget("key")
		c.Wait()
		wg.Wait()
		s.took = 0
		s.want(t, c.Token, "token 4", nil, 4)
	})
}

func TestCacheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		var c Cache
		want := func(age time.Duration, ok bool) {
			t.Helper()
			if got, gotOK := c.Age("key"); got != age || gotOK != ok {
				t.Errorf("got %s, %v; want %s, %v", got, gotOK, age, ok)
			}
		}
		want(0, false)
		s.want(t, c.Token, "token 1", nil, 1)
		want(0, true)
		time.Sleep(20 * time.Minute)
		want(20*time.Minute, true)
		time.Sleep(40 * time.Minute)
		want(0, false) // it has ended
		s.want(t, c.Token, "token 2", nil, 2)
		want(0, true)
		s.err = errRefused
		s.want(t, c.Renew, "", errRefused, 3)
		want(0, false)
	})
}

func TestCachePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour}
		for name, fetch := range map[string]func(context.Context) (Token, error){
			"panic":  func(context.Context) (Token, error) { panic("boom") },
			"goexit": func(context.Context) (Token, error) { runtime.Goexit(); return Token{}, nil },
			"empty":  func(context.Context) (Token, error) { return Token{}, nil },
		} {
			_, err := c.Token(t.Context(), "key", fetch)
			if err == nil || name == "panic" && !strings.Contains(err.Error(), "boom") {
				t.Errorf("%s: got %v", name, err)
			}
			time.Sleep(time.Second)
		}
		s.want(t, c.Token, "token 1", nil, 1)
		c.Wait()
	})
}

func TestCacheStaysSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := &Cache{}, &source{life: time.Hour}
		bad := &source{err: errRefused}
		for i := range 100 {
			_, _ = c.Token(t.Context(), fmt.Sprint("good ", i), s.fetch)
			_, _ = c.Token(t.Context(), fmt.Sprint("bad ", i), bad.fetch)
		}
		time.Sleep(time.Hour)
		s.want(t, c.Token, "token 101", nil, 101)
		if n := len(c.entries); n != 1 {
			t.Errorf("%d entries, want 1", n)
		}
	})
}

// A clock set back does not make a token live for ever.
func TestCacheClockSetBack(t *testing.T) {
	now := time.Now()
	e := &entry{token: Token{Access: secret.New("x"), Expires: now.Add(9 * time.Hour)}, fetched: now.Add(8 * time.Hour), due: now.Add(9 * time.Hour)}
	if e.fresh(now) || e.good(now) {
		t.Error("a token from the future is used")
	}
	if !e.fresh(now.Add(8*time.Hour - clockSlack/2)) {
		t.Error("a small step back costs the token")
	}
}
