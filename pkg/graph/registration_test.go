package graph

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func wanted() Registration {
	return Registration{UniqueName: appName, DisplayName: "Mail", Tags: []string{"o365pw"}, PublicRedirects: []string{"http://localhost"}, FallbackPublic: true,
		RequiredAccess: []ResourceAccess{{ExchangeAppID, []Permission{{strings.ToUpper(imapRole), RolePermission}, {imapScope, ScopePermission}}}}, Notes: "made by o365pw"}
}

// written is want as it reads back.
func written(want Registration) Registration { return Registration{}.with(want).named(want.UniqueName) }

func (r Registration) named(name string) Registration { r.UniqueName = name; return r }

func (f *tenant) checkApp(t *testing.T, c *Client, app Application, want Registration) {
	t.Helper()
	if app.ID != objectID || app.AppID != clientID || app.DisplayName != "Mail" || app.SignInAudience != "AzureADMyOrg" || !reflect.DeepEqual(app.Registration, want) {
		t.Errorf("%+v, not %+v", app, want)
	}
	for _, read := range []func() (Application, error){
		func() (Application, error) { return c.ApplicationByUniqueName(t.Context(), appName) },
		func() (Application, error) { return c.ApplicationRegistration(t.Context(), strings.ToUpper(clientID)) },
	} {
		if got, err := read(); err != nil || !reflect.DeepEqual(got.Registration, app.Registration) || got.SignInAudience != app.SignInAudience || got.Fresh != app.Fresh || !got.Created.Equal(app.Created) || got.Created.IsZero() {
			t.Errorf("reads %+v %v", got, err)
		}
	}
}

func TestEnsureApplicationNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTenant(t)
		c := f.direct()
		if _, err := c.ApplicationByUniqueName(t.Context(), appName); err == nil || !err.(*Error).IsNotFound() {
			t.Errorf("%v", err)
		}
		app, changed, err := c.EnsureApplication(t.Context(), wanted())
		if err != nil || !changed || !app.Fresh {
			t.Fatalf("%t %+v %v", changed, app, err)
		}
		var body object
		if err := json.Unmarshal([]byte(f.bodies[0]), &body); err != nil || len(f.writes()) != 1 || body["signInAudience"] != "AzureADMyOrg" || body["isFallbackPublicClient"] != true ||
			!strings.Contains(f.bodies[0], `"requiredResourceAccess":[{"resourceAppId":"`+ExchangeAppID+`","resourceAccess":[{"id":"`+imapRole+`","type":"Role"},{"id":"`+imapScope+`","type":"Scope"}]}]`) {
			t.Errorf("%v %s", f.calls, f.bodies)
		}
		f.checkApp(t, c, app, written(wanted()))

		// Again: nothing is written, and in a while it is no longer fresh.
		time.Sleep(young)
		again, changed, err := c.EnsureApplication(t.Context(), wanted())
		if err != nil || changed || again.Fresh || len(f.writes()) != 1 {
			t.Errorf("%t %+v %v %v", changed, again, err, f.calls)
		}
		f.checkApp(t, c, again, written(wanted()))
	})
}

func TestEnsureApplicationMerges(t *testing.T) {
	f := newTenant(t)
	f.app = newApp(appName, time.Now().Add(-24*time.Hour))
	other := object{"resourceAppId": "00000003-0000-0000-c000-000000000000", "resourceAccess": []any{object{"id": imapScope, "type": "Scope"}}}
	f.app["displayName"] = "Renamed"
	f.app["tags"] = []any{"theirs"}
	f.app["publicClient"] = object{"redirectUris": []any{"ms-app://theirs"}}
	f.app["isFallbackPublicClient"] = true
	f.app["notes"] = "theirs"
	f.app["requiredResourceAccess"] = []any{other, object{"resourceAppId": ExchangeAppID, "resourceAccess": []any{object{"id": popRole, "type": "Role"}, object{"id": imapRole, "type": "Role"}}}}
	c := f.serve(t)
	app, changed, err := c.EnsureApplication(t.Context(), wanted())
	if err != nil || !changed || app.Fresh || !slices.Equal(f.writes(), []string{"patch app"}) || strings.Contains(f.bodies[0], "notes") || strings.Contains(f.bodies[0], "Fallback") {
		t.Fatalf("%t %+v %v %v", changed, app, err, f.bodies)
	}
	f.checkApp(t, c, app, Registration{UniqueName: appName, DisplayName: "Mail", Tags: []string{"theirs", "o365pw"}, PublicRedirects: []string{"ms-app://theirs", "http://localhost"},
		FallbackPublic: true, Notes: "theirs", RequiredAccess: []ResourceAccess{
			{"00000003-0000-0000-c000-000000000000", []Permission{{imapScope, "Scope"}}},
			{ExchangeAppID, []Permission{{popRole, "Role"}, {imapRole, "Role"}, {imapScope, "Scope"}}}}})
	if _, changed, err := c.EnsureApplication(t.Context(), wanted()); err != nil || changed || len(f.writes()) != 1 {
		t.Errorf("%t %v %v", changed, err, f.calls)
	}
	// One that wants less takes nothing away.
	less := Registration{UniqueName: appName, DisplayName: "Mail"}
	if _, changed, err := c.EnsureApplication(t.Context(), less); err != nil || changed {
		t.Errorf("%t %v", changed, err)
	}
}

func TestEnsureApplicationFaults(t *testing.T) {
	conflict := failure(409, "Request_MultipleObjectsWithSameKeyValue", "Another object with the same value for property uniqueName already exists.")
	late := refuses(notFound)
	for name, tt := range map[string]struct {
		prepare func(*tenant)
		made    bool
		patches int
	}{
		"answer lost":          {func(f *tenant) { f.fail("patch app", lostAfter) }, true, 2},
		"request lost":         {func(f *tenant) { f.fail("patch app", lostBefore) }, true, 2},
		"fault after the work": {func(f *tenant) { f.fail("patch app", failsAfter(503)) }, true, 2},
		"throttled":            {func(f *tenant) { f.fail("patch app", status(429, "Retry-After", "30")) }, true, 2},
		"lost, reads lag":      {func(f *tenant) { f.fail("patch app", lostAfter); f.fail("get app", good, late, late, late) }, true, 2},
		"lost, then conflict":  {func(f *tenant) { f.fail("patch app", lostAfter, refuses(conflict)); f.fail("get app", good, late) }, true, 2},
		"garbage":              {func(f *tenant) { f.fail("patch app", answers("<html>")) }, true, 1},
		"stale read": {func(f *tenant) { // it was there, as it is wanted
			f.patchApp(false, appName, "create-if-missing", object{"displayName": "Mail"})
			f.fail("get app", late)
		}, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				tt.prepare(f)
				c := f.direct()
				app, changed, err := c.EnsureApplication(t.Context(), wanted())
				if err != nil || changed != tt.made || len(f.writes()) > tt.patches || !app.Fresh {
					t.Fatalf("%t %+v %v %v", changed, app, err, f.calls)
				}
				f.checkApp(t, c, app, written(wanted()))
			})
		})
	}
	t.Run("made, without a date", func(t *testing.T) {
		f := newTenant(t)
		f.fail("patch app", func(w http.ResponseWriter, r *http.Request, work func() any) {
			answer := work().(result)
			answer.body.(object)["createdDateTime"] = nil
			good(w, r, func() any { return answer })
		})
		if app, changed, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err != nil || !changed || !app.Fresh || !app.Created.IsZero() {
			t.Errorf("%t %+v %v", changed, app, err)
		}
	})
	t.Run("made by somebody else meanwhile", func(t *testing.T) {
		f := newTenant(t)
		f.fail("patch app", func(w http.ResponseWriter, r *http.Request, work func() any) {
			work()
			refuses(conflict)(w, r, nil)
		})
		c := f.serve(t)
		app, changed, err := c.EnsureApplication(t.Context(), wanted())
		if err != nil || changed {
			t.Fatalf("%t %v", changed, err)
		}
		f.checkApp(t, c, app, written(wanted()))
	})
	t.Run("name taken by what does not show", func(t *testing.T) {
		f := newTenant(t)
		f.fail("patch app", refuses(conflict))
		if _, changed, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err == nil || changed || !err.(*Error).IsConflict() || len(f.writes()) != 1 {
			t.Errorf("%t %v", changed, err)
		}
	})
	t.Run("made and never shown", func(t *testing.T) {
		f := newTenant(t)
		f.fail("patch app", answers("{}"))
		f.fail("get app", slices.Repeat([]fault{late}, 20)...)
		if _, changed, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err == nil || !changed || !err.(*Error).Temporary() {
			t.Errorf("%t %v", changed, err)
		}
	})
	t.Run("made moments ago, not known everywhere", func(t *testing.T) {
		f := newTenant(t)
		f.app = newApp(appName, time.Now())
		f.fail("patch app", late, status(403), late)
		c := f.serve(t)
		app, changed, err := c.EnsureApplication(t.Context(), wanted())
		if err != nil || !changed || len(f.writes()) != 4 {
			t.Fatalf("%t %v", changed, err)
		}
		f.checkApp(t, c, app, written(wanted()))
	})
	t.Run("gone before the change", func(t *testing.T) {
		f := newTenant(t)
		f.app = newApp(appName, time.Now())
		f.fail("get app", func(w http.ResponseWriter, r *http.Request, work func() any) { good(w, r, work); f.app = nil })
		if _, changed, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err == nil || changed || !err.(*Error).IsNotFound() || f.app != nil {
			t.Errorf("%t %v", changed, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for _, op := range []string{"get app", "patch app"} {
			f := newTenant(t)
			f.fail(op, status(403))
			if _, _, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err == nil || !err.(*Error).IsForbidden() || f.app != nil {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("incomplete read", func(t *testing.T) { // must not be taken for empty
		for _, member := range []string{"tags", "publicClient", "requiredResourceAccess", "notes", "id", "passwordCredentials", "uniqueName"} {
			f := newTenant(t)
			f.app = newApp(appName, time.Now())
			f.fail("get app", func(w http.ResponseWriter, r *http.Request, work func() any) {
				answer := work().(object)
				delete(answer, member)
				good(w, r, func() any { return answer })
			})
			if _, _, err := f.serve(t).EnsureApplication(t.Context(), wanted()); err == nil || len(f.writes()) != 0 {
				t.Errorf("%s: %v %v", member, err, f.calls)
			}
		}
	})
}

func TestEnsureApplicationChecks(t *testing.T) {
	f := newTenant(t)
	c := f.serve(t)
	for _, spoil := range []func(*Registration){
		func(r *Registration) { r.UniqueName = "" },
		func(r *Registration) { r.UniqueName = "a')/x(b='" },
		func(r *Registration) { r.UniqueName = "a b" },
		func(r *Registration) { r.UniqueName = strings.Repeat("a", 121) },
		func(r *Registration) { r.DisplayName = " " },
		func(r *Registration) { r.DisplayName = strings.Repeat("ä", 121) },
		func(r *Registration) { r.Tags = []string{"two words"} },
		func(r *Registration) { r.Tags = []string{""} },
		func(r *Registration) { r.Notes = strings.Repeat("a", 1025) },
		func(r *Registration) { r.PublicRedirects = []string{"localhost"} },
		func(r *Registration) { r.RequiredAccess[0].AppID = "exchange" },
		func(r *Registration) { r.RequiredAccess[0].Permissions[0].ID = "IMAP.AccessAsApp" },
		func(r *Registration) { r.RequiredAccess[0].Permissions[0].Type = "role" },
	} {
		want := wanted()
		spoil(&want)
		if _, _, err := c.EnsureApplication(t.Context(), want); err == nil {
			t.Errorf("taken: %+v", want)
		} else if _, ok := errors.AsType[*Error](err); ok {
			t.Errorf("%v", err)
		}
	}
	if len(f.calls) != 0 {
		t.Error(f.calls)
	}
}
