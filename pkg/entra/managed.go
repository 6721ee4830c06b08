package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	imdsBase    = "http://169.254.169.254"
	imdsPath    = "/metadata/identity/oauth2/token"
	imdsVersion = "2018-02-01"
	appVersion  = "2019-08-01"

	managedTimeout = 10 * time.Second
	// managedRepeats and managedPatience outlast the 70 s for which IMDS may
	// be out of order while it is updated (410).
	managedRepeats  = 5
	managedPatience = 2 * time.Minute
	updatingPause   = 3 * time.Second // doubled each time: 93 s in all
)

// ManagedIdentity gets tokens from Azure's own machine endpoint: App Service,
// Functions and Container Apps by IDENTITY_ENDPOINT and IDENTITY_HEADER
// (https://learn.microsoft.com/azure/app-service/overview-managed-identity), or
// a virtual machine's Instance Metadata Service, IMDS
// (https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
// Azure Arc and Service Fabric have protocols of their own, and are not known
// here.
type ManagedIdentity struct {
	// HTTP sends the requests. Its transport must use no proxy: the endpoint is
	// an address of the machine itself, and a proxy would be another machine.
	// nil is a client that uses none. Redirects are never followed.
	HTTP *http.Client

	// Endpoint is IDENTITY_ENDPOINT; empty means IMDS.
	Endpoint string
	// Header is IDENTITY_HEADER, which goes along with Endpoint.
	Header secret.Text
	// IMDS is its base address; empty is http://169.254.169.254.
	IMDS string

	// ClientID names a user-assigned identity; empty is the machine's own.
	ClientID string
	// Timeout bounds each single request with its answer; 0 is 10 s.
	Timeout time.Duration
}

// Token gets an access token for resource, such as
// https://graph.microsoft.com: an address, not a scope. The endpoint answers
// from a cache of its own. When it is throttling, out of order or (IMDS: 404,
// 410) being updated, the request is repeated for up to two minutes, as
// Microsoft asks for.
//
// A failure is an [*Error]: Misconfigured where the machine has no such
// identity, Unavailable where nothing answers, as on machines outside of Azure.
func (m *ManagedIdentity) Token(ctx context.Context, resource string) (Token, error) {
	const op = "get token by managed identity"
	target, req, err := m.request(resource)
	if err != nil {
		return Token{}, &Error{Op: op, URL: target, Err: err, kind: Misconfigured}
	}
	left := time.Duration(managedPatience)
	for n := 0; ; n++ {
		t, err := m.once(ctx, &Error{Op: op, URL: target}, req)
		e, failed := errors.AsType[*Error](err)
		if !failed || n == managedRepeats || !m.repeatable(e.Status) {
			return t, err
		}
		step := time.Second
		if e.Status == http.StatusGone {
			step = updatingPause
		}
		if !e.pause(ctx, step<<n, &left) {
			return t, err
		}
	}
}

// request is the one to send, and the address without its query.
func (m *ManagedIdentity) request(resource string) (target string, req *http.Request, err error) {
	query := url.Values{"resource": {resource}, "api-version": {imdsVersion}}
	if m.ClientID != "" {
		query.Set("client_id", m.ClientID)
	}
	name, address := "the address of IMDS", cmp.Or(m.IMDS, imdsBase)
	if m.Endpoint != "" {
		name, address = "IDENTITY_ENDPOINT", m.Endpoint
		query.Set("api-version", appVersion)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !confidential(u, thisMachine) {
		return "", nil, fmt.Errorf("%s is not an address of this machine", name)
	}
	if m.Endpoint == "" {
		u = u.JoinPath(imdsPath)
	}
	target = u.String()
	switch {
	case resource == "":
		return target, nil, errors.New("the resource is missing")
	case m.Endpoint != "" && m.Header.IsZero():
		return target, nil, errors.New("IDENTITY_HEADER is missing (Azure Arc, which has none, is not supported)")
	case !tokenText(m.Header.Reveal()):
		return target, nil, errors.New("IDENTITY_HEADER has characters that no header has")
	}
	u.RawQuery = query.Encode()
	req, err = http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return target, nil, fmt.Errorf("%s is not an address", name)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", defaultUserAgent)
	if m.Endpoint == "" {
		req.Header.Set("Metadata", "true") // keeps out what was sent here by a trick
	} else {
		req.Header.Set("X-IDENTITY-HEADER", m.Header.Reveal())
	}
	return target, req, nil
}

// once sends req and fills e where that fails.
func (m *ManagedIdentity) once(ctx context.Context, e *Error, req *http.Request) (Token, error) {
	h := m.HTTP
	if h == nil {
		h = withoutProxy()
	}
	resp, body, err := send(ctx, h, cmp.Or(m.Timeout, managedTimeout), req)
	if resp != nil {
		e.answered(resp)
	}
	switch {
	case err != nil && resp == nil && ctx.Err() == nil:
		e.Err = fmt.Errorf("%w (is this a machine in Azure, with a managed identity?)", err)
		return Token{}, e
	case err != nil:
		e.Err = err
		return Token{}, e
	case e.Status >= 300 && e.Status < 400:
		e.Err = redirected(resp)
		return Token{}, e
	}
	answer, err := decodeObject(body)
	if err == nil {
		e.decode(answer, m.hide())
	}
	switch {
	case e.Code != "":
		return Token{}, e
	case e.Status < 200 || e.Status > 299:
		e.unnamed(m, answer)
		return Token{}, e
	case err != nil:
		e.Err = err
		return Token{}, e
	}
	t, err := decodeToken(answer, time.Now())
	if err != nil {
		e.Err = err
		return Token{}, e
	}
	if life, ok := answer.until("expires_on", time.Now()); ok {
		// Not by expires_in: it counts from the issue of a token that may
		// have waited in the endpoint's cache.
		t.Expires = time.Now().Round(0).Add(life).UTC()
	}
	return t, nil
}

// withoutProxy is a client for one request. The default transport would ask
// the environment for a proxy.
func withoutProxy() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// unnamed fills e from an answer that is no success and has no error member,
// as App Service sends it: {"statusCode": 400, "message": "…"}.
func (e *Error) unnamed(m *ManagedIdentity, answer members) {
	e.Err = errors.New("the answer names no error")
	if message := m.hide().Replace(line(answer.str("message"))); message != "" {
		e.Err = fmt.Errorf("the answer was %q", message)
	}
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		e.kind = Refused
	case e.Status >= 400 && e.Status < 500 && !m.repeatable(e.Status):
		e.kind = Misconfigured
	}
}

func (m *ManagedIdentity) hide() *strings.Replacer {
	if m.Header.IsZero() {
		return strings.NewReplacer()
	}
	return strings.NewReplacer(m.Header.Reveal(), "[secret]")
}

func (m *ManagedIdentity) repeatable(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return m.Endpoint == ""
	}
	return status == http.StatusTooManyRequests || status >= 500
}

// until gives how long it is until a time, [longestLife] at most.
func (m members) until(name string, now time.Time) (time.Duration, bool) {
	at, ok := m.time(name)
	return max(0, min(at.Sub(now), longestLife)), ok
}

// thisMachine reports whether host is in an address range that never leaves
// this machine and its host: loopback, and link-local (RFC 3927), where Azure
// has its endpoints.
func thisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return loopback(host) || err == nil && addr.IsLinkLocalUnicast()
}
