package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// ExchangeAppID is the client id of Office 365 Exchange Online, the same in
// every tenant and cloud. Its service principal has the permissions for IMAP,
// POP and SMTP.
const ExchangeAppID = "00000002-0000-0ff1-ce00-000000000000"

// ServicePrincipal is what an application is within a tenant: the object that
// permissions are granted to, and that Exchange must know.
// https://learn.microsoft.com/graph/api/resources/serviceprincipal
type ServicePrincipal struct {
	ID          string // object id, a GUID; another than that of the application
	AppID       string // client id, a GUID
	DisplayName string // may be empty
	Disabled    bool   // nobody gets tokens for it

	Roles  []AppRole         // application permissions that it offers
	Scopes []PermissionScope // delegated permissions that it offers
}

// AppRole is an application permission.
type AppRole struct {
	ID          string // GUID
	Value       string // IMAP.AccessAsApp; may be empty
	Enabled     bool
	ForPrograms bool // applications may have it, not only people
}

// PermissionScope is a delegated permission.
type PermissionScope struct {
	ID        string // GUID
	Value     string // IMAP.AccessAsUser.All; may be empty
	Enabled   bool
	AdminOnly bool // people cannot consent to it for themselves
}

// Role gives the id of the enabled application permission with that value:
// IMAP.AccessAsApp, POP.AccessAsApp, SMTP.SendAsApp.
func (sp ServicePrincipal) Role(value string) (id string, ok bool) {
	i := slices.IndexFunc(sp.Roles, func(r AppRole) bool { return r.Value == value && r.Enabled && r.ForPrograms })
	if i < 0 || value == "" {
		return "", false
	}
	return sp.Roles[i].ID, true
}

// Scope gives the id of the enabled delegated permission with that value:
// IMAP.AccessAsUser.All, POP.AccessAsUser.All, SMTP.Send.
func (sp ServicePrincipal) Scope(value string) (id string, ok bool) {
	i := slices.IndexFunc(sp.Scopes, func(s PermissionScope) bool { return s.Value == value && s.Enabled })
	if i < 0 || value == "" {
		return "", false
	}
	return sp.Scopes[i].ID, true
}

// ServicePrincipal reads the service principal of the application with client
// id appID. It needs Application.Read.All. An *Error whose IsNotFound says true:
// there is none; for ExchangeAppID, the tenant has no Exchange Online.
// https://learn.microsoft.com/graph/api/serviceprincipal-get
func (c *Client) ServicePrincipal(ctx context.Context, appID string) (ServicePrincipal, error) {
	return c.servicePrincipal(ctx, c.budget(), appID)
}

func (c *Client) servicePrincipal(ctx context.Context, b *budget, appID string) (ServicePrincipal, error) {
	if !isGUID(appID) {
		return ServicePrincipal{}, fmt.Errorf("client id %q is not a GUID", appID)
	}
	r := request{method: http.MethodGet, url: c.base() + "/servicePrincipals(appId='" + appID +
		"')?$select=id,appId,displayName,accountEnabled,appRoles,oauth2PermissionScopes"}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return ServicePrincipal{}, err
	}
	sp, err := decodePrincipal(resp.body, appID)
	if err != nil {
		return ServicePrincipal{}, r.malformed(resp, err)
	}
	return sp, nil
}

// EnsureServicePrincipal gives the service principal of the application with
// client id appID, and makes it where there is none. It needs
// Application.ReadWrite.All.
//
// fresh says that the application was made moments ago: what replication delays
// (Entra answers 404, 400 or 403 then) is waited out for a minute. Without it a
// refusal is one.
//
// Entra allows one service principal for each application, so a call that was
// killed is safely repeated: it leaves either none or the one wanted. created
// says that it was made here. Errors: an *Error; one that is Temporary may have
// made it all the same.
// https://learn.microsoft.com/graph/api/serviceprincipal-post-serviceprincipals
func (c *Client) EnsureServicePrincipal(ctx context.Context, appID string, fresh bool) (sp ServicePrincipal, created bool, err error) {
	b := c.budget()
	look := func() (bool, error) {
		var err error
		sp, err = c.servicePrincipal(ctx, b, appID)
		if e, ok := errors.AsType[*Error](err); ok && e.IsNotFound() {
			return false, nil
		}
		return err == nil, err
	}
	if there, err := look(); there || err != nil {
		return sp, false, err
	}
	body, err := json.Marshal(struct {
		AppID string `json:"appId"`
	}{appID})
	if err != nil {
		return ServicePrincipal{}, false, fmt.Errorf("encode client id: %w", err)
	}
	r := request{method: http.MethodPost, url: c.base() + "/servicePrincipals", body: body, once: true}
	created, err = c.create(ctx, b, fresh, func() error {
		resp, err := c.send(ctx, b, r)
		if err != nil {
			return err
		}
		if sp, err = decodePrincipal(resp.body, appID); err != nil {
			return r.malformed(resp, err)
		}
		return nil
	}, look)
	if err != nil {
		return ServicePrincipal{}, false, err
	}
	return sp, created, nil
}

func decodePrincipal(body []byte, appID string) (ServicePrincipal, error) {
	var w struct {
		ID             string  `json:"id"`
		AppID          string  `json:"appId"`
		DisplayName    *string `json:"displayName"`
		AccountEnabled *bool   `json:"accountEnabled"`
		AppRoles       *[]struct {
			ID                 string   `json:"id"`
			Value              *string  `json:"value"`
			IsEnabled          bool     `json:"isEnabled"`
			AllowedMemberTypes []string `json:"allowedMemberTypes"`
		} `json:"appRoles"`
		Scopes *[]struct {
			ID        string  `json:"id"`
			Value     *string `json:"value"`
			IsEnabled bool    `json:"isEnabled"`
			Type      *string `json:"type"`
		} `json:"oauth2PermissionScopes"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return ServicePrincipal{}, err
	}
	switch {
	case !isGUID(w.ID) || !isGUID(w.AppID):
		return ServicePrincipal{}, errors.New("a service principal without id or appId")
	case !strings.EqualFold(w.AppID, appID):
		return ServicePrincipal{}, errors.New("another service principal than the one asked for")
	case w.AppRoles == nil || w.Scopes == nil:
		return ServicePrincipal{}, errors.New("a service principal without appRoles or oauth2PermissionScopes")
	}
	sp := ServicePrincipal{ID: strings.ToLower(w.ID), AppID: strings.ToLower(w.AppID), DisplayName: deref(w.DisplayName),
		Disabled: w.AccountEnabled != nil && !*w.AccountEnabled}
	for _, r := range *w.AppRoles {
		if !isGUID(r.ID) {
			return ServicePrincipal{}, errors.New("an app role without id")
		}
		sp.Roles = append(sp.Roles, AppRole{ID: strings.ToLower(r.ID), Value: deref(r.Value), Enabled: r.IsEnabled,
			ForPrograms: slices.Contains(r.AllowedMemberTypes, "Application")})
	}
	for _, s := range *w.Scopes {
		if !isGUID(s.ID) {
			return ServicePrincipal{}, errors.New("a permission scope without id")
		}
		sp.Scopes = append(sp.Scopes, PermissionScope{ID: strings.ToLower(s.ID), Value: deref(s.Value), Enabled: s.IsEnabled,
			AdminOnly: deref(s.Type) == "Admin"})
	}
	return sp, nil
}
