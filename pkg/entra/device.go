package entra

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	deviceCodeLife    = 15 * time.Minute // where expires_in is missing; Entra's own value
	longestDeviceCode = time.Hour
	pollInterval      = 5 * time.Second // RFC 8628 section 3.2, where interval is missing
	shortestPoll      = 100 * time.Millisecond
	longestPoll       = time.Minute
)

// DeviceCode is what a person needs to sign in with a browser anywhere
// (RFC 8628 section 3.2). Entra sends no verification_uri_complete.
type DeviceCode struct {
	UserCode        string    // to be typed in: "ABCD1234"
	VerificationURI string    // where: https://microsoft.com/devicelogin
	Message         string    // both in a sentence, in Entra's words; may be empty
	Expires         time.Time // when the code ends
}

// SignInDeviceCode lets a person sign in on another device (RFC 8628). show is
// called once with what to tell them; then Entra is asked, as often as it
// allows, whether they have. Outages meanwhile do not end it. scope is as for
// [Client.SignInBrowser]; the application must allow public client flows.
//
// A failure is an [*Error]: Declined when the person said no, Expired when the
// code ran out, Forbidden where the tenant blocks this flow (Conditional
// Access, "authentication flows"); it wraps ctx.Err() when ctx has ended.
func (c *Client) SignInDeviceCode(ctx context.Context, clientID, scope string, show func(DeviceCode)) (Token, error) {
	const op = "sign in with a device code"
	a, err := c.exchange(ctx, op, devicePath, url.Values{
		"client_id": {clientID},
		"scope":     {strings.Join(withSignInScopes(scope), " ")},
	})
	if err != nil {
		return Token{}, err
	}
	g, err := decodeGrant(a.members, time.Now())
	if err != nil {
		return Token{}, a.fail(err)
	}
	if show != nil {
		show(g.DeviceCode)
	}
	return c.poll(ctx, op, clientID, g)
}

// deviceGrant is a device authorization answer (RFC 8628 section 3.2).
type deviceGrant struct {
	DeviceCode
	code     string
	life     time.Duration
	interval time.Duration
}

func decodeGrant(m members, now time.Time) (deviceGrant, error) {
	g := deviceGrant{code: m.str("device_code")}
	g.UserCode = line(m.str("user_code"))
	g.VerificationURI = line(m.str("verification_uri"))
	g.Message = line(m.str("message"))
	u, err := url.Parse(g.VerificationURI)
	switch {
	case g.code == "" || g.UserCode == "":
		return g, errors.New("the answer holds no device code")
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		return g, errors.New("the answer holds no address to sign in at")
	}
	life, ok := m.seconds("expires_in", longestDeviceCode)
	if !ok || life == 0 {
		life = deviceCodeLife
	}
	interval, ok := m.seconds("interval", longestPoll)
	if !ok || interval == 0 {
		interval = pollInterval
	}
	g.life, g.interval = life, max(interval, shortestPoll)
	g.Expires = now.Add(life)
	return g, nil
}

// poll asks for the token until there is a decision (RFC 8628 section 3.5).
func (c *Client) poll(ctx context.Context, op, clientID string, g deviceGrant) (Token, error) {
	form := url.Values{
		"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
		"client_id":   {clientID},
		"device_code": {g.code},
	}
	var outage error // the latest, where nothing else has come since
	pause := g.interval
	for time.Until(g.Expires) > 0 {
		if err := sleep(ctx, min(pause, time.Until(g.Expires))); err != nil {
			return Token{}, &Error{Op: op, Err: err}
		}
		t, err := c.tokenOnce(ctx, op, form)
		if err == nil {
			return t, nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || ctx.Err() != nil {
			return Token{}, err
		}
		switch {
		case e.Code == "authorization_pending":
			pause, outage = g.interval, nil
		case e.Code == "slow_down":
			// For this and all later requests.
			g.interval += 5 * time.Second
			pause, outage = g.interval, nil
		case e.Kind() == Unavailable:
			// Back off as section 3.5 asks for after a timeout.
			pause, outage = max(e.RetryAfter, g.interval, min(2*pause, longestPoll)), err
		default:
			return Token{}, err
		}
	}
	err := fmt.Errorf("the code was not used within %v", g.life)
	if outage != nil {
		err = fmt.Errorf("%w; the last request failed: %w", err, outage)
	}
	return Token{}, &Error{Op: op, Err: err, kind: Expired}
}
