package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// entraState is what Entra remembers, guarded by Server.mu.
type entraState struct {
	tokens   map[string]*accessToken
	refresh  map[string]*refreshToken
	codes    map[string]*authCode
	requests map[string]*authRequest // sign-in pages that wait for an answer
	devices  map[string]*deviceCode
	refused  map[[32]byte][]time.Time // client credential requests, by fingerprint
	issued   map[string]int
	// assertions are the ids of client assertions that were used, with their
	// expiry.
	assertions map[string]time.Time
	swept      time.Time
}

func newEntraState() entraState {
	return entraState{
		tokens:   make(map[string]*accessToken),
		refresh:  make(map[string]*refreshToken),
		codes:    make(map[string]*authCode),
		requests: make(map[string]*authRequest),
		devices:  make(map[string]*deviceCode),
		refused:  make(map[[32]byte][]time.Time),
		issued:   make(map[string]int),

		assertions: make(map[string]time.Time),
	}
}

// maxForm is the most that a form may hold.
const maxForm = 64 << 10

// entraHandler serves {authority}.
func (s *Server) entraHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /{tenant}/oauth2/v2.0/token", s.entraFaults(s.serveToken))
	mux.Handle("POST /{tenant}/oauth2/v2.0/devicecode", s.entraFaults(s.serveDeviceCode))
	mux.Handle("GET /{tenant}/oauth2/v2.0/authorize", s.entraFaults(s.serveAuthorize))
	mux.Handle("POST /{tenant}/oauth2/v2.0/signin", s.entraFaults(s.serveSignIn))
	mux.Handle("GET /{tenant}/v2.0/.well-known/openid-configuration", s.entraFaults(s.serveDiscovery))
	mux.Handle("GET /{tenant}/discovery/v2.0/keys", s.entraFaults(s.serveKeys))
	mux.HandleFunc("GET /devicelogin", s.serveDevicePage)
	mux.HandleFunc("POST /devicelogin", s.serveDeviceAnswer)
	mux.HandleFunc("POST /introspect/{mailbox}", s.serveIntrospection)
	mux.Handle("GET /metadata/identity/oauth2/token", s.entraFaults(s.serveIMDS))
	mux.Handle("GET /sandbox/msi/token", s.entraFaults(s.serveAppService))
	mux.HandleFunc("GET /sandbox/oidc/token", s.serveOIDCToken)
	mux.HandleFunc("POST /sandbox/oidc/connection", s.serveConnectionToken)
	mux.HandleFunc("GET /sandbox/oidc/.well-known/openid-configuration", s.serveOIDCDiscovery)
	mux.HandleFunc("GET /sandbox/oidc/keys", s.serveOIDCKeys)
	mux.HandleFunc("GET /sandbox/faults", s.serveFaults)
	mux.HandleFunc("PUT /sandbox/faults", s.serveFaults)
	return mux
}

// entraFaults puts the faults of Entra before h.
func (s *Server) entraFaults(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := s.CurrentFaults()
		switch {
		case f.EntraDown:
			cut()
		case f.EntraStatus != 0 && f.EntraPlain:
			s.retryAfter(w, f)
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(f.EntraStatus)
			io.WriteString(w, "<html><head><title>Service unavailable</title></head><body>Our services aren't available right now.</body></html>")
		case f.EntraStatus != 0:
			s.retryAfter(w, f)
			s.oauthError(w, r, &oauthError{
				status: f.EntraStatus, code: "temporarily_unavailable", number: 90033,
				text: "A transient error has occurred. Please try again.",
			})
		case f.EntraGarbage:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			io.WriteString(w, `{"token_type":"Bearer","expires_in":`)
		default:
			h(w, r)
		}
	})
}

func (s *Server) retryAfter(w http.ResponseWriter, f Faults) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
}

// oauthError is a refusal of Entra (RFC 6749 section 5.2).
type oauthError struct {
	status   int // 0: 400, or 401 for invalid_client
	code     string
	suberror string
	number   int // of AADSTS
	text     string
}

func (e *oauthError) Error() string { return fmt.Sprintf("%s: AADSTS%d: %s", e.code, e.number, e.text) }

// oauthError writes e as Entra does: one description for people, with CR LF in
// it, and its parts beside it.
func (s *Server) oauthError(w http.ResponseWriter, r *http.Request, e *oauthError) {
	status := e.status
	if status == 0 {
		status = http.StatusBadRequest
		if e.code == "invalid_client" {
			status = http.StatusUnauthorized
		}
	}
	trace, correlation := uuid.NewString(), r.Header.Get("client-request-id")
	if !isGUID(correlation) {
		correlation = uuid.NewString()
	}
	stamp := s.now().Format("2006-01-02 15:04:05Z")
	s.Log.Info("refused", "error", e.code, "aadsts", e.number)
	writeJSON(w, status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Timestamp   string `json:"timestamp"`
		Trace       string `json:"trace_id"`
		Correlation string `json:"correlation_id"`
		URI         string `json:"error_uri"`
		Suberror    string `json:"suberror,omitempty"`
	}{
		e.code,
		fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s", e.number, e.text, trace, correlation, stamp),
		[]int{e.number}, stamp, trace, correlation,
		fmt.Sprintf("%s/error?code=%d", s.authority, e.number), e.suberror,
	})
}

// writeJSON writes an answer that nobody may keep (RFC 6749 section 5.1).
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only strings, numbers and maps of them come here
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-cache")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	w.Write(body)
}

// readForm reads the form in the body of a request. Nothing may be in the
// query, and nothing twice (RFC 6749 section 3.2).
func readForm(r *http.Request) (url.Values, *oauthError) {
	if r.URL.RawQuery != "" {
		return nil, &oauthError{code: "invalid_request", number: 900144,
			text: "The parameters must be sent in the request body, not in the query."}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, &oauthError{code: "invalid_request", number: 900144,
			text: "The request body must contain the following parameter: 'grant_type'. Its content type must be application/x-www-form-urlencoded."}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil || len(body) > maxForm {
		return nil, &oauthError{status: http.StatusRequestEntityTooLarge, code: "invalid_request", number: 90015,
			text: "The request is too long."}
	}
	return parseForm(string(body))
}

func parseForm(encoded string) (url.Values, *oauthError) {
	form, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, &oauthError{code: "invalid_request", number: 9000410,
			text: "Malformed request: the parameters are not form encoded."}
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, &oauthError{code: "invalid_request", number: 9000411,
				text: fmt.Sprintf("The request is not properly formatted. The parameter '%s' is duplicated.", strings.ToValidUTF8(name, "?"))}
		}
	}
	return form, nil
}

// missing is the refusal of a request that lacks a parameter.
func missing(name string) *oauthError {
	return &oauthError{code: "invalid_request", number: 900144,
		text: fmt.Sprintf("The request body must contain the following parameter: '%s'.", name)}
}

func unknownApp(id, tenant string) *oauthError {
	return &oauthError{code: "unauthorized_client", number: 700016,
		text: fmt.Sprintf("Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", id, tenant)}
}

// sweepLocked drops what has ended for over an hour, so that a sandbox that runs for
// days does not grow. The caller holds s.mu.
func (s *Server) sweepLocked() {
	now := s.nowLocked()
	if now.Sub(s.entra.swept) < time.Minute {
		return
	}
	s.entra.swept = now
	limit := now.Add(-time.Hour)
	for k, t := range s.entra.tokens {
		if t.expires.Before(limit) {
			delete(s.entra.tokens, k)
		}
	}
	for k, t := range s.entra.refresh {
		if t.expires.Add(s.RefreshTokenLife).Before(limit) { // to tell expired from unknown
			delete(s.entra.refresh, k)
		}
	}
	for k, c := range s.entra.codes {
		if c.expires.Before(limit) {
			delete(s.entra.codes, k)
		}
	}
	for k, a := range s.entra.requests {
		if a.expires.Before(limit) {
			delete(s.entra.requests, k)
		}
	}
	for k, d := range s.entra.devices {
		if d.expires.Before(limit) {
			delete(s.entra.devices, k)
		}
	}
	for k, expires := range s.entra.assertions {
		if expires.Before(now) {
			delete(s.entra.assertions, k)
		}
	}
	for k, times := range s.entra.refused {
		if times[len(times)-1].Before(limit) {
			delete(s.entra.refused, k)
		}
	}
}
