package apppassword

import (
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/config"
)

// mailScopes are what a person has to consent to for each protocol, by its
// name; the cloud's address for people comes before it. Source:
// https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth
var mailScopes = []struct{ protocol, name string }{
	{"imap", "IMAP.AccessAsUser.All"}, {"pop3", "POP.AccessAsUser.All"}, {"smtp", "SMTP.Send"},
}

// MailScopes is the scope to sign a person in with for mail, by all protocols.
func MailScopes(cloud config.Cloud) string {
	var all []string
	for _, s := range mailScopes {
		all = append(all, cloud.ExchangeDelegated+"/"+s.name)
	}
	return strings.Join(all, " ")
}

// graphScopes are what sending by Graph needs, and what tells afterwards whether a
// message of which no answer came was sent: the second is no condition.
// https://learn.microsoft.com/graph/api/user-sendmail,
// https://learn.microsoft.com/graph/api/user-list-messages
var graphScopes = []string{"Mail.Send", "Mail.ReadBasic"}

// GraphScopes is the scope to sign a person in with for sending by Graph. A token
// is for one resource, so that it is asked for apart from [MailScopes].
func GraphScopes(cloud config.Cloud) string {
	var all []string
	for _, name := range graphScopes {
		all = append(all, cloud.GraphResource+"/"+name)
	}
	return strings.Join(all, " ")
}

// GrantsGraph tells whether the person has consented to sending by Graph when
// they signed in. An administrator may have done so for them.
func (si SignIn) GrantsGraph(cloud config.Cloud) bool {
	return slices.ContainsFunc(si.Scopes, func(s string) bool { return strings.EqualFold(s, cloud.GraphResource+"/"+graphScopes[0]) })
}

// graphScope is what to ask for at a refresh for Graph: Mail.Send in any case,
// since consent may have been given elsewhere.
func (si SignIn) graphScope(cloud config.Cloud) string {
	asked := []string{cloud.GraphResource + "/" + graphScopes[0]}
	for _, name := range graphScopes[1:] {
		if slices.ContainsFunc(si.Scopes, func(s string) bool { return strings.EqualFold(s, cloud.GraphResource+"/"+name) }) {
			asked = append(asked, cloud.GraphResource+"/"+name)
		}
	}
	return strings.Join(asked, " ")
}

// scope is what to ask for at a refresh: no more than was granted, since Entra
// gives nothing where one of several is not consented to.
func (si SignIn) scope(cloud config.Cloud) string {
	var granted []string
	for _, s := range mailScopes {
		if si.grants(cloud, s.protocol) {
			granted = append(granted, cloud.ExchangeDelegated+"/"+s.name)
		}
	}
	if len(granted) == 0 {
		return MailScopes(cloud)
	}
	return strings.Join(granted, " ")
}

// grants tells whether the person has consented to a protocol. The same name
// without Exchange's address before it is a permission of Graph's, which opens
// no mailbox.
func (si SignIn) grants(cloud config.Cloud, protocol string) bool {
	i := slices.IndexFunc(mailScopes, func(s struct{ protocol, name string }) bool { return s.protocol == protocol })
	return i >= 0 && slices.ContainsFunc(si.Scopes, func(s string) bool {
		return strings.EqualFold(s, cloud.ExchangeDelegated+"/"+mailScopes[i].name) ||
			strings.EqualFold(s, cloud.ExchangeResource+"/"+mailScopes[i].name)
	})
}
