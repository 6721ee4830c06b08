package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// directory is the tenant: its applications and people. What changes while the
// server runs is guarded by Server.mu.
type directory struct {
	organizationName             string
	services                     []*service
	exchange, graph              *service
	apps                         []*application
	mail, login, admin, personal *application
	mailApps                     []*application // mail, and those of Server.MoreMailApps
	adminSecret                  string
	grants                       []*permissionGrant
	people                       []*person
}

// application is an app registration and its service principal.
type application struct {
	objectID, clientID, uniqueName string
	displayName                    string
	notes, description             string
	created                        time.Time
	audience                       string // signInAudience
	tags                           []string
	owners                         []string // object ids of people and service principals
	public                         bool     // no secrets at all
	redirectURIs                   []string // of the public client platform
	fallbackPublic                 bool     // device code allowed
	resourceAccess                 []any    // requiredResourceAccess, as it was written
	credentials                    []*credential
	keys                           []*keyCredential
	federated                      []*federatedCredential

	// The service principal; principalID is empty where there is none.
	principalID      string
	principalCreated time.Time
	disabled         bool
	assignments      []*roleAssignment
}

// The values of signInAudience.
const (
	singleTenant = "AzureADMyOrg"
	multiTenant  = "AzureADMultipleOrgs"
	everybody    = "AzureADandPersonalMicrosoftAccount"
	personalOnly = "PersonalMicrosoftAccount"
)

// credential is a password credential of an application. Those removed are
// kept, since they linger while the removal replicates.
type credential struct {
	keyID, displayName, secret string
	start, end                 time.Time
	added, removed             time.Time
	used                       time.Time // the last token for it; zero: none
	usedFor                    *service
}

func (c *credential) hint() string { return c.secret[:3] }

// replicated says whether what reads the directory with the given lag sees the
// credential.
func (c *credential) replicated(now time.Time, lag time.Duration) bool {
	return known(c.added, c.removed, now, lag)
}

// known says whether what reads with a lag sees something that was added and
// perhaps removed.
func known(added, removed, now time.Time, lag time.Duration) bool {
	if now.Before(added.Add(lag)) {
		return false
	}
	return removed.IsZero() || now.Before(removed.Add(lag))
}

// person is somebody who can sign in, by the user principal name.
type person struct {
	objectID, upn, address, name string
	sendAs                       []string
	admin                        bool
	personal                     bool // a Microsoft account, outside of the tenant
	unlicensed                   bool // no plan has a mailbox
}

func newDirectory(s *Server) (directory, error) {
	d := directory{organizationName: "Contoso"}
	d.exchange, d.graph = newServices()
	d.services = []*service{d.exchange, d.graph}
	administrator := true // the first of the tenant's people
	for _, m := range s.Mailboxes {
		local, _, _ := strings.Cut(m.Address, "@")
		name := local
		if local != "" {
			name = strings.ToUpper(local[:1]) + local[1:]
		}
		d.people = append(d.people, &person{
			objectID: uuid.NewString(), upn: cmp.Or(m.UPN, m.Address), address: m.Address, name: name, sendAs: m.SendAs, unlicensed: m.NoLicence,
			admin: administrator && !m.Personal, personal: m.Personal,
		})
		administrator = administrator && m.Personal
	}

	now := s.Now().UTC().Truncate(time.Second)
	created := now.AddDate(-1, 0, 0)
	app := func(name string) *application {
		a := newApplication(created)
		a.displayName = name
		a.principalID, a.principalCreated = uuid.NewString(), created
		d.apps = append(d.apps, a)
		return a
	}
	app("Expense reports")
	d.login = app("o365pw sign-in")
	d.login.public = true
	d.login.fallbackPublic = true
	d.login.redirectURIs = []string{"http://localhost"}
	d.consent(d.login, d.graph, created,
		"User.Read", "User.Read.All", "Application.Read.All", "Application.ReadWrite.All",
		"AppRoleAssignment.ReadWrite.All", "DelegatedPermissionGrant.ReadWrite.All", "Directory.Read.All",
		"Organization.Read.All", "Policy.Read.All")
	d.mail = app("o365pw mail")
	d.mail.tags = []string{"o365pw"}
	d.mail.fallbackPublic = true
	d.mail.redirectURIs = []string{"http://localhost"}
	if err := d.assign(d.mail, d.exchange, created, "IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"); err != nil {
		return d, err
	}
	d.consent(d.mail, d.exchange, created, "IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send")
	d.consent(d.mail, d.graph, created, append([]string{"User.Read"}, s.MailScopes...)...)
	if err := d.assign(d.mail, d.graph, created, s.MailRoles...); err != nil {
		return d, err
	}
	d.admin = app("o365pw automation")
	if err := d.assign(d.admin, d.graph, created, s.AdminRoles...); err != nil {
		return d, err
	}
	app("Room booking")
	d.personal = app("Mail for everybody")
	d.personal.audience = everybody
	d.personal.public = true
	d.personal.fallbackPublic = true
	d.personal.redirectURIs = []string{"http://localhost"}
	d.consent(d.personal, d.exchange, created, "IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send")
	d.consent(d.personal, d.graph, created, append([]string{"User.Read"}, s.MailScopes...)...)

	d.mailApps = []*application{d.mail}
	for n := range s.MoreMailApps {
		more := app(fmt.Sprintf("o365pw mail %d", n+2))
		if err := d.assign(more, d.exchange, created, "IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"); err != nil {
			return d, err
		}
		if err := d.assign(more, d.graph, created, s.MailRoles...); err != nil {
			return d, err
		}
		d.mailApps = append(d.mailApps, more)
	}
	for _, one := range d.mailApps {
		one.owners = []string{d.admin.principalID}
	}
	d.adminSecret = newSecret()
	d.admin.credentials = []*credential{{
		keyID: uuid.NewString(), displayName: "automation", secret: d.adminSecret,
		start: created, end: now.AddDate(1, 0, 0), added: created,
	}}
	return d, nil
}

// newApplication is an app registration without a service principal.
func newApplication(created time.Time) *application {
	return &application{
		objectID: uuid.NewString(), clientID: uuid.NewString(), created: created, audience: singleTenant,
	}
}

func (d *directory) find(is func(*application) bool) *application {
	i := slices.IndexFunc(d.apps, is)
	if i < 0 {
		return nil
	}
	return d.apps[i]
}

func (d *directory) byClientID(id string) *application {
	return d.find(func(a *application) bool { return a.clientID == id })
}

func (d *directory) byObjectID(id string) *application {
	return d.find(func(a *application) bool { return a.objectID == id })
}

func (d *directory) byUniqueName(name string) *application {
	return d.find(func(a *application) bool { return name != "" && a.uniqueName == name })
}

// byPrincipalID finds an application by the object id of its service principal.
func (d *directory) byPrincipalID(id string) *application {
	return d.find(func(a *application) bool { return id != "" && a.principalID == id })
}

// member finds one of the tenant's people by object id or user principal name.
func (d *directory) member(key string) *person {
	i := slices.IndexFunc(d.people, func(p *person) bool {
		return !p.personal && (sameFold(p.objectID, key) || sameFold(p.upn, key))
	})
	if i < 0 {
		return nil
	}
	return d.people[i]
}

func (d *directory) personByUPN(upn string) *person {
	i := slices.IndexFunc(d.people, func(p *person) bool { return sameFold(p.upn, upn) })
	if i < 0 {
		return nil
	}
	return d.people[i]
}

// match finds the credential that holds secret and that Entra has heard of. It
// compares with all of them, in constant time.
func (a *application) match(secret string, now time.Time, lag time.Duration) *credential {
	var found *credential
	for _, c := range a.credentials {
		if subtle.ConstantTimeCompare([]byte(c.secret), []byte(secret)) == 1 && c.replicated(now, lag) {
			found = c
		}
	}
	return found
}

// ownedBy says whether a person or service principal owns the application.
func (a *application) ownedBy(objectID string) bool { return slices.Contains(a.owners, objectID) }

const secretAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789~._-"

// newSecret makes a secret as Entra has for some years: 40 characters, of
// which the fourth to sixth are "8Q~".
func newSecret() string {
	return randomText(3, secretAlphabet[:62]) + "8Q~" + randomText(34, secretAlphabet)
}

// randomText gives n characters of alphabet, each as likely as any other.
func randomText(n int, alphabet string) string {
	limit := 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	buf := make([]byte, n)
	for len(out) < n {
		rand.Read(buf) // never fails
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}
