package sandbox

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// assertionType is the value of client_assertion_type (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// maxAssertionLife is how far ahead an assertion of a certificate may expire.
const maxAssertionLife = 10 * time.Minute

func badAssertion(number int, format string, args ...any) *oauthError {
	return &oauthError{code: "invalid_client", number: number, text: fmt.Sprintf(format, args...)}
}

// checkAssertionLocked checks a client assertion: one of a certificate of the
// application's (RFC 7523), or a token of an issuer that it trusts. endpoint is
// the URL of the token endpoint.
func (s *Server) checkAssertionLocked(app *application, form url.Values, endpoint string, now time.Time) *oauthError {
	switch form.Get("client_assertion_type") {
	case "":
		return missing("client_assertion_type")
	case assertionType:
	default:
		return &oauthError{code: "invalid_request", number: 9000411, text: "The value of the parameter 'client_assertion_type' is not supported."}
	}
	t, err := parseJWT(form.Get("client_assertion"))
	if err != nil {
		return badAssertion(50027, "JWT token is invalid or malformed.")
	}
	if strings.Contains(t.claims.text("iss"), "://") {
		return s.checkFederated(app, t, now)
	}
	return s.checkCertificateLocked(app, t, endpoint, now)
}

func (s *Server) checkCertificateLocked(app *application, t *jwt, endpoint string, now time.Time) *oauthError {
	x5t, x5tS256 := t.header.text("x5t"), t.header.text("x5t#S256")
	unknown := func(reason string) *oauthError {
		thumbprint, _ := base64.RawURLEncoding.DecodeString(cmp.Or(x5t, x5tS256))
		return badAssertion(700027, "Client assertion contains an invalid signature. [Reason - %s, Thumbprint of key used by client: '%X', Client app ID: %s. Make sure to register the certificate on the application.]",
			reason, thumbprint, app.clientID)
	}
	i := slices.IndexFunc(app.keys, func(k *keyCredential) bool {
		return k.replicated(now, s.Faults.ReplicationDelay) && k.named(x5t, x5tS256)
	})
	switch alg := t.header.text("alg"); {
	case t.header.text("typ") != "JWT", alg != "RS256" && alg != "PS256":
		return badAssertion(50027, "JWT token is invalid or malformed: its header needs typ JWT and alg RS256 or PS256.")
	case x5t == "" && x5tS256 == "":
		return unknown("The header has neither x5t nor x5t#S256.")
	case i < 0:
		return unknown("The key was not found.")
	}
	key := app.keys[i]
	switch {
	case now.Before(key.start) || !now.Before(key.end):
		return unknown("The key used is expired.")
	case t.verify(key.key) != nil:
		return unknown("The key was found but its signature does not verify.")
	}
	for _, name := range []string{"iss", "sub"} {
		if t.claims.text(name) != app.clientID {
			return badAssertion(700021, "Client assertion application identifier doesn't match 'client_id' parameter: '%s' is '%s'.", name, printable(t.claims.text(name)))
		}
	}
	if t.claims.text("aud") != endpoint {
		return badAssertion(700023, "Client assertion audience claim does not match Realm issuer: it is '%s', the token endpoint is '%s'.", printableUpTo(600, t.claims.audience()), printableUpTo(600, endpoint))
	}
	expires, refusal := t.withinTime(now)
	if refusal != nil {
		return refusal
	}
	if expires.After(now.Add(maxAssertionLife)) {
		return badAssertion(700024, "Client assertion is not within its valid time range: it is valid for more than %v.", maxAssertionLife)
	}
	id := t.claims.text("jti")
	if id == "" {
		return badAssertion(50027, "JWT token is invalid or malformed: the claim jti is missing.")
	}
	id = app.clientID + "\x00" + id
	if _, seen := s.entra.assertions[id]; seen {
		return badAssertion(50013, "Assertion failed validation: its jti was used before.")
	}
	s.entra.assertions[id] = expires
	return nil
}

// withinTime checks nbf and exp, without allowance for clocks that differ.
func (t *jwt) withinTime(now time.Time) (expires time.Time, refusal *oauthError) {
	begins, ok1 := t.claims.date("nbf")
	expires, ok2 := t.claims.date("exp")
	switch {
	case !ok1 || !ok2:
		return expires, badAssertion(50027, "JWT token is invalid or malformed: the claims nbf and exp are numbers of seconds.")
	case now.Before(begins) || !now.Before(expires):
		stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }
		return expires, badAssertion(700024, "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
			stamp(now), stamp(begins), stamp(expires))
	}
	return expires, nil
}

// checkFederated checks a token of another issuer. The refusals quote what was
// presented, since that is what has to be registered.
func (s *Server) checkFederated(app *application, t *jwt, now time.Time) *oauthError {
	issuer, subject, audience := t.claims.text("iss"), t.claims.text("sub"), t.claims.audience()
	quote := func(s string) string { return printableUpTo(600, s) }
	if len(app.federated) == 0 {
		return &oauthError{code: "invalid_request", number: 70021, text: fmt.Sprintf(
			"No matching federated identity record found for presented assertion. Assertion Issuer: '%s'. Assertion Subject: '%s'. Assertion Audience: '%s'.",
			quote(issuer), quote(subject), quote(audience))}
	}
	matching := slices.Clone(app.federated)
	for _, part := range []struct {
		number      int
		what, value string
		of          func(*federatedCredential) string
	}{
		{700211, "issuer", issuer, func(f *federatedCredential) string { return f.issuer }},
		{700213, "subject", subject, func(f *federatedCredential) string { return f.subject }},
		{700212, "audience", audience, func(f *federatedCredential) string { return f.audience }},
	} {
		matching = slices.DeleteFunc(matching, func(f *federatedCredential) bool { return part.of(f) != part.value })
		if len(matching) == 0 {
			return badAssertion(part.number, "No matching federated identity record found for presented assertion %s '%s'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation",
				part.what, quote(part.value))
		}
	}
	key := &s.oidcKey().PublicKey
	switch {
	case issuer != s.OIDCIssuer(): // whose keys cannot be fetched from here
		return &oauthError{code: "invalid_request", number: 50166, text: "Request to External OIDC endpoint failed."}
	case t.header.text("alg") != "RS256" || t.header.text("kid") != oidcKeyID(key) || t.verify(key) != nil:
		return badAssertion(50013, "Assertion failed signature validation.")
	}
	_, refusal := t.withinTime(now)
	return refusal
}
