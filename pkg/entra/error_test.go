package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestKind(t *testing.T) {
	tests := []struct {
		status   int
		code     string
		suberror string
		number   int
		want     Kind
	}{
		{401, "invalid_client", "", 7000215, Refused},
		{401, "invalid_client", "", 7000222, Refused},
		{401, "invalid_client", "", 0, Refused},
		{401, "invalid_client", "", 700027, Refused},
		{401, "invalid_client", "", 700024, Refused},
		{400, "invalid_request", "", 70021, Refused},
		{401, "invalid_client", "", 700211, Refused},
		{400, "invalid_request", "", 700212, Refused},
		{401, "invalid_client", "", 700213, Refused},
		{401, "invalid_client", "", 7000218, Misconfigured},
		{401, "invalid_client", "", 700025, Misconfigured},
		{401, "invalid_client", "", 7000229, Forbidden},
		{401, "invalid_client", "", 65002, Misconfigured},
		{400, "unauthorized_client", "", 700016, Misconfigured},
		{400, "unauthorized_client", "", 7000112, Forbidden},
		{400, "unauthorized_client", "", 0, Misconfigured},
		{400, "invalid_request", "", 90002, Misconfigured},
		{400, "invalid_request", "", 900023, Misconfigured},
		{400, "invalid_request", "", 9001023, Misconfigured},
		{400, "invalid_request", "", 50194, Misconfigured},
		{400, "invalid_request", "", 900144, Misconfigured},
		{400, "invalid_scope", "", 70011, Misconfigured},
		{400, "invalid_request", "", 28002, Misconfigured},
		{400, "invalid_resource", "", 500011, Misconfigured},
		{400, "invalid_resource", "", 650057, Misconfigured},
		{401, "invalid_client", "", 650052, Misconfigured},
		{400, "invalid_grant", "consent_required", 65001, Forbidden},
		{400, "invalid_grant", "consent_required", 0, Forbidden},
		{400, "invalid_grant", "", 50034, Misconfigured},
		{400, "invalid_grant", "", 50126, SignInRequired},
		{400, "invalid_grant", "user_password_expired", 50055, SignInRequired},
		{400, "invalid_grant", "", 50057, Forbidden},
		{400, "invalid_grant", "", 50053, Forbidden},
		{400, "interaction_required", "basic_action", 50076, SignInRequired},
		{400, "invalid_grant", "basic_action", 50076, SignInRequired},
		{400, "invalid_grant", "", 50079, SignInRequired},
		{400, "interaction_required", "", 50074, SignInRequired},
		{400, "invalid_grant", "", 50078, SignInRequired},
		{400, "invalid_grant", "", 50132, SignInRequired},
		{400, "invalid_grant", "", 50133, SignInRequired},
		{400, "invalid_grant", "", 530003, Forbidden},
		{400, "interaction_required", "", 530003, Forbidden},
		{400, "invalid_grant", "", 53003, Forbidden},
		{400, "interaction_required", "", 53003, Forbidden},
		{400, "interaction_required", "", 530034, Forbidden},
		{400, "access_denied", "", 50105, Forbidden},
		{400, "invalid_grant", "", 50173, SignInRequired},
		{400, "invalid_grant", "bad_token", 700082, SignInRequired},
		{400, "invalid_grant", "", 70008, SignInRequired},
		{400, "invalid_grant", "", 700084, SignInRequired},
		{400, "invalid_grant", "", 70043, SignInRequired},
		{400, "invalid_grant", "", 70000, SignInRequired},
		{400, "invalid_grant", "", 50196, Unavailable},
		{400, "invalid_grant", "", 0, SignInRequired},
		{400, "temporarily_unavailable", "", 90033, Unavailable},
		{400, "invalid_grant", "", 90055, Unavailable},
		{400, "access_denied", "", 0, Declined},
		{400, "authorization_declined", "", 0, Declined},
		{400, "expired_token", "", 70019, Expired},
		{400, "bad_verification_code", "", 70018, Expired},
		{400, "never_seen_before", "", 0, Unavailable},
		{400, "", "", 7000215, Unavailable}, // decided by error, not by number
		{429, "invalid_client", "", 7000215, Unavailable},
		{503, "invalid_grant", "", 700082, Unavailable},
		{500, "", "", 0, Unavailable},
		{0, "access_denied", "", 0, Declined}, // through the browser
		{0, "", "", 0, Unavailable},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d_%s_%s_%d", tt.status, tt.code, tt.suberror, tt.number), func(t *testing.T) {
			e := &Error{Status: tt.status, Code: tt.code, Suberror: tt.suberror}
			if tt.number != 0 {
				e.Numbers = []int{tt.number}
			}
			if got := e.Kind(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			// And the same as decoded from an answer.
			if tt.status < 400 || tt.code == "" || tt.suberror != "" {
				return
			}
			c, _ := newClient(t, errorReply(tt.status, tt.code, tt.number))
			_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
			if got := asError(t, err); got.Kind() != tt.want || got.Number() != tt.number || got.Status != tt.status {
				t.Errorf("decoded as %+v, kind %s, want %s", got, got.Kind(), tt.want)
			}
		})
	}
}

func TestErrorMembers(t *testing.T) {
	c, _ := newClient(t, reply{status: 401, header: map[string]string{"Retry-After": "7"}, body: `{"error":"invalid_client",
		"error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: aa-1\r\nCorrelation ID: bb-2\r\nTimestamp: 2026-01-09 02:02:12Z",
		"error_codes":[7000215],"timestamp":"2026-01-09 02:02:12Z","trace_id":"aa-1","correlation_id":"bb-2",
		"suberror":"bad_token","claims":"{\"access_token\":{}}"}`})
	_, err := c.ClientSecret(t.Context(), testClient, secret.New(testSecret), testScope)
	e := asError(t, err)
	if e.Number() != 7000215 || e.TraceID != "aa-1" || e.CorrelationID != "bb-2" || e.Timestamp != "2026-01-09 02:02:12Z" ||
		e.Suberror != "bad_token" || e.Claims != `{"access_token":{}}` || e.RetryAfter != 7*time.Second {
		t.Errorf("got %+v", e)
	}
	want := "get token by client secret: " + hostOf(c.Authority) +
		": HTTP 401: invalid_client: AADSTS7000215: Invalid client secret provided (trace aa-1, correlation bb-2)"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

// Members that are missing are read out of the description.
func TestErrorDescription(t *testing.T) {
	const text = "AADSTS53003: Access has been blocked.\r\nTrace ID: aa-1\r\nCorrelation ID: bb-2\r\nTimestamp: 2026-01-09 02:02:12Z"
	var e Error
	e.describe(text)
	if e.Number() != 53003 || e.TraceID != "aa-1" || e.CorrelationID != "bb-2" || e.Timestamp != "2026-01-09 02:02:12Z" {
		t.Errorf("got %+v", e)
	}
	if e.summary() != "AADSTS53003: Access has been blocked" {
		t.Errorf("got %q", e.summary())
	}
}

// No message runs over its line or drives a terminal.
func TestLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"\r\n  first\r\nsecond", "first"},
		{"a\rb", "a"},
		{"\x1b[31mred\x07\x00", "[31mred"},
		{"tab\there", "tab here"},
		{"rtl\u202e\u200b\u2028x", "rtlx"},
		{"\xff\xfeok", "ok"},
		{strings.Repeat("é", 1000), strings.Repeat("é", 400) + "…"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := line(tt.in); got != tt.want {
			t.Errorf("line(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestErrorWithoutAnswer(t *testing.T) {
	e := &Error{Op: "refresh access token", URL: "https://login.microsoftonline.com:443/t/oauth2/v2.0/token",
		CorrelationID: "sent", Err: fmt.Errorf("dial: %w", context.DeadlineExceeded)}
	if want := "refresh access token: login.microsoftonline.com: dial: context deadline exceeded"; e.Error() != want {
		t.Errorf("got %s, want %s", e, want)
	}
	if !errors.Is(e, context.DeadlineExceeded) {
		t.Error("cause is lost")
	}
	if got := (&Error{Op: "x", Status: http.StatusBadRequest, Code: "invalid_grant", Numbers: []int{50196}}).Error(); got != "x: HTTP 400: invalid_grant: AADSTS50196" {
		t.Errorf("got %s", got)
	}
}

func TestExplain(t *testing.T) {
	movers := []string{you, administrator, microsoft, ourselves}
	seen := map[int]bool{}
	for _, x := range explanations {
		for _, n := range x.numbers {
			got, ok := Explain(n)
			if !ok || seen[n] || got.Number != n {
				t.Errorf("%d: ok %v, twice %v", n, ok, seen[n])
			}
			seen[n] = true
			for _, text := range []string{got.Cause, got.Fix} {
				if text == "" || strings.HasSuffix(text, ".") || strings.Contains(text, "\n") || strings.ToLower(text[:1]) != text[:1] {
					t.Errorf("%d: %q is no hint", n, text)
				}
			}
			if !strings.Contains(strings.Join(movers, "|"), got.Mover) {
				t.Errorf("%d: mover %q", n, got.Mover)
			}
		}
	}
	for n := range kindByNumber {
		if !seen[n] {
			t.Errorf("%d decides a kind and is not explained", n)
		}
	}
	if _, ok := Explain(0); ok {
		t.Error("0 is explained")
	}
}
