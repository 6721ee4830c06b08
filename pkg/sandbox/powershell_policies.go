package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

func newManagementScope(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, false); err != nil {
		return nil, err
	}
	name, text := a.text("Name"), a.text("RecipientRestrictionFilter")
	has, err := parseRecipientFilter(text)
	if err != nil {
		return nil, err
	}
	err = r.x.change(func(c *exchangeConfig) error {
		if c.scope(name) != nil {
			return refusef("The management scope '%s' already exists.", printable(name))
		}
		c.scopes = append(c.scopes, managementScope{name, has})
		return nil
	})
	return []psRow{{{"Name", name}, {"ScopeRestrictionType", "RecipientScope"}, {"RecipientFilter", text}, {"Identity", name}}}, err
}

func newManagementRoleAssignment(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, false); err != nil {
		return nil, err
	}
	as := exchangeAssignment{name: a.text("Name"), role: a.text("Role")}
	var p registeredPrincipal
	err := r.x.change(func(c *exchangeConfig) error {
		found, err := findPrincipal(c, a.text("App"), true)
		if err != nil || sameFold(found.displayName, a.text("App")) {
			return noObject(a.text("App")) // by one of the ids alone
		}
		p = *found
		as.sid = p.sid
		if a.has("CustomResourceScope") {
			s := c.scope(a.text("CustomResourceScope"))
			if s == nil {
				return noObject(a.text("CustomResourceScope"))
			}
			as.scope = s.name
		}
		taken := func(name string) bool {
			return slices.ContainsFunc(c.assignments, func(o exchangeAssignment) bool { return sameFold(o.name, name) })
		}
		if as.name != "" && taken(as.name) {
			return refusef("The management role assignment '%s' already exists.", printable(as.name))
		}
		if as.name == "" { // Exchange makes one up
			base := as.role + "-" + p.objectID
			as.name = base
			for n := 1; taken(as.name); n++ {
				as.name = fmt.Sprintf("%s-%d", base, n)
			}
		}
		c.assignments = append(c.assignments, as)
		return nil
	})
	return []psRow{{{"Name", as.name}, {"Role", as.role}, {"App", p.objectID}, {"CustomResourceScope", as.scope}, {"Identity", as.name}}}, err
}

// testServicePrincipal tells of RBAC alone, as the real one, and of what is
// set up now, whether or not it has taken effect.
func testServicePrincipal(r *psRun, a psArgs) ([]psRow, error) {
	c := r.x.newestConfig()
	p, err := findPrincipal(c, a.text("Identity"), true)
	if err != nil {
		return nil, err
	}
	var box *mailbox
	if a.has("Resource") {
		if box, err = r.findMailbox(a.text("Resource")); err != nil {
			return nil, err
		}
	}
	var rows []psRow
	for _, as := range c.assignments {
		if as.sid != p.sid {
			continue
		}
		scope, kind, in := as.scope, "CustomRecipientScope", "Not Run"
		if scope == "" {
			scope, kind = "Organization", "Organization"
		}
		if box != nil {
			in = psTruth(c.inScope(as, box))
		}
		rows = append(rows, psRow{
			{"RoleName", as.role}, {"GrantedPermissions", strings.TrimPrefix(as.role, rolePrefix)},
			{"AllowedResourceScope", scope}, {"ScopeType", kind}, {"InScope", in},
		})
	}
	return rows, nil
}

func setCASMailbox(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, false); err != nil {
		return nil, err
	}
	box, err := r.findMailbox(a.text("Identity"))
	switch {
	case err != nil:
		return nil, err
	case !a.has("ImapEnabled") && !a.has("PopEnabled") && !a.has("SmtpClientAuthenticationDisabled"):
		return nil, refusef("The command completed successfully but no settings have been modified: it names none.")
	}
	return nil, r.x.change(func(c *exchangeConfig) error {
		c.setMailbox(box, func(m *mailboxConfig) {
			if a.has("ImapEnabled") {
				m.imapDisabled = !a["imapenabled"].truth
			}
			if a.has("PopEnabled") {
				m.popDisabled = !a["popenabled"].truth
			}
			if v, ok := a["smtpclientauthenticationdisabled"]; ok && v.kind == psNull {
				m.smtpDisabled = nil
			} else if ok {
				m.smtpDisabled = &v.truth
			}
		})
		return nil
	})
}

// eachMailbox gives a row for the mailbox asked for, or for each.
func (r *psRun) eachMailbox(a psArgs, row func(*mailbox) psRow) ([]psRow, error) {
	if a.has("Identity") {
		box, err := r.findMailbox(a.text("Identity"))
		if err != nil {
			return nil, err
		}
		return []psRow{row(box)}, nil
	}
	var rows []psRow
	for _, box := range r.x.mailboxes {
		if !box.Personal {
			rows = append(rows, row(box))
		}
	}
	return rows, nil
}

func getCASMailbox(r *psRun, a psArgs) ([]psRow, error) {
	c := r.x.newestConfig()
	return r.eachMailbox(a, func(box *mailbox) psRow {
		m, smtp := c.mailboxes[box], ""
		if m.smtpDisabled != nil {
			smtp = psTruth(*m.smtpDisabled)
		}
		return psRow{
			{"Identity", box.Address}, {"ImapEnabled", psTruth(!m.imapDisabled)}, {"PopEnabled", psTruth(!m.popDisabled)},
			{"SmtpClientAuthenticationDisabled", smtp},
		}
	})
}

func getMailbox(r *psRun, a psArgs) ([]psRow, error) {
	return r.eachMailbox(a, func(box *mailbox) psRow {
		return psRow{{"Identity", box.Address}, {"PrimarySmtpAddress", box.Address}, {"UserPrincipalName", box.upn()}}
	})
}

func setTransportConfig(r *psRun, a psArgs) ([]psRow, error) {
	if err := confirmed(a, false); err != nil {
		return nil, err
	}
	return nil, r.x.change(func(c *exchangeConfig) error {
		c.smtpDisabled = a["smtpclientauthenticationdisabled"].truth
		return nil
	})
}

func getTransportConfig(r *psRun, _ psArgs) ([]psRow, error) {
	return []psRow{{{"SmtpClientAuthenticationDisabled", psTruth(r.x.newestConfig().smtpDisabled)}}}, nil
}
