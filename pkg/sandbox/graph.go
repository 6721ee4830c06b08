package sandbox

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// graphState is what Graph remembers, guarded by Server.mu.
type graphState struct {
	pages    map[string]page // by skip token
	garbage  int
	calls    int            // for Faults.ThrottleEvery
	removals map[string]int // by key id
	sending  map[string]int // sendMail in progress, by client id and address
}

// graphError is a refusal of Graph. Where details is not empty, it holds one
// more code, and the target it is about.
type graphError struct {
	status        int
	code, message string
	detail        [2]string
}

func (e *graphError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

func badRequest(format string, args ...any) *graphError {
	return &graphError{status: http.StatusBadRequest, code: "Request_BadRequest", message: fmt.Sprintf(format, args...)}
}

func notFound(id string) *graphError {
	return &graphError{status: http.StatusNotFound, code: "Request_ResourceNotFound", message: fmt.Sprintf(
		"Resource '%s' does not exist or one of its queried reference-property objects are not present.", printable(id))}
}

var denied = &graphError{status: http.StatusForbidden, code: "Authorization_RequestDenied",
	message: "Insufficient privileges to complete the operation."}

// answer is what Graph answers: a body, or none with 204.
type answer struct {
	status  int
	context string // of @odata.context, after $metadata#
	body    map[string]any
}

func found(context string, body map[string]any) *answer {
	return &answer{http.StatusOK, context, body}
}

func created(context string, body map[string]any) *answer {
	return &answer{http.StatusCreated, context, body}
}

func noContent() *answer { return &answer{status: http.StatusNoContent} }

// serveGraph answers everything under {graph}.
func (s *Server) serveGraph(w http.ResponseWriter, r *http.Request) {
	if s.CurrentFaults().GraphDown {
		cut()
	}
	requestID := uuid.NewString()
	h := w.Header()
	h.Set("request-id", requestID)
	h.Set("x-ms-ags-diagnostic", `{"ServerInfo":{"DataCenter":"Sandbox","Slice":"E","Ring":"1","ScaleUnit":"000","RoleInstance":"SB000000"}}`)
	clientRequestID := r.Header.Get("client-request-id")
	if isGUID(clientRequestID) {
		h.Set("client-request-id", clientRequestID)
	}
	a, refusal := s.graphAnswer(w, r)
	switch {
	case refusal != nil:
		// An answer before the end of a large request could get lost.
		io.Copy(io.Discard, io.LimitReader(r.Body, 8*maxMailRequest))
		s.Log.Info("refused", "status", refusal.status, "code", refusal.code)
		inner := map[string]any{"date": s.now().Format("2006-01-02T15:04:05"), "request-id": requestID}
		if isGUID(clientRequestID) {
			inner["client-request-id"] = clientRequestID
		}
		e := map[string]any{"code": refusal.code, "message": refusal.message, "innerError": inner}
		if refusal.detail[0] != "" {
			e["details"] = []any{map[string]any{"code": refusal.detail[0], "message": refusal.message, "target": refusal.detail[1]}}
		}
		writeJSON(w, refusal.status, map[string]any{"error": e})
	case a == nil: // written by a fault
	case a.body == nil:
		w.WriteHeader(a.status)
	default:
		a.body["@odata.context"] = s.versionURL(r.URL.Path) + "/$metadata#" + a.context
		h.Set("OData-Version", "4.0")
		writeJSON(w, a.status, a.body)
	}
}

// call is a Graph request that has passed the checks common to all.
type call struct {
	s     *Server
	w     http.ResponseWriter // for headers
	r     *http.Request
	token *accessToken
	root  string // of the version, as in links
	path  string // without version and query
	query query
	body  []byte
}

// graphAnswer finds the answer to a request. It gives neither answer nor
// refusal where a fault has written something of its own.
func (s *Server) graphAnswer(w http.ResponseWriter, r *http.Request) (*answer, *graphError) {
	switch id := r.Header.Get("client-request-id"); {
	case id == "" && s.RequireClientRequestID:
		return nil, badRequest("The header client-request-id is missing.")
	case id != "" && !isGUID(id):
		return nil, badRequest("The header client-request-id is not a GUID.")
	}
	token, refusal := s.graphToken(w, r)
	if refusal != nil {
		return nil, refusal
	}
	if written, refusal := s.graphFaults(w); written || refusal != nil {
		return nil, refusal
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1.0/")
	table := endpoints
	if !ok {
		path, ok = strings.CutPrefix(r.URL.Path, "/beta/")
		table = betaEndpoints
	}
	if !ok {
		return nil, badRequest("Invalid version: the sandbox has v1.0, and a report of beta.")
	}
	where, args := route(table, path)
	if where == nil {
		return nil, badRequest("Resource not found for the segment '%s'.", printable(path))
	}
	op, ok := where.operations[r.Method]
	if !ok {
		w.Header().Set("Allow", strings.Join(where.methods(), ", "))
		return nil, &graphError{status: http.StatusMethodNotAllowed, code: "Request_BadRequest",
			message: "Specified HTTP method is not allowed for the request target."}
	}
	c := &call{s: s, w: w, r: r, token: token, root: s.versionURL(r.URL.Path), path: path}
	if c.query, refusal = parseQuery(r.URL.RawQuery, op.options); refusal != nil {
		return nil, refusal
	}
	if op.mail != nil {
		return c.carryOutMail(op, args)
	}
	if c.body, refusal = readBody(r); refusal != nil {
		return nil, refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lose := c.spoilLocked()
	a, refusal := op.serve(c, args)
	lose(refusal)
	return a, refusal
}

// spoilLocked loses a request where a fault says so, and gives what loses its
// answer, or does not, with Server.mu held too.
func (c *call) spoilLocked() (lose func(refusal *graphError)) {
	f := &c.s.Faults
	spoil := c.r.Method != http.MethodGet && (f.LoseWriteNext > 0 || f.DropWriteNext > 0)
	skip := spoil && f.SkipWrites > 0
	if spoil && !skip && takeOne(&f.DropWriteNext) {
		cut()
	}
	return func(refusal *graphError) {
		switch {
		case refusal != nil:
		case skip:
			f.SkipWrites--
		case spoil && takeOne(&f.LoseWriteNext):
			cut()
		}
	}
}

// graphToken checks the bearer token (RFC 6750).
func (s *Server) graphToken(w http.ResponseWriter, r *http.Request) (*accessToken, *graphError) {
	refuse := func(message string) (*accessToken, *graphError) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(
			`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`, s.authority))
		return nil, &graphError{status: http.StatusUnauthorized, code: "InvalidAuthenticationToken", message: message}
	}
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" {
		return refuse("Access token is empty.")
	}
	s.mu.Lock()
	t, now := s.entra.tokens[text], s.nowLocked()
	s.mu.Unlock()
	switch {
	case t == nil:
		return refuse("IDX14100: JWT is not well formed, there are no dots (.).")
	case t.audience != graphResource:
		return refuse("Access token validation failure. Invalid audience.")
	case !now.Before(t.expires):
		return refuse("Lifetime validation failed, the token is expired.")
	}
	return t, nil
}

// graphFaults spoils the request where a fault says so.
func (s *Server) graphFaults(w http.ResponseWriter) (written bool, refusal *graphError) {
	f := s.CurrentFaults()
	if s.take(func(f *Faults) *int { return &f.ThrottleNext }) || s.throttleThis() {
		s.retryAfter(w, f)
		return false, &graphError{status: http.StatusTooManyRequests, code: "TooManyRequests", message: "Too many requests. Please retry."}
	}
	if s.take(func(f *Faults) *int { return &f.ServerErrorNext }) {
		s.retryAfter(w, f)
		switch f.ServerErrorStatus {
		case http.StatusGatewayTimeout:
			return false, &graphError{status: http.StatusGatewayTimeout, code: "UnknownError", message: ""}
		case 0, http.StatusServiceUnavailable:
			return false, &graphError{status: http.StatusServiceUnavailable, code: "serviceNotAvailable", message: "The service is temporarily unavailable."}
		default:
			return false, &graphError{status: f.ServerErrorStatus, code: "InternalServerError", message: "An internal server error occurred."}
		}
	}
	if s.take(func(f *Faults) *int { return &f.GarbageNext }) {
		s.mu.Lock()
		n := s.graph.garbage
		s.graph.garbage++
		s.mu.Unlock()
		g := garbage[n%len(garbage)]
		w.Header().Set("Content-Type", g.mediaType)
		w.WriteHeader(g.status)
		io.WriteString(w, g.body)
		return true, nil
	}
	if f.Forbidden {
		return false, denied
	}
	return false, nil
}

// throttleThis counts a call for ThrottleEvery.
func (s *Server) throttleThis() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.graph.calls++
	return s.Faults.ThrottleEvery > 0 && s.graph.calls%s.Faults.ThrottleEvery == 0
}

// versionURL is the root of the version that a path is of.
func (s *Server) versionURL(path string) string {
	if strings.HasPrefix(path, "/beta/") {
		return strings.TrimSuffix(s.graphURL, "/v1.0") + "/beta"
	}
	return s.graphURL
}

// garbage is what comes from things that are not Graph, or not well.
var garbage = []struct {
	status          int
	mediaType, body string
}{
	{200, "text/html", "<html><body>Please sign in to the guest network.</body></html>"},
	{200, "application/json", `{"value":[{"id":"`},
	{502, "text/html", "<html><body><h1>502 Bad Gateway</h1></body></html>"},
	{200, "application/json", `{"id":42,"appId":[],"value":{},"passwordCredentials":"none","secretText":7}`},
	{200, "application/json", ""},
	{403, "application/json", `{"error":{"code":"","message":"{\"errorCode\":\"PermissionScopeNotGranted\"}","innererror":null}}`},
	{500, "application/json", `{"error":"not an object"}`},
}

// readBody reads the body of a request: none with GET, JSON otherwise.
func readBody(r *http.Request) ([]byte, *graphError) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	switch {
	case err != nil:
		return nil, badRequest("The request body was cut off.")
	case len(body) > maxForm:
		return nil, &graphError{status: http.StatusRequestEntityTooLarge, code: "Request_BadRequest", message: "The request body is too large."}
	case len(body) == 0:
		return nil, nil
	case r.Method == http.MethodGet:
		return nil, badRequest("A GET request must not have a body.")
	}
	header := r.Header.Get("Content-Type")
	if header == "" {
		return nil, badRequest("A Content-Type header is required with a body.")
	}
	if media, params, err := mime.ParseMediaType(header); err != nil || media != "application/json" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return nil, &graphError{status: http.StatusUnsupportedMediaType, code: "Request_BadRequest",
			message: "The Content-Type of the request is not application/json."}
	}
	return body, nil
}

// may says whether the token carries one of the permissions: as scopes of a
// person, or as roles of an application.
func (c *call) may(scopes, roles []string) bool {
	have, want := c.token.roles, roles
	if c.token.person != nil {
		have, want = c.token.scopes, scopes
	}
	return slices.ContainsFunc(have, func(p string) bool { return slices.Contains(want, p) })
}
