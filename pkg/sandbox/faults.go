package sandbox

import (
	"encoding/json"
	"fmt"
	"time"
)

// Faults are what goes wrong in the sandbox. The zero value is a service on a
// good day. Fields called …Next count down, one for each request they spoil;
// the others hold until changed.
//
// In JSON (GET and PUT {authority}/sandbox/faults) times are written as Go
// durations, such as "1m30s".
type Faults struct {
	// ThrottleNext Graph calls get 429, ServerErrorNext get ServerErrorStatus
	// (0: 503). Both carry Retry-After where RetryAfter, in seconds, is not 0.
	ThrottleNext      int `json:"throttleNext"`
	RetryAfter        int `json:"retryAfter"`
	ServerErrorNext   int `json:"serverErrorNext"`
	ServerErrorStatus int `json:"serverErrorStatus"`
	// ThrottleEvery, where not 0, gives each call of Graph whose number it divides
	// the same answer as ThrottleNext.
	ThrottleEvery int `json:"throttleEvery"`
	// GarbageNext Graph calls are answered, without being carried out, by
	// something that is not Graph's JSON: pages of proxies, cut off JSON,
	// values of the wrong type, in turn.
	GarbageNext int `json:"garbageNext"`
	// LoseAddPassword calls are carried out and the connection is cut before
	// the answer; DropAddPassword calls are cut before they are carried out.
	LoseAddPassword    int `json:"loseAddPassword"`
	DropAddPassword    int `json:"dropAddPassword"`
	LoseRemovePassword int `json:"loseRemovePassword"`
	DropRemovePassword int `json:"dropRemovePassword"`
	// LoseWriteNext calls of Graph with POST, PATCH or DELETE are carried out
	// and the connection is cut before the answer; DropWriteNext calls are cut
	// before they are carried out. SkipWrites such calls go well before either
	// begins. Calls that are refused count for LoseWriteNext and SkipWrites as
	// none.
	LoseWriteNext int `json:"loseWriteNext"`
	DropWriteNext int `json:"dropWriteNext"`
	SkipWrites    int `json:"skipWrites"`
	// SendErrorNext calls of sendMail get SendErrorStatus (0: 503), with Retry-After
	// where RetryAfter is not 0; where SendErrorDone, after they were carried out.
	SendErrorNext   int  `json:"sendErrorNext"`
	SendErrorStatus int  `json:"sendErrorStatus"`
	SendErrorDone   bool `json:"sendErrorDone"`
	// SendLoseNext calls of sendMail are carried out and the connection is cut
	// before the answer; SendDropNext calls are cut before they are carried out.
	// SendStallNext calls are not carried out either, and get no answer for as
	// long as the client waits.
	SendLoseNext  int `json:"sendLoseNext"`
	SendDropNext  int `json:"sendDropNext"`
	SendStallNext int `json:"sendStallNext"`
	// SendLate is how long Graph takes to answer a sendMail that it has carried
	// out. Setting it to 0 lets the answers go that are held back.
	SendLate time.Duration `json:"sendLate"`
	// SendForbidden refuses every sendMail and every look into Sent Items, as an
	// application access policy does (403 ErrorAccessDenied).
	SendForbidden bool `json:"sendForbidden"`
	// SentItemsDelay is the age at which the copy of what was sent by sendMail
	// appears in Sent Items; setting it to 0 brings all. SentItemsDown answers
	// every look into Sent Items by Graph with 503.
	SentItemsDelay time.Duration `json:"sentItemsDelay"`
	SentItemsDown  bool          `json:"sentItemsDown"`
	// GraphDown cuts every connection to Graph.
	GraphDown bool `json:"graphDown"`
	// Forbidden answers every Graph call with 403 Authorization_RequestDenied.
	Forbidden bool `json:"forbidden"`
	// NextLinkBase, where not empty, replaces Graph's own base URL in
	// @odata.nextLink, as a hostile answer would.
	NextLinkBase string `json:"nextLinkBase"`

	// ReplicationDelay is the age at which a new secret is accepted by Entra
	// and shown in listings, and until which removePassword does not find it;
	// and how long a removed one still is accepted and listed. ListLag is the
	// same for listings alone. Both are looked at when a request comes, so
	// setting them to 0 completes every replication.
	ReplicationDelay time.Duration `json:"replicationDelay"`
	ListLag          time.Duration `json:"listLag"`

	// AppReplicationDelay is the age at which a new application and a new
	// service principal are known everywhere. Until then Graph answers 404
	// where they are read or used, 403 where a service principal is made for
	// such an application, and Entra does not know them. Only what is asked
	// for by uniqueName with PATCH is known at once: names are unique.
	AppReplicationDelay time.Duration `json:"appReplicationDelay"`
	// GrantDelay is the age at which a role assignment or a delegated grant
	// shows in new tokens.
	GrantDelay time.Duration `json:"grantDelay"`

	// PolicyForbidsSecrets refuses addPassword; PolicyMaxLifetime, where not
	// 0, refuses longer lives, PolicyMaxCertificateLifetime those of
	// certificates. All show in the default app management policy unless
	// PolicyUnreadable answers 403 there. They hold for every application.
	PolicyForbidsSecrets         bool          `json:"policyForbidsSecrets"`
	PolicyMaxLifetime            time.Duration `json:"policyMaxLifetime"`
	PolicyMaxCertificateLifetime time.Duration `json:"policyMaxCertificateLifetime"`
	PolicyUnreadable             bool          `json:"policyUnreadable"`

	// NoReport is a cloud whose Graph has no report on the sign-ins of
	// credentials, NoReportLicence a tenant without the licence that it takes.
	NoReport        bool `json:"noReport"`
	NoReportLicence bool `json:"noReportLicence"`

	// EntraDown cuts every connection to Entra. EntraStatus, where not 0, is
	// Entra's answer to every token request, with an OAuth error in JSON or,
	// with EntraPlain, with a page of HTML; RetryAfter holds for it too.
	// EntraGarbage answers 200 with something that is no token.
	EntraDown    bool `json:"entraDown"`
	EntraStatus  int  `json:"entraStatus"`
	EntraPlain   bool `json:"entraPlain"`
	EntraGarbage bool `json:"entraGarbage"`
	// ConditionalAccess refuses every token request (AADSTS53003),
	// NoServicePrincipal (7000229) and AppDisabled (7000112) those of the mail
	// application, RevokeRefreshTokens (50173) and SignInFrequency (70043)
	// every refresh token, DeviceCodeBlocked (53003) every poll of the device
	// flow. NoServicePrincipal ends when Graph is asked to create one, which
	// has a new object id and no permissions.
	ConditionalAccess   bool `json:"conditionalAccess"`
	NoServicePrincipal  bool `json:"noServicePrincipal"`
	AppDisabled         bool `json:"appDisabled"`
	RevokeRefreshTokens bool `json:"revokeRefreshTokens"`
	SignInFrequency     bool `json:"signInFrequency"`
	DeviceCodeBlocked   bool `json:"deviceCodeBlocked"`
	// NoConsent takes the consent to the delegated scopes of the mail
	// application away (65001). NoExchange is a tenant without Exchange's
	// service principal: Graph answers 404 for it, Entra 500011 for its tokens.
	// NoLicence is one that has not subscribed to it (650052), where nobody has
	// a plan for Exchange.
	NoConsent  bool `json:"noConsent"`
	NoExchange bool `json:"noExchange"`
	NoLicence  bool `json:"noLicence"`

	// ExchangeDown cuts all connections to Exchange, those that exist too.
	// ExchangeStall takes new ones and says nothing, not even TLS;
	// ExchangeStallAuth falls silent at AUTHENTICATE and AUTH.
	// ExchangeThrottled answers every command after sign-in with "Request is
	// throttled", by SMTP every MAIL with "Server busy".
	ExchangeDown      bool `json:"exchangeDown"`
	ExchangeStall     bool `json:"exchangeStall"`
	ExchangeStallAuth bool `json:"exchangeStallAuth"`
	ExchangeThrottled bool `json:"exchangeThrottled"`
	// ExchangeNotConnected accepts sign-ins and answers every command after
	// them with "User is authenticated but not connected."; by SMTP it refuses
	// for now what has been sent (430 4.2.0).
	ExchangeNotConnected bool `json:"exchangeNotConnected"`
	// SessionLife, where not 0, is the age at which Exchange ends a new
	// session as if its token had expired. 0 is the token's own expiry.
	SessionLife time.Duration `json:"sessionLife"`

	// ExchangePropagation is the age at which what was changed by PowerShell
	// takes effect on sign-ins. It is looked at when a sign-in comes, so
	// setting it to 0 completes all.
	ExchangePropagation time.Duration `json:"exchangePropagation"`

	// SMTPAuthDisabled refuses every sign-in by SMTP whose token is good (535
	// 5.7.139), whatever PowerShell has set. SMTPConcurrent refuses for now what has been sent (432 4.3.2),
	// SMTPStallData falls silent instead of answering it; both at the end of
	// DATA and at BDAT LAST.
	SMTPAuthDisabled bool `json:"smtpAuthDisabled"`
	SMTPConcurrent   bool `json:"smtpConcurrent"`
	SMTPStallData    bool `json:"smtpStallData"`
}

// duration is a time.Duration that is text in JSON.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v < 0 {
		err = fmt.Errorf("duration %q is negative", b)
	}
	*d = duration(v)
	return err
}

type plainFaults Faults

// faultsJSON is Faults in JSON: the fields here take the place of those of the
// same name in the embedded struct.
type faultsJSON struct {
	plainFaults
	ExchangePropagation duration `json:"exchangePropagation"`

	ReplicationDelay  duration `json:"replicationDelay"`
	ListLag           duration `json:"listLag"`
	PolicyMaxLifetime duration `json:"policyMaxLifetime"`
	SessionLife       duration `json:"sessionLife"`

	PolicyMaxCertificateLifetime duration `json:"policyMaxCertificateLifetime"`
	AppReplicationDelay          duration `json:"appReplicationDelay"`
	GrantDelay                   duration `json:"grantDelay"`

	SendLate       duration `json:"sendLate"`
	SentItemsDelay duration `json:"sentItemsDelay"`
}

// MarshalJSON writes every field, durations as text.
func (f Faults) MarshalJSON() ([]byte, error) {
	return json.Marshal(faultsJSON{
		ExchangePropagation: duration(f.ExchangePropagation),

		plainFaults:       plainFaults(f),
		ReplicationDelay:  duration(f.ReplicationDelay),
		ListLag:           duration(f.ListLag),
		PolicyMaxLifetime: duration(f.PolicyMaxLifetime),
		SessionLife:       duration(f.SessionLife),

		PolicyMaxCertificateLifetime: duration(f.PolicyMaxCertificateLifetime),
		AppReplicationDelay:          duration(f.AppReplicationDelay),
		GrantDelay:                   duration(f.GrantDelay),

		SendLate:       duration(f.SendLate),
		SentItemsDelay: duration(f.SentItemsDelay),
	})
}

// UnmarshalJSON replaces f by what data says; fields not named become zero. A
// name that is not a fault is an error, exact in case.
func (f *Faults) UnmarshalJSON(data []byte) error {
	if _, err := strictObject(data, faultNames()...); err != nil {
		return err
	}
	var w faultsJSON
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*f = Faults(w.plainFaults)
	f.ExchangePropagation = time.Duration(w.ExchangePropagation)
	f.ReplicationDelay = time.Duration(w.ReplicationDelay)
	f.ListLag = time.Duration(w.ListLag)
	f.PolicyMaxLifetime = time.Duration(w.PolicyMaxLifetime)
	f.SessionLife = time.Duration(w.SessionLife)
	f.PolicyMaxCertificateLifetime = time.Duration(w.PolicyMaxCertificateLifetime)
	f.AppReplicationDelay = time.Duration(w.AppReplicationDelay)
	f.GrantDelay = time.Duration(w.GrantDelay)
	f.SendLate = time.Duration(w.SendLate)
	f.SentItemsDelay = time.Duration(w.SentItemsDelay)
	return nil
}

// SetFaults changes the faults by f. It is safe at any time, and what it sets
// holds for every request that begins after it returns. f must not call the
// Server.
func (s *Server) SetFaults(f func(*Faults)) {
	s.mu.Lock()
	f(&s.Faults)
	s.wakeLocked()
	down := s.Faults.ExchangeDown
	s.mu.Unlock()
	if down && s.exchange != nil {
		s.exchange.cutAll()
	}
}

// CurrentFaults gives the faults in force, with what is left of their counts.
func (s *Server) CurrentFaults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Faults
}

// take uses up one of a count of s.Faults.
func (s *Server) take(count func(*Faults) *int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return takeOne(count(&s.Faults))
}

// takeOne uses up one of a count.
func takeOne(n *int) bool {
	if *n <= 0 {
		return false
	}
	*n--
	return true
}
