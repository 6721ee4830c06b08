package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	objectID = "0b0b0b0b-1111-2222-3333-444444444444"
	clientID = "00001111-aaaa-2222-bbbb-3333cccc4444"
	oldKey   = "aaaaaaaa-1111-2222-3333-444444444444"
	theToken = "the-access-token"
)

// fake is a Graph with one application. What goes wrong is queued per
// operation: get, add, remove. An operation without fault works at once.
type fake struct {
	t     *testing.T
	ahead time.Duration // its clock

	mu     sync.Mutex
	creds  []map[string]any
	faults map[string][]fault
	calls  []string
	added  int
	bodies []string
}

// fault answers a request in place of the fake; work does what was asked for
// and gives the good answer.
type fault func(w http.ResponseWriter, r *http.Request, work func() any)

func newFake(t *testing.T) *fake {
	return &fake{t: t, faults: map[string][]fault{}, creds: []map[string]any{
		{"keyId": oldKey, "displayName": "old", "hint": nil, "startDateTime": "1999-09-09T19:50:29.3086381Z", "endDateTime": nil, "customKeyIdentifier": nil},
	}}
}

func (f *fake) fail(op string, faults ...fault) { f.faults[op] = append(f.faults[op], faults...) }

func (f *fake) now() time.Time { return time.Now().Add(f.ahead).UTC() }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	body, _ := io.ReadAll(r.Body)
	base := "/v1.0/applications(appId='" + clientID + "')"
	op := map[string]string{"GET " + base: "get", "POST " + base + "/addPassword": "add", "POST " + base + "/removePassword": "remove"}[r.Method+" "+r.URL.Path]
	if op == "" {
		op = "other"
	}
	f.calls = append(f.calls, op)
	f.bodies = append(f.bodies, string(body))
	if got := r.Header.Get("Authorization"); got != "Bearer "+theToken {
		f.t.Errorf("Authorization %q", got)
	}
	if !isGUID(r.Header.Get("client-request-id")) || r.Header.Get("User-Agent") == "" {
		f.t.Errorf("headers %v", r.Header)
	}
	w.Header().Set("Date", f.now().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("request-id", "rrrrrrrr")
	work := map[string]func([]byte) any{"get": f.get, "add": f.add, "remove": f.remove, "other": func([]byte) any { return nil }}[op]
	var next fault
	if q := f.faults[op]; len(q) > 0 {
		next, f.faults[op] = q[0], q[1:]
	}
	f.mu.Unlock()

	locked := func() any {
		f.mu.Lock()
		defer f.mu.Unlock()
		return work(body)
	}
	if next != nil {
		next(w, r, locked)
		return
	}
	good(w, r, locked)
}

// refusal is the message of a 400.
type refusal string

func good(w http.ResponseWriter, _ *http.Request, work func() any) {
	switch answer := work().(type) {
	case nil:
		w.WriteHeader(http.StatusNoContent)
	case refusal:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"code":"Request_BadRequest","message":%q}}`, string(answer))
	case result:
		w.WriteHeader(answer.status)
		_ = json.NewEncoder(w).Encode(answer.body)
	default:
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (f *fake) get([]byte) any {
	return map[string]any{"@odata.context": "…", "id": objectID, "appId": clientID, "displayName": "Mail", "passwordCredentials": slices.Clone(f.creds)}
}

func (f *fake) add(body []byte) any {
	var in struct{ PasswordCredential map[string]any }
	if err := json.Unmarshal(body, &in); err != nil || in.PasswordCredential == nil {
		return refusal("bad body " + string(body))
	}
	f.added++
	cred := map[string]any{"keyId": strings.ToUpper(uuid.NewString()), "hint": "abc", "customKeyIdentifier": nil}
	for _, k := range []string{"displayName", "startDateTime", "endDateTime"} {
		cred[k] = in.PasswordCredential[k]
	}
	f.creds = append(f.creds, cred)
	answer := map[string]any{"secretText": "abc8Q~secret"}
	for k, v := range cred {
		answer[k] = v
	}
	return answer
}

func (f *fake) remove(body []byte) any {
	var in struct{ KeyID string }
	_ = json.Unmarshal(body, &in)
	n := len(f.creds)
	f.creds = slices.DeleteFunc(f.creds, func(c map[string]any) bool { return strings.EqualFold(c["keyId"].(string), in.KeyID) })
	if len(f.creds) == n {
		return refusal("No password credential found with keyId " + in.KeyID + ".")
	}
	return nil
}

// keys are the credentials there are now.
func (f *fake) keys() (keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.creds {
		keys = append(keys, strings.ToLower(c["keyId"].(string)))
	}
	return keys
}

func (f *fake) count(op string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == op {
			n++
		}
	}
	return n
}

// The faults.

func status(code int, header ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ func() any) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, `{"error":{"code":"Some","message":"Some text."}}`)
	}
}

// answers says body with 200, having done the work.
func answers(body string) fault {
	return func(w http.ResponseWriter, _ *http.Request, work func() any) {
		work()
		fmt.Fprint(w, body)
	}
}

func lostBefore(http.ResponseWriter, *http.Request, func() any) { panic(http.ErrAbortHandler) }

func lostAfter(_ http.ResponseWriter, _ *http.Request, work func() any) {
	work()
	panic(http.ErrAbortHandler)
}

func failsAfter(code int) fault {
	return func(w http.ResponseWriter, _ *http.Request, work func() any) {
		work()
		w.WriteHeader(code)
	}
}

func truncated(w http.ResponseWriter, _ *http.Request, work func() any) {
	data, _ := json.Marshal(work())
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data[:len(data)/2])
	panic(http.ErrAbortHandler)
}

func stalls(_ http.ResponseWriter, r *http.Request, _ func() any) { <-r.Context().Done() }

func stallsAfter(_ http.ResponseWriter, r *http.Request, work func() any) {
	work()
	<-r.Context().Done()
}

// stale answers a read from a replica that has only the first n credentials.
func stale(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, work func() any) {
		answer := work().(map[string]any)
		creds := answer["passwordCredentials"].([]map[string]any)
		answer["passwordCredentials"] = creds[:min(n, len(creds))]
		good(w, r, func() any { return answer })
	}
}

// serve gives a client of f over a real connection, with tiny pauses.
func (f *fake) serve(t *testing.T) *Client {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c := f.client(server.URL)
	c.HTTP = server.Client()
	c.Pause = time.Millisecond
	return c
}

// direct gives a client of f without a network, for bubbles of synctest, with
// the pauses of real life.
func (f *fake) direct() *Client {
	c := f.client("https://graph.example")
	c.HTTP = &http.Client{Transport: handlerTransport{f}}
	return c
}

func (f *fake) client(url string) *Client {
	return &Client{BaseURL: url + "/v1.0", Token: func(context.Context) (secret.Text, error) { return secret.New(theToken), nil }}
}

type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	defer func() {
		if recover() != nil {
			resp, err = nil, io.ErrUnexpectedEOF
		}
		if r.Context().Err() != nil {
			resp, err = nil, r.Context().Err()
		}
	}()
	t.h.ServeHTTP(rec, r)
	return rec.Result(), nil
}
