package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// deviceCode is a device authorization (RFC 8628) and what became of it.
type deviceCode struct {
	in       realm
	app      *application
	userCode string
	scope    scope
	interval time.Duration
	polled   time.Time
	expires  time.Time
	person   *person // once signed in
	declined bool
	used     bool
}

// serveDeviceCode is the device authorization endpoint.
func (s *Server) serveDeviceCode(w http.ResponseWriter, r *http.Request) {
	form, refusal := readForm(r)
	var in realm
	if refusal == nil {
		in, refusal = s.realm(r)
	}
	if refusal == nil && form.Get("client_id") == "" {
		refusal = missing("client_id")
	}
	if refusal == nil && form.Get("scope") == "" {
		refusal = missing("scope")
	}
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	code, d, refusal := s.newDeviceCode(in, form)
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	page := s.authority + "/devicelogin"
	writeJSON(w, http.StatusOK, struct {
		UserCode   string `json:"user_code"`
		DeviceCode string `json:"device_code"`
		URI        string `json:"verification_uri"`
		ExpiresIn  int    `json:"expires_in"`
		Interval   int    `json:"interval"`
		Message    string `json:"message"`
	}{
		d.userCode, code, page, int(s.DeviceCodeLife / time.Second),
		int((s.DeviceInterval + time.Second - 1) / time.Second),
		fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", page, d.userCode),
	})
}

func (s *Server) newDeviceCode(in realm, form url.Values) (string, *deviceCode, *oauthError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked()
	app, refusal := s.publicClientLocked(in, form)
	if refusal != nil {
		return "", nil, refusal
	}
	if !app.fallbackPublic {
		return "", nil, &oauthError{code: "invalid_client", number: 7000218,
			text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	sc, refusal := s.delegatedScopeLocked(app, form.Get("scope"), nil)
	if refusal != nil {
		return "", nil, refusal
	}
	d := &deviceCode{
		in: in, app: app, scope: sc, interval: s.DeviceInterval, expires: s.nowLocked().Add(s.DeviceCodeLife),
		userCode: randomText(9, "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"),
	}
	if s.AutoSignIn {
		d.person = s.first(in)
	}
	code := newToken(150, 250)
	s.entra.devices[code] = d
	return code, d, nil
}

// redeemDeviceLocked is RFC 8628 section 3.4, with Entra's error codes.
func (s *Server) redeemDeviceLocked(app *application, form url.Values) (*grant, *oauthError) {
	text := form.Get("device_code")
	if text == "" {
		return nil, missing("device_code")
	}
	d, now := s.entra.devices[text], s.nowLocked()
	switch {
	case d == nil || d.app != app || d.used:
		return nil, &oauthError{code: "bad_verification_code", number: 70018,
			text: "Bad verification code. Invalid verification code due to user typing in wrong user code for device code flow."}
	case !now.Before(d.expires):
		return nil, &oauthError{code: "expired_token", number: 70019, text: "Verification code expired."}
	case s.Faults.DeviceCodeBlocked:
		return nil, blockedByPolicy()
	case d.declined:
		return nil, &oauthError{code: "authorization_declined", number: 70017, text: "User declined to authorize the device."}
	}
	early := !d.polled.IsZero() && now.Sub(d.polled) < d.interval
	d.polled = now
	switch {
	case early && d.person == nil:
		d.interval += 5 * time.Second // RFC 8628 section 3.5
		return nil, &oauthError{code: "slow_down", number: 70016, text: "The client is polling too often."}
	case d.person == nil:
		return nil, &oauthError{code: "authorization_pending", number: 70016,
			text: "OAuth 2.0 device flow error. Authorization is pending. Continue polling."}
	}
	d.used = true
	sc, refusal := s.delegatedScopeLocked(app, d.scope.asked, d.person)
	if refusal != nil {
		return nil, refusal
	}
	return &grant{kind: "device_code", app: app, person: d.person, scope: sc}, nil
}

func (s *Server) serveDevicePage(w http.ResponseWriter, r *http.Request) {
	people := s.people(common, "")
	if len(people) > 0 {
		people[0].Suggested = true
	}
	s.writePage(w, http.StatusOK, devicePage, pageData{UserCode: r.URL.Query().Get("user_code"), People: people})
}

// serveDeviceAnswer takes the answer of the device page: user_code, and either
// user (a user principal name) with action=accept, or action=decline.
func (s *Server) serveDeviceAnswer(w http.ResponseWriter, r *http.Request) {
	form, refusal := readForm(r)
	if refusal == nil {
		refusal = s.answerDevice(form)
	}
	if refusal != nil {
		s.signInError(w, refusal)
		return
	}
	data := pageData{Title: "You have signed in", Text: "You may now close this window."}
	if form.Get("action") == "decline" {
		data.Title = "You have declined"
	}
	s.writePage(w, http.StatusOK, messagePage, data)
}

func (s *Server) answerDevice(form url.Values) *oauthError {
	userCode := strings.ToUpper(strings.TrimSpace(form.Get("user_code")))
	s.mu.Lock()
	defer s.mu.Unlock()
	var d *deviceCode
	for _, one := range s.entra.devices {
		if one.userCode == userCode {
			d = one
		}
	}
	if d == nil || d.used || d.declined || d.person != nil || !s.nowLocked().Before(d.expires) {
		return &oauthError{number: 70018, text: "That code didn't work. Check the code and try again."}
	}
	if form.Get("action") == "decline" {
		d.declined = true
		return nil
	}
	p, refusal := s.signIn(d.in, form.Get("user"))
	if refusal != nil {
		return refusal
	}
	d.person = p
	return nil
}
