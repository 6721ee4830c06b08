package sandbox

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"
)

// federatedCredential makes an application trust the tokens of another issuer.
type federatedCredential struct {
	id, name, description     string
	issuer, subject, audience string
}

// maxFederated is how many of them an application may have.
const maxFederated = 20

var federatedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$`)

func federatedEntity(f *federatedCredential) map[string]any {
	return map[string]any{
		"id": f.id, "name": f.name, "description": nullable(f.description), "issuer": f.issuer,
		"subject": f.subject, "audiences": []string{f.audience},
	}
}

func (c *call) listFederated(args []string) (*answer, *graphError) {
	if !c.may(readScopes, readRoles) {
		return nil, denied
	}
	a, refusal := c.application(args)
	if refusal != nil {
		return nil, refusal
	}
	var list []entry
	for _, f := range a.federated {
		list = append(list, func() map[string]any { return federatedEntity(f) })
	}
	set := fmt.Sprintf("applications('%s')/federatedIdentityCredentials", a.objectID)
	return c.collection(set, "federatedIdentityCredential", list, federatedEntity(&federatedCredential{}))
}

func (c *call) createFederated(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args)
	if refusal != nil {
		return nil, refusal
	}
	p := readProperties("federatedIdentityCredential", c.body, "name", "issuer", "subject", "audiences", "description")
	p.require("name", "issuer", "subject", "audiences")
	f := &federatedCredential{id: uuid.NewString()}
	var audiences []string
	p.text("name", &f.name)
	p.text("issuer", &f.issuer)
	p.text("subject", &f.subject)
	p.text("description", &f.description)
	p.texts("audiences", &audiences)
	if len(audiences) != 1 {
		p.refuse("audiences", "it does not have exactly one value")
	} else {
		f.audience = audiences[0]
	}
	if p.refusal != nil {
		return nil, p.refusal
	}
	if refusal := a.trust(f); refusal != nil {
		return nil, refusal
	}
	return created(fmt.Sprintf("applications('%s')/federatedIdentityCredentials/$entity", a.objectID), federatedEntity(f)), nil
}

// trust adds a federated credential, if it is as it must be.
func (a *application) trust(f *federatedCredential) *graphError {
	p := &properties{resource: "federatedIdentityCredential"}
	u, err := url.Parse(f.issuer)
	switch {
	case !federatedName.MatchString(f.name):
		p.refuse("name", "it is not 3 to 120 characters that are safe in a URL")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || utf8.RuneCountInString(f.issuer) > 600:
		p.refuse("issuer", "it is not a URL of 600 characters at most")
	case f.subject == "" || utf8.RuneCountInString(f.subject) > 600:
		p.refuse("subject", "it is empty or longer than 600 characters")
	case f.audience == "" || utf8.RuneCountInString(f.audience) > 600:
		p.refuse("audiences", "a value is empty or longer than 600 characters")
	case utf8.RuneCountInString(f.description) > 600:
		p.refuse("description", "it is longer than 600 characters")
	case len(a.federated) >= maxFederated:
		p.refusal = badRequest("The application has %d federated identity credentials, which is the maximum.", maxFederated)
	case slices.ContainsFunc(a.federated, func(o *federatedCredential) bool {
		return o.name == f.name || o.issuer == f.issuer && o.subject == f.subject
	}):
		p.refusal = conflict("FederatedIdentityCredential with the same name, or the same issuer and subject, already exists.")
	}
	if p.refusal != nil {
		return p.refusal
	}
	a.federated = append(a.federated, f)
	return nil
}

func (c *call) deleteFederated(args []string) (*answer, *graphError) {
	a, refusal := c.writable(args[:1])
	if refusal != nil {
		return nil, refusal
	}
	match := func(f *federatedCredential) bool { return f.id == args[1] || f.name == args[1] }
	if !slices.ContainsFunc(a.federated, match) {
		return nil, notFound(args[1])
	}
	a.federated = slices.DeleteFunc(a.federated, match)
	return noContent(), nil
}

// AddFederatedCredential makes an application (by its client id) trust tokens
// of an issuer with a subject and the audience api://AzureADTokenExchange, as
// an administrator in the portal would.
func (s *Server) AddFederatedCredential(clientID, name, issuer, subject string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.dir.byClientID(clientID)
	if a == nil {
		return fmt.Errorf("sandbox: no application %s", clientID)
	}
	f := &federatedCredential{id: uuid.NewString(), name: name, issuer: issuer, subject: subject, audience: exchangeAudience}
	if refusal := a.trust(f); refusal != nil {
		return fmt.Errorf("sandbox: %w", refusal)
	}
	return nil
}

// exchangeAudience is the audience of tokens that are made to be exchanged.
const exchangeAudience = "api://AzureADTokenExchange"
