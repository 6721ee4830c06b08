package sandbox

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// ManagedIdentity gives the two ways in which Azure lets a workload have tokens
// for its managed identity, which here is that of AdminClient. imds is what
// stands for http://169.254.169.254: virtual machines ask under it for
// /metadata/identity/oauth2/token. endpoint and header are IDENTITY_ENDPOINT
// and IDENTITY_HEADER of App Service.
func (s *Server) ManagedIdentity() (imds, endpoint, header string) {
	return s.authority, s.authority + "/sandbox/msi/token", s.identityHeader
}

// serveIMDS is the Instance Metadata Service of a virtual machine.
func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("X-Forwarded-For") != "":
		managedError(w, http.StatusBadRequest, "The request was forwarded.")
	case r.Header.Get("Metadata") != "true":
		managedError(w, http.StatusBadRequest, "Required metadata header not specified")
	default:
		s.serveManaged(w, r, "2018-02-01")
	}
}

// serveAppService is the endpoint of App Service and Functions.
func (s *Server) serveAppService(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-IDENTITY-HEADER")), []byte(s.identityHeader)) != 1 {
		managedError(w, http.StatusUnauthorized, "X-IDENTITY-HEADER is missing or wrong")
		return
	}
	s.serveManaged(w, r, "2019-08-01")
}

func managedError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": "invalid_request", "error_description": text})
}

// serveManaged answers with a token for the resource in the query. All its
// values are strings, numbers too.
func (s *Server) serveManaged(w http.ResponseWriter, r *http.Request, version string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	for name, values := range query {
		if len(values) != 1 || !slices.Contains([]string{"api-version", "resource", "client_id"}, name) {
			managedError(w, http.StatusBadRequest, "The query parameter "+printable(name)+" is not known, or occurs twice")
			return
		}
	}
	id := s.dir.admin.clientID
	switch {
	case err != nil || query.Get("api-version") != version:
		managedError(w, http.StatusBadRequest, "The query needs api-version="+version)
		return
	case query.Get("resource") == "":
		managedError(w, http.StatusBadRequest, "Required query variable 'resource' is missing")
		return
	case query.Has("client_id") && query.Get("client_id") != id:
		managedError(w, http.StatusBadRequest, "Identity not found")
		return
	}
	resource := query.Get("resource")
	s.mu.Lock()
	app, refusal := s.appLocked(home, url.Values{"client_id": {id}})
	if refusal == nil {
		refusal = s.resourceLocked(resource)
	}
	s.mu.Unlock()
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	a := s.issue(&grant{kind: "managed_identity", app: app, scope: scope{resource: resource}})
	now, life := s.now(), strconv.Itoa(a.ExpiresIn)
	writeJSON(w, http.StatusOK, map[string]string{
		"access_token": a.AccessToken, "client_id": id, "resource": resource, "token_type": "Bearer",
		"expires_in": life, "ext_expires_in": life, "not_before": strconv.FormatInt(now.Unix(), 10),
		"expires_on": strconv.FormatInt(now.Add(time.Duration(a.ExpiresIn)*time.Second).Unix(), 10),
	})
}
