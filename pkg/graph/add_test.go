package graph

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

func newPassword() NewPassword {
	return NewPassword{DisplayName: "Outlook", End: time.Now().Add(180 * 24 * time.Hour)}
}

// check says whether exactly the given credential came on top of the old one.
func (f *fake) check(t *testing.T, cred PasswordCredential, text secret.Text) {
	t.Helper()
	if want := []string{oldKey, cred.KeyID}; !slices.Equal(f.keys(), want) {
		t.Errorf("credentials %v, not %v", f.keys(), want)
	}
	if text.Reveal() != "abc8Q~secret" || cred.DisplayName != "Outlook" || cred.Hint != "abc" {
		t.Errorf("%+v", cred)
	}
}

func TestAddPassword(t *testing.T) {
	f := newFake(t)
	f.ahead = 3 * time.Hour // or the local clock is wrong
	c := f.serve(t)
	var noted []time.Time
	want := newPassword()
	want.BeforeSend = func(start time.Time) error { noted = append(noted, start); return nil }
	cred, text, err := c.AddPassword(t.Context(), clientID, want)
	if err != nil {
		t.Fatal(err)
	}
	f.check(t, cred, text)
	if len(noted) != 1 || !cred.Start.Equal(noted[0]) {
		t.Errorf("start %s, noted %v", cred.Start, noted)
	}
	if off := cred.Start.Sub(f.now()).Abs(); off > 30*time.Second {
		t.Errorf("the start is %s off Graph's clock", off)
	}
	var body struct {
		PasswordCredential struct{ DisplayName, StartDateTime, EndDateTime string }
	}
	if err := json.Unmarshal([]byte(f.bodies[1]), &body); err != nil || body.PasswordCredential.DisplayName != "Outlook" ||
		body.PasswordCredential.StartDateTime != noted[0].Format("2006-01-02T15:04:05.000000Z") ||
		body.PasswordCredential.EndDateTime != want.End.UTC().Format("2006-01-02T15:04:05.000000Z") {
		t.Errorf("body %s %v", f.bodies[1], err)
	}
	if got, err := c.Orphans(t.Context(), clientID, "Outlook", cred.Start); err != nil || len(got) != 1 || got[0].KeyID != cred.KeyID {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.Orphans(t.Context(), clientID, "Outlook", cred.Start.Add(3*time.Second)); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}

// Every way in which the answer to the first request can be lost: afterwards
// there is one credential, and it is the one whose secret came back.
func TestAddPasswordLostOnce(t *testing.T) {
	noSecret := func(w http.ResponseWriter, r *http.Request, work func() any) {
		answer := work().(map[string]any)
		answer["secretText"] = nil
		good(w, r, func() any { return answer })
	}
	wrongKey := func(w http.ResponseWriter, r *http.Request, work func() any) {
		answer := work().(map[string]any)
		answer["keyId"] = "key"
		good(w, r, func() any { return answer })
	}
	cachedKey := func(w http.ResponseWriter, r *http.Request, work func() any) {
		answer := work().(map[string]any)
		answer["keyId"] = oldKey
		good(w, r, func() any { return answer })
	}
	for name, lose := range map[string]fault{
		"before": lostBefore, "after": lostAfter, "truncated": truncated, "500": failsAfter(500), "503": failsAfter(503), "504": failsAfter(504),
		"408": failsAfter(408), "503, nothing done": status(503), "garbage": answers("<html>abc8Q~secret"), "empty": answers(""),
		"no secret": noSecret, "wrong key": wrongKey, "cached key": cachedKey, "number": answers(`{"keyId":"` + oldKey + `","secretText":12345}`),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fail("add", lose)
			c := f.serve(t)
			cred, text, err := c.AddPassword(t.Context(), clientID, newPassword())
			if err != nil {
				t.Fatal(err)
			}
			f.check(t, cred, text)
			if f.count("add") != 2 {
				t.Errorf("calls %v", f.calls)
			}
		})
	}
}

func TestAddPasswordLostTwice(t *testing.T) {
	f := newFake(t)
	f.fail("add", lostAfter, answers("abc8Q~secret"))
	_, _, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword())
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Temporary() || !strings.Contains(err.Error(), "removed again") || strings.Contains(err.Error(), "8Q~") {
		t.Errorf("%v", err)
	}
	if amb, ok := errors.AsType[*AmbiguousError](err); ok {
		t.Errorf("nothing is left, but %v", amb)
	}
	if !slices.Equal(f.keys(), []string{oldKey}) || f.added != 2 {
		t.Errorf("credentials %v, %d made", f.keys(), f.added)
	}
}

func TestAddPasswordNeverSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", lostBefore, lostBefore)
		_, _, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		e, ok := errors.AsType[*AmbiguousError](err)
		if !ok || e.Name != "Outlook" || len(e.Starts) != 2 || len(e.KeyIDs) != 0 || e.CleanUp != nil || f.count("add") != 2 {
			t.Fatalf("%#v", err)
		}
		if !strings.Contains(e.Error(), `"Outlook"`) || !strings.Contains(e.Error(), e.Starts[1].Format(time.RFC3339)) {
			t.Error(e)
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Error("the cause is lost")
		}
	})
}

// The credential of the first request shows up after the second has worked.
func TestAddPasswordSeenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", stallsAfter)
		f.fail("get", good)
		for range lookUps {
			f.fail("get", stale(1))
		}
		cred, text, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if err != nil {
			t.Fatal(err)
		}
		f.check(t, cred, text)
		if f.added != 2 {
			t.Errorf("%d made", f.added)
		}
	})
}

func TestAddPasswordLeft(t *testing.T) {
	f := newFake(t)
	f.fail("add", lostAfter)
	f.fail("remove", status(403))
	_, _, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword())
	e, ok := errors.AsType[*AmbiguousError](err)
	if !ok || len(e.KeyIDs) != 1 || e.KeyIDs[0] != f.keys()[1] || e.CleanUp == nil || f.added != 1 || !strings.Contains(e.Error(), e.KeyIDs[0]) {
		t.Fatalf("%#v", err)
	}
}

// The network fails together with the request and comes back while the
// credential is looked for.
func TestAddPasswordOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", lostAfter)
		f.fail("get", good)
		for range 2*maxLost + 1 {
			f.fail("get", lostBefore)
		}
		cred, text, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if err != nil {
			t.Fatal(err)
		}
		f.check(t, cred, text)
	})
	synctest.Test(t, func(t *testing.T) { // it does not come back
		f := newFake(t)
		f.fail("add", lostAfter)
		f.fail("get", good)
		for range 100 {
			f.fail("get", lostBefore)
		}
		begin := time.Now()
		_, _, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if e, ok := errors.AsType[*AmbiguousError](err); !ok || e.CleanUp == nil || len(e.Starts) != 1 || f.count("add") != 1 {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

// Others may use the same name at the same time.
func TestAddPasswordSparesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		other := func(f *fake, start time.Time) string {
			key := "bbbbbbbb-1111-2222-3333-444444444444"
			f.creds = append(f.creds, map[string]any{"keyId": key, "displayName": "Outlook", "startDateTime": start.UTC().Format(time.RFC3339Nano)})
			return key
		}
		var key string
		f.fail("add", func(w http.ResponseWriter, r *http.Request, work func() any) {
			key = other(f, time.Now().Add(time.Second))
			lostAfter(w, r, work)
		})
		cred, _, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{oldKey, key, cred.KeyID}; !slices.Equal(f.keys(), want) {
			t.Errorf("%v, not %v", f.keys(), want)
		}
	})
}

// Graph rounds start times.
func TestAddPasswordRounded(t *testing.T) {
	f := newFake(t)
	f.fail("add", func(w http.ResponseWriter, r *http.Request, work func() any) {
		work()
		f.mu.Lock()
		f.creds[1]["startDateTime"] = time.Now().UTC().Format(time.RFC3339)
		f.mu.Unlock()
		panic(http.ErrAbortHandler)
	})
	cred, text, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword())
	if err != nil {
		t.Fatal(err)
	}
	f.check(t, cred, text)
}

func TestAddPasswordCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	f := newFake(t)
	signal := errors.New("interrupt")
	f.fail("add", func(_ http.ResponseWriter, r *http.Request, work func() any) {
		work()
		cancel(signal)
		<-r.Context().Done()
	})
	_, _, err := f.serve(t).AddPassword(ctx, clientID, newPassword())
	if !errors.Is(err, context.Canceled) || !errors.Is(err, signal) {
		t.Errorf("%v", err)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Temporary() {
		t.Errorf("%v", err)
	}
	if !slices.Equal(f.keys(), []string{oldKey}) || f.count("add") != 1 {
		t.Errorf("credentials %v, calls %v", f.keys(), f.calls)
	}
}

// What certainly did nothing is not followed by a clean-up.
func TestAddPasswordRefused(t *testing.T) {
	for name, code := range map[string]int{"400": 400, "401": 401, "403": 403, "404": 404, "409": 409, "redirect": 302} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fail("add", status(code, "Location", "https://evil.example/"))
			_, _, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword())
			e, ok := err.(*Error)
			if !ok || e.Status != code || e.Temporary() || !slices.Equal(f.calls, []string{"get", "add"}) {
				t.Errorf("%v, calls %v", err, f.calls)
			}
		})
	}
	t.Run("no connection", func(t *testing.T) {
		f := newFake(t)
		c := f.serve(t)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		listener.Close()
		var dead bool
		base := c.HTTP.Transport
		c.HTTP = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				dead = true
				r = r.Clone(r.Context())
				r.URL.Host = address
				return (&http.Transport{}).RoundTrip(r)
			}
			return base.RoundTrip(r)
		})}
		_, _, err = c.AddPassword(t.Context(), clientID, newPassword())
		e, ok := err.(*Error)
		if !ok || e.Status != 0 || !e.Temporary() || !dead || !slices.Equal(f.calls, []string{"get"}) {
			t.Errorf("%v, calls %v", err, f.calls)
		}
	})
	t.Run("not noted", func(t *testing.T) {
		f := newFake(t)
		want, full := newPassword(), errors.New("disk full")
		want.BeforeSend = func(time.Time) error { return full }
		if _, _, err := f.serve(t).AddPassword(t.Context(), clientID, want); err != full || f.count("add") != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("expired already", func(t *testing.T) {
		f := newFake(t)
		f.ahead = 365 * 24 * time.Hour
		if _, _, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword()); err == nil || !strings.Contains(err.Error(), "clock") || f.count("add") != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("no name", func(t *testing.T) {
		f := newFake(t)
		if _, _, err := f.serve(t).AddPassword(t.Context(), clientID, NewPassword{DisplayName: " "}); err == nil || len(f.calls) != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("second refused", func(t *testing.T) {
		f := newFake(t)
		f.fail("add", lostBefore, status(403))
		_, _, err := f.serve(t).AddPassword(t.Context(), clientID, newPassword())
		amb, ok := err.(*AmbiguousError)
		if e, isError := errors.AsType[*Error](err); !ok || !isError || !e.IsForbidden() || len(amb.Starts) != 1 {
			t.Errorf("%v", err)
		}
	})
}

func TestAddPasswordThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", status(429, "Retry-After", "30"))
		begin := time.Now()
		cred, text, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if err != nil || time.Since(begin) != 30*time.Second {
			t.Fatalf("%v after %s", err, time.Since(begin))
		}
		f.check(t, cred, text)
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		for range 10 {
			f.fail("add", status(429, "Retry-After", "50"))
		}
		begin := time.Now()
		_, _, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		e, ok := err.(*Error)
		if !ok || !e.IsThrottled() || !e.Temporary() || e.Waited != 100*time.Second || time.Since(begin) != e.Waited || f.added != 0 {
			t.Fatalf("%v after %s", err, time.Since(begin))
		}
	})
}

// A server that is down says when to come back.
func TestAddPasswordAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", status(503, "Retry-After", "60"))
		begin := time.Now()
		cred, text, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if err != nil || time.Since(begin) != time.Minute {
			t.Fatalf("%v after %s", err, time.Since(begin))
		}
		f.check(t, cred, text)
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("add", status(503, "Retry-After", "600"))
		_, _, err := f.direct().AddPassword(t.Context(), clientID, newPassword())
		if e, ok := errors.AsType[*Error](err); !ok || !e.Temporary() || f.count("add") != 1 {
			t.Errorf("%v", err)
		}
	})
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
