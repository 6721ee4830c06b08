package apppassword

import (
	"fmt"
	"strings"
	"time"
)

// InvalidError tells which input is wrong. Nothing has been asked of anybody.
type InvalidError struct {
	Field   string // "name", "mailbox", "protocol", "network", "expiry", "backing", "sender", "number of messages an hour", "login name"
	Value   string
	Problem string // completes "FIELD VALUE …"
	Needs   string // the protocol it has no meaning without; empty: none
}

// Error names the field, its value and what is wrong with it.
func (e *InvalidError) Error() string {
	if strings.TrimSpace(e.Value) == "" {
		return fmt.Sprintf("the %s %s", e.Field, e.Problem)
	}
	return fmt.Sprintf("the %s %q %s", e.Field, shorten(e.Value), e.Problem)
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// NameTakenError tells that the profile has an app password of that name.
type NameTakenError struct {
	Name   string // as it is written where it exists
	ID     string
	Status Status
}

// Error says who has the name: an app password of this machine or a credential made elsewhere.
func (e *NameTakenError) Error() string {
	switch e.Status {
	case RemoteOnly:
		return fmt.Sprintf("the application already has a credential named %q (%s), made elsewhere", e.Name, e.ID)
	case Revoked:
		return fmt.Sprintf("the name %q still belongs to an app password that was revoked; revoke it again to free the name", e.Name)
	}
	return fmt.Sprintf("there is already an app password named %q", e.Name)
}

// NotFoundError tells that no app password has that name or id.
type NotFoundError struct{ Arg string }

// Error repeats what was looked for.
func (e *NotFoundError) Error() string { return fmt.Sprintf("no app password %q", shorten(e.Arg)) }

// SeveralError tells that more than one credential has that name.
type SeveralError struct {
	Name    string
	Entries []Entry
}

// Error lists the ids to choose from, with the day each was made.
func (e *SeveralError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d credentials are named %q:", len(e.Entries), e.Name)
	for _, en := range e.Entries {
		fmt.Fprintf(&b, " %s (made %s)", en.ID, en.Created.UTC().Format(time.DateOnly))
	}
	return b.String()
}

// LeftBehindError tells that a credential could not be removed again after a
// failure. KeyIDs may be empty when Graph's answer was lost and no listing
// could be had.
type LeftBehindError struct {
	Name   string
	KeyIDs []string
	Cause  error // why the create failed
	Undo   error // why the undo failed
}

// Error says why the create failed, what was left in Entra, and why it could not be removed.
func (e *LeftBehindError) Error() string {
	if len(e.KeyIDs) == 0 && e.Undo == nil {
		return e.Cause.Error() // it names what it may have left
	}
	which := "possibly a client secret named " + fmt.Sprintf("%q", e.Name)
	if len(e.KeyIDs) > 0 {
		which = "client secret " + strings.Join(e.KeyIDs, ", ")
	}
	text := fmt.Sprintf("%v; %s was left in Entra", e.Cause, which)
	if e.Undo != nil {
		text += fmt.Sprintf(", since removing it failed: %v", e.Undo)
	}
	return text
}

// Unwrap gives the cause and, where there is one, the failure of the undo.
func (e *LeftBehindError) Unwrap() []error {
	if e.Undo == nil {
		return []error{e.Cause}
	}
	return []error{e.Cause, e.Undo}
}

// PolicyError tells that the tenant's app management policy refuses the
// credential. Nothing was made.
type PolicyError struct {
	ForbidsSecrets bool          // no client secrets at all
	Max            time.Duration // longest life allowed; 0 where it could not be read
	Asked          time.Duration
	Shorter        time.Duration // what may be worth a try; 0 where nothing is
	Err            error
}

// Error says which restriction refused, with the answer of Graph.
func (e *PolicyError) Error() string {
	if e.ForbidsSecrets {
		return fmt.Sprintf("the tenant's policy forbids client secrets: %v", e.Err)
	}
	return fmt.Sprintf("the tenant's policy does not allow a life of %s: %v", Days(e.Asked), e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *PolicyError) Unwrap() error { return e.Err }

// Days writes a duration as whole days where it is some, else in Go's way.
func Days(d time.Duration) string {
	if d >= 24*time.Hour {
		return fmt.Sprintf("%dd", int(d.Round(time.Hour).Hours())/24)
	}
	return d.String()
}

// UnusableError tells that Entra refuses tokens for a reason that waiting does
// not mend, so that the new app password would never open a mailbox. It was
// removed again, or not made.
type UnusableError struct {
	Backing string // of the app password; empty: of a trial, for which none was made
	Rotated bool   // it was to be rotated, and is as it was
	Err     error
}

// Error says why Entra gives no token.
func (e *UnusableError) Error() string {
	if e.Rotated {
		return fmt.Sprintf("entra gives no token for Exchange by what was to stand behind it, so it was not rotated: %v", e.Err)
	}
	switch e.Backing {
	case "":
		return fmt.Sprintf("entra gives this application no token for Exchange: %v", e.Err)
	case BackingUser:
		return fmt.Sprintf("entra gives this sign-in no token for Exchange, so no app password was made: %v", e.Err)
	case BackingCertificate:
		return fmt.Sprintf("entra gives this certificate no token for Exchange, so no app password was made: %v", e.Err)
	}
	return fmt.Sprintf("entra gives this application no token for Exchange, so the app password was removed again: %v", e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *UnusableError) Unwrap() error { return e.Err }

// NotAcceptedError tells that Entra has given no token within the limit by a
// credential that is of no use without. It was removed again, or not made.
type NotAcceptedError struct {
	What string // "the new secret", "the certificate"
	Err  error  // of the last try
}

// Error says what was not accepted, and Entra's last answer.
func (e *NotAcceptedError) Error() string {
	return fmt.Sprintf("entra has not accepted %s in time: %v", e.What, e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *NotAcceptedError) Unwrap() error { return e.Err }

// NotRotatableError tells that an app password cannot be rotated: it is a decoy,
// was revoked, or is not this machine's.
type NotRotatableError struct {
	Name   string
	Decoy  bool
	Status Status // where it is no decoy
}

// Error says why not.
func (e *NotRotatableError) Error() string {
	switch {
	case e.Decoy:
		return fmt.Sprintf("%q is a decoy: it never signs in, so there is nothing to rotate", e.Name)
	case e.Status == RemoteOnly:
		return fmt.Sprintf("%q is not an app password of this machine, which has neither its mailboxes nor its password", e.Name)
	}
	return fmt.Sprintf("%q was revoked, and is not brought back", e.Name)
}

// OldLeftError tells that the old password of a rotation is shut out, or could not
// even be, and that something of it is left. The new one is good.
type OldLeftError struct {
	Name   string
	ID     string // of the old credential; the Entra keyId where Secret holds
	Secret bool   // there is a client secret of its own
	Err    error
}

// Error says what is left, and why.
func (e *OldLeftError) Error() string {
	what := "its item in the keychain"
	if e.Secret {
		what = "its client secret " + e.ID
	}
	return fmt.Sprintf("the new password of %q is good, but the old one and %s could not be removed: %v", e.Name, what, e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *OldLeftError) Unwrap() error { return e.Err }

// HalfRevokedError tells that Graph has taken the credential's removal, so that
// the password opens nothing any more, but that something of it is still on
// this machine. The same revoke again removes it.
type HalfRevokedError struct {
	Name string
	Left Leftover
	Err  error
}

// Leftover is what of a revoked app password is still there, in words.
type Leftover string

// What may be left.
const (
	InKeychain Leftover = "its item could not be taken out of the keychain"
	InRegistry Leftover = "its entry could not be taken out of the registry"
	InEntra    Leftover = "the client secret that it had before its rotation could not be removed"
)

// Error says what is done and what is left.
func (e *HalfRevokedError) Error() string {
	return fmt.Sprintf("%q is revoked, but %s: %v", e.Name, e.Left, e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *HalfRevokedError) Unwrap() error { return e.Err }

// SignInError tells that a person has to sign in for mail.
type SignInError struct {
	Profile  string
	Username string // whose sign-in it was; empty where nobody has signed in, or Entra names nobody
	Err      error  // why it is no longer good; nil: nobody has signed in
}

// Error says whose sign-in has ended and why, or that there is none.
func (e *SignInError) Error() string {
	switch {
	case e.Err == nil:
		return fmt.Sprintf("nobody has signed in for mail under profile %s", e.Profile)
	case e.Username == "":
		return fmt.Sprintf("the sign-in for mail of profile %s is no longer good: %v", e.Profile, e.Err)
	}
	return fmt.Sprintf("the sign-in for mail of %s is no longer good: %v", e.Username, e.Err)
}

// Unwrap gives the cause, which may be nil.
func (e *SignInError) Unwrap() error { return e.Err }

// ScopeError tells that a person's sign-in does not allow a protocol, since
// that was not asked for or not consented to.
type ScopeError struct {
	Protocol string
	Username string // may be empty
}

// Error names the protocol and the person.
func (e *ScopeError) Error() string {
	whose := "the sign-in for mail"
	if e.Username != "" {
		whose += " of " + e.Username
	}
	return fmt.Sprintf("%s does not allow %s: it was not consented to", whose, e.Protocol)
}

// GraphConsentError tells that a person's sign-in is good, but does not allow
// sending by Microsoft Graph.
type GraphConsentError struct {
	Username string // may be empty
	Err      error  // Entra's answer; nil: it was not asked
}

// Error names the person, the permission and the command that asks for it.
func (e *GraphConsentError) Error() string {
	whose := "the sign-in for mail"
	if e.Username != "" {
		whose += " of " + e.Username
	}
	text := whose + " does not allow sending by Graph: Mail.Send was not consented to; `o365pw login` asks for it where the profile has send = \"graph\""
	if e.Err != nil {
		text += fmt.Sprintf(": %v", e.Err)
	}
	return text
}

// Unwrap gives the cause, which may be nil.
func (e *GraphConsentError) Unwrap() error { return e.Err }
