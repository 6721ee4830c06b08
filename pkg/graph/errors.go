package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Error is a request that Graph refused, that failed on its way, or whose
// answer made no sense.
type Error struct {
	Method string
	URL    string // without query
	Status int    // HTTP status; 0 where no answer came

	// Code and Message are Graph's, taken from inside where the outer ones only
	// wrap others. Both can be empty. Control characters are gone.
	Code    string
	Message string
	Details []Detail

	RequestID       string        // Graph's request-id; what Microsoft's support asks for
	ClientRequestID string        // the one sent
	RetryAfter      time.Duration // what Graph asked to wait; 0: it did not say
	Waited          time.Duration // time spent waiting before giving up

	// Claims is the claims challenge of Continuous Access Evaluation, decoded:
	// JSON to pass on to Entra with the next token request. Empty: none.
	Claims string

	Err error // cause, for what is not in the answer; may be nil

	codes []string // every code in the answer, outermost first
	sent  bool     // the request may have reached Graph
}

// Detail is one item of the details of an error.
type Detail struct{ Code, Message, Target string }

// Error gives what was tried and what came of it, with the request-id.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.URL)
	var parts []string
	if e.Status != 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))))
	}
	if e.Code != "" {
		parts = append(parts, e.Code)
	}
	if e.Message != "" {
		parts = append(parts, strings.TrimRight(e.Message, ". "))
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	b.WriteString(strings.Join(parts, ": "))
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, ", asks to wait %s", e.RetryAfter)
	}
	if e.Waited >= time.Second {
		fmt.Fprintf(&b, ", after waiting %s", e.Waited.Round(time.Second))
	}
	switch {
	case e.RequestID != "":
		fmt.Fprintf(&b, " (request-id %s)", e.RequestID)
	case e.ClientRequestID != "":
		fmt.Fprintf(&b, " (client-request-id %s)", e.ClientRequestID)
	}
	return b.String()
}

// Unwrap gives the cause, which may be nil.
func (e *Error) Unwrap() error { return e.Err }

// HasCode says whether code is anywhere in the answer: outside, in an inner
// error, or in the details.
func (e *Error) HasCode(code string) bool {
	return slices.ContainsFunc(e.codes, func(c string) bool { return strings.EqualFold(c, code) })
}

// IsNotFound is a 404: no such application in this tenant, or not replicated
// yet, or an object id where a client id belongs.
func (e *Error) IsNotFound() bool { return e.Status == http.StatusNotFound }

// IsForbidden is a 403: the token or the person lacks the permission.
func (e *Error) IsForbidden() bool { return e.Status == http.StatusForbidden }

// IsConflict says that what was to be made is there already.
func (e *Error) IsConflict() bool {
	return e.Status == http.StatusConflict || e.Status == http.StatusBadRequest &&
		(e.HasCode("Request_MultipleObjectsWithSameKeyValue") || e.HasCode("ObjectConflict") || e.says("already exists"))
}

// IsUnauthorized is a 401: the token is missing, over, revoked or meant for
// something else. See Claims.
func (e *Error) IsUnauthorized() bool { return e.Status == http.StatusUnauthorized }

// IsThrottled is a 429 that outlasted Client.MaxWait.
func (e *Error) IsThrottled() bool { return e.Status == http.StatusTooManyRequests }

// Temporary says that the same call may work later: no answer, throttling, a
// fault of the server, or an answer that made no sense. What the caller ended
// himself is not temporary.
func (e *Error) Temporary() bool {
	if errors.Is(e.Err, context.Canceled) {
		return false
	}
	return e.Status < 300 || e.Status == http.StatusRequestTimeout ||
		e.Status == http.StatusTooManyRequests || e.Status >= 500
}

// IsNoSuchCredential is the answer of removePassword to a key id it does not
// find. Graph gives it as well for a credential made moments ago.
func (e *Error) IsNoSuchCredential() bool {
	return e.Status == http.StatusBadRequest && e.says("no password credential found")
}

// PolicyForbidsSecrets says that an app management policy of the tenant forbids
// client secrets.
func (e *Error) PolicyForbidsSecrets() bool {
	return e.HasCode("CredentialTypeNotAllowedAsPerAppPolicy") ||
		e.Status == http.StatusBadRequest && e.says("credential type not allowed as per assigned policy")
}

// PolicyLifetime says that an app management policy of the tenant forbids a
// lifetime as long as the one asked for. The answer does not say which it
// allows; AppManagementPolicy may.
func (e *Error) PolicyLifetime() bool {
	return e.HasCode("CredentialInvalidLifetimeAsPerAppPolicy") ||
		e.Status == http.StatusBadRequest && e.says("credential lifetime exceeds the max value allowed")
}

// says looks for text (in lower case) in the messages. Codes are the better
// guide; this is for answers whose code is not documented.
func (e *Error) says(text string) bool {
	return strings.Contains(strings.ToLower(e.Message), text) ||
		slices.ContainsFunc(e.Details, func(d Detail) bool { return strings.Contains(strings.ToLower(d.Message), text) })
}

// Ambiguous says that the request may have done its work although it failed:
// it left this machine, and no answer says that nothing was done. Every 4xx
// says so, but 408, which proxies send for a server that fell silent.
func (e *Error) Ambiguous() bool {
	switch {
	case e.Status == 0:
		return e.sent
	case e.Status < 300, e.Status >= 500:
		return true
	}
	return e.Status == http.StatusRequestTimeout
}

// AmbiguousError says that an AddPassword whose answer was lost may have left a
// credential behind. Nobody has its secret. Orphans finds it by name and start.
type AmbiguousError struct {
	AppID  string
	Name   string
	Starts []time.Time // the start time of each request that was not settled
	KeyIDs []string    // credentials found and not removed; empty: none was found
	Err    error       // the failure that made it ambiguous

	// CleanUp is what the clean-up failed with; nil where its reads worked and
	// just did not find the credential.
	CleanUp error
}

// Error names what may be left.
func (e *AmbiguousError) Error() string {
	var b strings.Builder
	if len(e.KeyIDs) > 0 {
		fmt.Fprintf(&b, "a credential %q (key id %s) was left behind at application %s",
			e.Name, strings.Join(e.KeyIDs, ", "), e.AppID)
	} else {
		var starts []string
		for _, s := range e.Starts {
			starts = append(starts, s.Format(time.RFC3339))
		}
		fmt.Fprintf(&b, "a credential %q with start %s may have been left behind at application %s",
			e.Name, strings.Join(starts, " or "), e.AppID)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.CleanUp != nil {
		fmt.Fprintf(&b, "; its removal failed: %v", e.CleanUp)
	}
	return b.String()
}

// Unwrap gives the failure that made it ambiguous and that of the clean-up.
func (e *AmbiguousError) Unwrap() []error {
	if e.CleanUp == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.CleanUp}
}

// UnconfirmedError says that the reads after a removal did not agree that the
// credential is gone, or could not be made.
type UnconfirmedError struct {
	AppID, KeyID string
	Removed      bool  // Graph took the removal, or may have: an answer was lost
	Err          error // what the reads failed with; nil: they still show the credential
}

// Error says what is known of the removal.
func (e *UnconfirmedError) Error() string {
	s := fmt.Sprintf("the removal of credential %s of application %s is not confirmed", e.KeyID, e.AppID)
	if e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	return s + ": Graph still lists it"
}

// Unwrap gives what the reads failed with, which may be nil.
func (e *UnconfirmedError) Unwrap() error { return e.Err }
