package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// hooksOf is a hooks that nothing runs, so that its queues can be looked at.
func hooksOf(c config.Hooks, log *slog.Logger) *hooks {
	h := &hooks{configured: func() config.Hooks { return c }, records: func() []apppassword.Record { return nil }, told: &apppassword.UsageRecorder{}, now: time.Now, log: log, certificates: func() []certificateEnd { return nil }}
	return h.ready()
}

// queued takes what waits for a hook.
func (h *hooks) queued(k hook) []hookRun {
	var list []hookRun
	for {
		select {
		case r := <-h.queues[k]:
			list = append(list, r)
		default:
			return list
		}
	}
}

var allHooks = config.Hooks{OnExpiring: "x", OnSignInRequired: "x", OnRefused: "x", OnDecoy: "x"}

func refusedBy(reason gateway.Reason, cause error) gateway.Event {
	return gateway.Event{
		Kind: gateway.Refused, Time: time.Date(2026, 11, 24, 12, 0, 0, 5, time.UTC), Protocol: gateway.IMAP, Remote: netip.MustParseAddrPort("192.0.2.7:4711"),
		User: "typed", Grant: gateway.Grant{ID: "1", Name: "Outlook on Mac", Profile: "work"}, Reason: reason, Cause: cause,
	}
}

// TestHookFlood: ten refusals a minute are told one by one, the others by
// their number.
func TestHookFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hooksOf(allHooks, slog.New(slog.DiscardHandler))
		for range 1000 {
			h.observe(refusedBy(gateway.BadCredentials, nil))
		}
		if n := len(h.queued(onRefused)); n != refusedPerMinute {
			t.Errorf("%d at once", n)
		}
		time.Sleep(59 * time.Second)
		h.observe(refusedBy(gateway.BadCredentials, nil))
		synctest.Wait()
		if n := len(h.queued(onRefused)); n != 0 {
			t.Errorf("%d within the minute", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if list := h.queued(onRefused); len(list) != 1 || list[0].event.Count != 991 || list[0].event.User != "" || !strings.Contains(list[0].event.Message, "991 more") {
			t.Errorf("after the minute: %+v", list)
		}
		h.observe(refusedBy(gateway.BadCredentials, nil))
		if list := h.queued(onRefused); len(list) != 1 || list[0].event.Count != 1 || list[0].event.User != "typed" {
			t.Errorf("in the next minute: %+v", list)
		}
	})
}

// TestHookQueueIsBounded: nobody waits for a command that takes its time.
func TestHookQueueIsBounded(t *testing.T) {
	var out strings.Builder
	h := hooksOf(allHooks, slog.New(slog.NewTextHandler(&out, nil)))
	for range hookQueue + 3 {
		h.observe(refusedBy(gateway.DecoyUsed, nil))
	}
	if n := len(h.queued(onDecoy)); n != hookQueue {
		t.Errorf("%d wait", n)
	}
	if n := strings.Count(out.String(), "an event is dropped"); n != 3 {
		t.Errorf("%d warnings:\n%s", n, out.String())
	}
	if n := len(h.queued(onRefused)); n != 0 {
		t.Errorf("a decoy was told as %d refusals too", n)
	}
	none := hooksOf(config.Hooks{}, slog.New(slog.DiscardHandler))
	for _, reason := range []gateway.Reason{gateway.DecoyUsed, gateway.BadCredentials, gateway.Policy} {
		none.observe(refusedBy(reason, &entra.Error{Code: "invalid_client", Status: 401}))
	}
	for k := range none.queues {
		if n := len(none.queued(k)); n != 0 {
			t.Errorf("%d wait for %s, which is not configured", n, k)
		}
	}
}

func TestHookSignInRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hooksOf(allHooks, slog.New(slog.DiscardHandler))
		secretGone := fmt.Errorf("wrapped: %w", &entra.Error{Code: "invalid_client", Status: 401, Numbers: []int{7000215}})
		outage := &entra.Error{Status: 503}
		for _, e := range []gateway.Event{
			refusedBy(gateway.Revoked, nil), refusedBy(gateway.Revoked, outage), refusedBy(gateway.Policy, errors.New("the mailbox is not connected")),
			refusedBy(gateway.Unavailable, secretGone), {Kind: gateway.SignedIn, Grant: gateway.Grant{ID: "1"}},
			{Kind: gateway.SessionEnded, Grant: gateway.Grant{ID: "1"}, Cause: secretGone},
		} {
			h.observe(e)
		}
		if list := h.queued(onSignInRequired); len(list) != 0 {
			t.Errorf("told without need: %+v", list)
		}
		ended := gateway.Event{Kind: gateway.SessionEnded, Time: time.Now(), Grant: gateway.Grant{ID: "1", Name: "Outlook on Mac"}, Reason: gateway.Revoked, Cause: secretGone}
		h.observe(ended)
		h.observe(refusedBy(gateway.Revoked, secretGone))
		list := h.queued(onSignInRequired)
		if len(list) != 1 {
			t.Fatalf("told %d times", len(list))
		}
		e := list[0].event
		if e.Event != "sign-in-required" || e.Number != 7000215 || e.Mover != "you" || !strings.Contains(e.Fix, "o365pw revoke 'Outlook on Mac'") ||
			!strings.Contains(e.Message, "AADSTS7000215") || !strings.Contains(e.Message, "(you)") || e.User != "" {
			t.Errorf("%+v", e)
		}
		other := refusedBy(gateway.Policy, &entra.Error{Code: "invalid_grant", Status: 400, Numbers: []int{53003}})
		other.Grant.ID = "2"
		h.observe(other)
		if list := h.queued(onSignInRequired); len(list) != 1 || list[0].event.ID != "2" {
			t.Errorf("of another: %+v", list)
		}
		// Entra need not have been asked.
		for i, tc := range []struct {
			reason     gateway.Reason
			cause      error
			fix, holds string
		}{
			{gateway.SignInRequired, &apppassword.RefusedError{Reason: apppassword.SignInAgain, Err: &apppassword.SignInError{Profile: "work"}}, "o365pw login", "has ended"},
			{gateway.Policy, &apppassword.RefusedError{Reason: apppassword.TenantRefuses, Err: &apppassword.CertificateError{Expired: time.Now(), Err: errors.New("it has expired")}}, "", "it has expired"},
		} {
			e := refusedBy(tc.reason, refusal(tc.cause))
			e.Grant.ID = fmt.Sprint("unasked ", i)
			h.observe(e)
			list := h.queued(onSignInRequired)
			if len(list) != 1 || (tc.fix == "") != (list[0].event.Fix == "") || !strings.Contains(list[0].event.Fix, tc.fix) || !strings.Contains(list[0].event.Message, tc.holds) {
				t.Errorf("%v: %+v", tc.cause, list)
			}
		}
		time.Sleep(signInEvery - time.Second)
		h.observe(ended)
		if list := h.queued(onSignInRequired); len(list) != 0 {
			t.Errorf("within the hour: %+v", list)
		}
		time.Sleep(time.Second)
		h.observe(ended)
		if list := h.queued(onSignInRequired); len(list) != 1 {
			t.Errorf("after the hour: %+v", list)
		}
	})
}

// TestHookSignInEnded: a person's own sign-in that has ended is told whether
// Entra has said so or nobody is signed in any more.
func TestHookSignInEnded(t *testing.T) {
	for name, tc := range map[string]struct {
		cause  error
		number int
		holds  string
	}{
		"no sign-in is left": {errors.New("nobody is signed in"), 0, "has ended"},
		"Entra has ended it": {&entra.Error{Code: "invalid_grant", Status: 400, Numbers: []int{700082}}, 700082, "AADSTS700082"},
	} {
		t.Run(name, func(t *testing.T) {
			h := hooksOf(allHooks, slog.New(slog.DiscardHandler))
			e := refusedBy(gateway.SignInRequired, tc.cause)
			e.Grant = gateway.Grant{ID: "1", Name: "mutt"}
			h.observe(e)
			list := h.queued(onSignInRequired)
			if len(list) != 1 {
				t.Fatalf("told %d times", len(list))
			}
			got := list[0].event
			if got.Number != tc.number || got.Mover != "you" || !strings.Contains(got.Fix, "o365pw login") || !strings.Contains(got.Message, tc.holds) ||
				!strings.Contains(got.Message, "mutt") || got.Reason != "sign-in-required" {
				t.Errorf("%+v", got)
			}
			if n := len(h.queued(onRefused)); n != 1 {
				t.Errorf("on_refused was told %d times", n)
			}
		})
	}
}

// TestHookExpiring: an app password's life from its first day to its last.
func TestHookExpiring(t *testing.T) {
	const day = 24 * time.Hour
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rec := apppassword.Record{ID: "1", Name: "mutt", Profile: "work", Mailboxes: []string{"alice@contoso.com"}, Created: created, Expires: created.Add(100 * day)}
	now := created
	told := &apppassword.UsageRecorder{}
	start := func() *hooks { // a gateway is started again every day
		h := hooksOf(allHooks, slog.New(slog.DiscardHandler))
		h.told, h.now, h.records = told, func() time.Time { return now }, func() []apppassword.Record { return []apppassword.Record{rec} }
		return h
	}
	var days []int
	live := func(life int) []int {
		days = nil
		for d := range life + 2 {
			now = created.Add(time.Duration(d)*day + time.Minute)
			h := start()
			for range 3 {
				h.checkExpiries()
				for _, r := range h.queued(onExpiring) {
					days = append(days, r.event.DaysLeft)
					if e := r.event; e.Event != "expiring" || !e.Expires.Equal(rec.Expires) || e.AppPassword != "mutt" || e.Mailbox != "alice@contoso.com" {
						t.Errorf("%+v", e)
					}
					r.done()
				}
			}
		}
		return days
	}
	if got := live(100); !slices.Equal(got, []int{30, 7, 1}) {
		t.Errorf("a hundred days: told with %v left", got)
	}
	told, rec.Expires = &apppassword.UsageRecorder{}, created.Add(7*day)
	if got := live(7); !slices.Equal(got, []int{1}) {
		t.Errorf("seven days: told with %v left", got)
	}
	told, rec.Revoked = &apppassword.UsageRecorder{}, created
	if got := live(7); len(got) != 0 {
		t.Errorf("revoked: told with %v left", got)
	}

	// What was not carried out is told again.
	told, rec.Revoked = &apppassword.UsageRecorder{}, time.Time{}
	now = rec.Expires.Add(-time.Hour)
	for range 2 {
		h := start()
		h.checkExpiries()
		if n := len(h.queued(onExpiring)); n != 1 {
			t.Errorf("told %d times", n)
		}
	}
}

func TestHookEnviron(t *testing.T) {
	keep := []string{"HOME=/home/a", "PATH=/bin", "EMPTY=", "=C:=C:\\", "MAILTO=admin@contoso.com", "HTTPS_PROXY=http://proxy:3128", "REPO=https://git@example.com/x", "LANG=C.UTF-8"}
	drop := []string{
		"O365PW_KEYCHAIN_PASSPHRASE=x", "O365PW_CONFIG=x", "AZURE_CLIENT_ID=x", "ACTIONS_ID_TOKEN_REQUEST_URL=x", "GITHUB_TOKEN=x", "my_secret_key=x",
		"PGPASSWORD=x", "SshPassPhrase=x", "azure_tenant_id=x", "NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=1", "CREDENTIALS_DIRECTORY=/run/x", "LISTEN_FDS=3", "LISTEN_PID=1", "LISTEN_FDNAMES=imap",
		"HTTPS_PROXY=http://me:hunter2@proxy:3128", "https_proxy=me:hunter2@proxy:3128", "DATABASE_URL=postgres://me:hunter2@db/x", "BROKEN=http://me:100%@db/x",
	}
	if got := childEnviron(slices.Concat(drop, keep, drop)); !slices.Equal(got, keep) {
		t.Errorf("%q", got)
	}
}

// TestRefusedMessages: each reason has its own words.
func TestRefusedMessages(t *testing.T) {
	for _, reason := range []gateway.Reason{gateway.BadCredentials, gateway.ProtocolNotAllowed, gateway.NetworkNotAllowed, gateway.MailboxNotAllowed,
		gateway.Expired, gateway.Revoked, gateway.Unavailable, gateway.Policy, gateway.SignInRequired} {
		e := refusedEvent(refusedBy(reason, errors.New("not for hooks")))
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Message) < 60 || e.Address != "192.0.2.7" || strings.Contains(string(b), "not for hooks") || strings.Contains(string(b), "4711") {
			t.Errorf("%s", b)
		}
	}
}
