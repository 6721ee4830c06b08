package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	appName    = "o365pw-mail"
	exchangeID = "0e0e0e0e-1111-2222-3333-444444444444"
	imapRole   = "5e5addcd-3e8d-4e90-baf5-964efab2b20a"
	popRole    = "cb842b43-da6e-4506-86fe-bb12199c656d"
	smtpRole   = "7146a1f0-8703-45b3-9eae-527a64c00995"
	offRole    = "dc50a0fb-09a3-484d-be87-e023b12c6440"
	imapScope  = "195adc35-e27b-454b-a7ed-1ecdffa1c09f"
)

type object = map[string]any

// tenant is a Graph with applications, service principals and grants. Faults
// are queued by operation, as in fake; the operations are those of route.
type tenant struct {
	t    *testing.T
	base string

	mu         sync.Mutex
	app        object // nil: none
	principals map[string]object
	roles      []object
	grants     []object
	pageSize   int
	faults     map[string][]fault
	calls      []string
	bodies     []string
}

func newTenant(t *testing.T) *tenant {
	permission := func(id, value string, more object) object {
		o := object{"id": id, "value": value, "isEnabled": true}
		maps.Copy(o, more)
		return o
	}
	programs := object{"allowedMemberTypes": []string{"Application"}}
	return &tenant{t: t, pageSize: 2, faults: map[string][]fault{}, principals: map[string]object{ExchangeAppID: {
		"id": strings.ToUpper(exchangeID), "appId": ExchangeAppID, "displayName": "Office 365 Exchange Online", "accountEnabled": true,
		"appRoles": []object{
			permission(strings.ToUpper(imapRole), "IMAP.AccessAsApp", programs), permission(popRole, "POP.AccessAsApp", programs),
			permission(smtpRole, "SMTP.SendAsApp", programs), permission(offRole, "Off", object{"allowedMemberTypes": []string{"Application"}, "isEnabled": false}),
			permission(uuid.NewString(), "People.Only", object{"allowedMemberTypes": []string{"User"}}),
		},
		"oauth2PermissionScopes": []object{permission(imapScope, "IMAP.AccessAsUser.All", object{"type": "User"}), permission(uuid.NewString(), "Off", object{"isEnabled": false, "type": "Admin"})},
	}}}
}

func (f *tenant) fail(op string, faults ...fault) { f.faults[op] = append(f.faults[op], faults...) }

// result is an answer with its status.
type result struct {
	status int
	body   any
}

func failure(status int, code, message string) result {
	return result{status, object{"error": object{"code": code, "message": message}}}
}

var notFound = failure(404, "Request_ResourceNotFound", "Resource does not exist or one of its queried reference-property objects are not present.")

var applicationPath = regexp.MustCompile(`^/applications\((uniqueName|appId)='([^']*)'\)$`)

// route gives the operation and what does it.
func (f *tenant) route(r *http.Request, body []byte) (string, func() any) {
	path := strings.TrimPrefix(r.URL.Path, "/v1.0")
	var in object
	_ = json.Unmarshal(body, &in)
	if m := applicationPath.FindStringSubmatch(path); m != nil {
		is := func() bool { return f.app != nil && strings.EqualFold(f.app[m[1]].(string), m[2]) }
		switch {
		case r.Method == "GET" && r.URL.RawQuery == "$select=keyCredentials":
			return "get keys", func() any { return f.getApp(is()) }
		case r.Method == "GET":
			return "get app", func() any { return f.getApp(is()) }
		case r.Method == "PATCH" && in["keyCredentials"] != nil:
			return "patch keys", func() any { return f.patchKeys(in["keyCredentials"].([]any)) }
		case r.Method == "PATCH":
			return "patch app", func() any { return f.patchApp(is(), m[2], r.Header.Get("Prefer"), in) }
		}
	}
	principal := strings.TrimSuffix(strings.TrimPrefix(path, "/servicePrincipals(appId='"), "')")
	switch {
	case r.Method == "GET" && isGUID(principal):
		return "get sp", func() any {
			if sp := f.principals[principal]; sp != nil {
				return maps.Clone(sp)
			}
			return notFound
		}
	case r.Method == "POST" && path == "/servicePrincipals":
		return "post sp", func() any { return f.postPrincipal(in["appId"].(string)) }
	case path == "/servicePrincipals/"+objectID+"/appRoleAssignments" && r.Method == "GET":
		return "get roles", func() any { return f.list(r, f.roles) }
	case path == "/servicePrincipals/"+objectID+"/appRoleAssignments" && r.Method == "POST":
		return "post role", func() any { return f.postRole(in) }
	case path == "/oauth2PermissionGrants" && r.Method == "GET":
		if want := "clientId eq '" + objectID + "'"; r.URL.Query().Get("$filter") != want && r.URL.Query().Get("$skiptoken") == "" {
			f.t.Errorf("filter %q", r.URL.RawQuery)
		}
		return "get grants", func() any { return f.list(r, f.grants) }
	case path == "/oauth2PermissionGrants" && r.Method == "POST":
		return "post grant", func() any { return f.postGrant(in) }
	case strings.HasPrefix(path, "/oauth2PermissionGrants/") && r.Method == "PATCH":
		return "patch grant", func() any {
			i := slices.IndexFunc(f.grants, func(g object) bool { return g["id"] == strings.TrimPrefix(path, "/oauth2PermissionGrants/") })
			if i < 0 {
				return notFound
			}
			f.grants[i]["scope"] = in["scope"]
			return nil
		}
	}
	f.t.Errorf("%s %s", r.Method, r.URL)
	return "other", func() any { return notFound }
}

func (f *tenant) getApp(there bool) any {
	if !there {
		return notFound
	}
	app := maps.Clone(f.app)
	app["keyCredentials"] = slices.Clone(app["keyCredentials"].([]any))
	return app
}

func (f *tenant) patchApp(there bool, name, prefer string, in object) any {
	if in["displayName"] == nil {
		return refusal("displayName is required")
	}
	if !there && prefer != "create-if-missing" {
		return notFound
	}
	status := 204
	if !there {
		status = 201
		f.app = newApp(name, time.Now())
	}
	maps.Copy(f.app, in)
	if status == 204 {
		return nil
	}
	return result{status, f.getApp(true)}
}

func newApp(name string, created time.Time) object {
	return object{"id": objectID, "appId": clientID, "uniqueName": name, "displayName": "", "createdDateTime": created.UTC().Format(time.RFC3339Nano),
		"signInAudience": "AzureADandPersonalMicrosoftAccount", "tags": []any{}, "publicClient": object{"redirectUris": []any{}},
		"isFallbackPublicClient": nil, "requiredResourceAccess": []any{}, "notes": nil, "passwordCredentials": []any{}, "keyCredentials": []any{}}
}

// patchKeys replaces the collection. What has no keyId is new; what has one must
// be there and unchanged.
func (f *tenant) patchKeys(in []any) any {
	if f.app == nil {
		return notFound
	}
	old := f.app["keyCredentials"].([]any)
	var next []any
	for _, v := range in {
		k := v.(object)
		if k["keyId"] == nil {
			k = maps.Clone(k)
			k["keyId"] = strings.ToUpper(uuid.NewString())
			k["customKeyIdentifier"] = "set by Entra"
		} else if !slices.ContainsFunc(old, func(o any) bool { return fmt.Sprint(o) == fmt.Sprint(k) }) {
			return refusal("Update to existing credential with KeyId is not allowed.")
		}
		next = append(next, k)
	}
	f.app["keyCredentials"] = next
	return nil
}

func (f *tenant) postPrincipal(appID string) any {
	if f.principals[appID] != nil {
		return failure(409, "Request_MultipleObjectsWithSameKeyValue", "The service principal name is already in use.")
	}
	sp := object{"id": objectID, "appId": appID, "displayName": "Mail", "accountEnabled": true, "appRoles": []any{}, "oauth2PermissionScopes": []any{}}
	f.principals[appID] = sp
	return result{201, sp}
}

func (f *tenant) postRole(in object) any {
	if in["principalId"] != objectID {
		return refusal("Not a valid reference update.")
	}
	if slices.ContainsFunc(f.roles, func(o object) bool { return o["appRoleId"] == in["appRoleId"] }) {
		return refusal("Permission being assigned already exists on the object")
	}
	in["id"] = "assignment-" + fmt.Sprint(len(f.roles))
	f.roles = append(f.roles, in)
	return result{201, in}
}

func (f *tenant) postGrant(in object) any {
	if slices.ContainsFunc(f.grants, func(o object) bool {
		return o["consentType"] == in["consentType"] && strings.EqualFold(o["resourceId"].(string), in["resourceId"].(string))
	}) {
		return failure(409, "Request_MultipleObjectsWithSameKeyValue", "Permission entry already exists.")
	}
	in["id"] = fmt.Sprint("grant_", len(f.grants))
	f.grants = append(f.grants, in)
	return result{201, maps.Clone(in)}
}

// list answers page by page.
func (f *tenant) list(r *http.Request, list []object) any {
	var from int
	_, _ = fmt.Sscan(r.URL.Query().Get("$skiptoken"), &from)
	to := min(from+f.pageSize, len(list))
	answer := object{"value": append([]object{}, list[from:to]...)}
	if to < len(list) {
		answer["@odata.nextLink"] = f.base + (&url.URL{Path: r.URL.Path}).String() + "?$skiptoken=" + fmt.Sprint(to)
	}
	return answer
}

func (f *tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	body, _ := io.ReadAll(r.Body)
	if got := r.Header.Get("Authorization"); got != "Bearer "+theToken {
		f.t.Errorf("Authorization %q", got)
	}
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	op, work := f.route(r, body)
	f.calls = append(f.calls, op)
	if r.Method != "GET" {
		f.bodies = append(f.bodies, string(body))
	}
	var next fault
	if q := f.faults[op]; len(q) > 0 {
		next, f.faults[op] = q[0], q[1:]
	}
	f.mu.Unlock()
	locked := func() any {
		f.mu.Lock()
		defer f.mu.Unlock()
		return work()
	}
	if next == nil {
		next = good
	}
	next(w, r, locked)
}

// writes are the calls that change something.
func (f *tenant) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(op string) bool { return strings.HasPrefix(op, "get") })
}

// refuses answers with that failure, having done nothing.
func refuses(res result) fault {
	return func(w http.ResponseWriter, r *http.Request, _ func() any) { good(w, r, func() any { return res }) }
}

// direct gives a client without a network, as that of fake.
func (f *tenant) direct() *Client {
	f.base = "https://graph.example"
	return &Client{BaseURL: f.base + "/v1.0", HTTP: &http.Client{Transport: handlerTransport{f}},
		Token: func(context.Context) (secret.Text, error) { return secret.New(theToken), nil }}
}

// serve gives a client over a real connection, with tiny pauses.
func (f *tenant) serve(t *testing.T) *Client {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c := f.direct()
	f.base, c.BaseURL, c.HTTP, c.Pause = server.URL, server.URL+"/v1.0", server.Client(), time.Millisecond
	return c
}
