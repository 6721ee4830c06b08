// Package graph speaks to Microsoft Graph: it makes application registrations
// with their service principals, permissions and certificates, adds and removes
// their client secrets ("password credentials"), reads what stands in the way of
// mail, and sends mail.
//
// What it guarantees:
//
//   - A request that may have worked is never repeated blindly. AddPassword
//     looks an unanswered credential up by its name and start time and removes
//     it before it tries once more; what could not be settled is named in an
//     *AmbiguousError.
//   - SendMIME sends a request once. Where its answer was lost, the error says so
//     (Error.Ambiguous), and SentMessage tells what became of it.
//   - What the Ensure methods find as it is wanted, they do not write; what
//     administrators have added, they keep. Each may be called again after it was
//     cut off at any point.
//   - RemovePassword returns nil only when Graph took the removal (or a read
//     had shown the credential) and several reads in a row no longer have it:
//     Graph's reads lag its writes and may flip between replicas.
//   - Throttling (429, and 503 or 504 where a repeat is safe) is waited out for
//     at most Client.MaxWait; what lasts longer is an *Error whose Temporary
//     method says true.
//   - The access token goes to the host of BaseURL alone: redirects are not
//     followed, and paging links to other hosts are errors.
//   - No error and no log line holds a token, a secret or a query string.
//
// What it cannot promise: Graph has no idempotency key, so a credential made by
// a request whose answer was lost may appear after every look-up has ended.
package graph

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Client calls one Microsoft Graph. BaseURL and Token must be set; the zero
// value of every other field is a good default. A Client is safe for concurrent
// use and must not be copied after its first use.
type Client struct {
	// BaseURL is the service root with the version and without a slash at its
	// end: https://graph.microsoft.com/v1.0.
	BaseURL string

	// HTTP sends the requests; nil means http.DefaultClient. Its CheckRedirect
	// is not used.
	HTTP *http.Client

	// UserAgent goes with every request; empty means "o365pw".
	UserAgent string

	// Token gives the access token. It is asked before every request, also
	// before repeats, so it should cache. Its errors are wrapped and returned.
	Token func(context.Context) (secret.Text, error)

	// MaxWait bounds the sum of the waits that throttling causes within one
	// method call. 0 means 2 minutes.
	MaxWait time.Duration

	// Timeout bounds one request with its answer. 0 means 30 seconds.
	Timeout time.Duration

	// Pause is the first of the growing pauses between repeats and between
	// reads that do not agree yet. 0 means 1 second.
	Pause time.Duration

	// ConfirmWait bounds the removal of one credential with its confirmation,
	// and the clean-up after an unanswered AddPassword. 0 means 90 seconds.
	ConfirmWait time.Duration

	// Throttle is shared by Clients that work on one tenant at the same time; nil
	// means that this one works alone.
	Throttle *Throttle

	// Log gets a line per request at debug level: method, URL without query,
	// status, ids and time taken. nil means none.
	Log *slog.Logger

	// Progress is told, in one short sentence, why a call takes long: "Microsoft
	// Graph asks to wait 30s". It is called from the goroutine of the call. nil
	// means nobody is told.
	Progress func(string)

	mu    sync.Mutex
	known map[string]time.Time // key id → start by the local clock, of credentials known to have been there
}

// Application is an app registration, as far as it is read here.
type Application struct {
	ID          string // object id, a GUID; not the client id
	AppID       string // client id, a GUID
	DisplayName string // may be empty

	PasswordCredentials []PasswordCredential

	// ApplicationByUniqueName, ApplicationRegistration and EnsureApplication
	// give these as well, the other calls do not.
	Registration   Registration
	SignInAudience string    // AzureADMyOrg: people and programs of this tenant alone
	Created        time.Time // UTC; zero where Graph has none
	Fresh          bool      // made in the last ten minutes: not all of Entra may know it yet
}

// PasswordCredential is a client secret as Graph lists it, without its text.
// https://learn.microsoft.com/graph/api/resources/passwordcredential
type PasswordCredential struct {
	KeyID       string    // GUID, in lower case; the only handle, as names are not unique
	DisplayName string    // may be empty
	Hint        string    // first three characters of the secret; may be empty
	Start, End  time.Time // UTC; zero where Graph has none
}

// NewPassword is what AddPassword asks for.
type NewPassword struct {
	// DisplayName names the credential; needed, since an unanswered request is
	// looked up by it.
	DisplayName string

	// Start is when the credential begins to be good. Zero, the usual choice,
	// means now by Graph's clock, so that a wrong local clock does no harm.
	Start time.Time

	// End is when it ends. Zero means what Graph chooses (two years).
	End time.Time

	// BeforeSend, where set, is called right before each request with the start
	// time the credential will carry, to the microsecond: a caller that writes
	// it down can find the credential with Orphans after a crash. On an error
	// nothing is sent.
	BeforeSend func(start time.Time) error
}
