package sandbox

import (
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// oidcAudience is what GitHub puts in a token that no audience was asked for.
const oidcAudience = "https://github.com/contoso"

// OIDCIssuer is the issuer of the tokens that OIDCToken, GitHubOIDC and
// AzurePipelinesOIDC give.
func (s *Server) OIDCIssuer() string { return s.authority + "/sandbox/oidc" }

// GitHubOIDC gives what GitHub Actions puts in ACTIONS_ID_TOKEN_REQUEST_URL
// and ACTIONS_ID_TOKEN_REQUEST_TOKEN. A GET of the URL with &audience=…
// appended and the bearer token answers {"value": token}; the token has the
// subject OIDCSubject and lives five minutes.
func (s *Server) GitHubOIDC() (url, token string) {
	return s.OIDCIssuer() + "/token?api-version=2.0", s.oidcRequestToken
}

// serveOIDCToken is GitHub's endpoint for the tokens of a job.
func (s *Server) serveOIDCToken(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !s.mayAskOIDC(r):
		http.Error(w, "the request token is missing or wrong", http.StatusUnauthorized)
		return
	case err != nil, query.Get("api-version") != "2.0", len(query["audience"]) > 1, query.Has("audience") && query.Get("audience") == "":
		http.Error(w, "the query needs api-version=2.0 and at most one audience", http.StatusBadRequest)
		return
	}
	audience := cmp.Or(query.Get("audience"), oidcAudience)
	writeJSON(w, http.StatusOK, map[string]any{"count": 1, "value": s.OIDCToken(s.OIDCSubject, audience, 5*time.Minute)})
}

// mayAskOIDC tells whether the request has the token that a job has for it.
func (s *Server) mayAskOIDC(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare([]byte(token), []byte(s.oidcRequestToken)) == 1
}

// connectionSubject is the subject of a service connection's tokens.
const connectionSubject = "sc://contoso/mail/o365pw-ci"

// AzurePipelinesOIDC gives what Azure Pipelines puts in SYSTEM_OIDCREQUESTURI
// and SYSTEM_ACCESSTOKEN, and the id and the subject of its one service
// connection. A POST without a body to the URI with
// ?api-version=7.1&serviceConnectionId=… and the bearer token answers
// {"oidcToken": token}; the token is for api://AzureADTokenExchange and lives ten
// minutes.
func (s *Server) AzurePipelinesOIDC() (uri, token, connection, subject string) {
	return s.OIDCIssuer() + "/connection", s.oidcRequestToken, s.oidcConnection, connectionSubject
}

// serveConnectionToken is the endpoint of Azure DevOps for the tokens of a
// service connection. Who is not let in is sent to a page, as a browser would
// want, unless that is suppressed.
func (s *Server) serveConnectionToken(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !s.mayAskOIDC(r) && r.Header.Get("X-TFS-FedAuthRedirect") != "Suppress":
		http.Redirect(w, r, s.authority+"/sandbox/oidc/sign-in", http.StatusFound)
	case !s.mayAskOIDC(r):
		http.Error(w, "the access token is missing or wrong", http.StatusUnauthorized)
	case err != nil, len(query) != 2, len(query["api-version"]) != 1, query.Get("api-version") != "7.1", len(query["serviceConnectionId"]) != 1:
		http.Error(w, "the query needs api-version=7.1 and one serviceConnectionId, and nothing else", http.StatusBadRequest)
	case r.ContentLength != 0:
		http.Error(w, "the body is not empty", http.StatusBadRequest)
	case query.Get("serviceConnectionId") != s.oidcConnection:
		writeJSON(w, http.StatusNotFound, map[string]any{"message": fmt.Sprintf("No service connection was found with id %s.", printable(query.Get("serviceConnectionId")))})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"oidcToken": s.OIDCToken(connectionSubject, exchangeAudience, 10*time.Minute)})
	}
}

// serveOIDCDiscovery and serveOIDCKeys are what others check the issuer's
// tokens with (OpenID Connect Discovery 1.0 section 4).
func (s *Server) serveOIDCDiscovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer": s.OIDCIssuer(), "jwks_uri": s.OIDCIssuer() + "/keys", "response_types_supported": []string{"id_token"},
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

func (s *Server) serveOIDCKeys(w http.ResponseWriter, _ *http.Request) {
	key := &s.oidcKey().PublicKey
	writeJSON(w, http.StatusOK, map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": oidcKeyID(key),
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": "AQAB",
	}}})
}
