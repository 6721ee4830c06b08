package sandbox

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// sid identifies who can be given rights: a service principal that Exchange
// knows, or a person with a mailbox. One that is removed and made again is
// somebody else.
type sid string

func newSID() sid { return sid(uuid.NewString()) }

// exchangeConfig is what administrators set up in Exchange. Each change makes
// a new one, and those that were are left as they are: see exchange.change.
type exchangeConfig struct {
	principals   []registeredPrincipal
	scopes       []managementScope
	assignments  []exchangeAssignment
	mailboxes    map[*mailbox]mailboxConfig
	smtpDisabled bool // SmtpClientAuthenticationDisabled of the tenant
}

// registeredPrincipal is a service principal as Exchange was told of it. Its
// object id is what somebody typed: Exchange does not compare it with Entra's.
type registeredPrincipal struct {
	sid                          sid
	appID, objectID, displayName string
}

// managementScope is a set of mailboxes.
type managementScope struct {
	name string
	has  recipientFilter
}

// exchangeAssignment gives a service principal a role of RBAC for Applications,
// for the mailboxes of a scope ("": all).
type exchangeAssignment struct {
	name, role, scope string
	sid               sid
}

// smtpRole is the only role of RBAC for Applications that the mail protocols
// know: IMAP and POP have none. The others are for Graph, each with the name of
// its permission after rolePrefix.
const (
	rolePrefix = "Application "
	smtpRole   = rolePrefix + "SMTP.SendAsApp"
)

// applicationRoles are the roles that there are here.
var applicationRoles = []string{smtpRole, rolePrefix + "Mail.Send", rolePrefix + "Mail.Read", rolePrefix + "Mail.ReadBasic"}

// mailboxConfig is what is set up for a mailbox.
type mailboxConfig struct {
	fullAccess, sendAs        []sid
	imapDisabled, popDisabled bool
	smtpDisabled              *bool // nil: as the tenant has it
}

// configVersion is a configuration and the time at which it was made.
type configVersion struct {
	since time.Time
	*exchangeConfig
}

// maxVersions is how many configurations are remembered, for ExchangePropagation.
const maxVersions = 200

// newExchangeConfig is the configuration at the start: Exchange knows the mail
// application, which has FullAccess wherever it is not denied it.
func newExchangeConfig(app *application, boxes []*mailbox) *exchangeConfig {
	p := registeredPrincipal{newSID(), app.clientID, app.principalID, app.displayName}
	c := &exchangeConfig{principals: []registeredPrincipal{p}, mailboxes: make(map[*mailbox]mailboxConfig)}
	for _, box := range boxes {
		var m mailboxConfig
		if !box.NoAccess && !box.Personal {
			m.fullAccess = []sid{p.sid}
		}
		c.mailboxes[box] = m
	}
	return c
}

// config is the configuration that sign-ins are held to.
func (x *exchange) config() *exchangeConfig {
	limit := x.s.now().Add(-x.s.CurrentFaults().ExchangePropagation)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, v := range slices.Backward(x.history) {
		if !v.since.After(limit) {
			return v.exchangeConfig
		}
	}
	return x.history[0].exchangeConfig
}

// newestConfig is the configuration that administrators see.
func (x *exchange) newestConfig() *exchangeConfig {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.history[len(x.history)-1].exchangeConfig
}

// change makes a new configuration by f, which may refuse.
func (x *exchange) change(f func(*exchangeConfig) error) error {
	now := x.s.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.history[len(x.history)-1].clone()
	if err := f(c); err != nil {
		return err
	}
	x.history = append(x.history, configVersion{now, c})
	if over := len(x.history) - maxVersions; over > 0 {
		x.history = slices.Delete(x.history, 0, over)
	}
	return nil
}

func (c *exchangeConfig) clone() *exchangeConfig {
	return &exchangeConfig{
		slices.Clone(c.principals), slices.Clone(c.scopes), slices.Clone(c.assignments),
		maps.Clone(c.mailboxes), c.smtpDisabled,
	}
}

// setMailbox changes what is set up for a mailbox.
func (c *exchangeConfig) setMailbox(box *mailbox, f func(*mailboxConfig)) {
	m := c.mailboxes[box]
	f(&m)
	c.mailboxes[box] = m
}

// with gives a list with id in it, and leaves the one it was given alone.
func with(list []sid, id sid) []sid {
	if slices.Contains(list, id) {
		return list
	}
	return append(slices.Clip(list), id)
}

// principal finds the service principal by both ids, nil where Exchange knows
// none or another object id for it.
func (c *exchangeConfig) principal(appID, objectID string) *registeredPrincipal {
	i := slices.IndexFunc(c.principals, func(p registeredPrincipal) bool {
		return sameFold(p.appID, appID) && sameFold(p.objectID, objectID)
	})
	if i < 0 {
		return nil
	}
	return &c.principals[i]
}

// scope finds a management scope, nil where there is none.
func (c *exchangeConfig) scope(name string) *managementScope {
	i := slices.IndexFunc(c.scopes, func(s managementScope) bool { return sameFold(s.name, name) })
	if i < 0 {
		return nil
	}
	return &c.scopes[i]
}

// inScope says whether an assignment holds for a mailbox.
func (c *exchangeConfig) inScope(a exchangeAssignment, box *mailbox) bool {
	return a.scope == "" || c.scope(a.scope).has(box)
}

// assigned says whether RBAC gives a service principal a role in a mailbox.
func (c *exchangeConfig) assigned(role string, id sid, box *mailbox) bool {
	return slices.ContainsFunc(c.assignments, func(a exchangeAssignment) bool {
		return a.role == role && a.sid == id && c.inScope(a, box)
	})
}
