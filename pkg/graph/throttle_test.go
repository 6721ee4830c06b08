package graph

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What one is told to wait, all wait: nothing is sent meanwhile.
func TestThrottleIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("get", status(429, "Retry-After", "30"))
		shared := &Throttle{}
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				c := f.direct()
				c.Throttle = shared
				time.Sleep(time.Duration(i) * time.Second)
				if _, err := c.Application(t.Context(), clientID); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("took %s", took)
		}
		if n := f.count("get"); n != 9 {
			t.Errorf("%d requests for 8 reads, one of which was throttled", n)
		}
	})
}

// A wait longer than anybody's patience is an answer for all, and is not asked
// for again.
func TestThrottleTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("get", status(429, "Retry-After", "3600"))
		c := f.direct()
		c.Throttle = &Throttle{}
		for range 5 {
			_, err := c.Application(t.Context(), clientID)
			if e, ok := errors.AsType[*Error](err); !ok || !e.IsThrottled() || e.RetryAfter != time.Hour || e.Code != "Some" {
				t.Errorf("%#v", err)
			}
		}
		if n := f.count("get"); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// several are credentials of the fake's application.
var several = []string{
	"cccccccc-0000-2222-3333-444444444444", "cccccccc-0001-2222-3333-444444444444",
	"cccccccc-0002-2222-3333-444444444444", "cccccccc-0003-2222-3333-444444444444",
}

func withSeveral(t *testing.T) *fake {
	f := newFake(t)
	for _, id := range several {
		f.creds = append(f.creds, map[string]any{"keyId": id, "displayName": id, "startDateTime": "2020-01-01T00:00:00Z"})
	}
	return f
}

// Several are confirmed by the same reads. One that is not there is its own
// failure alone; the mark comes before any confirmation.
func TestRemovePasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withSeveral(t)
		f.fail("remove", good, good, lostAfter)
		var taken []string
		keys := append([]string{strings.ToUpper(several[0]), youngKey, "no guid"}, several[1:]...)
		errs := f.direct().RemovePasswords(t.Context(), clientID, keys, func(ids []string) {
			if n := f.count("get"); n > 0 {
				t.Errorf("taken after %d reads", n)
			}
			taken = append(taken, ids...)
		})
		for i, err := range errs {
			switch e, ok := errors.AsType[*Error](err); {
			case i == 1 && (!ok || !e.IsNoSuchCredential()):
				t.Errorf("none: %v", err)
			case i == 2 && (err == nil || ok):
				t.Errorf("no GUID: %v", err)
			case i != 1 && i != 2 && err != nil:
				t.Errorf("%d: %v", i, err)
			}
		}
		if len(f.keys()) != 1 || !slices.Equal(taken, several) {
			t.Errorf("left %v, taken %v", f.keys(), taken)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := withSeveral(t)
		if errs := f.direct().RemovePasswords(t.Context(), clientID, several, nil); errors.Join(errs...) != nil {
			t.Error(errs)
		}
		if f.count("remove") != len(several) || f.count("get") != agree {
			t.Errorf("%v", f.calls)
		}
	})
}

// What is about the application is not asked again for each credential.
func TestRemovePasswordsRefused(t *testing.T) {
	for _, code := range []int{401, 403, 404} {
		f := withSeveral(t)
		f.fail("remove", good, status(code))
		errs := f.serve(t).RemovePasswords(t.Context(), clientID, several, nil)
		for i, err := range errs {
			if e, ok := errors.AsType[*Error](err); i == 0 && err != nil || i > 0 && (!ok || e.Status != code) {
				t.Errorf("%d, %d: %v", code, i, err)
			}
		}
		if n := f.count("remove"); n != 2 {
			t.Errorf("%d: %d requests", code, n)
		}
	}
}

// What the report has, in the form that Microsoft Graph gave it in 2026; the
// newest of a key counts, and what cannot be read is unknown.
func TestCredentialUse(t *testing.T) {
	f := newFake(t)
	pages := []string{
		`{"@odata.context":"https://graph.microsoft.com/beta/$metadata#reports/appCredentialSignInActivities","value":[
		{"appId":"` + clientID + `","appObjectId":"` + objectID + `","createdDateTime":"2026-06-05T18:50:53.146Z","credentialOrigin":"application",
		"expirationDateTime":"2028-06-04T17:36:33Z","id":"eA==","keyId":"` + strings.ToUpper(oldKey) + `","keyType":"password","keyUsage":"verify",
		"resourceId":"00000003-0000-0000-c000-000000000000","servicePrincipalObjectId":null,
		"signInActivity":{"lastSignInDateTime":"2026-07-16T23:58:01.64Z","lastSignInRequestId":"4d75a177-0b7c-494e-805a-9677901c4300"}},
		{"appId":"` + objectID + `","keyId":"` + youngKey + `","signInActivity":{"lastSignInDateTime":"2026-07-16T23:58:01.64Z"}}],"@odata.nextLink":"NEXT"}`,
		`{"value":[]}`,
	}
	pages[1] = `{"value":[{"appId":"` + clientID + `","keyId":"` + oldKey + `","signInActivity":{"lastSignInDateTime":"2026-07-01T00:00:00Z"}},
		{"appId":"` + clientID + `","keyId":"` + youngKey + `","signInActivity":{"lastSignInDateTime":"2021-04-01T00:00:00-8:00"}},
		{"appId":"` + clientID + `","keyId":"` + youngKey + `","signInActivity":null}]}`
	var asked []string
	var base string
	for i, page := range pages {
		f.fail("other", func(w http.ResponseWriter, r *http.Request, _ func() any) {
			asked = append(asked, r.URL.String())
			if i == 0 && r.URL.Query().Get("$filter") != "appId eq '"+clientID+"'" {
				t.Errorf("asked for %s", r.URL)
			}
			_, _ = w.Write([]byte(strings.ReplaceAll(page, "NEXT", base+"/beta/reports/next")))
		})
	}
	c := f.serve(t)
	base = strings.TrimSuffix(c.BaseURL, "/v1.0")
	used, err := c.CredentialUse(t.Context(), clientID)
	if want := time.Date(2026, 7, 16, 23, 58, 1, 640e6, time.UTC); err != nil || len(used) != 1 || !used[oldKey].Equal(want) {
		t.Errorf("%v, %v", used, err)
	}
	if len(asked) != 2 || !strings.HasPrefix(asked[0], "/beta/reports/appCredentialSignInActivities?") || asked[1] != "/beta/reports/next" {
		t.Errorf("asked for %v", asked)
	}
	c.BaseURL = "https://graph.example/v2.0"
	if _, err := c.CredentialUse(t.Context(), clientID); err == nil {
		t.Error("the beta of a version that is not known")
	}
}
