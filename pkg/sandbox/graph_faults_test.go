package sandbox

import (
	"strings"
	"testing"
	"time"
)

func TestThrottlingAndServerErrors(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	get := func() response { return graphCall(t, s, bearer, "GET", "/applications", "") }
	s.SetFaults(func(f *Faults) { f.ThrottleNext, f.RetryAfter = 2, 30 })
	for range 2 {
		if r := get(); r.status != 429 || r.header.Get("Retry-After") != "30" || graphCode(r) != "TooManyRequests" {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	if r := get(); r.status != 200 {
		t.Errorf("afterwards: %d", r.status)
	}
	for _, status := range []int{0, 503, 504, 500} {
		s.SetFaults(func(f *Faults) { *f = Faults{ServerErrorNext: 1, ServerErrorStatus: status} })
		want := status
		if want == 0 {
			want = 503
		}
		if r := get(); r.status != want || r.header.Get("Retry-After") != "" || r.body["error"] == nil {
			t.Errorf("%d: %d %s", status, r.status, r.text)
		}
		if r := get(); r.status != 200 {
			t.Errorf("afterwards: %d", r.status)
		}
	}
	s.SetFaults(func(f *Faults) { f.Forbidden = true })
	if r := get(); r.status != 403 || graphCode(r) != "Authorization_RequestDenied" {
		t.Errorf("forbidden: %d", r.status)
	}
	s.SetFaults(func(f *Faults) { f.GraphDown = true })
	if r := get(); r.err == nil {
		t.Errorf("down: %d", r.status)
	}
}

func TestGarbage(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, _ := s.MailApp()
	s.SetFaults(func(f *Faults) { f.GarbageNext = len(garbage) })
	seen := map[string]bool{}
	for range garbage {
		r := graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword", "")
		seen[r.text] = true
		if r.err != nil || len(s.Credentials()) != 0 {
			t.Errorf("carried out, or cut: %v", r.err)
		}
	}
	if len(seen) != len(garbage) {
		t.Errorf("%d kinds of garbage, want %d", len(seen), len(garbage))
	}
	newPassword(t, s, bearer, "afterwards")
}

func TestLostAnswers(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, _ := s.MailApp()
	add := func() response {
		return graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword", `{"passwordCredential":{"displayName":"laptop"}}`)
	}
	s.SetFaults(func(f *Faults) { f.DropAddPassword = 1 })
	if r := add(); r.err == nil || len(s.Credentials()) != 0 {
		t.Errorf("dropped: %d, %d credentials", r.status, len(s.Credentials()))
	}
	s.SetFaults(func(f *Faults) { f.LoseAddPassword = 1 })
	if r := add(); r.err == nil || len(s.Credentials()) != 1 {
		t.Errorf("lost: %d, %d credentials", r.status, len(s.Credentials()))
	}
	if reqs := s.Requests(); reqs[len(reqs)-1].Status != 0 {
		t.Errorf("a cut request has status %d", reqs[len(reqs)-1].Status)
	}
	remove := func() response {
		return graphCall(t, s, bearer, "POST", "/applications/"+object+"/removePassword", `{"keyId":"`+s.Credentials()[0].KeyID+`"}`)
	}
	s.SetFaults(func(f *Faults) { f.DropRemovePassword = 1 })
	if r := remove(); r.err == nil || len(s.Credentials()) != 1 {
		t.Errorf("removal dropped: %d, %d credentials", r.status, len(s.Credentials()))
	}
	s.SetFaults(func(f *Faults) { f.LoseRemovePassword = 1 })
	if r := remove(); r.err == nil || len(s.Credentials()) != 0 {
		t.Errorf("removal lost: %d, %d credentials", r.status, len(s.Credentials()))
	}
}

func TestReplication(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	app := "/applications/" + object
	s.SetFaults(func(f *Faults) { f.ReplicationDelay, f.ListLag = 30*time.Second, 45*time.Second })
	keyID, secret := newPassword(t, s, bearer, "laptop")
	listed := func() bool {
		return strings.Contains(graphCall(t, s, bearer, "GET", app, "").text, keyID)
	}
	accepted := func() bool {
		r := postForm(t, s.tokenURL(), credentialsForm(id, secret, exchangeResource))
		if r.status != 200 && aadsts(r) != 7000215 {
			t.Errorf("%s", r.text)
		}
		return r.status == 200
	}
	remove := func() int {
		return graphCall(t, s, bearer, "POST", app+"/removePassword", `{"keyId":"`+keyID+`"}`).status
	}
	if listed() || accepted() || remove() != 400 || len(s.Credentials()) != 1 {
		t.Fatal("new: seen at once, or removed")
	}
	s.FastForward(31 * time.Second)
	if listed() || !accepted() {
		t.Fatal("after 31 s: accepted, not listed")
	}
	s.FastForward(15 * time.Second)
	if !listed() || !accepted() || remove() != 204 {
		t.Fatal("after 46 s: accepted and listed")
	}
	if !listed() || !accepted() || remove() != 400 || len(s.Credentials()) != 0 {
		t.Fatal("removed: still seen, not to be removed again")
	}
	s.FastForward(31 * time.Second)
	if !listed() || accepted() {
		t.Fatal("31 s later: refused, still listed")
	}
	s.SetFaults(func(f *Faults) { *f = Faults{} })
	if listed() || accepted() {
		t.Fatal("without a delay: gone")
	}
}

func TestPolicies(t *testing.T) {
	s := start(t, &Server{AdminRoles: []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All"}})
	bearer := graphBearer(t, s)
	object, _ := s.MailApp()
	policy := func() response { return graphCall(t, s, bearer, "GET", "/policies/defaultAppManagementPolicy", "") }
	add := func(end time.Time) response {
		return graphCall(t, s, bearer, "POST", "/applications/"+object+"/addPassword",
			`{"passwordCredential":{"endDateTime":"`+end.Format(time.RFC3339)+`"}}`)
	}
	if r := policy(); r.status != 200 || r.body["isEnabled"] != false {
		t.Errorf("none: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.PolicyMaxLifetime = 90 * 24 * time.Hour })
	if r := policy(); r.body["isEnabled"] != true || !strings.Contains(r.text, `"maxLifetime":"P90D"`) || !strings.Contains(r.text, `"passwordLifetime"`) {
		t.Errorf("lifetime: %s", r.text)
	}
	r := add(s.now().AddDate(0, 0, 91))
	if r.status != 400 || graphCode(r) != "CredentialInvalidLifetimeAsPerAppPolicy" || !strings.Contains(r.text, `"code":"InvalidKeyEndDate"`) ||
		!strings.Contains(r.text, `"target":"EndDate"`) {
		t.Errorf("91 days: %d %s", r.status, r.text)
	}
	if r := add(s.now().AddDate(0, 0, 89)); r.status != 200 {
		t.Errorf("89 days: %d %s", r.status, r.text)
	}
	s.SetFaults(func(f *Faults) { f.PolicyForbidsSecrets = true })
	if r := add(s.now().AddDate(0, 0, 1)); r.status != 400 || graphCode(r) != "CredentialTypeNotAllowedAsPerAppPolicy" {
		t.Errorf("forbidden: %d %s", r.status, r.text)
	}
	if r := policy(); !strings.Contains(r.text, `"passwordAddition"`) {
		t.Errorf("forbidden: %s", r.text)
	}
	s.SetFaults(func(f *Faults) { f.PolicyUnreadable = true })
	if r := policy(); r.status != 403 {
		t.Errorf("unreadable: %d", r.status)
	}
}

func TestISODuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		90 * 24 * time.Hour: "P90D", 36 * time.Hour: "P1DT12H", 30 * time.Minute: "PT30M", 90 * time.Second: "PT1M30S", 0: "PT0S",
		24*time.Hour + time.Second: "P1DT1S",
	} {
		if got := isoDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
