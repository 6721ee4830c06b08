// Package autoconfig tells mail programs how to reach the gateway: Mozilla's
// autoconfiguration, Autodiscover of Outlook (POX), a configuration profile for
// Apple's devices, and the DNS records of RFC 6186 and RFC 8314 for those who
// keep the zone.
//
// It answers strangers. What it says depends on the domain alone, so that nobody
// learns from it which mailboxes there are.
package autoconfig

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// Limits of a request.
const (
	maxAddress = 254      // RFC 5321 section 4.5.3.1.3, without the angle brackets
	maxQuery   = 1 << 10  // of a URL
	maxBody    = 16 << 10 // of an Autodiscover request
)

// Handler answers the requests. Its fields are not changed while it does.
type Handler struct {
	// Domains are those that it answers for, in lower case. It is called for each
	// request.
	Domains func() []string
	// Listeners are the addresses of the gateway's listeners, host:port, by
	// protocol (imap, pop3, smtp). Each takes TLS from the first byte.
	Listeners map[string]string
	// Certified tells whether the gateway's certificate is good for a host name.
	Certified func(host string) bool
	// Machine is the name of this machine, for clients that have come by a name
	// that is not certified.
	Machine string
	// Roots are the authorities that devices are to trust; none where they trust
	// the gateway's certificate already. It is called for each profile.
	Roots func() []clientconfig.Root
}

// ServeHTTP answers one request. Paths are told apart in any case, as
// Autodiscover's clients write them.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	if len(r.URL.RawQuery) > maxQuery {
		http.Error(w, "the URL is too long", http.StatusRequestURITooLong)
		return
	}
	allow, answer := "GET, HEAD", http.HandlerFunc(nil)
	switch strings.ToLower(r.URL.Path) {
	case "/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml":
		answer = h.mozilla
	case "/autodiscover/autodiscover.xml":
		allow, answer = "POST", h.autodiscover
	case "/profile.mobileconfig":
		answer = h.profile
	case "/", "/dns":
		answer = h.dns
	default:
		http.NotFound(w, r)
		return
	}
	if !slices.Contains(strings.Split(allow, ", "), r.Method) {
		head.Set("Allow", allow)
		http.Error(w, r.Method+" is not answered here, "+allow+" is", http.StatusMethodNotAllowed)
		return
	}
	answer(w, r)
}

// mozilla answers in Mozilla's format.
func (h *Handler) mozilla(w http.ResponseWriter, r *http.Request) {
	domain := h.ownDomain(r)
	if address := query(r, "emailaddress"); address != "" {
		domain = h.domainOf(address)
	}
	if !h.serves(domain) {
		http.NotFound(w, r)
		return
	}
	write(w, "text/xml; charset=utf-8", clientconfig.Autoconfig(domain, "%EMAILADDRESS%", h.servers(r)))
}

// profile answers with a profile for Apple's devices.
func (h *Handler) profile(w http.ResponseWriter, r *http.Request) {
	address := query(r, "address")
	servers := h.servers(r)
	_, imap := servers["imap"]
	_, pop3 := servers["pop3"]
	_, smtp := servers["smtp"]
	if h.domainOf(address) == "" || !smtp || !imap && !pop3 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	write(w, clientconfig.ProfileType, clientconfig.Profile(clientconfig.Account{Address: address, User: address, Servers: servers}, h.Roots()...))
}

// dns answers with the records of a domain, for its zone.
func (h *Handler) dns(w http.ResponseWriter, r *http.Request) {
	domain := strings.ToLower(query(r, "domain"))
	if domain == "" {
		domain = h.ownDomain(r)
	}
	if !h.serves(domain) {
		http.Error(w, "This is the autoconfiguration of an o365pw gateway.\nFor the DNS records of a domain that it answers for: /dns?domain=DOMAIN", http.StatusNotFound)
		return
	}
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = "443"
	}
	write(w, "text/plain; charset=utf-8", Zone(Records(domain, h.nameFor(r), port, h.servers(r))))
}

func write(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) // a client that has gone
}

// query is a parameter of the URL, if it is there once.
func query(r *http.Request, key string) string {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(values[key]) != 1 {
		return ""
	}
	return values[key][0]
}

// domainOf is the domain of a mail address, if it is one that is answered for.
func (h *Handler) domainOf(address string) string {
	local, domain, ok := strings.Cut(address, "@")
	domain = strings.ToLower(domain)
	if !ok || len(address) > maxAddress || !isLocalPart(local) || !h.serves(domain) {
		return ""
	}
	return domain
}

// isLocalPart accepts a dot-string (RFC 5321 section 4.1.2) without %, which no
// mailbox of Exchange has, and placeholders of mail programs do.
func isLocalPart(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$&'*+-/=?^_`{|}~.", r) {
			return false
		}
	}
	return true
}

func (h *Handler) serves(domain string) bool {
	return domain != "" && slices.Contains(h.Domains(), domain)
}

// ownDomain is the domain by whose name the client has come: DOMAIN,
// autoconfig.DOMAIN or autodiscover.DOMAIN.
func (h *Handler) ownDomain(r *http.Request) string {
	host := reached(r)
	for _, prefix := range []string{"", "autoconfig.", "autodiscover."} {
		if domain, ok := strings.CutPrefix(host, prefix); ok && h.serves(domain) {
			return domain
		}
	}
	return ""
}

// reached is the host in the request, in lower case.
func reached(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = strings.Trim(r.Host, "[]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// nameFor is the name of the gateway as the client knows it.
func (h *Handler) nameFor(r *http.Request) string {
	if host := reached(r); host != "" && h.Certified(host) {
		return host
	}
	return h.Machine
}

// servers are the listeners as the client reaches them.
func (h *Handler) servers(r *http.Request) map[string]clientconfig.Server {
	out := map[string]clientconfig.Server{}
	for protocol, addr := range h.Listeners {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			continue
		}
		host := ap.Addr().Unmap().String()
		if ap.Addr().IsUnspecified() || ap.Addr().Unmap().IsLoopback() {
			host = h.nameFor(r)
		}
		out[protocol] = clientconfig.Server{Host: host, Port: int(ap.Port()), Security: "tls"}
	}
	return out
}
