package cli

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/explain"
)

// TestRunChecks: each check after what it needs, none whose need is not met,
// not too many at once, and their order in the end.
func TestRunChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		took := func(status checkStatus) func(context.Context) result {
			return func(ctx context.Context) result {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(time.Second)
				return result{status: status}
			}
		}
		checks := []check{
			{id: "last", title: "Last", needs: []string{"a"}, after: []string{"bad", "nowhere"}, run: took(checkOK)},
			{id: "a", title: "A", run: took(checkOK)},
			{id: "bad", title: "Bad", run: took(checkFailed)},
			{id: "behind", title: "Behind", needs: []string{"bad"}, run: took(checkOK)},
			{id: "far behind", title: "Far behind", needs: []string{"behind"}, run: took(checkOK)},
			{id: "warned", title: "Warned", run: took(checkWarning)},
			{id: "after a warning", title: "After", needs: []string{"warned"}, run: took(checkOK)},
			{id: "away", title: "Away", run: func(context.Context) result { return result{status: checkWarning, blocks: true} }},
			{id: "behind it", title: "Behind it", needs: []string{"away"}, run: took(checkOK)},
			{id: "without", title: "Without", needs: []string{"nowhere"}, run: took(checkOK)},
		}
		for i := range 20 {
			checks = append(checks, check{id: string(rune('A' + i)), title: "x", run: took(checkOK)})
		}
		began := time.Now()
		var order []string
		var seen atomic.Int32
		results := runChecks(t.Context(), checks, func(check) { seen.Add(1) })
		for i, r := range results[:10] {
			order = append(order, checks[i].id+" "+string(r.status))
		}
		want := []string{"last ok", "a ok", "bad failed", "behind skipped", "far behind skipped", "warned warning", "after a warning ok", "away warning", "behind it skipped", "without skipped"}
		if !slices.Equal(order, want) {
			t.Errorf("%q", order)
		}
		if results[4].detail != `needs "Behind"` {
			t.Errorf("%q", results[4].detail)
		}
		if most.Load() != checksAside || seen.Load() != int32(len(checks)-4) {
			t.Errorf("%d at once, %d begun", most.Load(), seen.Load())
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("it took %s", d)
		}
	})
}

// TestRunChecksInterrupted: what is known by then is told, nothing is waited
// for, and a failure that the interruption has caused is none.
func TestRunChecksInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		began := time.Now()
		results := runChecks(ctx, []check{
			{id: "quick", run: func(context.Context) result { time.Sleep(time.Second); return passed("x") }},
			{id: "slow", run: func(ctx context.Context) result {
				<-ctx.Done()
				return result{status: checkFailed}
			}},
			{id: "deaf", run: func(context.Context) result { time.Sleep(time.Hour); return passed("x") }},
			{id: "behind", needs: []string{"deaf"}, run: func(context.Context) result { return passed("x") }},
		}, func(check) {})
		var got []string
		for _, r := range results {
			got = append(got, string(r.status)+" "+r.detail)
		}
		if want := []string{"ok x", "skipped interrupted", "skipped interrupted", "skipped interrupted"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if d := time.Since(began); d != 1500*time.Millisecond {
			t.Errorf("after %s", d)
		}
		time.Sleep(2 * time.Hour) // for the deaf one
	})
}

// TestChecksLimit: no check goes on for longer than its limit.
func TestChecksLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		wait := func(ctx context.Context) result { <-ctx.Done(); return skipped("%v", ctx.Err()) }
		runChecks(t.Context(), []check{{id: "own", limit: time.Second, run: wait}}, func(check) {})
		if d := time.Since(began); d != time.Second {
			t.Errorf("%s", d)
		}
		runChecks(t.Context(), []check{{id: "common", run: wait}}, func(check) {})
		if d := time.Since(began); d != time.Second+checkLimit {
			t.Errorf("%s", d)
		}
	})
}

func TestMask(t *testing.T) {
	const kept, other = "93b6f17e-1111-4222-8333-123456789abc", "0f0f0f0f-1111-4222-8333-123456789abc"
	m := &masker{kept: []string{kept}, known: map[string]string{}, count: map[string]int{}}
	m.hide("tenant", "Contoso.onmicrosoft.com")
	m.hide("profile", "work")
	m.hide("host", "mail-gw")
	m.host("mx.contoso.com")
	m.host("outlook.office365.com")
	m.host("notoffice365.com")
	for _, a := range []string{"alice@contoso.com", "Anna@contoso.com", "bob@cargo.com"} {
		m.address(a)
	}
	for in, want := range map[string]string{
		"alice@contoso.com and ALICE@CONTOSO.COM":                        "a***@c***.com and a***@c***.com",
		"anna@contoso.com, bob@cargo.com":                                "a***2@c***.com, b***@c***2.com",
		"stranger@fabrikam.example":                                      "s***@f***.example",
		"@contoso.com":                                                   "@c***.com",
		"tenant contoso.onmicrosoft.com":                                 "tenant c***.onmicrosoft.com",
		"request-id " + kept:                                             "request-id " + kept,
		"id " + other + ", " + strings.ToUpper(other):                    "id id-1, id-1",
		"to 192.0.2.7:993 by [2001:db8::7]:993, 127.0.0.1:1, [::1]:2":    "to address-1:993 by address-2:993, 127.0.0.1:1, [::1]:2",
		"dial 192.0.2.7":                                                 "dial address-1",
		"at 12:31:17, good until 2027-12-26T10:00:00Z":                   "at 12:31:17, good until 2027-12-26T10:00:00Z",
		"https://login.microsoftonline.com/x, outlook.office365.com:993": "https://login.microsoftonline.com/x, outlook.office365.com:993",
		"mx.contoso.com:993 on MAIL-GW":                                  "host-2:993 on host-1",
		"notoffice365.com":                                               "host-3",
		"profile work, network, works, homework":                         "profile profile-1, network, works, homework",
		"http://me:hunter2@proxy.example":                                "http://proxy.example",
		"AADSTS7000215 5.7.139 IMAP.AccessAsApp":                         "AADSTS7000215 5.7.139 IMAP.AccessAsApp",
	} {
		if got := m.mask(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzMask: nothing that is known is left as a word of its own, whatever is
// around it.
func FuzzMask(f *testing.F) {
	f.Add("to alice@contoso.com: no", "https://x")
	f.Add("<alice@contoso.com>", "\"work\"")
	f.Add("a.alice@contoso.com", "[2001:db8::1]")
	f.Fuzz(func(t *testing.T, before, after string) {
		m := &masker{known: map[string]string{}, count: map[string]int{}}
		m.hide("profile", "Scanner on floor 3")
		m.address("alice@contoso.com")
		got := m.mask(before + " alice@contoso.com Scanner on floor 3 11111111-2222-4333-8444-555555555555 " + after)
		for _, secret := range []string{"alice@contoso.com ", "11111111-2222-4333-8444-555555555555"} {
			if strings.Contains(got, " "+secret) {
				t.Errorf("%q", got)
			}
		}
	})
}

// TestPermissionsAreExplained: how each protocol refuses has an entry that can
// be narrowed down.
func TestPermissionsAreExplained(t *testing.T) {
	for p, of := range permissionsFor {
		x, ok := explain.Exchange(of.refusal)
		if !ok || len(x.Only(explain.ObjectID)) != 1 || len(x.Only(explain.Role)) != 1 || len(x.Only(explain.PersonRights)) != 1 {
			t.Errorf("%s: %q is not explained", p, of.refusal)
		}
		if protocolOf(of.role) != p || protocolOf(of.scope) != p || whatFor[p] == "" {
			t.Errorf("%s: its permissions are not known", p)
		}
		if first := personFirst(x, nil)[0]; !first.About(explain.PersonRights) || len(personFirst(x, nil)) != len(x.Remedies()) {
			t.Errorf("%s: %q is first", p, first.Cause)
		}
	}
	if protocolOf("Mail.Send") != "" {
		t.Error("Mail.Send is for no protocol here")
	}
}
