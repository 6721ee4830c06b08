package entra

import (
	"context"
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
// state of this sign-in, once, by which a browser goes to a page of its own.
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
	cb.outcome = outcome(who, err)
	close(cb.done)
}

// ServeHTTP answers the browser. After the right answer it waits for the
// outcome, so that the page is true.
func (cb *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !slices.Contains(cb.hosts, strings.ToLower(r.Host)):
		// A name of a stranger that leads to this machine (DNS rebinding).
		refusal(http.StatusForbidden, "This address is not for others.").write(w)
	case r.URL.Path != "/":
		refusal(http.StatusNotFound, "There is nothing here.").write(w)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		refusal(http.StatusMethodNotAllowed, "Only GET is answered here.").write(w)
	case !topLevel(r.Header):
		refusal(http.StatusForbidden, "This address is not for a part of another page.").write(w)
	case err != nil, !hasState(query, cb.state):
		refusal(http.StatusBadRequest, "This is not the answer to the sign-in that is waiting here.").write(w)
	case !isAnswer(query):
		refusal(http.StatusBadRequest, "This answer holds neither a sign-in nor an error.").write(w)
	case !cb.used.CompareAndSwap(false, true):
		refusal(http.StatusConflict, "This sign-in has had its answer.").write(w)
	default:
		cb.answers <- query
		select {
		case <-cb.done:
			cb.outcome.write(w)
		case <-r.Context().Done():
		}
	}
}

// topLevel reports whether a browser goes to this address as a page of its
// own, and now. Browsers say so (https://www.w3.org/TR/fetch-metadata/); what
// says nothing is let through. From where it comes does not matter: it is
// Entra's page as a rule, which is another site.
func topLevel(h http.Header) bool {
	is := func(name, want string) bool { return h.Get(name) == "" || h.Get(name) == want }
	navigates := h.Get("Sec-Fetch-Site") == "" || h.Get("Sec-Fetch-Mode") == "navigate"
	// A page loaded ahead, which the person may never see, must not use up the
	// answer.
	ahead := h.Get("Sec-Purpose") != "" || h.Get("Purpose") != ""
	return navigates && is("Sec-Fetch-Mode", "navigate") && is("Sec-Fetch-Dest", "document") && !ahead
}
