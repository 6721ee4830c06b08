package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day = 24 * time.Hour
	// maxLife is beyond what anybody means, and within what RFC 3339 and
	// time.Duration can hold.
	maxLife = 100 * 365 * day

	expiryHint = "as in 180d, 12h, 2w, 2027-05-01 or 2027-05-01T12:00:00Z"
)

// units are what a duration is written in. Months and years are lengths here,
// not dates: a policy of Entra that allows P180D takes 6mo.
var units = map[string]time.Duration{
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": 7 * day, "mo": 30 * day, "y": 365 * day,
}

// ParseDuration reads 30d, 12h, 90m, 45s, 2w, 6mo (of 30 days) or 1y (of 365
// days), and several together, 1d12h. It refuses zero, signs, fractions, other
// units, and more than 100 years.
func ParseDuration(s string) (time.Duration, error) {
	rest := strings.ToLower(strings.TrimSpace(s))
	if rest == "" {
		return 0, errors.New("the duration is empty")
	}
	if rest[0] == '-' {
		return 0, fmt.Errorf("%q is negative", s)
	}
	var total time.Duration
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		number := rest[:digits]
		rest = rest[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))
		unit, ok := units[rest[:letters]]
		if number == "" || !ok {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		rest = rest[letters:]
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n > uint64((maxLife-total)/unit) {
			return 0, fmt.Errorf("%q is more than 100 years", s)
		}
		total += time.Duration(n) * unit
	}
	if total == 0 {
		return 0, fmt.Errorf("%q is no time at all", s)
	}
	return total, nil
}

// ParseExpiry reads when something ends: a duration from now (see
// ParseDuration), a date, or a time of RFC 3339. A date means the last second
// of that day where now is (now.Location), so that "2027-05-01" is good through
// that day. What is not after now, or more than 100 years away, is refused. The
// result is in UTC, in whole seconds.
func ParseExpiry(s string, now time.Time) (time.Time, error) {
	t, err := parseExpiry(s, now)
	if err != nil {
		return time.Time{}, err
	}
	if !t.After(now) {
		return time.Time{}, fmt.Errorf("%q is in the past", s)
	}
	return t, nil
}

// parseExpiry is ParseExpiry without the look at the clock: a date in a
// configuration file does not spoil it when it has passed.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return time.Time{}, errors.New("the expiry is empty")
	}
	var t time.Time
	var err error
	if date, derr := time.ParseInLocation(time.DateOnly, s, now.Location()); derr == nil {
		t = time.Date(date.Year(), date.Month(), date.Day(), 23, 59, 59, 0, now.Location())
	} else if t, err = time.Parse(time.RFC3339, strings.ToUpper(s)); err != nil {
		d, err := ParseDuration(s)
		if err != nil && strings.ContainsAny(s[:1], "0123456789") && strings.Count(s, "-") >= 2 {
			return time.Time{}, fmt.Errorf("%q is no date or time that there is", s)
		}
		if err != nil {
			return time.Time{}, err
		}
		t = now.Add(d)
	}
	if t.After(now.Add(maxLife + day)) {
		return time.Time{}, fmt.Errorf("%q is more than 100 years away", s)
	}
	return t.UTC().Truncate(time.Second), nil
}

// ParseSince reads when something began: a duration before now (see
// ParseDuration), a date, or a time of RFC 3339. A date means the first second
// of that day where now is (now.Location). What is after now is refused. The
// result is in UTC.
func ParseSince(s string, now time.Time) (time.Time, error) {
	text := strings.TrimSpace(s)
	t, err := time.ParseInLocation(time.DateOnly, text, now.Location())
	if err != nil {
		t, err = time.Parse(time.RFC3339, strings.ToUpper(text))
	}
	if err != nil {
		d, err := ParseDuration(text)
		if err != nil && strings.Count(text, "-") >= 2 {
			return time.Time{}, fmt.Errorf("%q is no date or time that there is", s)
		}
		if err != nil {
			return time.Time{}, err
		}
		t = now.Add(-d)
	}
	if t.After(now) {
		return time.Time{}, fmt.Errorf("%q is in the future", s)
	}
	return t.UTC(), nil
}
