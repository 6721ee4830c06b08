package explain

import "testing"

// TestTopics: each reply that says no more than no can be narrowed down, to
// nothing that was looked at.
func TestTopics(t *testing.T) {
	all := []Topic{ObjectID, Role, ScopedRole, FullAccess, PersonRights, PersonScope, IMAPSwitch, POPSwitch, OtherAddress, MailboxOnline, Audience, Propagation}
	seen := map[Topic]bool{}
	for _, code := range []string{"AUTHENTICATE failed", "unknown user name or bad password", "5.7.3", "authenticated but not connected"} {
		x, ok := Exchange(code)
		if !ok {
			t.Fatalf("%s is not explained", code)
		}
		for _, topic := range all {
			only, without := x.Only(topic), x.Without(topic)
			if len(only)+len(without) != len(x.Remedies()) || len(only) > 1 {
				t.Errorf("%s, %s: %d and %d of %d", code, topic, len(only), len(without), len(x.Remedies()))
			}
			for _, r := range only {
				seen[topic] = true
				if !r.About(topic) {
					t.Errorf("%s: %q is not about %s", code, r.Cause, topic)
				}
			}
		}
		if len(x.Remedies()) != 1+len(x.More) {
			t.Errorf("%s has changed", code)
		}
	}
	for _, topic := range all {
		if !seen[topic] {
			t.Errorf("nothing is about %s", topic)
		}
	}
	if x, _ := AADSTS(53003); x.Remedy.About(all...) {
		t.Errorf("%q has a topic", x.Cause)
	}
}
