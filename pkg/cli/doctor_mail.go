package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
)

// permissionsFor are what a token must hold for a protocol, of the application
// and of a person, and how Exchange refuses one that it does not take.
var permissionsFor = map[string]struct{ role, scope, refusal string }{
	"imap": {"IMAP.AccessAsApp", "IMAP.AccessAsUser.All", "AUTHENTICATE failed"},
	"pop3": {"POP.AccessAsApp", "POP.AccessAsUser.All", "unknown user name or bad password"},
	"smtp": {"SMTP.SendAsApp", "SMTP.Send", "5.7.3"},
}

// protocolOf is the protocol that a permission is for.
func protocolOf(permission string) string {
	for p, of := range permissionsFor {
		if permission == of.role || permission == of.scope {
			return p
		}
	}
	return ""
}

// permissions are those that are needed for what is allowed.
func (d *doctor) permissions() []string {
	var list []string
	for _, p := range d.allow {
		if of := permissionsFor[p]; d.delegated() {
			list = append(list, of.scope)
		} else {
			list = append(list, of.role)
		}
	}
	return list
}

// mailChecks are from the token to the mailbox.
func (d *doctor) mailChecks() []check {
	list := []check{
		{id: "token", title: "Token for Exchange", needs: []string{"tenant", "keychain"}, run: d.exchangeToken},
		{id: "permissions", title: "Permissions", needs: []string{"token"}, run: d.tokenPermissions},
	}
	for _, m := range d.mailboxes {
		list = append(list, check{id: "person " + m, title: "Person " + m, needs: []string{"graph-sign-in", "graph"},
			run: func(ctx context.Context) result { return d.person(ctx, m) }})
		for _, p := range d.allow {
			needs := []string{"token", "exchange-" + p}
			if p == string(gateway.SMTP) && d.send() == string(gateway.SendGraph) {
				needs = []string{"keychain", "graph"}
			}
			list = append(list, check{id: p + " " + m, title: strings.ToUpper(p) + " " + m, needs: needs,
				after: []string{"permissions", "service-principal", "consent", "person " + m},
				run:   func(ctx context.Context) result { return d.mailbox(ctx, gateway.Protocol(p), m) }})
		}
	}
	return list
}

// exchangeToken gets a token by what stands behind the app password that is
// looked at, or else by what the profile has.
func (d *doctor) exchangeToken(ctx context.Context) result {
	m := d.session.manager
	var tok entra.Token
	var err error
	by := ""
	switch {
	case d.subject != nil && d.subject.Decoy:
		return skipped("nothing stands behind a decoy, which never signs in")
	case d.subject != nil:
		by = fmt.Sprintf("by what stands behind %q (backing %s)", d.subject.Name, d.subject.Backing)
		tok, err = m.Token(ctx, d.subject.Record)
	case d.session.profile.Backing == apppassword.BackingUser:
		by = "by the sign-in for mail of " + nobodyAs(d.mailSignIn.Username)
		tok, err = m.MailToken(ctx)
	case d.session.profile.Backing == apppassword.BackingCertificate:
		by = "by the certificate of the application"
		tok, err = m.CertificateToken(ctx)
	default:
		return skipped("there is no app password here to get one by; make one: o365pw create")
	}
	if err != nil {
		return d.failMail(err)
	}
	d.token = tok.Access
	d.claims, d.readable = entra.Peek(tok.Access)
	if !d.delegated() {
		d.mu.Lock()
		d.ofToken = d.claims.ObjectID
		d.mu.Unlock()
	}
	if d.delegated() && d.claims.Username != "" {
		by += ", for " + d.claims.Username
	}
	return passed("%s", by)
}

// tokenPermissions looks into the token. Entra gives one to an application
// without any permission, too.
func (d *doctor) tokenPermissions(context.Context) result {
	if !d.readable {
		return skipped("this token cannot be looked into, as those of personal accounts")
	}
	c := d.session.profile.Cloud
	audience := strings.TrimSuffix(d.claims.Audience, "/")
	if !slices.Contains([]string{c.ExchangeResource, c.ExchangeDelegated, graph.ExchangeAppID}, audience) {
		x, _ := explain.Exchange("AUTHENTICATE failed")
		return result{status: checkFailed, code: wrongUsage, detail: "the token is meant for " + audience,
			remedies: d.filled(remediesOf(x.Only(explain.Audience)), d.values(""))}
	}
	var missing, missingToSend []string
	for _, p := range d.allow {
		of := permissionsFor[p]
		switch {
		case d.delegated() && !slices.Contains(d.claims.Scopes, of.scope):
			return d.fail(&apppassword.ScopeError{Protocol: p, Username: d.mailSignIn.Username})
		case d.delegated(), slices.Contains(d.claims.Roles, of.role):
		case p == "smtp":
			missingToSend = append(missingToSend, of.role)
		default:
			missing = append(missing, of.role)
		}
	}
	return d.lacking("the token lacks", missing, missingToSend)
}

// person looks for who has the mailbox. Graph may know nobody, or may not be
// asked: then mail decides.
func (d *doctor) person(ctx context.Context, mailbox string) result {
	u, err := d.people.User(ctx, mailbox)
	switch e, ok := errors.AsType[*graph.Error](err); {
	case ok && e.IsNotFound():
		return result{status: checkWarning, detail: "the tenant knows nobody of this address; it is none of its own, or misspelt", ids: requestIDs(err)}
	case ok && e.IsForbidden(), errors.As(err, new(*entra.Error)), errors.As(err, new(*signInError)):
		return skipped("the sign-in to Graph may not read it (User.Read.All)")
	case err != nil:
		return d.warning(err)
	}
	d.mu.Lock()
	d.users[mailbox] = u
	d.mu.Unlock()
	x, _ := explain.Exchange("authenticated but not connected")
	if !u.HasExchangePlan() {
		return result{status: checkWarning, detail: "no licence that holds a mailbox, which shared mailboxes need not have",
			remedies: d.filled(remediesOf(x.Only(explain.MailboxOnline)), d.values(mailbox))}
	}
	if !strings.EqualFold(u.UserPrincipalName, mailbox) {
		return passed("with a licence; the user principal name is another: %s", u.UserPrincipalName)
	}
	return passed("with a licence")
}

// probe is a sign-in at Exchange as the gateway would make it. Without a mailbox
// it ends where a token would be needed.
func (d *doctor) probe(p gateway.Protocol, mailbox string) (gateway.ProbeRequest, error) {
	up, err := new(backend).upstream(d.session.profile.Cloud, p)
	req := gateway.ProbeRequest{Protocol: p, Upstream: up, Mailbox: mailbox, Delegated: d.delegated(),
		Dial: dialQuickly, Proxy: gateway.ProxyFromEnvironment(d.a.Getenv)}
	if mailbox != "" {
		req.Token = d.token
	}
	return req, err
}

var reached = map[gateway.Protocol]string{
	gateway.IMAP: "signed in, and the INBOX is open", gateway.POP3: "signed in, and the maildrop is open", gateway.SMTP: "signed in, and may send; nothing was sent",
}

// mailbox signs in at Exchange and opens the mailbox.
func (d *doctor) mailbox(ctx context.Context, p gateway.Protocol, mailbox string) result {
	if p == gateway.SMTP && d.send() == string(gateway.SendGraph) {
		return d.sending(ctx, mailbox)
	}
	err := d.try(ctx, p, mailbox)
	if err == nil {
		return passed("%s", reached[p])
	}
	e, ok := errors.AsType[*gateway.ServerError](err)
	if !ok {
		return d.fail(err)
	}
	r := result{status: checkFailed, code: advise(err).code, detail: bareReply(e)}
	switch e.Fault {
	case gateway.FaultThrottled, gateway.FaultTemporary:
		x, _ := explain.Exchange(e.Reply)
		r.status, r.code = checkWarning, done
		r.remedies = remediesOf(x.Remedies())
		if x.Code == "" {
			r.remedies = remediesFor(e)
		}
		return r
	case gateway.FaultSMTPAuthOff:
		x, _ := explain.Exchange("SmtpClientAuthentication")
		r.remedies = remediesOf(x.Remedies())
		if sending, ok := d.instead(ctx, mailbox); ok {
			return sending
		}
		if d.delegated() {
			r.remedies = append([]remedy{d.letSend("it may stay off: by Microsoft Graph you may send yourself, where the tenant lets you consent to Mail.Send")}, r.remedies...)
		}
	case gateway.FaultNotConnected:
		r.remedies = d.notConnected(p, mailbox)
	case gateway.FaultRefused:
		if e.Step == gateway.StepMailbox {
			x, _ := explain.Exchange("5.7.60")
			r.remedies = remediesOf(x.Remedies())
			break
		}
		r.remedies = d.notLetIn(p, mailbox)
	default:
		return d.fail(e)
	}
	r.remedies = d.withOtherName(ctx, r.remedies, p, mailbox)
	r.remedies = d.filled(r.remedies, d.values(mailbox))
	return r
}

func (d *doctor) try(ctx context.Context, p gateway.Protocol, mailbox string) error {
	req, err := d.probe(p, mailbox)
	if err == nil {
		_, err = gateway.Probe(ctx, req)
	}
	return err
}

// bareReply is what the server has said, without what the log says of it.
func bareReply(e *gateway.ServerError) string {
	bare := *e
	bare.Fix = ""
	return bare.Error()
}

// withOtherName adds the user principal name of the mailbox's owner, where that
// opens it.
func (d *doctor) withOtherName(ctx context.Context, list []remedy, p gateway.Protocol, mailbox string) []remedy {
	opens := func(name string) bool {
		return name != "" && !strings.EqualFold(name, mailbox) && d.try(ctx, p, name) == nil
	}
	d.mu.Lock()
	upn := d.users[mailbox].UserPrincipalName
	d.mu.Unlock()
	if opens(upn) {
		other := yours("the mailbox opens by the user principal name "+upn+", and not by this address", "o365pw create --mailbox "+shellQuote(upn))
		return append([]remedy{other}, list...)
	}
	// Whether the address is of the person who signed in, nobody has said.
	if name := cmp.Or(d.claims.Username, d.mailSignIn.Username); d.delegated() && upn == "" && opens(name) {
		other := yours("the mailbox of the person who signed in opens by the name "+name+", which is the one to use where this address is theirs", "o365pw create --mailbox "+shellQuote(name))
		return slices.Insert(list, min(1, len(list)), other)
	}
	return list
}

// ruledOut are the causes that what was found before leaves out.
func (d *doctor) ruledOut(p gateway.Protocol, mailbox string) []explain.Topic {
	out := []explain.Topic{explain.Audience} // else the permissions would have failed
	if !d.readable {
		out = nil
	}
	if of := permissionsFor[string(p)]; slices.Contains(d.claims.Roles, of.role) || slices.Contains(d.claims.Scopes, of.scope) {
		out = append(out, explain.Role, explain.ScopedRole, explain.PersonScope)
	}
	if d.own(mailbox) {
		out = append(out, explain.PersonRights)
	}
	if p != gateway.IMAP {
		out = append(out, explain.IMAPSwitch)
	}
	if p != gateway.POP3 {
		out = append(out, explain.POPSwitch)
	}
	d.mu.Lock()
	u, known := d.users[mailbox]
	d.mu.Unlock()
	if known && u.HasExchangePlan() {
		out = append(out, explain.MailboxOnline)
	}
	if known && strings.EqualFold(u.UserPrincipalName, mailbox) {
		out = append(out, explain.OtherAddress)
	}
	return out
}

// notLetIn is what a refusal without a reason can be, in the order to look.
func (d *doctor) notLetIn(p gateway.Protocol, mailbox string) []remedy {
	x, _ := explain.Exchange(permissionsFor[string(p)].refusal)
	x = x.For(d.delegated())
	if d.unlicensed(mailbox) {
		online, _ := explain.Exchange("authenticated but not connected")
		return remediesOf(append(online.Only(explain.MailboxOnline), x.Without(d.ruledOut(p, mailbox)...)...))
	}
	if d.delegated() {
		return remediesOf(personFirst(x, d.ruledOut(p, mailbox)))
	}
	out := d.ruledOut(p, mailbox)
	certain := []explain.Topic{}
	if d.readable && !slices.Contains(out, explain.Role) {
		certain = append(certain, explain.Role, explain.ScopedRole)
	}
	list := remediesOf(append(x.Only(certain...), x.Without(append(out, certain...)...)...))
	if registered := x.Only(explain.ObjectID); d.principalID() != "" {
		i := slices.IndexFunc(list, func(r remedy) bool { return r.cause == registered[0].Cause })
		list[i].fix = d.registerAnew()
	}
	return list
}

// personFirst is what is left of x, with the rights of whoever signed in first.
func personFirst(x explain.Explanation, out []explain.Topic) []explain.Remedy {
	rights := func(r explain.Remedy) bool { return r.About(explain.PersonRights) }
	left := x.Without(out...)
	if i := slices.IndexFunc(left, rights); i > 0 {
		left = slices.Concat(left[i:i+1], left[:i], left[i+1:])
	}
	return left
}

// own tells that the mailbox is that of whoever signed in, as far as names
// tell.
func (d *doctor) own(mailbox string) bool {
	return strings.EqualFold(mailbox, d.mailSignIn.Username) || strings.EqualFold(mailbox, d.claims.Username)
}

// registerAnew has Exchange know the service principal by the right object id.
// What was given to the wrong one is lost with it.
func (d *doctor) registerAnew() []string {
	lines := []string{
		"Remove-ServicePrincipal -Identity CLIENT_ID -Confirm:$false",
		"New-ServicePrincipal -AppId CLIENT_ID -ObjectId OBJECT_ID -DisplayName \"o365pw mail\"",
	}
	for _, m := range d.mailboxes {
		if arg := inAnyShell(m); arg != "" {
			lines = append(lines, "Add-MailboxPermission -Identity "+arg+" -User OBJECT_ID -AccessRights FullAccess")
		}
	}
	return lines
}

// notConnected is why a mailbox stays closed to a token that is good.
func (d *doctor) notConnected(p gateway.Protocol, mailbox string) []remedy {
	x, _ := explain.Exchange("authenticated but not connected")
	x = x.For(d.delegated())
	list := personFirst(x, d.ruledOut(p, mailbox))
	if d.unlicensed(mailbox) {
		list = append(x.Only(explain.MailboxOnline), slices.DeleteFunc(list, func(r explain.Remedy) bool { return r.About(explain.MailboxOnline) })...)
	}
	return remediesOf(list)
}

// unlicensed tells that whoever has the mailbox has no licence for one.
func (d *doctor) unlicensed(mailbox string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, known := d.users[mailbox]
	return known && !u.HasExchangePlan()
}

// principalID is the object id of the service principal: by Graph, else by the
// application's own token.
func (d *doctor) principalID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cmp.Or(d.principal.ID, d.ofToken)
}
