package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// cmdlet is a cmdlet of Exchange Online PowerShell. run gives the objects that
// it prints.
type cmdlet struct {
	name   string
	params []psParam
	run    func(*psRun, psArgs) ([]psRow, error)
}

type psParam struct {
	name     string
	kind     psKind // psText, psGUID, psBool, psNullBool, psSwitch
	required bool
	oneOf    []string // the values that there are; empty: any
}

// param finds a parameter, whose name has to be whole.
func (c cmdlet) param(name string) int {
	return slices.IndexFunc(c.params, func(p psParam) bool { return sameFold(p.name, name) })
}

// accept gives the value as the parameter takes it. An object stands for its
// identity.
func (p psParam) accept(v psValue) (psValue, bool) {
	if v.kind == psRows && len(v.rows) == 1 {
		if id, ok := v.rows[0].get("Identity"); ok {
			v = psValue{text: id}
		}
	}
	switch p.kind {
	case psBool, psSwitch:
		return v, v.kind == psBool
	case psNullBool:
		return v, v.kind == psBool || v.kind == psNull
	case psGUID:
		return v, v.kind == psText && isGUID(v.text)
	}
	ok := v.kind == psText && strings.TrimSpace(v.text) != ""
	if len(p.oneOf) == 0 {
		return v, ok
	}
	i := slices.IndexFunc(p.oneOf, func(one string) bool { return sameFold(one, v.text) })
	if ok = ok && i >= 0; ok {
		v.text = p.oneOf[i]
	}
	return v, ok
}

// cmdlets are those that are known, by name in lower case.
var cmdlets = func() map[string]cmdlet {
	identity := psParam{name: "Identity", required: true}
	anyIdentity := psParam{name: "Identity"}
	confirm := psParam{name: "Confirm", kind: psSwitch}
	m := make(map[string]cmdlet)
	for _, c := range []cmdlet{
		{"Connect-ExchangeOnline", []psParam{
			{name: "Organization"}, {name: "UserPrincipalName"}, {name: "ShowBanner", kind: psSwitch},
			{name: "ExchangeEnvironmentName", oneOf: []string{"O365Default", "O365China", "O365USGovGCCHigh", "O365USGovDoD"}},
		}, func(*psRun, psArgs) ([]psRow, error) { return nil, nil }},
		{"New-ServicePrincipal", []psParam{
			{name: "AppId", kind: psGUID, required: true}, {name: "ObjectId", kind: psGUID, required: true}, {name: "DisplayName"}, confirm,
		}, newServicePrincipal},
		{"Get-ServicePrincipal", []psParam{anyIdentity}, getServicePrincipal},
		{"Remove-ServicePrincipal", []psParam{identity, confirm}, removeServicePrincipal},
		{"Add-MailboxPermission", []psParam{
			identity, {name: "User", required: true}, {name: "AccessRights", required: true, oneOf: []string{"FullAccess"}},
			{name: "AutoMapping", kind: psBool}, {name: "InheritanceType", oneOf: []string{"All"}}, confirm,
		}, addMailboxPermission},
		{"Add-RecipientPermission", []psParam{
			identity, {name: "Trustee", required: true}, {name: "AccessRights", required: true, oneOf: []string{"SendAs"}}, confirm,
		}, addRecipientPermission},
		{"New-ManagementScope", []psParam{
			{name: "Name", required: true}, {name: "RecipientRestrictionFilter", required: true}, confirm,
		}, newManagementScope},
		{"New-ManagementRoleAssignment", []psParam{
			{name: "Name"}, {name: "Role", required: true, oneOf: applicationRoles}, {name: "App", required: true},
			{name: "CustomResourceScope"}, confirm,
		}, newManagementRoleAssignment},
		{"Test-ServicePrincipalAuthorization", []psParam{identity, {name: "Resource"}}, testServicePrincipal},
		{"Set-CASMailbox", []psParam{
			identity, {name: "ImapEnabled", kind: psBool}, {name: "PopEnabled", kind: psBool},
			{name: "SmtpClientAuthenticationDisabled", kind: psNullBool}, confirm,
		}, setCASMailbox},
		{"Get-CASMailbox", []psParam{anyIdentity}, getCASMailbox},
		{"Get-Mailbox", []psParam{anyIdentity}, getMailbox},
		{"Set-TransportConfig", []psParam{{name: "SmtpClientAuthenticationDisabled", kind: psBool, required: true}, confirm}, setTransportConfig},
		{"Get-TransportConfig", nil, getTransportConfig},
	} {
		m[strings.ToLower(c.name)] = c
	}
	return m
}()

// refusal is a refusal in the words of Exchange.
type refusal string

func (r refusal) Error() string { return string(r) }

func refusef(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// confirmed refuses what asks first, unless it is told not to: nobody is here
// to answer.
func confirmed(a psArgs, asks bool) error {
	if a.has("Confirm") {
		asks = a["confirm"].truth
	}
	if asks {
		return refusef("PowerShell is in NonInteractive mode. Read and Prompt functionality is not available: it asks for confirmation without -Confirm:$false")
	}
	return nil
}

// findPrincipal finds a service principal by its object id (which is also its
// identity) or display name, or where app is true by its application's id.
func findPrincipal(c *exchangeConfig, identity string, app bool) (*registeredPrincipal, error) {
	var found []*registeredPrincipal
	for i, p := range c.principals {
		if sameFold(p.objectID, identity) || sameFold(p.displayName, identity) || app && sameFold(p.appID, identity) {
			found = append(found, &c.principals[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, noObject(identity)
	case 1:
		return found[0], nil
	}
	return nil, refusef("The operation couldn't be performed because '%s' matches multiple entries.", printable(identity))
}

func noObject(identity string) error {
	return refusef("The operation couldn't be performed because object '%s' couldn't be found.", printable(identity))
}

// findMailbox finds a mailbox of the tenant.
func (r *psRun) findMailbox(identity string) (*mailbox, error) {
	if box := r.x.byUser(identity); box != nil && !box.Personal {
		return box, nil
	}
	return nil, noObject(identity)
}

// findTrustee finds who can be given rights: a service principal, or a person
// with a mailbox.
func (r *psRun) findTrustee(c *exchangeConfig, identity string) (sid, error) {
	p, err := findPrincipal(c, identity, false)
	if err == nil {
		return p.sid, nil
	}
	if box, boxErr := r.findMailbox(identity); boxErr == nil {
		return box.sid, nil
	}
	return "", err
}

func (p registeredPrincipal) row() psRow {
	return psRow{{"DisplayName", p.displayName}, {"ObjectId", p.objectID}, {"AppId", p.appID}, {"Identity", p.objectID}}
}

func newServicePrincipal(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, false); err != nil {
		return nil, err
	}
	p := registeredPrincipal{newSID(), strings.ToLower(a.text("AppId")), strings.ToLower(a.text("ObjectId")), a.text("DisplayName")}
	if p.displayName == "" {
		p.displayName = p.objectID
	}
	err := r.x.change(func(c *exchangeConfig) error {
		for _, o := range c.principals {
			if sameFold(o.appID, p.appID) || sameFold(o.objectID, p.objectID) {
				return refusef("The service principal with AppId '%s' and ObjectId '%s' already exists.", o.appID, o.objectID)
			}
		}
		c.principals = append(c.principals, p)
		return nil
	})
	return []psRow{p.row()}, err
}

func getServicePrincipal(r *psRun, a psArgs) ([]psRow, error) {
	c := r.x.newestConfig()
	if a.has("Identity") {
		p, err := findPrincipal(c, a.text("Identity"), true)
		if err != nil {
			return nil, err
		}
		return []psRow{p.row()}, nil
	}
	var rows []psRow
	for _, p := range c.principals {
		rows = append(rows, p.row())
	}
	return rows, nil
}

func removeServicePrincipal(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, true); err != nil {
		return nil, err
	}
	return nil, r.x.change(func(c *exchangeConfig) error {
		p, err := findPrincipal(c, a.text("Identity"), true)
		if err != nil {
			return err
		}
		id := p.sid
		c.principals = slices.DeleteFunc(c.principals, func(p registeredPrincipal) bool { return p.sid == id })
		c.assignments = slices.DeleteFunc(c.assignments, func(a exchangeAssignment) bool { return a.sid == id })
		return nil
	})
}

// permit gives somebody a right on a mailbox, and the row that tells of it.
func (r *psRun) permit(a psArgs, trustee string, asks bool, grant func(*mailboxConfig, sid)) ([]psRow, error) {
	if err := confirmed(a, asks); err != nil {
		return nil, err
	}
	box, err := r.findMailbox(a.text("Identity"))
	if err != nil {
		return nil, err
	}
	err = r.x.change(func(c *exchangeConfig) error {
		id, err := r.findTrustee(c, a.text(trustee))
		if err == nil {
			c.setMailbox(box, func(m *mailboxConfig) { grant(m, id) })
		}
		return err
	})
	return []psRow{{{"Identity", box.Address}, {trustee, a.text(trustee)}, {"AccessRights", "{" + a.text("AccessRights") + "}"}}}, err
}

func addMailboxPermission(r *psRun, a psArgs) ([]psRow, error) {
	return r.permit(a, "User", false, func(m *mailboxConfig, id sid) { m.fullAccess = with(m.fullAccess, id) })
}

func addRecipientPermission(r *psRun, a psArgs) ([]psRow, error) {
	return r.permit(a, "Trustee", true, func(m *mailboxConfig, id sid) { m.sendAs = with(m.sendAs, id) })
}
