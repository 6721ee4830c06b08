package entra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/o365pw/o365pw/pkg/secret"
)

// memoryStore keeps a refresh token and counts what is done with it.
type memoryStore struct {
	lock  sync.Mutex
	token string // "" is none
	saves int

	lockErr, loadErr, saveErr error
	saved                     context.Context // what Save was called with
}

func (s *memoryStore) Lock(ctx context.Context) (func(), error) {
	if s.lockErr != nil {
		return nil, s.lockErr
	}
	s.lock.Lock()
	return s.lock.Unlock, nil
}

func (s *memoryStore) Load(context.Context) (secret.Text, error) {
	switch {
	case s.loadErr != nil:
		return secret.Text{}, s.loadErr
	case s.token == "":
		return secret.Text{}, fmt.Errorf("read: %w", secret.ErrNotFound)
	}
	return secret.New(s.token), nil
}

func (s *memoryStore) Save(ctx context.Context, t secret.Text) error {
	s.saved = ctx
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.saveErr != nil {
		return s.saveErr
	}
	s.token, s.saves = t.Reveal(), s.saves+1
	return nil
}

func (s *memoryStore) unlocked(t *testing.T) {
	t.Helper()
	if !s.lock.TryLock() {
		t.Error("still locked")
		return
	}
	s.lock.Unlock()
}

func TestRefreshStored(t *testing.T) {
	rotated := tokenReply(map[string]any{"refresh_token": "0.new"})
	tests := []struct {
		name   string
		answer reply
		kept   string
		saves  int
		kind   Kind // "" is success
	}{
		{"rotated", rotated, "0.new", 1, ""},
		{"not rotated", tokenReply(nil), "0.old", 0, ""},
		{"the same again", tokenReply(map[string]any{"refresh_token": "0.old"}), "0.old", 0, ""},
		{"ended", errorReply(400, "invalid_grant", 700082), "0.old", 0, SignInRequired},
		{"throttled", reply{status: 429}, "0.old", 0, Unavailable},
		{"down", reply{status: 500, body: "oops"}, "0.old", 0, Unavailable},
		{"garbage", reply{status: 200, body: "<html>"}, "0.old", 0, Unavailable},
		{"refresh token only", tokenReply(map[string]any{"access_token": nil, "refresh_token": "0.new"}), "0.old", 0, Unavailable},
		{"odd refresh token", tokenReply(map[string]any{"refresh_token": "a\nb"}), "0.old", 0, Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newClient(t, tt.answer)
			s := &memoryStore{token: "0.old"}
			got, err := c.RefreshStored(t.Context(), testClient, testScope, s)
			switch {
			case tt.kind == "" && (err != nil || got.Access.IsZero()):
				t.Errorf("got %v, %v", got, err)
			case tt.kind != "" && asError(t, err).Kind() != tt.kind:
				t.Errorf("got %v, want %s", err, tt.kind)
			}
			if s.token != tt.kept || s.saves != tt.saves {
				t.Errorf("store holds %q after %d saves, want %q after %d", s.token, s.saves, tt.kept, tt.saves)
			}
			s.unlocked(t)
		})
	}
}

func TestRefreshStoreFails(t *testing.T) {
	broken := errors.New("keychain is locked")
	tests := []struct {
		name     string
		store    *memoryStore
		requests int
		is       error
		kind     Kind
	}{
		{"lock", &memoryStore{token: "0.old", lockErr: context.Canceled}, 0, context.Canceled, ""},
		{"load", &memoryStore{token: "0.old", loadErr: broken}, 0, broken, ""},
		{"nothing stored", &memoryStore{}, 0, secret.ErrNotFound, SignInRequired},
		{"save", &memoryStore{token: "0.old", saveErr: broken}, 1, broken, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := newClient(t, tokenReply(map[string]any{"refresh_token": "0.new"}))
			before := tt.store.token
			got, err := c.RefreshStored(t.Context(), testClient, testScope, tt.store)
			if !errors.Is(err, tt.is) || !got.Access.IsZero() || len(f.got()) != tt.requests || tt.store.token != before {
				t.Errorf("got %v, %v after %d requests; store holds %q", got, err, len(f.got()), tt.store.token)
			}
			e, typed := errors.AsType[*Error](err)
			if typed != (tt.kind != "") || typed && e.Kind() != tt.kind {
				t.Errorf("got %v, want kind %q", err, tt.kind)
			}
			if strings.Contains(err.Error(), "0.new") || strings.Contains(err.Error(), "0.old") {
				t.Errorf("token in %v", err)
			}
			if tt.store.lockErr == nil {
				tt.store.unlocked(t)
			}
		})
	}
}

// An interrupt that comes with the answer does not cost the new token.
func TestRefreshInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeEntra{t: t, answers: []reply{tokenReply(map[string]any{"refresh_token": "0.new"})}}
	c := &Client{Authority: "https://entra.test", Tenant: testTenant, HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		resp, err := f.RoundTrip(r)
		if err == nil {
			resp.Body = cancelAtEnd{resp.Body, cancel}
		}
		return resp, err
	})}}
	s := &memoryStore{token: "0.old"}
	if _, err := c.RefreshStored(ctx, testClient, testScope, s); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil || s.token != "0.new" {
		t.Errorf("cancelled %v, store holds %q", ctx.Err(), s.token)
	}
	if _, bounded := s.saved.Deadline(); !bounded {
		t.Error("Save has no limit")
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// cancelAtEnd interrupts when the answer has been read.
type cancelAtEnd struct {
	io.ReadCloser
	cancel func()
}

func (c cancelAtEnd) Close() error { c.cancel(); return c.ReadCloser.Close() }

// Many at once: each refresh uses what the one before has saved, even where
// the server ends a refresh token by its use.
func TestRefreshTogether(t *testing.T) {
	var mu sync.Mutex
	current := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.PostFormValue("refresh_token") != fmt.Sprintf("0.%04d", current) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, errorReply(400, "invalid_grant", 70000).body)
			return
		}
		current++
		_, _ = io.WriteString(w, tokenReply(map[string]any{"refresh_token": fmt.Sprintf("0.%04d", current)}).body)
	}))
	defer s.Close()
	c := &Client{HTTP: s.Client(), Authority: s.URL, Tenant: testTenant}
	store := &memoryStore{token: "0.0000"}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.RefreshStored(t.Context(), testClient, testScope, store); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if store.token != "0.0020" {
		t.Errorf("store holds %s", store.token)
	}
}
