package graph

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/o365pw/o365pw/pkg/secret"
)

// maxText bounds what is kept of a text that comes from outside.
const maxText = 1000

// isGUID takes the form 8-4-4-4-12 alone; uuid.Validate takes others as well.
func isGUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

type wireApplication struct {
	ID                  string            `json:"id"`
	AppID               string            `json:"appId"`
	DisplayName         *string           `json:"displayName"`
	PasswordCredentials *[]wireCredential `json:"passwordCredentials"`
}

type wireCredential struct {
	KeyID         string  `json:"keyId"`
	DisplayName   *string `json:"displayName"`
	Hint          *string `json:"hint"`
	SecretText    *string `json:"secretText"`
	StartDateTime *string `json:"startDateTime"`
	EndDateTime   *string `json:"endDateTime"`
}

func decodeApplication(body []byte) (Application, error) {
	var w wireApplication
	if err := json.Unmarshal(body, &w); err != nil {
		return Application{}, err
	}
	return w.application()
}

// application is strict where a mistake would cost something: an answer
// without passwordCredentials must not read as "all are gone".
func (w wireApplication) application() (Application, error) {
	if !isGUID(w.ID) || !isGUID(w.AppID) {
		return Application{}, errors.New("an application without id or appId")
	}
	if w.PasswordCredentials == nil {
		return Application{}, errors.New("an application without passwordCredentials")
	}
	app := Application{ID: strings.ToLower(w.ID), AppID: strings.ToLower(w.AppID), DisplayName: deref(w.DisplayName)}
	for _, wc := range *w.PasswordCredentials {
		cred, err := wc.credential()
		if err != nil {
			return Application{}, err
		}
		app.PasswordCredentials = append(app.PasswordCredentials, cred)
	}
	return app, nil
}

func (w wireCredential) credential() (PasswordCredential, error) {
	if !isGUID(w.KeyID) {
		return PasswordCredential{}, errors.New("a password credential without keyId")
	}
	cred := PasswordCredential{KeyID: strings.ToLower(w.KeyID), DisplayName: deref(w.DisplayName), Hint: deref(w.Hint)}
	var errStart, errEnd error
	cred.Start, errStart = decodeTime(w.StartDateTime)
	cred.End, errEnd = decodeTime(w.EndDateTime)
	return cred, errors.Join(errStart, errEnd)
}

// errAdded stands for whatever is wrong with the answer of addPassword. That
// answer holds the secret, and an error of encoding/json may quote its input.
var errAdded = errors.New("the answer is not a password credential with keyId and secretText")

func decodeAdded(body []byte) (PasswordCredential, secret.Text, error) {
	var w wireCredential
	if json.Unmarshal(body, &w) != nil || deref(w.SecretText) == "" {
		return PasswordCredential{}, secret.Text{}, errAdded
	}
	cred, err := w.credential()
	if err != nil {
		return PasswordCredential{}, secret.Text{}, errAdded
	}
	return cred, secret.New(*w.SecretText), nil
}

func decodeTime(s *string) (time.Time, error) {
	if s == nil || *s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil {
		return time.Time{}, fmt.Errorf("a time that is not ISO 8601: %q", clean(*s))
	}
	return t.UTC(), nil
}

// decodeError fills e from an answer that is no success. Whatever the body
// holds, it makes the best of it.
// https://learn.microsoft.com/graph/errors
func (e *Error) decode(header http.Header, body []byte, now time.Time) {
	e.RequestID = clean(header.Get("request-id"))
	e.RetryAfter = retryAfter(header, now)
	if e.Status == http.StatusUnauthorized {
		e.Claims = claimsChallenge(header)
	}
	var envelope map[string]json.RawMessage
	if json.Unmarshal(body, &envelope) != nil {
		e.Message = notJSON(header, body)
		return
	}
	raw := field(envelope, "error")
	var inner map[string]json.RawMessage
	if json.Unmarshal(raw, &inner) == nil && inner != nil {
		e.decodeMain(inner)
		return
	}
	// The shape of OAuth errors (RFC 6749 section 5.2), as proxies give it.
	e.addCode(text(raw))
	e.Message = clean(text(field(envelope, "error_description")))
	if e.Code == "" && e.Message == "" {
		e.Message = "an answer without error code"
	}
}

func (e *Error) decodeMain(m map[string]json.RawMessage) {
	e.addCode(text(field(m, "code")))
	message := text(field(m, "message"))
	// Some services behind Graph put a JSON object of their own in the message.
	var nested map[string]json.RawMessage
	if strings.HasPrefix(strings.TrimSpace(message), "{") && json.Unmarshal([]byte(message), &nested) == nil {
		e.addCode(text(field(nested, "errorCode")))
		e.addCode(text(field(nested, "code")))
		if s := text(field(nested, "message")); s != "" {
			message = s
		}
	}
	e.Message = clean(message)

	var details []map[string]json.RawMessage
	_ = json.Unmarshal(field(m, "details"), &details)
	for _, d := range details[:min(len(details), 20)] {
		detail := Detail{Code: clean(text(field(d, "code"))), Message: clean(text(field(d, "message"))), Target: clean(text(field(d, "target")))}
		e.Details = append(e.Details, detail)
		if detail.Code != "" {
			e.codes = append(e.codes, detail.Code)
		}
	}

	// Inner errors are more specific the deeper they are.
	for range 10 {
		var inner map[string]json.RawMessage
		if json.Unmarshal(field(m, "innerError"), &inner) != nil || inner == nil {
			return
		}
		if e.RequestID == "" {
			e.RequestID = clean(text(field(inner, "request-id")))
		}
		if code := clean(text(field(inner, "code"))); code != "" {
			e.codes = append(e.codes, code)
			if vague(e.Code) {
				e.Code = code
			}
		}
		if e.Message == "" {
			e.Message = clean(text(field(inner, "message")))
		}
		m = inner
	}
}

// addCode notes a code. It becomes the Code where that says nothing yet.
func (e *Error) addCode(code string) {
	if code = clean(code); code == "" {
		return
	}
	e.codes = append(e.codes, code)
	if vague(e.Code) {
		e.Code = code
	}
}

func vague(code string) bool { return code == "" || code == "UnknownError" }

// field finds a member whatever its case: Graph writes innerError and
// innererror.
func field(m map[string]json.RawMessage, name string) json.RawMessage {
	if v, ok := m[name]; ok {
		return v
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

// text is the string in raw, or empty where it is none.
func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// notJSON describes a body without quoting it: it is not Graph's, and may hold
// anything.
func notJSON(header http.Header, body []byte) string {
	if len(body) == 0 {
		return "an answer without body"
	}
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || len(kind) > 50 {
		kind = "unknown type"
	}
	return fmt.Sprintf("the answer is not JSON (%s, %d bytes); a proxy or sign-in page may stand between", clean(kind), len(body))
}

// clean makes text from outside fit for one line of a terminal or log.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // direction marks and the like
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "…"
	}
	return s
}

// retryAfter reads the Retry-After header (RFC 9110 section 10.2.3): seconds,
// or a date, which is taken relative to the answer's own Date so that a wrong
// local clock does no harm. 0 means that there is none that makes sense.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return max(0, at.Sub(now))
}

// claimsParameter is the claims parameter of a Bearer challenge.
var claimsParameter = regexp.MustCompile(`(?i)\bclaims="?([A-Za-z0-9+/_=-]+)`)

// claimsChallenge reads the claims that Continuous Access Evaluation asks for.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge
func claimsChallenge(header http.Header) string {
	for _, challenge := range header.Values("WWW-Authenticate") {
		if !strings.Contains(challenge, "insufficient_claims") {
			continue
		}
		m := claimsParameter.FindStringSubmatch(challenge)
		if m == nil {
			continue
		}
		encoding := base64.RawStdEncoding
		if strings.ContainsAny(m[1], "-_") {
			encoding = base64.RawURLEncoding
		}
		claims, err := encoding.DecodeString(strings.TrimRight(m[1], "="))
		if err == nil && json.Valid(claims) {
			return string(claims)
		}
	}
	return ""
}
