package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
)

// exitCode is the process's exit code; scripts rely on it.
type exitCode int

const (
	done           exitCode = 0
	failed         exitCode = 1
	wrongUsage     exitCode = 2
	signInRequired exitCode = 3
	notFound       exitCode = 4
	refused        exitCode = 5
	nameTaken      exitCode = 6
	unavailable    exitCode = 7
	interrupted    exitCode = 130
)

const exitCodeHelp = `Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 sign-in
required, 4 no such app password, profile or application, 5 refused by the
tenant, 6 name already taken, 7 unavailable for now (worth a retry),
130 interrupted.`

var errInterrupted = errors.New("interrupted")

// usageError is a call that cannot be meant so.
type usageError struct {
	problem string
	hint    string // the next command, or what to add
}

func (e *usageError) Error() string { return e.problem }

// signInError tells that no sign-in to Graph is there, or that it has ended.
type signInError struct {
	err      error  // why the sign-in is no longer good; nil: there is none
	keychain error  // why there can be none here
	hint     string // what to do instead, where that is known
}

func (e *signInError) Error() string {
	switch {
	case e.keychain != nil:
		return fmt.Sprintf("not signed in: %v", e.keychain)
	case e.err == nil:
		return "not signed in"
	}
	return fmt.Sprintf("the sign-in is no longer good: %v", e.err)
}

func (e *signInError) Unwrap() error { return e.err }

// unattendedError is a refusal of the credentials in the environment, which
// are not those of an app password.
type unattendedError struct {
	by  signInKind
	err error
}

func (e *unattendedError) Error() string {
	with := string(e.by)
	switch e.by {
	case byClientSecret, byCertificate, byTokenFile, byToken, byGitHub:
		with = "AZURE_CLIENT_ID and " + with
	}
	return fmt.Sprintf("sign in with %s: %v", with, e.err)
}

func (e *unattendedError) Unwrap() error { return e.err }

// refusedHint is what to look at where Entra does not take the credential. It is
// empty where the table of Entra's errors says it better.
func (e *unattendedError) refusedHint(err *entra.Error) string {
	numbered := func(numbers ...int) bool {
		return slices.ContainsFunc(numbers, func(n int) bool { return slices.Contains(err.Numbers, n) })
	}
	if err.Kind() != entra.Refused {
		return ""
	}
	switch e.by {
	case byClientSecret:
		return "check AZURE_CLIENT_ID and AZURE_CLIENT_SECRET: the secret has expired, or its id was taken for its value"
	case byCertificate:
		return "check AZURE_CLIENT_ID, and that the certificate is among those of the application: az ad app credential list --cert --id CLIENT_ID"
	case byTokenFile, byToken, byGitHub, byAzurePipelines:
		switch {
		case numbered(70021, 700211, 700212, 700213):
			return "register issuer, subject and audience as the message quotes them: az ad app federated-credential create --id CLIENT_ID"
		case numbered(50013, 50027):
			return "the token was cut or changed on its way, or it is not the issuer's: take it as the platform gives it"
		case numbered(700024) && e.by == byToken:
			return "the token in AZURE_FEDERATED_TOKEN has expired: a job gets one, when it starts; give the command a job of its own"
		case numbered(700024) && e.by == byTokenFile:
			return "the token in AZURE_FEDERATED_TOKEN_FILE has expired: see that who writes the file still replaces it"
		}
	}
	return ""
}

// failedError ends a command whose failures have been told one by one, or that
// needs no more words.
type failedError struct {
	code exitCode
	msg  string
	hint string
	errs []error // what it stands for
}

func (e *failedError) Error() string { return e.msg }

func (e *failedError) Unwrap() []error { return e.errs }

// requestID is what support asks for, where the error has it.
func requestID(err error) string {
	if e, ok := errors.AsType[*graph.Error](err); ok {
		return e.RequestID
	}
	if e, ok := errors.AsType[*entra.Error](err); ok {
		return e.TraceID
	}
	return ""
}

// report prints err and gives the exit code.
func (a *app) report(err error) int {
	adv := a.advise(err)
	if errors.Is(err, syscall.EPIPE) && adv.hint == "" {
		return int(adv.code) // whoever read has seen enough
	}
	msg := printable(err.Error())
	if adv.code == interrupted {
		msg = "interrupted"
		if e, ok := errors.AsType[*apppassword.LeftBehindError](err); ok {
			msg = printable(e.Error())
			adv.hint = a.advise(e).hint
		}
		if e, ok := errors.AsType[*apppassword.OldLeftError](err); ok {
			msg, adv.hint = printable(e.Error()), finishCommand(e.Name)
		}
		if e, ok := errors.AsType[*unprintedError](err); ok {
			msg = printable(e.Error())
			adv.hint = a.advise(e).hint
		}
	}
	if a.structured() {
		o := errorJSON{Code: int(adv.code), Message: msg, Hint: adv.hint, RequestID: requestID(err), Warnings: a.warnings}
		b, merr := json.Marshal(o)
		if merr == nil {
			fmt.Fprintf(a.Stderr, "%s\n", b)
			return int(adv.code)
		}
	}
	if msg != "" {
		fmt.Fprintf(a.Stderr, "o365pw: %s\n", msg)
	}
	if adv.hint != "" {
		fmt.Fprintf(a.Stderr, "hint: %s\n", printable(adv.hint))
	}
	return int(adv.code)
}

// errorJSON is the error object under -o json.
type errorJSON struct {
	Code      int      `json:"code"` // the exit code
	Message   string   `json:"message"`
	Hint      string   `json:"hint"`
	RequestID string   `json:"requestId"`
	Warnings  []string `json:"warnings,omitempty"`
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

// asArgument writes a name so that it is taken for one, also when it looks
// like a flag.
func asArgument(name string) string {
	if strings.HasPrefix(name, "-") {
		return "-- " + shellQuote(name)
	}
	return shellQuote(name)
}

// shellQuote writes s so that a person can paste it into a shell.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@%+/-") == "" && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
