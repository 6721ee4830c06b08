package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Registration is what an app registration is to look like, or looks like.
// https://learn.microsoft.com/graph/api/resources/application
type Registration struct {
	// UniqueName is the key that whoever registers the application chooses. It
	// never changes. Letters, digits, dot, dash and underscore, 120 at most.
	UniqueName string

	// DisplayName is the name that people see, of 120 characters at most.
	DisplayName string

	// Tags are found by Applications. No white space, 256 characters at most.
	Tags []string

	// PublicRedirects are the redirect URIs for sign-in by programs on people's
	// machines: http://localhost.
	PublicRedirects []string

	// FallbackPublic allows sign-in by device code.
	FallbackPublic bool

	// RequiredAccess are the permissions that the consent page asks for. It
	// grants nothing.
	RequiredAccess []ResourceAccess

	// Notes are for administrators; 1024 characters at most.
	Notes string
}

// ResourceAccess is permissions of one resource.
type ResourceAccess struct {
	AppID       string // client id of the resource: ExchangeAppID
	Permissions []Permission
}

// Permission is a permission within a ResourceAccess.
type Permission struct {
	ID   string // AppRole.ID or PermissionScope.ID, a GUID
	Type string // RolePermission or ScopePermission
}

// The types of a Permission: for the application itself, and for people through
// it.
const (
	RolePermission  = "Role"
	ScopePermission = "Scope"
)

const singleTenant = "AzureADMyOrg"

const selectRegistration = selectApplication + ",createdDateTime,uniqueName,signInAudience,tags,publicClient,isFallbackPublicClient,requiredResourceAccess,notes"

// ApplicationByUniqueName reads the app registration with that unique name, with
// its Registration. Permissions and errors are those of Application.
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) ApplicationByUniqueName(ctx context.Context, name string) (Application, error) {
	return c.applicationByUniqueName(ctx, c.budget(), name)
}

func (c *Client) applicationByUniqueName(ctx context.Context, b *budget, name string) (Application, error) {
	base, err := c.uniqueNameURL(name)
	if err != nil {
		return Application{}, err
	}
	return c.registered(ctx, b, base, func(app Application) bool { return strings.EqualFold(app.Registration.UniqueName, name) })
}

// ApplicationRegistration reads the app registration with the client id appID as
// Application does, with its Registration.
func (c *Client) ApplicationRegistration(ctx context.Context, appID string) (Application, error) {
	base, err := c.applicationURL(appID)
	if err != nil {
		return Application{}, err
	}
	return c.registered(ctx, c.budget(), base, func(app Application) bool { return strings.EqualFold(app.AppID, appID) })
}

func (c *Client) registered(ctx context.Context, b *budget, base string, asked func(Application) bool) (Application, error) {
	r := request{method: http.MethodGet, url: base + "?" + selectRegistration}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return Application{}, err
	}
	app, err := decodeRegistered(resp)
	if err == nil && !asked(app) {
		err = errors.New("another application than the one asked for")
	}
	if err != nil {
		return Application{}, r.malformed(resp, err)
	}
	c.remember(clockAhead(resp.header), app.PasswordCredentials...)
	return app, nil
}

// uniqueName is stricter than Graph, which documents no limits: the name is put
// into a path.
var uniqueName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$`)

func (c *Client) uniqueNameURL(name string) (string, error) {
	if !uniqueName.MatchString(name) {
		return "", fmt.Errorf("%q is no unique name: letters, digits, dot, dash and underscore, 120 at most", name)
	}
	return c.base() + "/applications(uniqueName='" + name + "')", nil
}

// EnsureApplication makes the app registration, for this tenant alone, or brings
// the one with that unique name to what is wanted. What an administrator has
// added stays: other tags, redirect URIs and permissions, device code sign-in,
// and the notes where there are some. changed says whether it wrote. It needs
// Application.ReadWrite.All.
//
// The unique name makes it safe to repeat: a call that was killed leaves the
// application as it was, or as it is wanted. Where Application.Fresh says true,
// say so to the calls that follow. Errors: an *Error; one that is Temporary may
// have written all the same.
//
// Graph has no way to write only if nothing has changed since: what somebody
// else adds to the same list in the same second may be lost.
// https://learn.microsoft.com/graph/api/application-upsert
func (c *Client) EnsureApplication(ctx context.Context, want Registration) (app Application, changed bool, err error) {
	if err := want.check(); err != nil {
		return Application{}, false, err
	}
	base, err := c.uniqueNameURL(want.UniqueName)
	if err != nil {
		return Application{}, false, err
	}
	b := c.budget()
	app, err = c.applicationByUniqueName(ctx, b, want.UniqueName)
	if e, ok := errors.AsType[*Error](err); ok && e.IsNotFound() {
		app, changed, err = c.createApplication(ctx, b, base, want)
	}
	if err != nil {
		return Application{}, changed, err
	}

	merged := app.Registration.with(want)
	patch := patchFor(app, merged)
	if patch == nil {
		return app, changed, nil
	}
	// Without create-if-missing: where the application has gone since, one with
	// half of what is wanted would be made.
	err = c.untilSpread(ctx, app.Fresh, func() error {
		_, err := c.patch(ctx, b, base, "", patch)
		return err
	})
	if err != nil {
		return Application{}, changed, err
	}
	app.Registration, app.DisplayName, app.SignInAudience = merged, merged.DisplayName, singleTenant
	return app, true, nil
}

// createApplication is for an application that a read has not shown. The answer
// holds it where it is new; where it was there after all, it is read.
func (c *Client) createApplication(ctx context.Context, b *budget, base string, want Registration) (app Application, made bool, err error) {
	resp, err := c.patch(ctx, b, base, "create-if-missing", patchFor(Application{}, Registration{}.with(want)))
	if err == nil && resp.status == http.StatusCreated {
		if app, err := decodeRegistered(resp); err == nil && strings.EqualFold(app.Registration.UniqueName, want.UniqueName) {
			app.Fresh = true
			return app, true, nil
		}
	}
	// A repeat after a lost answer may meet a part of Entra that knows the name
	// but not the application.
	if e, ok := errors.AsType[*Error](err); err != nil && (!ok || !e.IsConflict()) {
		return Application{}, false, err
	}
	conflict := err
	there, err := c.appears(ctx, func() (bool, error) {
		var err error
		app, err = c.applicationByUniqueName(ctx, b, want.UniqueName)
		if e, ok := errors.AsType[*Error](err); ok && e.IsNotFound() {
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case err != nil:
		return Application{}, conflict == nil, err
	case there:
		return app, conflict == nil || resp.lost, nil
	case conflict != nil:
		return Application{}, false, conflict
	}
	return Application{}, true, &Error{Method: http.MethodGet, URL: base, Err: errors.New("the application was made but does not show yet")}
}

func (c *Client) patch(ctx context.Context, b *budget, base, prefer string, patch *wireRegistration) (response, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return response{}, fmt.Errorf("encode application: %w", err)
	}
	return c.send(ctx, b, request{method: http.MethodPatch, url: base, body: body, prefer: prefer})
}

func (want Registration) check() error {
	if strings.TrimSpace(want.DisplayName) == "" || utf8.RuneCountInString(want.DisplayName) > 120 {
		return fmt.Errorf("the name of an application has 1 to 120 characters, not %d", utf8.RuneCountInString(want.DisplayName))
	}
	if n := utf8.RuneCountInString(want.Notes); n > 1024 {
		return fmt.Errorf("the notes of an application have 1024 characters at most, not %d", n)
	}
	for _, tag := range want.Tags {
		if tag == "" || utf8.RuneCountInString(tag) > 256 || strings.ContainsFunc(tag, unicode.IsSpace) {
			return fmt.Errorf("%q is no tag: 1 to 256 characters, no white space", tag)
		}
	}
	for _, redirect := range want.PublicRedirects {
		if u, err := url.Parse(redirect); err != nil || u.Scheme == "" {
			return fmt.Errorf("%q is no redirect URI", redirect)
		}
	}
	for _, resource := range want.RequiredAccess {
		if !isGUID(resource.AppID) {
			return fmt.Errorf("client id %q is not a GUID", resource.AppID)
		}
		for _, p := range resource.Permissions {
			if !isGUID(p.ID) || p.Type != RolePermission && p.Type != ScopePermission {
				return fmt.Errorf("%q of type %q is no permission", p.ID, p.Type)
			}
		}
	}
	return nil
}

// with is have with what is wanted on top.
func (have Registration) with(want Registration) Registration {
	have.DisplayName = want.DisplayName
	have.Tags = union(have.Tags, want.Tags)
	have.PublicRedirects = union(have.PublicRedirects, want.PublicRedirects)
	have.FallbackPublic = have.FallbackPublic || want.FallbackPublic
	if have.Notes == "" {
		have.Notes = want.Notes
	}
	access := slices.Clone(have.RequiredAccess)
	for _, resource := range want.RequiredAccess {
		i := slices.IndexFunc(access, func(a ResourceAccess) bool { return strings.EqualFold(a.AppID, resource.AppID) })
		if i < 0 {
			i = len(access)
			access = append(access, ResourceAccess{AppID: strings.ToLower(resource.AppID)})
		}
		permissions := slices.Clone(resource.Permissions)
		for j := range permissions {
			permissions[j].ID = strings.ToLower(permissions[j].ID)
		}
		access[i].Permissions = union(access[i].Permissions, permissions)
	}
	have.RequiredAccess = access
	return have
}

// union is a with what only b has, in a slice of its own.
func union[T comparable](a, b []T) []T {
	a = slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

type wireRegistration struct {
	DisplayName            string               `json:"displayName"` // Graph wants it always
	SignInAudience         string               `json:"signInAudience,omitempty"`
	Tags                   []string             `json:"tags,omitempty"`
	PublicClient           *wirePublicClient    `json:"publicClient,omitempty"`
	IsFallbackPublicClient bool                 `json:"isFallbackPublicClient,omitempty"`
	RequiredResourceAccess []wireResourceAccess `json:"requiredResourceAccess,omitempty"`
	Notes                  string               `json:"notes,omitempty"`
}

type wirePublicClient struct {
	RedirectURIs []string `json:"redirectUris"`
}

type wireResourceAccess struct {
	ResourceAppID  string           `json:"resourceAppId"`
	ResourceAccess []wirePermission `json:"resourceAccess"`
}

type wirePermission struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// patchFor is what must be written to make app like merged, or nil. A list is
// written whole: Graph replaces it.
func patchFor(app Application, merged Registration) *wireRegistration {
	have, w, differs := app.Registration, wireRegistration{DisplayName: merged.DisplayName}, merged.DisplayName != app.Registration.DisplayName
	if app.SignInAudience != singleTenant {
		w.SignInAudience, differs = singleTenant, true
	}
	if !slices.Equal(merged.Tags, have.Tags) {
		w.Tags, differs = merged.Tags, true
	}
	if !slices.Equal(merged.PublicRedirects, have.PublicRedirects) {
		w.PublicClient, differs = &wirePublicClient{merged.PublicRedirects}, true
	}
	if merged.FallbackPublic != have.FallbackPublic {
		w.IsFallbackPublicClient, differs = merged.FallbackPublic, true
	}
	if !slices.EqualFunc(merged.RequiredAccess, have.RequiredAccess, func(a, b ResourceAccess) bool {
		return a.AppID == b.AppID && slices.Equal(a.Permissions, b.Permissions)
	}) {
		differs = true
		for _, resource := range merged.RequiredAccess {
			access := wireResourceAccess{ResourceAppID: resource.AppID, ResourceAccess: []wirePermission{}}
			for _, p := range resource.Permissions {
				access.ResourceAccess = append(access.ResourceAccess, wirePermission(p))
			}
			w.RequiredResourceAccess = append(w.RequiredResourceAccess, access)
		}
	}
	if merged.Notes != have.Notes {
		w.Notes, differs = merged.Notes, true
	}
	if !differs {
		return nil
	}
	return &w
}

// decodeRegistered decodes an application that was asked for with
// selectRegistration, or that was made.
func decodeRegistered(resp response) (Application, error) {
	app, err := decodeApplication(resp.body)
	if err != nil {
		return Application{}, err
	}
	var w struct {
		CreatedDateTime        *string              `json:"createdDateTime"`
		UniqueName             *string              `json:"uniqueName"`
		SignInAudience         *string              `json:"signInAudience"`
		Tags                   []string             `json:"tags"`
		PublicClient           wirePublicClient     `json:"publicClient"`
		IsFallbackPublicClient *bool                `json:"isFallbackPublicClient"`
		RequiredResourceAccess []wireResourceAccess `json:"requiredResourceAccess"`
		Notes                  *string              `json:"notes"`
	}
	var members map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(resp.body, &w), json.Unmarshal(resp.body, &members)); err != nil {
		return Application{}, err
	}
	// What is missing would be taken for empty, and written over.
	for _, name := range []string{"tags", "publicClient", "requiredResourceAccess", "notes"} {
		if _, ok := members[name]; !ok {
			return Application{}, fmt.Errorf("an application without %s", name)
		}
	}
	created, err := decodeTime(w.CreatedDateTime)
	if err != nil {
		return Application{}, err
	}
	app.Created, app.Fresh = created, !created.IsZero() && time.Now().Add(clockAhead(resp.header)).Sub(created) < young
	app.SignInAudience = deref(w.SignInAudience)
	app.Registration = Registration{UniqueName: deref(w.UniqueName), DisplayName: app.DisplayName, Tags: w.Tags,
		PublicRedirects: w.PublicClient.RedirectURIs, FallbackPublic: w.IsFallbackPublicClient != nil && *w.IsFallbackPublicClient, Notes: deref(w.Notes)}
	for _, resource := range w.RequiredResourceAccess {
		if !isGUID(resource.ResourceAppID) {
			return Application{}, errors.New("required permissions without resourceAppId")
		}
		access := ResourceAccess{AppID: strings.ToLower(resource.ResourceAppID)}
		for _, p := range resource.ResourceAccess {
			access.Permissions = append(access.Permissions, Permission{ID: strings.ToLower(p.ID), Type: p.Type})
		}
		app.Registration.RequiredAccess = append(app.Registration.RequiredAccess, access)
	}
	return app, nil
}
