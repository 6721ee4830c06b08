package cli

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tenantChecks look at what the tenant has for the application.
func (d *doctor) tenantChecks() []check {
	graphReady := []string{"tenant", "graph", "graph-sign-in"}
	return []check{
		{id: "tenant", title: "Tenant", needs: []string{"entra"}, run: d.tenant},
		{id: "graph-sign-in", title: "Sign-in to Graph", needs: []string{"tenant"}, after: []string{"keychain"}, run: d.graphSignIn},
		{id: "application", title: "Application", needs: graphReady, run: d.application},
		{id: "service-principal", title: "Service principal", needs: graphReady, run: d.servicePrincipal},
		{id: "consent", title: "Consent", needs: []string{"service-principal"}, run: d.consent},
		{id: "secrets", title: "Client secrets", needs: []string{"application"}, run: d.secrets},
		{id: "certificates", title: "Certificates", needs: []string{"application"}, after: []string{"keychain"}, run: d.certificates},
		{id: "policy", title: "Policy for secrets", needs: []string{"application"}, run: d.policy},
	}
}

// graphSignIn gets a token for Graph, where there is something to manage.
func (d *doctor) graphSignIn(ctx context.Context) result {
	s := d.session
	by := "by " + string(s.source.kind())
	if s.source.kind() == bySignIn {
		held, err := s.signIns().read(ctx)
		if errors.Is(err, secret.ErrNotFound) && !s.needsGraph() {
			return skipped("there is none, and none is needed for the backing %s", s.profile.Backing)
		}
		if err == nil {
			by = nobodyAs(held.Username) + ", since " + relative(held.Since, d.a.Now())
		}
	}
	if _, err := s.source.Token(ctx); err != nil {
		return d.fail(err)
	}
	return passed("%s", by)
}

// unread is for what the sign-in may not read: nothing is known then.
func unread(err error, permission string) (result, bool) {
	if e, ok := errors.AsType[*graph.Error](err); ok && e.IsForbidden() {
		return skipped("the sign-in to Graph may not read it (%s)", permission), true
	}
	return result{}, false
}

func (d *doctor) application(ctx context.Context) result {
	p := d.session.profile
	app, err := d.session.graph.ApplicationRegistration(ctx, p.ClientID)
	if err != nil {
		return d.fail(err)
	}
	d.app = app
	personal := slices.Contains([]string{"consumers", "common", "organizations"}, p.Tenant)
	if app.SignInAudience != "AzureADMyOrg" && !personal {
		x, _ := explain.Graph("SignInAudienceNotAllowedAsPerAppPolicy")
		r := d.explained(done, x, "%s is for accounts of other tenants as well (%s)", app.DisplayName, app.SignInAudience)
		r.status = checkWarning
		r.remedies[0].cause = "it holds more than it needs to, and at most two client secrets where personal accounts are among them"
		return r
	}
	return passed("%s, for this tenant alone", app.DisplayName)
}

func (d *doctor) servicePrincipal(ctx context.Context) result {
	sp, err := d.session.graph.ServicePrincipal(ctx, d.session.profile.ClientID)
	if e, ok := errors.AsType[*graph.Error](err); ok && e.IsNotFound() {
		x, _ := explain.AADSTS(7000229)
		r := d.explained(refused, x, "there is none for client id %s in this tenant", d.session.profile.ClientID)
		r.ids = requestIDs(err)
		return r
	}
	if r, ok := unread(err, "Application.Read.All"); ok {
		return r
	}
	if err != nil {
		return d.fail(err)
	}
	d.mu.Lock()
	d.principal = sp
	d.mu.Unlock()
	if sp.Disabled {
		x, _ := explain.AADSTS(7000112)
		return d.explained(refused, x, "it is disabled (object id %s)", sp.ID)
	}
	return passed("object id %s, which Exchange must know it by", sp.ID)
}

// consent compares what was granted with what is allowed. Of a person's
// consent the token tells, which Graph shows to administrators alone.
func (d *doctor) consent(ctx context.Context) result {
	if d.delegated() {
		return skipped("a person's consent shows in the token")
	}
	assigned, err := d.session.graph.AppRoleAssignments(ctx, d.principal.ID)
	if r, ok := unread(err, "Application.Read.All"); ok {
		return r
	}
	if err != nil {
		return d.fail(err)
	}
	exchange, err := d.session.graph.ServicePrincipal(ctx, graph.ExchangeAppID)
	if e, ok := errors.AsType[*graph.Error](err); ok && e.IsNotFound() {
		x, _ := explain.AADSTS(500011)
		return d.explained(refused, x, "the tenant has no Exchange Online")
	}
	if err != nil {
		return d.fail(err)
	}
	var missing, missingToSend []string
	for _, p := range d.allow {
		role := permissionsFor[p].role
		id, ok := exchange.Role(role)
		if ok && slices.ContainsFunc(assigned, func(a graph.AppRoleAssignment) bool { return strings.EqualFold(a.RoleID, id) }) {
			continue
		}
		if p == "smtp" {
			missingToSend = append(missingToSend, role)
		} else {
			missing = append(missing, role)
		}
	}
	return d.lacking("nobody has consented to", missing, missingToSend)
}

// lacking is the result for permissions that are not there. Without the one to
// send there may be a scoped role in Exchange, which shows nowhere here.
func (d *doctor) lacking(how string, missing, missingToSend []string) result {
	all := slices.Concat(missing, missingToSend)
	if len(d.allow) == 0 {
		return skipped("there is no mailbox to open")
	}
	if len(all) == 0 {
		return passed("%s", sentence(d.permissions()))
	}
	x, _ := explain.AADSTS(65001)
	r := d.explained(refused, x, "%s %s", how, sentence(all))
	var more []explain.Remedy
	for _, role := range all {
		x, _ := explain.Exchange(permissionsFor[protocolOf(role)].refusal)
		more = append(more, x.Only(explain.Role)...)
		if protocolOf(role) == "smtp" {
			more = append(more, x.Only(explain.ScopedRole)...)
		}
	}
	r.remedies = append(d.filled(remediesOf(more), d.values("")), r.remedies...)
	if len(missing) == 0 {
		r.status, r.code = checkWarning, done
		r.detail += ", which is right where Exchange has a scoped role for it"
	}
	return r
}

// secrets looks at the client secrets of the application, and for the one that
// is looked at among them.
func (d *doctor) secrets(context.Context) result {
	creds := d.app.PasswordCredentials
	if e := d.subject; e != nil && e.Backing == apppassword.BackingSecret && e.Status == apppassword.Active &&
		!slices.ContainsFunc(creds, func(c graph.PasswordCredential) bool { return strings.EqualFold(c.KeyID, e.ID) }) {
		x, _ := explain.AADSTS(7000215)
		r := d.explained(signInRequired, x, "the one behind %q is not among those of the application: it was removed, or is too new to be shown", e.Name)
		return r
	}
	var expired, ending []string
	for _, c := range creds {
		name := fmt.Sprintf("%q", printable(c.DisplayName))
		switch {
		case !c.End.IsZero() && !c.End.After(d.a.Now()):
			expired = append(expired, name)
		case d.soon(c.End):
			ending = append(ending, name+" ("+relative(c.End, d.a.Now())+")")
		}
	}
	if len(expired)+len(ending) == 0 {
		return passed("%d, none of which ends within 30 days", len(creds))
	}
	var parts []string
	if len(expired) > 0 {
		parts = append(parts, "expired: "+sentence(expired))
	}
	if len(ending) > 0 {
		parts = append(parts, "ending soon: "+sentence(ending))
	}
	x, _ := explain.AADSTS(7000222)
	r := d.explained(done, x, "%d; %s", len(creds), strings.Join(parts, "; "))
	r.status = checkWarning
	r.remedies = r.remedies[:1]
	return r
}

// certificates looks at the certificate of backing certificate, and whether the
// application has it.
func (d *doctor) certificates(ctx context.Context) result {
	s := d.session
	if s.profile.Backing != apppassword.BackingCertificate && !s.stands(apppassword.BackingCertificate) {
		return skipped("none is used here")
	}
	cert, err := apppassword.LoadCertificate(ctx, s.keychain, s.profile.ClientID, s.profile.Certificate)
	if err != nil {
		return d.fail(err)
	}
	if now := d.a.Now(); !cert.NotAfter().After(now) {
		return d.fail(&apppassword.CertificateError{ClientID: s.profile.ClientID, File: s.profile.Certificate, Expired: cert.NotAfter(),
			Err: fmt.Errorf("%.16s… has expired", cert.Thumbprint())})
	}
	keys, err := s.graph.KeyCredentials(ctx, s.profile.ClientID)
	if r, ok := unread(err, "Application.Read.All"); ok {
		return r
	}
	if err != nil {
		return d.fail(err)
	}
	sum := sha1.Sum(cert.DER()) // the name that Entra gives it, which proves nothing
	if !slices.ContainsFunc(keys, func(k graph.KeyCredential) bool { return strings.EqualFold(k.Thumbprint, hex.EncodeToString(sum[:])) }) {
		x, _ := explain.AADSTS(700027)
		return d.explained(signInRequired, x, "the application does not have the certificate %.16s… that is used here", cert.Thumbprint())
	}
	r := passed("%.16s…, expires %s", cert.Thumbprint(), relative(cert.NotAfter(), d.a.Now()))
	if cert.NotAfter().Sub(d.a.Now()) < certificateSoon {
		r.status = checkWarning
		r.remedies = []remedy{yours("it ends soon", "o365pw setup")}
	}
	return r
}

// policy tells whether the tenant lets client secrets be made, and for how
// long. What is there goes on.
func (d *doctor) policy(ctx context.Context) result {
	p := d.session.profile
	if p.Backing != apppassword.BackingSecret {
		return skipped("the backing %s has no client secrets", p.Backing)
	}
	policy, err := d.session.manager.Policies.ApplicationPolicy(ctx, d.app.ID)
	if r, ok := unread(err, "Policy.Read.All"); ok {
		return r
	}
	if errors.As(err, new(*signInError)) || advise(err).code == signInRequired || advise(err).code == refused {
		return skipped("nobody has consented to Policy.Read.All, with which it could be read")
	}
	if err != nil {
		return d.fail(err)
	}
	if policy.SecretsForbidden(d.app.Created) {
		x, _ := explain.Graph("CredentialTypeNotAllowedAsPerAppPolicy")
		r := d.explained(refused, x, "the tenant forbids new client secrets")
		if d.subject != nil && d.subject.Backing == apppassword.BackingSecret && d.subject.Status == apppassword.Active {
			r.status, r.code = checkWarning, done
			r.detail += "; those that are there go on"
		}
		return r
	}
	limit := policy.SecretLimit(d.app.Created)
	if limit == 0 {
		return passed("client secrets of any life are allowed")
	}
	if end, err := config.ParseExpiry(p.Expires, d.a.Now()); err == nil && end.Sub(d.a.Now()) > limit {
		x, _ := explain.Graph("CredentialInvalidLifetimeAsPerAppPolicy")
		r := d.explained(done, x, "the tenant allows client secrets to live for %s, and the profile asks for %s", apppassword.Days(limit), p.Expires)
		r.status = checkWarning
		return r
	}
	return passed("client secrets may live for %s", apppassword.Days(limit))
}
