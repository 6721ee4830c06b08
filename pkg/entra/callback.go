package entra

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// farewell is how long the browser gets to read the last page.
const farewell = time.Second

// callback takes the one answer that the browser brings to the loopback
// redirect (RFC 8252 section 7.3). Any program and any web page can send
// requests there, so that nothing counts but a GET of / at localhost with the
// state of this sign-in, once.
type callback struct {
	hosts []string
	state string

	used    atomic.Bool
	answers chan url.Values // the one answer; holds it until it is taken
	done    chan struct{}   // closed when the outcome is known
	outcome page            // set before
}

func newCallback(port int, state string) *callback {
	cb := &callback{state: state, answers: make(chan url.Values, 1), done: make(chan struct{})}
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		cb.hosts = append(cb.hosts, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return cb
}

// serve answers on listeners until stop is called, which returns when every
// connection is closed.
func (cb *callback) serve(listeners []net.Listener) (stop func()) {
	var serving, connections sync.WaitGroup
	server := &http.Server{
		Handler:           cb,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // what strangers send is no concern of the terminal
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Done()
			}
		},
	}
	server.SetKeepAlivesEnabled(false)
	for _, l := range listeners {
		serving.Go(func() { _ = server.Serve(l) }) // ends with ErrServerClosed
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		// Shutdown does not know a listener that Serve has not reached yet.
		for _, l := range listeners {
			l.Close()
		}
		serving.Wait()
		connections.Wait()
	}
}

// finish sets what the browser is told.
func (cb *callback) finish(who Identity, err error) {
	cb.outcome = page{http.StatusOK, "Signed in", "You can close this window and go back to the terminal."}
	if who.Username != "" {
		cb.outcome.Heading = "Signed in as " + who.Username
	}
	if err != nil {
		cb.outcome.Heading = "Not signed in"
		why := "The sign-in did not work."
		if e, ok := errors.AsType[*Error](err); ok {
			switch e.Kind() {
			case Declined:
				why = "The sign-in was cancelled or declined."
			case Forbidden:
				why = "The organization does not allow this sign-in."
			case Unavailable:
				why = "Microsoft's sign-in service could not be reached, or gave no answer that makes sense."
			}
		}
		cb.outcome.Text = why + " You can close this window; the terminal says more."
	}
	close(cb.done)
}

// ServeHTTP answers the browser. After the right answer it waits for the
// outcome, so that the page is true.
func (cb *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !slices.Contains(cb.hosts, strings.ToLower(r.Host)):
		// A name of a stranger that leads to this machine (DNS rebinding).
		page{http.StatusForbidden, "Refused", "This address is not for others."}.write(w)
	case r.URL.Path != "/":
		page{http.StatusNotFound, "Not found", "There is nothing here."}.write(w)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		page{http.StatusMethodNotAllowed, "Refused", "Only GET is answered here."}.write(w)
	case err != nil, !single(query), subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(cb.state)) != 1:
		page{http.StatusBadRequest, "Refused", "This is not the answer to the sign-in that is waiting here. You can close this window."}.write(w)
	case (query.Get("code") == "") == (query.Get("error") == ""):
		page{http.StatusBadRequest, "Refused", "This answer holds neither a sign-in nor an error. You can close this window."}.write(w)
	case !cb.used.CompareAndSwap(false, true):
		page{http.StatusConflict, "Already used", "This sign-in has had its answer. You can close this window."}.write(w)
	default:
		cb.answers <- query
		select {
		case <-cb.done:
			cb.outcome.write(w)
		case <-r.Context().Done():
		}
	}
}

// single reports whether no parameter comes twice (RFC 6749 section 3.1).
func single(query url.Values) bool {
	for _, values := range query {
		if len(values) > 1 {
			return false
		}
	}
	return true
}

// page is what the browser shows.
type page struct {
	Status        int
	Heading, Text string
}

const pageStyle = `:root{color-scheme:light dark;--ink:#1b1b1f;--ground:#fafafa}` +
	`@media(prefers-color-scheme:dark){:root{--ink:#e8e8ec;--ground:#17171a}}` +
	`body{margin:0;min-height:100vh;display:grid;place-content:center;padding:2rem;box-sizing:border-box;` +
	`font:1.125rem/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);text-align:center}` +
	`h1{font-size:1.5rem;margin:0 0 .5rem;overflow-wrap:anywhere}p{margin:0;max-width:32rem}`

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{.Heading}} · o365pw</title>
<style>` + pageStyle + `</style>
</head>
<body>
<main>
<h1>{{.Heading}}</h1>
<p>{{.Text}}</p>
</main>
</body>
</html>
`))

// write sends the page. It holds no script and asks for nothing from
// anywhere; the address of the request, which holds the code, is neither kept
// nor passed on.
func (p page) write(w http.ResponseWriter) {
	style := sha256.Sum256([]byte(pageStyle))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(style[:])+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_ = pageTemplate.Execute(w, p) // the browser has gone
}
