package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// AppRoleAssignment is an application permission that is granted.
// https://learn.microsoft.com/graph/api/resources/approleassignment
type AppRoleAssignment struct {
	ID         string
	RoleID     string // AppRole.ID, a GUID
	ResourceID string // object id of the service principal that offers the role
	Resource   string // its name; may be empty
}

// AppRoleAssignments reads the application permissions granted to the service
// principal with the object id principalID. It needs Application.Read.All.
// https://learn.microsoft.com/graph/api/serviceprincipal-list-approleassignments
func (c *Client) AppRoleAssignments(ctx context.Context, principalID string) ([]AppRoleAssignment, error) {
	return c.appRoleAssignments(ctx, c.budget(), principalID)
}

func (c *Client) appRoleAssignments(ctx context.Context, b *budget, principalID string) ([]AppRoleAssignment, error) {
	if !isGUID(principalID) {
		return nil, fmt.Errorf("object id %q is not a GUID", principalID)
	}
	return all(ctx, c, b, c.base()+"/servicePrincipals/"+principalID+"/appRoleAssignments", decodeAssignment)
}

// EnsureAppRoles grants the application permissions roleIDs of the service
// principal resourceID to the service principal principalID (object ids both),
// where they are not granted yet; it takes none away. added are those granted
// here, also where an error follows. It needs AppRoleAssignment.ReadWrite.All
// and Application.Read.All. Tokens show a new permission after a minute.
//
// fresh says that a service principal was made moments ago, as in
// EnsureServicePrincipal. A call that was killed leaves the first of the
// permissions granted and the rest not; the same call again does the rest.
// Errors: an *Error; one that is Temporary may have granted the next one all the
// same.
// https://learn.microsoft.com/graph/api/serviceprincipal-post-approleassignments
func (c *Client) EnsureAppRoles(ctx context.Context, principalID, resourceID string, roleIDs []string, fresh bool) (added []string, err error) {
	for _, id := range append([]string{principalID, resourceID}, roleIDs...) {
		if !isGUID(id) {
			return nil, fmt.Errorf("id %q is not a GUID", id)
		}
	}
	b := c.budget()
	var granted []AppRoleAssignment
	read := func() (err error) {
		granted, err = c.appRoleAssignments(ctx, b, principalID)
		return err
	}
	if err := c.untilSpread(ctx, fresh, read); err != nil {
		return nil, err
	}
	for _, roleID := range roleIDs {
		has := func(a AppRoleAssignment) bool {
			return strings.EqualFold(a.RoleID, roleID) && strings.EqualFold(a.ResourceID, resourceID)
		}
		if slices.ContainsFunc(granted, has) {
			continue
		}
		body, err := json.Marshal(struct {
			PrincipalID string `json:"principalId"`
			ResourceID  string `json:"resourceId"`
			AppRoleID   string `json:"appRoleId"`
		}{principalID, resourceID, roleID})
		if err != nil {
			return added, fmt.Errorf("encode app role assignment: %w", err)
		}
		r := request{method: http.MethodPost, url: c.base() + "/servicePrincipals/" + principalID + "/appRoleAssignments", body: body, once: true}
		made, err := c.create(ctx, b, fresh, func() error {
			resp, err := c.send(ctx, b, r)
			if err != nil {
				return err
			}
			assignment, err := decodeAssignment(resp.body)
			if err == nil && !has(assignment) {
				err = errors.New("another app role assignment than the one asked for")
			}
			if err != nil {
				return r.malformed(resp, err)
			}
			granted = append(granted, assignment)
			return nil
		}, func() (bool, error) {
			err := read()
			return slices.ContainsFunc(granted, has), err
		})
		if err != nil {
			return added, err
		}
		if made {
			added = append(added, strings.ToLower(roleID))
		}
	}
	return added, nil
}

func decodeAssignment(body []byte) (AppRoleAssignment, error) {
	var w struct {
		ID                  string  `json:"id"`
		AppRoleID           string  `json:"appRoleId"`
		ResourceID          *string `json:"resourceId"`
		ResourceDisplayName *string `json:"resourceDisplayName"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return AppRoleAssignment{}, err
	}
	if !isGUID(w.AppRoleID) || !isGUID(deref(w.ResourceID)) {
		return AppRoleAssignment{}, errors.New("an app role assignment without appRoleId or resourceId")
	}
	return AppRoleAssignment{ID: w.ID, RoleID: strings.ToLower(w.AppRoleID), ResourceID: strings.ToLower(*w.ResourceID),
		Resource: deref(w.ResourceDisplayName)}, nil
}

// PermissionGrant is delegated permissions that are granted: consent.
// https://learn.microsoft.com/graph/api/resources/oauth2permissiongrant
type PermissionGrant struct {
	ID         string // not a GUID
	ResourceID string // object id of the service principal that offers the permissions
	PersonID   string // object id of the person it holds for; empty: everybody
	Scopes     []string
}

// PermissionGrants reads the delegated permissions granted to the service
// principal with the object id clientID (not the client id). It needs
// Directory.Read.All, or DelegatedPermissionGrant.ReadWrite.All.
// https://learn.microsoft.com/graph/api/oauth2permissiongrant-list
func (c *Client) PermissionGrants(ctx context.Context, clientID string) ([]PermissionGrant, error) {
	return c.permissionGrants(ctx, c.budget(), clientID)
}

func (c *Client) permissionGrants(ctx context.Context, b *budget, clientID string) ([]PermissionGrant, error) {
	if !isGUID(clientID) {
		return nil, fmt.Errorf("object id %q is not a GUID", clientID)
	}
	return all(ctx, c, b, c.base()+"/oauth2PermissionGrants?"+filter("clientId eq "+quoted(clientID)), decodeGrant)
}

// EnsurePermissionGrant grants the delegated permissions scopes (by value:
// IMAP.AccessAsUser.All) of the service principal resourceID to the service
// principal clientID (object ids both), for everybody in the tenant. It extends
// a grant that is there and takes nothing away. It needs
// DelegatedPermissionGrant.ReadWrite.All. changed says whether it wrote.
//
// fresh says that a service principal was made moments ago, as in
// EnsureServicePrincipal. Entra allows one such grant, so a call that was killed
// is safely repeated: it leaves the grant as it was or as it is wanted. Errors:
// an *Error; one that is Temporary may have granted them all the same.
// https://learn.microsoft.com/graph/api/oauth2permissiongrant-post
func (c *Client) EnsurePermissionGrant(ctx context.Context, clientID, resourceID string, scopes []string, fresh bool) (changed bool, err error) {
	if !isGUID(clientID) || !isGUID(resourceID) {
		return false, fmt.Errorf("object id %q or %q is not a GUID", clientID, resourceID)
	}
	for _, scope := range scopes {
		if fields := strings.Fields(scope); len(fields) != 1 || fields[0] != scope {
			return false, fmt.Errorf("%q is not the name of a permission", scope)
		}
	}
	b := c.budget()
	var grant PermissionGrant
	wanted := func(g PermissionGrant) bool { return g.PersonID == "" && strings.EqualFold(g.ResourceID, resourceID) }
	look := func() (bool, error) {
		grants, err := c.permissionGrants(ctx, b, clientID)
		i := slices.IndexFunc(grants, wanted)
		if i >= 0 {
			grant = grants[i]
		}
		return i >= 0, err
	}
	there, err := look()
	if err != nil {
		return false, err
	}
	made := false
	if !there {
		type wireGrant struct {
			ClientID    string  `json:"clientId"`
			ConsentType string  `json:"consentType"`
			PrincipalID *string `json:"principalId"`
			ResourceID  string  `json:"resourceId"`
			Scope       string  `json:"scope"`
		}
		body, err := json.Marshal(wireGrant{ClientID: clientID, ConsentType: "AllPrincipals", ResourceID: resourceID, Scope: strings.Join(scopes, " ")})
		if err != nil {
			return false, fmt.Errorf("encode permission grant: %w", err)
		}
		r := request{method: http.MethodPost, url: c.base() + "/oauth2PermissionGrants", body: body, once: true}
		made, err = c.create(ctx, b, fresh, func() error {
			resp, err := c.send(ctx, b, r)
			if err != nil {
				return err
			}
			grant, err = decodeGrant(resp.body)
			if err == nil && !wanted(grant) {
				err = errors.New("another permission grant than the one asked for")
			}
			if err != nil {
				return r.malformed(resp, err)
			}
			return nil
		}, look)
		if err != nil {
			return false, err
		}
	}

	// Where the grant was there, before or by somebody else, it may lack some.
	merged := slices.Clone(grant.Scopes)
	for _, scope := range scopes {
		if !slices.ContainsFunc(merged, func(s string) bool { return strings.EqualFold(s, scope) }) {
			merged = append(merged, scope)
		}
	}
	if len(merged) == len(grant.Scopes) {
		return made, nil
	}
	body, err := json.Marshal(struct {
		Scope string `json:"scope"`
	}{strings.Join(merged, " ")})
	if err != nil {
		return made, fmt.Errorf("encode permission grant: %w", err)
	}
	r := request{method: http.MethodPatch, url: c.base() + "/oauth2PermissionGrants/" + url.PathEscape(grant.ID), body: body}
	err = c.untilSpread(ctx, fresh, func() error {
		_, err := c.send(ctx, b, r)
		return err
	})
	return made || err == nil, err
}

func decodeGrant(body []byte) (PermissionGrant, error) {
	var w struct {
		ID          string  `json:"id"`
		ConsentType *string `json:"consentType"`
		PrincipalID *string `json:"principalId"`
		ResourceID  string  `json:"resourceId"`
		Scope       *string `json:"scope"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return PermissionGrant{}, err
	}
	everybody := deref(w.ConsentType) == "AllPrincipals"
	if w.ID == "" || strings.Trim(w.ID, ".") == "" || !isGUID(w.ResourceID) || !everybody && deref(w.PrincipalID) == "" {
		return PermissionGrant{}, errors.New("a permission grant without id, resourceId or principalId")
	}
	grant := PermissionGrant{ID: w.ID, ResourceID: strings.ToLower(w.ResourceID), Scopes: strings.Fields(deref(w.Scope))}
	if !everybody {
		grant.PersonID = strings.ToLower(*w.PrincipalID)
	}
	return grant, nil
}
