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
	"unicode"
)

// User is a person of the tenant.
type User struct {
	ID                string // object id, a GUID
	DisplayName       string
	UserPrincipalName string // the name to sign in with: alice@contoso.com
	Mail              string // the main address, often another; may be empty

	// Client.User reads these, Client.Me does not.
	Disabled  bool     // sign-in is blocked
	Addresses []string // all SMTP addresses, the main one first
	Plans     []ServicePlan
}

// ServicePlan is one plan of a licence that is assigned to a person.
// https://learn.microsoft.com/graph/api/resources/assignedplan
type ServicePlan struct {
	ID      string // GUID
	Service string // "exchange"
	Status  string // Enabled, Warning, Suspended, Deleted or LockedOut
}

// exchangeFoundation is the plan EXCHANGE_S_FOUNDATION: a part of many licences
// that have nothing to do with mail, without a mailbox.
const exchangeFoundation = "113feb6c-3fe4-4440-bddc-54d774bf0318"

// HasExchangePlan says whether a plan of Exchange that can hold a mailbox is in
// force. False is sure; true may also be an addition to a mailbox, an archive
// say. Shared mailboxes need no licence.
func (u User) HasExchangePlan() bool {
	return slices.ContainsFunc(u.Plans, func(p ServicePlan) bool {
		return strings.EqualFold(p.Service, "exchange") && p.ID != exchangeFoundation &&
			(strings.EqualFold(p.Status, "Enabled") || strings.EqualFold(p.Status, "Warning"))
	})
}

// Me reads who the token stands for. One of an application gets a 400 or 403.
// https://learn.microsoft.com/graph/api/user-get
func (c *Client) Me(ctx context.Context) (User, error) {
	r := request{method: http.MethodGet, url: c.base() + "/me?$select=id,displayName,userPrincipalName,mail"}
	resp, err := c.send(ctx, c.budget(), r)
	if err != nil {
		return User{}, err
	}
	u, err := decodeUser(resp.body)
	if err != nil {
		return User{}, r.malformed(resp, err)
	}
	return u, nil
}

const selectUser = "$select=id,displayName,userPrincipalName,mail,accountEnabled,proxyAddresses,assignedPlans"

// User reads the person whose user principal name address is, or else the one
// who has it among the addresses of his mailbox. It needs User.Read.All. Errors:
// an *Error whose IsNotFound says true when there is none (a contact, a group or
// a mailbox of another tenant is none); one whose IsForbidden says true when the
// token may not read it.
// https://learn.microsoft.com/graph/api/user-get
func (c *Client) User(ctx context.Context, address string) (User, error) {
	if !isAddress(address) {
		return User{}, fmt.Errorf("%q is not an address", address)
	}
	b := c.budget()
	r := request{method: http.MethodGet, url: c.base() + "/users/" + url.PathEscape(address) + "?" + selectUser}
	resp, err := c.send(ctx, b, r)
	if err == nil {
		u, err := decodeUser(resp.body)
		if err != nil {
			return User{}, r.malformed(resp, err)
		}
		return u, nil
	}
	if e, ok := errors.AsType[*Error](err); !ok || !e.IsNotFound() {
		return User{}, err
	}
	expression := "mail eq " + quoted(address) + " or proxyAddresses/any(p:p eq " + quoted("smtp:"+address) + ")"
	list, listErr := all(ctx, c, b, c.base()+"/users?"+selectUser+"&"+filter(expression), decodeUser)
	switch {
	case listErr != nil:
		return User{}, listErr
	case len(list) == 0:
		return User{}, err
	case len(list) > 1:
		return User{}, fmt.Errorf("the address %s belongs to %d people", address, len(list))
	}
	return list[0], nil
}

// isAddress refuses what cannot be the name of a mailbox in a path.
func isAddress(s string) bool {
	name, domain, ok := strings.Cut(s, "@")
	return ok && name != "" && domain != "" &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func decodeUser(body []byte) (User, error) {
	var w struct {
		ID                string   `json:"id"`
		DisplayName       *string  `json:"displayName"`
		UserPrincipalName *string  `json:"userPrincipalName"`
		Mail              *string  `json:"mail"`
		AccountEnabled    *bool    `json:"accountEnabled"`
		ProxyAddresses    []string `json:"proxyAddresses"`
		AssignedPlans     []struct {
			ServicePlanID    string  `json:"servicePlanId"`
			Service          *string `json:"service"`
			CapabilityStatus *string `json:"capabilityStatus"`
		} `json:"assignedPlans"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return User{}, err
	}
	if w.ID == "" {
		return User{}, errors.New("a user without id")
	}
	u := User{ID: w.ID, DisplayName: deref(w.DisplayName), UserPrincipalName: deref(w.UserPrincipalName), Mail: deref(w.Mail),
		Disabled: w.AccountEnabled != nil && !*w.AccountEnabled}
	for _, proxy := range w.ProxyAddresses {
		// The prefix of the main address is in capitals.
		switch kind, address, _ := strings.Cut(proxy, ":"); kind {
		case "SMTP":
			u.Addresses = slices.Insert(u.Addresses, 0, address)
		case "smtp":
			u.Addresses = append(u.Addresses, address)
		}
	}
	for _, plan := range w.AssignedPlans {
		u.Plans = append(u.Plans, ServicePlan{strings.ToLower(plan.ServicePlanID), deref(plan.Service), deref(plan.CapabilityStatus)})
	}
	return u, nil
}
