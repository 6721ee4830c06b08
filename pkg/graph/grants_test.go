package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

func (f *tenant) granted() (roles []string) {
	for _, o := range f.roles {
		roles = append(roles, o["appRoleId"].(string))
	}
	return roles
}

func TestEnsureAppRoles(t *testing.T) {
	late := func(w http.ResponseWriter, r *http.Request, _ func() any) {
		good(w, r, func() any { return object{"value": []any{}} })
	}
	for name, tt := range map[string]struct {
		prepare func(*tenant)
		fresh   bool
		added   []string
		posts   int
		max     time.Duration
	}{
		"all new":         {func(*tenant) {}, false, []string{imapRole, smtpRole}, 2, 0},
		"replicates":      {func(f *tenant) { f.fail("get roles", refuses(notFound)); f.fail("post role", spreads...) }, true, []string{imapRole, smtpRole}, 6, 16 * time.Second},
		"throttled":       {func(f *tenant) { f.fail("post role", good, status(429, "Retry-After", "30")) }, false, []string{imapRole, smtpRole}, 3, 30 * time.Second},
		"lost after":      {func(f *tenant) { f.fail("post role", lostAfter, lostAfter) }, false, []string{imapRole, smtpRole}, 2, 0},
		"lost after, lag": {func(f *tenant) { f.fail("post role", lostAfter); f.fail("get roles", late, late, late) }, false, []string{imapRole, smtpRole}, 2, 3 * time.Second},
		"lost before":     {func(f *tenant) { f.fail("post role", lostBefore) }, false, []string{imapRole, smtpRole}, 3, 15 * time.Second},
		"seen late": {func(f *tenant) {
			f.fail("post role", lostAfter)
			f.fail("get roles", slices.Repeat([]fault{late}, 1+lookUps)...)
		}, false, []string{imapRole, smtpRole}, 3, 15 * time.Second},
		"garbage": {func(f *tenant) { f.fail("post role", answers("[]")) }, false, []string{imapRole, smtpRole}, 2, 0},
		"another's answer": {func(f *tenant) {
			f.fail("post role", answers(fmt.Sprintf(`{"appRoleId":%q,"resourceId":%q}`, popRole, exchangeID)))
		}, false, []string{imapRole, smtpRole}, 2, 0},
		"first there": {func(f *tenant) {
			f.postRole(object{"principalId": objectID, "resourceId": exchangeID, "appRoleId": imapRole})
		}, false, []string{smtpRole}, 1, 0},
		"stale read": {func(f *tenant) {
			f.postRole(object{"principalId": objectID, "resourceId": exchangeID, "appRoleId": imapRole})
			f.fail("get roles", late)
		}, false, []string{smtpRole}, 2, 0},
		"granted by somebody": {func(f *tenant) {
			f.fail("post role", func(w http.ResponseWriter, r *http.Request, work func() any) { work(); good(w, r, work) })
		}, false, []string{smtpRole}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				tt.prepare(f)
				c := f.direct()
				begin := time.Now()
				want := []string{imapRole, smtpRole}
				added, err := c.EnsureAppRoles(t.Context(), objectID, exchangeID, append(want, imapRole), tt.fresh)
				if err != nil || !slices.Equal(added, tt.added) || len(f.writes()) != tt.posts || !slices.Equal(f.granted(), want) {
					t.Errorf("%v %v %v %v", added, err, f.calls, f.roles)
				}
				if took := time.Since(begin); took > tt.max {
					t.Errorf("took %s", took)
				}
				posts := len(f.writes())
				if added, err := c.EnsureAppRoles(t.Context(), objectID, exchangeID, []string{strings.ToUpper(imapRole)}, false); err != nil || len(added) != 0 || len(f.writes()) != posts {
					t.Errorf("again: %v %v %v", added, err, f.calls)
				}
			})
		})
	}
}

func TestEnsureAppRolesFails(t *testing.T) {
	f := newTenant(t)
	c := f.serve(t)
	f.fail("post role", good, status(403))
	added, err := c.EnsureAppRoles(t.Context(), objectID, exchangeID, []string{imapRole, popRole, smtpRole}, false)
	if e, ok := err.(*Error); !ok || !e.IsForbidden() || !slices.Equal(added, []string{imapRole}) || !slices.Equal(f.granted(), added) {
		t.Errorf("%v %v", added, err)
	}
	f.calls = nil
	for _, ids := range [][3]string{{"x", exchangeID, imapRole}, {objectID, "x", imapRole}, {objectID, exchangeID, "IMAP.AccessAsApp"}} {
		if _, err := c.EnsureAppRoles(t.Context(), ids[0], ids[1], ids[2:], false); err == nil {
			t.Errorf("%v taken", ids)
		}
	}
	if len(f.calls) != 0 {
		t.Error(f.calls)
	}
	synctest.Test(t, func(t *testing.T) { // the caller has no more patience
		f := newTenant(t)
		f.fail("post role", spreads...)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := f.direct().EnsureAppRoles(ctx, objectID, exchangeID, []string{imapRole}, true)
		if e, ok := err.(*Error); !ok || !errors.Is(err, context.DeadlineExceeded) || e.Status != 403 || time.Since(begin) != 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestAppRoleAssignmentsPaged(t *testing.T) {
	f := newTenant(t)
	for range 5 {
		f.postRole(object{"principalId": objectID, "resourceId": exchangeID, "appRoleId": uuid.NewString(), "resourceDisplayName": "Exchange"})
	}
	c := f.serve(t)
	list, err := c.AppRoleAssignments(t.Context(), objectID)
	if err != nil || len(list) != 5 || len(f.calls) != 3 || list[4].RoleID != f.roles[4]["appRoleId"] || list[4].Resource != "Exchange" || list[4].ID != "assignment-4" {
		t.Errorf("%v %v %v", list, err, f.calls)
	}
	f.base = "https://evil.example" // where the links lead
	if list, err := c.AppRoleAssignments(t.Context(), objectID); err == nil || list != nil || !strings.Contains(err.Error(), "leads away") {
		t.Errorf("%v %v", list, err)
	}
	f.calls = nil
	if added, err := c.EnsureAppRoles(t.Context(), objectID, exchangeID, []string{imapRole}, true); err == nil || added != nil || len(f.writes()) != 0 {
		t.Errorf("%v %v", added, err)
	}
	f.fail("get roles", answers(`{"value":[{"id":"x"}]}`))
	if _, err := c.AppRoleAssignments(t.Context(), objectID); err == nil {
		t.Error("an assignment without role")
	}
	if _, err := c.AppRoleAssignments(t.Context(), "../users"); err == nil {
		t.Error("an object id that is no GUID was taken")
	}
}

func TestEnsurePermissionGrant(t *testing.T) {
	late := func(w http.ResponseWriter, r *http.Request, _ func() any) {
		good(w, r, func() any { return object{"value": []any{}} })
	}
	grant := func(f *tenant, scope string) {
		f.grants = append(f.grants,
			object{"id": "mine", "clientId": objectID, "consentType": "Principal", "principalId": clientID, "resourceId": exchangeID, "scope": "IMAP.AccessAsUser.All"},
			object{"id": "graph", "clientId": objectID, "consentType": "AllPrincipals", "principalId": nil, "resourceId": clientID, "scope": "User.Read"},
			object{"id": "a-b_c", "clientId": objectID, "consentType": "AllPrincipals", "principalId": nil, "resourceId": strings.ToUpper(exchangeID), "scope": scope})
	}
	all := "IMAP.AccessAsUser.All SMTP.Send"
	for name, tt := range map[string]struct {
		prepare func(*tenant)
		fresh   bool
		changed bool
		writes  string
		scope   string
	}{
		"new":                 {func(*tenant) {}, false, true, "post grant", all},
		"there":               {func(f *tenant) { grant(f, " SMTP.Send  imap.accessasuser.all offline_access") }, false, false, "", " SMTP.Send  imap.accessasuser.all offline_access"},
		"extended":            {func(f *tenant) { grant(f, "offline_access SMTP.Send") }, false, true, "patch grant", "offline_access SMTP.Send IMAP.AccessAsUser.All"},
		"extended, lost":      {func(f *tenant) { grant(f, "SMTP.Send"); f.fail("patch grant", lostAfter) }, false, true, "patch grant,patch grant", "SMTP.Send IMAP.AccessAsUser.All"},
		"empty":               {func(f *tenant) { grant(f, "") }, false, true, "patch grant", all},
		"replicates":          {func(f *tenant) { f.fail("post grant", spreads...) }, true, true, strings.Repeat("post grant,", 4) + "post grant", all},
		"lost after":          {func(f *tenant) { f.fail("post grant", lostAfter) }, false, true, "post grant", all},
		"lost before":         {func(f *tenant) { f.fail("post grant", lostBefore) }, false, true, "post grant,post grant", all},
		"stale read":          {func(f *tenant) { grant(f, all); f.fail("get grants", late, late) }, false, false, "post grant", all},
		"stale read, extends": {func(f *tenant) { grant(f, "SMTP.Send"); f.fail("get grants", late) }, false, true, "post grant,patch grant", "SMTP.Send IMAP.AccessAsUser.All"},
		"garbage":             {func(f *tenant) { f.fail("post grant", answers("{}")) }, false, true, "post grant", all},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTenant(t)
				tt.prepare(f)
				c := f.direct()
				changed, err := c.EnsurePermissionGrant(t.Context(), objectID, exchangeID, strings.Fields(all), tt.fresh)
				if err != nil || changed != tt.changed || strings.Join(f.writes(), ",") != tt.writes {
					t.Fatalf("%t %v %v", changed, err, f.calls)
				}
				last := f.grants[len(f.grants)-1]
				if last["scope"] != tt.scope || last["consentType"] != "AllPrincipals" || last["principalId"] != nil || len(f.grants) > 1 && f.grants[0]["scope"] != "IMAP.AccessAsUser.All" {
					t.Errorf("%v", f.grants)
				}
				if changed, err := c.EnsurePermissionGrant(t.Context(), objectID, exchangeID, strings.Fields(all), tt.fresh); err != nil || changed {
					t.Errorf("again: %t %v", changed, err)
				}
			})
		})
	}
	f := newTenant(t)
	c := f.serve(t)
	for _, scopes := range [][]string{{"a b"}, {""}, {" a"}} {
		if _, err := c.EnsurePermissionGrant(t.Context(), objectID, exchangeID, scopes, false); err == nil {
			t.Errorf("%q taken", scopes)
		}
	}
	if _, err := c.EnsurePermissionGrant(t.Context(), clientID+"'", exchangeID, nil, false); err == nil || len(f.calls) != 0 {
		t.Errorf("%v %v", err, f.calls)
	}
	f.fail("post grant", status(403))
	if changed, err := c.EnsurePermissionGrant(t.Context(), objectID, exchangeID, []string{"SMTP.Send"}, false); err == nil || changed || !err.(*Error).IsForbidden() {
		t.Errorf("%t %v", changed, err)
	}
	grant(f, all)
	list, err := c.PermissionGrants(t.Context(), objectID)
	if err != nil || len(list) != 3 || list[0].PersonID != clientID || list[2].PersonID != "" || list[2].ResourceID != exchangeID || !slices.Equal(list[2].Scopes, strings.Fields(all)) {
		t.Errorf("%+v %v", list, err)
	}
	for _, bad := range []string{`{"id":"","consentType":"AllPrincipals","resourceId":"` + exchangeID + `"}`, `{"id":"..","consentType":"AllPrincipals","resourceId":"` + exchangeID + `"}`, `{"id":"x","consentType":"Principal","resourceId":"` + exchangeID + `"}`, `{"id":"x","consentType":"AllPrincipals"}`} {
		f.fail("get grants", answers(`{"value":[`+bad+`]}`))
		if list, err := c.PermissionGrants(t.Context(), objectID); err == nil {
			t.Errorf("%s gave %+v", bad, list)
		}
	}
}
