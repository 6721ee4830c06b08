package entra

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Lives assumed or allowed for an access token.
const (
	unknownLife = 5 * time.Minute // where expires_in is missing or unreadable
	longestLife = 24 * time.Hour  // whatever expires_in says
)

// members are those of a JSON object, each decoded when asked for, so that an
// odd one spoils no other.
type members map[string]json.RawMessage

func decodeObject(body []byte) (members, error) {
	var m members
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &m); err != nil || m == nil {
		// The decoder's message would quote the body.
		return nil, errors.New("the answer is not a JSON object")
	}
	return m, nil
}

// str is a string member, or "" where it is missing or something else.
func (m members) str(name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

// seconds reads a number of seconds, which some servers send as a string. ok
// is false where it is missing or no number. Large values end at limit, and
// negative ones at 0.
func (m members) seconds(name string, limit time.Duration) (d time.Duration, ok bool) {
	text := strings.TrimSpace(m.str(name))
	if text == "" {
		text = string(m[name])
	}
	f, err := strconv.ParseFloat(text, 64)
	if errors.Is(err, strconv.ErrRange) {
		err = nil // f is infinite
	}
	if err != nil || math.IsNaN(f) {
		return 0, false
	}
	f = max(0, min(f, limit.Seconds()))
	return time.Duration(f * float64(time.Second)), true
}

// time reads a time in seconds since 1970, as seconds does.
func (m members) time(name string) (at time.Time, ok bool) {
	const year2242 = 1 << 33 * time.Second
	since, ok := m.seconds(name, year2242)
	return time.Unix(0, 0).Add(since).UTC(), ok
}

// decodeToken reads a token answer (RFC 6749 section 5.1).
func decodeToken(m members, now time.Time) (Token, error) {
	access, refresh := m.str("access_token"), m.str("refresh_token")
	switch {
	case access == "":
		return Token{}, errors.New("the answer holds no access token")
	case !strings.EqualFold(m.str("token_type"), "bearer"):
		// A token of a type that is not understood must not be used
		// (RFC 6749 section 7.1).
		return Token{}, errors.New("the answer holds no bearer token")
	case !tokenText(access), !tokenText(refresh):
		return Token{}, errors.New("the answer holds a token with characters that no token has")
	}
	life, ok := m.seconds("expires_in", longestLife)
	if !ok {
		life = unknownLife
	}
	t := Token{
		Access: secret.New(access),
		// By the wall clock: the monotonic one stands still while a laptop sleeps.
		Expires:  now.Round(0).Add(life).UTC(),
		Scope:    m.str("scope"),
		Identity: decodeIdentity(m.str("id_token")),
	}
	if refresh != "" {
		t.Refresh = secret.New(refresh)
	}
	return t, nil
}

// tokenText reports whether s has only characters of a token: it goes into
// HTTP headers and SASL answers (RFC 6750 section 2.1, RFC 6749 appendix A.12;
// without the space, which no token has).
func tokenText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// decodeIdentity reads the claims of an ID token (a JWT, RFC 7519 section 3)
// that came straight from the token endpoint. Whatever is not as expected
// stays empty.
func decodeIdentity(idToken string) Identity {
	m, ok := jwtPayload(idToken)
	if !ok {
		return Identity{}
	}
	return Identity{
		Name:     m.first("name"),
		Username: m.first("preferred_username", "upn", "email"),
		Email:    m.first("email"),
		ObjectID: m.first("oid"),
		TenantID: m.first("tid"),
	}
}

// The places in a description where Entra repeats its other members; there
// alone they are found in an error that came through the browser.
var (
	numberText      = regexp.MustCompile(`AADSTS([0-9]{4,9})\b`)
	traceText       = regexp.MustCompile(`Trace ID: ([0-9A-Za-z-]{1,64})`)
	correlationText = regexp.MustCompile(`Correlation ID: ([0-9A-Za-z-]{1,64})`)
	timestampText   = regexp.MustCompile(`Timestamp: ([0-9TZ: -]{1,32})`)
)

// decode fills e from an error answer (RFC 6749 section 5.2 with Entra's
// members beside it). hide takes out what must not show.
func (e *Error) decode(m members, hide *strings.Replacer) {
	str := func(name string) string { return hide.Replace(m.str(name)) }
	e.Code = str("error")
	e.Suberror = str("suberror")
	e.Claims = str("claims")
	e.describe(str("error_description"))
	if n := m.numbers("error_codes"); len(n) > 0 {
		e.Numbers = n
	}
	setIf(&e.TraceID, str("trace_id"))
	setIf(&e.CorrelationID, str("correlation_id"))
	setIf(&e.Timestamp, str("timestamp"))
}

// describe sets the description and what can be read out of it.
func (e *Error) describe(description string) {
	e.Description = description
	if match := numberText.FindStringSubmatch(description); match != nil {
		if n, err := strconv.Atoi(match[1]); err == nil {
			e.Numbers = []int{n}
		}
	}
	find := func(re *regexp.Regexp) string {
		if match := re.FindStringSubmatch(description); match != nil {
			return strings.TrimSpace(match[1])
		}
		return ""
	}
	setIf(&e.TraceID, find(traceText))
	setIf(&e.CorrelationID, find(correlationText))
	setIf(&e.Timestamp, find(timestampText))
}

func setIf(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// numbers reads an array of whole positive numbers, leaving out the others.
func (m members) numbers(name string) []int {
	var raw []json.RawMessage
	if json.Unmarshal(m[name], &raw) != nil {
		return nil
	}
	var numbers []int
	for _, r := range raw {
		n, err := strconv.Atoi(strings.Trim(string(r), `"`))
		if err == nil && n > 0 && !slices.Contains(numbers, n) {
			numbers = append(numbers, n)
		}
		if len(numbers) == 8 {
			break
		}
	}
	return numbers
}

// line is the first line of a stranger's text, without anything that would
// move the cursor or turn the writing round, and not longer than a message
// should be.
func line(s string) string {
	const longest = 400
	s, _, _ = strings.Cut(strings.TrimLeftFunc(s, unicode.IsSpace), "\n")
	s, _, _ = strings.Cut(s, "\r")
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > longest {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar,
			unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
		default:
			b.WriteRune(r)
		}
	}
	return strings.TrimSpace(b.String())
}

// retryAfter reads the header (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	const longest = 24 * time.Hour
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, longest)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, min(at.Sub(now), longest))
	}
	return 0
}
