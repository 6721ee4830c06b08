package entra

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kind says what a failure means for the caller.
type Kind string

// The kinds of failure.
const (
	// Refused: the client's own credential (secret, certificate, assertion) is
	// wrong, expired or removed. A secret made a moment ago is refused too,
	// until Entra has spread it.
	Refused Kind = "refused"
	// SignInRequired: the person has to sign in again.
	SignInRequired Kind = "sign-in required"
	// Forbidden: the tenant does not allow it, by Conditional Access, missing
	// consent, or a disabled account or application.
	Forbidden Kind = "forbidden"
	// Misconfigured: the request cannot work as it is (wrong tenant, client,
	// scope, kind of client).
	Misconfigured Kind = "misconfigured"
	// Declined: the person said no.
	Declined Kind = "declined"
	// Expired: the person did not finish in time; start again.
	Expired Kind = "expired"
	// Unavailable: nothing was learned about the credential (throttled, out of
	// order, no network, an answer that makes no sense). Worth a retry.
	Unavailable Kind = "unavailable"
)

// Error is a request to Entra that did not bring a token. Besides what failed
// it holds the members of Entra's error answer (RFC 6749 section 5.2 and
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes),
// each empty where the answer had none. It never holds a secret that was sent.
type Error struct {
	Op  string // what was tried: "get token by client secret"
	URL string // endpoint, without a query
	// Status is the HTTP status; 0 where there was no answer, or where the
	// answer came through the browser.
	Status int

	Code        string // error: "invalid_client"
	Suberror    string // suberror: "consent_required"
	Description string // error_description as sent, several lines
	Numbers     []int  // AADSTS numbers, from error_codes or else the description
	TraceID     string // trace_id
	// CorrelationID is correlation_id, or else the client-request-id that was
	// sent; by it Microsoft's support and the sign-in logs know the request.
	CorrelationID string
	Timestamp     string // timestamp: "2026-01-09 02:02:12Z"
	// Claims is a JSON text for the claims parameter of an interactive sign-in.
	Claims string
	// RetryAfter is how long Entra asked to wait; 0 where it did not.
	RetryAfter time.Duration

	// Err is the cause where there was no proper answer: a transport failure,
	// the end of the context, or what is wrong with the answer.
	Err error

	kind Kind // set where neither Code nor Status can tell
}

// Kind decides by the error and suberror members, as Microsoft asks clients
// to, and by AADSTS number only for those in kindByNumber. An error value
// never seen before counts as Unavailable: nothing is thrown away for it.
func (e *Error) Kind() Kind {
	switch {
	case e.kind != "":
		return e.kind
	case e.Status == http.StatusTooManyRequests, e.Status >= 500, e.Code == "":
		return Unavailable
	}
	for _, n := range e.Numbers {
		if k, ok := kindByNumber[n]; ok {
			return k
		}
	}
	if e.Suberror == "consent_required" {
		return Forbidden
	}
	if k, ok := kindByCode[e.Code]; ok {
		return k
	}
	return Unavailable
}

// kindByCode maps the error member (RFC 6749 sections 4.1.2.1 and 5.2,
// RFC 8628 section 3.5, OpenID Connect Core section 3.1.2.6, and Entra's own).
var kindByCode = map[string]Kind{
	"invalid_client": Refused,

	"invalid_grant":              SignInRequired,
	"interaction_required":       SignInRequired,
	"login_required":             SignInRequired,
	"account_selection_required": SignInRequired,

	"consent_required": Forbidden,

	"invalid_request":           Misconfigured,
	"invalid_resource":          Misconfigured,
	"invalid_scope":             Misconfigured,
	"invalid_target":            Misconfigured,
	"invalid_tenant":            Misconfigured,
	"unauthorized_client":       Misconfigured,
	"unsupported_grant_type":    Misconfigured,
	"unsupported_response_type": Misconfigured,

	"access_denied":          Declined,
	"authorization_declined": Declined, // Entra's name for it in the device flow

	"expired_token":         Expired,
	"bad_verification_code": Expired, // the device code is not known (any more)

	"temporarily_unavailable": Unavailable,
	"server_error":            Unavailable,
}

// kindByNumber lists the AADSTS numbers whose error member is known to say too
// little, or to differ from case to case.
var kindByNumber = map[int]Kind{
	// invalid_grant although nothing is wrong with the grant: the same request
	// came too often. To take it for a refusal would end good sign-ins.
	50196: Unavailable,
	// Transient by Microsoft's list, under varying error members.
	90006: Unavailable, 90012: Unavailable, 90024: Unavailable, 90033: Unavailable, 90055: Unavailable,

	// invalid_grant or interaction_required, but signing in again leads to the
	// same answer: Conditional Access.
	53000: Forbidden, 53001: Forbidden, 53002: Forbidden, 53003: Forbidden,
	530003: Forbidden, 530032: Forbidden, 530034: Forbidden,
	// The same for a disabled or locked account, an application that asks for
	// an assignment, and missing consent (also seen without the suberror).
	50053: Forbidden, 50057: Forbidden, 50105: Forbidden, 65001: Forbidden, 90094: Forbidden,
	// invalid_grant, but the account is looked for in the wrong directory.
	50034: Misconfigured,

	// invalid_client although the credential was not looked at: no service
	// principal in the tenant, none sent where one is due, one sent where none
	// is due, a scope that a Microsoft client may not ask for.
	7000229: Forbidden, 7000218: Misconfigured, 700025: Misconfigured, 65002: Misconfigured,
	// The same where the tenant does not have the service asked for.
	650052: Misconfigured,
	// unauthorized_client is said of a disabled application and of one that
	// the tenant does not know; the latter has also been seen as invalid_client.
	7000112: Forbidden, 700016: Misconfigured,
	// No federated credential matches: invalid_request or invalid_client.
	70021: Refused, 700211: Refused, 700212: Refused, 700213: Refused,
}

// Number is the AADSTS number, 0 where the answer had none. It is for help
// (package explain), not for decisions.
func (e *Error) Number() int {
	if len(e.Numbers) == 0 {
		return 0
	}
	return e.Numbers[0]
}

// Error says what was tried, what came back (HTTP status, AADSTS number, first
// line of the description), and the ids by which Microsoft finds the request.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.URL != "" {
		fmt.Fprintf(&b, ": %s", hostOf(e.URL))
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": HTTP %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", line(e.Code))
	}
	if n := e.Number(); n != 0 && !strings.Contains(e.summary(), fmt.Sprintf("AADSTS%d", n)) {
		fmt.Fprintf(&b, ": AADSTS%d", n)
	}
	if s := e.summary(); s != "" {
		fmt.Fprintf(&b, ": %s", s)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	var ids []string
	if e.TraceID != "" {
		ids = append(ids, "trace "+line(e.TraceID))
	}
	// Without an answer nobody at Microsoft knows the id.
	if e.CorrelationID != "" && (e.Status != 0 || e.Code != "") {
		ids = append(ids, "correlation "+line(e.CorrelationID))
	}
	if len(ids) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(ids, ", "))
	}
	return b.String()
}

// summary is the first line of the description, fit for one line of a log.
func (e *Error) summary() string {
	return strings.TrimSuffix(line(e.Description), ".")
}

// Unwrap gives Err, so that errors.Is finds context.Canceled and the like.
func (e *Error) Unwrap() error { return e.Err }
