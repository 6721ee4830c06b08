package graph

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestServicePrincipal(t *testing.T) {
	f := newTenant(t)
	c := f.serve(t)
	sp, err := c.ServicePrincipal(t.Context(), ExchangeAppID)
	if err != nil || sp.ID != exchangeID || sp.AppID != ExchangeAppID || sp.Disabled || sp.DisplayName == "" {
		t.Fatalf("%+v %v", sp, err)
	}
	for value, want := range map[string]string{"IMAP.AccessAsApp": imapRole, "SMTP.SendAsApp": smtpRole, "Off": "", "People.Only": "", "": "", "imap.accessasapp": ""} {
		if id, ok := sp.Role(value); id != want || ok != (want != "") {
			t.Errorf("%s: %s %t", value, id, ok)
		}
	}
	for value, want := range map[string]string{"IMAP.AccessAsUser.All": imapScope, "Off": "", "": ""} {
		if id, ok := sp.Scope(value); id != want || ok != (want != "") {
			t.Errorf("%s: %s %t", value, id, ok)
		}
	}
	f.principals[ExchangeAppID]["accountEnabled"] = false
	if sp, err := c.ServicePrincipal(t.Context(), ExchangeAppID); err != nil || !sp.Disabled {
		t.Errorf("%+v %v", sp, err)
	}
	if _, err := c.ServicePrincipal(t.Context(), clientID); err == nil || !err.(*Error).IsNotFound() {
		t.Errorf("%v", err)
	}
	if _, err := c.ServicePrincipal(t.Context(), "x')/y"); err == nil {
		t.Error("a client id that is no GUID was taken")
	}
	for _, body := range []string{"", "{}", fmt.Sprintf(`{"id":%q,"appId":%q}`, exchangeID, ExchangeAppID), fmt.Sprintf(`{"id":%q,"appId":%q,"appRoles":[],"oauth2PermissionScopes":[]}`, exchangeID, clientID),
		fmt.Sprintf(`{"id":%q,"appId":%q,"appRoles":[{}],"oauth2PermissionScopes":[]}`, exchangeID, ExchangeAppID), fmt.Sprintf(`{"id":%q,"appId":%q,"appRoles":[],"oauth2PermissionScopes":[null]}`, exchangeID, ExchangeAppID)} {
		f.fail("get sp", answers(body))
		if sp, err := c.ServicePrincipal(t.Context(), ExchangeAppID); err == nil {
			t.Errorf("%s gave %+v", body, sp)
		}
	}
}

// spreads are the refusals for an application that is not known everywhere yet.
var spreads = []fault{
	refuses(notFound), status(403),
	refuses(failure(400, "Request_BadRequest", "The appId 'x' of the service principal does not reference a valid application object.")),
	refuses(failure(400, "Request_BadRequest", "Not a valid reference update.")),
}

func TestEnsureServicePrincipal(t *testing.T) {
	conflict := refuses(failure(409, "Request_MultipleObjectsWithSameKeyValue", "The service principal name is already in use."))
	byOther := func(w http.ResponseWriter, r *http.Request, work func() any) { work(); conflict(w, r, nil) }
	late := refuses(notFound)
	for name, tt := range map[string]struct {
		prepare  func(*tenant)
		fresh    bool
		created  bool
		posts    int
		min, max time.Duration
	}{
		"new":                   {func(*tenant) {}, false, true, 1, 0, 0},
		"there":                 {func(f *tenant) { f.postPrincipal(clientID) }, false, false, 0, 0, 0},
		"throttled":             {func(f *tenant) { f.fail("post sp", status(429, "Retry-After", "30")) }, false, true, 2, 30 * time.Second, 30 * time.Second},
		"replicates":            {func(f *tenant) { f.fail("post sp", spreads...) }, true, true, 5, 15 * time.Second, 15 * time.Second},
		"lost after":            {func(f *tenant) { f.fail("post sp", lostAfter) }, false, true, 1, 0, 0},
		"lost after, reads lag": {func(f *tenant) { f.fail("post sp", lostAfter); f.fail("get sp", late, late, late) }, false, true, 1, 3 * time.Second, 3 * time.Second},
		"lost, read fails": {func(f *tenant) {
			f.fail("post sp", lostAfter)
			f.fail("get sp", good, lostBefore, lostBefore, lostBefore)
		}, false, true, 1, time.Second, 5 * time.Second},
		"lost before": {func(f *tenant) { f.fail("post sp", lostBefore) }, false, true, 2, 15 * time.Second, 15 * time.Second},
		"503 after":   {func(f *tenant) { f.fail("post sp", failsAfter(503)) }, false, true, 1, 0, 0},
		"garbage":     {func(f *tenant) { f.fail("post sp", answers("<html>")) }, false, true, 1, 0, 0},
		"seen too late": {func(f *tenant) { // the second request meets what the first made
			f.fail("post sp", lostAfter)
			f.fail("get sp", slices.Repeat([]fault{late}, 1+lookUps)...)
		}, false, true, 2, 15 * time.Second, 15 * time.Second},
		"stale read":                 {func(f *tenant) { f.postPrincipal(clientID); f.fail("get sp", late, late) }, false, false, 1, time.Second, time.Second},
		"made by somebody meanwhile": {func(f *tenant) { f.fail("post sp", byOther) }, false, false, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				tt.prepare(f)
				begin := time.Now()
				sp, created, err := f.direct().EnsureServicePrincipal(t.Context(), clientID, tt.fresh)
				if err != nil || created != tt.created || sp.ID != objectID || sp.AppID != clientID || len(f.writes()) != tt.posts {
					t.Errorf("%t %+v %v %v", created, sp, err, f.calls)
				}
				if took := time.Since(begin); took < tt.min || took > tt.max {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

func TestEnsureServicePrincipalFails(t *testing.T) {
	many := func(f fault) []fault { return slices.Repeat([]fault{f}, 20) }
	for name, tt := range map[string]struct {
		faults   []fault
		fresh    bool
		status   int
		posts    int
		min, max time.Duration
	}{
		"forbidden":           {many(status(403)), false, 403, 1, 0, 0},
		"forbidden, fresh":    {many(status(403)), true, 403, spreadTries, time.Minute, 65 * time.Second},
		"no such application": {many(spreads[2]), false, 400, 1, 0, 0},
		"bad request, fresh":  {many(status(400)), true, 400, 1, 0, 0},
		"name in use":         {many(refuses(failure(409, "Request_MultipleObjectsWithSameKeyValue", "In use."))), true, 409, 1, 15 * time.Second, 15 * time.Second},
		"lost for ever":       {many(lostBefore), false, 0, createTries, 30 * time.Second, 30 * time.Second},
		"down":                {many(status(503, "Retry-After", "600")), false, 503, 1, 15 * time.Second, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				f.fail("post sp", tt.faults...)
				begin := time.Now()
				sp, created, err := f.direct().EnsureServicePrincipal(t.Context(), clientID, tt.fresh)
				e, ok := err.(*Error)
				if !ok || created || sp.ID != "" || e.Status != tt.status || len(f.writes()) != tt.posts {
					t.Errorf("%t %+v %v %v", created, sp, err, f.calls)
				}
				if took := time.Since(begin); took < tt.min || took > tt.max {
					t.Errorf("took %s", took)
				}
			})
		})
	}
	f := newTenant(t)
	f.fail("get sp", status(403))
	if _, _, err := f.serve(t).EnsureServicePrincipal(t.Context(), clientID, true); err == nil || !err.(*Error).IsForbidden() || len(f.writes()) != 0 {
		t.Errorf("%v", err)
	}
}
