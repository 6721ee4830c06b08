package sandbox

import (
	"net/http"
	"regexp"
	"slices"
	"sync"
)

// graphHandler serves one operation, with Server.mu held. args are the
// submatches of the path.
type graphHandler func(c *call, args []string) (*answer, *graphError)

// operation is what a method does at an endpoint, and the query options that
// it takes. Where it is about mail, mail serves it, without Server.mu, and reads
// the body itself.
type operation struct {
	serve   graphHandler
	options []string
	mail    graphHandler
}

// endpoint is a path of Graph, as a pattern, which is compiled when a request
// first needs it, and not whenever the program starts.
type endpoint struct {
	path       string
	operations map[string]operation

	once     sync.Once
	compiled *regexp.Regexp
}

// match gives the submatches in a path that is the endpoint's, else nil.
func (e *endpoint) match(path string) []string {
	e.once.Do(func() { e.compiled = regexp.MustCompile(`^(?:` + e.path + `)$`) })
	m := e.compiled.FindStringSubmatch(path)
	return m[min(1, len(m)):]
}

// methods are those of an endpoint, for the header Allow.
func (e *endpoint) methods() []string {
	var list []string
	for m := range e.operations {
		list = append(list, m)
	}
	slices.Sort(list)
	return list
}

func at(path string, operations map[string]operation) endpoint {
	return endpoint{path: path, operations: operations}
}

// get, list and write are operations with the query options they usually have.
func get(h graphHandler) operation { return operation{serve: h, options: []string{"$select"}} }

func list(h graphHandler, more ...string) operation {
	return operation{serve: h, options: append([]string{"$select", "$top", "$skiptoken"}, more...)}
}

func write(h graphHandler) operation { return operation{serve: h} }

// The keys in paths: an application by object id, by client id, or by unique
// name, which give three submatches; a service principal by object id or by
// client id. A quotation mark in a string is doubled.
const (
	applicationKey = `applications(?:/([^/()]+)|\(appId='([^']*)'\))`
	uniqueNameKey  = `applications\(uniqueName='((?:[^']|'')*)'\)`
	principalKey   = `servicePrincipals(?:/([^/()]+)|\(appId='([^']*)'\))`
)

// endpoints are all that the sandbox has of Graph v1.0.
var endpoints = []endpoint{
	at(`applications`, map[string]operation{
		http.MethodGet:  list((*call).listApplications, "$filter"),
		http.MethodPost: write((*call).createApplication),
	}),
	at(applicationKey, map[string]operation{
		http.MethodGet:    get((*call).getApplication),
		http.MethodPatch:  write((*call).updateApplication),
		http.MethodDelete: write((*call).deleteApplication),
	}),
	at(uniqueNameKey, map[string]operation{
		http.MethodGet:   get((*call).getUniqueName),
		http.MethodPatch: write((*call).upsertApplication),
	}),
	at(applicationKey+`/addPassword`, map[string]operation{http.MethodPost: write((*call).addPassword)}),
	at(applicationKey+`/removePassword`, map[string]operation{http.MethodPost: write((*call).removePassword)}),
	at(`applications/([^/()]+)/appManagementPolicies`, map[string]operation{http.MethodGet: list((*call).applicationPolicies)}),
	at(`applications/([^/()]+)/federatedIdentityCredentials`, map[string]operation{
		http.MethodGet:  list((*call).listFederated),
		http.MethodPost: write((*call).createFederated),
	}),
	at(`applications/([^/()]+)/federatedIdentityCredentials/([^/()]+)`, map[string]operation{
		http.MethodDelete: write((*call).deleteFederated),
	}),
	at(`servicePrincipals`, map[string]operation{http.MethodPost: write((*call).createPrincipal)}),
	at(principalKey, map[string]operation{
		http.MethodGet:   get((*call).getPrincipal),
		http.MethodPatch: write((*call).updatePrincipal),
	}),
	at(`servicePrincipals/([^/()]+)/appRoleAssignments`, map[string]operation{
		http.MethodGet:  list((*call).listAssignments),
		http.MethodPost: write((*call).createAssignment),
	}),
	at(`servicePrincipals/([^/()]+)/appRoleAssignments/([^/()]+)`, map[string]operation{
		http.MethodDelete: write((*call).deleteAssignment),
	}),
	at(`oauth2PermissionGrants`, map[string]operation{
		http.MethodGet:  list((*call).listGrants, "$filter"),
		http.MethodPost: write((*call).createGrant),
	}),
	at(`oauth2PermissionGrants/([^/()]+)`, map[string]operation{
		http.MethodPatch:  write((*call).updateGrant),
		http.MethodDelete: write((*call).deleteGrant),
	}),
	at(`users`, map[string]operation{http.MethodGet: list((*call).listUsers, "$filter")}),
	at(`users/([^/()]+)`, map[string]operation{http.MethodGet: get((*call).getUser)}),
	at(`users/([^/()]+)/sendMail`, map[string]operation{http.MethodPost: {mail: (*call).sendMail}}),
	at(`users/([^/()]+)/mailFolders/sentitems/messages`, map[string]operation{
		http.MethodGet: {mail: (*call).findSent, options: []string{"$filter", "$select", "$top"}},
	}),
	at(`me`, map[string]operation{http.MethodGet: get((*call).me)}),
	at(`organization`, map[string]operation{http.MethodGet: get((*call).organization)}),
	at(`policies/defaultAppManagementPolicy`, map[string]operation{http.MethodGet: write((*call).defaultPolicy)}),
}

// betaEndpoints are all that it has of beta.
var betaEndpoints = []endpoint{
	at(`reports/appCredentialSignInActivities`, map[string]operation{
		http.MethodGet: {serve: (*call).listCredentialUse, options: []string{"$top", "$filter", "$skiptoken"}},
	}),
}

// route finds what serves a path, and the submatches in it.
func route(endpoints []endpoint, path string) (*endpoint, []string) {
	for i := range endpoints {
		if args := endpoints[i].match(path); args != nil {
			return &endpoints[i], args
		}
	}
	return nil, nil
}
