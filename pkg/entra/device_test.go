package entra

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func deviceReply(change map[string]any) reply {
	m := map[string]any{"device_code": "GMMhm-secret-code", "user_code": "ABCD1234", "verification_uri": "https://microsoft.com/devicelogin",
		"expires_in": 900, "interval": 5, "message": "To sign in, open the page."}
	for k, v := range change {
		m[k] = v
		if v == nil {
			delete(m, k)
		}
	}
	return reply{status: 200, body: toJSON(m)}
}

func TestDeviceCode(t *testing.T) {
	pending := errorReply(400, "authorization_pending", 70016)
	slower := errorReply(400, "slow_down", 0)
	lost := reply{status: 0}
	done := tokenReply(map[string]any{"refresh_token": "0.r"})
	tests := []struct {
		name    string
		answers []reply
		kind    Kind // "" is success
		took    time.Duration
		polls   int
	}{
		{"at once", []reply{deviceReply(nil), done}, "", 5 * time.Second, 1},
		{"pending", []reply{deviceReply(nil), pending, pending, done}, "", 15 * time.Second, 3},
		{"no interval", []reply{deviceReply(map[string]any{"interval": nil}), pending, done}, "", 10 * time.Second, 2},
		{"interval 0", []reply{deviceReply(map[string]any{"interval": 0}), done}, "", 5 * time.Second, 1},
		{"interval 2", []reply{deviceReply(map[string]any{"interval": "2"}), pending, done}, "", 4 * time.Second, 2},
		{"slow down", []reply{deviceReply(nil), slower, pending, slower, done}, "", (5 + 10 + 10 + 15) * time.Second, 4},
		{"outage", []reply{deviceReply(nil), lost, {status: 503}, pending, done}, "", (5 + 10 + 20 + 5) * time.Second, 4},
		{"throttled", []reply{deviceReply(nil), {status: 429, header: map[string]string{"Retry-After": "40"}}, done}, "", 45 * time.Second, 2},
		{"garbage", []reply{deviceReply(nil), {status: 200, body: "<html>"}, done}, "", 15 * time.Second, 2},
		{"declined", []reply{deviceReply(nil), pending, errorReply(400, "authorization_declined", 0)}, Declined, 10 * time.Second, 2},
		{"denied", []reply{deviceReply(nil), errorReply(400, "access_denied", 0)}, Declined, 5 * time.Second, 1},
		{"expired there", []reply{deviceReply(nil), errorReply(400, "expired_token", 70019)}, Expired, 5 * time.Second, 1},
		{"wrong code", []reply{deviceReply(nil), errorReply(400, "bad_verification_code", 70018)}, Expired, 5 * time.Second, 1},
		{"blocked", []reply{deviceReply(nil), errorReply(400, "invalid_grant", 53003)}, Forbidden, 5 * time.Second, 1},
		{"confidential client", []reply{deviceReply(nil), errorReply(401, "invalid_client", 7000218)}, Misconfigured, 5 * time.Second, 1},
		{"expired here", []reply{deviceReply(map[string]any{"expires_in": 12}), pending}, Expired, 12 * time.Second, 3},
		{"no expiry", []reply{deviceReply(map[string]any{"expires_in": -1, "interval": 60}), pending}, Expired, 15 * time.Minute, 15},
		{"unknown client", []reply{errorReply(400, "unauthorized_client", 700016)}, Misconfigured, 0, 0},
		{"no code", []reply{deviceReply(map[string]any{"device_code": nil})}, Unavailable, 0, 0},
		{"no address", []reply{deviceReply(map[string]any{"verification_uri": "javascript:alert(1)"})}, Unavailable, 0, 0},
		{"down", []reply{{status: 503}}, Unavailable, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, f := newBubbleClient(t, tt.answers...)
				shown := 0
				start := time.Now()
				got, err := c.SignInDeviceCode(t.Context(), testClient, "https://graph.microsoft.com/.default", func(d DeviceCode) {
					shown++
					if d.UserCode != "ABCD1234" || d.VerificationURI != "https://microsoft.com/devicelogin" || d.Message == "" {
						t.Errorf("shown %+v", d)
					}
				})
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if polls := len(f.got()) - 1; polls != tt.polls || shown != min(polls, 1) {
					t.Errorf("%d polls, shown %d times, want %d", polls, shown, tt.polls)
				}
				if tt.kind == "" {
					if err != nil || got.Access.IsZero() {
						t.Errorf("got %v, %v", got, err)
					}
					return
				}
				if e := asError(t, err); e.Kind() != tt.kind || strings.Contains(err.Error(), "secret-code") {
					t.Errorf("got %v (%s), want %s", err, e.Kind(), tt.kind)
				}
			})
		})
	}
}

func TestDeviceCodeForms(t *testing.T) {
	c, f := newClient(t, deviceReply(map[string]any{"interval": 0.1, "user_code": "AB\x1b[2JCD"}), tokenReply(nil))
	_, err := c.SignInDeviceCode(t.Context(), testClient, "https://graph.microsoft.com/.default", func(d DeviceCode) {
		if d.UserCode != "AB[2JCD" {
			t.Errorf("user code %q", d.UserCode)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ask, poll := f.got()[0], f.got()[1]
	if ask.path != "/"+testTenant+"/oauth2/v2.0/devicecode" || poll.path != "/"+testTenant+"/oauth2/v2.0/token" {
		t.Errorf("paths %s, %s", ask.path, poll.path)
	}
	if s := ask.form.Get("scope"); s != "https://graph.microsoft.com/.default openid profile offline_access" {
		t.Errorf("scope %q", s)
	}
	if poll.form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" ||
		poll.form.Get("device_code") != "GMMhm-secret-code" || poll.form.Get("client_id") != testClient || len(poll.form) != 3 {
		t.Errorf("poll %v", poll.form)
	}
}

func TestDeviceCodeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newBubbleClient(t, deviceReply(nil), errorReply(400, "authorization_pending", 70016))
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.SignInDeviceCode(ctx, testClient, "x", nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 12*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// When the code has run out in an outage, both are said.
func TestDeviceCodeOutageToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newBubbleClient(t, deviceReply(nil), reply{status: 0})
		_, err := c.SignInDeviceCode(t.Context(), testClient, "x", nil)
		if e := asError(t, err); e.Kind() != Expired || !strings.Contains(err.Error(), "connection reset") {
			t.Errorf("got %v", err)
		}
	})
}
