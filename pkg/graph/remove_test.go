package graph

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const youngKey = "cccccccc-1111-2222-3333-444444444444"

// withYoung adds a credential made moments ago.
func withYoung(t *testing.T) *fake {
	f := newFake(t)
	f.creds = append(f.creds, map[string]any{"keyId": youngKey, "displayName": "young", "startDateTime": f.now().Format(time.RFC3339)})
	return f
}

// missed is Graph not finding what it has.
func missed(w http.ResponseWriter, r *http.Request, _ func() any) {
	good(w, r, func() any { return refusal("No password credential found with keyId.") })
}

func TestRemovePassword(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(f *fake, c *Client)
		min     time.Duration
		max     time.Duration
	}{
		{"at once", func(*fake, *Client) {}, 0, time.Second},
		{"answer lost", func(f *fake, _ *Client) { f.fail("remove", lostAfter) }, 0, 3 * time.Second},
		{"server fault after", func(f *fake, _ *Client) { f.fail("remove", failsAfter(503)) }, 0, 3 * time.Second},
		{"throttled", func(f *fake, _ *Client) { f.fail("remove", status(429, "Retry-After", "100")) }, 100 * time.Second, 101 * time.Second},
		{"read lost", func(f *fake, _ *Client) { f.fail("get", lostBefore) }, 0, 3 * time.Second},
		{"reads lag", func(f *fake, _ *Client) {
			f.fail("get", lag, stale(1), lag, lag)
		}, 5 * time.Second, 20 * time.Second},
		{"young, not found yet", func(f *fake, _ *Client) { f.fail("remove", missed, missed) }, time.Second, 20 * time.Second},
		{"young, reads lag as well", func(f *fake, c *Client) {
			if _, err := c.Application(f.t.Context(), clientID); err != nil {
				f.t.Error(err)
			}
			f.fail("remove", missed, missed, missed)
			for range 9 {
				f.fail("get", stale(1))
			}
		}, time.Second, 20 * time.Second},
		{"expected by a note", func(f *fake, c *Client) {
			c.Expect(strings.ToUpper(youngKey), time.Now())
			for range roundsYoung - 1 {
				f.fail("remove", missed)
				f.fail("get", stale(1), stale(1), stale(1))
			}
		}, 10 * time.Second, 40 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := withYoung(t)
				c := f.direct()
				tt.prepare(f, c)
				begin := time.Now()
				if err := c.RemovePassword(t.Context(), clientID, strings.ToUpper(youngKey), nil); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took < tt.min || took > tt.max {
					t.Errorf("took %s", took)
				}
				if keys := f.keys(); len(keys) != 1 {
					t.Errorf("left: %v", keys)
				}
			})
		})
	}
}

// lag answers a read as if the young credential was still there.
func lag(w http.ResponseWriter, r *http.Request, work func() any) {
	answer := work().(map[string]any)
	answer["passwordCredentials"] = []map[string]any{{"keyId": youngKey, "displayName": "young", "startDateTime": "2000-01-01T00:00:00Z"}}
	good(w, r, func() any { return answer })
}

func TestRemovePasswordNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		begin := time.Now()
		err := f.direct().RemovePassword(t.Context(), clientID, youngKey, nil)
		if e, ok := err.(*Error); !ok || !e.IsNoSuchCredential() || e.Temporary() || time.Since(begin) > 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
	// One that was there long ago and is gone now is removed, whoever did it.
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c := f.direct()
		c.Expect(youngKey, time.Now().Add(-time.Hour))
		if err := c.RemovePassword(t.Context(), clientID, youngKey, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestRemovePasswordUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withYoung(t)
		for range 100 {
			f.fail("get", lag)
		}
		begin := time.Now()
		err := f.direct().RemovePassword(t.Context(), clientID, youngKey, nil)
		if e, ok := err.(*UnconfirmedError); !ok || !e.Removed || e.Err != nil || !strings.Contains(e.Error(), "still lists it") {
			t.Errorf("%#v", err)
		}
		if took := time.Since(begin); took > 91*time.Second {
			t.Errorf("took %s", took)
		}
		f.faults["get"] = nil
		if err := f.direct().ConfirmRemoved(t.Context(), clientID, youngKey); err != nil {
			t.Error(err)
		}
	})
	f := withYoung(t)
	f.fail("get", status(403))
	err := f.serve(t).RemovePassword(t.Context(), clientID, youngKey, nil)
	e, ok := err.(*UnconfirmedError)
	if cause, isError := errors.AsType[*Error](err); !ok || !e.Removed || !isError || !cause.IsForbidden() {
		t.Errorf("%#v", err)
	}
}

func TestConfirmRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withYoung(t)
		begin := time.Now()
		err := f.direct().ConfirmRemoved(t.Context(), clientID, youngKey)
		if e, ok := err.(*UnconfirmedError); !ok || e.Err != nil || time.Since(begin) != 90*time.Second || f.count("remove") != 0 {
			t.Errorf("%#v after %s", err, time.Since(begin))
		}
	})
}

func TestRemovePasswordRefused(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404} {
		f := withYoung(t)
		f.fail("remove", status(code))
		err := f.serve(t).RemovePassword(t.Context(), clientID, youngKey, nil)
		if e, ok := err.(*Error); !ok || e.Status != code || e.IsNoSuchCredential() || f.count("get") != 0 {
			t.Errorf("%v", err)
		}
	}
	f := withYoung(t)
	c := f.serve(t)
	for _, id := range []string{"", "x", "{" + youngKey + "}", youngKey + "')/x"} {
		if err := c.RemovePassword(t.Context(), clientID, id, nil); err == nil {
			t.Errorf("key id %q was taken", id)
		}
		if err := c.RemovePassword(t.Context(), id, youngKey, nil); err == nil {
			t.Errorf("client id %q was taken", id)
		}
	}
	if len(f.calls) != 0 {
		t.Error(f.calls)
	}
}
