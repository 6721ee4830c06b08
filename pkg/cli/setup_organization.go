package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/graph"
)

// appRoles are Exchange Online's application permissions for the protocols.
// Their ids are read from the tenant.
var appRoles = map[string]string{"imap": "IMAP.AccessAsApp", "pop3": "POP.AccessAsApp", "smtp": "SMTP.SendAsApp"}

// noExchangeError tells that the tenant has no Exchange Online.
type noExchangeError struct {
	tenant string
	err    error
}

func (e *noExchangeError) Error() string {
	return fmt.Sprintf("the tenant %s has no Exchange Online, whose mailboxes could be opened: %v", e.tenant, e.err)
}

func (e *noExchangeError) Unwrap() error { return e.err }

// planOrganization reads what is there in the tenant, and plans the rest.
func (w *setup) planOrganization(ctx context.Context) error {
	if err := w.signInForSetup(ctx); err != nil {
		return err
	}
	for _, read := range []func(context.Context) error{w.readExchange, w.readApplication, w.readPrincipal, w.chooseBacking} {
		if err := read(ctx); err != nil {
			return w.withoutRights(err)
		}
	}
	w.planApplication()
	w.planPrincipal()
	if err := w.planRoles(ctx); err != nil {
		return w.withoutRights(err)
	}
	w.planSignIn()
	if err := w.planCertificate(ctx); err != nil {
		return w.withoutRights(err)
	}
	return w.planProfile()
}

// readExchange finds the permissions that the protocols need.
func (w *setup) readExchange(ctx context.Context) (err error) {
	w.progress.set("reading what Exchange Online offers")
	w.exchange, err = w.s.graph.ServicePrincipal(ctx, graph.ExchangeAppID)
	if e, ok := errors.AsType[*graph.Error](err); ok && e.IsNotFound() {
		return &noExchangeError{w.profile.Tenant, err}
	}
	if err != nil {
		return err
	}
	for _, p := range w.profile.Allow {
		id, ok := w.exchange.Role(appRoles[p])
		if !ok {
			return &failedError{code: refused, msg: fmt.Sprintf("Exchange Online of this tenant does not offer the permission %s, which %s needs", appRoles[p], p),
				hint: "leave " + p + " out: --allow …"}
		}
		w.roles, w.roleIDs = append(w.roles, appRoles[p]), append(w.roleIDs, id)
	}
	return nil
}

// readApplication finds the application: the one of the profile, else the one
// that setup has made before, which its unique name tells.
func (w *setup) readApplication(ctx context.Context) (err error) {
	w.progress.set("reading the application")
	missing := func(err error) bool {
		e, ok := errors.AsType[*graph.Error](err)
		return ok && e.IsNotFound()
	}
	if id := w.profile.ClientID; id != "" {
		w.application, err = w.s.graph.ApplicationRegistration(ctx, id)
		if err == nil {
			if w.uniqueName = w.application.Registration.UniqueName; w.uniqueName == "" {
				w.byHand = true
			}
			w.fresh = w.application.Fresh
			return nil
		}
		if !missing(err) || w.o.clientID != "" {
			return err
		}
		w.profile.ClientID = ""
	}
	w.application, err = w.s.graph.ApplicationByUniqueName(ctx, w.uniqueName)
	if missing(err) {
		return nil
	}
	if err == nil {
		w.profile.ClientID, w.fresh = w.application.AppID, w.application.Fresh
		w.useProfile()
		w.foundByName()
	}
	return err
}

// foundByName tells of an application that has the unique name and is in no
// profile here. As a rule an earlier run has made it; but anybody who may register
// applications can take a name first, owns what has it, and may add secrets.
func (w *setup) foundByName() {
	since := ""
	if !w.application.Created.IsZero() {
		since = " since " + w.application.Created.Format(time.DateOnly)
	}
	w.warn("an application called %s is there already%s, with %s: whoever owns it will open these mailboxes as well. Unless you know it, see who that is "+
		"(az ad app owner list --id %s), or take another name (--app)", w.uniqueName, since, plural(len(w.application.PasswordCredentials), "client secret"), w.application.AppID)
}

func (w *setup) readPrincipal(ctx context.Context) (err error) {
	if w.application.AppID == "" {
		return nil
	}
	w.principal, err = w.s.graph.ServicePrincipal(ctx, w.application.AppID)
	if e, ok := errors.AsType[*graph.Error](err); ok && e.IsNotFound() {
		return nil
	}
	return err
}

// chooseBacking reads the tenant's policy, as far as that is allowed, and takes
// a certificate where it forbids client secrets.
func (w *setup) chooseBacking(ctx context.Context) error {
	w.progress.set("reading the tenant's policy for credentials")
	var err error
	created := w.Now()
	if w.application.ID != "" {
		created = w.application.Created
		w.policy, err = w.s.manager.Policies.ApplicationPolicy(ctx, w.application.ID)
	} else {
		w.policy, err = w.s.manager.Policies.AppManagementPolicy(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // to read policies takes a permission that few give
		w.logger().Debug("the policy cannot be read", "error", err)
		w.policy = graph.AppManagementPolicy{}
	}
	if w.profile.Backing != apppassword.BackingSecret || !w.policy.SecretsForbidden(created) {
		return nil
	}
	if w.o.backing != "" {
		return &apppassword.PolicyError{ForbidsSecrets: true, Err: errors.New("so it says of this application")}
	}
	w.profile.Backing = apppassword.BackingCertificate
	w.note("the tenant's policy forbids client secrets, so a certificate stands behind the app passwords")
	w.useProfile()
	return nil
}

// registration is what the application is to look like.
func (w *setup) registration() graph.Registration {
	name := "o365pw " + strings.Join(w.mailboxes, " ")
	if w.o.app != "" || len([]rune(name)) > 120 {
		name = w.uniqueName
	}
	if w.application.DisplayName != "" {
		name = w.application.DisplayName // an administrator may have given another
	}
	access := graph.ResourceAccess{AppID: graph.ExchangeAppID}
	for _, id := range w.roleIDs {
		access.Permissions = append(access.Permissions, graph.Permission{ID: id, Type: graph.RolePermission})
	}
	return graph.Registration{UniqueName: w.uniqueName, DisplayName: name, Tags: []string{"o365pw"}, RequiredAccess: []graph.ResourceAccess{access}}
}

// complete tells whether the application has all that is wanted.
func complete(have graph.Application, want graph.Registration) bool {
	for _, tag := range want.Tags {
		if !slices.Contains(have.Registration.Tags, tag) {
			return false
		}
	}
	for _, resource := range want.RequiredAccess {
		i := slices.IndexFunc(have.Registration.RequiredAccess, func(a graph.ResourceAccess) bool { return strings.EqualFold(a.AppID, resource.AppID) })
		if i < 0 || slices.ContainsFunc(resource.Permissions, func(p graph.Permission) bool {
			return !slices.Contains(have.Registration.RequiredAccess[i].Permissions, p)
		}) {
			return false
		}
	}
	return have.SignInAudience == "AzureADMyOrg"
}

// applicationText names the application as a person finds it again.
func (w *setup) applicationText() string {
	return fmt.Sprintf("application %q (client id %s, object id %s)", w.application.DisplayName, w.application.AppID, w.application.ID)
}

func (w *setup) planApplication() {
	want := w.registration()
	st := setupStep{Name: "application", Change: changeNone}
	switch {
	case w.application.AppID == "":
		st.Change, st.Text = changeCreate, fmt.Sprintf("register the application %q for this tenant alone (unique name %s)", want.DisplayName, w.uniqueName)
	case w.byHand:
		st.Text = w.applicationText() + ", which was not made by setup"
		if w.application.SignInAudience != "AzureADMyOrg" {
			w.warn("the application is not for this tenant alone (%s): use one of its own, --app NAME", w.application.SignInAudience)
		}
	case complete(w.application, want):
		st.Text = w.applicationText()
	default:
		st.Change, st.Text = changeUpdate, "change the "+w.applicationText()+": "+strings.Join(w.roles, ", ")+" among what it asks for, tag o365pw"
	}
	st.do = func(ctx context.Context) (string, error) {
		app, changed, err := w.s.graph.EnsureApplication(ctx, want)
		if err != nil {
			return "", err
		}
		w.made = w.application.AppID == "" // or begun by a run before
		w.application, w.fresh = app, app.Fresh || changed && st.Change == changeCreate
		w.profile.ClientID = app.AppID
		w.useProfile()
		return w.applicationText(), nil
	}
	w.step(st)
}

func (w *setup) principalText() string {
	return fmt.Sprintf("service principal (object id %s)", w.principal.ID)
}

func (w *setup) planPrincipal() {
	st := setupStep{Name: "servicePrincipal", Change: changeNone, Text: w.principalText()}
	if w.principal.ID == "" {
		st.Change, st.Text = changeCreate, "make its service principal, which is the application within the tenant"
	} else if w.principal.Disabled {
		w.warn("the application is disabled in the tenant: az ad sp update --id %s --set accountEnabled=true", w.application.AppID)
	}
	st.do = func(ctx context.Context) (string, error) {
		sp, created, err := w.s.graph.EnsureServicePrincipal(ctx, w.application.AppID, w.fresh)
		if err != nil {
			return "", err
		}
		w.principal, w.fresh = sp, w.fresh || created
		return w.principalText(), nil
	}
	w.step(st)
}

// planRoles grants what is not granted. What the application may besides stays,
// and is told.
func (w *setup) planRoles(ctx context.Context) error {
	missing := w.roles
	if w.principal.ID != "" {
		granted, err := w.s.graph.AppRoleAssignments(ctx, w.principal.ID)
		if err != nil {
			return err
		}
		has := func(id string) bool {
			return slices.ContainsFunc(granted, func(a graph.AppRoleAssignment) bool {
				return strings.EqualFold(a.RoleID, id) && strings.EqualFold(a.ResourceID, w.exchange.ID)
			})
		}
		missing = nil
		for i, id := range w.roleIDs {
			if !has(id) {
				missing = append(missing, w.roles[i])
			}
		}
		for _, role := range appRoles {
			if id, ok := w.exchange.Role(role); ok && has(id) && !slices.Contains(w.roles, role) {
				w.note("the application has %s as well, which --allow does not need; it stays", role)
			}
		}
	}
	all := strings.Join(w.roles, ", ") + " of Office 365 Exchange Online"
	st := setupStep{Name: "permissions", Change: changeNone, Text: "permissions " + all}
	if len(missing) > 0 {
		st.Change, st.Text = changeCreate, "grant it "+strings.Join(missing, ", ")+" of Office 365 Exchange Online, for the mailboxes that Exchange lets it open"
	}
	st.do = func(ctx context.Context) (string, error) {
		if _, err := w.s.graph.EnsureAppRoles(ctx, w.principal.ID, w.exchange.ID, w.roleIDs, w.fresh); err != nil {
			return "", err
		}
		return "permissions " + all, nil
	}
	w.step(st)
	return nil
}
