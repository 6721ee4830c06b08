package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The audiences that tokens are issued for.
const (
	exchangeResource  = "https://outlook.office365.com" // app-only
	exchangeDelegated = "https://outlook.office.com"    // for people
	graphResource     = "https://graph.microsoft.com"
)

// exchangeAppID is Office 365 Exchange Online in every tenant.
const exchangeAppID = "00000002-0000-0ff1-ce00-000000000000"

// directory is the tenant: its applications and people.
type directory struct {
	organizationName    string
	exchangePrincipalID string
	apps                []*application
	mail, login, admin  *application
	adminSecret         string
	people              []*person
}

// application is an app registration and its service principal.
type application struct {
	objectID, clientID, principalID, displayName string
	created                                      time.Time
	tags                                         []string
	owners                                       []string // object ids of people and service principals
	public                                       bool     // no secrets at all
	redirectURIs                                 []string // of the public client platform
	fallbackPublic                               bool     // device code allowed
	credentials                                  []*credential
	roles                                        map[string][]string // app-only, by resource
	scopes                                       map[string][]string // consented for everybody, by resource
}

// credential is a password credential of an application. Those removed are
// kept, since they linger while the removal replicates.
type credential struct {
	keyID, displayName, secret string
	start, end                 time.Time
	added, removed             time.Time
}

func (c *credential) hint() string { return c.secret[:3] }

// replicated says whether what reads the directory with the given lag sees the
// credential.
func (c *credential) replicated(now time.Time, lag time.Duration) bool {
	if now.Before(c.added.Add(lag)) {
		return false
	}
	return c.removed.IsZero() || now.Before(c.removed.Add(lag))
}

// person is somebody who can sign in, by the user principal name.
type person struct {
	objectID, upn, address, name string
	admin                        bool
	personal                     bool // a Microsoft account, outside of the tenant
}

func newDirectory(s *Server) directory {
	d := directory{organizationName: "Contoso", exchangePrincipalID: uuid.NewString()}
	administrator := true // the first of the tenant's people
	for _, m := range s.Mailboxes {
		local, _, _ := strings.Cut(m.Address, "@")
		name := local
		if local != "" {
			name = strings.ToUpper(local[:1]) + local[1:]
		}
		d.people = append(d.people, &person{
			objectID: uuid.NewString(), upn: cmp.Or(m.UPN, m.Address), address: m.Address, name: name,
			admin: administrator && !m.Personal, personal: m.Personal,
		})
		administrator = administrator && m.Personal
	}

	now := s.Now().UTC().Truncate(time.Second)
	app := func(name string) *application {
		a := &application{
			objectID: uuid.NewString(), clientID: uuid.NewString(), principalID: uuid.NewString(),
			displayName: name, created: now.AddDate(-1, 0, 0),
		}
		d.apps = append(d.apps, a)
		return a
	}
	app("Expense reports")
	d.login = app("o365pw sign-in")
	d.login.public = true
	d.login.fallbackPublic = true
	d.login.redirectURIs = []string{"http://localhost"}
	d.login.scopes = map[string][]string{graphResource: {
		"User.Read", "Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All",
		"Organization.Read.All", "Policy.Read.All",
	}}
	d.mail = app("o365pw mail")
	d.mail.tags = []string{"o365pw"}
	d.mail.fallbackPublic = true
	d.mail.redirectURIs = []string{"http://localhost"}
	d.mail.roles = map[string][]string{exchangeResource: {"IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"}}
	d.mail.scopes = map[string][]string{
		exchangeDelegated: {"IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"},
		graphResource:     {"User.Read"},
	}
	d.admin = app("o365pw automation")
	d.admin.roles = map[string][]string{graphResource: s.AdminRoles}
	app("Room booking")

	d.mail.owners = []string{d.admin.principalID}
	d.adminSecret = newSecret()
	d.admin.credentials = []*credential{{
		keyID: uuid.NewString(), displayName: "automation", secret: d.adminSecret,
		start: now.AddDate(-1, 0, 0), end: now.AddDate(1, 0, 0), added: now.AddDate(-1, 0, 0),
	}}
	return d
}

func (d *directory) byClientID(id string) *application {
	i := slices.IndexFunc(d.apps, func(a *application) bool { return a.clientID == id })
	if i < 0 {
		return nil
	}
	return d.apps[i]
}

func (d *directory) byObjectID(id string) *application {
	i := slices.IndexFunc(d.apps, func(a *application) bool { return a.objectID == id })
	if i < 0 {
		return nil
	}
	return d.apps[i]
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
